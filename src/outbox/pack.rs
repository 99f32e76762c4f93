//! Packing what waits long, in the background: a few blocks a transaction, none of it in the way of an acknowledgement.
//!
//! Rows are read and compressed beside the writer; its part is to put blocks in their place, and it does that in a
//! transaction that happens anyway. All of the single rows go together if that can be; where it cannot, what is cold of
//! a stream does, and the newest rows stay.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::arrive::MAX_BLOCK_BODY_BYTES;
use super::block::{BlockRow, MAX_BODY_BYTES, MAX_ROWS, Packed};
use super::config::PackConfig;
use super::error::Error;
use super::pack_all::{self, Part, Plan};
use super::packs;
use super::pick::intact;
use super::queue::Outbox;
use super::size::{block_bytes, stored_bytes};
use crate::store::{self, Tx};

/// Blocks in one transaction: about a thousand rows, one or two milliseconds of the writer.
const STEP_BLOCKS: usize = 4;
/// Rows that nothing can follow become a block if they are at least this part of a full one.
const LEAST: usize = 8;
/// Cold rows that others will follow become a block when they are this part of a full one, in rows or in bytes.
pub(super) const ENOUGH: usize = 2;
/// Between two looks when nothing was cold: a fast queue grows by no more than can be packed together.
const LOOK: Duration = Duration::from_secs(1);
/// Looks for one at each stream by itself.
const BY_STREAM: u64 = 10;
/// Between two steps: leaves the disk and the readers to others.
const PAUSE: Duration = Duration::from_millis(20);

/// Where to look in one stream.
#[derive(Clone)]
pub(super) struct Candidate {
    pub(super) at: usize,
    pub(super) no: i64,
    /// Everything up to here is acknowledged.
    pub(super) settled: u64,
    from: u64,
    last: u64,
}

/// Which rows have waited long.
pub(super) struct Cold {
    pub(super) this_boot: Option<i64>,
    /// Older than this time since boot.
    pub(super) old_ms: i64,
}

impl Cold {
    fn new(connection: &Connection, config: &PackConfig, since_boot: Duration) -> Result<Self, store::Error> {
        let newest = "SELECT max(boot_no) FROM boot";
        let this_boot = connection.prepare_cached(newest)?.query_row([], |row| row.get(0)).optional()?.flatten();
        let now_ms = i64::try_from(since_boot.as_millis()).unwrap_or(i64::MAX);
        Ok(Self { this_boot, old_ms: now_ms.saturating_sub_unsigned(config.after_s * 1000) })
    }

    fn is_old(&self, row: &BlockRow) -> bool {
        Some(row.stored.boot_no) != self.this_boot || row.stored.boot_ms < self.old_ms
    }
}

/// A block for the writer.
struct Ready {
    at: usize,
    packed: Packed,
    age: (i64, i64),
}

/// What a look at the streams found.
#[derive(Default)]
struct Looked {
    ready: Vec<Ready>,
    /// Numbers below are packed or cannot be, by stream.
    passed: Vec<(usize, u64)>,
}

impl Outbox {
    /// Packs what waits singly if it is much or has waited long; returns the rows. 0: there is nothing to pack now.
    pub async fn pack_cold(&self) -> Result<u64, Error> {
        self.pack_step(true).await
    }

    /// `by_stream`: what cannot be packed together is looked for stream by stream, which costs more.
    async fn pack_step(&self, by_stream: bool) -> Result<u64, Error> {
        let candidates = self.cold_candidates();
        if candidates.is_empty() {
            return Ok(0);
        }
        let (config, since_boot) = (self.config.pack.clone(), self.clock.since_boot());
        let scattered = self.state.scattered_rows.load(Ordering::Relaxed);
        let look_at = move |connection: &Connection| {
            let cold = Cold::new(connection, &config, since_boot)?;
            let plan = pack_all::plan(connection, &candidates, &config, &cold, scattered)?;
            if by_stream && !matches!(plan, Plan::Parts(_)) {
                return Ok((plan, look(connection, candidates, &config, &cold)?));
            }
            Ok((plan, Looked::default()))
        };
        let (plan, looked) = self.reader.read(look_at).await?;
        match plan {
            Plan::Parts(parts) => return self.write_all(parts).await,
            Plan::Scattered { rows } => self.state.scattered_rows.store(rows, Ordering::Relaxed),
            Plan::Nothing => {}
        }
        let Looked { ready, passed } = looked;
        let rows = ready.iter().map(|ready| ready.packed.count).sum();
        if rows > 0 {
            self.write_blocks(ready).await?;
        }
        let mut streams = self.state.lock();
        for (at, passed) in passed {
            streams.all[at].packed_until = passed;
        }
        Ok(rows)
    }

