//! Appending inside a flow's transaction, deleting what was acknowledged, and the numbers in between.

use std::sync::Arc;

use rusqlite::OptionalExtension;
use tokio::sync::watch;

use super::batch::{BatchId, GapReason};
use super::block::BlockRow;
use super::config::{Config, Policy};
use super::error::Error;
use super::ledger;
use super::metrics::Metrics;
use super::quota::Quota;
use super::rows::{self, StreamRow, acked_holds};
use super::size::{remove, stored_bytes};
use super::state::{State, Stream, Streams};
use super::stream::{Class, StreamHandle, StreamKey};
use super::summarise::Summarise;
use super::uptime::Uptime;
use crate::base::{Clock, ClockState, Epoch, Seq, Stamp, row_checksum};
use crate::store::{self, Reader, Schema, Store, Tx, Writer};

/// Tables of this room.
pub const SCHEMA: Schema = Schema {
    room: "outbox",
    steps: &[
        "
        CREATE TABLE outbox_stream (
            stream_no INTEGER PRIMARY KEY,
            class TEXT NOT NULL,
            name TEXT NOT NULL,
            reserved INTEGER NOT NULL,
            settled INTEGER NOT NULL,
            UNIQUE (class, name)
        );
        CREATE TABLE outbox_row (
            stream_no INTEGER NOT NULL,
            seq INTEGER NOT NULL,
            wall_ms INTEGER NOT NULL,
            boot_ms INTEGER NOT NULL,
            boot_no INTEGER NOT NULL,
            clock_state INTEGER NOT NULL,
            checksum INTEGER NOT NULL,
            body BLOB NOT NULL,
            PRIMARY KEY (stream_no, seq)
        ) WITHOUT ROWID;
        CREATE TABLE outbox_gap (
            stream_no INTEGER NOT NULL,
            first INTEGER NOT NULL,
            last INTEGER NOT NULL,
            count INTEGER NOT NULL,
            reason TEXT NOT NULL,
            wall_ms INTEGER NOT NULL,
            PRIMARY KEY (stream_no, first)
        ) WITHOUT ROWID;
        CREATE TABLE outbox_acked (
            stream_no INTEGER NOT NULL,
            first INTEGER NOT NULL,
            last INTEGER NOT NULL,
            PRIMARY KEY (stream_no, first)
        ) WITHOUT ROWID;
    ",
        // `bytes` is what the rows up to `counted` take; NULL: nobody counted. Rows up to `flat_until` count `flat_bytes`.
        "
        ALTER TABLE outbox_stream ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE outbox_stream ADD COLUMN counted INTEGER;
        ALTER TABLE outbox_stream ADD COLUMN flat_until INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE outbox_stream ADD COLUMN flat_bytes INTEGER NOT NULL DEFAULT 0;
        CREATE TABLE outbox_uptime (
            boot_no INTEGER PRIMARY KEY,
            before_ms INTEGER NOT NULL,
            seen_ms INTEGER NOT NULL
        );
    ",
        "
        ALTER TABLE outbox_stream ADD COLUMN epoch INTEGER;
        ALTER TABLE outbox_stream ADD COLUMN salvage TEXT;
        CREATE TABLE outbox_salvage (
            file TEXT PRIMARY KEY,
            next_page INTEGER NOT NULL,
            tries INTEGER NOT NULL,
            rows INTEGER NOT NULL,
            lost INTEGER NOT NULL,
            lowest_no INTEGER NOT NULL,
            done INTEGER NOT NULL
        ) WITHOUT ROWID;
    ",
        // Numbers `first` to `last` are rows of the block; `base` and `count` are what was packed.
        "
        CREATE TABLE outbox_pack (
            stream_no INTEGER NOT NULL,
            last INTEGER NOT NULL,
            first INTEGER NOT NULL,
            boot_no INTEGER NOT NULL,
            boot_ms INTEGER NOT NULL,
            base INTEGER NOT NULL,
            count INTEGER NOT NULL,
            raw_bytes INTEGER NOT NULL,
            checksum INTEGER NOT NULL,
            body BLOB NOT NULL,
            PRIMARY KEY (stream_no, last)
        ) WITHOUT ROWID;
    ",
        // What was packed, in the order it came, so that blocks of many streams share pages. A row of `outbox_pack` is a
        // range of such a block, which several may name; `bytes` is what it counts with. A row without `block_no` was
        // written by an earlier release and holds its block itself.
        "
        CREATE TABLE outbox_block (
            block_no INTEGER PRIMARY KEY,
            stream_no INTEGER NOT NULL,
            base INTEGER NOT NULL,
            count INTEGER NOT NULL,
            raw_bytes INTEGER NOT NULL,
            checksum INTEGER NOT NULL,
            body BLOB NOT NULL
        );
        ALTER TABLE outbox_pack ADD COLUMN block_no INTEGER;
        ALTER TABLE outbox_pack ADD COLUMN bytes INTEGER;
    ",
        // The rows that are there are what they are; from here on each says so.
        "
        ALTER TABLE outbox_stream ADD COLUMN crc INTEGER;
        UPDATE outbox_stream SET crc = row_crc('outbox_stream', stream_no, class, name, reserved, settled, bytes, counted,
            flat_until, flat_bytes, epoch, salvage);
        ALTER TABLE outbox_gap ADD COLUMN crc INTEGER;
        UPDATE outbox_gap SET crc = row_crc('outbox_gap', stream_no, first, last, count, reason, wall_ms);
        ALTER TABLE outbox_acked ADD COLUMN crc INTEGER;
        UPDATE outbox_acked SET crc = row_crc('outbox_acked', stream_no, first, last);
        ALTER TABLE outbox_uptime ADD COLUMN crc INTEGER;
        UPDATE outbox_uptime SET crc = row_crc('outbox_uptime', boot_no, before_ms, seen_ms);
        ALTER TABLE outbox_salvage ADD COLUMN crc INTEGER;
        UPDATE outbox_salvage SET crc = row_crc('outbox_salvage', file, next_page, tries, rows, lost, lowest_no, done);
    ",
    ],
    read_at_start: &["outbox_stream", "outbox_uptime", "outbox_salvage"],
};

