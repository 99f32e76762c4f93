//! The bounded queue between callers and the threads that compute: who goes next, together with whom, and who is too
//! late.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak, mpsc};
use std::time::Duration;

use tokio::sync::oneshot;

use super::config::Config;
use super::error::Error;
use super::handle::{Loaded, Outputs, expired};
use super::metrics::Metrics;
use super::serving::{LEVELS, USUAL_LEVEL};
use super::spec::NamedTensor;
use crate::base::Clock;

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
    /// Rows, where it may be computed together with others.
    pub(super) rows: Option<usize>,
    /// From 1.
    pub(super) level: usize,
    /// Since boot.
    pub(super) queued: Duration,
    pub(super) timeout: Duration,
    pub(super) caller: Caller,
}

impl Job {
    /// Not worth computing any more: nobody waits for it, or its time is over.
    fn is_late(&self, now: Duration) -> bool {
        self.caller.has_gone() || now.saturating_sub(self.queued) >= self.timeout
    }

    /// Whether the two may be one batch.
    fn joins(&self, other: &Self) -> bool {
        let inner = |input: &NamedTensor| input.tensor.shape().get(1..).unwrap_or_default().to_vec();
        Arc::ptr_eq(&self.model, &other.model)
            && other.rows.is_some()
            && self.inputs.iter().zip(&other.inputs).all(|(a, b)| inner(a) == inner(b))
    }
}

/// What a thread does next.
pub(super) struct Taken {
    /// To compute together; may be none.
    pub(super) jobs: Vec<Job>,
    /// Not to compute any more.
    pub(super) late: Vec<Job>,
    permits: usize,
}

#[derive(Default)]
struct Waiting {
    /// The first goes first.
    levels: [VecDeque<Job>; LEVELS],
    count: usize,
    bytes: usize,
}

impl Waiting {
    fn remove(&mut self, level: usize, at: usize) -> Option<Job> {
        let job = self.levels[level].remove(at)?;
        self.count -= 1;
        self.bytes -= job.bytes;
        Some(job)
    }

    fn remove_late(&mut self, now: Duration) -> Vec<Job> {
        let mut late = Vec::new();
        for level in 0..LEVELS {
            let mut at = 0;
            while let Some(job) = self.levels[level].get(at) {
                if job.is_late(now) {
                    late.extend(self.remove(level, at));
                } else {
                    at += 1;
                }
            }
        }
        late
    }

    /// The places of those that may be computed together with the job at this place, itself first, and their rows.
    fn mates(&self, level: usize, at: usize, bytes_max: usize, now: Duration) -> (Vec<(usize, usize)>, usize) {
        let job = &self.levels[level][at];
        let rows_max = job.model.joins.map_or(1, |joins| joins.rows_max);
        let (mut places, mut rows, mut bytes) = (vec![(level, at)], job.rows.unwrap_or(rows_max), job.bytes);
        let all = self.levels.iter().enumerate();
        for (place, other) in
            all.flat_map(|(level, jobs)| jobs.iter().enumerate().map(move |(at, job)| ((level, at), job)))
        {
            if rows >= rows_max {
                break;
            }
            let more = other.rows.unwrap_or(rows_max);
            let fits = rows + more <= rows_max && bytes + other.bytes <= bytes_max;
            if place != (level, at) && fits && job.joins(other) && !other.is_late(now) {
                places.push(place);
                rows += more;
                bytes += other.bytes;
            }
        }
        (places, rows)
    }

    fn take(&mut self, mut places: Vec<(usize, usize)>) -> Vec<Job> {
        // From behind, so that what is left keeps its place; the one that leads is last then.
        let lead = places[0];
        places.sort_unstable();
        let mut jobs = Vec::with_capacity(places.len());
        let mut first = None;
        for place in places.into_iter().rev() {
            let job = self.remove(place.0, place.1);
            if place == lead { first = job } else { jobs.extend(job) }
        }
        jobs.extend(first);
        jobs.reverse();
        jobs
    }
}

