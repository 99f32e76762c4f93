//! `[ledger]`: how much of it is kept.

use serde::Deserialize;

/// `[ledger]` in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Most records of single requests that are kept; the oldest go, a block of up to 256 at a time. 0 keeps sums only.
    pub keep_rows: u64,
    /// Most bytes that they take.
    pub keep_bytes: u64,
    /// How many days they are kept at most; absent for as long as there is room. Needs a clock that somebody has set.
    pub keep_days: Option<u32>,
    /// Most sums (one for each day, tenant, key, model and prompt) that are kept; the oldest go.
    pub keep_sums: u64,
    /// Most different sums of one day. What comes beyond it is summed up under the name `(other)`.
    pub sums_a_day: usize,
    /// Most entries of operators' actions that are kept; the oldest go.
    pub keep_audit: u64,
    /// How long a record may wait for others before it is written, in milliseconds.
    pub flush_ms: u64,
    /// Most records that wait for the disk. What comes beyond it is counted in the sums and as dropped, and has no record.
    pub waiting_rows: usize,
    /// Most bytes that they take in memory, likewise.
    pub waiting_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            keep_rows: 1_000_000,
            keep_bytes: 128 << 20,
            keep_days: None,
            keep_sums: 100_000,
            sums_a_day: 10_000,
            keep_audit: 100_000,
            flush_ms: 1000,
            waiting_rows: 8192,
            waiting_bytes: 4 << 20,
        }
    }
}

impl Config {
    /// Finds settings that make no ledger; the key and what is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let ranges = [
            ("keep_bytes", self.keep_bytes, 1 << 20, 1 << 40),
            ("keep_sums", self.keep_sums, 100, 10_000_000),
            ("sums_a_day", self.sums_a_day as u64, 1, 100_000),
            ("keep_audit", self.keep_audit, 100, 10_000_000),
            ("flush_ms", self.flush_ms, 10, 60_000),
            ("waiting_rows", self.waiting_rows as u64, 256, 1_000_000),
            ("waiting_bytes", self.waiting_bytes as u64, 64 << 10, 1 << 30),
        ];
        for (key, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                return Err((key, format!("is {value}; use {least} to {most}")));
            }
        }
        match self.keep_days {
            Some(0) => Err(("keep_days", "is 0; leave it out to keep records as long as there is room".to_owned())),
            _ => Ok(()),
        }
    }
}
