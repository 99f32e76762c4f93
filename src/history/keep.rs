//! Moving what has arrived into blocks, in the background: a few blocks a transaction, none of it in the way of an
//! acknowledgement.
//!
//! Readings are gathered and compressed beside the writer; its part is to insert blocks, in a transaction that happens
//! anyway, and to empty the table when everything in it is in blocks. Between the two a reading is in both, and readers
//! take the block's: so a move that a kill cut short is simply made again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::arrival::{self, Order};
use super::block::{self, Block, Head};
use super::columns::{fitting, weight};
use super::incoming::{Frozen, Incoming};
use super::walk;
use super::{History, Reading, StreamNo};
use crate::store::{self, Error, Reader, Tx, Writer};

/// Readings that are in memory at a time, and about how many bytes of them.
const STEP_READINGS: usize = 8192;
const STEP_BYTES: usize = 2 << 20;
/// Blocks in one transaction: a millisecond or two of the writer.
const STEP_BLOCKS: usize = 32;
/// Bytes of them: a ride that finds no room fails with the inserts that it rides with, so it asks for little.
const STEP_WRITTEN_BYTES: u64 = 256 << 10;
/// Blocks that leave in one transaction.
const STEP_REMOVED: usize = 256;
/// A stream's last block is made anew with what follows it if it has less than this part of a full one, and few bytes.
const SMALL: usize = 4;
const SMALL_BYTES: u64 = 8 << 10;
/// Readings of an older release's table that become blocks in one transaction.
const STEP_OLD: usize = 1024;
/// Between two looks when there was nothing to do.
const LOOK: Duration = Duration::from_secs(5);
/// Between two steps: leaves the disk and the readers to others.
const PAUSE: Duration = Duration::from_millis(20);

/// A block for the writer.
struct Ready {
    stream_no: i64,
    block: Block,
    /// The small block that it begins with.
    replaces: Option<i64>,
    /// Readings up to here are no longer kept.
    forget: u64,
}

/// A table on its way into blocks.
struct Moving {
    frozen: Frozen,
    /// Its streams that are not in blocks yet, with readings and bytes of each.
    streams: VecDeque<(i64, u64, u64)>,
}

/// What a look at a part of a table found.
struct Found {
    ready: Vec<Ready>,
    /// There is more of these streams.
    is_cut_short: bool,
}

/// Looks after history in the background.
pub struct Keeper {
    incoming: Arc<Incoming>,
    reader: Reader,
    writer: Writer,
    moving: Option<Moving>,
    is_counted: bool,
    has_old: bool,
}

impl History {
    /// What looks after this history. Without it what arrives stays as it came, and the older half goes when there is too
    /// much of it.
    pub fn keeper(&self, reader: Reader, writer: Writer) -> Keeper {
        let incoming = Arc::clone(&self.incoming);
        Keeper { incoming, reader, writer, moving: None, is_counted: false, has_old: true }
    }
}

