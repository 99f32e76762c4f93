//! Who is computed when, together with whom, and what a model takes from the box.

#![allow(clippy::disallowed_methods, reason = "a test awaits every task that it spawns")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::error::Error;
use super::fake::Gate;
use super::{
    BackOff, Batching, Config, Engine, Handle, Level, LoadSpec, NamedTensor, Outputs, Pool, Readings, Sample, Serving,
    Session, TensorSpec, Terms, When,
};
use crate::base::{Datatype, ManualClock, Name, Tensor};

/// What [`Rows`] does beside adding up each row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Habit {
    /// Nothing.
    Plain,
    /// A row takes a millisecond, a run ten more.
    CheaperTogether,
    /// A row takes a millisecond.
    NoCheaper,
    /// Every row's sum has the first row's added to it: it looks beyond its row.
    Mixes,
}

/// Adds up each row. A run with [`POISON`] in it fails.
#[derive(Clone)]
struct Rows {
    habit: Habit,
    gate: Option<Gate>,
    clock: Arc<ManualClock>,
    /// Rows of each run, in order.
    runs: Arc<Mutex<Vec<usize>>>,
    alive: Arc<AtomicUsize>,
    computing: Arc<AtomicUsize>,
    most_computing: Arc<AtomicUsize>,
}

const POISON: f32 = 666.0;

impl Rows {
    fn new(habit: Habit) -> Self {
        Self {
            habit,
            gate: None,
            clock: Arc::new(ManualClock::at(0)),
            runs: Arc::default(),
            alive: Arc::default(),
            computing: Arc::default(),
            most_computing: Arc::default(),
        }
    }

    fn runs(&self) -> Vec<usize> {
        std::mem::take(&mut *self.runs.lock().unwrap())
    }
}

struct RowsSession(Rows);

impl Drop for RowsSession {
    fn drop(&mut self) {
        self.0.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Engine for Rows {
    fn name(&self) -> &'static str {
        "rows"
    }

    fn reads(&self, _: &str) -> bool {
        true
    }

    fn load(&self, _: &LoadSpec) -> Result<Box<dyn Session>, Error> {
        self.alive.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(RowsSession(self.clone())))
    }
}

impl Session for RowsSession {
    fn run(&self, inputs: &[NamedTensor]) -> Result<Vec<NamedTensor>, Error> {
        let now = self.0.computing.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most_computing.fetch_max(now, Ordering::SeqCst);
        if let Some(gate) = &self.0.gate {
            gate.pass();
        }
        let x = inputs[0].tensor.as_slice::<f32>().unwrap();
        let rows = inputs[0].tensor.shape()[0];
        self.0.runs.lock().unwrap().push(rows);
        self.0.clock.advance(match self.0.habit {
            Habit::CheaperTogether => Duration::from_millis(10 + rows as u64),
            Habit::NoCheaper => Duration::from_millis(rows as u64),
            Habit::Plain | Habit::Mixes => Duration::ZERO,
        });
        self.0.computing.fetch_sub(1, Ordering::SeqCst);
        if x.contains(&POISON) {
            return Err(Error::Run { model: "press/1".into(), engine: "rows", reason: "poison".into() });
        }
        let width = x.len() / rows.max(1);
        let first: f32 = if self.0.habit == Habit::Mixes { x[..width].iter().sum() } else { 0.0 };
        let sums: Vec<f32> = x.chunks(width.max(1)).map(|row| row.iter().sum::<f32>() + first).collect();
        Ok(vec![NamedTensor::new("y", Tensor::new([rows, 1], sums).unwrap())])
    }
}

fn spec(name: &str) -> LoadSpec {
    let port =
        |name: &str, shape: &[i64]| TensorSpec { name: name.into(), datatype: Datatype::Fp32, shape: shape.to_vec() };
    LoadSpec {
        inputs: vec![port("x", &[-1, -1])],
        outputs: vec![port("y", &[-1, 1])],
        ..LoadSpec::new(Name::new(name).unwrap(), 1, "onnx", &b"weights"[..])
    }
}

fn batches(when: When, rows_max: usize, delay: Duration) -> Serving {
    Serving { batching: Batching { when, rows_max, delay }, ..Serving::default() }
}

