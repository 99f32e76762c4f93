//! A loaded model, as callers hold it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelValue;
use tokio::sync::oneshot;

use super::batching::{self, Joins};
use super::delegate;
use super::error::Error;
use super::fallback::Fallback;
use super::memory::Room;
use super::pace::Pace;
use super::pool::Shared;
use super::queue::{Caller, Job, Lane};
use super::serving::Terms;
use super::session::Session;
use super::spec::{NamedTensor, TensorSpec, all_finite, arrange};
use super::ties::{Tie, check_ties};
use super::work::run_here;

/// What came out of an inference.
#[derive(Debug, Clone, PartialEq)]
pub struct Outputs {
    /// The declared outputs, in their order.
    pub tensors: Vec<NamedTensor>,
    /// Time to compute, waiting not included, in microseconds.
    pub duration_us: u64,
    /// Which engine computed it.
    pub engine: &'static str,
    /// Why it was not computed by the delegate that should have.
    pub fallback: Option<Arc<str>>,
    /// The run of the model that it came out of.
    pub run: Run,
}

/// Outputs, and who computed them.
pub(super) struct Computed {
    pub(super) tensors: Vec<NamedTensor>,
    pub(super) engine: &'static str,
    pub(super) fallback: Option<Arc<str>>,
}

/// A run of a model, as one of the requests in it sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Run {
    /// Time that the request waited for it, in microseconds.
    pub waited_us: u64,
    /// Time in which its inputs were checked, put into order and joined with others', in nanoseconds.
    pub input_ns: u64,
    /// Time from the end of the run until its outputs were with the request, in nanoseconds.
    pub output_ns: u64,
    /// End of the run since boot, in nanoseconds.
    pub ended_ns: u64,
    /// Rows of all requests that were computed together.
    pub rows: usize,
    /// True for one request of each run, so that runs can be counted by what their requests say.
    pub leads: bool,
}

/// An engine that does not compute a model although it was asked before the one that does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedOver {
    /// The engine's name.
    pub engine: &'static str,
    /// Why, in a word.
    pub why: Why,
    /// Why, for people.
    pub reason: String,
}

/// Why an engine does not compute a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Why {
    /// The manifest or the model's operators are for another one.
    NotChosen,
    /// It tried and could not.
    DoesNotLoad,
    /// It did not reproduce a sample.
    WrongAnswer,
}

/// A model with the session that computes it.
pub(super) struct Loaded {
    pub(super) title: String,
    pub(super) engine: &'static str,
    pub(super) inputs: Vec<TensorSpec>,
    pub(super) outputs: Vec<TensorSpec>,
    /// Dimensions of the inputs that have one size.
    pub(super) ties: Vec<Tie>,
    pub(super) allow_non_finite: bool,
    pub(super) passed_over: Vec<PassedOver>,
    pub(super) fallback: Fallback,
    pub(super) session: Box<dyn Session>,
    /// Of a session whose runs may be computed on their callers' threads.
    pub(super) pace: Option<Pace>,
    /// Places that a run takes.
    pub(super) threads: usize,
    /// Whether requests are computed together, and why or why not.
    pub(super) joins: Option<Joins>,
    pub(super) joins_because: String,
    /// Runs at the same time; 0 is any number. The queue counts `running`.
    pub(super) concurrency_max: usize,
    pub(super) running: AtomicUsize,
    /// Held as long as the session.
    pub(super) room: Option<Room>,
}

impl Loaded {
    /// Whether it computes as many runs as it may.
    pub(super) fn is_occupied(&self) -> bool {
        self.concurrency_max > 0 && self.running.load(Ordering::Relaxed) >= self.concurrency_max
    }

    /// Computes on this thread. The inputs are arranged; a panic is an error.
    pub(super) fn run(&self, inputs: &[NamedTensor]) -> Result<Vec<NamedTensor>, Error> {
        if !self.allow_non_finite {
            all_finite(inputs)?;
        }
        let outputs = self.run_unseen(inputs)?;
        if !self.allow_non_finite {
            all_finite(&outputs)?;
        }
        Ok(outputs)
    }

