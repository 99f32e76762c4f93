//! A pipeline becomes a model that serves: its file read, its models looked at, its golden samples computed by them.
//!
//! A pipeline depends on models that come and go. What is wrong with its file is final; what is wrong with its models is
//! looked at again whenever somebody wants to know whether it is ready, and its load is tried again by the next request.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::backend::{Backend, Outputs};
use super::fault::translate;
use super::inference::{InferError, Inferred, Question, answer, picks};
use super::load_spec::{fill, load_spec};
use super::models::{Loaded, Models, Refusal, chain};
use super::pipeline::{Members, Pipeline};
use super::predict::Predictor;
use super::slot::Slot;
use crate::catalog::{self, LoadWhen, Manifest, Model};
use crate::engine::{self, Sample, Terms};
use crate::pipeline::{FILE_BYTES_MAX, Graph, Member, Port};

/// The word for pipelines in `format` of a manifest.
const FORMAT: &str = "pipeline";
/// Pipelines within pipelines.
const NESTING_MAX: usize = 4;
/// A golden sample that takes longer is no answer.
const SAMPLE_TIME: Duration = Duration::from_secs(60);

/// The graph of a version that is a pipeline, or what is wrong with it; None for any other model. Reads the disk: not for an
/// async thread.
pub fn graph_of(model: &Model) -> Option<Result<Arc<Graph>, String>> {
    (model.manifest.model.format == FORMAT).then(|| read(model).map(Arc::new))
}

fn read(model: &Model) -> Result<Graph, String> {
    let manifest = &model.manifest;
    let file = &manifest.model.file;
    if manifest.inputs.is_empty() || manifest.outputs.is_empty() {
        return Err("a pipeline's manifest declares its [[input]] and [[output]]".to_owned());
    }
    if model.size_bytes > FILE_BYTES_MAX as u64 {
        return Err(format!("{file} has {} bytes, a pipeline's has at most {FILE_BYTES_MAX}", model.size_bytes));
    }
    let bytes = model.read().map_err(|error| chain(&error))?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|error| format!("{file} is not UTF-8 from byte {} on", error.valid_up_to()))?;
    Graph::parse(text, &ports(&manifest.inputs), &ports(&manifest.outputs)).map_err(|error| format!("{file}: {error}"))
}

fn ports(ports: &[catalog::Port]) -> Vec<Port> {
    let port =
        |port: &catalog::Port| Port { name: port.name.clone(), datatype: port.datatype, shape: port.shape.clone() };
    ports.iter().map(port).collect()
}

/// What a model takes and gives, as far as its manifest says it.
pub fn signature_of(manifest: &Manifest) -> Option<(Vec<Port>, Vec<Port>)> {
    let is_known = !manifest.inputs.is_empty() && !manifest.outputs.is_empty();
    is_known.then(|| (ports(&manifest.inputs), ports(&manifest.outputs)))
}

impl Models {
    /// Why a pipeline cannot answer now, if that is so; None for any other model.
    pub(super) fn pipeline_problem(&self, slot: &Slot) -> Option<String> {
        let graph = match slot.graph.as_ref()? {
            Ok(graph) => graph,
            Err(reason) => return Some(reason.clone()),
        };
        self.missing(slot.model.manifest.model.name.as_str(), graph).or_else(|| {
            let checked = graph.check(&|member: &Member| self.signature(member));
            checked.err().map(|error| error.to_string())
        })
    }

    /// Which of a pipeline's models does not serve, if one does not, and of theirs. Pipelines that lead back to themselves are
    /// told with the way: names decide, as the newest version may be another tomorrow.
    pub(super) fn missing(&self, name: &str, graph: &Graph) -> Option<String> {
        self.missing_along(&mut vec![name.to_owned()], &mut BTreeSet::new(), graph)
    }

    fn missing_along(&self, path: &mut Vec<String>, sound: &mut BTreeSet<String>, graph: &Graph) -> Option<String> {
        for (step, member) in graph.members() {
            let told = |what: String| Some(format!("step {}: {what}", step.name));
            let name = member.name().to_owned();
            if let Some(at) = path.iter().position(|above| *above == name) {
                let way = path[at..].join(" -> ");
                return told(format!("pipelines ask each other in a circle: {way} -> {name}"));
            }
            let found = match self.find(&member.model, member.version) {
                Ok(found) => found,
                Err(error) => return told(error.to_string()),
            };
            if let Some(reason) = found.problem() {
                return told(found.refusal(&reason).to_string());
            }
            let title = found.title();
            match &found.graph {
                None => {}
                Some(Err(reason)) => return told(found.refusal(reason).to_string()),
                Some(Ok(_)) if path.len() >= NESTING_MAX => {
                    let way = path.join(" -> ");
                    return told(format!("pipelines are nested more than {NESTING_MAX} deep: {way} -> {name}"));
                }
                Some(Ok(_)) if sound.contains(&title) => {}
                Some(Ok(inner)) => {
                    path.push(name);
                    let problem = self.missing_along(path, sound, inner);
                    path.pop();
                    if let Some(problem) = problem {
                        return told(found.refusal(&problem).to_string());
                    }
                    sound.insert(title);
                }
            }
        }
        None
    }

    fn signature(&self, member: &Member) -> Option<(Vec<Port>, Vec<Port>)> {
        let slot = self.find(&member.model, member.version).ok()?;
        match slot.loaded() {
            Some(loaded) => signature_of(&loaded.manifest),
            None => signature_of(&slot.model.manifest),
        }
    }