/// Bytes for the cloud and when they were made. Opaque here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Encoded by the flow.
    pub body: Vec<u8>,
    /// When its cause happened. Its boot is the current one.
    pub stamp: Stamp,
}

/// A class with less room than this counts as full: about what one payload asks for.
const BLOCKING_BYTES: u64 = 4096;

/// One class's part of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassUsage {
    /// The class.
    pub class: Class,
    /// Rows waiting.
    pub rows: u64,
    /// What they take of the file.
    pub bytes: u64,
    /// Most bytes it may take now.
    pub limit_bytes: u64,
    /// What happens at the limit.
    pub policy: Policy,
}

impl ClassUsage {
    /// True if new rows are turned away because the class is full.
    pub fn is_blocking(&self) -> bool {
        self.policy == Policy::Block && self.rows > 0 && self.bytes + BLOCKING_BYTES > self.limit_bytes
    }
}

/// The queue. A cheap clone.
#[derive(Clone)]
pub struct Outbox {
    pub(super) config: Config,
    pub(super) epoch: Epoch,
    pub(super) state: Arc<State>,
    pub(super) writer: Writer,
    pub(super) reader: Reader,
    pub(super) clock: Arc<dyn Clock>,
}

impl Outbox {
    /// Resumes every stream of the file. Time and memory grow with the number of streams, not of rows. Blocks for one
    /// commit: for start-up.
    pub fn open(config: &Config, store: &Store, epoch: Epoch, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        config.check()?;
        let (reserve_rows, wall_ms) = (config.reserve_rows.max(1), clock.wall_ms());
        let writer = store.writer();
        let boot_ms = clock.stamp().boot_ms;
        let resumed = writer.commit_blocking(move |tx| {
            Ok((ledger::resume(tx, reserve_rows, wall_ms)?, Uptime::resume(tx, boot_ms)?))
        })?;
        let quota = Quota::new(config, store.insert_bytes());
        Ok(Self {
            config: Config { reserve_rows, ..config.clone() },
            epoch,
            state: Arc::new(State::new(resumed, quota, config, Arc::clone(&clock))),
            writer,
            reader: store.reader(),
            clock,
        })
    }

    /// Says how rows become a summary, for classes whose policy is `summarise`; before that their oldest rows just go.
    /// The first word counts.
    pub fn summarise_with(&self, summarise: Arc<dyn Summarise>) {
        let _ = self.state.summarise.set(summarise);
    }

