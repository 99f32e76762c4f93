//! Pipelines over real models, catalog and flows, with an engine that writes down what it was asked.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay::base::{Clock, Digest, SystemClock, Tensor};
use forebay::catalog::{self, Catalog};
use forebay::engine::{self, Engine, Gate, LoadSpec, NamedTensor as EngineTensor, Pool, Session};
use forebay::flows::inference::{InferError, Inference, Inferred, NamedTensor, Question};
use forebay::flows::models::{ModelView, Models};
use forebay::flows::repository::Repository;

/// A model as `name/version`, and the shape of its first input.
pub(crate) type Asked = (String, Vec<usize>);

/// What a model does is what its file says: `scale K` multiplies, `fail` fails, `gate` multiplies by 1 when it is let pass.
/// Every run is written down: the model, and the shape of its first input.
#[derive(Clone, Default)]
pub(crate) struct Scribe {
    runs: Arc<Mutex<Vec<Asked>>>,
    pub(crate) gate: Gate,
}

struct ScribeSession {
    scribe: Scribe,
    spec: LoadSpec,
}

impl Session for ScribeSession {
    fn run(&self, inputs: &[EngineTensor]) -> Result<Vec<EngineTensor>, engine::Error> {
        let x = &inputs[0].tensor;
        self.scribe.runs.lock().unwrap().push((self.spec.title(), x.shape().to_vec()));
        let failed =
            |reason: &str| engine::Error::Run { model: self.spec.title(), engine: "scribe", reason: reason.to_owned() };
        let word = std::str::from_utf8(&self.spec.bytes).unwrap();
        let factor = match word.split_once(' ') {
            Some(("scale", factor)) => factor.parse::<f32>().unwrap(),
            _ if word == "gate" => {
                self.scribe.gate.pass();
                1.0
            }
            _ => return Err(failed("as the test wants it")),
        };
        let scaled: Vec<f32> = x.as_slice::<f32>().unwrap().iter().map(|x| x * factor).collect();
        let output = |spec: &engine::TensorSpec| {
            EngineTensor::new(Arc::clone(&spec.name), Tensor::new(x.shape(), scaled.clone()).unwrap())
        };
        Ok(self.spec.outputs.iter().map(output).collect())
    }
}

impl Engine for Scribe {
    fn name(&self) -> &'static str {
        "scribe"
    }

    fn reads(&self, format: &str) -> bool {
        format == "scribe"
    }

    fn load(&self, spec: &LoadSpec) -> Result<Box<dyn Session>, engine::Error> {
        Ok(Box::new(ScribeSession { scribe: self.clone(), spec: spec.clone() }))
    }
}

pub(crate) const PLAIN: &str = "[serving]\nbatching = \"off\"\nwarm_up_runs = 0\n";
pub(crate) const ROWS: &str = "[[input]]\nname = \"x\"\ndatatype = \"FP32\"\nshape = [-1, 3]\n\
                    [[output]]\nname = \"p\"\ndatatype = \"FP32\"\nshape = [-1, 3]\n";

pub(crate) fn write(folder: &Path, name: &str, version: u32, format: &str, file: &str, rest: &str) {
    let at = folder.join(name).join(version.to_string());
    std::fs::create_dir_all(&at).unwrap();
    let manifest = format!(
        "[model]\nname = \"{name}\"\nversion = {version}\nfile = \"file\"\nsha256 = \"{}\"\nformat = \"{format}\"\n\
         license = \"MIT\"\n{rest}",
        Digest::of(file.as_bytes())
    );
    std::fs::write(at.join("file"), file).unwrap();
    std::fs::write(at.join("manifest.toml"), manifest).unwrap();
}

/// Takes x of [-1, 3] and gives p of its shape.
pub(crate) fn model(folder: &Path, name: &str, does: &str) {
    write(folder, name, 1, "scribe", does, &format!("{ROWS}{PLAIN}"));
}

/// A pipeline of the same signature.
pub(crate) fn pipeline(folder: &Path, name: &str, steps: &str) {
    write(folder, name, 1, "pipeline", steps, ROWS);
}

pub(crate) struct Plant {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) scribe: Scribe,
    pub(crate) models: Arc<Models>,
    pub(crate) repository: Repository,
    pub(crate) inference: Arc<Inference>,
    _pool: Arc<Pool>,
}

