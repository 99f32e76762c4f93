//! Inference for apps: tensors in, tensors out, from the models of this box.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};
use tokio_util::sync::CancellationToken;

use super::backend::Outputs;
use super::classify::classify;
pub use super::key::{Bearings, Header, Key};
use super::models::{Loaded, Models, NotServing};
use super::pipeline::Members;
use super::pipeline_tally::{StepReport, StepServed};
use super::shadow::Shadows;
use super::slot::Slot;
use super::tally::Counts;
use super::trace::Traces;
use super::way::{Turn, Way};
use crate::base::{Clock, Datatype, Tensor};
use crate::pipeline::{Graph, Member, Port, Source, Step};
use crate::{catalog, engine};

/// More elements than so many are not searched for the largest on a thread that serves others meanwhile.
const CLASSIFY_INLINE_MAX: usize = 16 * 1024;

/// A tensor with its name.
#[derive(Debug, Clone)]
pub struct NamedTensor {
    /// The model's name for it.
    pub name: String,
    /// Shape and elements.
    pub tensor: Tensor,
}

/// An output that the caller wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The model's name for it.
    pub name: String,
    /// So many of its largest elements, as texts, in place of all of them.
    pub classes: Option<usize>,
}

/// What a caller asks.
#[derive(Debug, Clone)]
pub struct Question {
    /// The model.
    pub model: String,
    /// None: the newest that serves.
    pub version: Option<u32>,
    /// Its inputs, in any order.
    pub inputs: Vec<NamedTensor>,
    /// The outputs in this order; none: all of them in the model's.
    pub outputs: Vec<Wanted>,
    /// How long the caller waits.
    pub deadline: Duration,
    /// 1 is computed first, 9 last; 0 is 5.
    pub priority: u64,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Inferred {
    /// The model.
    pub model: String,
    /// The version that answered.
    pub version: u32,
    /// What computed it.
    pub engine: String,
    /// Why it was not the version, or the delegate, that should have.
    pub fallback: Option<Arc<str>>,
    /// Time in the engine, waiting not included.
    pub duration_us: u64,
    /// Outputs in the manifest's order, or in the caller's.
    pub outputs: Vec<NamedTensor>,
    /// What each step of a pipeline did; none for a model that is none.
    pub steps: Vec<StepReport>,
}

/// One input or output of a model.
#[derive(Debug, Clone)]
pub struct TensorMetadata {
    /// Name.
    pub name: String,
    /// Element type.
    pub datatype: Datatype,
    /// Dimensions; -1 is any size.
    pub shape: Vec<i64>,
}

/// A model as the protocol describes it.
#[derive(Debug, Clone)]
pub struct ModelMetadata {
    /// Name.
    pub name: String,
    /// Versions on this box, ascending.
    pub versions: Vec<u32>,
    /// Format of the version that was asked for.
    pub platform: String,
    /// What computes it.
    pub engine: String,
    /// The model file's name in its folder.
    pub file: String,
    /// Its inputs.
    pub inputs: Vec<TensorMetadata>,
    /// Its outputs.
    pub outputs: Vec<TensorMetadata>,
    /// How its requests are computed together; None, if they are not.
    pub batching: Option<DynamicBatching>,
    /// Rows that one request may have; 0 is any number.
    pub request_rows_max: u32,
    /// The models that a pipeline asks; none for a model that is none.
    pub composing: Vec<Composing>,
}

/// A step of a pipeline that asks a model.
#[derive(Debug, Clone)]
pub struct Composing {
    /// The model, as the pipeline names it.
    pub model: String,
    /// None: whatever answers a request that names none.
    pub version: Option<u32>,
    /// The model's input, and the tensor that fills it: an input of the pipeline, or `step.output`.
    pub inputs: Vec<(String, String)>,
    /// The model's output, and the tensor that it becomes.
    pub outputs: Vec<(String, String)>,
}

/// How requests that wait are computed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DynamicBatching {
    /// Rows of all of them.
    pub rows_max: usize,
    /// How long one waits for others, in microseconds.
    pub delay_us: u64,
}

