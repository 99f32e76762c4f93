//! Limits of the inbox.

use serde::Deserialize;

/// `[inbox]` in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Most series. A batch that would begin another one is refused and not acknowledged.
    pub max_series: usize,
    /// Most rows in one batch.
    pub max_batch_rows: usize,
    /// Most ledger entries in one batch.
    pub max_batch_gaps: usize,
    /// Most missing ranges listed per series in a report; all are counted.
    pub max_reported_ranges: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_series: 100_000, max_batch_rows: 10_000, max_batch_gaps: 10_000, max_reported_ranges: 100 }
    }
}
