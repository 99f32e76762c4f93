//! The report of engines whose time is known.

use std::sync::Arc;

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use serde_json::{Value, json};

use super::*;
use crate::base::{Clock, Datatype, ManualClock, Name, Tensor};
use crate::engine::bench::{Meter, Rows};
use crate::engine::{self, Biased, Engine, Error, Fake, LoadSpec, NamedTensor, Sample, Session, TensorSpec};

struct Blind;

impl Meter for Blind {
    fn cpu(&self, _: Option<u32>) -> Option<Duration> {
        None
    }

    fn resident_bytes(&self, _: Option<u32>) -> Option<u64> {
        None
    }
}

/// [`Fake`] under another name, taking so many milliseconds of the clock for a run.
struct Taking(&'static str, u64, Arc<ManualClock>);

struct TakingSession(u64, Arc<ManualClock>, Box<dyn Session>);

impl Engine for Taking {
    fn name(&self) -> &'static str {
        self.0
    }

    fn reads(&self, _: &str) -> bool {
        true
    }

    fn load(&self, spec: &LoadSpec) -> Result<Box<dyn Session>, Error> {
        Ok(Box::new(TakingSession(self.1, Arc::clone(&self.2), Fake.load(spec)?)))
    }
}

impl Session for TakingSession {
    fn run(&self, inputs: &[NamedTensor]) -> Result<Vec<NamedTensor>, Error> {
        self.1.advance(Duration::from_millis(self.0));
        self.2.run(inputs)
    }
}

fn spec() -> LoadSpec {
    let port =
        |name: &str, shape: &[i64]| TensorSpec { name: name.into(), datatype: Datatype::Fp32, shape: shape.to_vec() };
    let tensor = |name: &str, values: &[f32]| {
        vec![NamedTensor::new(name, Tensor::new([1, values.len()], values.to_vec()).unwrap())]
    };
    let sample = Sample {
        inputs: tensor("x", &[1.0, 3.0]),
        outputs: tensor("y", &[2.0]),
        tolerance: 0.0,
        relative_tolerance: 0.0,
    };
    LoadSpec {
        inputs: vec![port("x", &[-1, 2])],
        outputs: vec![port("y", &[-1, 1])],
        samples: vec![sample],
        ..LoadSpec::new(Name::new("press").unwrap(), 1, "onnx", &b"weights"[..])
    }
}

fn candidate(engine: impl Engine + 'static, clock: &Arc<ManualClock>, fit: Result<Fit, String>) -> Candidate {
    let spec = spec();
    let rows = Rows::seeded(&spec, &[], &mut StdRng::seed_from_u64(0)).unwrap();
    let (name, shared): (_, Arc<dyn Clock>) = (engine.name(), clock.clone());
    let mut trial =
        Trial::load(&(Arc::new(engine) as _), &spec, &rows, &engine::Config::default(), &shared, &Blind).unwrap();
    if name.starts_with("takes") {
        trial.measure(&rows, 1, Duration::from_millis(100), &Blind).unwrap();
        trial.measure(&rows, 8, Duration::from_millis(100), &Blind).unwrap();
    }
    Candidate { engine: name, device: None, fit, outcome: Outcome::Computed(Box::new(trial)), difference: None }
}

fn report(candidates: Vec<Candidate>) -> Report {
    Report {
        title: "press/1".to_owned(),
        format: "onnx".to_owned(),
        size_bytes: 7,
        manifest: Some("models/press/1/manifest.toml".into()),
        wanted: None,
        origin: "1 golden sample".to_owned(),
        shapes: vec![("x".to_owned(), vec![1, 2])],
        free: Vec::new(),
        batches: vec![1, 8],
        candidates,
        unmeasured: Vec::new(),
    }
}

/// Engines that take so many milliseconds, the gateway's own choice first.
fn taking(times: &[u64]) -> Report {
    let clock = Arc::new(ManualClock::at(0));
    let names = ["takes-a", "takes-b", "takes-c"];
    let engine = |(name, &time): (&'static str, &u64)| {
        candidate(
            Taking(name, time, Arc::clone(&clock)),
            &clock,
            Ok(if name == names[0] { Fit::Best } else { Fit::Able }),
        )
    };
    report(names.into_iter().zip(times).map(engine).collect())
}

