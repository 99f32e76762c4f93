//! Requests spread over a model's versions: shares, stickiness, fallback, breakers and shadows, over the flows with a
//! clock that only the test moves, and over real HTTP.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay::base::{Clock, Digest, ManualClock, Tensor};
use forebay::catalog::{self, Catalog};
use forebay::engine::{self, Engine, Gate, LoadSpec, NamedTensor as EngineTensor, Pool, Session, TensorSpec};
use forebay::flows::inference::{Bearings, InferError, Inference, Inferred, NamedTensor, Question};
use forebay::flows::models::Models;
use forebay::flows::repository::{Repository, RepositoryError};
use forebay::flows::traffic::{SetTraffic, VersionTraffic};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::gateway::forebay_says;
use crate::http_fixture::{Gateway, Setup};

/// What a version does with a request; the test changes its mind at run time.
#[derive(Clone)]
enum Way {
    /// Gives the row's mean and so much more.
    Adds(f32),
    Fails,
    Panics,
    /// Waits at the gate, and answers well then.
    Waits(Gate),
}

/// An engine whose versions do what the test says, by `name/version`, and that counts their runs.
#[derive(Clone, Default)]
struct Stage(Arc<Mutex<BTreeMap<String, Role>>>);

/// What a version does, and how often it did.
type Role = (Option<Way>, u64);

impl Stage {
    fn plays(&self, title: &str, way: Way) {
        self.0.lock().unwrap().entry(title.to_owned()).or_default().0 = Some(way);
    }

    fn runs(&self, title: &str) -> u64 {
        self.0.lock().unwrap().get(title).map_or(0, |(_, runs)| *runs)
    }
}

struct Actor {
    stage: Stage,
    title: String,
    outputs: Vec<TensorSpec>,
}

impl Session for Actor {
    fn run(&self, inputs: &[EngineTensor]) -> Result<Vec<EngineTensor>, engine::Error> {
        let way = {
            let mut stage = self.stage.0.lock().unwrap();
            let (way, runs) = stage.entry(self.title.clone()).or_default();
            *runs += 1;
            way.clone()
        };
        let adds = match way {
            None => 0.0,
            Some(Way::Adds(adds)) => adds,
            Some(Way::Fails) => {
                let reason = "as the test wants it".to_owned();
                return Err(engine::Error::Run { model: self.title.clone(), engine: "stage", reason });
            }
            Some(Way::Panics) => panic!("as the test wants it"),
            Some(Way::Waits(gate)) => {
                gate.pass();
                0.0
            }
        };
        let row = inputs[0].tensor.as_slice::<f32>().unwrap();
        #[allow(clippy::cast_precision_loss, reason = "a short row")]
        let mean = row.iter().sum::<f32>() / row.len() as f32 + adds;
        let rows = inputs[0].tensor.shape()[0];
        let give = |output: &TensorSpec| {
            EngineTensor::new(Arc::clone(&output.name), Tensor::new([rows, 1], vec![mean; rows]).unwrap())
        };
        Ok(self.outputs.iter().map(give).collect())
    }
}

impl Engine for Stage {
    fn name(&self) -> &'static str {
        "stage"
    }

    fn reads(&self, _: &str) -> bool {
        true
    }

    fn load(&self, spec: &LoadSpec) -> Result<Box<dyn Session>, engine::Error> {
        Ok(Box::new(Actor { stage: self.clone(), title: spec.title(), outputs: spec.outputs.clone() }))
    }
}

fn put(folder: &Path, version: u32, more: &str) {
    let at = folder.join("press").join(version.to_string());
    std::fs::create_dir_all(&at).unwrap();
    let bytes = format!("weights {version}");
    let manifest = format!(
        "[model]\nname = \"press\"\nversion = {version}\nfile = \"model\"\nsha256 = \"{}\"\nformat = \"stage\"\n\
         license = \"MIT\"\n[[input]]\nname = \"x\"\ndatatype = \"FP32\"\nshape = [1, 2]\n\
         [[output]]\nname = \"y\"\ndatatype = \"FP32\"\nshape = [1, 1]\n\
         [serving]\nwarm_up_runs = 0\nbatching = \"off\"\n{more}",
        Digest::of(bytes.as_bytes())
    );
    std::fs::write(at.join("model"), bytes).unwrap();
    std::fs::write(at.join("manifest.toml"), manifest).unwrap();
}

/// Versions 1 (`prod`) and 2 (`canary`), and 3, which has no name.
fn versions(more: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    (1..=3).for_each(|version| put(&folder.path().join("models"), version, more));
    folder
}

const NAMES: &str = "[models.press]\naliases = { prod = 1, canary = 2 }\n";
/// Everything to the canary, the rest stands in.
const CANARY: &str = "[models.press.traffic]\nsplit = { prod = 0, canary = 1 }\nfallback = [\"prod\"]\n";