/// What one version served since it was loaded.
#[derive(Debug, Clone)]
pub struct Served {
    /// Name.
    pub model: String,
    /// Version.
    pub version: u32,
    /// The figures.
    pub counts: Counts,
    /// Those of a pipeline's steps, while it is loaded.
    pub steps: Vec<StepServed>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum InferError {
    /// No such model or version. In Triton's words, which its clients' programs look for.
    #[error("Request for unknown model: {0:?} is not found; POST /v2/repository/index lists what is there")]
    NoModel(String),
    /// Neither a version nor an alias.
    #[error("{0}")]
    NoVersion(String),
    /// It is there and does not serve.
    #[error("{reason}")]
    NotServing {
        /// Why.
        reason: String,
    },
    /// The inputs are not what the model takes, or it has no such output.
    #[error("{detail}")]
    Shape {
        /// Which input, expected and given.
        detail: String,
    },
    /// The engine's queue is full.
    #[error("{detail}")]
    Busy {
        /// The figures.
        detail: String,
    },
    /// Not done in time.
    #[error("{detail}")]
    Deadline {
        /// The figures.
        detail: String,
    },
    /// The engine could not compute it.
    #[error("failed to run the model: {detail}")]
    Failed {
        /// What the engine said.
        detail: String,
    },
}

impl From<NotServing> for InferError {
    fn from(error: NotServing) -> Self {
        match error {
            NotServing::Unknown(name) => Self::NoModel(name),
            refused @ NotServing::Refused { .. } => Self::NotServing { reason: refused.to_string() },
            busy @ NotServing::Busy { .. } => Self::Busy { detail: busy.to_string() },
            loading @ NotServing::Loading { .. } => Self::Deadline { detail: loading.to_string() },
        }
    }
}

/// The story of one inference.
pub struct Inference {
    pub(super) models: Arc<Models>,
    pub(super) clock: Arc<dyn Clock>,
    chance: Mutex<StdRng>,
    pub(super) shadows: Shadows,
    pub(super) traces: Traces,
}

impl Inference {
    /// Over these models. What is left to chance comes out the same every time, unless [`seeded`](Self::seeded).
    pub fn new(models: Arc<Models>, clock: Arc<dyn Clock>) -> Self {
        let (chance, shadows) = (Mutex::new(StdRng::seed_from_u64(0)), Shadows::new());
        Self { models, clock, chance, shadows, traces: Traces::default() }
    }

    /// The same with other chances.
    #[must_use]
    pub fn seeded(self, chance: StdRng) -> Self {
        Self { chance: Mutex::new(chance), ..self }
    }

    pub(super) fn chance(&self) -> MutexGuard<'_, StdRng> {
        // A generator does not panic halfway.
        self.chance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is traced, and the traces.
    pub fn traces(&self) -> &Traces {
        &self.traces
    }

    /// Computes copies of requests for versions that are tried out, until `stop`.
    pub async fn shadow(self: Arc<Self>, stop: CancellationToken) {
        self.shadows.run(&self.models, stop).await;
    }

    /// The version that a text means: its number, or an alias of the model.
    pub fn version(&self, model: &str, text: &str) -> Result<u32, InferError> {
        self.models.version_of(model, text).map_err(|_| {
            let known = self.models.aliases(model).unwrap_or_default();
            let known = known.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let known = if known.is_empty() { String::new() } else { format!("; the aliases of {model} are {known}") };
            InferError::NoVersion(format!("{text:?} is not a version, which is a whole number or an alias{known}"))
        })
    }

    /// What holds a request, and what a pipeline asks for it, to the same versions as others with the same. Where nothing
    /// is split, nothing is read of it.
    pub fn key(&self, bearings: &Bearings<'_>) -> Key {
        let key = self.models.key(bearings);
        if self.traces.is_on() { key.seen(bearings) } else { key }
    }

    /// Asks a model; without a version one of its split, or that of the alias `default`, or the newest that serves. Loads it
    /// first where it loads on request.
    pub async fn infer(&self, question: Question) -> Result<Inferred, InferError> {
        self.infer_for(question, &Key::default()).await
    }

