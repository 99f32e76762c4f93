//! Limits and waits of the store, each with its unit.

use std::path::PathBuf;

use serde::Deserialize;

use super::vfs::Disk;

/// Bytes of one database page. Flash and file systems both like 4 KiB.
pub(super) const PAGE_BYTES: u64 = 4096;

/// `[store]` in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Folder that holds `forebay.db`, its log, the epoch and quarantined files.
    pub state_dir: PathBuf,
    /// Hard limit of database plus write-ahead log. New rows are refused at the limit; deletes still work.
    pub max_bytes: u64,
    /// Kept free inside `max_bytes`, so that deletes and the loss ledger always fit.
    pub reserve_bytes: u64,
    /// Most records waiting for the writer, its current batch included.
    pub queue_records: usize,
    /// Most bytes waiting for the writer, its current batch included.
    pub queue_bytes: usize,
    /// Most records in one commit.
    pub batch_records: usize,
    /// Most bytes in one commit.
    pub batch_bytes: usize,
    /// Longest wait for more records. The wait is shorter on a fast disk: at most half of a recent sync.
    pub batch_window_us: u64,
    /// Longest time that work without urgency waits for an insert to ride with.
    pub ride_ms: u64,
    /// While commits fail and nobody submits, how often the disk is tried again.
    pub probe_ms: u64,
    /// How often the wall clock is persisted, riding in a commit that happens anyway.
    pub wall_persist_ms: u64,
    /// Log length from which pages are copied back in the background.
    pub checkpoint_bytes: u64,
    /// Log length from which the writer waits a moment so that the log can start over.
    pub restart_bytes: u64,
    /// Hard limit of the log: beyond it commits are refused until a checkpoint got through.
    pub max_log_bytes: u64,
    /// Read-only connections.
    pub readers: usize,
    /// Most database files that were set aside as damaged; the oldest is removed, salvaged or not. They take disk beside
    /// `max_bytes`, each as much as the database had. One that is salvaged without loss is removed at once.
    pub quarantine_files: usize,
    /// Only for tests and proofs, and no file can set it: a disk that is watched.
    #[serde(skip)]
    pub disk: Disk,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: PathBuf::from("state"),
            max_bytes: 1 << 30,
            reserve_bytes: 4 << 20,
            queue_records: 4096,
            queue_bytes: 4 << 20,
            batch_records: 256,
            batch_bytes: 256 << 10,
            batch_window_us: 5000,
            ride_ms: 1000,
            probe_ms: 1000,
            wall_persist_ms: 60_000,
            checkpoint_bytes: 4 << 20,
            restart_bytes: 12 << 20,
            max_log_bytes: 48 << 20,
            readers: 2,
            quarantine_files: 2,
            disk: Disk::default(),
        }
    }
}

impl Config {
    /// The defaults, in `state_dir`.
    pub fn at(state_dir: impl Into<PathBuf>) -> Self {
        Self { state_dir: state_dir.into(), ..Self::default() }
    }

    pub(super) fn database(&self) -> PathBuf {
        self.state_dir.join("forebay.db")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.state_dir.join("forebay.db-wal")
    }

    /// Most pages of the database file while rows are inserted: what log and reserve leave over.
    pub(super) fn insert_pages(&self) -> u64 {
        self.delete_pages().saturating_sub(self.reserve_bytes / PAGE_BYTES).max(16)
    }

    /// Most pages of the database file while rows are deleted.
    pub(super) fn delete_pages(&self) -> u64 {
        (self.max_bytes.saturating_sub(self.restart_bytes) / PAGE_BYTES).max(16)
    }

    pub(super) fn log_pages(bytes: u64) -> u64 {
        (bytes / PAGE_BYTES).max(1)
    }
}
