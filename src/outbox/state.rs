//! What the outbox remembers about its streams, and what of it waits for a commit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::watch;

use super::arrive::{self, Together};
use super::batch::GapReason;
use super::block::BlockRow;
use super::config::Config;
use super::evict::{self, Room};
use super::ledger;
use super::metrics::Metrics;
use super::quota::Quota;
use super::rows;
use super::stream::{Class, StreamKey};
use super::summarise::Summarise;
use super::uptime::Uptime;
use crate::base::Clock;
use crate::store::{Error, Tx};

/// One stream in memory. Everything but `next` mirrors committed rows.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) no: i64,
    pub(super) key: StreamKey,
    /// The next number to issue. Never steps back, whatever becomes of the commit.
    pub(super) next: u64,
    /// Highest reserved number.
    pub(super) reserved: u64,
    /// Highest number that is a row, a ledger entry or acknowledged.
    pub(super) last: u64,
    /// Every number up to here is acknowledged.
    pub(super) settled: u64,
    /// Rows waiting.
    pub(super) rows: u64,
    /// What they take of the file.
    pub(super) bytes: u64,
    /// Rows up to here were written by a release that did not count bytes; each of them counts `flat_bytes`.
    pub(super) flat_until: u64,
    pub(super) flat_bytes: u64,
    /// Ledger entries waiting.
    pub(super) entries: u64,
    /// Numbers below are in blocks, or were found to fit into none.
    pub(super) packed_until: u64,
    /// First number issued in a failed commit and not in the ledger yet; the range ends just below `next`.
    pub(super) burned: Option<u64>,
    /// The file that it is being salvaged from.
    pub(super) salvage: Option<Arc<str>>,
    pub(super) staged: Staged,
}

/// What the transaction in progress will have done to a stream if it commits.
#[derive(Debug, Default)]
pub(super) struct Staged {
    pub(super) touched: bool,
    pub(super) first: Option<u64>,
    pub(super) appended: u64,
    pub(super) appended_bytes: u64,
    /// Appended and not written yet, in order.
    pub(super) pending: Vec<BlockRow>,
    /// Appended rows that were written as blocks.
    pub(super) together: u64,
    /// Rows that left, for whatever reason.
    pub(super) removed: u64,
    pub(super) freed_bytes: u64,
    /// Rows that went into blocks later, and what is counted for the blocks and for ranges that were split.
    pub(super) packed: u64,
    pub(super) packed_bytes: u64,
    /// Rows that were counted and are not there.
    pub(super) vanished: u64,
    /// Rows lost, by reason: for the counters.
    pub(super) acknowledged: u64,
    pub(super) lost: Vec<(GapReason, u64)>,
    pub(super) reserved: Option<u64>,
    pub(super) settled: Option<u64>,
    /// The burned numbers are in the ledger.
    pub(super) ledger: bool,
    /// Entries more or fewer in the ledger.
    pub(super) entries: i64,
}

impl Stream {
    /// A stream that holds nothing.
    pub(super) fn new(no: i64, key: StreamKey, last: u64, reserved: u64) -> Self {
        Self {
            no,
            key,
            next: last + 1,
            reserved,
            last,
            settled: last,
            rows: 0,
            bytes: 0,
            flat_until: 0,
            flat_bytes: 0,
            entries: 0,
            packed_until: 0,
            burned: None,
            salvage: None,
            staged: Staged::default(),
        }
    }

    /// A stream of an old epoch, whose rows are still being salvaged: nothing of it is sent.
    pub(super) fn resting(no: i64, key: StreamKey, settled: u64, reserved: u64, file: &str) -> Self {
        Self { next: reserved + 1, salvage: Some(file.into()), ..Self::new(no, key, settled, reserved) }
    }

    /// Every number up to `reserved` is a row or in the ledger now; `rows` of them are rows, which take `bytes`.
    pub(super) fn begin_sending(&mut self, reserved: u64, rows: u64, bytes: u64) {
        self.salvage = None;
        (self.next, self.reserved, self.last) = (reserved + 1, reserved, reserved);
        (self.rows, self.bytes) = (rows, bytes);
    }

    pub(super) fn reserved_now(&self) -> u64 {
        self.staged.reserved.unwrap_or(self.reserved)
    }

    pub(super) fn settled_now(&self) -> u64 {
        self.staged.settled.unwrap_or(self.settled)
    }

    pub(super) fn rows_now(&self) -> u64 {
        (self.rows + self.staged.appended).saturating_sub(self.staged.removed + self.staged.vanished)
    }

