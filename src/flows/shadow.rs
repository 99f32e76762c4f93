//! Copies of requests for a version whose answer nobody waits for: queued when the answer is there, computed when nothing else waits, compared, thrown away.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::backend::Outputs;
use super::difference::compare;
use super::inference::{InferError, Inferred, Question};
use super::key::Key;
use super::models::Models;
use super::pipeline::Members;
use super::slot::Slot;
use crate::catalog::Shadow;
use crate::engine::{NamedTensor, Terms};
use crate::pipeline::{Member, Port};

/// Copies that wait, of all models.
const COPIES_MAX: usize = 64;
/// Bytes of their tensors, the answers that they are compared with included.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// The last of the engine's priorities: a copy begins only when no request waits.
const PRIORITY: u64 = 9;
/// How long a copy waits for its version to be loaded, and then for its answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes that a copy holds, given back when it goes.
struct Held {
    bytes: usize,
    all: Arc<AtomicUsize>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

struct Copy {
    slot: Arc<Slot>,
    key: Key,
    inputs: Vec<NamedTensor>,
    answer: Outputs,
    tolerance: f64,
    relative_tolerance: f64,
    _held: Held,
}

/// The queue of copies.
pub(super) struct Shadows {
    queue: mpsc::Sender<Copy>,
    waiting: Mutex<Option<mpsc::Receiver<Copy>>>,
    bytes: Arc<AtomicUsize>,
}

impl Shadows {
    pub(super) fn new() -> Self {
        let (queue, waiting) = mpsc::channel(COPIES_MAX);
        Self { queue, waiting: Mutex::new(Some(waiting)), bytes: Arc::default() }
    }

    /// Queues a copy of a request that `answer` answered, for a version whose own steps `key` holds. Waits for nothing:
    /// without room it is dropped and counted.
    pub(super) fn copy(&self, slot: Arc<Slot>, key: Key, inputs: Vec<NamedTensor>, answer: &Outputs, shadow: &Shadow) {
        let of = |tensors: &[NamedTensor]| tensors.iter().map(|named| named.tensor.bytes().len()).sum::<usize>();
        let bytes = of(&inputs) + of(&answer.tensors);
        let held = Held { bytes, all: Arc::clone(&self.bytes) };
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let conduct = Arc::clone(&slot.conduct);
        // A single one may be over the bound: it waits alone.
        let fits = before == 0 || before.saturating_add(bytes) <= BYTES_MAX;
        let copy = Copy {
            slot,
            key,
            inputs,
            answer: answer.clone(),
            tolerance: shadow.tolerance,
            relative_tolerance: shadow.relative_tolerance,
            _held: held,
        };
        if !fits || self.queue.try_send(copy).is_err() {
            conduct.copy_dropped();
        }
    }

    /// Computes and compares copies until `stop`, one at a time, so that they never have more than one of the engine's
    /// threads. Only the first call does anything.
    pub(super) async fn run(&self, models: &Arc<Models>, stop: CancellationToken) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut waiting) = waiting else { return };
        let copies = async {
            while let Some(copy) = waiting.recv().await {
                compute(models, copy).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = copies => {}
        }
    }
}

/// Asks the models in a pipeline that gets copies, loaded first where they sleep: nobody counts them either.
struct Quiet<'a> {
    models: &'a Arc<Models>,
    key: &'a Key,
}

impl Members for Quiet<'_> {
    fn ask(&self, question: Question) -> BoxFuture<'_, Result<Inferred, InferError>> {
        async move {
            let slot = self.models.held(&question.model, question.version, self.key)?;
            let loaded = self.models.ready_in(&slot, question.deadline).await?;
            self.models.ask_quietly(&loaded, self, question).await
        }
        .boxed()
    }

    fn gives(&self, member: &Member) -> Result<Vec<Port>, InferError> {
        self.models.gives(member).map_err(|reason| InferError::NotServing { reason })
    }
}

/// Asks the version, and tells it apart from the answer. What it served, its breaker and its callers know nothing of it.
async fn compute(models: &Arc<Models>, copy: Copy) {
    let Copy { slot, key, inputs, answer, tolerance, relative_tolerance, _held } = copy;
    let outcome = match models.ready_in(&slot, PATIENCE).await {
        Err(refusal) => Err(refusal.to_string()),
        Ok(loaded) => {
            let terms = Terms { timeout: Some(PATIENCE), priority: PRIORITY };
            let members = Quiet { models, key: &key };
            let computed = models.compute_quietly(&loaded, &members, inputs, terms).await;
            computed.map_err(|error| error.to_string())
        }
    };
    let outcome = outcome.map(|given| {
        let comparison = compare(&answer.tensors, &given.tensors, tolerance, relative_tolerance);
        (comparison, given.duration_us, answer.duration_us)
    });
    if let Ok((comparison, ..)) = &outcome
        && let Some(what) = &comparison.differs
    {
        tracing::debug!(model = slot.title(), what, "a shadow's answer differs");
    }
    slot.conduct.copied(outcome);
}
