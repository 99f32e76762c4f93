//! The bounded queue between callers and the threads that compute.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak, mpsc};
use std::time::Duration;

use tokio::sync::oneshot;

use super::config::Config;
use super::error::Error;
use super::handle::{Loaded, Outputs};
use super::metrics::Metrics;
use super::spec::NamedTensor;

/// Whose request it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// A sensor's reading waits for it: computed first.
    Sensor,
    /// Anybody else.
    Request,
}

/// Where the answer goes.
pub(super) enum Caller {
    Async(oneshot::Sender<Result<Outputs, Error>>),
    Blocking(mpsc::SyncSender<Result<Outputs, Error>>, Weak<()>),
}

impl Caller {
    pub(super) fn has_gone(&self) -> bool {
        match self {
            Self::Async(answer) => answer.is_closed(),
            Self::Blocking(_, waiting) => waiting.strong_count() == 0,
        }
    }

    pub(super) fn answer(self, answer: Result<Outputs, Error>) {
        // A caller that went away while it was computed needs no answer.
        match self {
            Self::Async(caller) => drop(caller.send(answer)),
            Self::Blocking(caller, _) => drop(caller.try_send(answer)),
        }
    }
}

/// One inference to compute.
pub(super) struct Job {
    pub(super) model: Arc<Loaded>,
    pub(super) inputs: Vec<NamedTensor>,
    pub(super) bytes: usize,
    /// Since boot.
    pub(super) queued: Duration,
    pub(super) timeout: Duration,
    pub(super) caller: Caller,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    bytes: usize,
}

#[derive(Default)]
struct State {
    /// Indexed by [`Lane`], in the order of urgency.
    lanes: [Waiting; 2],
    idle: usize,
    closed: bool,
}

pub(super) struct Queue {
    state: Mutex<State>,
    work: Condvar,
    most: usize,
    most_bytes: usize,
    metrics: Metrics,
}

impl Queue {
    pub(super) fn new(config: &Config, metrics: Metrics) -> Self {
        let (most, most_bytes) = (config.queue_requests.max(1), config.queue_bytes);
        Self { state: Mutex::default(), work: Condvar::new(), most, most_bytes, metrics }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing below panics halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a job, or says why not.
    pub(super) fn push(&self, lane: Lane, job: Job) -> Result<(), Error> {
        let mut state = self.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        let full = |waiting: &Waiting| {
            // A single request may be over the bytes' bound: it waits alone.
            let over_bytes = waiting.bytes + job.bytes > self.most_bytes && !waiting.jobs.is_empty();
            waiting.jobs.len() >= self.most || over_bytes
        };
        let waiting = &mut state.lanes[lane as usize];
        if full(waiting) {
            let before = waiting.jobs.len();
            waiting.jobs.retain(|job| !job.caller.has_gone());
            waiting.bytes = waiting.jobs.iter().map(|job| job.bytes).sum();
            let gone = before - waiting.jobs.len();
            self.metrics.abandoned.inc_by(gone as u64);
            self.metrics.queue_depth.dec_by(i64::try_from(gone).unwrap_or(0));
        }
        if full(waiting) {
            return Err(Error::Busy {
                waiting: waiting.jobs.len(),
                waiting_bytes: waiting.bytes,
                most: self.most,
                most_bytes: self.most_bytes,
            });
        }
        waiting.bytes += job.bytes;
        waiting.jobs.push_back(job);
        self.metrics.queue_depth.inc();
        let wake = state.idle > 0;
        drop(state);
        if wake {
            self.work.notify_one();
        }
        Ok(())
    }

    /// The next job, the sensors' first. None once the queue is closed.
    pub(super) fn pop(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            let found = state.lanes.iter_mut().find_map(|waiting| {
                let job = waiting.jobs.pop_front()?;
                waiting.bytes -= job.bytes;
                Some(job)
            });
            if let Some(job) = found {
                self.metrics.queue_depth.dec();
                return Some(job);
            }
            state.idle += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    /// Lets the threads go. What waits is answered with `Closed`.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let left: Vec<Job> = state.lanes.iter_mut().flat_map(|waiting| waiting.jobs.drain(..)).collect();
        drop(state);
        self.work.notify_all();
        for job in left {
            self.metrics.queue_depth.dec();
            job.caller.answer(Err(Error::Closed));
        }
    }
}
