//! Versions, aliases, models that load when they are asked, and what is left of them: catalog, engines and flows together,
//! with engines that count.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay::base::{Clock, Digest, ManualClock, Tensor};
use forebay::catalog::{self, Catalog};
use forebay::engine::{self, Engine, Fake, Gate, LoadSpec, NamedTensor as EngineTensor, Pool, Readings, Session};
use forebay::flows::inference::{InferError, Inference, Inferred, NamedTensor, Question};
use forebay::flows::models::{ModelView, Models};
use forebay::flows::repository::{Repository, RepositoryError};

/// [`Fake`], with what it loaded and what of that is still there.
#[derive(Clone, Default)]
struct Counting {
    loads: Arc<AtomicUsize>,
    alive: Arc<AtomicUsize>,
    /// Before every load, if there is one.
    gate: Arc<Mutex<Option<Gate>>>,
}

struct CountingSession(Counting, Box<dyn Session>);

impl Drop for CountingSession {
    fn drop(&mut self) {
        self.0.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Session for CountingSession {
    fn run(&self, inputs: &[EngineTensor]) -> Result<Vec<EngineTensor>, engine::Error> {
        self.1.run(inputs)
    }
}

impl Engine for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }

    fn reads(&self, _: &str) -> bool {
        true
    }

    fn load(&self, spec: &LoadSpec) -> Result<Box<dyn Session>, engine::Error> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        let gate = self.gate.lock().unwrap().clone();
        if let Some(gate) = gate {
            gate.pass();
        }
        if &*spec.bytes == b"broken" {
            let (model, reason) = (spec.title(), "as the test wants it".to_owned());
            return Err(engine::Error::Load { model, engine: "counting", reason });
        }
        self.alive.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(CountingSession(self.clone(), Fake.load(spec)?)))
    }
}

/// A version of a model that gives its row's mean.
fn put(folder: &Path, name: &str, version: u32, bytes: &[u8], more: &str) {
    let at = folder.join(name).join(version.to_string());
    std::fs::create_dir_all(&at).unwrap();
    let digest = Digest::of(bytes);
    let manifest = format!(
        "[model]\nname = \"{name}\"\nversion = {version}\nfile = \"model.onnx\"\nsha256 = \"{digest}\"\n\
         format = \"onnx\"\nlicense = \"MIT\"\n\
         [[input]]\nname = \"x\"\ndatatype = \"FP32\"\nshape = [-1, 2]\n\
         [[output]]\nname = \"y\"\ndatatype = \"FP32\"\nshape = [-1, 1]\n{more}"
    );
    std::fs::write(at.join("model.onnx"), bytes).unwrap();
    std::fs::write(at.join("manifest.toml"), manifest).unwrap();
}

struct Plant {
    folder: tempfile::TempDir,
    config: catalog::Config,
    engine: Counting,
    clock: Arc<ManualClock>,
    pool: Arc<Pool>,
    models: Arc<Models>,
    repository: Repository,
    inference: Arc<Inference>,
}

impl Plant {
    fn with(folder: tempfile::TempDir, catalog: &str, engine_config: &engine::Config) -> Self {
        let mut config: catalog::Config = toml::from_str(catalog).unwrap();
        config.check().unwrap();
        config.folder = folder.path().join("models");
        let clock = Arc::new(ManualClock::at(0));
        let engine = Counting::default();
        let shared: Arc<dyn Clock> = Arc::clone(&clock) as _;
        let engines: Vec<Arc<dyn Engine>> = vec![Arc::new(engine.clone())];
        let pool = Arc::new(Pool::start(engine_config, engines, Arc::clone(&shared)).unwrap());
        let found = Catalog::scan(&config);
        let models = Arc::new(Models::load(&found, &config, folder.path(), &pool, Arc::clone(&shared)));
        let repository = Repository::new(Arc::clone(&models), config.clone());
        let inference = Arc::new(Inference::new(Arc::clone(&models), shared));
        Self { folder, config, engine, clock, pool, models, repository, inference }
    }

    fn new(folder: tempfile::TempDir, catalog: &str) -> Self {
        Self::with(folder, catalog, &engine::Config { threads: 1, ..engine::Config::default() })
    }

    /// The same box after a restart.
    fn restarted(self, catalog: &str) -> Self {
        Self::new(self.folder, catalog)
    }

