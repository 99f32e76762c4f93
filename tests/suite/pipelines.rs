//! Pipelines over real models, catalog, flows and doors, with an engine that writes down what it was asked.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay::base::{Clock, Digest, SystemClock, Tensor};
use forebay::catalog::{self, Catalog};
use forebay::engine::{self, Engine, Gate, LoadSpec, NamedTensor as EngineTensor, Pool, Session};
use forebay::flows::inference::{InferError, Inference, Inferred, NamedTensor, Question, Wanted};
use forebay::flows::models::{ModelView, Models};
use forebay::flows::pipeline_tally::StepReport;
use forebay::flows::repository::Repository;
use serde_json::{Value, json};

use crate::gateway::forebay_says;
use crate::http_fixture::{Gateway, Setup};

/// A model as `name/version`, and the shape of its first input.
type Asked = (String, Vec<usize>);

/// What a model does is what its file says: `scale K` multiplies, `fail` fails, `gate` multiplies by 1 when it is let pass.
/// Every run is written down: the model, and the shape of its first input.
#[derive(Clone, Default)]
struct Scribe {
    runs: Arc<Mutex<Vec<Asked>>>,
    gate: Gate,
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

const PLAIN: &str = "[serving]\nbatching = \"off\"\nwarm_up_runs = 0\n";
const ROWS: &str = "[[input]]\nname = \"x\"\ndatatype = \"FP32\"\nshape = [-1, 3]\n\
                    [[output]]\nname = \"p\"\ndatatype = \"FP32\"\nshape = [-1, 3]\n";

fn write(folder: &Path, name: &str, version: u32, format: &str, file: &str, rest: &str) {
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
fn model(folder: &Path, name: &str, does: &str) {
    write(folder, name, 1, "scribe", does, &format!("{ROWS}{PLAIN}"));
}

/// A pipeline of the same signature.
fn pipeline(folder: &Path, name: &str, steps: &str) {
    write(folder, name, 1, "pipeline", steps, ROWS);
}

struct Plant {
    folder: tempfile::TempDir,
    scribe: Scribe,
    models: Arc<Models>,
    repository: Repository,
    inference: Arc<Inference>,
    _pool: Arc<Pool>,
}

impl Plant {
    /// Two threads compute.
    fn new(folder: tempfile::TempDir) -> Self {
        let config = catalog::Config { folder: folder.path().to_owned(), ..catalog::Config::default() };
        let (scribe, clock) = (Scribe::default(), Arc::new(SystemClock::new()) as Arc<dyn Clock>);
        let engines: Vec<Arc<dyn Engine>> = vec![Arc::new(scribe.clone())];
        let engine_config = engine::Config { threads: 2, ..engine::Config::default() };
        let pool = Arc::new(Pool::start(&engine_config, engines, Arc::clone(&clock)).unwrap());
        let found = Catalog::scan(&config);
        assert!(found.problems().is_empty(), "{:?}", found.problems());
        let state = tempfile::tempdir().unwrap();
        let models = Arc::new(Models::load(&found, &config, state.path(), &pool, Arc::clone(&clock)));
        let repository = Repository::new(Arc::clone(&models), config);
        let inference = Arc::new(Inference::new(Arc::clone(&models), clock));
        Self { folder, scribe, models, repository, inference, _pool: pool }
    }

    fn with(models: &[(&str, &str)], pipelines: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        models.iter().for_each(|(name, does)| model(folder.path(), name, does));
        pipelines.iter().for_each(|(name, steps)| pipeline(folder.path(), name, steps));
        Self::new(folder)
    }

    async fn ask(&self, model: &str, rows: &[[f32; 3]]) -> Result<Inferred, InferError> {
        self.inference.infer(question(model, rows)).await
    }

    async fn numbers(&self, model: &str, rows: &[[f32; 3]]) -> Vec<f64> {
        let answer = self.ask(model, rows).await.unwrap_or_else(|error| panic!("{model}: {error}"));
        answer.outputs[0].tensor.to_numbers().unwrap()
    }

    /// What was asked since the last look.
    fn runs(&self) -> Vec<Asked> {
        std::mem::take(&mut self.scribe.runs.lock().unwrap())
    }

    fn view(&self, name: &str) -> ModelView {
        self.models.views().into_iter().find(|view| view.name == name).unwrap_or_else(|| panic!("no {name}"))
    }

    /// Why it cannot answer.
    fn problem(&self, name: &str) -> String {
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

fn question(model: &str, rows: &[[f32; 3]]) -> Question {
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

fn asks(name: &str, model: &str, from: &str) -> String {
    format!("[[step]]\nname = \"{name}\"\nmodel = \"{model}\"\ninput = {{ x = \"{from}\" }}\n")
}

const CASCADE: &str = "\
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

#[tokio::test]
async fn an_ensemble_is_the_weighted_mean_of_its_models() {
    let steps = asks("a", "one", "x")
        + &asks("b", "three", "x")
        + "[[step]]\nname = \"mean\"\nstep = \"mean\"\ninput = [\"a.p\", \"b.p\"]\nweights = [3, 1]\n[output]\np = \"mean\"\n";
    let plant = Plant::with(&[("one", "scale 1"), ("three", "scale 3")], &[("both", &steps)]);
    // 3/4 x + 1/4 3x
    assert_eq!(plant.numbers("both", &[[1.0, 2.0, 4.0], [0.0, 8.0, -2.0]]).await, [1.5, 3.0, 6.0, 0.0, 12.0, -3.0]);
    let mut runs = plant.runs();
    runs.sort();
    assert_eq!(runs, [("one/1".to_owned(), vec![2, 3]), ("three/1".to_owned(), vec![2, 3])]);
}

#[tokio::test]
async fn a_cascade_sends_exactly_the_unsure_rows_on_and_puts_them_back() {
    let plant = Plant::with(&[("small", "scale 1"), ("large", "scale 10")], &[("both", CASCADE)]);
    let (sure, unsure) = ([0.9, 0.05, 0.05], [0.5, 0.3, 0.2]);
    let answer = plant.ask("both", &[sure, unsure, sure, unsure]).await.unwrap();
    assert_eq!(
        answer.outputs[0].tensor.as_slice::<f32>().unwrap(),
        [sure, unsure.map(|p| p * 10.0), sure, unsure.map(|p| p * 10.0)].concat()
    );
    assert_eq!(plant.runs(), [("small/1".to_owned(), vec![4, 3]), ("large/1".to_owned(), vec![2, 3])]);
    let large = answer.steps.iter().find(|report| report.step == "large").unwrap();
    assert_eq!((large.rows, large.of_rows, large.model.as_deref()), (Some(2), Some(4), Some("large/1")));
    let steps: Vec<_> = answer.steps.iter().map(|report| (report.step.as_str(), report.does)).collect();
    assert_eq!(steps, [("small", "model"), ("doubt", "unsure"), ("large", "model")]);

    // Nobody is unsure: the large one is not asked at all.
    let answer = plant.ask("both", &[sure, sure]).await.unwrap();
    assert_eq!(answer.outputs[0].tensor.as_slice::<f32>().unwrap(), [sure, sure].concat());
    assert_eq!(plant.runs(), [("small/1".to_owned(), vec![2, 3])]);
    let large = answer.steps.iter().find(|report| report.step == "large").unwrap();
    assert_eq!((large.rows, large.of_rows, &large.model), (Some(0), Some(2), &None));
    // All are.
    let answer = plant.ask("both", &[unsure]).await.unwrap();
    assert_eq!(answer.outputs[0].tensor.as_slice::<f32>().unwrap(), unsure.map(|p| p * 10.0));
    assert_eq!(plant.runs().last().unwrap(), &("large/1".to_owned(), vec![1, 3]));

    let served = plant.inference.served(Some("both"), None).unwrap();
    let large = served[0].steps.iter().find(|step| step.step == "large").unwrap();
    assert_eq!((large.counts.success.count, large.counts.asked), (3, 2));
    assert_eq!((large.counts.rows, large.counts.of_rows), (3, 7));
    // Its models' own statistics have what they did, too.
    assert_eq!(plant.inference.served(Some("large"), None).unwrap()[0].counts.inferences, 3);
    assert_eq!(served[0].counts.inferences, 7);
}

#[tokio::test]
async fn branches_that_do_not_wait_for_each_other_are_computed_at_the_same_time() {
    let steps = asks("a", "left", "x")
        + &asks("b", "right", "x")
        + "[[step]]\nname = \"sum\"\nstep = \"mean\"\ninput = [\"a.p\", \"b.p\"]\n[output]\np = \"sum\"\n";
    let plant = Plant::with(&[("left", "gate"), ("right", "gate")], &[("both", &steps)]);
    let (inference, gate) = (Arc::clone(&plant.inference), plant.scribe.gate.clone());
    let asked = tokio::task::spawn(async move { inference.infer(question("both", &[[1.0, 2.0, 3.0]])).await });
    // Both stand before the gate, or this waits for ever.
    tokio::task::spawn_blocking(move || {
        gate.wait_for_requests(2);
        gate.open(2);
    })
    .await
    .unwrap();
    assert_eq!(asked.await.unwrap().unwrap().outputs[0].tensor.to_numbers().unwrap(), [1.0, 2.0, 3.0]);
}

#[tokio::test]
async fn a_caller_that_goes_takes_the_steps_along_that_have_not_begun() {
    let steps = asks("first", "slow", "x") + &asks("second", "after", "first.p") + "[output]\np = \"second.p\"\n";
    let plant = Plant::with(&[("slow", "gate"), ("after", "scale 2")], &[("both", &steps)]);
    let (inference, gate) = (Arc::clone(&plant.inference), plant.scribe.gate.clone());
    let asked = tokio::task::spawn(async move { inference.infer(question("both", &[[1.0; 3]])).await });
    let waiting = gate.clone();
    tokio::task::spawn_blocking(move || waiting.wait_for_request()).await.unwrap();
    asked.abort();
    assert!(asked.await.unwrap_err().is_cancelled());
    gate.open(2);
    // Computed behind the one that nobody waits for.
    plant.ask("slow", &[[1.0; 3]]).await.unwrap();
    let asked: Vec<String> = plant.runs().into_iter().map(|(model, _)| model).collect();
    assert_eq!(asked, ["slow/1", "slow/1"]);
}

#[tokio::test]
async fn the_requests_one_deadline_ends_it_in_the_middle_and_names_the_step() {
    let steps = asks("first", "fast", "x") + &asks("second", "slow", "first.p") + "[output]\np = \"second.p\"\n";
    let plant = Plant::with(&[("slow", "gate"), ("fast", "scale 2")], &[("both", &steps)]);
    let question = Question { deadline: Duration::from_millis(200), ..question("both", &[[1.0; 3]]) };
    let error = plant.inference.infer(question).await.unwrap_err();
    assert!(matches!(error, InferError::Deadline { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.starts_with("pipeline both/1, step second (model slow): no answer within"), "{text}");
    let served = plant.inference.served(Some("both"), None).unwrap();
    let figures: Vec<_> = served[0].steps.iter().map(|step| (step.counts.success.count, step.counts.fail)).collect();
    assert_eq!((figures, served[0].counts.fail.count), (vec![(1, 0), (0, 1)], 1));
}

#[tokio::test]
async fn a_failing_model_is_told_with_pipeline_step_and_reason() {
    let steps = asks("first", "broken", "x") + "[output]\np = \"first.p\"\n";
    let plant = Plant::with(&[("broken", "fail")], &[("both", &steps)]);
    let error = plant.ask("both", &[[1.0; 3]]).await.unwrap_err();
    assert!(matches!(error, InferError::Failed { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "failed to run the model: pipeline both/1, step first (model broken): failed to run model broken/1 with scribe: \
         as the test wants it"
    );
}

#[tokio::test]
async fn a_pipeline_serves_while_its_models_do_and_says_which_one_does_not() {
    let plant = Plant::with(&[("small", "scale 1")], &[("both", CASCADE)]);
    let problem = plant.problem("both");
    assert!(problem.starts_with("step large: no model \"large\""), "{problem}");
    assert_eq!(plant.view("both").state, "waiting");
    let error = plant.ask("both", &[[1.0; 3]]).await.unwrap_err();
    assert!(matches!(error, InferError::NotServing { .. }), "{error:?}");
    assert!(error.to_string().contains("step large: no model \"large\""), "{error}");
    assert!(plant.inference.metadata("both", None).is_err());
    let refused = plant.repository.load("both").await.unwrap_err().to_string();
    assert!(refused.contains("both/1: step large: no model \"large\""), "{refused}");

    // It comes with its model, without being touched itself.
    model(plant.folder.path(), "large", "scale 10");
    plant.repository.load("large").await.unwrap();
    assert!(plant.view("both").serving);
    assert_eq!(plant.inference.metadata("both", None).unwrap().platform, "pipeline");
    assert_eq!(plant.numbers("both", &[[0.5, 0.3, 0.2]]).await, [5.0, 3.0, 2.0]);
    // And goes with it.
    plant.repository.unload("large").await.unwrap();
    let problem = plant.problem("both");
    assert_eq!(problem, "step large: model large/1 does not serve: it was unloaded");
    let error = plant.ask("both", &[[0.9, 0.1, 0.0]]).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "pipeline both/1: step large: model large/1 does not serve: it was unloaded",
        "before any step, also where the row would not have needed it"
    );
    plant.repository.load("large").await.unwrap();
    plant.runs();
    assert_eq!(plant.numbers("both", &[[0.5, 0.3, 0.2]]).await, [5.0, 3.0, 2.0]);
    plant.repository.unload("both").await.unwrap();
    assert!(plant.ask("both", &[[1.0; 3]]).await.is_err());
    plant.repository.load("both").await.unwrap();
    assert_eq!(plant.numbers("both", &[[0.9, 0.1, 0.0]]).await.len(), 3);
}

#[tokio::test]
async fn models_that_load_on_request_are_loaded_by_the_step_that_asks_them() {
    let folder = tempfile::tempdir().unwrap();
    let lazy = format!("{ROWS}{PLAIN}load = \"request\"\n");
    write(folder.path(), "lazy", 1, "scribe", "scale 2", &lazy);
    pipeline(folder.path(), "both", &(asks("first", "lazy", "x") + "[output]\np = \"first.p\"\n"));
    let plant = Plant::new(folder);
    assert_eq!((plant.view("lazy").state, plant.view("both").state), ("asleep", "serving"));
    assert_eq!(plant.numbers("both", &[[1.0, 2.0, 3.0]]).await, [2.0, 4.0, 6.0]);
    assert_eq!(plant.view("lazy").state, "serving");
}

#[tokio::test]
async fn pipelines_within_pipelines_work_and_circles_are_refused_with_the_way() {
    let over = |model: &str| asks("only", model, "x") + "[output]\np = \"only.p\"\n";
    let plant = Plant::with(
        &[("double", "scale 2")],
        // By name they are found in another order than they need each other.
        &[
            ("a", &over("b")),
            ("b", &over("double")),
            ("c", &over("d")),
            ("d", &over("e")),
            ("e", &over("c")),
            ("own", &over("own")),
        ],
    );
    let answer = plant.ask("a", &[[1.0, 2.0, 3.0]]).await.unwrap();
    assert_eq!(answer.outputs[0].tensor.to_numbers().unwrap(), [2.0, 4.0, 6.0]);
    let told: Vec<_> =
        answer.steps.iter().map(|report| (report.step.as_str(), report.model.as_deref().unwrap())).collect();
    assert_eq!(told, [("only", "b/1"), ("only.only", "double/1")]);
    assert!(plant.problem("own").contains("in a circle: own -> own"), "{}", plant.problem("own"));
    assert!(plant.problem("c").contains("in a circle: c -> d -> e -> c"), "{}", plant.problem("c"));
    assert!(plant.problem("d").contains("in a circle: d -> e -> c -> d"), "{}", plant.problem("d"));
    assert!(plant.ask("c", &[[1.0; 3]]).await.unwrap_err().to_string().contains("c -> d -> e -> c"));

    // A circle that comes later is one as well: nothing runs for ever.
    pipeline(plant.folder.path(), "b", &over("a"));
    let refused = plant.repository.load("b").await.unwrap_err().to_string();
    assert!(refused.contains("in a circle: b -> a -> b"), "{refused}");
    assert_eq!(plant.numbers("a", &[[1.0; 3]]).await, [2.0; 3], "what serves, serves on");
}

#[tokio::test]
async fn pipelines_are_nested_to_a_bound() {
    let over = |model: &str| asks("only", model, "x") + "[output]\np = \"only.p\"\n";
    let deep: Vec<(String, String)> = (0..6)
        .map(|at| (format!("p{at}"), over(&if at == 5 { "double".to_owned() } else { format!("p{}", at + 1) })))
        .collect();
    let deep: Vec<(&str, &str)> = deep.iter().map(|(name, steps)| (name.as_str(), steps.as_str())).collect();
    let plant = Plant::with(&[("double", "scale 2")], &deep);
    assert_eq!(plant.numbers("p2", &[[1.0; 3]]).await, [2.0; 3]);
    assert!(
        plant.problem("p0").contains("nested more than 4 deep: p0 -> p1 -> p2 -> p3 -> p4"),
        "{}",
        plant.problem("p0")
    );
}

#[tokio::test]
async fn what_cannot_fit_is_found_when_the_pipeline_is_loaded() {
    let plant = Plant::with(
        &[("double", "scale 2")],
        &[
            ("input", &asks("a", "double", "x").replace("{ x =", "{ y =").add("[output]\np = \"a.p\"\n")),
            ("output", &asks("a", "double", "x").add("[output]\np = \"a.q\"\n")),
            (
                "types",
                &asks("a", "double", "x")
                    .add("[[step]]\nname = \"b\"\nstep = \"argmax\"\ninput = \"a.p\"\n[output]\np = \"b\"\n"),
            ),
            ("torn", "[[step]\n"),
        ],
    );
    for (name, says) in [
        ("input", "step a: model double has no input \"y\"; it has x"),
        ("output", "output p: a gives no \"q\"; it gives p"),
        ("types", "output p: the manifest declares FP32 [-1, 3], the steps give INT64 of any shape"),
        ("torn", "file: line 1, column"),
    ] {
        let problem = plant.problem(name);
        assert!(problem.contains(says), "{name}: {problem}");
        assert!(matches!(plant.ask(name, &[[1.0; 3]]).await, Err(InferError::NotServing { .. })), "{name}");
    }
    // The next load of a model may not fit any more: the pipeline says so before it is asked.
    pipeline(plant.folder.path(), "fits", &asks("a", "double", "x").add("[output]\np = \"a.p\"\n"));
    plant.repository.load("fits").await.unwrap();
    let narrow = ROWS.replace("shape = [-1, 3]\n", "shape = [-1, 2]\n");
    write(plant.folder.path(), "double", 1, "scribe", "scale 2", &format!("{narrow}{PLAIN}"));
    plant.repository.load("double").await.unwrap();
    assert_eq!(plant.problem("fits"), "step a: input x of model double is FP32 [-1, 2], given FP32 [-1, 3]");
    let error = plant.ask("fits", &[[1.0; 3]]).await.unwrap_err();
    assert!(
        error.to_string().starts_with("pipeline fits/1, step a (model double): input x has shape [1, 3]"),
        "{error}"
    );
}

trait Add {
    fn add(&self, more: &str) -> String;
}

impl Add for str {
    fn add(&self, more: &str) -> String {
        format!("{self}{more}")
    }
}

#[tokio::test]
async fn wrong_and_hostile_requests_are_the_callers_error_with_both_figures() {
    let steps = "[limits]\ntensor_bytes_max = 100\nrequest_bytes_max = 300\n".to_owned()
        + &asks("a", "double", "x")
        + "[[step]]\nname = \"wide\"\nstep = \"concat\"\naxis = 1\ninput = [\"a.p\", \"x\", \"x\"]\n\
           [[step]]\nname = \"back\"\nstep = \"slice\"\naxis = 1\nto = 3\ninput = \"wide\"\n[output]\np = \"back\"\n";
    let plant = Plant::with(&[("double", "scale 2")], &[("both", &steps)]);
    assert_eq!(plant.numbers("both", &[[1.0; 3]]).await, [2.0; 3]);
    let x = |tensor: Tensor| NamedTensor { name: "x".to_owned(), tensor };
    let floats = |rows: usize| Tensor::new([rows, 3], vec![1.0_f32; rows * 3]).unwrap();
    let other = NamedTensor { name: "y".to_owned(), tensor: floats(1) };
    for (inputs, says) in [
        (vec![], "pipeline both/1: no input x; expected x"),
        (vec![x(floats(1)), other], "unknown or repeated input y"),
        (vec![x(floats(1)), x(floats(1))], "unknown or repeated input x"),
        (vec![x(Tensor::new([1, 3], vec![1_i64; 3]).unwrap())], "input x is INT64, expected FP32"),
        (vec![x(Tensor::new([3], vec![1.0_f32; 3]).unwrap())], "input x has shape [3], expected [-1, 3]"),
        (vec![x(Tensor::new([1, 3], vec![1.0, f32::NAN, 1.0]).unwrap())], "input x has NaN at element 1"),
        (vec![x(floats(9))], "input x has 108 bytes, the most is 100 (limits.tensor_bytes_max)"),
        (
            vec![x(floats(3))],
            "step wide: it would make FP32 [3, 9] of 108 bytes, the most is 100 (limits.tensor_bytes_max)",
        ),
    ] {
        let error = plant.inference.infer(Question { inputs, ..question("both", &[]) }).await.unwrap_err();
        assert!(matches!(error, InferError::Shape { .. }), "{says}: {error:?}");
        assert!(error.to_string().contains(says), "{says}: {error}");
    }
    let all = plant.folder.path().join("both/1/file");
    let wide = std::fs::read_to_string(&all).unwrap().replace("request_bytes_max = 300", "request_bytes_max = 90");
    pipeline(plant.folder.path(), "both", &wide);
    plant.repository.load("both").await.unwrap();
    let error = plant.ask("both", &[[1.0; 3], [1.0; 3]]).await.unwrap_err().to_string();
    assert!(error.contains("step wide: the tensors of the request have 120 bytes, the most is 90"), "{error}");
    // An empty batch is asked of nobody.
    plant.runs();
    let none = plant.ask("both", &[]).await.unwrap();
    assert_eq!((none.outputs[0].tensor.shape(), plant.runs()), (&[0, 3][..], vec![]));
    let unknown =
        Question { outputs: vec![Wanted { name: "q".to_owned(), classes: None }], ..question("both", &[[1.0; 3]]) };
    assert!(
        plant
            .inference
            .infer(unknown)
            .await
            .unwrap_err()
            .to_string()
            .contains("the model has no output \"q\"; it has p")
    );
}

#[tokio::test]
async fn golden_samples_decide_whether_a_pipeline_serves() {
    let folder = tempfile::tempdir().unwrap();
    model(folder.path(), "small", "scale 1");
    model(folder.path(), "large", "scale 10");
    let golden = |p: &str| format!("{ROWS}[[golden]]\ninput = [0.9, 0.1, 0, 0.5, 0.3, 0.2]\np = {p}\n");
    write(folder.path(), "right", 1, "pipeline", CASCADE, &golden("[0.9, 0.1, 0, 5, 3, 2]"));
    write(folder.path(), "wrong", 1, "pipeline", CASCADE, &golden("[0.9, 0.1, 0, 5, 3, 2.5]"));
    write(
        folder.path(),
        "early",
        1,
        "pipeline",
        &CASCADE.replace("model = \"large\"", "model = \"later\""),
        &golden("[0.9, 0.1, 0, 5, 3, 2.5]"),
    );
    let plant = Plant::new(folder);
    assert!(plant.view("right").serving);
    let problem = plant.problem("wrong");
    assert!(
        problem.contains("sample 1 has, so it must not serve: output p, element 5: expected 2.5, given 2"),
        "{problem}"
    );
    let counts = &plant.inference.served(Some("right"), None).unwrap()[0];
    assert_eq!((counts.counts.inferences, counts.steps[0].counts.success.count), (0, 0), "samples are no service");
    // One whose models come later shows its samples then.
    assert!(plant.problem("early").contains("no model \"later\""));
    model(plant.folder.path(), "later", "scale 10");
    plant.repository.load("later").await.unwrap();
    assert!(plant.ask("early", &[[0.9, 0.1, 0.0]]).await.is_err());
    assert!(plant.problem("early").contains("must not serve"), "{}", plant.problem("early"));
}

#[tokio::test]
async fn a_model_of_single_rows_is_asked_about_each_and_the_answers_are_put_together() {
    let folder = tempfile::tempdir().unwrap();
    let single = ROWS.replace("[-1, 3]", "[1, 3]");
    write(folder.path(), "one", 1, "scribe", "scale 2", &format!("{single}{PLAIN}"));
    let each = asks("a", "one", "x").add("each = true\n[output]\np = \"a.p\"\n");
    pipeline(folder.path(), "many", &each);
    let plant = Plant::new(folder);
    let rows: Vec<[f32; 3]> = (0..20_u8).map(|at| [f32::from(at), 0.0, 1.0]).collect();
    let expected: Vec<f64> = rows.iter().flatten().map(|x| f64::from(x * 2.0)).collect();
    assert_eq!(plant.numbers("many", &rows).await, expected);
    assert_eq!(plant.runs(), vec![("one/1".to_owned(), vec![1, 3]); 20]);
    assert_eq!(plant.ask("many", &[]).await.unwrap().outputs[0].tensor.shape(), [0, 3]);
}

#[tokio::test]
async fn many_requests_at_once_get_each_its_own_answer() {
    let plant = Plant::with(&[("small", "scale 1"), ("large", "scale 10")], &[("both", CASCADE)]);
    let rows: Vec<[f32; 3]> = (0..64_u8).map(|at| [f32::from(at) / 64.0, 0.1, 0.1]).collect();
    let asked = rows.iter().map(|row| plant.numbers("both", std::slice::from_ref(row)));
    let answers = futures_util::future::join_all(asked).await;
    for (row, answer) in rows.iter().zip(answers) {
        let factor = if row[0] >= 0.8 { 1.0 } else { 10.0 };
        assert_eq!(answer, row.map(|x| f64::from(x * factor)), "{row:?}");
    }
}

async fn gateway(folder: &Path, engines: Vec<Arc<dyn Engine>>) -> Gateway {
    Setup { models: Some(folder.to_owned()), engines, streams: &[], ..Setup::default() }.start().await
}

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

#[tokio::test]
async fn over_http_it_is_one_model_and_its_steps_are_told_on_request() {
    let folder = tempfile::tempdir().unwrap();
    model(folder.path(), "small", "scale 1");
    model(folder.path(), "large", "scale 10");
    pipeline(folder.path(), "both", CASCADE);
    let gateway = gateway(folder.path(), vec![Arc::new(Scribe::default())]).await;
    let metadata = gateway.get("/v2/models/both").await.json();
    assert_eq!((&metadata["platform"], &metadata["inputs"][0]["shape"]), (&json!("pipeline"), &json!([-1, 3])));
    let config = gateway.get("/v2/models/both/config").await.json();
    assert_eq!(
        config["ensemble_scheduling"]["step"],
        json!([
            {"model_name": "small", "model_version": -1, "input_map": {"x": "x"}, "output_map": {"p": "small.p"}},
            {"model_name": "large", "model_version": -1, "input_map": {"x": "x"}, "output_map": {"p": "large.p"}},
        ])
    );
    let input = json!([{"name": "x", "shape": [2, 3], "datatype": "FP32", "data": [0.9, 0.1, 0, 0.5, 0.3, 0.2]}]);
    let post =
        async |body: Value| gateway.post("/v2/models/both/infer", JSON, body.to_string().as_bytes()).await.json();
    let plain = post(json!({"inputs": input})).await;
    assert_eq!(plain["outputs"][0]["shape"], json!([2, 3]));
    assert!(plain.get("parameters").is_none(), "{plain}");
    let told = post(json!({"inputs": input, "parameters": {"forebay_steps": true}})).await;
    let steps = told["parameters"]["forebay_steps"].as_array().unwrap();
    assert_eq!((&steps[2]["step"], &steps[2]["rows"], &steps[2]["of_rows"]), (&json!("large"), &json!(1), &json!(2)));
    assert_eq!((&steps[2]["model"], &steps[2]["engine"]), (&json!("large/1"), &json!("scribe")));
    let classes = json!({"inputs": input, "outputs": [{"name": "p", "parameters": {"classification": 1}}]});
    assert_eq!(post(classes).await["outputs"][0]["data"], json!(["0.900000:0", "5.000000:0"]));
    let stats = gateway.get("/v2/models/both/stats").await.json();
    let stats = &stats["model_stats"][0];
    assert_eq!((&stats["inference_count"], &stats["pipeline_steps"][2]["rows"]), (&json!(6), &json!(3)), "{stats}");
    let metrics = gateway.get("/metrics").await.text();
    for line in [
        "forebay_pipeline_step_runs_total{pipeline=\"both\",version=\"1\",step=\"doubt\"} 3",
        "forebay_pipeline_step_rows_total{pipeline=\"both\",version=\"1\",step=\"large\"} 3",
        "forebay_pipeline_step_considered_rows_total{pipeline=\"both\",version=\"1\",step=\"large\"} 6",
        "forebay_pipeline_step_seconds_total{pipeline=\"both\",version=\"1\",step=\"small\"}",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn over_http_readiness_says_which_model_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    model(folder.path(), "small", "scale 1");
    pipeline(folder.path(), "both", CASCADE);
    let gateway = gateway(folder.path(), vec![Arc::new(Scribe::default())]).await;
    let ready = gateway.get("/v2/models/both/ready").await;
    assert_eq!(ready.status, 503);
    assert!(ready.json()["reason"].as_str().unwrap().contains("step large: no model \"large\""), "{}", ready.text());
    let index = gateway.post("/v2/repository/index", &[], b"").await.json();
    let entry = index.as_array().unwrap().iter().find(|entry| entry["name"] == "both").unwrap();
    assert_eq!((&entry["state"], entry["reason"].as_str().unwrap().contains("large")), (&json!("UNAVAILABLE"), true));
    assert_eq!(gateway.get("/v2/models/small/ready").await.status, 200);
}

fn bundled() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models")
}

/// The golden samples of the bundled digits model: 3 and 5, as 8 x 8 shares of ink.
fn two_digits() -> Vec<Vec<f32>> {
    let text = std::fs::read_to_string(bundled().join("digits/1/manifest.toml")).unwrap();
    let manifest = catalog::Manifest::parse(&text).unwrap();
    let pixels = |golden: &catalog::Golden| match &golden.inputs["X"] {
        catalog::GoldenValue::Numbers(values) => values.as_slice().iter().map(|&x| x as f32).collect(),
        other => panic!("{other:?}"),
    };
    manifest.golden.iter().map(pixels).collect()
}

const READ: &str = "\
[[step]]
name = \"crops\"
step = \"crop\"
input = { image = \"page\", boxes = \"boxes\" }
width = 8
height = 8

[[step]]
name = \"rows\"
step = \"reshape\"
input = \"crops\"
shape = [-1, 64]

[[step]]
name = \"digits\"
model = \"digits\"
input = { X = \"rows\" }

[output]
probabilities = \"digits.probabilities\"
label = \"digits.label\"
";

#[tokio::test]
async fn parts_of_an_image_are_classified_as_single_calls_classify_them() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (bundled().join("digits/1"), folder.path().join("digits/1"));
    std::fs::create_dir_all(&to).unwrap();
    for file in ["manifest.toml", "model.onnx"] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
    let ports = "[[input]]\nname = \"page\"\ndatatype = \"FP32\"\nshape = [1, 1, -1, -1]\n\
                 [[input]]\nname = \"boxes\"\ndatatype = \"FP32\"\nshape = [-1, 4]\n\
                 [[output]]\nname = \"probabilities\"\ndatatype = \"FP32\"\nshape = [-1, 10]\n\
                 [[output]]\nname = \"label\"\ndatatype = \"INT64\"\nshape = [-1]\n";
    write(folder.path(), "page", 1, "pipeline", READ, ports);
    let gateway = gateway(folder.path(), engine::built_in()).await;
    // Each digit eight times as large, side by side with eight columns between them.
    let digits = two_digits();
    let (width, height) = (136, 64);
    let mut page = vec![0.0_f32; width * height];
    for (place, digit) in digits.iter().enumerate() {
        for y in 0..64 {
            for x in 0..64 {
                page[y * width + place * 72 + x] = digit[y / 8 * 8 + x / 8];
            }
        }
    }
    let boxes = [72.0, 0.0, 136.0, 64.0, 0.0, 0.0, 64.0, 64.0];
    let asked = json!({"inputs": [
        {"name": "page", "shape": [1, 1, height, width], "datatype": "FP32", "data": page},
        {"name": "boxes", "shape": [2, 4], "datatype": "FP32", "data": boxes},
    ]});
    let post = async |model: &str, body: Value| {
        let path = format!("/v2/models/{model}/infer");
        let answer = gateway.post(&path, JSON, body.to_string().as_bytes()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    let answer = post("page", asked).await;
    assert_eq!(answer["outputs"][1]["data"], json!([5, 3]), "{answer}");
    // The same by hand: each digit by itself.
    let mut by_hand = Vec::new();
    for digit in [&digits[1], &digits[0]] {
        let asked = json!({"inputs": [{"name": "X", "shape": [1, 64], "datatype": "FP32", "data": digit}],
                           "outputs": [{"name": "probabilities"}]});
        by_hand.extend(post("digits", asked).await["outputs"][0]["data"].as_array().unwrap().clone());
    }
    let given = answer["outputs"][0]["data"].as_array().unwrap();
    assert_eq!(given.len(), 20);
    for (given, expected) in given.iter().zip(&by_hand) {
        let (given, expected) = (given.as_f64().unwrap(), expected.as_f64().unwrap());
        assert!((given - expected).abs() < 1e-6, "{given} {expected}");
    }
    // No parts: the model is not asked, and the answer has no rows.
    let none = json!({"inputs": [
        {"name": "page", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": vec![0.0; 64]},
        {"name": "boxes", "shape": [0, 4], "datatype": "FP32", "data": []},
    ], "parameters": {"forebay_steps": true}});
    let none = post("page", none).await;
    assert_eq!((&none["outputs"][0]["shape"], &none["outputs"][1]["datatype"]), (&json!([0, 10]), &json!("INT64")));
    assert_eq!(none["parameters"]["forebay_steps"][2]["rows"], 0, "{none}");
}

#[test]
fn a_step_report_leaves_out_what_there_is_not() {
    let report = StepReport { step: "doubt".to_owned(), does: "unsure", us: 3, ..StepReport::default() };
    assert_eq!(
        serde_json::to_value(&report).unwrap(),
        json!({"step": "doubt", "does": "unsure", "us": 3, "waited_us": 0})
    );
}

#[cfg(feature = "image")]
#[tokio::test]
async fn the_digits_of_a_page_are_found_and_read_as_the_documentation_says() {
    let gateway = gateway(&bundled(), engine::built_in()).await;
    let root = bundled().parent().unwrap().to_owned();
    let page = std::fs::read_to_string(root.join("docs/pipelines.md")).unwrap();
    let command = page.lines().find(|line| line.starts_with("curl ")).unwrap();
    let command = command.replace("127.0.0.1:8080", &gateway.address.to_string());
    let asked = tokio::task::spawn_blocking(move || {
        std::process::Command::new("bash").args(["-c", &command]).current_dir(root).output().unwrap()
    });
    let said: Value = serde_json::from_slice(&asked.await.unwrap().stdout).unwrap();
    let labels = &said["predictions"][0]["digits"]["labels"];
    assert_eq!(labels, &json!(["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]), "{said}");
    assert_eq!(said["predictions"][0]["boxes"]["shape"], json!([10, 4]));
    let steps = said["timing"]["pipeline"].as_array().unwrap();
    let told: Vec<_> = steps.iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!((told, &steps[3]["rows"]), (vec!["find", "cut", "rows", "read"], &json!(10)), "{said}");
}

#[test]
fn forebay_says_what_keeps_a_pipeline_from_serving_before_it_is_put_to_work() {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("models");
    model(&models, "small", "scale 1");
    pipeline(&models, "both", &CASCADE.replace("\"large\"\ninput", "\"smell\"\ninput"));
    pipeline(&models, "loop", &asks("only", "loop", "x").add("[output]\np = \"only.p\"\n"));
    pipeline(&models, "torn", &asks("only", "small", "y").add("[output]\np = \"only.p\"\n"));
    let config = folder.path().join("forebay.toml");
    let text = format!(
        "[gateway]\nname = \"t\"\n[catalog]\nfolder = {:?}\n[access]\nallow_anonymous_loopback = true\n",
        models
    );
    std::fs::write(&config, text).unwrap();
    let (_, stdout, _) = forebay_says(&["check", "--config", config.to_str().unwrap()]);
    for says in [
        "step large: no usable model smell; the pipeline waits for it",
        "did you mean `small`?",
        "pipelines ask each other in a circle: loop -> loop",
        "step only: \"y\" is neither an input of the pipeline (x) nor a step (only)",
    ] {
        assert!(stdout.contains(says), "{says}: {stdout}");
    }
    let (_, stdout, _) = forebay_says(&["model", "show", "both", "--models", models.to_str().unwrap()]);
    assert!(stdout.contains("step       large: model smell of x, only rows of doubt"), "{stdout}");
}
