//! The stories: which room is called in which order, and nothing else.

mod address;
mod arrival;
mod attempt;
mod backend;
mod batch;
pub mod board;
mod cbor;
mod classify;
mod collect;
#[cfg(feature = "nats")]
mod collect_stream;
mod conduct;
mod confirm;
mod day;
mod difference;
mod due;
mod fault;
mod flight;
mod frame;
pub mod inference;
pub mod intake;
mod load_spec;
pub mod models;
mod models_metrics;
mod pace;
mod pipeline;
mod pipeline_ask;
mod pipeline_load;
pub mod pipeline_tally;
pub mod predict;
mod predict_metrics;
pub mod query;
mod queue;
pub mod raw;
mod receipt;
mod receive;
pub mod record;
pub mod repository;
mod request;
pub mod salvage;
pub mod sense;
mod shadow;
mod sink;
mod slot;
mod summarise;
pub mod summary;
mod sync;
mod sync_settings;
pub mod tally;
pub mod traffic;
mod upkeep;
mod view;
#[cfg(feature = "postgres")]
mod warehouse_sink;
mod way;

pub use address::Address;
pub use arrival::Arrival;
pub use batch::{BATCH_OVERHEAD_BYTES, Batch, BatchError, Decoded, Gap, Limits, ROW_OVERHEAD_BYTES, Row};
pub use cbor::CborError;
pub use collect::{Collect, CollectConfig, CollectMetrics};
#[cfg(feature = "nats")]
pub use collect_stream::{CollectStream, StreamBatch};
pub use day::SYNC_SCHEMA;
pub use frame::{FrameError, FrameLimits};
pub use load_spec::{LoadSpecError, PlanError, load_spec, plan_of};
pub use models_metrics::register as register_models;
pub use pipeline_load::{graph_of, signature_of};
pub use receipt::{Receipt, ReceiptError, Span, Verdict};
pub use request::{Ask, CloudAnswer, CloudRequest, Outcome, RequestMetrics, Requests};
pub use sink::{COLLECT_SCHEMA, Effect, InboxSink, Rejects, Sink};
pub use summarise::InPlaceOfRows;
pub use sync::Sync;
pub use sync_settings::{AcknowledgedBy, Classes, Metered, SyncConfig, SyncMetrics};
pub use upkeep::keep_queue;
#[cfg(feature = "postgres")]
pub use warehouse_sink::WarehouseSink;
