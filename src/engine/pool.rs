//! The threads that compute, and how a model gets to them.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::back_off::{BackOff, Level, Readings, judge};
use super::batching::{decide, made_up};
use super::config::Config;
use super::error::Error;
use super::fallback::Fallback;
use super::golden;
use super::handle::{Handle, Loaded, PassedOver, Why, caught};
use super::memory::{Memory, Room, estimate_bytes, needs_bytes};
use super::metrics::Metrics;
use super::onnx::{self, Outline, check_declared};
use super::pace::Pace;
use super::queue::{Lane, Permit, Queue};
use super::serving::Serving;
use super::session::{Engine, Fit};
use super::spec::{LoadSpec, TensorSpec, arrange};
use super::ties::Tie;
use super::work::work;
use crate::base::Clock;

/// What handles and threads share.
pub(super) struct Shared {
    pub(super) queue: Queue,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Metrics,
    pub(super) timeout: Duration,
    pub(super) tensor_bytes_max: usize,
    pub(super) memory: Memory,
    back_off: BackOff,
    /// How much service there is, and the readings that speak for less than all of it.
    level: Mutex<(Level, Vec<String>)>,
    /// One load at a time: together with the threads that compute it keeps every core busy and no more.
    loading: Mutex<()>,
    /// For each thread, and for as many callers that compute themselves, nanoseconds since boot at which its request began; 0
    /// while it has none.
    busy_since_ns: Vec<AtomicU64>,
}

impl Shared {
    /// A request begins on thread `at`.
    pub(super) fn begin(&self, at: usize) {
        self.busy_since_ns[at].store(self.now_ns(), Ordering::Relaxed);
    }

    /// A request begins on a caller's thread: where that is noted. None if more compute than there are places.
    pub(super) fn begin_here(&self) -> Option<usize> {
        let (now_ns, threads) = (self.now_ns(), self.busy_since_ns.len() / 2);
        let mut callers = self.busy_since_ns.iter().enumerate().skip(threads);
        let free = |since: &AtomicU64| since.compare_exchange(0, now_ns, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        callers.find(|(_, since)| free(since)).map(|(at, _)| at)
    }

    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(self.clock.since_boot().as_nanos()).unwrap_or(u64::MAX)
    }

    /// And ends.
    pub(super) fn end(&self, at: usize) {
        self.busy_since_ns[at].store(0, Ordering::Relaxed);
    }

    fn level(&self) -> (Level, Vec<String>) {
        self.level.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// How the pool is, for people.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// How much service there is.
    pub level: Level,
    /// Why it is not all of it.
    pub reasons: Vec<String>,
    /// Threads that compute, and how many of them may now.
    pub threads: usize,
    /// As many as the level leaves.
    pub threads_allowed: usize,
    /// Bytes for models; 0 is no bound.
    pub memory_limit_bytes: u64,
    /// What each loaded model reserved.
    pub memory_of: Vec<(String, u64)>,
}

/// A place among the threads that compute, until it is dropped.
pub struct Place<'a>(#[allow(dead_code, reason = "it is held")] Permit<'a>);

/// Owns the inference threads. Dropping it closes the queue and waits for the requests that are being computed.
pub struct Pool {
    engines: Vec<Arc<dyn Engine>>,
    pub(super) shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts the threads. `engines` are tried in their order; see [`built_in`](super::built_in).
    pub fn start(config: &Config, engines: Vec<Arc<dyn Engine>>, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let count = config.thread_count();
        let metrics = Metrics::default();
        metrics.threads_allowed.set(i64::try_from(count).unwrap_or(i64::MAX));
        let shared = Arc::new(Shared {
            queue: Queue::new(config, count, Arc::clone(&clock), metrics.clone()),
            clock,
            memory: Memory::new(config.memory_bytes_max, metrics.memory_bytes.clone()),
            back_off: config.back_off.clone(),
            level: Mutex::default(),
            loading: Mutex::default(),
            metrics,
            timeout: Duration::from_millis(config.timeout_ms),
            tensor_bytes_max: config.tensor_bytes_max,
            busy_since_ns: (0..2 * count).map(|_| AtomicU64::new(0)).collect(),
        });
        let mut pool = Self { engines, shared, threads: Vec::with_capacity(count) };
        for at in 0..count {
            let shared = Arc::clone(&pool.shared);
            let thread = thread::Builder::new().name(format!("infer-{at}")).spawn(move || work(&shared, at));
            // On an error the pool is dropped, which lets the threads go that already run.
            pool.threads.push(thread.map_err(|error| Error::Thread(error.to_string()))?);
        }
        Ok(pool)
    }

    /// Loads a model on this thread, with the first engine that reads its format, suits its operators, agrees with its
    /// declaration and reproduces its samples; [`Handle::passed_over`] says why it was not an earlier one. Takes from a
    /// millisecond to seconds: not for an async thread.
    pub fn load(&self, spec: &LoadSpec) -> Result<Handle, Error> {
        self.load_as(spec, &Serving::default())
    }

