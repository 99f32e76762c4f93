//! The bounded queue in front of the writer, and how long it gathers before a commit.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::config::Config;
use super::error::{Closed, CommitError, Error};
use super::tx::Tx;
use crate::base::Clock;

/// What runs inside the transaction.
pub(super) type Work = Box<dyn FnOnce(&Tx<'_>) -> Result<(), Error> + Send>;
/// What is told after it.
pub(super) type Done = Box<dyn FnOnce(Result<(), CommitError>) + Send>;

/// One piece of submitted work. `bytes` are its share of the queue's bound.
pub(super) struct Job {
    pub(super) bytes: u32,
    pub(super) work: Work,
    pub(super) done: Done,
}

/// Work for one commit.
#[derive(Default)]
pub(super) struct Gathered {
    /// Without urgency; they run first, because deletes free the pages that inserts want.
    pub(super) rides: Vec<Job>,
    pub(super) jobs: Vec<Job>,
}

/// What the writer knows about its pace when it gathers.
pub(super) struct Pace {
    /// Records that came together lately: fewer than these are worth a short wait, more are not.
    pub(super) expected: usize,
    /// Longest wait.
    pub(super) window: Duration,
    /// How long to sleep when nothing is there at all.
    pub(super) idle: Duration,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    job_bytes: usize,
    rides: VecDeque<Job>,
    /// A ride that somebody waits for: go now.
    urgent: bool,
    /// The writer sleeps until this many jobs are there; 0 while it works.
    wanted: usize,
    closing: bool,
}

/// Shared by the submitters and the writer thread.
pub(super) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    pub(super) records: Semaphore,
    pub(super) bytes: Semaphore,
    pub(super) ride_records: Semaphore,
    most_bytes: u32,
    batch_records: usize,
    batch_bytes: usize,
    ride: Duration,
}

/// A wait shorter than this costs more than it gathers.
const SHORTEST_WINDOW: Duration = Duration::from_micros(200);
/// The window is spent in slices; one without an arrival ends it.
const SLICES: u32 = 8;

