//! What this box has seen lately: readings with their verdicts, summary windows, alarms, rejected payloads,
//! and what each stream must remember over a restart.
//!
//! It is for people, for refilling windows after a restart, and for nothing else: what the cloud must get waits in the
//! outbox, and dropping history is no loss. It never takes room that the queue needs.
//!
//! Limits: readings and windows a stream, alarms and rejected payloads in all, readings in bytes. The oldest goes.

mod arrival;
mod block;
mod checksum;
mod columns;
mod incoming;
mod keep;
mod limits;
mod metrics;
mod number;
mod read;
mod request;
mod resume;
mod salvage;
mod walk;
mod write;

pub use checksum::register;
pub use keep::Keeper;
pub use metrics::Metrics;
pub use read::{
    alerts, curve, memory, number_at, numbers_around, numbers_between, oldest, one_alert, open_alert, open_window,
    readings, rejected, tail, windows,
};
pub use request::{Request, request};
pub use resume::{Since, since};
pub use salvage::{Remembered, remembered};
pub use write::{History, SCHEMA, StreamNo};

use serde::Deserialize;

/// How much is kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Readings kept a stream. Older ones go a block at a time.
    pub readings: u64,
    /// Most that readings take of what rows may fill of the file, in per cent. They give way to everything else.
    pub share_percent: u64,
    /// Summary windows kept a stream.
    pub windows: u64,
    /// Alarms kept in all.
    pub alerts: u64,
    /// Rejected payloads kept in all.
    pub rejected: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { readings: 50_000, share_percent: 20, windows: 5_000, alerts: 10_000, rejected: 1_000 }
    }
}

impl Config {
    /// Finds settings that make no history; the key and what is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if !(1..=90).contains(&self.share_percent) {
            let problem =
                format!("is {}: history needs a part of the file and leaves one; use 1 to 90", self.share_percent);
            return Err(("share_percent", problem));
        }
        Ok(())
    }
}

/// One committed reading.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Its number in its stream: rising, never used twice, some are left out.
    pub seq: u64,
    /// Source time, ms since 1970, UTC.
    pub time_ms: i64,
    /// The source's own identity of it, if it gives one.
    pub id: Option<String>,
    /// Values in field order; NaN where it was not a number.
    pub values: Vec<f64>,
    /// The model's score.
    pub score: Option<f64>,
    /// What the model expected for the first field, in its unit.
    pub expected: Option<f64>,
    /// The verdict's state as the flow numbers it.
    pub state: u8,
    /// What the flow noted beside it, where there is something; opaque here.
    pub extra: Option<Vec<u8>>,
}

/// One alarm.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// Number on this box, from 1.
    pub id: i64,
    /// Stream name.
    pub stream: String,
    /// Severity in words.
    pub severity: String,
    /// Source time of the raise, ms since 1970.
    pub raised_ms: i64,
    /// The reading that raised it.
    pub raised_seq: u64,
    /// Source time of the clear.
    pub cleared_ms: Option<i64>,
    /// Highest score so far.
    pub peak_score: f64,
    /// Raised in a quiet period.
    pub suppressed: bool,
}

/// One summary window.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// First reading in it.
    pub first_seq: u64,
    /// Last reading in it.
    pub last_seq: u64,
    /// Source time of the first, ms since 1970.
    pub start_ms: i64,
    /// Source time of the last, ms since 1970.
    pub end_ms: i64,
    /// Readings in it.
    pub count: u64,
    /// Highest score in it.
    pub peak_score: Option<f64>,
    /// What the flow wrote about its fields; opaque here.
    pub body: Vec<u8>,
}

/// The extremes of neighbouring readings.
#[derive(Debug, Clone, PartialEq)]
pub struct Bucket {
    /// Source time of the first reading, ms since 1970.
    pub time_ms: i64,
    /// Lowest first value.
    pub low: f64,
    /// Highest first value.
    pub high: f64,
    /// Highest score.
    pub score: Option<f64>,
    /// Expected value of the last reading.
    pub expected: Option<f64>,
}

/// A payload that could not be read, kept so that nothing vanishes in silence.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejected {
    /// Stream name.
    pub stream: String,
    /// When it came, ms since 1970.
    pub wall_ms: i64,
    /// What was wrong with it.
    pub reason: String,
    /// Its first bytes.
    pub payload: Vec<u8>,
}