    async fn ask(&self, model: &str, version: Option<u32>) -> Result<Inferred, InferError> {
        ask(&self.inference, model, version).await
    }

    /// Which version answers.
    async fn answers(&self, model: &str, version: Option<u32>) -> u32 {
        self.ask(model, version).await.unwrap().version
    }

    fn view(&self, name: &str, version: u32) -> ModelView {
        let found = self.models.views().into_iter().find(|view| view.name == name && view.version == version);
        found.unwrap_or_else(|| panic!("no {name}/{version}"))
    }

    fn alive(&self) -> usize {
        self.engine.alive.load(Ordering::SeqCst)
    }
}

async fn ask(inference: &Inference, model: &str, version: Option<u32>) -> Result<Inferred, InferError> {
    let tensor = Tensor::new([1, 2], vec![1.0_f32, 3.0]).unwrap();
    let question = Question {
        model: model.to_owned(),
        version,
        inputs: vec![NamedTensor { name: "x".to_owned(), tensor }],
        outputs: Vec::new(),
        deadline: Duration::from_secs(30),
        priority: 0,
    };
    inference.infer(question).await
}

/// Versions 1, 2 and 3 of `press`.
fn three_versions() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for version in 1..=3 {
        put(&folder.path().join("models"), "press", version, format!("weights {version}").as_bytes(), "");
    }
    folder
}

#[tokio::test]
async fn versions_are_served_together_as_the_policy_says() {
    for (policy, newest, served) in [
        ("", 3, vec![1, 2, 3]),
        ("[models.press]\nversions = { latest = 2 }", 3, vec![2, 3]),
        ("[models.press]\nversions = [1, 2]", 2, vec![1, 2]),
    ] {
        let plant = Plant::new(three_versions(), policy);
        assert_eq!(plant.answers("press", None).await, newest, "{policy}");
        for version in 1..=3 {
            let answer = plant.ask("press", Some(version)).await;
            assert_eq!(answer.is_ok(), served.contains(&version), "{policy} {version}");
            if let Err(error) = answer {
                assert!(error.to_string().contains("outside of catalog.models.press.versions"), "{error}");
                assert_eq!(plant.view("press", version).state, "away");
            }
        }
        assert_eq!(plant.alive(), served.len());
    }
}

#[tokio::test]
async fn an_alias_moves_while_running_and_stays_moved_after_a_restart() {
    let catalog = "[models.press]\naliases = { prod = 1, default = 2 }";
    let plant = Plant::new(three_versions(), catalog);
    let version = |plant: &Plant, text: &str| plant.inference.version("press", text);
    assert_eq!((version(&plant, "prod").unwrap(), version(&plant, "3").unwrap()), (1, 3));
    assert_eq!((plant.answers("press@prod", None).await, plant.answers("press", None).await), (1, 2));
    plant.repository.set_alias("press", "prod", 3).await.unwrap();
    plant.repository.set_alias("press", "canary", 2).await.unwrap();
    assert_eq!((plant.answers("press@prod", None).await, plant.answers("press@canary", None).await), (3, 2));
    assert_eq!(plant.view("press", 2).aliases, ["canary", "default"]);

    let plant = plant.restarted(catalog);
    assert_eq!((version(&plant, "prod").unwrap(), version(&plant, "canary").unwrap()), (3, 2));
    plant.repository.remove_alias("press", "prod").await.unwrap();
    assert_eq!(version(&plant, "prod").unwrap(), 1, "the configuration's word counts again");
    let unknown = version(&plant, "beta").unwrap_err().to_string();
    assert!(unknown.contains("\"beta\" is not a version") && unknown.contains("canary, default, prod"), "{unknown}");
    assert!(matches!(plant.ask("press@beta", None).await, Err(InferError::NoModel(_))));
    for (model, alias, version, nothing_there) in
        [("press", "prod", 9, true), ("drill", "prod", 1, true), ("press", "7", 1, false), ("press", "a b", 1, false)]
    {
        let error = plant.repository.set_alias(model, alias, version).await.unwrap_err();
        assert_eq!(matches!(error, RepositoryError::NoSuch(_)), nothing_there, "{model} {alias}: {error}");
    }
    assert!(matches!(plant.repository.remove_alias("press", "prod").await, Err(RepositoryError::NoSuch(_))));
}