    /// The same for the [`key`](Self::key) that holds the request to a version.
    pub async fn infer_for(&self, question: Question, key: &Key) -> Result<Inferred, InferError> {
        let started = self.clock.since_boot();
        let mut way = self.way(&question.model, question.version, key);
        let inputs = question.inputs.into_iter();
        let mut inputs: Vec<_> = inputs.map(|input| engine::NamedTensor::new(input.name, input.tensor)).collect();
        let mut began = started;
        loop {
            let left = question.deadline.saturating_sub(self.clock.since_boot().saturating_sub(started));
            let mut turn = self.next(&mut way, left).await?;
            let picks = picks(&turn.loaded, &question.outputs)?;
            let given = if way.is_split() { inputs.clone() } else { std::mem::take(&mut inputs) };
            let left = question.deadline.saturating_sub(self.clock.since_boot().saturating_sub(started));
            let terms = engine::Terms { timeout: Some(left), priority: question.priority };
            match self.ask(way.plan(), key, &mut turn, given, terms, began).await {
                Ok(outputs) => {
                    way.answered_by(&turn.loaded);
                    return tell(turn.loaded, outputs, picks, way.reason()).await;
                }
                Err(fault) => way.pass_over(&turn.loaded, fault)?,
            }
            began = self.clock.since_boot();
        }
    }

    /// The versions that a request may be asked of: the one that it names, or those of the model's split.
    pub(super) fn way(&self, model: &str, version: Option<u32>, key: &Key) -> Way {
        match if version.is_none() { self.models.plan(model) } else { None } {
            None => Way::to(model, version),
            Some(plan) => {
                let key = key.bytes(&plan, || self.draw());
                Way::through(plan, &key)
            }
        }
    }

    /// A chance.
    pub(super) fn draw(&self) -> u64 {
        self.chance().next_u64()
    }

    /// The next version on a request's way. Waits at most `patience` for it to be loaded.
    pub(super) async fn next(&self, way: &mut Way, patience: Duration) -> Result<Turn, InferError> {
        way.next(&self.models, &*self.clock, patience).await
    }

    /// What the model takes and gives; without a version the newest that serves.
    pub fn metadata(&self, model: &str, version: Option<u32>) -> Result<ModelMetadata, InferError> {
        let slot = self.models.known(model, version)?;
        let ports = |ports: &[catalog::Port]| {
            let port = |port: &catalog::Port| TensorMetadata {
                name: port.name.clone(),
                datatype: port.datatype,
                shape: port.shape.clone(),
            };
            ports.iter().map(port).collect()
        };
        let manifest = &slot.model.manifest;
        let about = &manifest.model;
        let loaded = slot.loaded();
        Ok(ModelMetadata {
            name: model.to_owned(),
            versions: self.models.versions(model),
            platform: about.format.clone(),
            // One that sleeps has none yet.
            engine: loaded.as_ref().map_or_else(String::new, |loaded| loaded.handle.engine().to_owned()),
            file: about.file.clone(),
            inputs: ports(&manifest.inputs),
            outputs: ports(&manifest.outputs),
            composing: slot.graph.iter().flatten().flat_map(|graph| composing(graph)).collect(),
            batching: loaded.filter(|loaded| loaded.handle.batch_rows_max() > 1).map(|loaded| DynamicBatching {
                rows_max: loaded.handle.batch_rows_max(),
                delay_us: slot.how.batch_delay_us,
            }),
            request_rows_max: slot.request_rows_max,
        })
    }

    /// What the versions served that serve now: of one model, or of all; of one version, or of all.
    pub fn served(&self, model: Option<&str>, version: Option<u32>) -> Result<Vec<Served>, InferError> {
        if let Some(model) = model {
            // An unknown model is an error, not an empty list.
            self.models.known(model, version)?;
        }
        let wanted = |slot: &Arc<Slot>| {
            let about = &slot.model.manifest.model;
            model.is_none_or(|model| about.name.as_str() == model) && version.is_none_or(|v| about.version == v)
        };
        let served = |slot: Arc<Slot>| Served {
            model: slot.model.manifest.model.name.to_string(),
            version: slot.model.manifest.model.version,
            counts: slot.tally.counts(),
            steps: slot.loaded().map_or_else(Vec::new, |loaded| loaded.steps()),
        };
        Ok(self.models.all_known().into_iter().filter(wanted).map(served).collect())
    }
}

/// The steps of one request's pipeline ask as any caller would, held to versions by what holds the request.
pub(super) struct Steps<'a> {
    pub(super) inference: &'a Inference,
    pub(super) key: &'a Key,
}

impl Members for Steps<'_> {
    fn ask(&self, question: Question) -> BoxFuture<'_, Result<Inferred, InferError>> {
        self.inference.infer_for(question, self.key).boxed()
    }

    fn gives(&self, member: &Member) -> Result<Vec<Port>, InferError> {
        self.inference.models.gives(member).map_err(|reason| InferError::NotServing { reason })
    }
}