    /// A stream without rows has no bytes, which takes away what damage may have left in the account.
    pub(super) fn bytes_now(&self) -> u64 {
        if self.rows_now() == 0 {
            return 0;
        }
        (self.bytes + self.staged.appended_bytes + self.staged.packed_bytes).saturating_sub(self.staged.freed_bytes)
    }

    pub(super) fn entries_now(&self) -> u64 {
        self.entries.saturating_add_signed(self.staged.entries)
    }

    /// Enters numbers that will never be rows into the ledger. `count` of them were acknowledged rows.
    pub(super) fn lose(
        &mut self,
        tx: &Tx<'_>,
        numbers: (u64, u64),
        count: u64,
        reason: GapReason,
        wall_ms: i64,
    ) -> Result<(), Error> {
        self.staged.entries += ledger::enter(tx, self.no, numbers, count, reason, wall_ms)?;
        self.count_lost(reason, count);
        Ok(())
    }

    pub(super) fn count_lost(&mut self, reason: GapReason, count: u64) {
        match self.staged.lost.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, lost)) => *lost += count,
            None => self.staged.lost.push((reason, count)),
        }
    }

    /// Writes what a start must know. Rows alone need no word: a start counts the few that came since.
    fn seal(&self, tx: &Tx<'_>) -> Result<(), Error> {
        let staged = &self.staged;
        let counted = staged.reserved.is_some()
            || staged.settled.is_some()
            || staged.removed + staged.vanished + staged.packed > 0;
        if counted {
            rows::put_stream(tx, self, self.next - 1)?;
        }
        Ok(())
    }

    fn settle(&mut self, committed: bool, metrics: &Metrics) -> bool {
        let (rows, bytes, entries) = (self.rows_now(), self.bytes_now(), self.entries_now());
        let staged = std::mem::take(&mut self.staged);
        if !committed {
            if let Some(first) = staged.first {
                self.burned = Some(self.burned.map_or(first, |burned| burned.min(first)));
                metrics.burned.inc_by(self.next - first);
            }
            return false;
        }
        // Nothing is appended to a stream of an old epoch, and what is salvaged is not sent one by one.
        let news = staged.first.is_some() || staged.ledger || !staged.lost.is_empty();
        if staged.first.is_some() || staged.ledger {
            self.last = self.next - 1;
        }
        if staged.ledger {
            self.burned = None;
        }
        (self.rows, self.bytes, self.entries) = (rows, bytes, entries);
        self.reserved = staged.reserved.unwrap_or(self.reserved);
        self.settled = staged.settled.unwrap_or(self.settled);
        metrics.appended.inc_by(staged.appended);
        metrics.deleted.inc_by(staged.acknowledged);
        metrics.packed.inc_by(staged.packed + staged.together);
        for (reason, count) in staged.lost {
            metrics.lost(self.key.class, reason, count);
        }
        news
    }
}

#[derive(Debug)]
pub(super) struct Streams {
    pub(super) all: Vec<Stream>,
    pub(super) quota: Quota,
    /// Whether a class with `drop_newest` is refusing.
    pub(super) refusing: [bool; 4],
    /// Bytes promised to work that is not committed yet.
    pub(super) admitted: [u64; 4],
    pub(super) uptime: Uptime,
    /// When rows of one transaction are a block.
    pub(super) together: Together,
    /// The transaction that the staged changes belong to.
    transaction: u64,
    touched: Vec<usize>,
}

impl Streams {
    /// The stream, which this transaction changes.
    pub(super) fn touch(&mut self, at: usize) -> &mut Stream {
        let stream = &mut self.all[at];
        if !std::mem::replace(&mut stream.staged.touched, true) {
            self.touched.push(at);
        }
        stream
    }

    /// Bytes of a class, the transaction in progress included.
    pub(super) fn class_bytes(&self, class: Class) -> u64 {
        self.all.iter().filter(|stream| stream.key.class == class).map(Stream::bytes_now).sum()
    }

    /// Bytes of all classes, the transaction in progress included.
    pub(super) fn bytes(&self) -> u64 {
        self.all.iter().map(Stream::bytes_now).sum()
    }

    /// Most bytes that a class may have now.
    pub(super) fn limit(&self, class: Class) -> u64 {
        self.quota.limit(class, self.class_bytes(Class::Alarm))
    }

    /// True if a row of `row_bytes` is kept under `drop_newest`.
    pub(super) fn keeps_newest(&mut self, class: Class, row_bytes: u64) -> bool {
        let (alarms, bytes) = (self.class_bytes(Class::Alarm), self.class_bytes(class) + row_bytes);
        self.quota.keeps_newest(class, alarms, bytes, &mut self.refusing[class as usize])
    }
}