    /// The stream of that name and class, registered if it is new. Registering blocks for one commit: for start-up.
    pub fn stream(&self, key: StreamKey) -> Result<StreamHandle, Error> {
        let known = |streams: &[Stream]| {
            streams.iter().enumerate().find(|(_, s)| s.key == key).map(|(at, s)| StreamHandle { at, no: s.no })
        };
        {
            let streams = self.state.lock();
            if let Some(handle) = known(&streams.all) {
                return Ok(handle);
            }
            if streams.all.iter().filter(|stream| stream.key.epoch.is_none()).count() >= self.config.max_streams {
                return Err(Error::TooManyStreams { key, most: self.config.max_streams });
            }
        }
        let reserved = 2 * self.config.reserve_rows;
        let (class, name) = (key.class.as_str(), key.name.to_string());
        let no = self.writer.commit_blocking(move |tx| {
            let sql = "SELECT stream_no FROM outbox_stream WHERE class = ?1 AND name = ?2";
            let known = tx.prepare_cached(sql)?.query_row((class, &name), |row| row.get(0)).optional()?;
            if let Some(no) = known {
                return Ok(no);
            }
            let no = tx
                .query_row("SELECT max(coalesce(max(stream_no), 0), 0) + 1 FROM outbox_stream", [], |row| row.get(0))?;
            let reserved = reserved.cast_signed();
            let row = StreamRow { no, class, name: &name, reserved, counted: Some(0), ..StreamRow::default() };
            row.put(tx)?;
            Ok(no)
        })?;
        let mut streams = self.state.lock();
        // Somebody else may have registered it meanwhile.
        if let Some(handle) = known(&streams.all) {
            return Ok(handle);
        }
        let handle = StreamHandle { at: streams.all.len(), no };
        streams.all.push(Stream::new(no, key, 0, reserved));
        Ok(handle)
    }

    /// Puts a row at the end of `stream`, inside a flow's transaction. It counts once that transaction is on the disk;
    /// if it fails, the number is burned and the ledger will say so. At the share of its class the policy decides: the
    /// oldest rows leave at the end of the transaction, or this row is not kept and its number goes to the ledger.
    pub fn append(&self, tx: &Tx<'_>, stream: &StreamHandle, envelope: &Envelope) -> Result<Seq, store::Error> {
        let mut streams = self.state.stage(tx, stream.at);
        append(tx, &mut streams, stream.at, envelope, self.config.reserve_rows, self.clock.wall_ms())
    }

    /// Removes what the far side acknowledged, rows and ledger entries. Rides in a transaction. Batches may be
    /// acknowledged in any order.
    pub fn delete(&self, tx: &Tx<'_>, batch: &BatchId) -> Result<(), store::Error> {
        let mut streams = self.state.stage(tx, batch.stream.at);
        let stream = &mut streams.all[batch.stream.at];
        let (no, first, last) = (stream.no, batch.first.0.cast_signed(), batch.last.0.cast_signed());
        stream.staged.acknowledged += remove(tx, stream, batch.first.0, batch.last.0)?.rows;
        stream.staged.entries += ledger::withdraw(tx, no, batch.first.0, batch.last.0)?;
        let settled = stream.settled_now();
        if batch.first.0 > settled + 1 {
            // Fresh rows that overtake a backlog follow each other: one range grows instead of one more a batch.
            let grown = tx.execute(
                concat!(
                    "UPDATE outbox_acked SET last = max(last, ?3),
                     crc = row_crc('outbox_acked', stream_no, first, max(last, ?3))
                     WHERE stream_no = ?1 AND last >= ?2 - 1 AND first =
                     (SELECT max(first) FROM outbox_acked WHERE stream_no = ?1 AND first <= ?2) AND ",
                    acked_holds!()
                ),
                (no, first, last),
            )?;
            if grown == 0 {
                tx.execute(rows::PUT_ACKED, (no, first, last))?;
            }
            return Ok(());
        }
        let mut settled = settled.max(batch.last.0);
        // What was acknowledged early may follow without a break now.
        while let Some((next_first, next_last)) = tx
            .prepare_cached(concat!(
                "SELECT first, last FROM outbox_acked WHERE stream_no = ?1 AND ",
                acked_holds!(),
                " ORDER BY first LIMIT 1"
            ))?
            .query_row([no], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))
            .optional()?
        {
            if next_first.cast_unsigned() > settled + 1 {
                break;
            }
            settled = settled.max(next_last.cast_unsigned());
            tx.execute("DELETE FROM outbox_acked WHERE stream_no = ?1 AND first = ?2", (no, next_first))?;
        }
        stream.staged.settled = Some(settled);
        Ok(())
    }

    /// Rows waiting in each stream, from memory.
    pub fn depth(&self) -> Vec<(StreamKey, u64)> {
        self.state.lock().all.iter().map(|stream| (stream.key.clone(), stream.rows)).collect()
    }

    /// What each class has and may have, most urgent first, from memory.
    pub fn usage(&self) -> [ClassUsage; 4] {
        let streams = self.state.lock();
        Class::ALL.map(|class| ClassUsage {
            class,
            rows: streams.all.iter().filter(|stream| stream.key.class == class).map(|stream| stream.rows).sum(),
            bytes: streams.class_bytes(class),
            limit_bytes: streams.limit(class),
            policy: streams.quota.class(class).policy,
        })
    }

    /// Changes after every commit that left something to send.
    pub fn appended(&self) -> watch::Receiver<u64> {
        self.state.appended.subscribe()
    }

    /// What this room counts.
    pub fn metrics(&self) -> &Metrics {
        &self.state.metrics
    }

    /// This life of the queue file.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Gives unused numbers back, so that the next start has nothing to burn. Blocks for one commit. Nothing may be
    /// appended afterwards.
    pub fn close(self) -> Result<(), Error> {
        let (state, wall_ms) = (Arc::clone(&self.state), self.clock.wall_ms());
        self.writer.commit_blocking(move |tx| {
            let streams = state.lock().all.len();
            for at in 0..streams {
                if state.lock().all[at].key.epoch.is_some() {
                    continue;
                }
                let mut streams = state.stage(tx, at);
                let stream = &mut streams.all[at];
                if let Some(burned) = stream.burned {
                    stream.staged.ledger = true;
                    stream.lose(tx, (burned, stream.next - 1), 0, GapReason::Rollback, wall_ms)?;
                }
                stream.staged.reserved = Some(stream.next - 1);
            }
            Ok(())
        })?;
        Ok(())
    }
}

