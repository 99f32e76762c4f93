//! A pipeline run for one request: each step as soon as what it reads is there, tensors handed on as they are.
//!
//! Steps that ask a model ask it as any caller would, with the request's deadline and priority; its engine's threads compute.
//! Small steps between them are done here, large ones on a blocking thread, as many as there are cores but one at a time. The
//! first step that fails ends the request, and a caller that goes away takes all of it along.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::Semaphore;

use super::backend::Outputs;
use super::inference::{InferError, Inferred, Question};
use super::pipeline_tally::{StepReport, StepServed, StepTally};
use crate::base::{Clock, Tensor};
use crate::engine::{self, Handle, TensorSpec};
use crate::pipeline::{Graph, Member, Op, Port, Source, Step, Work};

/// The word for a pipeline where an engine's name stands.
pub(super) const ENGINE: &str = "pipeline";
/// How long a request may take that says nothing of it.
const USUAL_TIME: Duration = Duration::from_secs(10);

/// A loaded pipeline.
#[derive(Debug)]
pub struct Pipeline {
    /// `name/version`.
    pub(super) title: String,
    pub(super) graph: Arc<Graph>,
    /// As the manifest declares them.
    pub(super) outputs: Vec<TensorSpec>,
    tallies: Vec<StepTally>,
}

/// Who is asked about the models in a pipeline.
pub(super) trait Members: Send + Sync {
    /// Asks a model.
    fn ask(&self, question: Question) -> BoxFuture<'_, Result<Inferred, InferError>>;

    /// What a model gives.
    fn gives(&self, member: &Member) -> Result<Vec<Port>, InferError>;

    /// The model in the queue that those who ask wait in.
    fn queue_of(&self, handle: &Handle) -> Handle {
        handle.clone()
    }
}

/// Runs pipelines.
pub(super) struct Composer {
    pool: Arc<engine::Pool>,
    pub(super) clock: Arc<dyn Clock>,
    threads: Arc<Semaphore>,
}

/// What holds for one request.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) pipeline: &'a Pipeline,
    pub(super) members: &'a dyn Members,
    pub(super) priority: u64,
    /// Since boot.
    pub(super) until: Duration,
    over: &'a Arc<AtomicBool>,
}

/// Tensors for one step.
pub(super) struct Reads {
    pub(super) inputs: Vec<Tensor>,
    pub(super) rows: Option<Tensor>,
    /// By the names of the model's outputs.
    pub(super) otherwise: Vec<(String, Tensor)>,
}

/// What a step made.
pub(super) struct Made {
    pub(super) tensors: Vec<(String, Tensor)>,
    pub(super) report: StepReport,
    /// Of the steps of a pipeline that it asked.
    pub(super) within: Vec<StepReport>,
}

/// Tells steps on other threads that nobody waits any more, when the request is dropped.
struct Caller(Arc<AtomicBool>);

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Pipeline {
    pub(super) fn new(title: String, graph: Arc<Graph>) -> Self {
        let spec = |port: &Port| TensorSpec {
            name: port.name.as_str().into(),
            datatype: port.datatype,
            shape: port.shape.clone(),
        };
        let outputs = graph.outputs.iter().map(spec).collect();
        let tallies = graph.steps.iter().map(|_| StepTally::default()).collect();
        Self { title, graph, outputs, tallies }
    }

    /// Each step's figures since it was loaded.
    pub(super) fn served(&self) -> Vec<StepServed> {
        let served = |(step, tally): (&Step, &StepTally)| StepServed {
            step: step.name.clone(),
            does: does(step),
            model: step.member().map(Member::title),
            counts: tally.counts(),
        };
        self.graph.steps.iter().zip(&self.tallies).map(served).collect()
    }

    /// The inputs in the graph's order; every one once and as declared.
    fn arrange(&self, mut given: Vec<engine::NamedTensor>) -> Result<Vec<Tensor>, InferError> {
        let wrong = |detail: String| InferError::Shape { detail: format!("pipeline {}: {detail}", self.title) };
        let names = || self.graph.inputs.iter().map(|port| port.name.as_str()).collect::<Vec<_>>().join(", ");
        let mut inputs = Vec::with_capacity(self.graph.inputs.len());
        for port in &self.graph.inputs {
            let Some(at) = given.iter().position(|input| *input.name == *port.name) else {
                return Err(wrong(format!("no input {}; expected {}", port.name, names())));
            };
            let tensor = given.swap_remove(at).tensor;
            if let Some(problem) = port.refuses(&tensor) {
                return Err(wrong(format!("input {problem}")));
            }
            let (bytes, most) = (tensor.bytes().len(), self.graph.limits.tensor_bytes_max);
            if bytes > most {
                let name = &port.name;
                return Err(wrong(format!(
                    "input {name} has {bytes} bytes, the most is {most} (limits.tensor_bytes_max)"
                )));
            }
            if let Some((at, value)) = tensor.first_not_finite() {
                return Err(wrong(format!(
                    "input {} has {value} at element {at}: only finite numbers are taken",
                    port.name
                )));
            }
            inputs.push(tensor);
        }
        match given.first() {
            None => Ok(inputs),
            Some(extra) => Err(wrong(format!("unknown or repeated input {}; expected {}", extra.name, names()))),
        }
    }

    /// The named outputs, as declared and finite.
    fn results(&self, inputs: &[Tensor], made: &[Option<Made>]) -> Result<Vec<engine::NamedTensor>, InferError> {
        let result = |(source, port): (&Source, &Port)| {
            let failed = |detail: String| InferError::Failed { detail: format!("pipeline {}: {detail}", self.title) };
            let tensor = find(source, inputs, made).map_err(failed)?;
            if let Some(problem) = port.refuses(&tensor) {
                return Err(failed(format!("output {problem}")));
            }
            match tensor.first_not_finite() {
                Some((at, value)) => Err(failed(format!("output {} has {value} at element {at}", port.name))),
                None => Ok(engine::NamedTensor::new(port.name.as_str(), tensor)),
            }
        };
        self.graph.results.iter().zip(&self.graph.outputs).map(result).collect()
    }
}

