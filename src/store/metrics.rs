//! What the store counts. Clones share their values.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Counters of one store.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(super) commits: Counter,
    pub(super) commit_failures: Counter,
    pub(super) records: Counter,
    pub(super) bytes: Counter,
    pub(super) batch_records: Histogram,
    pub(super) commit_seconds: Histogram,
    pub(super) queue_records: Gauge,
    pub(super) queue_refusals: Counter,
    pub(super) log_pages: Gauge,
    pub(super) checkpoints: Counter,
    pub(super) checkpoint_failures: Counter,
    pub(super) checkpoint_seconds: Histogram,
    pub(super) failing: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            commits: Counter::default(),
            commit_failures: Counter::default(),
            records: Counter::default(),
            bytes: Counter::default(),
            batch_records: Histogram::new(exponential_buckets(1.0, 2.0, 10)),
            commit_seconds: Histogram::new(exponential_buckets(0.000_1, 2.5, 12)),
            queue_records: Gauge::default(),
            queue_refusals: Counter::default(),
            log_pages: Gauge::default(),
            checkpoints: Counter::default(),
            checkpoint_failures: Counter::default(),
            checkpoint_seconds: Histogram::new(exponential_buckets(0.001, 2.5, 10)),
            failing: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Adds every metric of this room to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("store_commits", "Commits that reached the disk", self.commits.clone());
        registry.register("store_commit_failures", "Commits that failed", self.commit_failures.clone());
        registry.register("store_records", "Pieces of work committed", self.records.clone());
        registry.register("store_submitted_bytes", "Bytes committed, as submitted", self.bytes.clone());
        registry.register("store_batch_records", "Pieces of work in one commit", self.batch_records.clone());
        registry.register("store_commit_seconds", "Time of COMMIT, sync included", self.commit_seconds.clone());
        registry.register("store_queue_records", "Pieces of work waiting", self.queue_records.clone());
        registry.register("store_queue_refusals", "Work refused by a full queue", self.queue_refusals.clone());
        registry.register("store_log_pages", "Pages in the write-ahead log", self.log_pages.clone());
        registry.register("store_checkpoints", "Checkpoints done", self.checkpoints.clone());
        registry.register("store_checkpoint_failures", "Checkpoints that failed", self.checkpoint_failures.clone());
        registry.register("store_checkpoint_seconds", "Time of one checkpoint", self.checkpoint_seconds.clone());
        registry.register("store_failing", "1 while commits fail", self.failing.clone());
    }

    /// Pieces of work committed so far.
    pub fn records_committed(&self) -> u64 {
        self.records.get()
    }

    /// Commits so far.
    pub fn commits_done(&self) -> u64 {
        self.commits.get()
    }

    /// Pages in the log after the last commit.
    pub fn log_pages_now(&self) -> i64 {
        self.log_pages.get()
    }
}
