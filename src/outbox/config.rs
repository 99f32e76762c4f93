//! Limits of the outbox.

use serde::Deserialize;

/// `[outbox]` in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Numbers reserved at a time; a crash burns up to twice as many per stream.
    pub reserve_rows: u64,
    /// Most streams; each costs memory and a look-up at start.
    pub max_streams: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { reserve_rows: 1024, max_streams: 1024 }
    }
}