struct State {
    /// Indexed by [`Lane`], in the order of urgency.
    lanes: [Waiting; 2],
    idle: usize,
    /// Threads that compute, as their models count.
    busy: usize,
    /// The most of them.
    limit: usize,
    /// Loads that wait for a thread's place.
    loads: usize,
    /// Sequences that wait for a place to read on, and how many of them go before the next request.
    turns: usize,
    turns_due: usize,
    /// Jobs came, or a place became free, and no thread has looked at both yet.
    unseen: bool,
    /// Levels over this one are refused, and why.
    refused: Option<(usize, Arc<str>)>,
    closed: bool,
}

pub(super) struct Queue {
    state: Mutex<State>,
    work: Condvar,
    freed: Condvar,
    most: usize,
    most_bytes: usize,
    batch_bytes_max: usize,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
}

/// A thread's place, held by a load while it runs the model.
pub(super) struct Permit<'a> {
    queue: &'a Queue,
    permits: usize,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.busy -= self.permits;
        state.unseen = state.waits();
        drop(state);
        self.queue.freed.notify_all();
        self.queue.work.notify_one();
    }
}

/// A thread's place, held by a caller while it runs the model itself.
pub(super) struct Here<'a> {
    queue: &'a Queue,
    model: &'a Loaded,
}

impl Drop for Here<'_> {
    fn drop(&mut self) {
        self.queue.done(self.model, 1);
    }
}

impl State {
    /// Places that are free for `lane`: loads, and sequences whose turn it is, go before everybody but sensors.
    fn free(&self, lane: usize) -> usize {
        let before = if lane == Lane::Sensor as usize { 0 } else { self.loads + self.turns_due };
        self.limit.saturating_sub(self.busy).saturating_sub(before)
    }

    fn waits(&self) -> bool {
        self.lanes.iter().any(|lane| lane.count > 0)
    }

    /// Whether a sequence may read on now: not before a sensor's reading, and once for each request that goes before it. What waits
    /// for something else than a place keeps nobody from it.
    fn has_turn(&self) -> bool {
        let sensors = self.lanes[Lane::Sensor as usize].count;
        let goes = !self.waits() || !self.unseen || sensors == 0 && self.turns_due > 0;
        self.busy < self.limit && self.loads == 0 && goes
    }

    fn places(&self, model: &Loaded) -> usize {
        model.threads.clamp(1, self.limit)
    }

    /// The jobs to compute next; or how long until some are worth it.
    fn pick(&mut self, now: Duration, bytes_max: usize, late: &mut Vec<Job>) -> Result<Vec<Job>, Option<Duration>> {
        let requests = self.lanes[Lane::Request as usize].count;
        let seen = late.len();
        let picked = self.choose(now, bytes_max, late);
        let turned_away = late.len() - seen;
        if picked.is_ok() && self.lanes[Lane::Request as usize].count + turned_away < requests {
            self.turns_due = self.turns;
        }
        self.unseen = picked.is_ok() && self.waits();
        picked
    }

    fn choose(&mut self, now: Duration, bytes_max: usize, late: &mut Vec<Job>) -> Result<Vec<Job>, Option<Duration>> {
        let mut ripe_in: Option<Duration> = None;
        for lane_at in 0..self.lanes.len() {
            let free = self.free(lane_at);
            let mut unripe: Vec<*const Loaded> = Vec::new();
            for level in 0..LEVELS {
                let mut at = 0;
                while let Some(job) = self.lanes[lane_at].levels[level].get(at) {
                    if job.is_late(now) {
                        late.extend(self.lanes[lane_at].remove(level, at));
                        continue;
                    }
                    if free == 0 {
                        break;
                    }
                    let model = &job.model;
                    let waits =
                        self.places(model) > free || model.is_occupied() || unripe.contains(&Arc::as_ptr(model));
                    if waits {
                        at += 1;
                        continue;
                    }
                    let (pointer, joins, rows, queued) = (Arc::as_ptr(model), model.joins, job.rows, job.queued);
                    let lane = &mut self.lanes[lane_at];
                    let (Some(joins), Some(_)) = (joins, rows) else {
                        return Ok(lane.remove(level, at).into_iter().collect());
                    };
                    let (places, rows) = lane.mates(level, at, bytes_max, now);
                    let ripe_at = queued + joins.delay;
                    if rows < joins.rows_max && now < ripe_at && lane_at != Lane::Sensor as usize {
                        unripe.push(pointer);
                        let wait = ripe_at.saturating_sub(now);
                        ripe_in = Some(ripe_in.map_or(wait, |soonest| soonest.min(wait)));
                        at += 1;
                        continue;
                    }
                    return Ok(lane.take(places));
                }
            }
        }
        Err(ripe_in)
    }
}

