//! How a model is served: in the engine's words, filled in by whoever loads it.

use std::time::Duration;

/// What the one who loads a model wants for it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Serving {
    /// Bytes that the loaded model is said to need; None estimates them from its file.
    pub memory_bytes: Option<u64>,
    /// Runs at the same time; 0 is as many as there are threads.
    pub concurrency_max: usize,
    /// Runs before the first request, with the model's first sample or zeros; a sample's check counts as one.
    pub warm_up_runs: u32,
    /// Whether requests that wait are computed together.
    pub batching: Batching,
}

/// Requests of one model that wait together may be computed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batching {
    /// When.
    pub when: When,
    /// Rows of all requests together.
    pub rows_max: usize,
    /// How long a request waits for others while a thread is free for it.
    pub delay: Duration,
}

impl Default for Batching {
    fn default() -> Self {
        Self { when: When::Never, rows_max: 8, delay: Duration::ZERO }
    }
}

/// When requests are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Always, if the model's rows do not depend on each other.
    Always,
    /// If it was measured, at load, that a row gets a quarter cheaper and no bit of it changes.
    Pays,
    /// Never.
    Never,
}

/// Terms of one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terms {
    /// From now until the answer, waiting included; None takes the configured time.
    pub timeout: Option<Duration>,
    /// 1 is computed first, 9 last; 0, and whatever is over 9, is 5.
    pub priority: u64,
}

/// Levels of priority.
pub(super) const LEVELS: usize = 9;
/// The level of who names none.
pub(super) const USUAL_LEVEL: usize = 5;

impl Terms {
    /// From 1 to [`LEVELS`].
    pub(super) fn level(self) -> usize {
        match usize::try_from(self.priority) {
            Ok(level @ 1..=LEVELS) => level,
            _ => USUAL_LEVEL,
        }
    }
}
