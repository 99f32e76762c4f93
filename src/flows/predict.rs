//! Predictions for apps: a picture, a sound, a text or a record in, labels and units out.
//!
//! Decoding and encoding is work for blocking threads, as many as `predict.threads` at a time; the model runs on the
//! engine's. A caller that goes away takes its request along: it waits for no thread any more, no further step begins,
//! and the engine drops what is queued.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::conduct::Why;
use super::fault::Fault;
use super::inference::{InferError, Inference, both};
use super::key::Key;
use super::load_spec::{PlanError, labels, plan};
use super::models::{Loaded, chain};
use super::pipeline_tally::StepReport;
pub use super::predict_metrics::PredictMetrics;
use super::way::{Turn, Way};
use crate::base::Clock;
use crate::catalog::{Manifest, Model};
use crate::engine;
pub use crate::transform::{Answer, Content, Kind, Lap, Limits, Prediction, Source, Words};
use crate::transform::{Error, Named, Plan, Work};

/// The steps of a loaded model.
#[derive(Debug)]
pub struct Predictor {
    /// None without `[predict]`; an error where this build lacks what the steps need.
    plan: Result<Option<Plan>, String>,
    /// Of each output, in the manifest's order.
    labels: Vec<Vec<String>>,
}

impl Predictor {
    /// Reads what `manifest` says, which has the inputs and outputs of `model` wherever they stand. Steps that do not fit the model are an error; those that this build leaves out only
    /// keep the model from predicting. Reads the disk: not for an async thread.
    pub(super) fn of(model: &Model, manifest: &Manifest) -> Result<Self, String> {
        let plan = match plan(model, manifest) {
            Ok(plan) => Ok(plan),
            Err(PlanError::Steps(left_out @ Error::NotBuilt { .. })) => {
                let about = &manifest.model;
                tracing::warn!(model.name = %about.name, model.version = about.version, reason = %left_out, "model cannot predict");
                Err(left_out.to_string())
            }
            Err(error) => return Err(chain(&error)),
        };
        let labels = manifest.outputs.iter().map(|port| labels(model, port)).collect::<Result<_, _>>()?;
        Ok(Self { plan, labels })
    }

    /// The names of the elements of the output at this place; none if it has none.
    pub(super) fn labels(&self, output: usize) -> &[String] {
        self.labels.get(output).map_or(&[], Vec::as_slice)
    }
}