impl Queue {
    pub(super) fn new(config: &Config) -> Self {
        let most_bytes = u32::try_from(config.queue_bytes.max(1)).unwrap_or(u32::MAX);
        let records = config.queue_records.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            state: Mutex::default(),
            wake: Condvar::new(),
            records: Semaphore::new(records),
            bytes: Semaphore::new(most_bytes as usize),
            ride_records: Semaphore::new(records),
            most_bytes,
            batch_records: config.batch_records.max(1),
            batch_bytes: config.batch_bytes,
            ride: Duration::from_millis(config.ride_ms),
        }
    }

    /// What `bytes` cost: something bigger than the whole bound passes alone.
    pub(super) fn cost(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).clamp(1, self.most_bytes)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A poisoned queue is still a queue: no code panics between two of its fields.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a job whose permits were forgotten by the submitter.
    pub(super) fn push(&self, job: Job) -> Result<(), Closed> {
        let mut state = self.lock();
        if state.closing {
            return Err(Closed);
        }
        state.job_bytes += job.bytes as usize;
        state.jobs.push_back(job);
        let wake = state.wanted > 0 && state.jobs.len() >= state.wanted;
        drop(state);
        if wake {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Takes work that can wait, or that somebody waits for although it counts against the reserve like a ride.
    pub(super) fn push_ride(&self, job: Job, urgent: bool) -> Result<(), Closed> {
        let mut state = self.lock();
        if state.closing {
            return Err(Closed);
        }
        state.rides.push_back(job);
        state.urgent |= urgent;
        let wake = state.wanted > 0 && (urgent || state.rides.len() == 1 || state.rides.len() == self.batch_records);
        drop(state);
        if wake {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// No more work; what is queued will still be gathered.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.records.close();
        self.bytes.close();
        self.ride_records.close();
        self.wake.notify_one();
    }

    /// Waits for work. Empty after `pace.idle` without any; `None` when closed and drained.
    pub(super) fn gather(&self, pace: &Pace, clock: &dyn Clock) -> Option<Gathered> {
        let mut state = self.lock();
        while state.jobs.is_empty() {
            let rides_go = state.closing || state.urgent || state.rides.len() >= self.batch_records;
            if !state.rides.is_empty() && rides_go {
                return Some(self.take(state));
            }
            if state.closing {
                return None;
            }
            let had_rides = !state.rides.is_empty();
            state.wanted = 1;
            let wait = if had_rides { self.ride } else { pace.idle };
            let (next, waited) = self.wake.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner);
            state = next;
            state.wanted = 0;
            if waited.timed_out() && state.jobs.is_empty() && had_rides != state.rides.is_empty() {
                return Some(self.take(state));
            }
        }
        Some(self.take(self.wait_for_more(state, pace, clock)))
    }

    /// Clients that were answered together come back together, a little apart. Committing the first alone would
    /// make the others wait for a whole sync, so the window stays open while the queue keeps growing.
    fn wait_for_more<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        pace: &Pace,
        clock: &dyn Clock,
    ) -> MutexGuard<'a, State> {
        let expected = pace.expected.min(self.batch_records);
        if pace.window < SHORTEST_WINDOW {
            return state;
        }
        let until = clock.since_boot() + pace.window;
        while state.jobs.len() < expected && state.job_bytes < self.batch_bytes && !state.closing {
            let seen = state.jobs.len();
            state.wanted = expected;
            let (next, _) = self.wake.wait_timeout(state, pace.window / SLICES).unwrap_or_else(PoisonError::into_inner);
            state = next;
            state.wanted = 0;
            if state.jobs.len() == seen || clock.since_boot() >= until {
                break;
            }
        }
        state
    }

    fn take(&self, mut state: MutexGuard<'_, State>) -> Gathered {
        let rides = state.rides.len().min(self.batch_records);
        let rides = state.rides.drain(..rides).collect();
        state.urgent &= !state.rides.is_empty();
        let mut jobs = Vec::with_capacity(state.jobs.len().min(self.batch_records));
        let mut bytes = 0;
        while jobs.len() < self.batch_records && (jobs.is_empty() || bytes < self.batch_bytes) {
            let Some(job) = state.jobs.pop_front() else { break };
            bytes += job.bytes as usize;
            jobs.push(job);
        }
        state.job_bytes -= bytes;
        Gathered { rides, jobs }
    }

    /// The commit of this many jobs is over, well or badly: their room is free again.
    pub(super) fn release(&self, records: usize, bytes: usize, rides: usize) {
        self.records.add_permits(records);
        self.bytes.add_permits(bytes);
        self.ride_records.add_permits(rides);
    }

    pub(super) fn waiting(&self) -> usize {
        self.lock().jobs.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ManualClock;

    fn queue() -> Queue {
        Queue::new(&Config::at("unused"))
    }

    fn push(queue: &Queue, jobs: usize, bytes: u32) {
        for _ in 0..jobs {
            queue.push(Job { bytes, work: Box::new(|_| Ok(())), done: Box::new(drop) }).unwrap();
        }
    }

    /// The jobs of the next commit. The clock stands still, so a wait ends only because of what is there.
    fn gathered(queue: &Queue, expected: usize, window: Duration) -> usize {
        let pace = Pace { expected, window, idle: Duration::from_secs(3600) };
        queue.gather(&pace, &ManualClock::at(0)).unwrap().jobs.len()
    }

    #[test]
    fn a_record_alone_is_committed_at_once() {
        let queue = queue();
        push(&queue, 1, 100);
        assert_eq!(gathered(&queue, 1, Duration::from_secs(3600)), 1, "an hour's window, and no wait");
    }

    #[test]
    fn on_a_disk_that_syncs_faster_than_a_wait_gathers_nothing_waits() {
        let queue = queue();
        push(&queue, 1, 100);
        assert_eq!(gathered(&queue, 100, Duration::from_micros(199)), 1);
    }

    #[test]
    fn a_window_without_arrivals_ends() {
        let queue = queue();
        push(&queue, 3, 100);
        assert_eq!(gathered(&queue, 100, Duration::from_millis(1)), 3);
    }

    #[test]
    fn a_commit_takes_256_records_or_256_kib_whichever_is_first_and_waits_for_neither_longer() {
        let queue = queue();
        push(&queue, 300, 100);
        let hour = Duration::from_secs(3600);
        assert_eq!(gathered(&queue, 256, hour), 256);
        assert_eq!(gathered(&queue, 44, hour), 44);
        push(&queue, 9, 64 << 10);
        assert_eq!(gathered(&queue, 256, hour), 4, "256 KiB are there, although 256 records are not");
        assert_eq!(gathered(&queue, 256, hour), 4);
    }
}