/// Shared by appenders on the writer thread and whoever asks for depth or a batch.
pub(super) struct State {
    streams: Mutex<Streams>,
    pub(super) clock: Arc<dyn Clock>,
    reserve_rows: u64,
    ledger_entries: u64,
    pub(super) summarise: OnceLock<Arc<dyn Summarise>>,
    pub(super) appended: watch::Sender<u64>,
    /// Grows with every loss in the ledger.
    pub(super) losses: AtomicU64,
    /// Single rows of which most were found to be no block.
    pub(super) scattered_rows: AtomicU64,
    /// Changes when a class that blocks may have room.
    pub(super) room: watch::Sender<u64>,
    pub(super) metrics: Metrics,
}

impl State {
    pub(super) fn new(
        (all, uptime): (Vec<Stream>, Uptime),
        quota: Quota,
        config: &Config,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (refusing, admitted) = ([false; 4], [0; 4]);
        let together = Together::of(&config.pack);
        let streams = Streams { all, quota, refusing, admitted, uptime, together, transaction: 0, touched: Vec::new() };
        let state = Self {
            streams: Mutex::new(streams),
            clock,
            reserve_rows: config.reserve_rows.max(1),
            ledger_entries: config.ledger_entries,
            summarise: OnceLock::new(),
            appended: watch::Sender::new(0),
            losses: AtomicU64::new(0),
            scattered_rows: AtomicU64::new(0),
            room: watch::Sender::new(0),
            metrics: Metrics::default(),
        };
        state.show(&state.lock());
        state
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the streams for a change of stream `at` inside `tx`; what is staged counts once `tx` is on the disk.
    pub(super) fn stage<'a>(self: &'a Arc<Self>, tx: &Tx<'_>, at: usize) -> MutexGuard<'a, Streams> {
        let mut streams = self.join(tx);
        streams.touch(at);
        streams
    }

    /// Locks the streams for changes inside `tx`.
    pub(super) fn join<'a>(self: &'a Arc<Self>, tx: &Tx<'_>) -> MutexGuard<'a, Streams> {
        let mut streams = self.lock();
        if streams.transaction != tx.number() {
            streams.transaction = tx.number();
            let state = Arc::clone(self);
            tx.before_commit(move |tx| state.seal(tx));
            let state = Arc::clone(self);
            tx.after(move |committed| state.settle(committed));
        }
        streams
    }

    /// The last word of a transaction: what was appended is written, every class goes back below its limit, and what a start must know is written.
    fn seal(&self, tx: &Tx<'_>) -> Result<(), Error> {
        let mut streams = self.lock();
        let stamp = self.clock.stamp();
        streams.uptime.note(tx, stamp.boot_ms)?;
        let summarise = self.summarise.get().map(|made| &**made);
        let together = streams.together;
        for at in streams.touched.clone() {
            arrive::write(tx, &mut streams.all[at], together)?;
        }
        evict::enforce(tx, &mut streams, &Room { stamp, summarise, reserve_rows: self.reserve_rows })?;
        for at in streams.touched.clone() {
            let (stream, most) = (&mut streams.all[at], self.ledger_entries.max(1));
            // No alarm is given up for the sake of the ledger: it has no more entries than the stream has rows. And what is
            // known of a wreck does not grow.
            let is_exempt = stream.key.class == Class::Alarm || stream.key.epoch.is_some();
            let most = if is_exempt { u64::MAX } else { most };
            while stream.entries_now() > most && evict::shorten_ledger(tx, stream, stamp.wall_ms)? {}
            stream.seal(tx)?;
        }
        Ok(())
    }

    fn settle(&self, committed: bool) {
        let mut streams = self.lock();
        let (mut news, mut room) = (false, false);
        for at in std::mem::take(&mut streams.touched) {
            if committed && streams.all[at].staged.lost.iter().any(|(_, count)| *count > 0) {
                self.losses.fetch_add(1, Ordering::Release);
            }
            room |= streams.all[at].staged.removed > 0;
            news |= streams.all[at].settle(committed, &self.metrics);
        }
        self.show(&streams);
        drop(streams);
        if room && committed {
            self.room.send_modify(|count| *count += 1);
        }
        if news {
            self.appended.send_modify(|count| *count += 1);
        }
    }

    fn show(&self, streams: &Streams) {
        self.metrics.rows.set(streams.all.iter().map(|stream| stream.rows).sum::<u64>().cast_signed());
        for class in Class::ALL {
            let of_class = || streams.all.iter().filter(|stream| stream.key.class == class);
            let rows = of_class().map(|stream| stream.rows).sum();
            self.metrics.class(class, rows, streams.class_bytes(class), streams.limit(class));
        }
    }
}