impl Queue {
    pub(super) fn new(config: &Config, threads: usize, clock: Arc<dyn Clock>, metrics: Metrics) -> Self {
        let state = State {
            lanes: Default::default(),
            idle: 0,
            busy: 0,
            limit: threads.max(1),
            loads: 0,
            turns: 0,
            turns_due: 0,
            unseen: false,
            refused: None,
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            work: Condvar::new(),
            freed: Condvar::new(),
            most: config.queue_requests.max(1),
            most_bytes: config.queue_bytes,
            batch_bytes_max: config.tensor_bytes_max,
            clock,
            metrics,
        }
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
        if let (Lane::Request, Some((most, why))) = (lane, &state.refused)
            && job.level > *most
        {
            return Err(Error::BackedOff { what: format!("requests of priority {}", job.level), why: why.to_string() });
        }
        let full = |waiting: &Waiting| {
            // A single request may be over the bytes' bound: it waits alone.
            let over_bytes = waiting.bytes + job.bytes > self.most_bytes && waiting.count > 0;
            waiting.count >= self.most || over_bytes
        };
        let waiting = &mut state.lanes[lane as usize];
        let late = if full(waiting) { waiting.remove_late(self.clock.since_boot()) } else { Vec::new() };
        let pushed = if full(waiting) {
            Err(Error::Busy {
                waiting: waiting.count,
                waiting_bytes: waiting.bytes,
                most: self.most,
                most_bytes: self.most_bytes,
            })
        } else {
            waiting.bytes += job.bytes;
            waiting.count += 1;
            waiting.levels[job.level.clamp(1, LEVELS) - 1].push_back(job);
            state.unseen = true;
            self.metrics.queue_depth.inc();
            Ok(())
        };
        let wake = pushed.is_ok() && state.idle > 0;
        drop(state);
        self.metrics.queue_depth.dec_by(i64::try_from(late.len()).unwrap_or(0));
        self.turn_away(late);
        if wake {
            self.work.notify_one();
        }
        pushed
    }

    /// A thread's place for one run of `model` by whoever asks: none while anybody waits, or if it would have to.
    pub(super) fn place_now<'a>(&'a self, lane: Lane, model: &'a Loaded, level: usize) -> Option<Here<'a>> {
        let mut state = self.lock();
        let is_refused = lane == Lane::Request && state.refused.as_ref().is_some_and(|(most, _)| level > *most);
        let waits = state.waits();
        let has_place = state.places(model) == 1 && state.free(lane as usize) > 0 && !model.is_occupied();
        if state.closed || is_refused || waits || !has_place {
            return None;
        }
        state.busy += 1;
        model.running.fetch_add(1, Ordering::Relaxed);
        Some(Here { queue: self, model })
    }