#[tokio::test]
async fn a_version_that_is_broken_is_in_the_index_with_its_reason() {
    let folder = three_versions();
    let models = folder.path().join("models");
    put(&models, "press", 2, b"broken", "");
    std::fs::write(models.join("press/3/manifest.toml"), "[model]\nname = 7\n").unwrap();
    put(&models, "drill", 1, b"x", "[serving]\nbatching = \"often\"\n");
    let plant = Plant::new(folder, "");
    assert_eq!(plant.answers("press", None).await, 1);
    let states = plant.models.views().into_iter().map(|view| (view.name, view.version, view.state, view.problem));
    let states: Vec<_> = states.collect();
    assert_eq!(states.len(), 4);
    for (at, name, version, state, reason) in [
        (0, "drill", 1, "refused", "unknown variant `often`"),
        (1, "press", 1, "serving", ""),
        (2, "press", 2, "refused", "as the test wants it"),
        (3, "press", 3, "refused", "manifest.toml:2:8"),
    ] {
        let (given_name, given_version, given_state, problem) = &states[at];
        assert_eq!((given_name.as_str(), *given_version, *given_state), (name, version, state));
        assert!(problem.as_deref().unwrap_or_default().contains(reason), "{problem:?}");
    }
    let refused = plant.ask("drill", None).await.unwrap_err();
    assert!(matches!(&refused, InferError::NotServing { reason } if reason.contains("often")), "{refused}");
    assert!(matches!(plant.ask("press", Some(3)).await, Err(InferError::NotServing { .. })));
}

const ON_REQUEST: &str = "[serving]\nload = \"request\"\nidle_unload_s = 60\n";

#[tokio::test]
async fn a_model_loads_with_its_first_request_and_sleeps_when_nobody_asks() {
    let folder = tempfile::tempdir().unwrap();
    put(&folder.path().join("models"), "press", 1, b"weights", ON_REQUEST);
    let plant = Plant::new(folder, "");
    let about = plant.inference.metadata("press", None).unwrap();
    assert_eq!((about.inputs[0].shape.as_slice(), about.engine.as_str()), (&[-1, 2][..], ""));
    let view = plant.view("press", 1);
    assert_eq!((view.state, view.serving, plant.alive()), ("asleep", true, 0));
    // Twenty first callers at once: one load for all of them.
    let gate = Gate::default();
    *plant.engine.gate.lock().unwrap() = Some(gate.clone());
    let asked: Vec<_> = (0..20)
        .map(|_| {
            let inference = Arc::clone(&plant.inference);
            tokio::spawn(async move { ask(&inference, "press", None).await.map(|_| ()) })
        })
        .collect();
    tokio::task::yield_now().await;
    gate.wait_for_request();
    assert_eq!(plant.view("press", 1).state_word(), "LOADING");
    gate.open(1);
    for one in asked {
        one.await.unwrap().unwrap();
    }
    assert_eq!((plant.engine.loads.load(Ordering::SeqCst), plant.alive()), (1, 1));
    plant.clock.advance(Duration::from_secs(59));
    plant.models.put_idle_to_sleep();
    assert_eq!(plant.alive(), 1);
    plant.clock.advance(Duration::from_secs(2));
    while plant.alive() > 0 {
        // The last request's thread may hold the model for a moment longer.
        plant.models.put_idle_to_sleep();
        tokio::task::yield_now().await;
    }
    assert_eq!(plant.view("press", 1).state, "asleep");
    gate.open(1);
    plant.ask("press", None).await.unwrap();
    let served = plant.inference.served(Some("press"), None).unwrap();
    assert_eq!(served[0].counts.success.count, 21, "figures go on over a sleep");
}

