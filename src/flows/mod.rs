//! The stories: which room is called in which order, and nothing else.

mod batch;
mod cbor;

pub use batch::{Address, BATCH_OVERHEAD_BYTES, Batch, BatchError, Gap, Limits, ROW_OVERHEAD_BYTES, Row};
pub use cbor::CborError;