    /// The same without a look at the numbers.
    pub(super) fn run_unseen(&self, inputs: &[NamedTensor]) -> Result<Vec<NamedTensor>, Error> {
        let outputs = caught(&self.title, || self.session.run(inputs))?;
        for (spec, given) in self.outputs.iter().zip(&outputs) {
            if given.tensor.datatype() != spec.datatype {
                return Err(Error::Declared {
                    model: self.title.clone(),
                    what: format!("datatype of output {}", spec.name),
                    expected: spec.datatype.to_string(),
                    given: given.tensor.datatype().to_string(),
                });
            }
            if !spec.admits(given.tensor.shape()) {
                return Err(Error::Declared {
                    model: self.title.clone(),
                    what: format!("shape of output {}", spec.name),
                    expected: format!("{:?}", spec.shape),
                    given: format!("{:?}", given.tensor.shape()),
                });
            }
        }
        Ok(outputs)
    }
}

/// Runs a model's code; a panic in it becomes an error. Sessions promise to stay usable.
pub(super) fn caught<T>(model: &str, code: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(code)).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<&str>().map(ToString::to_string);
        let message = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(Error::Panicked { model: model.to_owned(), message })
    })
}

/// A loaded model that answers requests. Cheap to clone; the model goes when its last handle and request are gone.
#[derive(Clone)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
    pub(super) model: Arc<Loaded>,
    pub(super) lane: Lane,
}

impl Handle {
    /// The same model for sensors' readings: its requests go first and have a queue of their own, so that nobody's
    /// inference over HTTP can make a reading wait.
    #[must_use]
    pub fn for_sensors(&self) -> Self {
        Self { lane: Lane::Sensor, ..self.clone() }
    }

    /// `name/version` of the model.
    pub fn title(&self) -> &str {
        &self.model.title
    }

    /// Declared inputs.
    pub fn inputs(&self) -> &[TensorSpec] {
        &self.model.inputs
    }

    /// Declared outputs.
    pub fn outputs(&self) -> &[TensorSpec] {
        &self.model.outputs
    }

