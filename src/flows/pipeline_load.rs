//! A pipeline becomes a model that serves: its file read, its models looked at, its golden samples computed by them.
//!
//! A pipeline depends on models that come and go. What is wrong with its file is final; what is wrong with its models is
//! looked at again whenever somebody wants to know whether it is ready, and its load is tried again by the next request.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::backend::{Backend, Outputs};
use super::fault::translate;
use super::inference::{InferError, Inferred, Question, answer, picks};
use super::load_spec::{fill, load_spec};
use super::model_load::Refusal;
use super::models::{Loaded, Models, chain};
use super::pipeline::{Members, Pipeline};
use super::predict::Predictor;
use super::slot::Slot;
use super::speech::Speech;
use crate::catalog::{self, LoadWhen, Manifest, Model};
use crate::engine::{self, Sample, Terms};
use crate::pipeline::{FILE_BYTES_MAX, Graph, Member, Port};

/// The word for pipelines in `format` of a manifest.
const FORMAT: &str = "pipeline";
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

pub(super) fn ports(ports: &[catalog::Port]) -> Vec<Port> {
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
        if let Some(problem) = self.pipeline_hurdle(slot) {
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
        let speech = Speech::none(&slot.model);
        Ok(Arc::new(Loaded { manifest, handle, tally, conduct, predictor, request_rows_max, speech }))
    }

    /// Loads the models that nobody has loaded yet: those that load with the gateway, and all where samples are to be computed.
    fn wake(&self, graph: &Graph, all: bool) {
        for (_, member) in graph.members() {
            let Ok(slot) = self.standing(&member.model, member.version) else { continue };
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
            let slot = self.0.standing(&question.model, question.version)?;
            let loaded = self.0.serving_in(&slot)?;
            self.0.ask_quietly(&loaded, self, question).await
        }
        .boxed()
    }

    fn gives(&self, member: &Member) -> Result<Vec<Port>, InferError> {
        self.0.gives(member).map_err(|reason| InferError::NotServing { reason })
    }
}

impl Models {
    /// Runs the steps of a pipeline of this name, whose models `members` ask.
    pub(super) async fn compose(
        &self,
        name: &str,
        pipeline: &Pipeline,
        members: &dyn Members,
        inputs: Vec<engine::NamedTensor>,
        terms: Terms,
    ) -> Result<Outputs, InferError> {
        // Before any step: a request that cannot be answered, or would never end, costs nobody anything.
        if let Some(problem) = self.missing(name, &pipeline.graph) {
            return Err(InferError::NotServing { reason: format!("pipeline {}: {problem}", pipeline.title) });
        }
        self.composer().run(pipeline, members, inputs, terms).await
    }

    /// Computes without counting: neither the model's figures nor those of its steps.
    pub(super) async fn compute_quietly(
        &self,
        loaded: &Loaded,
        members: &dyn Members,
        inputs: Vec<engine::NamedTensor>,
        terms: Terms,
    ) -> Result<Outputs, InferError> {
        match &loaded.handle {
            Backend::Engine(handle) => {
                let ran = members.queue_of(handle).infer_on(inputs, terms).await;
                ran.map(Outputs::from).map_err(|error| translate(&error))
            }
            Backend::Pipeline(inner) => {
                let uncounted = Pipeline::new(inner.title.clone(), Arc::clone(&inner.graph));
                self.compose(loaded.manifest.model.name.as_str(), &uncounted, members, inputs, terms).await
            }
        }
    }

    /// Answers without counting.
    pub(super) async fn ask_quietly(
        &self,
        loaded: &Loaded,
        members: &dyn Members,
        question: Question,
    ) -> Result<Inferred, InferError> {
        let picks = picks(loaded, &question.outputs)?;
        let inputs = question.inputs.into_iter();
        let inputs = inputs.map(|input| engine::NamedTensor::new(input.name, input.tensor)).collect();
        let terms = Terms { timeout: Some(question.deadline), priority: question.priority };
        let outputs = self.compute_quietly(loaded, members, inputs, terms).await?;
        answer(loaded, &outputs, &picks, None)
    }
}