fn pool(engine: &Rows, threads: usize) -> Pool {
    let config = Config { threads, ..Config::default() };
    let clock = Arc::clone(&engine.clock);
    Pool::start(&config, vec![Arc::new(engine.clone())], clock).unwrap()
}

fn x(rows: &[&[f32]]) -> Vec<NamedTensor> {
    let data: Vec<f32> = rows.concat();
    vec![NamedTensor::new("x", Tensor::new([rows.len(), rows[0].len()], data).unwrap())]
}

fn y(outputs: &Outputs) -> Vec<f32> {
    outputs.tensors[0].tensor.as_slice::<f32>().unwrap().to_vec()
}

type Asked = JoinHandle<Result<Outputs, Error>>;

/// Asks, and comes back when the request waits in the queue.
async fn ask(handle: &Handle, inputs: Vec<NamedTensor>, terms: Terms) -> Asked {
    let handle = handle.clone();
    let asked = tokio::spawn(async move { handle.infer_on(inputs, terms).await });
    tokio::task::yield_now().await;
    asked
}

/// A pool of one thread behind a gate, with a request in front of the gate that keeps it busy.
async fn busy(mut engine: Rows, serving: &Serving) -> (Rows, Gate, Pool, Handle, Asked) {
    let gate = Gate::default();
    gate.open(1000);
    engine.gate = Some(gate.clone());
    let pool = pool(&engine, 1);
    let handle = pool.load_as(&spec("press"), serving).unwrap();
    engine.runs();
    gate.shut();
    let first = ask(&handle, x(&[&[0.0]]), Terms::default()).await;
    gate.wait_for_request();
    (engine, gate, pool, handle, first)
}

#[tokio::test]
async fn requests_that_wait_are_one_run_and_each_gets_its_own_rows() {
    let serving = batches(When::Always, 4, Duration::ZERO);
    let (engine, gate, pool, handle, first) = busy(Rows::new(Habit::Plain), &serving).await;
    let asked = [
        ask(&handle, x(&[&[1.0, 2.0]]), Terms::default()).await,
        ask(&handle, x(&[&[10.0, 20.0], &[30.0, 40.0]]), Terms::default()).await,
        ask(&handle, x(&[&[5.0, 5.0, 5.0]]), Terms::default()).await,
        ask(&handle, x(&[&[7.0, 7.0]]), Terms::default()).await,
        ask(&handle, x(&[&[9.0, 9.0]]), Terms::default()).await,
        // More rows than a batch has: by itself.
        ask(&handle, x(&[&[1.0_f32, 1.0][..]; 5]), Terms::default()).await,
    ];
    gate.open(1000);
    first.await.unwrap().unwrap();
    let mut answers = Vec::new();
    for one in asked {
        let outputs = one.await.unwrap().unwrap();
        answers.push((y(&outputs), outputs.run.rows, outputs.run.leads));
    }
    assert_eq!(
        answers,
        [
            (vec![3.0], 4, true),
            (vec![30.0, 70.0], 4, false),
            (vec![15.0], 1, true),
            (vec![14.0], 4, false),
            (vec![18.0], 1, true),
            (vec![2.0; 5], 5, true),
        ]
    );
    let mut runs = engine.runs();
    runs.sort_unstable();
    assert_eq!(runs, [1, 1, 1, 4, 5]);
    assert_eq!((pool.metrics().batches.get(), pool.metrics().batched.get()), (1, 3));
    assert_eq!(pool.metrics().queue_depth.get(), 0);
}

#[tokio::test]
async fn a_bad_request_spoils_nobody_elses() {
    let serving = batches(When::Always, 8, Duration::ZERO);
    let (_engine, gate, pool, handle, first) = busy(Rows::new(Habit::Plain), &serving).await;
    let good = ask(&handle, x(&[&[1.0]]), Terms::default()).await;
    let poison = ask(&handle, x(&[&[POISON]]), Terms::default()).await;
    let nan = ask(&handle, x(&[&[f32::NAN]]), Terms::default()).await;
    let overflow = ask(&handle, x(&[&[f32::INFINITY]]), Terms::default()).await;
    let also_good = ask(&handle, x(&[&[2.0]]), Terms::default()).await;
    gate.open(1000);
    first.await.unwrap().unwrap();
    assert_eq!(y(&good.await.unwrap().unwrap()), [1.0]);
    assert_eq!(y(&also_good.await.unwrap().unwrap()), [2.0]);
    assert!(matches!(poison.await.unwrap(), Err(Error::Run { .. })));
    assert!(matches!(nan.await.unwrap(), Err(Error::NotFinite { .. })));
    assert!(matches!(overflow.await.unwrap(), Err(Error::NotFinite { .. })));
    assert_eq!(pool.metrics().spoiled.get(), 1);
}

