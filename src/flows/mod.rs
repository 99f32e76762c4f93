//! The stories: which room is called in which order, and nothing else.

mod address;
mod batch;
pub mod board;
mod cbor;
mod collect;
mod day;
mod due;
mod flight;
mod frame;
pub mod inference;
pub mod intake;
mod load_spec;
pub mod models;
mod pace;
pub mod query;
mod queue;
pub mod record;
pub mod sense;
mod sync;
mod sync_settings;
mod view;

pub use address::Address;
pub use batch::{BATCH_OVERHEAD_BYTES, Batch, BatchError, Decoded, Gap, Limits, ROW_OVERHEAD_BYTES, Row};
pub use cbor::CborError;
pub use collect::{COLLECT_SCHEMA, Collect, CollectConfig, CollectMetrics};
pub use day::SYNC_SCHEMA;
pub use frame::{FrameError, FrameLimits};
pub use load_spec::load_spec;
pub use sync::Sync;
pub use sync_settings::{Classes, Metered, SyncConfig, SyncMetrics};