#[tokio::test]
async fn first_callers_wait_up_to_a_bound_and_one_that_goes_leaves_the_load_to_the_others() {
    let folder = tempfile::tempdir().unwrap();
    put(&folder.path().join("models"), "press", 1, b"weights", ON_REQUEST);
    let plant = Plant::new(folder, "load_queue_max = 2");
    let gate = Gate::default();
    *plant.engine.gate.lock().unwrap() = Some(gate.clone());
    let asking = || {
        let inference = Arc::clone(&plant.inference);
        tokio::spawn(async move { ask(&inference, "press", None).await.map(|_| ()) })
    };
    let (first, second) = (asking(), asking());
    tokio::task::yield_now().await;
    gate.wait_for_request();
    let busy = plant.ask("press", None).await.unwrap_err();
    assert!(matches!(&busy, InferError::Busy { detail } if detail.contains("the most is 2")), "{busy}");
    first.abort();
    assert!(first.await.is_err());
    gate.open(1);
    second.await.unwrap().unwrap();
    assert_eq!(plant.engine.loads.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_model_without_room_is_refused_with_figures_and_gets_it_from_one_that_nobody_uses() {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("models");
    let needs = |bytes: u32, more: &str| format!("{more}memory_bytes = {bytes}\n");
    put(&models, "fixed", 1, b"weights", &needs(50, "[serving]\n"));
    put(&models, "large", 1, b"weights", &needs(60, "[serving]\n"));
    for name in ["press", "drill"] {
        put(&models, name, 1, b"weights", &needs(40, ON_REQUEST));
    }
    let bounded = engine::Config { threads: 1, memory_bytes_max: 100, ..engine::Config::default() };
    let plant = Plant::with(folder, "", &bounded);
    let refused = plant.ask("large", None).await.unwrap_err().to_string();
    assert!(refused.contains("large/1: it needs 60 bytes, 50 of 100 are in use (fixed/1 50)"), "{refused}");
    plant.ask("press", None).await.unwrap();
    // The press makes room for the drill, and the drill for the press.
    for name in ["drill", "press", "drill"] {
        while plant.ask(name, None).await.is_err() {
            // The other's last request may be on its thread for a moment longer.
            tokio::task::yield_now().await;
        }
        assert_eq!((plant.view(name, 1).state, plant.alive()), ("serving", 2));
    }
    assert_eq!(plant.view("press", 1).state, "asleep");
    assert_eq!(plant.models.condition().memory_of.iter().map(|(_, bytes)| bytes).sum::<u64>(), 90);
}

#[tokio::test]
async fn a_box_in_need_puts_away_what_nobody_uses() {
    let folder = three_versions();
    put(&folder.path().join("models"), "drill", 1, b"weights", ON_REQUEST);
    let plant = Plant::new(folder, "");
    plant.ask("drill", None).await.unwrap();
    let scarce = Readings { memory_left_percent: Some(8.0), ..Readings::default() };
    assert!(plant.pool.back_off(&scarce));
    while plant.alive() > 3 {
        plant.models.put_idle_to_sleep();
        tokio::task::yield_now().await;
    }
    assert_eq!(plant.view("drill", 1).state, "asleep");
    assert_eq!(plant.view("press", 3).state, "serving", "what loads with the gateway stays");
    plant.ask("drill", None).await.unwrap();
}

#[tokio::test]
async fn loading_and_unloading_under_fire_leaves_one_session_a_version_and_nobody_hears_anything_odd() {
    let plant = Plant::new(three_versions(), "");
    let stop = tokio_util::sync::CancellationToken::new();
    let askers: Vec<_> = (0..4)
        .map(|_| {
            let (inference, stop) = (Arc::clone(&plant.inference), stop.clone());
            tokio::spawn(async move {
                let mut answered = 0;
                while !stop.is_cancelled() {
                    match ask(&inference, "press", None).await {
                        Ok(_) => answered += 1,
                        Err(InferError::NotServing { reason }) => assert!(reason.contains("unloaded"), "{reason}"),
                        Err(other) => panic!("{other}"),
                    }
                    tokio::task::yield_now().await;
                }
                answered
            })
        })
        .collect();
    for _ in 0..300 {
        plant.repository.unload("press").await.unwrap();
        plant.repository.load("press").await.unwrap();
    }
    stop.cancel();
    for asker in askers {
        asker.await.unwrap();
    }
    while plant.alive() > 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!((plant.alive(), plant.engine.loads.load(Ordering::SeqCst)), (3, 3 + 3 * 300));
    assert_eq!(plant.models.condition().memory_of.len(), 3);
    assert_eq!(plant.models.views().len(), 3);
    // An unchanged load loads nothing, and a changed version only itself.
    put(&plant.config.folder, "press", 2, b"new weights", "");
    plant.repository.load("press").await.unwrap();
    plant.repository.load("press").await.unwrap();
    assert_eq!(plant.engine.loads.load(Ordering::SeqCst), 3 + 3 * 300 + 1);
}