struct Plant {
    folder: tempfile::TempDir,
    stage: Stage,
    clock: Arc<ManualClock>,
    models: Arc<Models>,
    repository: Repository,
    inference: Arc<Inference>,
    gate: Gate,
    stop: CancellationToken,
}

impl Drop for Plant {
    /// A thread of the pool that stands before the gate would be waited for.
    fn drop(&mut self) {
        self.gate.open(1 << 32);
        self.stop.cancel();
    }
}

impl Plant {
    fn new(traffic: &str) -> Self {
        Self::in_folder(versions(""), traffic)
    }

    fn in_folder(folder: tempfile::TempDir, traffic: &str) -> Self {
        let mut config: catalog::Config = toml::from_str(&format!("{NAMES}{traffic}")).unwrap();
        config.check().unwrap();
        config.folder = folder.path().join("models");
        let (clock, stage) = (Arc::new(ManualClock::at(0)), Stage::default());
        let shared: Arc<dyn Clock> = Arc::clone(&clock) as _;
        let engines: Vec<Arc<dyn Engine>> = vec![Arc::new(stage.clone())];
        let engine_config = engine::Config { threads: 2, ..engine::Config::default() };
        let pool = Arc::new(Pool::start(&engine_config, engines, Arc::clone(&shared)).unwrap());
        let models =
            Arc::new(Models::load(&Catalog::scan(&config), &config, folder.path(), &pool, Arc::clone(&shared)));
        let repository = Repository::new(Arc::clone(&models), config);
        let inference = Arc::new(Inference::new(Arc::clone(&models), shared));
        let (gate, stop) = (Gate::default(), CancellationToken::new());
        Self { folder, stage, clock, models, repository, inference, gate, stop }
    }

    /// Copies are computed from now on.
    fn with_shadows(self) -> Self {
        drop(tokio::spawn(Arc::clone(&self.inference).shadow(self.stop.clone())));
        self
    }

    /// From now on this version waits at the plant's gate.
    fn waits(&self, title: &str) -> Gate {
        self.stage.plays(title, Way::Waits(self.gate.clone()));
        self.gate.clone()
    }

    /// The same box after a restart.
    fn restarted(mut self, traffic: &str) -> Self {
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap());
        drop(self);
        Self::in_folder(folder, traffic)
    }

    async fn ask(&self) -> Result<Inferred, InferError> {
        ask(&self.inference, "press", None, None).await
    }

    /// Which version answers a request without a key.
    async fn answers(&self) -> u32 {
        self.ask().await.unwrap().version
    }

    /// Which version answers this user.
    async fn answers_user(&self, user: u32) -> u32 {
        ask(&self.inference, "press", None, Some(&format!("user-{user}"))).await.unwrap().version
    }

    async fn set(&self, traffic: Value) -> Result<(), RepositoryError> {
        self.repository.set_traffic("press", serde_json::from_value::<SetTraffic>(traffic).unwrap()).await
    }

    fn version(&self, version: u32) -> VersionTraffic {
        let view = self.repository.traffic("press").unwrap();
        view.versions.into_iter().find(|of| of.version == version).unwrap()
    }

    fn passed_over(&self, version: u32) -> Value {
        serde_json::to_value(&self.version(version).counts.passed_over).unwrap()
    }
}

async fn ask(
    inference: &Inference,
    model: &str,
    version: Option<u32>,
    key: Option<&str>,
) -> Result<Inferred, InferError> {
    let tensor = Tensor::new([1, 2], vec![1.0_f32, 3.0]).unwrap();
    let question = Question {
        model: model.to_owned(),
        version,
        inputs: vec![NamedTensor { name: "x".to_owned(), tensor }],
        outputs: Vec::new(),
        deadline: Duration::from_secs(30),
        priority: 0,
    };
    inference.infer_for(question, key).await
}

const SPLIT: &str = "[models.press.traffic]\nsplit = { prod = 90, canary = 10 }\n";

#[tokio::test]
async fn versions_get_their_shares_and_a_user_the_same_version_also_after_a_restart() {
    let plant = Plant::new(SPLIT);
    let mut chosen = Vec::new();
    for user in 0..400 {
        chosen.push(plant.answers_user(user).await);
    }
    let canary = chosen.iter().filter(|version| **version == 2).count();
    // 40 of 400, within four standard deviations; the hash is the same everywhere, so this is no chance.
    assert!((16..=64).contains(&canary), "{canary}");
    assert_eq!((plant.version(1).counts.chosen, plant.version(2).counts.chosen), (400 - canary as u64, canary as u64));
    let plant = plant.restarted(SPLIT);
    for user in 0..400 {
        assert_eq!(plant.answers_user(user).await, chosen[user as usize], "user {user}");
    }
    // Promoting the canary moves nobody between names, and a heavier one only takes users.
    plant.set(json!({ "split": { "prod": 50, "canary": 50 } })).await.unwrap();
    let mut moved = 0;
    for user in 0..400 {
        let now = plant.answers_user(user).await;
        assert!(now == chosen[user as usize] || now == 2, "user {user} left the canary");
        moved += usize::from(now != chosen[user as usize]);
    }
    assert!((100..220).contains(&moved), "{moved}");
    // Without a key it is chance, which has a seed here.
    let mut canary = 0;
    for _ in 0..400 {
        canary += usize::from(plant.answers().await == 2);
    }
    assert!((140..=260).contains(&canary), "{canary}");
}

