//! Recording: from a request's end to a block that waits for the disk.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::config::Config;
use super::metrics::Metrics;
use super::pack::Packer;
use super::record::Record;
use super::sums::Waiting;

/// Records of a block.
pub(super) const BLOCK_ROWS: u32 = 256;
/// Bytes of a block, but for its last record.
const BLOCK_BYTES: usize = 32 << 10;
/// A block that is shorter when it is written goes on and is written again: one page of the file either way.
pub(super) const SHORT_BYTES: usize = 3000;

/// Records of requests and what they took together. A cheap clone.
#[derive(Clone)]
pub struct Ledger {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) config: Config,
    pub(super) metrics: Metrics,
    state: Mutex<State>,
    /// Something waits to be written.
    pub(super) dirty: Notify,
    /// A whole block does.
    pub(super) urgent: Notify,
    /// A batch holds it until its commit is over, whatever became of the one who waits for it.
    pub(super) writing: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) open: Block,
    pub(super) sealed: VecDeque<Block>,
    pub(super) sealed_bytes: usize,
    pub(super) sums: Waiting,
    /// Records in `sealed` and `open` that are not on the disk.
    pub(super) waiting_rows: usize,
    pub(super) disk: Disk,
}

/// What the file has of records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Disk {
    /// The highest number that a block was given.
    pub(super) last_no: i64,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// Rows of sums.
    pub(super) sums: u64,
}

impl Disk {
    pub(super) fn next_no(&mut self) -> i64 {
        self.last_no += 1;
        self.last_no
    }
}

/// Records that become one row.
#[derive(Default)]
pub(super) struct Block {
    /// Tells it apart in memory.
    pub(super) id: u64,
    pub(super) packer: Packer,
    /// Its number in the file, once somebody has begun to write it.
    pub(super) no: Option<i64>,
    /// What the file has of it.
    pub(super) written_rows: u32,
    pub(super) written_bytes: u64,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("waiting", &self.inner.lock().waiting_rows).finish_non_exhaustive()
    }
}

impl Ledger {
    /// Keeps as much as `config` says.
    pub fn new(config: Config) -> Self {
        let inner = Inner {
            config,
            metrics: Metrics::default(),
            state: Mutex::default(),
            dirty: Notify::new(),
            urgent: Notify::new(),
            writing: Arc::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Records a request that is over: into memory, in about half a microsecond. It is on the disk after
    /// [`keep`](Self::keep) has written it, at most `flush_ms` later; a crash loses what was not.
    pub fn record(&self, record: &Record<'_>) {
        self.put(record, true);
    }

    /// Counts a request in the sums only, as one without a record of its own.
    pub fn count(&self, record: &Record<'_>) {
        self.put(record, false);
    }

    fn put(&self, record: &Record<'_>, is_wanted: bool) {
        let Inner { config, metrics, .. } = &*self.inner;
        let mut state = self.inner.lock();
        let is_first = state.sums.is_empty() && state.waiting_rows == 0;
        let has_room = state.waiting_rows < config.waiting_rows && state.waiting_bytes() < config.waiting_bytes;
        let is_recorded = is_wanted && config.keep_rows > 0 && has_room;
        let mut is_urgent = false;
        if is_recorded {
            state.open.packer.push(record);
            state.waiting_rows += 1;
            if state.open.packer.rows >= BLOCK_ROWS || state.open.packer.body.len() >= BLOCK_BYTES {
                state.seal();
                is_urgent = true;
            }
        }
        let is_other = state.sums.count(record, is_recorded || config.keep_rows == 0, config.sums_a_day);
        let waiting = state.waiting_rows;
        drop(state);
        metrics.records.inc();
        metrics.waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        if is_wanted && !is_recorded && config.keep_rows > 0 {
            metrics.dropped.inc();
        }
        if is_other {
            metrics.folded.inc();
        }
        if is_first {
            self.inner.dirty.notify_one();
        }
        if is_urgent {
            self.inner.urgent.notify_one();
        }
    }

    /// What this room counts.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }
}

impl Inner {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics between a record and its sums.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes no more records into the open block.
    pub(super) fn seal(&mut self) {
        let id = self.open.id + 1;
        let mut block = std::mem::replace(&mut self.open, Block { id, ..Block::default() });
        block.packer.finish();
        self.sealed_bytes += block.packer.body.len();
        self.sealed.push_back(block);
    }

    fn waiting_bytes(&self) -> usize {
        self.sealed_bytes + self.open.packer.body.len()
    }
}