    async fn write_all(&self, parts: Vec<Part>) -> Result<u64, Error> {
        let (state, bytes) = (Arc::clone(&self.state), parts.iter().map(Part::body_bytes).sum());
        let (tell, told) = oneshot::channel();
        let packed = Arc::new(AtomicU64::new(0));
        let rows = Arc::clone(&packed);
        let work = move |tx: &Tx<'_>| {
            rows.store(pack_all::replace_all(tx, &mut state.join(tx), parts)?, Ordering::Relaxed);
            Ok(())
        };
        self.writer.ride(bytes, work, move |outcome| drop(tell.send(outcome))).await.map_err(store::Error::from)?;
        told.await.map_err(|_| store::Error::Closed(store::Closed))?.map_err(store::Error::Commit)?;
        Ok(packed.load(Ordering::Relaxed))
    }

    async fn write_blocks(&self, ready: Vec<Ready>) -> Result<(), Error> {
        let state = Arc::clone(&self.state);
        let bytes = ready.iter().map(|ready| ready.packed.body.len()).sum();
        let (tell, told) = oneshot::channel();
        let work = move |tx: &Tx<'_>| {
            for Ready { at, packed, age } in &ready {
                let mut streams = state.stage(tx, *at);
                packs::replace_rows(tx, &mut streams.all[*at], packed, *age)?;
            }
            Ok(())
        };
        self.writer.ride(bytes, work, move |outcome| drop(tell.send(outcome))).await.map_err(store::Error::from)?;
        told.await.map_err(|_| store::Error::Closed(store::Closed))?.map_err(store::Error::Commit)?;
        Ok(())
    }

    /// Packs until `stop`, with pauses.
    pub async fn pack_until(self, stop: CancellationToken) {
        if self.config.pack.after_s == 0 {
            return;
        }
        let mut looks = 0_u64;
        loop {
            let pause = match self.pack_step(looks.is_multiple_of(BY_STREAM)).await {
                Ok(0) => {
                    looks += 1;
                    LOOK
                }
                Ok(_) => PAUSE,
                Err(error) => {
                    looks += 1;
                    tracing::debug!(error = %error, "rows were not packed; they wait as they are");
                    LOOK
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn cold_candidates(&self) -> Vec<Candidate> {
        let streams = self.state.lock();
        let least = (self.config.pack.block_rows / LEAST) as u64;
        let long =
            streams.all.iter().enumerate().filter(|(_, stream)| stream.rows > least && stream.last > stream.settled);
        long.map(|(at, stream)| Candidate {
            at,
            no: stream.no,
            settled: stream.settled,
            from: stream.packed_until.max(stream.settled + 1),
            last: stream.last,
        })
        .collect()
    }
}

fn look(
    connection: &Connection,
    candidates: Vec<Candidate>,
    config: &PackConfig,
    cold: &Cold,
) -> Result<Looked, store::Error> {
    let block_rows = config.block_rows.clamp(1, MAX_ROWS);
    let mut looked = Looked::default();
    for Candidate { at, no, mut from, last, .. } in candidates {
        let is_cold = |row: &BlockRow| {
            let deep = row.stored.seq.cast_unsigned().saturating_add(config.keep_rows) <= last;
            deep || cold.is_old(row)
        };
        while looked.ready.len() < STEP_BLOCKS {
            let Run { rows, bytes, more } = run(connection, no, from, block_rows, is_cold)?;
            let Some(end) = rows.last().map(|row| row.stored.seq.cast_unsigned()) else {
                match more {
                    // Something that cannot be packed.
                    Some(next) => from = next,
                    None => break,
                }
                continue;
            };
            let enough = rows.len() >= block_rows / ENOUGH || bytes >= MAX_BODY_BYTES / ENOUGH;
            if more.is_none() && !enough {
                // It will grow.
                break;
            }
            if rows.len() >= block_rows / LEAST {
                let age = (rows[0].stored.boot_no, rows[0].stored.boot_ms);
                let single: u64 = rows.iter().map(|row| stored_bytes(row.body.len() as u64)).sum();
                let packed = Packed::of(&rows).filter(|packed| block_bytes(packed.body.len() as u64) < single);
                looked.ready.extend(packed.map(|packed| Ready { at, packed, age }));
            }
            from = more.unwrap_or(end + 1);
        }
        looked.passed.push((at, from));
    }
    Ok(looked)
}

/// Consecutive cold rows.
struct Run {
    rows: Vec<BlockRow>,
    /// Of their bodies.
    bytes: usize,
    /// Where to go on behind something that ended the run for good; `None` if the run ends where cold rows end.
    more: Option<u64>,
}

fn run(
    connection: &Connection,
    no: i64,
    from: u64,
    most: usize,
    is_cold: impl Fn(&BlockRow) -> bool,
) -> Result<Run, store::Error> {
    let mut statement = connection.prepare_cached(
        "SELECT seq, wall_ms, boot_ms, boot_no, clock_state, checksum, body FROM outbox_row
         WHERE stream_no = ?1 AND seq >= ?2 ORDER BY seq",
    )?;
    let mut found = statement.query((no, from.cast_signed()))?;
    let (mut rows, mut bytes) = (Vec::<BlockRow>::new(), 0);
    while let Some(row) = found.next()? {
        let seq = row.get::<_, i64>(0)?;
        if rows.last().is_some_and(|before| before.stored.seq + 1 != seq) {
            return Ok(Run { rows, bytes, more: Some(seq.cast_unsigned()) });
        }
        // A damaged row stays where it is: whoever sends it finds it.
        let Some((stored, body)) = intact(no, row)? else {
            return Ok(Run { rows, bytes, more: Some(seq.cast_unsigned() + 1) });
        };
        if body.len() > MAX_BLOCK_BODY_BYTES {
            return Ok(Run { rows, bytes, more: Some(seq.cast_unsigned() + 1) });
        }
        let checksum = stored.checksum(&body);
        let row = BlockRow { stored, checksum, body };
        if !is_cold(&row) {
            return Ok(Run { rows, bytes, more: None });
        }
        if rows.len() == most || bytes + row.body.len() > MAX_BODY_BYTES {
            return Ok(Run { rows, bytes, more: Some(seq.cast_unsigned()) });
        }
        bytes += row.body.len();
        rows.push(row);
    }
    Ok(Run { rows, bytes, more: None })
}

#[cfg(test)]
mod tests;
