//! The durable, ordered queue of opaque envelopes, and the ledger of what was lost.
//!
//! A row is (epoch, stream, seq) and bytes that this room never looks into. Rows enter inside a flow's transaction, so
//! they are on the disk exactly when the reading they came from is acknowledged; they leave only by deletion of what
//! the far side acknowledged. In every stream each number from 1 to the highest is a row, a ledger entry or acknowledged.
//!
//! - Numbers are never issued twice: they are reserved ahead of use, in transactions of their own past. A crash or a
//!   failed commit burns numbers, and the ledger says which. So many failed commits in a row that they went beyond what is
//!   reserved, and then a crash: their last numbers were on no disk and nobody has seen them, and they are issued again.
//! - Alarms are sent first; among the rest the oldest row decides, so no stream starves.
//! - A row whose checksum is wrong becomes a ledger entry and is never sent.
//! - Opening and memory depend on the number of streams, not of rows.
//!
//! - Rows that arrive together or wait long are compressed blocks, which are sent, evicted and lost range by range like
//!   rows.
//! - Each class has a share of the queue's bytes and a policy at it; alarms make telemetry give way. Whatever leaves
//!   without the far side's acknowledgement is in the ledger, in the same transaction.
//!
//! Limits: streams in number, a batch in rows and bytes, classes in bytes, the ledger in entries a stream. The byte limit
//! of the file is the store's.

mod admit;
mod arrive;
mod batch;
mod block;
mod config;
mod declare;
mod error;
mod evict;
#[cfg(test)]
mod fixture;
mod give_up;
mod ledger;
mod metrics;
mod newest;
mod pack;
mod pack_all;
mod packs;
mod pick;
mod queue;
mod quota;
mod rows;
mod salvage;
mod size;
mod state;
mod stream;
mod summarise;
mod sweep;
mod uptime;
mod wreck;

pub use admit::{Admission, ClassFull, Wanted};
pub use batch::{Batch, BatchId, BatchLimits, Gap, GapReason, Row};
pub use config::{ClassConfig, Config, PackConfig, Policy};
pub use error::Error;
pub use metrics::Metrics;
pub use newest::Position;
pub use queue::{ClassUsage, Envelope, Outbox, SCHEMA};
pub use salvage::Salvaged;
pub use stream::{Class, StreamHandle, StreamKey};
pub use summarise::Summarise;