#[tokio::test]
async fn an_output_that_is_not_finite_is_its_own_requests_matter() {
    let serving = batches(When::Always, 8, Duration::ZERO);
    let (engine, gate, _pool, handle, first) = busy(Rows::new(Habit::Plain), &serving).await;
    let too_much = ask(&handle, x(&[&[f32::MAX, f32::MAX]]), Terms::default()).await;
    let good = ask(&handle, x(&[&[1.0, 2.0]]), Terms::default()).await;
    gate.open(1000);
    first.await.unwrap().unwrap();
    assert!(matches!(too_much.await.unwrap(), Err(Error::NotFinite { .. })));
    let good = good.await.unwrap().unwrap();
    assert_eq!((y(&good), good.run.leads), (vec![3.0], true), "it stands for the run in its neighbour's place");
    assert_eq!(engine.runs(), [1, 2]);
}

#[tokio::test]
async fn a_lower_number_is_computed_first_and_whoever_names_none_is_in_the_middle() {
    let (_engine, gate, _pool, handle, first) = busy(Rows::new(Habit::Plain), &Serving::default()).await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut asked = Vec::new();
    for (name, priority) in [("9", 9), ("none", 0), ("5", 5), ("6", 6), ("1", 1), ("4", 4), ("over", 77)] {
        let (handle, order) = (handle.clone(), Arc::clone(&order));
        asked.push(tokio::spawn(async move {
            handle.infer_on(x(&[&[1.0]]), Terms { timeout: None, priority }).await.unwrap();
            order.lock().unwrap().push(name);
        }));
        tokio::task::yield_now().await;
    }
    gate.open(1);
    first.await.unwrap().unwrap();
    for done in 1..=asked.len() {
        gate.open(1);
        while order.lock().unwrap().len() < done {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(*order.lock().unwrap(), ["1", "4", "none", "5", "over", "6", "9"]);
}

#[tokio::test]
async fn what_is_too_late_is_neither_computed_nor_joined() {
    let serving = batches(When::Always, 8, Duration::ZERO);
    let (engine, gate, _pool, handle, first) = busy(Rows::new(Habit::Plain), &serving).await;
    let within = |seconds| Terms { timeout: Some(Duration::from_secs(seconds)), priority: 0 };
    let patient = ask(&handle, x(&[&[1.0]]), within(60)).await;
    let late = ask(&handle, x(&[&[2.0]]), within(1)).await;
    let gone = ask(&handle, x(&[&[3.0]]), within(60)).await;
    gone.abort();
    assert!(gone.await.is_err());
    engine.clock.advance(Duration::from_secs(2));
    gate.open(1000);
    first.await.unwrap().unwrap();
    assert_eq!(patient.await.unwrap().unwrap().run.rows, 1);
    assert_eq!(late.await.unwrap().unwrap_err(), Error::Expired { timeout_ms: 1000 });
    assert_eq!(engine.runs(), [1, 1]);
}

#[tokio::test]
async fn a_request_waits_for_others_no_longer_than_the_delay() {
    let engine = Rows::new(Habit::Plain);
    let pool = pool(&engine, 1);
    let handle = pool.load_as(&spec("press"), &batches(When::Always, 2, Duration::from_millis(20))).unwrap();
    engine.runs();
    let one = ask(&handle, x(&[&[1.0]]), Terms::default()).await;
    let other = ask(&handle, x(&[&[2.0]]), Terms::default()).await;
    // The clock stands still: only being two lets them go.
    assert_eq!((y(&one.await.unwrap().unwrap()), y(&other.await.unwrap().unwrap())), (vec![1.0], vec![2.0]));
    assert_eq!(engine.runs(), [2]);
    let alone = ask(&handle, x(&[&[3.0]]), Terms::default()).await;
    engine.clock.advance(Duration::from_millis(20));
    assert_eq!(alone.await.unwrap().unwrap().run.rows, 1);
    let sensor = handle.for_sensors().infer(x(&[&[4.0]]), None).await.unwrap();
    assert_eq!(y(&sensor), [4.0], "a sensor waits for nobody, and the clock stands still");
}

#[tokio::test]
async fn a_model_at_its_limit_leaves_the_threads_to_others() {
    let mut engine = Rows::new(Habit::Plain);
    let gate = Gate::default();
    engine.gate = Some(gate.clone());
    let config = Config { threads: 2, ..Config::default() };
    let engines: Vec<Arc<dyn Engine>> = vec![Arc::new(engine.clone())];
    let pool = Pool::start(&config, engines, engine.clock.clone()).unwrap();
    let serving = Serving { concurrency_max: 1, ..Serving::default() };
    let press = pool.load_as(&spec("press"), &serving).unwrap();
    let drill = pool.load_as(&spec("drill"), &Serving::default()).unwrap();
    let first = ask(&press, x(&[&[1.0]]), Terms::default()).await;
    gate.wait_for_request();
    let second = ask(&press, x(&[&[2.0]]), Terms::default()).await;
    let other = ask(&drill, x(&[&[3.0]]), Terms::default()).await;
    // Both threads stand before the gate: one with the press's first request, one with the drill's, which came last.
    gate.wait_for_requests(2);
    assert_eq!(pool.metrics().queue_depth.get(), 1);
    gate.open(1000);
    for (asked, sum) in [(first, 1.0), (second, 2.0), (other, 3.0)] {
        assert_eq!(y(&asked.await.unwrap().unwrap()), [sum]);
    }
}

#[test]
fn batches_are_on_where_a_row_gets_a_quarter_cheaper_and_stays_the_same() {
    for (habit, when, says, rows) in [
        (Habit::CheaperTogether, When::Pays, "on: a row takes 11000 us alone and 2250 us among 8", 8),
        (Habit::NoCheaper, When::Pays, "off: a row takes 1000 us alone and 1000 us among 4", 1),
        (Habit::NoCheaper, When::Always, "on: as wanted", 8),
        (Habit::Mixes, When::Pays, "off: a row alone and the same row in a batch differ", 1),
        (Habit::Mixes, When::Always, "off: a row alone and the same row in a batch differ", 1),
        (Habit::CheaperTogether, When::Never, "off: not wanted", 1),
    ] {
        let engine = Rows::new(habit);
        let pool = pool(&engine, 1);
        let handle = pool.load_as(&spec("press"), &batches(when, 8, Duration::ZERO)).unwrap();
        assert!(handle.batching().starts_with(says), "{}", handle.batching());
        assert_eq!(handle.batch_rows_max(), rows, "{says}");
    }
    let pool = pool(&Rows::new(Habit::CheaperTogether), 1);
    let mut fixed = spec("press");
    fixed.outputs[0].shape = vec![1, 1];
    let handle = pool.load_as(&fixed, &batches(When::Pays, 8, Duration::ZERO)).unwrap();
    assert_eq!(handle.batching(), "off: an input or output has no free first dimension");
}

#[test]
fn loads_and_requests_share_the_threads_places() {
    let engine = Rows::new(Habit::Plain);
    let pool = pool(&engine, 1);
    let handle = pool.load(&spec("press")).unwrap();
    let samples = vec![Sample {
        inputs: x(&[&[1.0, 2.0]]),
        outputs: vec![NamedTensor::new("y", Tensor::new([1, 1], vec![3.0_f32]).unwrap())],
        tolerance: 0.0,
        relative_tolerance: 0.0,
    }];
    let with_samples = LoadSpec { samples, ..spec("drill") };
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| (0..200).for_each(|_| drop(handle.infer_blocking(x(&[&[1.0]]), None).unwrap())));
        }
        let serving = Serving { warm_up_runs: 3, ..batches(When::Pays, 8, Duration::ZERO) };
        (0..50).for_each(|_| drop(pool.load_as(&with_samples, &serving).unwrap()));
    });
    assert_eq!(engine.most_computing.load(Ordering::SeqCst), 1);
}