impl Keeper {
    /// Steps until `stop`, with pauses.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let stepped = tokio::select! {
                () = stop.cancelled() => return,
                stepped = self.step() => stepped,
            };
            let pause = match stepped {
                Ok(true) => PAUSE,
                Ok(false) => LOOK,
                Err(error) => {
                    tracing::debug!(error = %error, "readings were not moved into blocks; they wait as they are");
                    self.moving = None;
                    LOOK
                }
            };
            let froze = async {
                if pause == LOOK { self.incoming.froze.notified().await } else { std::future::pending().await }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = froze => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Does a little of what there is to do. False: there is nothing to do now.
    pub async fn step(&mut self) -> Result<bool, Error> {
        if !self.is_counted {
            self.count().await?;
            return Ok(true);
        }
        if self.moving.is_none()
            && let Some(frozen) = self.incoming.frozen()
        {
            self.plan(frozen).await?;
            return Ok(true);
        }
        if let Some(moving) = self.moving.take() {
            return self.move_some(moving).await;
        }
        if self.has_old {
            return self.move_old().await;
        }
        if !self.incoming.can_give() || self.excess().await? == 0 {
            return Ok(false);
        }
        let before = self.incoming.total();
        let incoming = Arc::clone(&self.incoming);
        self.ride(0, move |tx| incoming.settle(tx, 0, 0, STEP_REMOVED)).await?;
        Ok(self.incoming.total() < before)
    }

    /// Bytes that history has and may not have.
    async fn excess(&self) -> Result<u64, Error> {
        let used = |connection: &Connection| {
            let pragma = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
            let pages = pragma("PRAGMA page_count")? - pragma("PRAGMA freelist_count")?;
            Ok(pages.max(0).cast_unsigned() * pragma("PRAGMA page_size")?.cast_unsigned())
        };
        Ok(self.incoming.excess(self.reader.read(used).await?))
    }

    async fn count(&mut self) -> Result<(), Error> {
        let incoming = Arc::clone(&self.incoming);
        self.ride(0, move |tx| incoming.take_up(tx)).await?;
        let bytes = self.reader.read(block::all_bytes).await?;
        self.incoming.count_blocks(bytes);
        self.is_counted = true;
        Ok(())
    }

    async fn plan(&mut self, frozen: Frozen) -> Result<(), Error> {
        let streams = self.reader.read(move |connection| arrival::contents(connection, frozen.table)).await?;
        let sum = |of: fn(&(i64, u64, u64)) -> u64| streams.iter().map(of).sum();
        self.incoming.counted(frozen.generation, sum(|stream| stream.1), sum(|stream| stream.2));
        self.moving = Some(Moving { frozen, streams: streams.into() });
        Ok(())
    }

    /// Blocks of the next few streams; the end of the table when there are none.
    async fn move_some(&mut self, mut moving: Moving) -> Result<bool, Error> {
        let frozen = moving.frozen;
        let Some(now) = self.incoming.frozen().filter(|now| now.generation == frozen.generation) else {
            return Ok(true);
        };
        // Blocks that would have to leave again at once are not made: in a full file there is no room even for that.
        if now.bytes > 0 && self.excess().await? >= now.bytes && self.incoming.has_only_arrivals() {
            let incoming = Arc::clone(&self.incoming);
            self.ride(0, move |tx| incoming.give_up(tx, now)).await?;
            return Ok(true);
        }
        let mut group = BTreeMap::new();
        let (mut readings, mut bytes) = (0, 0);
        while let Some((no, of_readings, of_bytes)) = moving.streams.front().copied() {
            (readings, bytes) = (readings + of_readings, bytes + of_bytes);
            if !group.is_empty() && (readings > STEP_READINGS as u64 || bytes > STEP_BYTES as u64 / 4) {
                break;
            }
            group.insert(no, ());
            moving.streams.pop_front();
        }
        if group.is_empty() {
            let incoming = Arc::clone(&self.incoming);
            self.ride(0, move |tx| {
                incoming.clear(tx, frozen)?;
                incoming.settle(tx, 0, 0, STEP_REMOVED)
            })
            .await?;
            return Ok(true);
        }
        let streams: Vec<i64> = group.keys().copied().collect();
        let (most, kept) = (self.incoming.limits.block_readings(), self.incoming.limits.readings);
        loop {
            let again = streams.clone();
            let look = move |connection: &Connection| look(connection, frozen, &again, most, kept);
            let Found { mut ready, is_cut_short } = self.reader.read(look).await?;
            while !ready.is_empty() {
                let mut bytes = 0;
                let fits = ready.iter().take(STEP_BLOCKS).take_while(|ready| {
                    bytes += ready.block.bytes();
                    bytes <= STEP_WRITTEN_BYTES
                });
                let rest = ready.split_off(fits.count().max(1));
                self.write(std::mem::replace(&mut ready, rest)).await?;
            }
            if !is_cut_short {
                break;
            }
        }
        self.moving = Some(moving);
        Ok(true)
    }

    async fn write(&self, ready: Vec<Ready>) -> Result<(), Error> {
        let incoming = Arc::clone(&self.incoming);
        let made = ready.len() as u64;
        let bytes = ready.iter().map(|ready| ready.block.bytes()).sum::<u64>();
        self.ride(usize::try_from(bytes).unwrap_or(usize::MAX), move |tx| {
            let mut removed = 0;
            for Ready { stream_no, block, replaces, forget } in &ready {
                if let Some(no) = replaces {
                    removed += block::remove(tx, *no)?.bytes;
                }
                block.insert(tx, false)?;
                removed += block::remove_until(tx, *stream_no, *forget)?.bytes;
            }
            incoming.settle(tx, bytes, removed, STEP_REMOVED)
        })
        .await?;
        self.incoming.metrics.blocks.inc_by(made);
        Ok(())
    }

    /// A part of what an older release kept reading by reading: the newest of it first, so that what is left is older than
    /// every block.
    async fn move_old(&mut self) -> Result<bool, Error> {
        let Some((stream, readings, range)) = self.reader.read(old_part).await? else {
            self.has_old = false;
            return Ok(true);
        };
        let block = Block::of(stream.0, &readings);
        if block.is_none() && !readings.is_empty() {
            return Ok(false);
        }
        let incoming = Arc::clone(&self.incoming);
        let bytes = block.as_ref().map_or(0, Block::bytes);
        self.ride(usize::try_from(bytes).unwrap_or(usize::MAX), move |tx| {
            if let Some(block) = block {
                block.insert(tx, true)?;
            }
            tx.execute(
                "DELETE FROM history_reading WHERE stream_no = ?1 AND seq BETWEEN ?2 AND ?3",
                (stream.0, range.0.cast_signed(), range.1.cast_signed()),
            )?;
            incoming.settle(tx, bytes, 0, STEP_REMOVED)
        })
        .await?;
        Ok(true)
    }

    async fn ride(
        &self,
        bytes: usize,
        work: impl FnOnce(&Tx<'_>) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        let (tell, told) = oneshot::channel();
        self.writer.ride(bytes, work, move |outcome| drop(tell.send(outcome))).await?;
        told.await.map_err(|_| store::Closed)?.map_err(Error::Commit)
    }
}

/// Blocks of what the table has of these streams, as far as memory for it goes.
fn look(connection: &Connection, frozen: Frozen, streams: &[i64], most: usize, kept: u64) -> Result<Found, Error> {
    let mut found: BTreeMap<i64, Vec<Reading>> = BTreeMap::new();
    let mut packed = BTreeMap::new();
    for no in streams {
        packed.insert(*no, block::packed_until(connection, *no)?);
    }
    let (mut count, mut bytes) = (0, 0);
    let mut keep = |no: i64, mut readings: Vec<Reading>| {
        let passed = packed.get(&no).copied().unwrap_or(0);
        readings.retain(|reading| reading.seq > passed);
        count += readings.len();
        bytes += readings.iter().map(weight).sum::<usize>();
        found.entry(no).or_default().extend(readings);
        Ok(count < STEP_READINGS && bytes < STEP_BYTES)
    };
    let wants = |no: i64| packed.contains_key(&no);
    let is_whole = arrival::each(connection, frozen.table, Order::OldestFirst, &wants, &mut keep)?;
    let mut ready = Vec::new();
    for (stream_no, mut readings) in found {
        if readings.is_empty() {
            continue;
        }
        let is_small = |head: &Head| head.count < (most / SMALL) as u64 && head.bytes < SMALL_BYTES;
        let small = block::newest(connection, stream_no)?.filter(is_small);
        if let Some(head) = small {
            let before = block::readings(connection, head.no)?;
            readings.splice(0..0, before);
        }
        let mut replaces = small.map(|head| head.no);
        // More came together than is kept: what is before it goes, wherever it lies.
        let surplus = readings.len().saturating_sub(usize::try_from(kept).unwrap_or(usize::MAX));
        readings.drain(..surplus);
        let forget = match readings.first() {
            Some(first) if surplus > 0 => first.seq - 1,
            _ => {
                // The small block is among the blocks and among these readings: it counts once.
                let fresh = (readings.len() as u64).saturating_sub(small.map_or(0, |head| head.count));
                block::needless(connection, stream_no, kept.saturating_sub(fresh))?
            }
        };
        let mut rest = readings.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(fitting(rest, most));
            let block = Block::of(stream_no, now)
                .ok_or_else(|| Error::Commit(store::CommitError::Disk("readings that make no block".into())))?;
            ready.push(Ready { stream_no, block, replaces: replaces.take(), forget });
            rest = later;
        }
    }
    Ok(Found { ready, is_cut_short: !is_whole })
}

/// A stream of the older table, its newest readings there as far as they make one block, and the numbers they stand for.
type OldPart = (StreamNo, Vec<Reading>, (u64, u64));

fn old_part(connection: &Connection) -> Result<Option<OldPart>, Error> {
    let Some(stream) = walk::old_stream(connection)? else { return Ok(None) };
    let (mut readings, range) = walk::old_newest(connection, stream, STEP_OLD)?;
    let mut fits: Vec<Reading> = readings.iter().rev().cloned().collect();
    fits.truncate(fitting(&fits, STEP_OLD));
    let left_out = readings.len() - fits.len();
    let first = if left_out == 0 { range.0 } else { readings[left_out].seq };
    readings.drain(..left_out);
    Ok(Some((stream, readings, (first, range.1))))
}
