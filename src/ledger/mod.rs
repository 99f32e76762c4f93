//! What happened: a record of every request, what requests took together, and what operators did.
//!
//! [`Ledger::record`] takes a [`Record`] into memory; [`Ledger::keep`] writes what waits, a block of up to 256 records in a
//! row of the database, so that a record costs about 100 bytes and half a microsecond. [`calls`] reads them back a page at a
//! time, [`sums()`] what they took by day, tenant, key, model and prompt. [`audit_enter`] enters an operator's action into a
//! chain of hashes, in the transaction of the action's effect.
//!
//! - A record is on the disk at most `flush_ms` and a commit after its request; a crash loses what was not. While the disk
//!   refuses, records wait in memory; beyond `waiting_rows` a request has no record, which the metrics and the sums'
//!   `unrecorded` say. Sums always have it.
//! - What is unknown is None in a record and counted apart in sums, never 0.
//! - The oldest records go beyond `keep_rows`, `keep_bytes` and `keep_days`; the oldest sums beyond `keep_sums`, the oldest
//!   entries of the audit beyond `keep_audit`. What has no room of its own in a day's sums is summed up as `(other)`.
//! - Rows carry checksums; a damaged one is left out, counted, and never told as good.
//!
//! Never here: prompts, answers, keys; what a token costs; who may read.
//!
//! Limits: texts of 256 bytes, 16 attempts a record, 1,000 records a page, 10,000 groups of sums.

mod audit;
mod config;
mod keep;
mod metrics;
mod pack;
mod read;
mod record;
mod recording;
mod rows;
mod sums;
#[cfg(test)]
mod tests;

pub use audit::{
    Action, Chain, Entry, Head, enter as audit_enter, entries as audit_entries, head as audit_head,
    verify as audit_verify,
};
pub use config::Config;
pub use metrics::Metrics;
pub use read::{Cursor, CursorError, Page, Query, calls};
pub use record::{Attempt, Call, Here, Record, Tried, Usage};
pub use recording::Ledger;
pub use rows::SCHEMA;
pub use sums::{By, Group, OTHER, Sums, SumsQuery, sums};