impl Plant {
    pub(crate) fn new(folder: tempfile::TempDir) -> Self {
        Self::configured(folder, "")
    }

    /// `said` is what the configuration has in `[catalog]`.
    pub(crate) fn configured(folder: tempfile::TempDir, said: &str) -> Self {
        Self::timed(folder, said, Arc::new(SystemClock::new()))
    }

    /// Two threads compute.
    pub(crate) fn timed(folder: tempfile::TempDir, said: &str, clock: Arc<dyn Clock>) -> Self {
        let config: catalog::Config = toml::from_str(said).unwrap();
        config.check().unwrap();
        let config = catalog::Config { folder: folder.path().to_owned(), ..config };
        let scribe = Scribe::default();
        let engines: Vec<Arc<dyn Engine>> = vec![Arc::new(scribe.clone())];
        let engine_config = engine::Config { threads: 2, memory_bytes_max: 1 << 30, ..engine::Config::default() };
        let pool = Arc::new(Pool::start(&engine_config, engines, Arc::clone(&clock)).unwrap());
        let found = Catalog::scan(&config);
        assert!(found.problems().is_empty(), "{:?}", found.problems());
        let state = tempfile::tempdir().unwrap();
        let models = Arc::new(Models::load(&found, &config, state.path(), &pool, Arc::clone(&clock)));
        let repository = Repository::new(Arc::clone(&models), config);
        let inference = Arc::new(Inference::new(Arc::clone(&models), clock));
        Self { folder, scribe, models, repository, inference, _pool: pool }
    }

    pub(crate) fn with(models: &[(&str, &str)], pipelines: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        models.iter().for_each(|(name, does)| model(folder.path(), name, does));
        pipelines.iter().for_each(|(name, steps)| pipeline(folder.path(), name, steps));
        Self::new(folder)
    }

    pub(crate) async fn ask(&self, model: &str, rows: &[[f32; 3]]) -> Result<Inferred, InferError> {
        self.inference.infer(question(model, rows)).await
    }

    pub(crate) async fn numbers(&self, model: &str, rows: &[[f32; 3]]) -> Vec<f64> {
        let answer = self.ask(model, rows).await.unwrap_or_else(|error| panic!("{model}: {error}"));
        answer.outputs[0].tensor.to_numbers().unwrap()
    }

    /// What was asked since the last look.
    pub(crate) fn runs(&self) -> Vec<Asked> {
        std::mem::take(&mut self.scribe.runs.lock().unwrap())
    }

    pub(crate) fn view(&self, name: &str) -> ModelView {
        self.models.views().into_iter().find(|view| view.name == name).unwrap_or_else(|| panic!("no {name}"))
    }

    /// Why it cannot answer.
    pub(crate) fn problem(&self, name: &str) -> String {
        let view = self.view(name);
        assert!(!view.serving, "{view:?}");
        view.problem.unwrap_or_default()
    }
}

impl Drop for Plant {
    fn drop(&mut self) {
        self.scribe.gate.open(1 << 32);
    }
}

pub(crate) fn question(model: &str, rows: &[[f32; 3]]) -> Question {
    let tensor = Tensor::new([rows.len(), 3], rows.concat()).unwrap();
    Question {
        model: model.to_owned(),
        version: None,
        inputs: vec![NamedTensor { name: "x".to_owned(), tensor }],
        outputs: Vec::new(),
        deadline: Duration::from_secs(30),
        priority: 0,
    }
}

pub(crate) fn asks(name: &str, model: &str, from: &str) -> String {
    format!("[[step]]\nname = \"{name}\"\nmodel = \"{model}\"\ninput = {{ x = \"{from}\" }}\n")
}

pub(crate) const CASCADE: &str = "\
[[step]]
name = \"small\"
model = \"small\"
input = { x = \"x\" }

[[step]]
name = \"doubt\"
step = \"unsure\"
input = \"small.p\"
measure = \"confidence\"
below = 0.8

[[step]]
name = \"large\"
model = \"large\"
input = { x = \"x\" }
rows = \"doubt\"
otherwise = { p = \"small.p\" }

[output]
p = \"large.p\"
";

/// Texts put together as they are read.
pub(crate) trait Add {
    fn add(&self, more: &str) -> String;
}

impl Add for str {
    fn add(&self, more: &str) -> String {
        format!("{self}{more}")
    }
}