#[test]
fn callers_who_compute_something_else_share_the_threads_places_with_models() {
    let engine = Rows::new(Habit::Plain);
    let pool = pool(&engine, 1);
    let handle = pool.load(&spec("press")).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..200).for_each(|_| drop(handle.infer_blocking(x(&[&[1.0]]), None).unwrap())));
        }
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let _place = pool.place().unwrap();
                    let now = engine.computing.fetch_add(1, Ordering::SeqCst) + 1;
                    engine.most_computing.fetch_max(now, Ordering::SeqCst);
                    std::thread::yield_now();
                    engine.computing.fetch_sub(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(engine.most_computing.load(Ordering::SeqCst), 1);
}

#[test]
fn a_model_without_room_is_refused_until_another_is_gone() {
    let engine = Rows::new(Habit::Plain);
    let config = Config { threads: 1, memory_bytes_max: 100, ..Config::default() };
    let pool = Pool::start(&config, vec![Arc::new(engine.clone())], engine.clock.clone()).unwrap();
    let needs = |bytes| Serving { memory_bytes: Some(bytes), ..Serving::default() };
    let press = pool.load_as(&spec("press"), &needs(70)).unwrap();
    let error = pool.load_as(&spec("drill"), &needs(40)).unwrap_err();
    assert!(error.to_string().contains("drill/1: it needs 40 bytes, 70 of 100 are in use (press/1 70)"), "{error}");
    assert!(pool.has_room("drill/1", "onnx", 1 << 30, &needs(40)).is_err());
    let sensors = press.for_sensors();
    drop(press);
    assert!(pool.load_as(&spec("drill"), &needs(40)).is_err(), "a stream has it still");
    drop(sensors);
    pool.load_as(&spec("drill"), &needs(40)).unwrap();
    assert!(pool.condition().memory_of.is_empty());
    assert_eq!(engine.alive.load(Ordering::SeqCst), 0, "what is refused or dropped leaves no session");
}

