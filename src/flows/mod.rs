//! The stories: which room is called in which order, and nothing else.

mod address;
mod batch;
mod cbor;
mod collect;
mod flight;
mod queue;
mod sync;
mod sync_settings;

pub use address::Address;
pub use batch::{BATCH_OVERHEAD_BYTES, Batch, BatchError, Decoded, Gap, Limits, ROW_OVERHEAD_BYTES, Row};
pub use cbor::CborError;
pub use collect::{COLLECT_SCHEMA, Collect, CollectConfig, CollectMetrics};
pub use sync::Sync;
pub use sync_settings::{SyncConfig, SyncMetrics};