    /// The same, to be served as `serving` says. Its memory is reserved first; its runs before it serves take places among
    /// the pool's threads.
    pub fn load_as(&self, spec: &LoadSpec, serving: &Serving) -> Result<Handle, Error> {
        let _loading = self.shared.loading.lock().unwrap_or_else(PoisonError::into_inner);
        let admitted = self.may_load(&spec.title()).and_then(|()| {
            self.shared.memory.reserve(&spec.title(), needs_bytes(spec, serving.memory_bytes, &self.engines))
        });
        let room = admitted.inspect_err(|error| self.shared.metrics.failed(error))?;
        let mut model = self.load_first(spec)?;
        self.prepare(&mut model, spec, serving, room);
        Ok(Handle { shared: Arc::clone(&self.shared), model: Arc::new(model), lane: Lane::Request })
    }

    /// Whether a model with a file of this size would have room now; asked before the file is read.
    pub fn has_room(&self, title: &str, format: &str, file_bytes: u64, serving: &Serving) -> Result<(), Error> {
        self.may_load(title)?;
        let bytes = serving.memory_bytes.unwrap_or_else(|| estimate_bytes(file_bytes, format));
        self.shared.memory.check(title, bytes)
    }

    fn may_load(&self, title: &str) -> Result<(), Error> {
        match self.shared.level() {
            (Level::Minimal, reasons) => {
                Err(Error::BackedOff { what: format!("loading {title}"), why: reasons.join(", ") })
            }
            _ => Ok(()),
        }
    }

    /// Warms it up and finds out whether its requests are better computed together.
    fn prepare(&self, model: &mut Loaded, spec: &LoadSpec, serving: &Serving, room: Room) {
        let permit = |model: &Loaded| self.shared.queue.permit(model.threads);
        let runs = usize::try_from(serving.warm_up_runs).unwrap_or(usize::MAX).saturating_sub(spec.samples.len());
        let inputs = match spec.samples.first() {
            Some(sample) => arrange(&model.inputs, sample.inputs.clone(), self.shared.tensor_bytes_max).ok(),
            None => made_up(spec, 0),
        };
        for _ in 0..runs {
            let _permit = permit(model);
            // Numbers that were made up may be none that the model takes: its first request will say.
            if inputs.as_ref().is_none_or(|inputs| model.run(inputs).is_err()) {
                break;
            }
        }
        (model.joins, model.joins_because) = {
            let _permit = permit(model);
            decide(model, spec, &serving.batching, &*self.shared.clock)
        };
        model.concurrency_max = serving.concurrency_max;
        model.room = Some(room);
    }

    fn load_first(&self, spec: &LoadSpec) -> Result<Loaded, Error> {
        let ties = Self::read_file(spec).inspect_err(|error| self.shared.metrics.failed(error))?;
        let mut last = None;
        let mut passed_over = Vec::new();
        let mut fallback = Fallback::default();
        let mut chosen = Vec::new();
        for engine in self.engines.iter().filter(|engine| engine.reads(&spec.format)) {
            match fit(engine.as_ref(), spec) {
                Ok(fit) => chosen.push((fit, engine)),
                Err(reason) => passed_over.push(PassedOver { engine: engine.name(), why: Why::NotChosen, reason }),
            }
        }
        chosen.sort_by_key(|(fit, _)| *fit);
        let mut chosen = chosen.into_iter();
        while let Some((_, engine)) = chosen.next() {
            match self.load_with(engine.as_ref(), spec) {
                Ok(mut model) => {
                    if let Some(true) = engine.wants_stand_in(spec) {
                        fallback.stand_in = self.stand_in(chosen.map(|(_, other)| other), spec, &mut passed_over);
                    }
                    (model.passed_over, model.fallback, model.ties) = (passed_over, fallback, ties);
                    return Ok(model);
                }
                Err(error) => {
                    self.shared.metrics.failed(&error);
                    let why = if matches!(error, Error::Sample { .. }) { Why::WrongAnswer } else { Why::DoesNotLoad };
                    self.shared.metrics.passed_over(engine.name(), why);
                    fallback.missed(engine.as_ref(), spec, &error);
                    passed_over.push(PassedOver { engine: engine.name(), why, reason: error.to_string() });
                    last = Some(error);
                }
            }
        }
        // One reason is the reason; several are told together.
        Err(match last {
            Some(error) if passed_over.len() == 1 => error,
            None if passed_over.is_empty() => Error::NoEngine { format: spec.format.clone() },
            _ => {
                let reason = |passed: &PassedOver| format!("{}: {}", passed.engine, passed.reason);
                let reasons = passed_over.iter().map(reason).collect::<Vec<_>>().join("; ");
                Error::NoneTakes { model: spec.title(), reasons }
            }
        })
    }

    /// What an ONNX file says is asked once, for all engines.
    pub(super) fn read_file(spec: &LoadSpec) -> Result<Vec<Tie>, Error> {
        if spec.format != "onnx" {
            return Ok(Vec::new());
        }
        match Outline::of(&spec.bytes) {
            Ok(outline) => check_declared(spec, &outline).map(|()| outline.ties(&spec.inputs)),
            // No engine may be trusted to look away from the other file: a delegate's would open it.
            Err(error @ onnx::Error::External { .. }) => {
                Err(Error::File { model: spec.title(), reason: error.to_string() })
            }
            // What cannot be read otherwise is each engine's to say.
            Err(_) => Ok(Vec::new()),
        }
    }