    /// What to compute next, the sensors' first. None once the queue is closed.
    pub(super) fn pop(&self) -> Option<Taken> {
        let mut state = self.lock();
        let mut late = Vec::new();
        loop {
            if state.closed {
                drop(state);
                self.turn_away(late);
                return None;
            }
            let picked = state.pick(self.clock.since_boot(), self.batch_bytes_max, &mut late);
            if state.turns > 0 {
                self.freed.notify_all();
                if state.unseen && state.idle > 0 {
                    self.work.notify_one();
                }
            }
            let ripe_in = match picked {
                Ok(jobs) => {
                    let permits = jobs.first().map_or(0, |job| state.places(&job.model));
                    state.busy += permits;
                    if let Some(job) = jobs.first() {
                        job.model.running.fetch_add(1, Ordering::Relaxed);
                    }
                    drop(state);
                    self.metrics.queue_depth.dec_by(i64::try_from(jobs.len() + late.len()).unwrap_or(0));
                    return Some(Taken { jobs, late, permits });
                }
                Err(_) if !late.is_empty() => {
                    self.metrics.queue_depth.dec_by(i64::try_from(late.len()).unwrap_or(0));
                    return Some(Taken { jobs: Vec::new(), late, permits: 0 });
                }
                Err(ripe_in) => ripe_in,
            };
            state.idle += 1;
            state = match ripe_in {
                None => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(wait) => self.work.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0,
            };
            state.idle -= 1;
        }
    }

    /// The jobs that were taken are computed: their places are free.
    pub(super) fn done(&self, model: &Loaded, permits: usize) {
        let mut state = self.lock();
        state.busy -= permits;
        model.running.fetch_sub(1, Ordering::Relaxed);
        let waits = state.waits();
        state.unseen |= waits;
        let (wake, others) = (waits && state.idle > 0, state.loads + state.turns > 0);
        drop(state);
        if others {
            self.freed.notify_all();
        }
        if wake {
            self.work.notify_one();
        }
    }

    /// A thread's place for a load, before other requests that wait. Blocks until one is free.
    pub(super) fn permit(&self, threads: usize) -> Permit<'_> {
        let mut state = self.lock();
        state.loads += 1;
        while !state.closed && state.busy > 0 && state.busy + threads.clamp(1, state.limit) > state.limit {
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.loads -= 1;
        let permits = threads.clamp(1, state.limit);
        state.busy += permits;
        Permit { queue: self, permits }
    }

    /// A thread's place for a part of a sequence. Blocks until it is its turn; none once the queue is closed.
    pub(super) fn turn(&self) -> Option<Permit<'_>> {
        let mut state = self.lock();
        state.turns += 1;
        while !state.closed && !state.has_turn() {
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.turns -= 1;
        state.turns_due = state.turns_due.saturating_sub(1);
        if state.closed {
            return None;
        }
        state.busy += 1;
        Some(Permit { queue: self, permits: 1 })
    }

    /// Sequences that wait for their turn.
    #[cfg(all(test, feature = "transformer"))]
    pub(super) fn turns(&self) -> usize {
        self.lock().turns
    }

    /// How many threads compute at most from now on, and whether requests over the usual level are refused.
    pub(super) fn limit(&self, threads: usize, refused: Option<Arc<str>>) {
        let mut state = self.lock();
        state.limit = threads.max(1);
        state.refused = refused.map(|why| (USUAL_LEVEL, why));
        drop(state);
        self.work.notify_all();
        self.freed.notify_all();
    }

    /// Answers who is too late, and forgets who has gone.
    pub(super) fn turn_away(&self, late: Vec<Job>) {
        for job in late {
            if job.caller.has_gone() {
                self.metrics.abandoned.inc();
            } else {
                self.metrics.waited(self.clock.since_boot().saturating_sub(job.queued));
                let error = expired(job.timeout);
                self.metrics.failed(&error);
                job.caller.answer(Err(error));
            }
        }
    }

    /// Lets the threads go. What waits is answered with `Closed`.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let mut left = Vec::new();
        for lane in &mut state.lanes {
            lane.levels.iter_mut().for_each(|level| left.extend(level.drain(..)));
            (lane.count, lane.bytes) = (0, 0);
        }
        drop(state);
        self.work.notify_all();
        self.freed.notify_all();
        for job in left {
            self.metrics.queue_depth.dec();
            job.caller.answer(Err(Error::Closed));
        }
    }
}

impl Taken {
    /// How many places the jobs hold; to be given back by [`Queue::done`].
    pub(super) fn permits(&self) -> usize {
        self.permits
    }
}
