//! What one version of a model served since it was loaded: how often, and for how long.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

/// How often something happened and how long all of it took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Spent {
    /// Times.
    pub count: u64,
    /// Nanoseconds in all.
    pub ns: u64,
}

impl Spent {
    fn add(&mut self, took: Duration) {
        self.count += 1;
        self.ns = self.ns.saturating_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// A version's figures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Wall clock of the last request that came, in milliseconds since 1970; 0 before the first.
    pub last_ms: i64,
    /// Answered requests, each counted with the size of its batch.
    pub inferences: u64,
    /// Runs of the model.
    pub executions: u64,
    /// Answered requests, from the call to the answer.
    pub success: Spent,
    /// Requests without an answer.
    pub fail: Spent,
    /// Waiting for a thread, of answered requests.
    pub queue: Spent,
    /// In the engine, of answered requests.
    pub compute: Spent,
}

/// Counts for one version. Shared by whoever asks it.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counts>);

impl Tally {
    /// A request with a batch of `batch` was answered after `took`, of which the engine had `compute`.
    pub(super) fn answered(&self, batch: u64, took: Duration, compute: Duration, now_ms: i64) {
        let mut counts = self.lock();
        counts.last_ms = now_ms;
        counts.inferences += batch;
        counts.executions += 1;
        counts.success.add(took);
        counts.compute.add(compute);
        counts.queue.add(took.saturating_sub(compute));
    }

    /// A request was given up after `took`.
    pub(super) fn failed(&self, took: Duration, now_ms: i64) {
        let mut counts = self.lock();
        counts.last_ms = now_ms;
        counts.fail.add(took);
    }

    /// The figures now.
    pub fn counts(&self) -> Counts {
        *self.lock()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        // Additions do not panic halfway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_what_the_engine_did_not_take_and_failures_stay_apart() {
        let tally = Tally::default();
        tally.answered(8, Duration::from_micros(50), Duration::from_micros(20), 7);
        tally.failed(Duration::from_micros(5), 9);
        let counts = tally.counts();
        assert_eq!((counts.inferences, counts.executions, counts.last_ms), (8, 1, 9));
        assert_eq!(counts.queue, Spent { count: 1, ns: 30_000 });
        assert_eq!(counts.compute, Spent { count: 1, ns: 20_000 });
        assert_eq!((counts.success.count, counts.fail), (1, Spent { count: 1, ns: 5_000 }));
    }
}