/// What a step does, in a word.
fn does(step: &Step) -> &'static str {
    match &step.work {
        Work::Model(_) => "model",
        Work::Op(op) => op.word(),
    }
}

/// The tensor of a source that is there.
fn find(source: &Source, inputs: &[Tensor], made: &[Option<Made>]) -> Result<Tensor, String> {
    let (at, name) = match source {
        Source::Input(at) => return inputs.get(*at).cloned().ok_or_else(|| "an input is missing".to_owned()),
        Source::Step(at, name) => (*at, name),
    };
    let tensors = made.get(at).and_then(Option::as_ref).map_or(&[][..], |made| &made.tensors);
    let found = match (name, tensors) {
        (None, [(_, only)]) => Some(only),
        (None, _) => None,
        (Some(name), _) => tensors.iter().find(|(known, _)| known == name).map(|(_, tensor)| tensor),
    };
    found.cloned().ok_or_else(|| {
        let names = tensors.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        format!("{} is expected, given {names}", name.as_deref().unwrap_or("one output"))
    })
}

impl Composer {
    pub(super) fn new(pool: Arc<engine::Pool>, clock: Arc<dyn Clock>) -> Self {
        let threads = Arc::new(Semaphore::new(pool.threads()));
        Self { pool, clock, threads }
    }

    /// Runs every step and gives the pipeline's outputs.
    pub(super) async fn run(
        &self,
        pipeline: &Pipeline,
        members: &dyn Members,
        inputs: Vec<engine::NamedTensor>,
        terms: engine::Terms,
    ) -> Result<Outputs, InferError> {
        let until = self.clock.since_boot() + terms.timeout.unwrap_or(USUAL_TIME);
        let inputs = pipeline.arrange(inputs)?;
        let over = Arc::new(AtomicBool::new(false));
        let _caller = Caller(Arc::clone(&over));
        let request = Request { pipeline, members, priority: terms.priority, until, over: &over };
        let graph = &pipeline.graph;
        let mut waits: Vec<_> = graph.steps.iter().map(Step::after).collect();
        let mut made: Vec<Option<Made>> = graph.steps.iter().map(|_| None).collect();
        let mut bytes: usize = inputs.iter().map(|tensor| tensor.bytes().len()).sum();
        let mut running = FuturesUnordered::new();
        let begin = |at: usize, made: &[Option<Made>]| {
            let reads = reads(&graph.steps[at], &inputs, made);
            self.step(request, at, reads).boxed()
        };
        for at in (0..waits.len()).filter(|&at| waits[at].is_empty()) {
            running.push(begin(at, &made));
        }
        while let Some((at, done)) = running.next().await {
            let done = done.map_err(|error| within(pipeline, &graph.steps[at], error))?;
            bytes = done.tensors.iter().fold(bytes, |sum, (_, tensor)| sum.saturating_add(tensor.bytes().len()));
            let most = graph.limits.request_bytes_max;
            if bytes > most {
                let detail = format!(
                    "the tensors of the request have {bytes} bytes, the most is {most} (limits.request_bytes_max)"
                );
                return Err(within(pipeline, &graph.steps[at], InferError::Shape { detail }));
            }
            made[at] = Some(done);
            for (next, waits) in waits.iter_mut().enumerate() {
                if waits.remove(&at) && waits.is_empty() {
                    running.push(begin(next, &made));
                }
            }
        }
        drop(running);
        let tensors = pipeline.results(&inputs, &made)?;
        let rows = inputs.first().and_then(|input| input.shape().first().copied()).unwrap_or(1);
        Ok(outputs(tensors, made.into_iter().flatten(), rows))
    }