#[tokio::test]
async fn what_holds_a_request_to_a_version_is_its_key_then_its_sequence_then_perhaps_its_caller() {
    let header = |name: &str| (name == "x-user").then_some("anna");
    let all = Bearings { header: Some(&header), sequence: Some("7"), caller: Some("line-3") };
    let sequence = || Bearings { header: None, sequence: Some("7"), caller: Some("line-3") };
    let caller = || Bearings { header: None, sequence: None, caller: Some("line-3") };
    for (sticky, expected) in [
        ("sticky_key = \"x-user\"", [Some("anna"), Some("7"), None]),
        ("", [Some("7"), Some("7"), None]),
        ("sticky = \"caller\"\nsticky_key = \"x-user\"", [Some("anna"), Some("7"), Some("line-3")]),
        ("sticky = \"never\"\nsticky_key = \"x-user\"", [None, None, None]),
    ] {
        let plant = Plant::new(&format!("{SPLIT}{sticky}\n"));
        let keys = [&all, &sequence(), &caller()].map(|bearings| plant.inference.key("press", bearings));
        assert_eq!(keys, expected.map(|key| key.map(str::to_owned)), "{sticky}");
        assert_eq!(plant.inference.key("press@prod", &all), None, "an alias is a version");
    }
    assert_eq!(Plant::new("").inference.key("press", &all), None, "nothing is split");
}

#[tokio::test]
async fn who_names_a_version_gets_it_and_nobody_else_whatever_its_breaker_says() {
    let plant = Plant::new(&format!("{CANARY}breaker = {{ failures = 2 }}\n"));
    plant.stage.plays("press/2", Way::Fails);
    for (model, version) in [("press", Some(2)), ("press@canary", None), ("press", Some(2)), ("press@canary", None)] {
        let error = ask(&plant.inference, model, version, None).await.unwrap_err();
        assert!(matches!(&error, InferError::Failed { detail } if !detail.contains("nobody else")), "{error}");
    }
    assert_eq!((plant.version(2).breaker.state, plant.stage.runs("press/2")), ("open", 4), "each was asked");
    plant.stage.plays("press/2", Way::Adds(0.0));
    assert_eq!(ask(&plant.inference, "press", Some(2), None).await.unwrap().version, 2);
    assert_eq!(ask(&plant.inference, "press", Some(3), None).await.unwrap().version, 3, "not in the split");
    let answer = plant.ask().await.unwrap();
    assert_eq!(answer.version, 1, "the split's requests wait for the breaker");
    assert!(answer.fallback.unwrap().contains("version 2 (canary): its breaker is open"));
    assert_eq!(plant.passed_over(2), json!({ "breaker": 1 }));
}

#[tokio::test]
async fn a_version_that_fails_is_replaced_left_alone_and_asked_again_when_it_is_well() {
    let plant = Plant::new(&format!("{CANARY}breaker = {{ failures = 3, open_ms = 10000, probes = 2 }}\n"));
    for way in [Way::Fails, Way::Panics, Way::Adds(f32::NAN)] {
        plant.stage.plays("press/2", way);
        let answer = plant.ask().await.unwrap();
        assert_eq!(answer.version, 1);
        let why = answer.fallback.expect("it is said why");
        assert!(why.starts_with("version 2 (canary): "), "{why}");
    }
    assert_eq!((plant.stage.runs("press/2"), plant.version(2).breaker.state), (3, "open"));
    for _ in 0..5 {
        assert_eq!(plant.answers().await, 1);
    }
    assert_eq!(plant.stage.runs("press/2"), 3, "an open breaker costs nobody time");
    assert_eq!(plant.passed_over(2), json!({ "breaker": 5, "failed": 3 }));
    assert_eq!(plant.version(1).counts.stood_in, 8);
    // Tried by one, which fails: left alone for longer.
    plant.clock.advance(Duration::from_secs(10));
    assert_eq!((plant.version(2).breaker.state, plant.answers().await), ("half_open", 1));
    assert_eq!((plant.stage.runs("press/2"), plant.version(2).breaker.opened), (4, 2));
    let view = plant.models.views().into_iter().find(|view| view.version == 2).unwrap();
    assert_eq!(view.breaker.unwrap().reason.unwrap(), "the request that tried it again failed");
    plant.clock.advance(Duration::from_secs(9));
    assert_eq!(plant.answers().await, 1);
    plant.stage.plays("press/2", Way::Adds(0.0));
    plant.clock.advance(Duration::from_secs(11));
    // Two answers, one at a time, close it.
    assert_eq!((plant.answers().await, plant.version(2).breaker.state), (2, "half_open"));
    let answer = plant.ask().await.unwrap();
    assert_eq!((answer.version, answer.fallback, plant.version(2).breaker.state), (2, None, "closed"));
}

