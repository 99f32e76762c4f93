//! The stories: which room is called in which order, and nothing else.

mod batch;
mod cbor;
mod flight;
mod queue;
mod sync;

pub use batch::{Address, BATCH_OVERHEAD_BYTES, Batch, BatchError, Gap, Limits, ROW_OVERHEAD_BYTES, Row};
pub use cbor::CborError;
pub use sync::{Sync, SyncConfig, SyncMetrics};
