//! Why a batch is not believed, or not kept.

use crate::store;

/// Why the inbox could not do what was asked. Nothing of the batch was applied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk, or the file.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The rows are not the ones that the sender digested.
    #[error("failed to verify batch {first}-{last}: digest of the rows is {actual}, the batch says {stated}")]
    Digest {
        /// First number of the batch.
        first: u64,
        /// Last number of the batch.
        last: u64,
        /// As the sender says.
        stated: crate::base::Digest,
        /// As received.
        actual: crate::base::Digest,
    },
    /// The batch contradicts itself.
    #[error("failed to verify batch {first}-{last}: {what}")]
    Malformed {
        /// First number of the batch.
        first: u64,
        /// Last number of the batch.
        last: u64,
        /// What is wrong.
        what: String,
    },
}