#[tokio::test]
async fn while_one_request_tries_a_version_the_others_go_elsewhere() {
    let plant = Plant::new(&format!("{CANARY}breaker = {{ failures = 1, probes = 1 }}\n"));
    plant.stage.plays("press/2", Way::Fails);
    plant.answers().await;
    plant.clock.advance(Duration::from_secs(5));
    let gate = plant.waits("press/2");
    let inference = Arc::clone(&plant.inference);
    let probe = tokio::spawn(async move { ask(&inference, "press", None, None).await.unwrap().version });
    let waiting = gate.clone();
    tokio::task::spawn_blocking(move || waiting.wait_for_request()).await.unwrap();
    let answer = plant.ask().await.unwrap();
    assert!(answer.version == 1 && answer.fallback.unwrap().contains("another request tries it"));
    // A prober who leaves lets the next one try.
    probe.abort();
    assert!(probe.await.is_err());
    gate.open(2);
    assert_eq!((plant.answers().await, plant.version(2).breaker.state), (2, "closed"));
}

#[tokio::test]
async fn a_slow_version_gives_its_request_away_and_what_it_has_not_begun_is_never_computed() {
    let plant = Plant::in_folder(
        versions("concurrency_max = 1\n"),
        &format!("{CANARY}slow_ms = 20\nbreaker = {{ failures = 3 }}\n"),
    );
    let gate = plant.waits("press/2");
    for _ in 0..3 {
        let answer = plant.ask().await.unwrap();
        assert_eq!(answer.version, 1);
        let why = answer.fallback.unwrap();
        assert!(why.contains("version 2 (canary): no answer within 20 ms"), "{why}");
    }
    assert_eq!((plant.passed_over(2), plant.version(2).breaker.state), (json!({ "slow": 3 }), "open"));
    gate.open(100);
    plant.stage.plays("press/2", Way::Adds(0.0));
    // One at a time: when this one was computed, those before it would have been.
    assert_eq!(ask(&plant.inference, "press", Some(2), None).await.unwrap().version, 2);
    assert_eq!(plant.stage.runs("press/2"), 2, "the first, which had begun, and this one");
}