    pub(super) fn load_with(&self, engine: &dyn Engine, spec: &LoadSpec) -> Result<Loaded, Error> {
        let title = spec.title();
        for tensor in spec.inputs.iter().chain(&spec.outputs) {
            self.check_declared(&title, tensor)?;
        }
        let session = caught(&title, || engine.load(spec))?;
        let (inputs, outputs) = (spec.inputs.clone(), spec.outputs.clone());
        let allow_non_finite = spec.allow_non_finite;
        let passed_over = Vec::new();
        let model = Loaded {
            title,
            engine: engine.name(),
            inputs,
            outputs,
            ties: Vec::new(),
            allow_non_finite,
            passed_over,
            fallback: Fallback::default(),
            threads: session.threads(),
            pace: session.is_steady().then(Pace::default),
            session,
            joins: None,
            joins_because: String::new(),
            concurrency_max: 0,
            running: AtomicUsize::new(0),
            room: None,
        };
        for (at, sample) in spec.samples.iter().enumerate() {
            let _permit = self.shared.queue.permit(model.threads);
            golden::check(&model, sample, at + 1, self.shared.tensor_bytes_max)?;
        }
        Ok(model)
    }

    fn check_declared(&self, title: &str, tensor: &TensorSpec) -> Result<(), Error> {
        let declared = |what: &str, expected: String, given: String| Error::Declared {
            model: title.to_owned(),
            what: format!("{what} of {}", tensor.name),
            expected,
            given,
        };
        match tensor.least_bytes() {
            Some(bytes) if bytes <= self.shared.tensor_bytes_max => Ok(()),
            _ => {
                let expected = format!("at most {} bytes", self.shared.tensor_bytes_max);
                Err(declared("size", expected, format!("shape {:?}", tensor.shape)))
            }
        }
    }

    /// How long the longest request has been computing. A model that never ends shows here: a running inference cannot
    /// be interrupted, so a watchdog must decide.
    pub fn longest_running(&self) -> Option<Duration> {
        let now = self.shared.clock.since_boot();
        let since = self.shared.busy_since_ns.iter().map(|since| since.load(Ordering::Relaxed));
        since.filter(|&since| since > 0).map(|since| now.saturating_sub(Duration::from_nanos(since))).max()
    }

    /// Takes what the box says of itself; from now on there is as much service as it leaves. True if that changed.
    pub fn back_off(&self, readings: &Readings) -> bool {
        let mut level = self.shared.level.lock().unwrap_or_else(PoisonError::into_inner);
        let before = level.0;
        *level = judge(&self.shared.back_off, readings, before);
        let (now, reasons) = (level.0, level.1.join(", "));
        drop(level);
        if now != before {
            let allowed = now.threads(self.threads.len());
            let refused = (now > Level::Normal).then(|| Arc::from(reasons.as_str()));
            self.shared.queue.limit(allowed, refused);
            self.shared.metrics.threads_allowed.set(i64::try_from(allowed).unwrap_or(i64::MAX));
            self.shared.metrics.level.set(now as i64);
            tracing::warn!(
                level = now.as_str(),
                before = before.as_str(),
                threads = allowed,
                reasons,
                "service of models"
            );
        }
        now != before
    }

    /// How much service there is, why, and who has the memory.
    pub fn condition(&self) -> Condition {
        let (level, reasons) = self.shared.level();
        Condition {
            level,
            reasons,
            threads: self.threads.len(),
            threads_allowed: level.threads(self.threads.len()),
            memory_limit_bytes: self.shared.memory.limit_bytes(),
            memory_of: self.shared.memory.models(),
        }
    }

    /// Metrics of this room.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// A place among the threads that compute, for work on the caller's own thread: what comes before a model and behind it.
    /// It waits for its turn, behind sensors and one for one with requests; none once the pool is closed. Blocks: never call
    /// it from async code, nor while holding another.
    pub fn place(&self) -> Option<Place<'_>> {
        self.shared.queue.turn().map(Place)
    }

    /// How many threads compute.
    pub fn threads(&self) -> usize {
        self.threads.len()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.queue.close();
        for thread in self.threads.drain(..) {
            // A thread catches its models' panics; there is nothing to do about another.
            drop(thread.join());
        }
    }
}

/// How well this engine suits the model, if the manifest and the model's operators let it try.
pub(super) fn fit(engine: &dyn Engine, spec: &LoadSpec) -> Result<Fit, String> {
    match &spec.engine {
        Some(wanted) if *wanted != engine.name() => Err(format!("the manifest wants {wanted}")),
        // What the manifest wants is tried, whatever its operators look like.
        Some(_) => Ok(Fit::Best),
        None if engine.needs_samples() && spec.samples.is_empty() => {
            Err("no golden sample shows that it computes this model right".to_owned())
        }
        None => engine.suits(spec),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test awaits every task that it spawns")]
mod tests;