    async fn step(
        &self,
        request: Request<'_>,
        at: usize,
        reads: Result<Reads, String>,
    ) -> (usize, Result<Made, InferError>) {
        let step = &request.pipeline.graph.steps[at];
        let began = self.clock.since_boot();
        let reads = reads.map_err(|detail| InferError::Failed { detail });
        let made = match (&step.work, reads) {
            (_, Err(error)) => Err(error),
            (_, Ok(_)) if began >= request.until => {
                Err(InferError::Deadline { detail: "the time was over before it".to_owned() })
            }
            (Work::Op(op), Ok(reads)) => self.compute(request, at, op, reads.inputs).await,
            (Work::Model(member), Ok(reads)) => self.ask(request, member, reads).await,
        };
        let tally = &request.pipeline.tallies[at];
        let made = made.map(|mut made| {
            let report = &mut made.report;
            (report.step, report.does) = (step.name.clone(), does(step));
            report.waited_us = micros(self.clock.since_boot().saturating_sub(began)).saturating_sub(report.us);
            tally.done(report);
            made
        });
        if made.is_err() {
            tally.failed();
        }
        (at, made)
    }

    async fn compute(&self, request: Request<'_>, at: usize, op: &Op, inputs: Vec<Tensor>) -> Result<Made, InferError> {
        let Request { pipeline, until, over, .. } = request;
        let started = self.clock.since_boot();
        let wrong = |detail: String| InferError::Shape { detail };
        let (tensors, took) = if op.is_heavy(&inputs) {
            let left = until.saturating_sub(started);
            let permit = tokio::time::timeout(left, Arc::clone(&self.threads).acquire_owned()).await;
            let Ok(Ok(permit)) = permit else {
                let detail = format!("no thread was free for it within {} ms", left.as_millis());
                return Err(InferError::Busy { detail });
            };
            let (graph, clock, over) = (Arc::clone(&pipeline.graph), Arc::clone(&self.clock), Arc::clone(over));
            let pool = Arc::clone(&self.pool);
            let done = tokio::task::spawn_blocking(move || {
                // Held to the end of the work, also when the caller has gone: the bound is on cores.
                let _permit = permit;
                let _place = pool.place();
                let Work::Op(op) = &graph.steps[at].work else { return (Ok(Vec::new()), Duration::ZERO) };
                let (began, is_over) =
                    (clock.since_boot(), || over.load(Ordering::Relaxed) || clock.since_boot() > until);
                let made = op.run(&inputs, &graph.limits, &is_over);
                (made, clock.since_boot().saturating_sub(began))
            });
            let panicked = |_| InferError::Failed { detail: "the step panicked".to_owned() };
            done.await.map_err(panicked)?
        } else {
            let made = op.run(&inputs, &pipeline.graph.limits, &|| false);
            (made, self.clock.since_boot().saturating_sub(started))
        };
        if tensors.is_err() && self.clock.since_boot() > until {
            return Err(InferError::Deadline { detail: "the time was over within it".to_owned() });
        }
        let names = op.gives().iter().map(|name| (*name).to_owned());
        let tensors = names.zip(tensors.map_err(wrong)?).collect();
        Ok(Made { tensors, report: StepReport { us: micros(took), ..StepReport::default() }, within: Vec::new() })
    }
}

fn reads(step: &Step, inputs: &[Tensor], made: &[Option<Made>]) -> Result<Reads, String> {
    let find = |source: &Source| find(source, inputs, made);
    let own = step.inputs.iter().map(find).collect::<Result<_, _>>()?;
    let Some(member) = step.member() else {
        return Ok(Reads { inputs: own, rows: None, otherwise: Vec::new() });
    };
    let otherwise = member.otherwise.iter().map(|(name, source)| Ok((name.clone(), find(source)?)));
    Ok(Reads {
        inputs: own,
        rows: member.rows.as_ref().map(find).transpose()?,
        otherwise: otherwise.collect::<Result<_, String>>()?,
    })
}

fn outputs(tensors: Vec<engine::NamedTensor>, made: impl Iterator<Item = Made>, rows: usize) -> Outputs {
    let (mut steps, mut fallbacks) = (Vec::new(), Vec::new());
    let (mut duration_us, mut waited_us) = (0, 0);
    for Made { report, within, .. } in made {
        duration_us += report.us;
        waited_us += report.waited_us;
        fallbacks.extend(report.fallback.as_ref().map(|reason| format!("step {}: {reason}", report.step)));
        let inner =
            within.into_iter().map(|inner| StepReport { step: format!("{}.{}", report.step, inner.step), ..inner });
        let inner: Vec<StepReport> = inner.collect();
        steps.push(report);
        steps.extend(inner);
    }
    let fallback = (!fallbacks.is_empty()).then(|| fallbacks.join("; ").into());
    let run = engine::Run { waited_us, rows, leads: true, ..engine::Run::default() };
    Outputs { tensors, duration_us, engine: ENGINE, fallback, run, steps }
}

