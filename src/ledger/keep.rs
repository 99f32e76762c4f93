//! Blocks and sums to the disk, in batches, and old ones away.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;

use super::recording::{Block, Disk, Inner, Ledger, SHORT_BYTES, State};
use super::sums::{self, Place, Put, Sums};
use crate::base::{Clock, ClockState};
use crate::store::{Error, Tx, Writer};

/// Whole blocks of one commit.
const BATCH: usize = 8;
/// Blocks that one commit removes at most.
const PRUNE: i64 = 64;
/// Bytes of a sum, about, for the writer's bound.
const SUM_BYTES: usize = 200;
const DAY_MS: i64 = 86_400_000;

impl Ledger {
    /// Takes up the numbering; once, before the first record is written.
    pub fn resume(&self, tx: &Tx<'_>) -> Result<(), Error> {
        let found = tx.query_row("SELECT max(no), sum(rows), sum(bytes) FROM ledger_block", [], |row| {
            let sum = |at| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(at)?.unwrap_or(0).max(0).cast_unsigned());
            let last_no = row.get::<_, Option<i64>>(0)?.unwrap_or(0);
            Ok(Disk { last_no, rows: sum(1)?, bytes: sum(2)?, sums: 0 })
        })?;
        let sums: i64 = tx.query_row("SELECT count(*) FROM ledger_sum", [], |row| row.get(0))?;
        let found = Disk { sums: sums.max(0).cast_unsigned(), ..found };
        self.inner.lock().disk = found;
        self.inner.metrics.bytes.set(i64::try_from(found.bytes).unwrap_or(i64::MAX));
        Ok(())
    }

    /// Writes what waits. Returns the number of records. `now_ms` (milliseconds since 1970) is for `keep_days`; None while
    /// the clock cannot be trusted. After an error everything waits again.
    pub async fn flush(&self, writer: &Writer, now_ms: Option<i64>) -> Result<u64, Error> {
        let mut written = 0;
        let mut rounds = self.inner.lock().sealed.len() / BATCH + 1;
        loop {
            let turn = Arc::clone(&self.inner.writing).lock_owned().await;
            let Some(batch) = Batch::take(&self.inner, turn) else { return Ok(written) };
            let bytes = batch.bytes() + batch.sums.len() * SUM_BYTES;
            let limits = Limits::of(&self.inner, now_ms);
            match writer.commit(bytes, move |tx| batch.write(tx, limits)).await {
                Ok(rows) => written += rows,
                Err(error) => {
                    self.inner.metrics.flush_failures.inc();
                    return Err(error);
                }
            }
            rounds -= 1;
            if rounds == 0 {
                return Ok(written);
            }
        }
    }

    /// Writes what waits, for ever: to be run beside the gateway, dropped at the end, and followed by one
    /// [`flush`](Self::flush). Sleeps while nobody asks anything.
    pub async fn keep(&self, writer: &Writer, clock: &dyn Clock) {
        let wait = Duration::from_millis(self.inner.config.flush_ms);
        loop {
            self.inner.dirty.notified().await;
            let _ = tokio::time::timeout(wait, self.inner.urgent.notified()).await;
            let now_ms = (clock.state() != ClockState::Unsynced).then(|| clock.wall_ms());
            if let Err(error) = self.flush(writer, now_ms).await {
                if matches!(error, Error::Closed(_)) {
                    return;
                }
                tracing::warn!(%error, "records of requests could not be written; they wait in memory");
                tokio::time::sleep(wait).await;
            }
            let state = self.inner.lock();
            let waits = state.waiting_rows > 0 || !state.sums.is_empty();
            drop(state);
            if waits {
                self.inner.dirty.notify_one();
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    rows: u64,
    bytes: u64,
    oldest_ms: Option<i64>,
    sums: u64,
}

impl Limits {
    fn of(inner: &Inner, now_ms: Option<i64>) -> Self {
        let config = &inner.config;
        let oldest_ms = config.keep_days.zip(now_ms);
        Self {
            rows: config.keep_rows,
            bytes: config.keep_bytes,
            oldest_ms: oldest_ms.map(|(days, now_ms)| now_ms.saturating_sub(i64::from(days) * DAY_MS)),
            sums: config.keep_sums,
        }
    }
}

/// The open block as it was when it was taken.
struct Copied {
    id: u64,
    no: i64,
    rows: u32,
    /// Of which the file has these.
    written_rows: u32,
    written_bytes: u64,
    times: (i64, i64),
    body: Vec<u8>,
}

/// What one commit writes. Dropped before its commit returned from the disk, it waits again.
struct Batch {
    inner: Arc<Inner>,
    sealed: Vec<Block>,
    open: Option<Copied>,
    sums: Vec<(Place, Sums)>,
    disk: Disk,
    is_on_disk: bool,
    _turn: OwnedMutexGuard<()>,
}

impl Batch {
    fn take(inner: &Arc<Inner>, turn: OwnedMutexGuard<()>) -> Option<Self> {
        let mut state = inner.lock();
        if state.sealed.len() < BATCH && state.open.packer.body.len() >= SHORT_BYTES {
            state.seal();
        }
        let State { open, sealed, sealed_bytes, disk, sums, .. } = &mut *state;
        let batch = sealed.len().min(BATCH);
        let mut whole: Vec<_> = sealed.drain(..batch).collect();
        *sealed_bytes -= whole.iter().map(|block| block.packer.body.len()).sum::<usize>();
        for block in &mut whole {
            // A number that a failed commit leaves unused stays unused.
            block.no.get_or_insert_with(|| disk.next_no());
        }
        let has_news = sealed.is_empty() && open.packer.rows > open.written_rows;
        let copied = has_news.then(|| Copied {
            id: open.id,
            no: *open.no.get_or_insert_with(|| disk.next_no()),
            rows: open.packer.rows,
            written_rows: open.written_rows,
            written_bytes: open.written_bytes,
            times: open.packer.times.unwrap_or_default(),
            body: open.packer.body.clone(),
        });
        let (sums, disk) = (sums.take(), *disk);
        drop(state);
        if whole.is_empty() && copied.is_none() && sums.is_empty() {
            return None;
        }
        Some(Self { inner: Arc::clone(inner), sealed: whole, open: copied, sums, disk, is_on_disk: false, _turn: turn })
    }

    fn bytes(&self) -> usize {
        let open = self.open.as_ref().map_or(0, |open| open.body.len());
        self.sealed.iter().map(|block| block.packer.body.len()).sum::<usize>() + open
    }

    fn write(mut self, tx: &Tx<'_>, limits: Limits) -> Result<u64, Error> {
        let before = self.disk.rows;
        for block in &self.sealed {
            let no = block.no.expect("numbered when it was taken");
            put_block(tx, no, block.packer.rows, block.packer.times.unwrap_or_default(), &block.packer.body)?;
            self.disk.rows += u64::from(block.packer.rows - block.written_rows);
            self.disk.bytes += block.packer.body.len() as u64 - block.written_bytes;
        }
        if let Some(open) = &self.open {
            put_block(tx, open.no, open.rows, open.times, &open.body)?;
            self.disk.rows += u64::from(open.rows - open.written_rows);
            self.disk.bytes += open.body.len() as u64 - open.written_bytes;
        }
        let rows = self.disk.rows - before;
        let mut bad = 0;
        for (place, sums) in &self.sums {
            match sums::put(tx, place, sums)? {
                Put::Added => {}
                Put::New => self.disk.sums += 1,
                Put::Anew => bad += 1,
            }
        }
        let excess = self.disk.sums.saturating_sub(limits.sums);
        if excess > 0 {
            sums::prune(tx, excess)?;
            self.disk.sums -= excess;
        }
        let pruned = self.prune(tx, limits)?;
        tx.after(move |is_on_disk| self.end(is_on_disk, bad, pruned));
        Ok(rows)
    }

    /// Removes the oldest blocks beyond what may be kept; the newest stays. Returns their records and bytes.
    fn prune(&mut self, tx: &Tx<'_>, limits: Limits) -> Result<(u64, u64), Error> {
        let is_within = |disk: &Disk| disk.rows <= limits.rows && disk.bytes <= limits.bytes;
        if is_within(&self.disk) && limits.oldest_ms.is_none() {
            return Ok((0, 0));
        }
        let mut statement =
            tx.prepare_cached("SELECT no, rows, bytes, last_ms FROM ledger_block WHERE no < ?1 ORDER BY no LIMIT ?2")?;
        let mut rows = statement.query((self.disk.last_no, PRUNE))?;
        let (mut through, mut pruned) = (None, (0, 0));
        while let Some(row) = rows.next()? {
            let is_old =
                limits.oldest_ms.is_some_and(|oldest_ms| row.get(3).is_ok_and(|last_ms: i64| last_ms < oldest_ms));
            if is_within(&self.disk) && !is_old {
                break;
            }
            let number = |at| row.get::<_, i64>(at).map(|number| number.max(0).cast_unsigned());
            let (rows, bytes) = (number(1)?, number(2)?);
            self.disk.rows = self.disk.rows.saturating_sub(rows);
            self.disk.bytes = self.disk.bytes.saturating_sub(bytes);
            pruned = (pruned.0 + rows, pruned.1 + bytes);
            through = Some(row.get::<_, i64>(0)?);
        }
        if let Some(through) = through {
            tx.execute("DELETE FROM ledger_block WHERE no <= ?1", [through])?;
        }
        Ok(pruned)
    }

    /// The commit is over.
    fn end(mut self, is_on_disk: bool, bad_sums: u64, pruned: (u64, u64)) {
        self.is_on_disk = is_on_disk;
        if !is_on_disk {
            return;
        }
        let mut state = self.inner.lock();
        let State { open, sealed, disk, waiting_rows, .. } = &mut *state;
        let (mut rows, mut bytes) = (0, 0);
        for block in &self.sealed {
            rows += u64::from(block.packer.rows - block.written_rows);
            bytes += block.packer.body.len() as u64 - block.written_bytes;
        }
        // It may have been filled and sealed meanwhile. If somebody writes it once more already, all of it counts there.
        let copied = self.open.as_ref();
        if let Some((block, copied)) = sealed
            .iter_mut()
            .chain([open])
            .find_map(|block| copied.filter(|copied| copied.id == block.id).map(|copied| (block, copied)))
        {
            rows += u64::from(copied.rows.saturating_sub(block.written_rows));
            bytes += (copied.body.len() as u64).saturating_sub(block.written_bytes);
            block.written_rows = copied.rows;
            block.written_bytes = copied.body.len() as u64;
        }
        disk.sums = self.disk.sums;
        disk.rows = (disk.rows + rows).saturating_sub(pruned.0);
        disk.bytes = (disk.bytes + bytes).saturating_sub(pruned.1);
        *waiting_rows = waiting_rows.saturating_sub(usize::try_from(rows).unwrap_or(usize::MAX));
        let metrics = &self.inner.metrics;
        metrics.bad_sums.inc_by(bad_sums);
        metrics.pruned.inc_by(pruned.0);
        metrics.bytes.set(i64::try_from(disk.bytes).unwrap_or(i64::MAX));
        metrics.waiting.set(i64::try_from(*waiting_rows).unwrap_or(i64::MAX));
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if self.is_on_disk {
            return;
        }
        let mut state = self.inner.lock();
        for block in self.sealed.drain(..).rev() {
            state.sealed_bytes += block.packer.body.len();
            state.sealed.push_front(block);
        }
        state.sums.give_back(&self.sums);
        drop(state);
        self.inner.dirty.notify_one();
    }
}

fn put_block(tx: &Tx<'_>, no: i64, rows: u32, times: (i64, i64), body: &[u8]) -> Result<(), Error> {
    tx.execute(
        "INSERT OR REPLACE INTO ledger_block VALUES (?1, ?2, ?3, ?4, ?5, ?6,
         row_crc('ledger_block', ?1, ?2, ?3, ?4, ?5, ?6))",
        (no, times.0, times.1, rows, i64::try_from(body.len()).unwrap_or(i64::MAX), body),
    )
    .map(drop)
}