    /// The engine that computes it.
    pub fn engine(&self) -> &'static str {
        self.model.engine
    }

    /// The engines that were asked before and did not take it, or got a sample wrong.
    pub fn passed_over(&self) -> &[PassedOver] {
        &self.model.passed_over
    }

    /// How the host is that computes it. None for a model that is computed in this program.
    pub fn delegate(&self) -> Option<delegate::State> {
        self.model.session.delegate()
    }

    /// The engine that answers while the delegate does not.
    pub fn stand_in(&self) -> Option<&'static str> {
        self.model.fallback.stand_in.as_ref().map(|other| other.engine)
    }

    /// Whether requests that wait are computed together, and why or why not.
    pub fn batching(&self) -> &str {
        &self.model.joins_because
    }

    /// The most rows that are computed together; 1 where requests are computed one by one.
    pub fn batch_rows_max(&self) -> usize {
        self.model.joins.map_or(1, |joins| joins.rows_max)
    }

    /// Bytes that it reserved.
    pub fn memory_bytes(&self) -> u64 {
        self.model.room.as_ref().map_or(0, |room| room.bytes)
    }

    /// Computes on the pool's threads, or right here what is known to be over sooner. `timeout` counts from now, waiting
    /// included; None takes the configured one.
    /// Dropping the future takes the request out of the queue before it is computed.
    pub async fn infer(&self, inputs: Vec<NamedTensor>, timeout: Option<Duration>) -> Result<Outputs, Error> {
        self.infer_on(inputs, Terms { timeout, ..Terms::default() }).await
    }

    /// The same on other terms than the usual ones.
    pub async fn infer_on(&self, inputs: Vec<NamedTensor>, terms: Terms) -> Result<Outputs, Error> {
        let timeout = terms.timeout.unwrap_or(self.shared.timeout);
        let began_ns = self.shared.now_ns();
        let inputs = self.arranged(inputs)?;
        let input_ns = self.shared.now_ns().saturating_sub(began_ns);
        let answer = match self.here(inputs, terms) {
            Ok(answer) => answer,
            Err(inputs) => self.there(inputs, terms, timeout).await,
        };
        let received_ns = self.shared.now_ns();
        answer.map(|mut outputs| {
            let run = &mut outputs.run;
            run.input_ns += input_ns;
            run.output_ns = received_ns.saturating_sub(run.ended_ns);
            outputs
        })
    }

    /// Computes on the pool's threads.
    async fn there(&self, inputs: Vec<NamedTensor>, terms: Terms, timeout: Duration) -> Result<Outputs, Error> {
        let (answer, answered) = oneshot::channel();
        self.count(self.queue(inputs, terms, Caller::Async(answer)))?;
        match tokio::time::timeout(timeout, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => self.count(Err(Error::Closed)),
            Err(_) => self.count(Err(expired(timeout))),
        }
    }

    /// The same for a thread without an async runtime. Blocks; never call it from async code.
    pub fn infer_blocking(&self, inputs: Vec<NamedTensor>, timeout: Option<Duration>) -> Result<Outputs, Error> {
        let terms = Terms { timeout, ..Terms::default() };
        let timeout = timeout.unwrap_or(self.shared.timeout);
        let (answer, answered) = mpsc::sync_channel(1);
        let waiting = Arc::new(());
        let inputs = self.arranged(inputs)?;
        self.count(self.queue(inputs, terms, Caller::Blocking(answer, Arc::downgrade(&waiting))))?;
        match answered.recv_timeout(timeout) {
            Ok(answer) => answer,
            Err(mpsc::RecvTimeoutError::Disconnected) => self.count(Err(Error::Closed)),
            Err(mpsc::RecvTimeoutError::Timeout) => self.count(Err(expired(timeout))),
        }
    }

    fn arranged(&self, inputs: Vec<NamedTensor>) -> Result<Vec<NamedTensor>, Error> {
        let arranged = arrange(&self.model.inputs, inputs, self.shared.tensor_bytes_max);
        self.count(arranged.and_then(|inputs| check_ties(&self.model.ties, &inputs).map(|()| inputs)))
    }

    /// Computes a short run on this thread. The inputs come back where it is not known to be one, or its turn has not come.
    fn here(&self, inputs: Vec<NamedTensor>, terms: Terms) -> Result<Result<Outputs, Error>, Vec<NamedTensor>> {
        let is_brief = self.model.pace.as_ref().is_some_and(|pace| pace.is_brief(bytes_of(&inputs)));
        if !is_brief || terms.timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(inputs);
        }
        match self.shared.queue.place_now(self.lane, &self.model, terms.level()) {
            Some(_place) => Ok(run_here(&self.shared, &self.model, &inputs)),
            None => Err(inputs),
        }
    }

    fn queue(&self, inputs: Vec<NamedTensor>, terms: Terms, caller: Caller) -> Result<(), Error> {
        let bytes = bytes_of(&inputs);
        let rows = batching::rows(&inputs, self.model.joins);
        let (level, timeout) = (terms.level(), terms.timeout.unwrap_or(self.shared.timeout));
        let (model, queued) = (Arc::clone(&self.model), self.shared.clock.since_boot());
        self.shared.queue.push(self.lane, Job { model, inputs, bytes, rows, level, queued, timeout, caller })
    }

    fn count<T>(&self, answer: Result<T, Error>) -> Result<T, Error> {
        answer.inspect_err(|error| self.shared.metrics.failed(error))
    }
}

pub(super) fn bytes_of(inputs: &[NamedTensor]) -> usize {
    inputs.iter().map(|input| input.tensor.bytes().len()).sum()
}

pub(super) fn expired(timeout: Duration) -> Error {
    // Rounded up: nobody waits for 0 ms.
    Error::Expired { timeout_ms: u64::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(u64::MAX) }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("model", &self.model.title).field("engine", &self.model.engine).finish()
    }
}
