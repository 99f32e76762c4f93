//! A model of three versions that do what the test says, over the flows with a clock that only the test moves.

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
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// What a version does with a request; the test changes its mind at run time.
#[derive(Clone)]
pub(crate) enum Way {
    /// Gives the row's mean and so much more.
    Adds(f32),
    Fails,
    Panics,
    /// Gives two means for each row.
    Twice,
    /// Waits at the gate, and answers well then.
    Waits(Gate),
}

/// An engine whose versions do what the test says, by `name/version`, and that counts their runs.
#[derive(Clone, Default)]
pub(crate) struct Stage(Arc<Mutex<BTreeMap<String, Role>>>);

/// What a version does, and how often it did.
#[derive(Default)]
struct Role {
    way: Option<Way>,
    runs: u64,
    refuses: bool,
    loads: u64,
}

impl Stage {
    fn role<T>(&self, title: &str, change: impl FnOnce(&mut Role) -> T) -> T {
        change(self.0.lock().unwrap().entry(title.to_owned()).or_default())
    }

    pub(crate) fn plays(&self, title: &str, way: Way) {
        self.role(title, |role| role.way = Some(way));
    }

    pub(crate) fn runs(&self, title: &str) -> u64 {
        self.role(title, |role| role.runs)
    }

    /// From now on it cannot be loaded, or can again.
    pub(crate) fn refuses(&self, title: &str, refuses: bool) {
        self.role(title, |role| role.refuses = refuses);
    }

    /// How often somebody tried to load it.
    pub(crate) fn loads(&self, title: &str) -> u64 {
        self.role(title, |role| role.loads)
    }
}

struct Actor {
    stage: Stage,
    title: String,
    outputs: Vec<TensorSpec>,
}

impl Session for Actor {
    fn run(&self, inputs: &[EngineTensor]) -> Result<Vec<EngineTensor>, engine::Error> {
        let way = self.stage.role(&self.title, |role| {
            role.runs += 1;
            role.way.clone()
        });
        let mut width = 1;
        let adds = match way {
            None => 0.0,
            Some(Way::Adds(adds)) => adds,
            Some(Way::Twice) => {
                width = 2;
                0.0
            }
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
            EngineTensor::new(Arc::clone(&output.name), Tensor::new([rows, width], vec![mean; rows * width]).unwrap())
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
        let refuses = self.role(&spec.title(), |role| {
            role.loads += 1;
            role.refuses
        });
        if refuses {
            let reason = "not today".to_owned();
            return Err(engine::Error::Load { model: spec.title(), engine: "stage", reason });
        }
        Ok(Box::new(Actor { stage: self.clone(), title: spec.title(), outputs: spec.outputs.clone() }))
    }
}

pub(crate) fn put(folder: &Path, version: u32, more: &str) {
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
pub(crate) fn versions(more: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    (1..=3).for_each(|version| put(&folder.path().join("models"), version, more));
    folder
}

const NAMES: &str = "[models.press]\naliases = { prod = 1, canary = 2 }\n";
/// Everything to the canary, the rest stands in.
pub(crate) const CANARY: &str = "[models.press.traffic]\nsplit = { prod = 0, canary = 1 }\nfallback = [\"prod\"]\n";

pub(crate) struct Plant {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) stage: Stage,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) models: Arc<Models>,
    pub(crate) repository: Repository,
    pub(crate) inference: Arc<Inference>,
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
    pub(crate) fn new(traffic: &str) -> Self {
        Self::in_folder(versions(""), traffic)
    }

    pub(crate) fn in_folder(folder: tempfile::TempDir, traffic: &str) -> Self {
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
    pub(crate) fn with_shadows(self) -> Self {
        drop(tokio::spawn(Arc::clone(&self.inference).shadow(self.stop.clone())));
        self
    }

    /// From now on this version waits at the plant's gate.
    pub(crate) fn waits(&self, title: &str) -> Gate {
        self.stage.plays(title, Way::Waits(self.gate.clone()));
        self.gate.clone()
    }

    /// The same box after a restart.
    pub(crate) fn restarted(mut self, traffic: &str) -> Self {
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap());
        drop(self);
        Self::in_folder(folder, traffic)
    }

    pub(crate) async fn ask(&self) -> Result<Inferred, InferError> {
        ask(&self.inference, "press", None, None).await
    }

    /// Which version answers a request without a key.
    pub(crate) async fn answers(&self) -> u32 {
        self.ask().await.unwrap().version
    }

    /// Which version answers this user.
    pub(crate) async fn answers_user(&self, user: u32) -> u32 {
        ask(&self.inference, "press", None, Some(&format!("user-{user}"))).await.unwrap().version
    }

    pub(crate) async fn set(&self, traffic: Value) -> Result<(), RepositoryError> {
        self.repository.set_traffic("press", serde_json::from_value::<SetTraffic>(traffic).unwrap()).await
    }

    pub(crate) fn version(&self, version: u32) -> VersionTraffic {
        let view = self.repository.traffic("press").unwrap();
        view.versions.into_iter().find(|of| of.version == version).unwrap()
    }

    pub(crate) fn passed_over(&self, version: u32) -> Value {
        serde_json::to_value(&self.version(version).counts.passed_over).unwrap()
    }
}

pub(crate) async fn ask(
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
    let header = |name: &str| key.filter(|_| name == "x-forebay-sticky");
    let key = inference.key(&Bearings { header: Some(&header), ..Bearings::default() });
    inference.infer_for(question, &key).await
}
