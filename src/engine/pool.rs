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
use super::onnx::{Outline, check_declared};
use super::pace::Pace;
use super::queue::{Lane, Queue};
use super::serving::Serving;
use super::session::{Engine, Fit};
use super::spec::{LoadSpec, TensorSpec, arrange};
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

    fn now_ns(&self) -> u64 {
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

/// Owns the inference threads. Dropping it closes the queue and waits for the requests that are being computed.
pub struct Pool {
    engines: Vec<Arc<dyn Engine>>,
    pub(super) shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts the threads. `engines` are tried in their order; see [`built_in`](super::built_in).
    pub fn start(config: &Config, engines: Vec<Arc<dyn Engine>>, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let cores = || thread::available_parallelism().map_or(1, usize::from);
        let count = if config.threads == 0 { cores().saturating_sub(1).max(1) } else { config.threads };
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
        // What cannot be read is each engine's to say; what can is asked once, for all of them.
        if spec.format == "onnx"
            && let Ok(outline) = Outline::of(&spec.bytes)
        {
            check_declared(spec, &outline).inspect_err(|error| self.shared.metrics.failed(error))?;
        }
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
                    (model.passed_over, model.fallback) = (passed_over, fallback);
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
mod tests {
    use super::*;
    use crate::base::{Datatype, ManualClock, Name, Tensor};
    use crate::engine::error::Kind;
    use crate::engine::fake::{Biased, Failing, Fake, Panicking, Slow};
    use crate::engine::session::Session;
    use crate::engine::spec::{NamedTensor, Sample};

    fn tensor(name: &str, values: &[f32]) -> NamedTensor {
        NamedTensor::new(name, Tensor::new([1, values.len()], values.to_vec()).unwrap())
    }

    fn spec() -> LoadSpec {
        let port = |name: &str, shape: &[i64]| TensorSpec {
            name: name.into(),
            datatype: Datatype::Fp32,
            shape: shape.to_vec(),
        };
        LoadSpec {
            inputs: vec![port("x", &[-1, 2])],
            outputs: vec![port("y", &[-1, 1])],
            ..LoadSpec::new(Name::new("press").unwrap(), 1, "onnx", &b"weights"[..])
        }
    }

    /// That one and three are `expected` in the middle.
    fn sample(expected: f32, tolerance: f32) -> Sample {
        let outputs = vec![tensor("y", &[expected])];
        Sample { inputs: x(&[1.0, 3.0]), outputs, tolerance, relative_tolerance: 0.0 }
    }

    struct Plant {
        pool: Pool,
        clock: Arc<ManualClock>,
    }

    fn plant(engine: impl Engine + 'static) -> Plant {
        let config = Config { threads: 1, queue_requests: 2, ..Config::default() };
        let clock = Arc::new(ManualClock::at(0));
        Plant { pool: Pool::start(&config, vec![Arc::new(engine)], clock.clone()).unwrap(), clock }
    }

    fn x(values: &[f32]) -> Vec<NamedTensor> {
        vec![tensor("x", values)]
    }

    #[tokio::test]
    async fn an_inference_answers_from_async_and_from_blocking_code() {
        let plant = plant(Fake);
        let handle = plant.pool.load(&spec()).unwrap();
        let outputs = handle.infer(x(&[1.0, 3.0]), None).await.unwrap();
        assert_eq!(outputs.tensors, [tensor("y", &[2.0])]);
        assert_eq!(outputs.engine, "fake");
        let blocking = tokio::task::spawn_blocking(move || handle.infer_blocking(x(&[3.0, 5.0]), None));
        assert_eq!(blocking.await.unwrap().unwrap().tensors, [tensor("y", &[4.0])]);
    }

    #[tokio::test]
    async fn a_full_queue_says_busy_with_its_figures_and_leaves_room_for_sensors() {
        let slow = Slow::default();
        let plant = plant(slow.clone());
        let handle = plant.pool.load(&spec()).unwrap();
        let ask = |handle: &Handle| {
            let handle = handle.clone();
            tokio::spawn(async move { handle.infer(x(&[1.0, 1.0]), None).await })
        };
        let running = ask(&handle);
        tokio::task::yield_now().await;
        slow.gate.wait_for_request();
        let waiting = [ask(&handle), ask(&handle)];
        tokio::task::yield_now().await;
        let busy = handle.infer(x(&[1.0, 1.0]), None).await.unwrap_err();
        assert_eq!(busy, Error::Busy { waiting: 2, waiting_bytes: 16, most: 2, most_bytes: 32 * 1024 * 1024 });
        assert_eq!(plant.pool.metrics().queue_depth.get(), 2);
        let sensor = ask(&handle.for_sensors());
        tokio::task::yield_now().await;
        slow.gate.open(2);
        running.await.unwrap().unwrap();
        sensor.await.unwrap().unwrap();
        assert!(waiting.iter().all(|request| !request.is_finished()), "the sensor went first");
        slow.gate.open(2);
        for request in waiting {
            request.await.unwrap().unwrap();
        }
        assert_eq!(plant.pool.metrics().queue_depth.get(), 0);
    }

    #[tokio::test]
    async fn a_request_whose_caller_is_gone_is_not_computed() {
        let slow = Slow::default();
        let plant = plant(slow.clone());
        let handle = plant.pool.load(&spec()).unwrap();
        let first = tokio::spawn({
            let handle = handle.clone();
            async move { handle.infer(x(&[1.0, 1.0]), None).await }
        });
        tokio::task::yield_now().await;
        slow.gate.wait_for_request();
        for _ in 0..5 {
            // Five callers that go away fit a queue of two: the full queue forgets those who have gone.
            let gone = tokio::time::timeout(Duration::ZERO, handle.infer(x(&[9.0, 9.0]), None)).await;
            assert!(gone.is_err());
        }
        slow.gate.open(2);
        first.await.unwrap().unwrap();
        // Had an abandoned request been computed, it would have taken the second pass.
        assert_eq!(handle.infer(x(&[1.0, 3.0]), None).await.unwrap().tensors, [tensor("y", &[2.0])]);
        assert_eq!(plant.pool.metrics().abandoned.get(), 5);
    }

    #[tokio::test]
    async fn a_request_over_its_time_is_answered_without_being_computed() {
        let slow = Slow::default();
        let plant = plant(slow.clone());
        let handle = plant.pool.load(&spec()).unwrap();
        let ask = |timeout| {
            let handle = handle.clone();
            tokio::spawn(async move { handle.infer(x(&[1.0, 1.0]), Some(timeout)).await })
        };
        let first = ask(Duration::from_secs(60));
        tokio::task::yield_now().await;
        slow.gate.wait_for_request();
        let late = ask(Duration::from_secs(1));
        tokio::task::yield_now().await;
        plant.clock.advance(Duration::from_secs(2));
        assert_eq!(plant.pool.longest_running(), Some(Duration::from_secs(2)));
        slow.gate.open(1);
        first.await.unwrap().unwrap();
        assert_eq!(late.await.unwrap().unwrap_err(), Error::Expired { timeout_ms: 1000 });
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_does_not_wait_beyond_its_time_for_a_model_that_hangs() {
        let slow = Slow::default();
        let plant = plant(slow.clone());
        let handle = plant.pool.load(&spec()).unwrap();
        let answer = handle.infer(x(&[1.0, 1.0]), Some(Duration::from_millis(5))).await;
        assert_eq!(answer.unwrap_err(), Error::Expired { timeout_ms: 5 });
        slow.gate.open(1);
    }

    #[tokio::test]
    async fn a_panic_in_a_model_is_an_error_and_the_thread_lives() {
        let plant = plant(Panicking);
        let handle = plant.pool.load(&spec()).unwrap();
        for _ in 0..3 {
            let error = handle.infer(x(&[1.0, 1.0]), None).await.unwrap_err();
            assert_eq!(error.to_string(), "model press/1 panicked: as the test wants it");
        }
        assert_eq!(plant.pool.metrics().errors_of(Kind::Panicked), 3);
    }

    #[tokio::test]
    async fn numbers_that_are_not_finite_neither_go_in_nor_come_out() {
        let plant = plant(Fake);
        let handle = plant.pool.load(&spec()).unwrap();
        let error = handle.infer(x(&[1.0, f32::NAN]), None).await.unwrap_err();
        assert!(error.to_string().starts_with("x has NaN at element 1"), "{error}");
        let overflow = handle.infer(x(&[f32::MAX, f32::MAX]), None).await.unwrap_err();
        assert!(overflow.to_string().starts_with("y has inf at element 0"), "{overflow}");
        assert_eq!(plant.pool.metrics().errors_of(Kind::NotFinite), 2);
    }

    #[test]
    fn a_model_that_does_not_reproduce_its_sample_must_not_serve() {
        let plant = plant(Fake);
        let sample = |expected| sample(expected, 0.1);
        let with = |samples| LoadSpec { samples, ..spec() };
        assert!(plant.pool.load(&with(vec![sample(2.05)])).is_ok());
        let error = plant.pool.load(&with(vec![sample(2.0), sample(2.5)])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "model press/1 gives something else with fake than sample 2 has, so it must not serve: output y, element 0: \
             expected 2.5, given 2 (tolerance 0.1); 1 of 1 differ, by at most 0.5"
        );
        assert!(plant.pool.load(&with(vec![sample(f32::NAN)])).is_err());
        assert_eq!(plant.pool.metrics().errors_of(Kind::Sample), 2);
    }

    #[test]
    fn the_next_engine_serves_where_the_first_fails_the_sample() {
        let engines: Vec<Arc<dyn Engine>> = vec![Arc::new(Failing), Arc::new(Fake)];
        let pool = Pool::start(&Config::default(), engines, Arc::new(ManualClock::at(0))).unwrap();
        let handle = pool.load(&LoadSpec { samples: vec![sample(2.0, 0.0)], ..spec() }).unwrap();
        assert_eq!(handle.engine(), "fake");
        let [passed] = handle.passed_over() else { panic!("{:?}", handle.passed_over()) };
        assert_eq!((passed.engine, passed.why), ("failing", Why::DoesNotLoad));
    }

    #[test]
    fn an_engine_that_answers_wrong_is_passed_over_counted_and_its_answer_is_told() {
        let engines: Vec<Arc<dyn Engine>> = vec![Arc::new(Biased), Arc::new(Fake)];
        let pool = Pool::start(&Config::default(), engines, Arc::new(ManualClock::at(0))).unwrap();
        let handle = pool.load(&LoadSpec { samples: vec![sample(2.0, 0.1)], ..spec() }).unwrap();
        assert_eq!(handle.engine(), "fake");
        let [passed] = handle.passed_over() else { panic!("{:?}", handle.passed_over()) };
        assert_eq!((passed.engine, passed.why), ("biased", Why::WrongAnswer));
        assert!(passed.reason.contains("expected 2, given 3 (tolerance 0.1)"), "{}", passed.reason);
        assert_eq!(pool.metrics().passed_over_of("biased", Why::WrongAnswer), 1);
        // Nobody is right: nothing serves, and everybody's answer is told.
        let none = pool.load(&LoadSpec { samples: vec![sample(9.0, 0.1)], ..spec() }).unwrap_err().to_string();
        assert!(none.contains("biased: ") && none.contains("given 3 ") && none.contains("given 2 "), "{none}");
    }

    #[test]
    fn an_engine_that_needs_samples_takes_nothing_without_one_unless_it_is_asked() {
        struct Delegate;
        impl Engine for Delegate {
            fn name(&self) -> &'static str {
                "delegate"
            }
            fn reads(&self, _: &str) -> bool {
                true
            }
            fn needs_samples(&self) -> bool {
                true
            }
            fn load(&self, spec: &LoadSpec) -> Result<Box<dyn Session>, Error> {
                Fake.load(spec)
            }
        }
        let engines: Vec<Arc<dyn Engine>> = vec![Arc::new(Delegate), Arc::new(Fake)];
        let pool = Pool::start(&Config::default(), engines, Arc::new(ManualClock::at(0))).unwrap();
        let without = pool.load(&spec()).unwrap();
        assert_eq!(without.engine(), "fake");
        assert!(without.passed_over()[0].reason.contains("no golden sample"), "{:?}", without.passed_over());
        assert_eq!(pool.load(&LoadSpec { samples: vec![sample(2.0, 0.0)], ..spec() }).unwrap().engine(), "delegate");
        let asked = LoadSpec { engine: Some("delegate".to_owned()), ..spec() };
        assert_eq!(pool.load(&asked).unwrap().engine(), "delegate");
    }

    #[test]
    fn a_declaration_that_no_engine_can_serve_is_refused_before_loading() {
        let plant = plant(Fake);
        let mut huge = spec();
        huge.inputs[0].shape = vec![i64::MAX, i64::MAX];
        assert!(plant.pool.load(&huge).unwrap_err().to_string().contains("expected at most"));
        let none = Pool::start(&Config::default(), Vec::new(), Arc::new(ManualClock::at(0))).unwrap();
        let error = none.load(&spec()).unwrap_err().to_string();
        let hint = if cfg!(feature = "tract") { "" } else { "; build with --features tract" };
        assert_eq!(error, format!("no engine in this build reads format onnx{hint}"));
    }

    #[tokio::test]
    async fn closing_answers_who_waits() {
        let slow = Slow::default();
        let Plant { pool, .. } = plant(slow.clone());
        let handle = pool.load(&spec()).unwrap();
        let ask = || {
            let handle = handle.clone();
            tokio::spawn(async move { handle.infer(x(&[1.0, 1.0]), None).await })
        };
        let running = ask();
        tokio::task::yield_now().await;
        slow.gate.wait_for_request();
        let waiting = ask();
        tokio::task::yield_now().await;
        pool.shared.queue.close();
        slow.gate.open(1);
        assert_eq!(waiting.await.unwrap().unwrap_err(), Error::Closed);
        running.await.unwrap().unwrap();
        drop(pool);
        assert_eq!(handle.infer(x(&[1.0, 1.0]), None).await.unwrap_err(), Error::Closed);
    }
}
