//! What the outbox remembers about its streams, and what of it waits for a commit.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::metrics::Metrics;
use super::stream::StreamKey;
use crate::store::Tx;

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
    /// First number issued in a failed commit and not in the ledger yet; the range ends just below `next`.
    pub(super) burned: Option<u64>,
    pub(super) staged: Staged,
}

/// What the transaction in progress will have done to a stream if it commits.
#[derive(Debug, Default)]
pub(super) struct Staged {
    pub(super) touched: bool,
    pub(super) first: Option<u64>,
    pub(super) appended: u64,
    pub(super) deleted: u64,
    pub(super) corrupt: u64,
    pub(super) reserved: Option<u64>,
    pub(super) settled: Option<u64>,
    pub(super) ledger: bool,
}

impl Stream {
    /// A stream of an old epoch, whose rows are still being salvaged: nothing of it is sent.
    pub(super) fn resting(no: i64, key: StreamKey, settled: u64, reserved: u64) -> Self {
        let (burned, staged) = (None, Staged::default());
        Self { no, key, next: reserved + 1, reserved, last: settled, settled, rows: 0, burned, staged }
    }

    /// Every number up to `reserved` is a row or in the ledger now; `rows` of them are rows.
    pub(super) fn begin_sending(&mut self, reserved: u64, rows: u64) {
        (self.next, self.reserved, self.last) = (reserved + 1, reserved, reserved);
        self.rows = rows;
    }

    pub(super) fn reserved_now(&self) -> u64 {
        self.staged.reserved.unwrap_or(self.reserved)
    }

    pub(super) fn settled_now(&self) -> u64 {
        self.staged.settled.unwrap_or(self.settled)
    }

    fn settle(&mut self, committed: bool, metrics: &Metrics) -> bool {
        let staged = std::mem::take(&mut self.staged);
        if !committed {
            if let Some(first) = staged.first {
                self.burned = Some(self.burned.map_or(first, |burned| burned.min(first)));
                metrics.burned.inc_by(self.next - first);
            }
            return false;
        }
        // Nothing is appended to a stream of an old epoch, and what is salvaged is not sent one by one.
        if staged.first.is_some() || staged.ledger {
            self.last = self.next - 1;
        }
        if staged.ledger {
            self.burned = None;
        }
        self.rows = (self.rows + staged.appended).saturating_sub(staged.deleted + staged.corrupt);
        self.reserved = staged.reserved.unwrap_or(self.reserved);
        self.settled = staged.settled.unwrap_or(self.settled);
        metrics.appended.inc_by(staged.appended);
        metrics.deleted.inc_by(staged.deleted);
        metrics.corrupt.inc_by(staged.corrupt);
        staged.first.is_some() || staged.ledger
    }
}

#[derive(Debug)]
pub(super) struct Streams {
    pub(super) all: Vec<Stream>,
    /// The transaction that the staged changes belong to.
    transaction: u64,
    touched: Vec<usize>,
}

/// Shared by appenders on the writer thread and whoever asks for depth or a batch.
pub(super) struct State {
    streams: Mutex<Streams>,
    pub(super) appended: watch::Sender<u64>,
    pub(super) metrics: Metrics,
}

impl State {
    pub(super) fn new(all: Vec<Stream>) -> Self {
        let metrics = Metrics::default();
        metrics.rows.set(all.iter().map(|stream| stream.rows.cast_signed()).sum());
        let streams = Streams { all, transaction: 0, touched: Vec::new() };
        Self { streams: Mutex::new(streams), appended: watch::Sender::new(0), metrics }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the streams for a change of stream `at` inside `tx`; what is staged counts once `tx` is on the disk.
    pub(super) fn stage<'a>(self: &'a Arc<Self>, tx: &Tx<'_>, at: usize) -> MutexGuard<'a, Streams> {
        let mut streams = self.lock();
        if streams.transaction != tx.number() {
            streams.transaction = tx.number();
            let state = Arc::clone(self);
            tx.after(move |committed| state.settle(committed));
        }
        if !std::mem::replace(&mut streams.all[at].staged.touched, true) {
            streams.touched.push(at);
        }
        streams
    }

    fn settle(&self, committed: bool) {
        let mut streams = self.lock();
        let mut news = false;
        for at in std::mem::take(&mut streams.touched) {
            news |= streams.all[at].settle(committed, &self.metrics);
        }
        let rows: u64 = streams.all.iter().map(|stream| stream.rows).sum();
        drop(streams);
        self.metrics.rows.set(rows.cast_signed());
        if news {
            self.appended.send_modify(|count| *count += 1);
        }
    }
}
