//! The receiving side of the outbox: which numbers of which stream arrived, and the rows themselves.
//!
//! A link may deliver a batch twice, late, in part or overlapping another. This room writes the set of received
//! numbers in the transaction that stores the rows, so the effect happens exactly once, and it can say what is missing:
//! received, declared lost and missing make up 1 to the highest number.
//!
//! A series is (gateway, epoch, class, stream); the same gateway with a new epoch begins again at 1.
//!
//! The state lives in a SQLite file ([`Inbox`]) or in PostgreSQL (`Warehouse`), where several collectors share it.
//!
//! Limits: series in number. The byte limit of the file is the store's.

mod apply;
mod batch;
mod config;
mod error;
mod metrics;
mod ranges;
mod report;
#[cfg(feature = "postgres")]
mod warehouse;

pub use apply::{Applied, Inbox, SCHEMA};
pub use batch::{IncomingBatch, IncomingGap, IncomingRow, VerifiedBatch};
pub use config::Config;
pub use error::Error;
pub use metrics::Metrics;
pub use report::{Loss, ReasonReport, Report, SeriesReport};
#[cfg(feature = "postgres")]
pub use warehouse::{Incoming, Reject, TlsFiles, Warehouse, WarehouseConfig, WarehouseError};