/// [`Outbox::append`] for a stream that the transaction has touched. The row is written when the transaction's other
/// rows are known.
pub(super) fn append(
    tx: &Tx<'_>,
    streams: &mut Streams,
    at: usize,
    envelope: &Envelope,
    block: u64,
    wall_ms: i64,
) -> Result<Seq, store::Error> {
    let class = streams.all[at].key.class;
    let row_bytes = stored_bytes(envelope.body.len() as u64);
    let keep = streams.quota.class(class).policy != Policy::DropNewest || streams.keeps_newest(class, row_bytes);
    let stream = &mut streams.all[at];
    let seq = stream.next;
    stream.next += 1;
    stream.staged.first.get_or_insert(seq);
    if let (Some(burned), false) = (stream.burned, stream.staged.ledger) {
        stream.staged.ledger = true;
        stream.lose(tx, (burned, seq - 1), 0, GapReason::Rollback, wall_ms)?;
    }
    if seq + block > stream.reserved_now() {
        // A block ahead of use, so that the mark was committed long before its numbers are seen by anybody.
        stream.staged.reserved = Some(seq + 2 * block);
    }
    if !keep {
        stream.lose(tx, (seq, seq), 1, GapReason::RefusedNewest, wall_ms)?;
        return Ok(Seq(seq));
    }
    stream.staged.appended += 1;
    stream.staged.appended_bytes += row_bytes;
    let stored = Stored::of(stream.no, seq, &envelope.stamp, tx.boot_no());
    let body = envelope.body.clone();
    stream.staged.pending.push(BlockRow { stored, checksum: stored.checksum(&body), body });
    Ok(Seq(seq))
}

/// The columns that a checksum covers beside the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) stream_no: i64,
    pub(super) seq: i64,
    pub(super) wall_ms: i64,
    pub(super) boot_ms: i64,
    pub(super) boot_no: i64,
    pub(super) clock_state: i64,
}

impl Stored {
    fn of(stream_no: i64, seq: u64, stamp: &Stamp, boot_no: i64) -> Self {
        let clock_state = match stamp.state {
            ClockState::Unsynced => 0,
            ClockState::Rtc => 1,
            ClockState::Ntp => 2,
        };
        Self {
            stream_no,
            seq: seq.cast_signed(),
            wall_ms: stamp.wall_ms,
            boot_ms: stamp.boot_ms.cast_signed(),
            boot_no,
            clock_state,
        }
    }

    pub(super) fn state(&self) -> Option<ClockState> {
        [ClockState::Unsynced, ClockState::Rtc, ClockState::Ntp].get(usize::try_from(self.clock_state).ok()?).copied()
    }