#[tokio::test]
async fn a_box_in_need_serves_less_and_says_why() {
    let engine = Rows::new(Habit::Plain);
    let config = Config { threads: 4, back_off: BackOff::default(), ..Config::default() };
    let pool = Pool::start(&config, vec![Arc::new(engine.clone())], engine.clock.clone()).unwrap();
    let handle = pool.load(&spec("press")).unwrap();
    let at = |left| Readings { memory_left_percent: Some(left), ..Readings::default() };
    let low = Terms { timeout: None, priority: 8 };
    assert!(!pool.back_off(&at(50.0)));
    handle.infer_on(x(&[&[1.0]]), low).await.unwrap();
    assert!(pool.back_off(&at(4.0)));
    let condition = pool.condition();
    assert_eq!((condition.level, condition.threads_allowed), (Level::Minimal, 1));
    let refused = handle.infer_on(x(&[&[1.0]]), low).await.unwrap_err();
    assert_eq!(refused.to_string(), "requests of priority 8: refused for now, 4.0 % of the memory is left");
    handle.infer(x(&[&[1.0]]), None).await.unwrap();
    let load = pool.load(&spec("drill")).unwrap_err();
    assert!(matches!(load, Error::BackedOff { .. }), "{load}");
    assert!(pool.back_off(&at(50.0)));
    handle.infer_on(x(&[&[1.0]]), low).await.unwrap();
    pool.load(&spec("drill")).unwrap();
    assert_eq!(pool.metrics().threads_allowed.get(), 4);
}

#[tokio::test]
async fn a_model_that_is_loaded_and_dropped_again_and_again_leaves_nothing() {
    let engine = Rows::new(Habit::Plain);
    let pool = pool(&engine, 2);
    for _ in 0..1000 {
        let handle = pool.load_as(&spec("press"), &batches(When::Always, 4, Duration::ZERO)).unwrap();
        let model = Arc::downgrade(&handle.model);
        handle.infer(x(&[&[1.0]]), None).await.unwrap();
        drop(handle);
        // The thread that computed lets go of it right after its answer.
        while model.strong_count() > 0 {
            std::thread::yield_now();
        }
    }
    assert_eq!(engine.alive.load(Ordering::SeqCst), 0);
    assert!(pool.condition().memory_of.is_empty());
    assert_eq!(Arc::strong_count(&pool.shared), 1 + pool.threads());
}