/// The same error, with where it came from.
fn within(pipeline: &Pipeline, step: &Step, error: InferError) -> InferError {
    let asks = step.member().map(|member| format!(" (model {})", member.title())).unwrap_or_default();
    let place = format!("pipeline {}, step {}{asks}", pipeline.title, step.name);
    match error {
        // The caller asked for the pipeline, which is there.
        InferError::NoModel(_) | InferError::NoVersion(_) | InferError::NotServing { .. } => {
            InferError::NotServing { reason: format!("{place}: {error}") }
        }
        InferError::Shape { detail } => InferError::Shape { detail: format!("{place}: {detail}") },
        InferError::Busy { detail } => InferError::Busy { detail: format!("{place}: {detail}") },
        InferError::Deadline { detail } => InferError::Deadline { detail: format!("{place}: {detail}") },
        InferError::Failed { detail } => InferError::Failed { detail: format!("{place}: {detail}") },
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Datatype, SystemClock};
    use crate::flows::inference::NamedTensor;

    /// Every model gives what it gets, computed by another engine than the right one.
    struct StandIn;

    impl Members for StandIn {
        fn ask(&self, mut question: Question) -> BoxFuture<'_, Result<Inferred, InferError>> {
            let outputs = question.outputs.iter().zip(question.inputs.drain(..));
            let outputs =
                outputs.map(|(wanted, input)| NamedTensor { name: wanted.name.clone(), tensor: input.tensor });
            let inferred = Inferred {
                model: question.model.clone(),
                version: 7,
                engine: "classical".to_owned(),
                fallback: Some("gpu0 is down".into()),
                duration_us: 11,
                outputs: outputs.collect(),
                steps: Vec::new(),
            };
            async move { Ok(inferred) }.boxed()
        }

        fn gives(&self, _: &Member) -> Result<Vec<Port>, InferError> {
            Ok(Vec::new())
        }
    }

    fn pipeline(steps: &str) -> Pipeline {
        let port = |name: &str| Port { name: name.to_owned(), datatype: Datatype::Fp32, shape: vec![-1, 2] };
        let graph = Graph::parse(steps, &[port("x")], &[port("y")]).unwrap();
        Pipeline::new("both/1".to_owned(), Arc::new(graph))
    }

    async fn run(pipeline: &Pipeline, rows: usize) -> Result<Outputs, InferError> {
        let x = Tensor::new([rows, 2], vec![0.5_f32; rows * 2]).unwrap();
        let clock = Arc::new(SystemClock::new());
        let pool = engine::Pool::start(&engine::Config::default(), Vec::new(), clock.clone()).unwrap();
        let composer = Composer::new(Arc::new(pool), clock);
        let inputs = vec![engine::NamedTensor::new("x", x)];
        composer.run(pipeline, &StandIn, inputs, engine::Terms::default()).await
    }

    #[tokio::test]
    async fn a_stand_in_within_a_step_is_told_by_the_whole_answer() {
        let steps = "[[step]]\nname = \"a\"\nmodel = \"m\"\ninput = { x = \"x\" }\n\
                     [[step]]\nname = \"b\"\nstep = \"sigmoid\"\ninput = \"a.p\"\n[output]\ny = \"b\"\n";
        let pipeline = pipeline(steps);
        let outputs = run(&pipeline, 3).await.unwrap();
        assert_eq!(outputs.fallback.as_deref(), Some("step a: gpu0 is down"));
        assert_eq!((outputs.engine, outputs.run.rows), (ENGINE, 3));
        let report = &outputs.steps[0];
        assert_eq!(
            (report.model.as_deref(), report.engine.as_deref(), report.us),
            (Some("m/7"), Some("classical"), 11)
        );
        let served = pipeline.served();
        assert_eq!((served[0].counts.fallbacks, served[0].counts.rows, served[1].counts.success.count), (1, 3, 1));
    }

    #[tokio::test]
    async fn a_step_on_many_elements_gives_the_same_as_on_few() {
        let pipeline = pipeline("[[step]]\nname = \"b\"\nstep = \"sigmoid\"\ninput = \"x\"\n[output]\ny = \"b\"\n");
        let few = run(&pipeline, 1).await.unwrap().tensors.remove(0).tensor;
        let many = run(&pipeline, 20_000).await.unwrap().tensors.remove(0).tensor;
        assert_eq!(many.row(19_999), few.row(0));
    }
}