/// The steps of a pipeline that ask a model, in Triton's way of an ensemble: tensors with names lead from one to the next.
fn composing(graph: &Graph) -> Vec<Composing> {
    let tensor = |source: &Source| match source {
        Source::Input(at) => graph.inputs[*at].name.clone(),
        Source::Step(at, None) => graph.steps[*at].name.clone(),
        Source::Step(at, Some(name)) => format!("{}.{name}", graph.steps[*at].name),
    };
    let asks = |(step, member): (&Step, &Member)| Composing {
        model: member.model.clone(),
        version: member.version,
        inputs: member.inputs.iter().cloned().zip(step.inputs.iter().map(tensor)).collect(),
        outputs: member.wanted.iter().map(|name| (name.clone(), format!("{}.{name}", step.name))).collect(),
    };
    graph.members().map(asks).collect()
}

/// Where each wanted output is among the model's, and how it is wanted.
pub(super) fn picks(loaded: &Loaded, wanted: &[Wanted]) -> Result<Vec<(usize, Option<usize>)>, InferError> {
    let outputs = loaded.handle.outputs();
    if wanted.is_empty() {
        return Ok((0..outputs.len()).map(|at| (at, None)).collect());
    }
    // Each costs an answer's bytes, and a request names many.
    let twice = wanted.iter().enumerate().find(|(at, one)| wanted[..*at].iter().any(|other| other.name == one.name));
    if let Some((_, twice)) = twice {
        let detail = format!("output {:?} is asked for twice, expected each output once at most", twice.name);
        return Err(InferError::Shape { detail });
    }
    let pick = |wanted: &Wanted| {
        let at = outputs.iter().position(|output| *output.name == *wanted.name).ok_or_else(|| {
            let names = outputs.iter().map(|output| output.name.to_string()).collect::<Vec<_>>().join(", ");
            InferError::Shape { detail: format!("the model has no output {:?}; it has {names}", wanted.name) }
        })?;
        Ok((at, wanted.classes))
    };
    wanted.iter().map(pick).collect()
}

/// Why it was not the version that should have, and why not the delegate.
pub(super) fn both(version: Option<Arc<str>>, delegate: Option<&Arc<str>>) -> Option<Arc<str>> {
    match (version, delegate) {
        (Some(version), Some(delegate)) => Some(format!("{version}; {delegate}").into()),
        (version, delegate) => version.or_else(|| delegate.cloned()),
    }
}

/// [`answer`], on a blocking thread where much is to be searched for the largest.
async fn tell(
    loaded: Arc<Loaded>,
    outputs: Outputs,
    picks: Vec<(usize, Option<usize>)>,
    passed_over: Option<Arc<str>>,
) -> Result<Inferred, InferError> {
    let searched = picks.iter().filter(|(_, classes)| classes.is_some());
    let searched = searched.map(|&(at, _)| outputs.tensors[at].tensor.elements());
    if searched.sum::<usize>() <= CLASSIFY_INLINE_MAX {
        return answer(&loaded, &outputs, &picks, passed_over);
    }
    let answering = tokio::task::spawn_blocking(move || answer(&loaded, &outputs, &picks, passed_over));
    let stopping = || InferError::Failed { detail: "the gateway is stopping".to_owned() };
    answering.await.map_err(|_| stopping())?
}

pub(super) fn answer(
    loaded: &Loaded,
    outputs: &Outputs,
    picks: &[(usize, Option<usize>)],
    passed_over: Option<Arc<str>>,
) -> Result<Inferred, InferError> {
    let about = &loaded.manifest.model;
    let named = |&(at, classes): &(usize, Option<usize>)| {
        let engine::NamedTensor { name, tensor } = outputs.tensors[at].clone();
        let tensor = match classes {
            None => tensor,
            Some(classes) => {
                classify(&tensor, classes, loaded.predictor.labels(at)).ok_or_else(|| InferError::Shape {
                    detail: format!("output {name} is BYTES, which cannot be classified; leave out `classification`"),
                })?
            }
        };
        Ok::<_, InferError>(NamedTensor { name: name.to_string(), tensor })
    };
    Ok(Inferred {
        model: about.name.to_string(),
        version: about.version,
        engine: outputs.engine.to_owned(),
        fallback: both(passed_over, outputs.fallback.as_ref()),
        duration_us: outputs.duration_us,
        outputs: picks.iter().map(named).collect::<Result<_, _>>()?,
        steps: outputs.steps.clone(),
    })
}
