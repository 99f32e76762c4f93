//! What can go wrong with the queue.

use super::stream::StreamKey;
use crate::store;

/// Why the outbox could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk, or the file.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Every stream slot is taken.
    #[error(
        "failed to register stream {key}: {most} streams exist already (outbox.max_streams; a stream of readings has one each for its summaries, alarms, verdicts and raw readings, as far as it sends them)"
    )]
    TooManyStreams {
        /// The stream that does not fit.
        key: StreamKey,
        /// The limit.
        most: usize,
    },
    /// A set aside file gives nothing.
    #[error("failed to salvage: {problem}")]
    Salvage {
        /// Why.
        problem: String,
    },
    /// Settings that contradict each other.
    #[error("outbox.{key}: {problem}")]
    Setting {
        /// The setting, below `[outbox]`.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Rows that were set right are wrong again at once.
    #[error("failed to read stream {key}: its rows are still wrong after they were entered into the ledger")]
    Unreadable {
        /// The stream.
        key: StreamKey,
    },
}

impl Error {
    /// True if the file's content is at fault: close the store and open it again, which begins a new epoch.
    pub fn is_corruption(&self) -> bool {
        match self {
            Self::Store(error) => error.is_corruption(),
            Self::Unreadable { .. } => true,
            Self::TooManyStreams { .. } | Self::Salvage { .. } | Self::Setting { .. } => false,
        }
    }
}