#[tokio::test]
async fn the_last_one_that_can_be_asked_may_take_the_callers_time() {
    let plant = Plant::new(&format!("{CANARY}slow_ms = 20\nbreaker = {{ failures = 1 }}\n"));
    let gate = plant.waits("press/1");
    plant.stage.plays("press/2", Way::Fails);
    let inference = Arc::clone(&plant.inference);
    let asked = tokio::spawn(async move { ask(&inference, "press", None, None).await.unwrap().version });
    let waiting = gate.clone();
    tokio::task::spawn_blocking(move || waiting.wait_for_request()).await.unwrap();
    // Its time is over by far, on the clock that judges it.
    plant.clock.advance(Duration::from_secs(1));
    gate.open(1);
    assert_eq!(asked.await.unwrap(), 1);
    assert_eq!(plant.version(1).breaker.state, "open", "an answer, and a slow one");
    // Now nobody can be asked at once, and that is said.
    let error = plant.ask().await.unwrap_err();
    assert!(matches!(error, InferError::NotServing { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("version 2 (canary): its breaker") && text.contains("version 1 (prod): its breaker"),
        "{text}"
    );
}

#[tokio::test]
async fn when_everybody_fails_the_caller_hears_of_each() {
    let plant = Plant::new(SPLIT);
    plant.stage.plays("press/1", Way::Fails);
    plant.stage.plays("press/2", Way::Panics);
    let error = plant.ask().await.unwrap_err();
    let InferError::Failed { detail } = &error else { panic!("{error}") };
    for says in ["version 1 (prod): failed to run the model", "version 2 (canary): failed to run the model", "panicked"]
    {
        assert!(detail.contains(says), "{detail}");
    }
    assert!(matches!(ask(&plant.inference, "drill", None, None).await, Err(InferError::NoModel(_))));
    // A target that is not there any more passes its share on, and says so at the start.
    let plant = Plant::new(
        "[models.press.traffic]\nsplit = { gone = 99, 9 = 99, prod = 1 }\n[models.drill.traffic]\nsplit = { 1 = 1, 2 = 1 }\n",
    );
    let error = ask(&plant.inference, "drill", None, None).await.unwrap_err();
    assert!(matches!(&error, InferError::NoModel(name) if name == "drill"), "{error}");
    for _ in 0..20 {
        assert_eq!(plant.answers().await, 1);
    }
    let problems = plant.models.problems().join("\n");
    assert!(
        problems.contains("traffic of press to gone: ") && problems.contains("traffic of press to 9: "),
        "{problems}"
    );
}

#[tokio::test]
async fn a_callers_mistake_goes_to_nobody_else_and_breaks_nothing() {
    let plant = Plant::new(&format!(
        "{CANARY}slow_ms = 60000\nbreaker = {{ failures = 1, failure_percent = 1, requests_min = 1 }}\n"
    ));
    let ask = |name: &str, tensor: Tensor, outputs: &[&str], deadline_us: u64| {
        let wanted = |name: &&str| forebay::flows::inference::Wanted { name: (*name).to_owned(), classes: None };
        let question = Question {
            model: "press".to_owned(),
            version: None,
            inputs: vec![NamedTensor { name: name.to_owned(), tensor }],
            outputs: outputs.iter().map(wanted).collect(),
            deadline: Duration::from_micros(deadline_us),
            priority: 0,
        };
        plant.inference.infer(question)
    };
    let row = |values: [f32; 2]| Tensor::new([1, 2], values.to_vec()).unwrap();
    const LONG: u64 = 30_000_000;
    for (name, tensor, outputs) in [
        ("z", row([1.0, 2.0]), &[][..]),
        ("x", Tensor::new([1, 3], vec![1.0_f32; 3]).unwrap(), &[]),
        ("x", Tensor::new([1, 2], vec![1_i64; 2]).unwrap(), &[]),
        ("x", row([f32::NAN, 1.0]), &[]),
        ("x", row([1.0, 2.0]), &["absent"]),
    ] {
        let error = ask(name, tensor, outputs, LONG).await.unwrap_err();
        assert!(matches!(error, InferError::Shape { .. }), "{error}");
    }
    // Nor does one who has no time.
    let gate = plant.waits("press/2");
    let error = ask("x", row([1.0, 2.0]), &[], 1000).await.unwrap_err();
    assert!(matches!(error, InferError::Deadline { .. }), "{error}");
    gate.open(100);
    let (canary, prod) = (plant.version(2), plant.version(1));
    assert_eq!((canary.counts.chosen, canary.breaker.state, canary.breaker.failed), (6, "closed", 0));
    assert_eq!((plant.passed_over(2), plant.stage.runs("press/1"), prod.counts.stood_in), (json!({}), 0, 0));
}

#[tokio::test]
async fn a_version_that_is_not_loaded_or_away_is_passed_over() {
    let plant = Plant::new(&format!("{CANARY}[models.press.serving]\nload = \"start\"\n"));
    std::fs::remove_dir_all(plant.folder.path().join("models/press/2")).unwrap();
    plant.repository.load("press").await.unwrap();
    let answer = plant.ask().await.unwrap();
    assert!(answer.version == 1 && answer.fallback.unwrap().contains("canary: no model \"press/2\""));
    let view = plant.repository.traffic("press").unwrap();
    let canary = view.split.iter().find(|target| target.to == "canary").unwrap();
    assert!(canary.version.is_none() && canary.problem.is_some() && canary.share == 1.0);
    // What the model is, to who names no version, is what answers.
    assert_eq!(plant.inference.metadata("press", None).unwrap().versions, [1, 3]);
    plant.repository.unload("press").await.unwrap();
    assert!(matches!(plant.ask().await, Err(InferError::NotServing { reason }) if reason.contains("unloaded")));
}

/// Waits without a clock for what other tasks do.
async fn until(what: impl Fn() -> bool) {
    while !what() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_shadow_that_never_answers_delays_and_fails_nobody_and_what_it_would_say_is_compared() {
    let plant =
        Plant::new("[models.press.traffic]\nsplit = { prod = 1 }\nshadow = { to = \"canary\", tolerance = 0.5 }\n")
            .with_shadows();
    let gate = plant.waits("press/2");
    // One copy stands at the gate on one of two threads; others wait, and those beyond the bound go.
    for _ in 0..200 {
        let answer = plant.ask().await.unwrap();
        assert_eq!((answer.version, answer.fallback), (1, None));
    }
    until(|| plant.version(2).counts.shadow.is_some_and(|shadow| shadow.dropped > 0)).await;
    let shadow = plant.version(2).counts.shadow.unwrap();
    assert!(shadow.dropped >= 200 - 64 - 1 && shadow.matched + shadow.failed == 0, "{shadow:?}");
    gate.open(1 << 32);
    let all = |plant: &Plant| {
        let shadow = plant.version(2).counts.shadow.unwrap();
        shadow.matched + shadow.differed + shadow.failed + shadow.dropped
    };
    until(|| all(&plant) == 200).await;
    let before = plant.version(2).counts.shadow.unwrap();
    assert_eq!((before.differed, before.failed), (0, 0), "{before:?}");
    for (way, differed, failed) in
        [(Way::Adds(0.25), 0, 0), (Way::Adds(2.0), 1, 0), (Way::Fails, 1, 1), (Way::Panics, 1, 2)]
    {
        plant.stage.plays("press/2", way);
        let seen = all(&plant);
        assert_eq!(plant.answers().await, 1);
        until(|| all(&plant) == seen + 1).await;
        let shadow = plant.version(2).counts.shadow.unwrap();
        assert_eq!((shadow.differed, shadow.failed), (differed, failed));
    }
    let canary = plant.version(2);
    let shadow = canary.counts.shadow.unwrap();
    assert_eq!((shadow.matched, shadow.largest_difference), (before.matched + 1, 2.0));
    assert_eq!(shadow.last_difference.unwrap(), "output y: element 0: expected 2, given 4");
    assert!(shadow.last_failure.unwrap().contains("panicked"));
    // Copies are nobody's requests.
    assert_eq!((canary.answered, canary.failed, canary.counts.chosen, canary.breaker.requests), (0, 0, 0, 0));
    assert_eq!(plant.version(1).answered, 204);
    // None of itself, and none of who names a version.
    let seen = all(&plant);
    ask(&plant.inference, "press", Some(1), None).await.unwrap();
    plant.set(json!({ "split": { "canary": 1 } })).await.unwrap();
    plant.stage.plays("press/2", Way::Adds(0.0));
    assert_eq!((plant.answers().await, all(&plant)), (2, seen));
    plant.set(json!({ "shadow": { "to": "3", "percent": 0 } })).await.unwrap();
    assert_eq!((plant.answers().await, plant.version(3).counts.shadow), (1, None));
}

#[tokio::test]
async fn a_share_of_the_requests_is_copied() {
    let plant =
        Plant::new("[models.press.traffic]\nsplit = { prod = 1 }\nshadow = { to = \"canary\", percent = 25 }\n")
            .with_shadows();
    for _ in 0..400 {
        plant.answers().await;
    }
    let copies = || plant.version(2).counts.shadow.map_or(0, |shadow| shadow.matched + shadow.dropped);
    until(|| copies() >= 60).await;
    assert!(copies() <= 140, "{}", copies());
}

#[tokio::test]
async fn weights_change_while_requests_come_and_stay_changed_after_a_restart() {
    let plant = Plant::new(SPLIT);
    let stop = CancellationToken::new();
    let askers: Vec<_> = (0..4)
        .map(|user: u32| {
            let (inference, stop) = (Arc::clone(&plant.inference), stop.clone());
            tokio::spawn(async move {
                let (mut seen, key) = (BTreeMap::<u32, u64>::new(), format!("user-{user}"));
                while !stop.is_cancelled() {
                    let key = if user == 0 { None } else { Some(key.as_str()) };
                    let answer = ask(&inference, "press", None, key).await.unwrap();
                    assert_eq!(answer.fallback, None);
                    *seen.entry(answer.version).or_default() += 1;
                }
                seen
            })
        })
        .collect();
    for round in 0..60 {
        let (prod, canary) = if round % 2 == 0 { (1, 0) } else { (0, 1) };
        plant.set(json!({ "split": { "prod": prod, "canary": canary } })).await.unwrap();
        let chosen = |version| plant.version(version).counts.chosen;
        let (version, before) = if prod == 1 { (1, chosen(1)) } else { (2, chosen(2)) };
        until(|| chosen(version) > before + 4).await;
    }
    stop.cancel();
    for asker in askers {
        let seen = asker.await.unwrap();
        assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [1, 2]);
    }
    let plant = plant.restarted(SPLIT);
    let view = plant.repository.traffic("press").unwrap();
    let weights: Vec<_> = view.split.iter().map(|target| (target.to.as_str(), target.weight)).collect();
    assert_eq!((view.source, weights), ("set", vec![("canary", 1), ("prod", 0)]));
    assert_eq!(plant.answers().await, 2);
    plant.repository.remove_traffic("press").await.unwrap();
    assert_eq!(plant.repository.traffic("press").unwrap().source, "configuration");
    assert!(matches!(plant.repository.remove_traffic("press").await, Err(RepositoryError::NoSuch(_))));
    for (wrong, says) in [
        (json!({ "split": { "beta": 1 } }), "beta cannot get requests: model press has no such alias or version"),
        (json!({ "split": { "prod": 0 } }), "all weights are 0"),
        (json!({ "shadow": { "to": "9" } }), "9 cannot get requests"),
        (json!({}), "neither split nor shadow"),
    ] {
        let error = plant.set(wrong).await.unwrap_err();
        assert!(matches!(&error, RepositoryError::Traffic(what) if what.contains(says)), "{error}");
    }
    assert_eq!(plant.repository.traffic("press").unwrap().source, "configuration", "nothing was changed");
    // A model that nothing was said of can be split as well.
    let plant = Plant::new("");
    plant.set(json!({ "split": { "3": 1 } })).await.unwrap();
    assert_eq!(plant.answers().await, 3);
    plant.repository.set_alias("press", "default", 2).await.unwrap();
    plant.set(json!({ "split": { "default": 1 } })).await.unwrap();
    assert_eq!(plant.answers().await, 2);
}

#[test]
fn a_configuration_that_splits_wrongly_is_explained_with_its_place() {
    let folder = versions("");
    let check = |traffic: &str| {
        let config = folder.path().join("forebay.toml");
        let text = format!(
            "[gateway]\nname = \"test\"\n[access]\nallow_anonymous_loopback = true\n[store]\nstate_dir = \"{0}/state\"\n\
             [catalog]\nfolder = \"{0}/models\"\n[catalog.models.press]\naliases = {{ prod = 1, canary = 2 }}\n\
             [catalog.models.press.traffic]\n{traffic}\n",
            folder.path().display()
        );
        std::fs::write(&config, text).unwrap();
        let (code, out, err) = forebay_says(&["check", "--config", config.to_str().unwrap()]);
        (code, out + &err)
    };
    for (traffic, code, says) in [
        ("split = { prod = 9, canary = 1 }", 0, &[][..]),
        // These start all the same: an alias may be set while it runs.
        (
            "split = { prod = 9, canery = 1 }",
            0,
            &["forebay.toml:12:30", "press has no alias canery", "did you mean `canary`?"],
        ),
        ("fallback = [\"7\"]", 0, &["forebay.toml:12:1", "7 is version 7 of press, which is not there"]),
        ("split = { prod = 0 }", 1, &["forebay.toml:12:1", "catalog.models.press.traffic.split: all weights are 0"]),
        ("slow = 5", 1, &["forebay.toml:12:1: unknown field `slow`", "did you mean `slow_ms`?"]),
        ("breaker = { open_ms = 0 }", 1, &["forebay.toml:12:23", "breaker.open_ms: it is 0; expected 1 to"]),
        ("shadow = { to = \"canary\", percent = 200 }", 1, &["shadow: percent is 200"]),
        ("sticky = \"user\"", 1, &["unknown variant `user`"]),
    ] {
        let (given, said) = check(traffic);
        assert!(says.iter().all(|says| said.contains(says)), "{traffic}: {said}");
        assert_eq!(given, Some(code), "{traffic}: {said}");
    }
}

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

async fn http(catalog: &'static str) -> (Gateway, Stage, tempfile::TempDir) {
    let (folder, stage) = (versions(PREDICT), Stage::default());
    let setup = Setup {
        engines: vec![Arc::new(stage.clone())],
        models: Some(folder.path().join("models")),
        catalog,
        streams: &[],
        access: toml::from_str("allow_anonymous_loopback = true\nanonymous_manage_models = true").unwrap(),
        ..Setup::default()
    };
    (setup.start().await, stage, folder)
}

const PREDICT: &str = "[predict]\n[[predict.input]]\nkind = \"record\"\nfields = [\"a\", \"b\"]\n\
                       [[predict.output]]\nsteps = [\"quantity\"]\n";

#[tokio::test]
async fn over_http_the_answer_says_which_version_it_is_from_and_why_not_the_other() {
    let (gateway, stage, _folder) = http("[models.press]\naliases = { prod = 1, canary = 2 }\n[models.press.traffic]\nsplit = { prod = 0, canary = 1 }\nfallback = [\"prod\"]\nbreaker = { failures = 3, open_ms = 60000 }\n").await;
    let infer = json!({ "inputs": [{ "name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 3] }] }).to_string();
    let infer = infer.as_bytes();
    let answer = gateway.post("/v2/models/press/infer", JSON, infer).await;
    assert_eq!((answer.status, answer.header("x-forebay-fallback")), (200, None));
    assert_eq!((&answer.json()["model_version"], &answer.json()["parameters"]), (&json!("2"), &Value::Null));
    stage.plays("press/2", Way::Fails);
    let answer = gateway.post("/v2/models/press/infer", JSON, infer).await;
    let why = answer.header("x-forebay-fallback").unwrap();
    assert!(why.starts_with("version 2 (canary): failed to run the model"), "{why}");
    let body = answer.json();
    assert_eq!((&body["model_version"], &body["parameters"]["forebay_fallback"]), (&json!("1"), &json!(why)));
    let predict = json!({ "a": 1, "b": 3 }).to_string();
    let answer = gateway.post("/v1/models/press/predict", JSON, predict.as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    assert_eq!((&body["model_version"], body["fallback"].as_str()), (&json!("1"), answer.header("x-forebay-fallback")));
    assert!(body["fallback"].as_str().unwrap().starts_with("version 2 (canary): "), "{body}");
    let answer = gateway.post("/v2/models/press/versions/2/infer", JSON, infer).await;
    assert_eq!(answer.status, 500, "{}", answer.text());
    // Three failures: the breaker is open, for people and for programs.
    let models = gateway.get("/api/v1/models").await.json();
    let canary = models["models"].as_array().unwrap().iter().find(|model| model["version"] == 2).unwrap();
    assert_eq!((&canary["breaker"]["state"], &canary["breaker"]["opened"]), (&json!("open"), &json!(1)), "{canary}");
    let answer = gateway.post("/v1/models/press/predict", JSON, predict.as_bytes()).await;
    assert!(answer.json()["fallback"].as_str().unwrap().contains("its breaker is open"));
    let metrics = gateway.get("/metrics").await.text();
    for line in [
        "forebay_model_breaker{model=\"press\",version=\"2\",state=\"open\"} 1",
        "forebay_model_breaker_opened_total{model=\"press\",version=\"2\"} 1",
        "forebay_model_chosen_total{model=\"press\",version=\"2\"} 4",
        "forebay_model_stood_in_total{model=\"press\",version=\"1\"} 3",
        "forebay_model_passed_over_total{model=\"press\",version=\"2\",why=\"failed\"} 2",
        "forebay_model_passed_over_total{model=\"press\",version=\"2\",why=\"breaker\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn a_version_that_takes_something_else_does_not_stand_in_for_a_prediction() {
    let (folder, stage) = (versions(PREDICT), Stage::default());
    for (version, other) in [(1, PREDICT.replace("\"b\"", "\"c\"")), (3, String::new())] {
        put(&folder.path().join("models"), version, &other);
    }
    let catalog = "[models.press]\naliases = { prod = 1, canary = 2 }\n[models.press.traffic]\nsplit = { canary = 1 }\nfallback = [\"prod\", \"3\"]\n";
    let setup = Setup {
        engines: vec![Arc::new(stage.clone())],
        models: Some(folder.path().join("models")),
        catalog,
        streams: &[],
        ..Setup::default()
    };
    let gateway = setup.start().await;
    let predict = async |body: Value| gateway.post("/v1/models/press/predict", JSON, body.to_string().as_bytes()).await;
    let answer = predict(json!({ "a": 1, "b": 3 })).await;
    assert_eq!((answer.status, &answer.json()["model_version"]), (200, &json!("2")), "{}", answer.text());
    let answer = predict(json!({ "a": 1, "c": 3 })).await;
    assert_eq!(answer.status, 422, "the caller's mistake: {}", answer.text());
    stage.plays("press/2", Way::Fails);
    let answer = predict(json!({ "a": 1, "b": 3 })).await;
    assert_eq!(answer.status, 500, "the model's, and not the caller's: {}", answer.text());
    for says in ["version 2 (canary): failed to run", "version 1 (prod): ", "version 3: it takes something else"] {
        assert!(answer.text().contains(says), "{says}: {}", answer.text());
    }
    assert_eq!((stage.runs("press/1"), stage.runs("press/3")), (0, 0));
}

#[tokio::test]
async fn over_http_weights_are_read_set_and_taken_back_and_a_header_holds_a_user_to_a_version() {
    let (gateway, _stage, _folder) = http("[models.press]\naliases = { prod = 1, canary = 2 }\n").await;
    let path = "/api/v1/models/press/traffic";
    let before = gateway.get(path).await.json();
    assert_eq!((&before["source"], &before["split"]), (&json!("none"), &json!([])), "{before}");
    let set =
        gateway.send("PUT", path, JSON, br#"{"split":{"prod":3,"canary":1},"shadow":{"to":"3","percent":50}}"#).await;
    assert_eq!(set.status, 200, "{}", set.text());
    let view = set.json();
    let canary = &view["split"][0];
    assert_eq!(
        (&canary["to"], &canary["version"], &canary["share"]),
        (&json!("canary"), &json!(2), &json!(0.25)),
        "{view}"
    );
    assert_eq!((&view["shadow"]["version"], &view["source"]), (&json!(3), &json!("set")));
    let infer = json!({ "inputs": [{ "name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 3] }] }).to_string();
    let predict = json!({ "a": 1, "b": 3 }).to_string();
    let mut seen = std::collections::BTreeSet::new();
    for user in 0..24 {
        let user = format!("user-{user}");
        let headers = [JSON[0], ("x-forebay-sticky", user.as_str())];
        let first = gateway.post("/v2/models/press/infer", &headers, infer.as_bytes()).await.json();
        let second = gateway.post("/v1/models/press/predict", &headers, predict.as_bytes()).await.json();
        assert_eq!(first["model_version"], second["model_version"], "{user}");
        seen.insert(first["model_version"].as_str().unwrap().to_owned());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["1", "2"]);
    for (body, says) in [
        (&br#"{"split":{"prod":"many"}}"#[..], "not a model's traffic"),
        (br#"{"split":{"prod":1},"sticky":"never"}"#, "unknown field `sticky`"),
        (br#"{"split":{"absent":1}}"#, "absent cannot get requests"),
        (b"", "not a model's traffic"),
        (br#"{"shadow":{"to":"canary","percent":1e9}}"#, "percent is 1000000000"),
    ] {
        let answer = gateway.send("PUT", path, JSON, body).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(answer.text().contains(says), "{}", answer.text());
    }
    assert_eq!(gateway.get("/api/v1/models/absent/traffic").await.status, 404);
    assert_eq!(gateway.send("DELETE", path, &[], b"").await.json()["source"], "none");
    assert_eq!(gateway.send("DELETE", path, &[], b"").await.status, 404);
}