#[test]
fn a_faster_engine_than_the_gateways_choice_is_told_with_the_line_for_the_manifest() {
    let report = taking(&[40, 10]);
    assert_eq!(
        report.advice().unwrap().text,
        "Use takes-b: 10000 µs a row, 4.0 times as fast as takes-a. The gateway would choose takes-a: write engine = \
         \"takes-b\" into [model] of models/press/1/manifest.toml."
    );
    let text = taking(&[10, 40]).advice().unwrap().text;
    assert!(text.starts_with("Use takes-a: 10000 µs a row, 4.0 times as fast as takes-b."), "{text}");
    assert!(text.ends_with("The gateway chooses it by itself."), "{text}");
}

#[test]
fn what_is_hardly_faster_is_not_worth_a_line() {
    let text = taking(&[100, 98]).advice().unwrap().text;
    assert!(text.starts_with("Use takes-a: 100000 µs a row, about as fast as takes-b."), "{text}");
}

#[test]
fn a_device_is_chosen_in_the_configuration() {
    let mut report = taking(&[40, 10]);
    report.candidates[1].device = Some("npu".to_owned());
    let text = report.advice().unwrap().text;
    assert!(text.starts_with("Use takes-b (npu): "), "{text}");
    assert!(text.ends_with("[[delegate.model]] with name = \"press\", devices = [\"npu\"]."), "{text}");
}

#[test]
fn a_wrong_engine_is_never_the_one_to_use_and_spoils_the_exit_code() {
    let clock = Arc::new(ManualClock::at(0));
    let right = |name, time| candidate(Taking(name, time, Arc::clone(&clock)), &clock, Ok(Fit::Best));
    let both = report(vec![candidate(Biased, &clock, Ok(Fit::Best)), right("takes-a", 10)]);
    assert_eq!(chosen(&both.candidates), Some(1));
    assert_eq!(both.advice().unwrap().at, 1);
    assert!(!both.is_fine());
    assert!(both.to_string().contains("biased: model press/1 gives something else"), "{both}");
    assert!(report(vec![right("takes-a", 10)]).is_fine());
    let alone = report(vec![candidate(Biased, &clock, Ok(Fit::Best))]);
    assert!(!alone.is_fine() && alone.to_string().ends_with("No engine here computes press/1 right."), "{alone}");
}

#[test]
fn the_table_has_a_line_for_each_batch_and_refusals_stand_below() {
    let mut report = taking(&[10]);
    report.candidates.push(Candidate {
        engine: "other",
        device: None,
        fit: Err("it has no Gelu".to_owned()),
        outcome: Outcome::Refused("it has no Gelu".to_owned()),
        difference: None,
    });
    report.free =
        vec![FreeDimension { input: "x".into(), axis: 1, name: Some("tokens".to_owned()), size: 64, is_set: false }];
    let text = report.to_string();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "press/1 (onnx, 7 bytes), one thread");
    assert_eq!(lines[1], "inputs: 1 golden sample; a row: x [1, 2]");
    let words = |at: usize| lines[at].split_whitespace().collect::<Vec<_>>();
    assert_eq!(words(4), ["takes-a", "1", "10000", "10000", "10000", "?", "100", "0", "?", "1", "right", "-"]);
    assert_eq!(words(5), ["8", "10000", "10000", "10000", "?", "800"]);
    assert_eq!(lines[7], "other does not compute it: it has no Gelu");
    assert!(lines[8].contains("dimension 1 of x (tokens) is free and was 64, nobody named a size: --shape tokens=N"));
}

#[test]
fn programs_get_the_same_as_json() {
    let json = taking(&[40, 10]).to_json();
    assert_eq!((&json["use"], &json["fine"]), (&json!("takes-b"), &json!(true)));
    let engine = &json["engines"][0];
    assert_eq!((&engine["engine"], &engine["gateway_chooses"]), (&json!("takes-a"), &json!(true)));
    assert_eq!(engine["golden"], json!({ "right": true, "samples": 1, "difference": { "by": 0.0 } }));
    let batch = &engine["batches"][1];
    assert_eq!((&batch["rows"], &batch["p50_us"], &batch["runs"]), (&json!(8), &json!(40_000.0), &json!(3)));
    assert_eq!(batch["cpu_us_per_row"], Value::Null);
}