    /// Loads a version that is a pipeline. Models that it asks are loaded first where they have not been. Takes as long as they
    /// need: not for an async thread.
    pub(super) fn load_pipeline(&self, slot: &Slot) -> Result<Arc<Loaded>, Refusal> {
        let refused = |reason: String| Refusal { reason, no_room: false, may_pass: false };
        let not_yet = |reason: String| Refusal { reason, no_room: false, may_pass: true };
        let model = &*slot.model;
        let graph = match &slot.graph {
            Some(Ok(graph)) => Arc::clone(graph),
            Some(Err(reason)) => return Err(refused(reason.clone())),
            None => return Err(refused("it is no pipeline".to_owned())),
        };
        if let Some(problem) = self.missing(model.manifest.model.name.as_str(), &graph) {
            return Err(not_yet(problem));
        }
        let spec = load_spec(model).map_err(|error| refused(chain(&error)))?;
        self.wake(&graph, !spec.samples.is_empty());
        if let Some(problem) = self.pipeline_problem(slot) {
            return Err(not_yet(problem));
        }
        let mut manifest = model.manifest.clone();
        fill(&mut manifest, &spec.inputs, &spec.outputs);
        let predictor = Predictor::of(model, &manifest).map_err(refused)?;
        let pipeline = Arc::new(Pipeline::new(slot.title(), graph));
        for (at, sample) in spec.samples.iter().enumerate() {
            let outputs = self.sampled(&pipeline, sample);
            let outputs = outputs.map_err(|error| not_yet(format!("golden sample {}: {error}", at + 1)))?;
            let judged = sample.agrees(&pipeline.title, super::pipeline::ENGINE, at + 1, &outputs.tensors);
            judged.map_err(|error| refused(chain(&error)))?;
        }
        // What the samples did is no service.
        let pipeline = Arc::new(Pipeline::new(slot.title(), Arc::clone(&pipeline.graph)));
        let (handle, tally, conduct) =
            (Backend::Pipeline(pipeline), Arc::clone(&slot.tally), Arc::clone(&slot.conduct));
        let request_rows_max = slot.request_rows_max;
        Ok(Arc::new(Loaded { manifest, handle, tally, conduct, predictor, request_rows_max }))
    }

    /// Loads the models that nobody has loaded yet: those that load with the gateway, and all where samples are to be computed.
    fn wake(&self, graph: &Graph, all: bool) {
        for (_, member) in graph.members() {
            let Ok(slot) = self.find(&member.model, member.version) else { continue };
            if (all || slot.how.load == LoadWhen::Start) && slot.begins_loading() {
                self.load_now(&slot);
            }
        }
    }

    /// Computes a sample with the models as they are. On a thread with a runtime of its own: whoever loads models has none, or
    /// one that must not be blocked.
    fn sampled(&self, pipeline: &Pipeline, sample: &Sample) -> Result<Outputs, InferError> {
        let failed = |detail: String| InferError::Failed { detail };
        let terms = Terms { timeout: Some(SAMPLE_TIME), ..Terms::default() };
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
                let runtime = runtime.map_err(|error| failed(format!("failed to start a runtime: {error}")))?;
                runtime.block_on(self.composer().run(pipeline, &Direct(self), sample.inputs.clone(), terms))
            });
            thread.join().unwrap_or_else(|_| Err(failed("a step panicked".to_owned())))
        })
    }
}

/// Asks models as they are loaded, without counting.
struct Direct<'a>(&'a Models);

impl Members for Direct<'_> {
    fn ask(&self, question: Question) -> BoxFuture<'_, Result<Inferred, InferError>> {
        async move {
            let loaded = self.0.serving(&question.model, question.version)?;
            let picks = picks(&loaded, &question.outputs)?;
            let inputs = question.inputs.into_iter();
            let inputs = inputs.map(|input| engine::NamedTensor::new(input.name, input.tensor)).collect();
            let terms = Terms { timeout: Some(question.deadline), priority: question.priority };
            let outputs = self.0.compute(&loaded, inputs, terms).await?;
            answer(&loaded, &outputs, &picks, None)
        }
        .boxed()
    }

    fn gives(&self, member: &Member) -> Result<Vec<Port>, InferError> {
        self.0.gives(member)
    }
}

impl Models {
    /// Asks a loaded model without counting; a pipeline asks its models in the same way.
    pub(super) async fn compute(
        &self,
        loaded: &Loaded,
        inputs: Vec<engine::NamedTensor>,
        terms: Terms,
    ) -> Result<Outputs, InferError> {
        match &loaded.handle {
            Backend::Engine(handle) => {
                let outputs = handle.infer_on(inputs, terms).await;
                outputs.map(Outputs::from).map_err(|error| translate(&error))
            }
            Backend::Pipeline(inner) => self.composer().run(inner, &Direct(self), inputs, terms).await,
        }
    }

    /// What a model gives, loaded or not.
    pub(super) fn gives(&self, member: &Member) -> Result<Vec<Port>, InferError> {
        let slot = self.known(&member.model, member.version)?;
        let loaded = slot.loaded();
        let manifest = loaded.as_ref().map_or(&slot.model.manifest, |loaded| &loaded.manifest);
        if manifest.outputs.is_empty() {
            let reason = format!("{} is not loaded, and its manifest does not say what it gives", slot.title());
            return Err(InferError::NotServing { reason });
        }
        Ok(ports(&manifest.outputs))
    }
}
