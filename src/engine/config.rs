//! `[engine]`: threads and bounds.

use serde::Deserialize;

/// `[engine]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Threads that compute; 0 takes one less than there are cores, at least one.
    pub threads: usize,
    /// Requests that may wait in each lane before callers hear `busy`.
    pub queue_requests: usize,
    /// Bytes of inputs that may wait in each lane.
    pub queue_bytes: usize,
    /// Largest input or output tensor in bytes.
    pub tensor_bytes_max: usize,
    /// How long a request may take, waiting included, where its caller names no time, in milliseconds.
    pub timeout_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            threads: 0,
            queue_requests: 256,
            queue_bytes: 32 * 1024 * 1024,
            tensor_bytes_max: 64 * 1024 * 1024,
            timeout_ms: 10_000,
        }
    }
}