    pub(super) fn checksum(&self, body: &[u8]) -> u32 {
        let columns = [self.stream_no, self.seq, self.wall_ms, self.boot_ms, self.boot_no, self.clock_state]
            .map(i64::to_le_bytes);
        row_checksum(&[columns.as_flattened(), body])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::BatchLimits;
    use crate::outbox::fixture::{LIMITS, bodies, key, open};

    #[tokio::test]
    async fn alarms_go_first_then_the_oldest_whatever_its_class() {
        let folder = tempfile::tempdir().unwrap();
        let bench = open(&folder);
        let raw = bench.outbox.stream(key("press", Class::Raw)).unwrap();
        let verdict = bench.outbox.stream(key("press", Class::Verdict)).unwrap();
        let alarm = bench.outbox.stream(key("press", Class::Alarm)).unwrap();
        bench.append(raw, &["r1", "r2"]).await;
        bench.clock.advance(std::time::Duration::from_secs(1));
        // Somebody sets the clock back: age is counted from boot.
        bench.clock.set_wall_ms(5);
        bench.append(verdict, &["v1"]).await;
        bench.clock.advance(std::time::Duration::from_secs(1));
        bench.append(alarm, &["a1"]).await;
        bench.append(raw, &["r3"]).await;
        let mut order = Vec::new();
        while let Some(batch) = bench.next().await {
            order.extend(bodies(&batch).into_iter().map(str::to_owned));
            bench.delete(&batch).await;
        }
        assert_eq!(order, ["a1", "r1", "r2", "r3", "v1"]);
    }

    #[tokio::test]
    async fn a_batch_keeps_to_its_limits_and_passes_over_what_is_in_flight() {
        let folder = tempfile::tempdir().unwrap();
        let bench = open(&folder);
        let raw = bench.outbox.stream(key("press", Class::Raw)).unwrap();
        bench.append(raw, &["aaaa", "bbbb", "cccc", "dddd", "eeee"]).await;
        let by_rows = bench.outbox.next_batch(&BatchLimits { rows: 2, bytes: 1000 }, &[]).await.unwrap().unwrap();
        assert_eq!(bodies(&by_rows), ["aaaa", "bbbb"]);
        let small = BatchLimits { rows: 100, bytes: 9 };
        let by_bytes = bench.outbox.next_batch(&small, &[by_rows.id]).await.unwrap().unwrap();
        assert_eq!(bodies(&by_bytes), ["cccc", "dddd"]);
        let tiny = BatchLimits { rows: 100, bytes: 1 };
        let one = bench.outbox.next_batch(&tiny, &[by_rows.id, by_bytes.id]).await.unwrap().unwrap();
        assert_eq!(bodies(&one), ["eeee"], "one row always fits");
        let flying = [by_rows.id, by_bytes.id, one.id];
        assert_eq!(bench.outbox.next_batch(&LIMITS, &flying).await.unwrap(), None);
        let again = bench.next().await.unwrap();
        assert_eq!(again.rows.len(), 5, "nothing was acknowledged, so everything is sent again");
    }

    #[tokio::test]
    async fn a_flipped_bit_becomes_a_ledger_entry_and_is_never_served() {
        let folder = tempfile::tempdir().unwrap();
        let bench = open(&folder);
        let raw = bench.outbox.stream(key("press", Class::Raw)).unwrap();
        bench.append(raw, &["one", "two", "three", "four"]).await;
        let spoil = |tx: &Tx<'_>| {
            tx.execute("UPDATE outbox_row SET body = x'74776e' WHERE seq = 2", [])?;
            tx.execute("DELETE FROM outbox_row WHERE seq = 4", [])
        };
        bench.store.writer().commit(0, spoil).await.unwrap();
        let batch = bench.next().await.unwrap();
        assert_eq!(bodies(&batch), ["one", "three"]);
        let gaps: Vec<_> = batch.gaps.iter().map(|gap| (gap.first.0, gap.last.0, gap.count, gap.reason)).collect();
        assert_eq!(gaps, [(2, 2, 1, GapReason::Corrupt), (4, 4, 1, GapReason::Corrupt)]);
        assert_eq!((batch.first.0, batch.last.0), (1, 4));
        assert_eq!(bench.outbox.depth(), [(key("press", Class::Raw), 2)]);
        bench.delete(&batch).await;
        assert_eq!(bench.next().await, None);
    }

