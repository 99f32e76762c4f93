//! The pool with engines that compute no model.

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
    let port =
        |name: &str, shape: &[i64]| TensorSpec { name: name.into(), datatype: Datatype::Fp32, shape: shape.to_vec() };
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