/// Why there is no prediction.
#[derive(Debug, thiserror::Error)]
pub enum PredictError {
    /// The model's own reasons.
    #[error(transparent)]
    Inference(#[from] InferError),
    /// The manifest has no `[predict]`.
    #[error("model {0} takes tensors only: its manifest has no [predict]")]
    NoSteps(String),
    /// This build cannot do the model's steps.
    #[error("model {model} cannot predict: {reason}")]
    NotBuilt {
        /// `name/version`.
        model: String,
        /// What is left out.
        reason: String,
    },
    /// What was sent is not what the model takes.
    #[error("{0}")]
    Content(String),
    /// What was sent is too large.
    #[error("{0}")]
    TooLarge(String),
    /// No thread was free in time.
    #[error("no answer within {0} ms: too many requests are being decoded")]
    Busy(u64),
    /// The model's outputs are not what its steps read, or a decoder gave up.
    #[error("{0}")]
    Failed(String),
}

/// One version of a model that somebody wants to ask; it stays the same until it is answered.
pub struct Asked {
    turn: Turn,
    /// Those who are asked when it does not answer.
    way: Way,
    /// What holds the steps of a pipeline to versions.
    key: Key,
    /// How long the caller waited for it to be loaded.
    loading: Duration,
}

impl Asked {
    /// What an instance consists of.
    pub fn sources(&self) -> &[Source] {
        sources(&self.turn.loaded)
    }
}

fn sources(loaded: &Loaded) -> &[Source] {
    let plan = loaded.predictor.plan.as_ref().ok().and_then(Option::as_ref);
    plan.map_or(&[], Plan::sources)
}

/// Why one version gave no prediction.
enum Trouble {
    /// The model's doing: another version may do better.
    Fault(Fault),
    /// Everybody's.
    Error(PredictError),
}

impl From<PredictError> for Trouble {
    fn from(error: PredictError) -> Self {
        Self::Error(error)
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Predicted {
    /// The model.
    pub model: String,
    /// The version that answered.
    pub version: u32,
    /// What computed it.
    pub engine: String,
    /// Why it was not the version, or the delegate, that should have.
    pub fallback: Option<Arc<str>>,
    /// In the order of the instances.
    pub predictions: Vec<Prediction>,
    /// How long each step took: those before the model, the model, those after it.
    pub laps: Vec<Lap>,
    /// From the body to the answer, waiting included, in microseconds.
    pub total_us: u64,
    /// Waiting for a thread, before the steps and before the model, in microseconds.
    pub waited_us: u64,
    /// What each step of a pipeline did; none for a model that is none. Of several runs, one behind the other.
    pub pipeline: Vec<StepReport>,
}

/// The story of a prediction.
pub struct Predict {
    inference: Arc<Inference>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    threads: Arc<Semaphore>,
    metrics: PredictMetrics,
}

/// Tells the steps that nobody waits any more, when the request is dropped.
struct Caller(Arc<AtomicBool>);

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Predict {
    /// Over the models that `inference` asks.
    pub fn new(inference: Arc<Inference>, clock: Arc<dyn Clock>, limits: Limits) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = if limits.threads == 0 { cores.saturating_sub(1).max(1) } else { limits.threads };
        let threads = Arc::new(Semaphore::new(threads.min(Semaphore::MAX_PERMITS)));
        Self { inference, clock, limits, threads, metrics: PredictMetrics::default() }
    }

    /// This story's metrics.
    pub fn metrics(&self) -> &PredictMetrics {
        &self.metrics
    }

    /// The version that a text means: its number, or an alias of the model.
    pub fn version(&self, model: &str, text: &str) -> Result<u32, PredictError> {
        let version = self.inference.version(model, text).map_err(PredictError::from);
        version.inspect_err(|error| self.metrics.refused(error))
    }

    /// Finds a version; without one that of the model's split, of the alias `default`, or the newest that serves. Loads it
    /// first where it loads on request, and waits for that at most `deadline`. An error if it takes tensors only.
    pub async fn ask(&self, model: &str, version: Option<u32>, deadline: Duration) -> Result<Asked, PredictError> {
        self.ask_for(model, version, Key::default(), deadline).await
    }

    /// The same for the [`key`](Inference::key) that holds the request to a version.
    pub async fn ask_for(
        &self,
        model: &str,
        version: Option<u32>,
        key: Key,
        deadline: Duration,
    ) -> Result<Asked, PredictError> {
        let started = self.clock.since_boot();
        let mut way = self.inference.way(model, version, &key);
        let turn = self.inference.next(&mut way, deadline).await;
        let loading = self.clock.since_boot().saturating_sub(started);
        let asked = turn.map_err(PredictError::from).and_then(|turn| {
            let about = &turn.loaded.manifest.model;
            let title = format!("{}/{}", about.name, about.version);
            match &turn.loaded.predictor.plan {
                Ok(Some(_)) => Ok(Asked { turn, way, key, loading }),
                Ok(None) => Err(PredictError::NoSteps(title)),
                Err(reason) => Err(PredictError::NotBuilt { model: title, reason: reason.clone() }),
            }
        });
        asked.inspect_err(|error| self.metrics.refused(error))
    }

    /// Most instances in one request.
    pub fn instances_max(&self) -> usize {
        self.limits.instances_max
    }

    /// Asks it. `deadline` is how long the caller waits in all: for the model to be loaded, and from now on.
    pub async fn predict(
        &self,
        asked: Asked,
        instances: Vec<Vec<Content>>,
        deadline: Duration,
    ) -> Result<Predicted, PredictError> {
        let started = self.clock.since_boot();
        let predicted = self.answer(asked, instances, started, deadline).await;
        match &predicted {
            Ok(predicted) => self.metrics.answered(predicted),
            Err(error) => self.metrics.refused(error),
        }
        predicted
    }

    async fn answer(
        &self,
        asked: Asked,
        instances: Vec<Vec<Content>>,
        started: Duration,
        deadline: Duration,
    ) -> Result<Predicted, PredictError> {
        let Asked { mut turn, mut way, key, loading } = asked;
        let until = started + deadline.saturating_sub(loading);
        let over = Arc::new(AtomicBool::new(false));
        let _caller = Caller(Arc::clone(&over));
        let instances = Arc::new(instances);
        let taken = sources(&turn.loaded).to_vec();
        let mut unread = None;
        loop {
            match self.answer_by(&mut turn, &way, &key, &instances, &over, until).await {
                Ok(predicted) => {
                    way.answered_by(&turn.loaded);
                    let fallback = both(way.reason(), predicted.fallback.as_ref());
                    return Ok(Predicted { fallback, total_us: self.since(started), ..predicted });
                }
                Err(Trouble::Fault(fault)) => way.pass_over(&turn.loaded, fault)?,
                Err(Trouble::Error(error)) => {
                    let why = match &error {
                        // It computed something that its own steps cannot read.
                        PredictError::Failed(_) => Why::Failed,
                        // What was sent is what the first one takes.
                        PredictError::Content(_) | PredictError::TooLarge(_) if way.reason().is_some() => {
                            Why::NotServing
                        }
                        _ => return Err(error),
                    };
                    if !way.skip(&turn.loaded, why, &error.to_string()) {
                        return Err(error);
                    }
                    unread = unread.or((why == Why::Failed).then_some(error));
                }
            }
            loop {
                let left = until.saturating_sub(self.clock.since_boot());
                let next = self.inference.next(&mut way, left).await;
                turn = next.map_err(|error| unread.take().unwrap_or(PredictError::Inference(error)))?;
                if !taken.is_empty() && sources(&turn.loaded) == taken {
                    break;
                }
                way.skip(
                    &turn.loaded,
                    Why::NotServing,
                    "it takes something else than the version that was asked first",
                );
            }
        }
    }

    /// Asks one version.
    async fn answer_by(
        &self,
        turn: &mut Turn,
        way: &Way,
        key: &Key,
        instances: &Arc<Vec<Vec<Content>>>,
        over: &Arc<AtomicBool>,
        until: Duration,
    ) -> Result<Predicted, Trouble> {
        let loaded = Arc::clone(&turn.loaded);
        let instances = Arc::clone(instances);
        let prepare = move |plan: &Plan, work: &mut Work<'_>| plan.prepare(&instances, work);
        let (mut runs, mut laps, mut waited) = self.blocking(&loaded, over, until, prepare).await?;
        let mut outputs = Vec::with_capacity(runs.len());
        let (mut engine_name, mut fallback, mut compute_us) = ("", None, 0);
        let mut pipeline = Vec::new();
        for run in &mut runs {
            let before = self.clock.since_boot();
            let inputs = std::mem::take(&mut run.inputs).into_iter();
            let inputs = inputs.map(|input| engine::NamedTensor::new(input.name, input.tensor)).collect();
            let terms = engine::Terms { timeout: Some(until.saturating_sub(before)), ..engine::Terms::default() };
            let ran = self.inference.ask(way.plan(), key, turn, inputs, terms, before).await.map_err(Trouble::Fault)?;
            // Of several runs, the one that another than the chosen one computed is told.
            if fallback.is_none() {
                (engine_name, fallback) = (ran.engine, ran.fallback);
            }
            compute_us += ran.duration_us;
            pipeline.extend(ran.steps);
            waited += self.since(before).saturating_sub(ran.duration_us);
            let named = |output: engine::NamedTensor| Named { name: output.name.to_string(), tensor: output.tensor };
            outputs.push(ran.tensors.into_iter().map(named).collect::<Vec<_>>());
        }
        laps.push(Lap { step: "model".to_owned(), us: compute_us });
        let finish = move |plan: &Plan, work: &mut Work<'_>| plan.finish(&runs, &outputs, work);
        let (predictions, after, waited_after) = self.blocking(&loaded, over, until, finish).await?;
        laps.extend(after);
        let about = &loaded.manifest.model;
        Ok(Predicted {
            model: about.name.to_string(),
            version: about.version,
            engine: engine_name.to_owned(),
            fallback,
            predictions,
            laps,
            total_us: 0,
            waited_us: waited + waited_after,
            pipeline,
        })
    }

    /// Does a part of the plan on a blocking thread. Says how long its steps took and how long it waited for the thread.
    async fn blocking<T: Send + 'static>(
        &self,
        loaded: &Arc<Loaded>,
        over: &Arc<AtomicBool>,
        until: Duration,
        part: impl FnOnce(&Plan, &mut Work<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<(T, Vec<Lap>, u64), PredictError> {
        let before = self.clock.since_boot();
        let left = until.saturating_sub(before);
        self.metrics.waiting.inc();
        let permit = tokio::time::timeout(left, Arc::clone(&self.threads).acquire_owned()).await;
        self.metrics.waiting.dec();
        let Ok(Ok(permit)) = permit else {
            return Err(PredictError::Busy(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)));
        };
        let waited = self.since(before);
        let (loaded, over, clock, limits) =
            (Arc::clone(loaded), Arc::clone(over), Arc::clone(&self.clock), self.limits);
        let pool = Arc::clone(&self.inference.models.pool);
        let done = tokio::task::spawn_blocking(move || {
            // Held to the end of the work, also when the caller has gone: the bound is on memory and cores.
            let _permit = permit;
            let _place = pool.place();
            let is_over = || over.load(Ordering::Relaxed) || clock.since_boot() > until;
            let mut work = Work::new(&limits, &*clock, &is_over);
            let plan = loaded.predictor.plan.as_ref().ok().and_then(Option::as_ref);
            let plan = plan.expect("only a model with a plan is asked");
            part(plan, &mut work).map(|made| (made, work.into_laps()))
        });
        match done.await {
            Ok(Ok((made, laps))) => Ok((made, laps, waited)),
            Ok(Err(Error::Abandoned)) => Err(PredictError::Inference(InferError::Deadline {
                detail: format!("not decoded and encoded within {} ms", left.as_millis()),
            })),
            Ok(Err(error @ Error::TooLarge { .. })) => Err(PredictError::TooLarge(error.to_string())),
            Ok(Err(error @ Error::Output { .. })) => Err(PredictError::Failed(error.to_string())),
            Ok(Err(error)) => Err(PredictError::Content(error.to_string())),
            // A decoder met something that its authors did not think of; its request is lost, nothing else.
            Err(_) => Err(PredictError::Failed("failed to decode it: the decoder panicked".to_owned())),
        }
    }

    fn since(&self, before: Duration) -> u64 {
        u64::try_from(self.clock.since_boot().saturating_sub(before).as_micros()).unwrap_or(u64::MAX)
    }
}