    #[tokio::test]
    async fn a_failed_commit_burns_its_numbers_and_the_ledger_travels_with_the_next_row() {
        let folder = tempfile::tempdir().unwrap();
        let bench = open(&folder);
        let raw = bench.outbox.stream(key("press", Class::Raw)).unwrap();
        bench.append(raw, &["one"]).await;
        for _ in 0..2 {
            let (outbox, stamp) = (bench.outbox.clone(), bench.clock.stamp());
            let work = move |tx: &Tx<'_>| {
                outbox.append(tx, &raw, &Envelope { body: b"never".to_vec(), stamp })?;
                tx.execute("INSERT INTO no_such_table VALUES (1)", []).map(drop)
            };
            bench.store.writer().commit(0, work).await.unwrap_err();
        }
        bench.append(raw, &["four"]).await;
        let batch = bench.next().await.unwrap();
        assert_eq!(batch.rows.iter().map(|row| row.seq.0).collect::<Vec<_>>(), [1, 4]);
        let gaps: Vec<_> = batch.gaps.iter().map(|gap| (gap.first.0, gap.last.0, gap.count, gap.reason)).collect();
        assert_eq!(gaps, [(2, 3, 0, GapReason::Rollback)]);
    }

    #[tokio::test]
    async fn a_crash_loop_leaves_one_ledger_entry_and_no_number_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut bench = open(&folder);
        for _ in 0..3 {
            bench.outbox.stream(key("press", Class::Raw)).unwrap();
            // No close of the outbox: its reserved numbers stay reserved.
            drop(bench);
            bench = open(&folder);
        }
        let raw = bench.outbox.stream(key("press", Class::Raw)).unwrap();
        bench.append(raw, &["one"]).await;
        let batch = bench.next().await.unwrap();
        let reserved = 2 * Config::default().reserve_rows;
        let gaps: Vec<_> = batch.gaps.iter().map(|gap| (gap.first.0, gap.last.0, gap.count, gap.reason)).collect();
        assert_eq!(gaps, [(1, 3 * reserved, 0, GapReason::Restart)]);
        assert_eq!(batch.rows[0].seq.0, 3 * reserved + 1);
    }

    #[tokio::test]
    async fn marks_are_committed_a_block_before_their_numbers_are_used() {
        let folder = tempfile::tempdir().unwrap();
        let bench = open(&folder);
        let raw = bench.outbox.stream(key("press", Class::Raw)).unwrap();
        for _ in 0..40 {
            let read = |c: &rusqlite::Connection| {
                Ok(c.query_row("SELECT reserved FROM outbox_stream", [], |row| row.get::<_, i64>(0))?)
            };
            let committed = bench.store.reader().read(read).await.unwrap().cast_unsigned();
            bench.append(raw, &["x"; 100]).await;
            let highest = bench.next().await.unwrap().last.0;
            assert!(highest <= committed, "number {highest} was used with {committed} reserved");
            while let Some(batch) = bench.next().await {
                bench.delete(&batch).await;
            }
        }
    }

    #[tokio::test]
    async fn streams_are_bounded_and_a_clean_restart_leaves_no_trace() {
        let folder = tempfile::tempdir().unwrap();
        let bench = open(&folder);
        let outbox = Outbox { config: Config { max_streams: 1, ..Config::default() }, ..bench.outbox.clone() };
        let raw = outbox.stream(key("press", Class::Raw)).unwrap();
        assert_eq!(outbox.stream(key("press", Class::Raw)).unwrap(), raw);
        assert_eq!(
            outbox.stream(key("lathe", Class::Raw)).unwrap_err().to_string(),
            "failed to register stream raw/lathe: 1 streams exist already (outbox.max_streams; a stream of readings has one each for its \
             summaries, alarms, verdicts and raw readings, as far as it sends them)"
        );
        bench.append(raw, &["one", "two"]).await;
        bench.outbox.close().unwrap();
        bench.store.close();
        let bench = open(&folder);
        assert_eq!(bench.outbox.depth(), [(key("press", Class::Raw), 2)]);
        let raw = bench.outbox.stream(key("press", Class::Raw)).unwrap();
        let mut appended = bench.outbox.appended();
        bench.append(raw, &["three"]).await;
        assert!(appended.has_changed().unwrap());
        appended.mark_unchanged();
        let batch = bench.next().await.unwrap();
        assert_eq!((batch.first.0, batch.last.0, batch.gaps.len()), (1, 3, 0));
    }
}
