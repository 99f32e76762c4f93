//! What one version of a model served since it was loaded: how often, and for how long.

use std::collections::BTreeMap;
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
    pub(super) fn add(&mut self, took: Duration) {
        self.count += 1;
        self.ns = self.ns.saturating_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// The run of a model that a request was part of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ran {
    /// In the engine.
    pub(super) compute: Duration,
    /// Before it.
    pub(super) waited: Duration,
    /// Checking the inputs, and joining them with others'.
    pub(super) input: Duration,
    /// From the end of the run until the outputs were with the request.
    pub(super) output: Duration,
    /// Of all requests that were computed together.
    pub(super) rows: u64,
    /// True for one of them.
    pub(super) leads: bool,
}

/// Sizes of batches that are counted apart; what is larger is counted with the largest.
const SIZES_MAX: usize = 64;

/// A version's figures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Wall clock of the last request that came, in milliseconds since 1970; 0 before the first.
    pub last_ms: i64,
    /// Answered requests, each counted with the size of its batch.
    pub inferences: u64,
    /// Runs of the model; requests that were computed together are one.
    pub executions: u64,
    /// Runs by the rows in them. The time is of the runs, however many requests each answered.
    pub batches: BTreeMap<u64, Runs>,
    /// Answered requests, from the call to the answer.
    pub success: Spent,
    /// Requests without an answer.
    pub fail: Spent,
    /// Waiting for a thread and for others to be computed with, of answered requests.
    pub queue: Spent,
    /// In the engine, of answered requests: each counts the whole time of its run.
    pub compute: Spent,
    /// Making answered requests' inputs ready for the engine: checking them, and joining them with others'.
    pub input: Spent,
    /// From the end of a run until its outputs were with each of its requests.
    pub output: Spent,
}

/// Runs of one size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Runs {
    /// In the engine.
    pub compute: Spent,
    /// Before that, as the run's first request saw it.
    pub input: Spent,
    /// Behind it, likewise.
    pub output: Spent,
}

/// Counts for one version. Shared by whoever asks it.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counts>);

impl Tally {
    /// A request with a batch of `batch` was answered after `took`.
    pub(super) fn answered(&self, batch: u64, took: Duration, ran: Ran, now_ms: i64) {
        let mut counts = self.lock();
        counts.last_ms = now_ms;
        counts.inferences += batch;
        counts.success.add(took);
        counts.compute.add(ran.compute);
        counts.queue.add(ran.waited);
        counts.input.add(ran.input);
        counts.output.add(ran.output);
        if ran.leads {
            counts.executions += 1;
            let full = counts.batches.len() >= SIZES_MAX && !counts.batches.contains_key(&ran.rows);
            let largest = counts.batches.keys().next_back().copied().filter(|_| full);
            let runs = counts.batches.entry(largest.unwrap_or(ran.rows)).or_default();
            runs.compute.add(ran.compute);
            runs.input.add(ran.input);
            runs.output.add(ran.output);
        }
    }

    /// A request was given up after `took`.
    pub(super) fn failed(&self, took: Duration, now_ms: i64) {
        let mut counts = self.lock();
        counts.last_ms = now_ms;
        counts.fail.add(took);
    }

    /// The figures now.
    pub fn counts(&self) -> Counts {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        // Additions do not panic halfway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(rows: u64, leads: bool) -> Ran {
        let us = Duration::from_micros;
        Ran { compute: us(20), waited: us(30), input: us(2), output: us(3), rows, leads }
    }

    #[test]
    fn waiting_and_computing_are_counted_and_failures_stay_apart() {
        let tally = Tally::default();
        tally.answered(8, Duration::from_micros(55), ran(8, true), 7);
        tally.failed(Duration::from_micros(5), 9);
        let counts = tally.counts();
        assert_eq!((counts.inferences, counts.executions, counts.last_ms), (8, 1, 9));
        assert_eq!(counts.queue, Spent { count: 1, ns: 30_000 });
        assert_eq!(counts.compute, Spent { count: 1, ns: 20_000 });
        assert_eq!((counts.input.ns, counts.output.ns), (2_000, 3_000));
        assert_eq!((counts.success.ns, counts.fail), (55_000, Spent { count: 1, ns: 5_000 }));
    }

    #[test]
    fn requests_that_were_computed_together_are_one_run_and_each_counts_its_time() {
        let tally = Tally::default();
        for (batch, leads) in [(1, true), (2, false), (1, false)] {
            tally.answered(batch, Duration::from_micros(60), ran(4, leads), 1);
        }
        tally.answered(1, Duration::from_micros(60), ran(1, true), 1);
        let counts = tally.counts();
        assert_eq!((counts.inferences, counts.executions, counts.success.count), (5, 2, 4));
        assert_eq!(counts.compute, Spent { count: 4, ns: 80_000 });
        let spent = |ns| Spent { count: 1, ns };
        let runs = Runs { compute: spent(20_000), input: spent(2_000), output: spent(3_000) };
        assert_eq!(counts.batches, BTreeMap::from([(1, runs), (4, runs)]));
    }

    #[test]
    fn sizes_of_batches_are_bounded() {
        let tally = Tally::default();
        for rows in 1..=1000 {
            tally.answered(rows, Duration::ZERO, ran(rows, true), 1);
        }
        let counts = tally.counts();
        assert_eq!((counts.batches.len(), counts.executions), (SIZES_MAX, 1000));
        assert_eq!(counts.batches.values().map(|runs| runs.compute.count).sum::<u64>(), 1000);
    }
}
