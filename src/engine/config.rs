//! `[engine]`: threads and bounds.

use serde::Deserialize;

use super::back_off::BackOff;

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
    /// Bytes that all loaded models may need together, by what their manifests say or their files let expect. 0 takes
    /// three quarters of what the box or its control group has.
    pub memory_bytes_max: u64,
    /// `[engine.back_off]`: when models step back.
    pub back_off: BackOff,
}

impl Config {
    /// Threads that compute, on this machine.
    pub fn thread_count(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        if self.threads == 0 { cores().saturating_sub(1).max(1) } else { self.threads }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            threads: 0,
            queue_requests: 256,
            queue_bytes: 32 * 1024 * 1024,
            tensor_bytes_max: 64 * 1024 * 1024,
            timeout_ms: 10_000,
            memory_bytes_max: 0,
            back_off: BackOff::default(),
        }
    }
}
