//! Copies of requests for a version whose answer nobody waits for: queued when the answer is there, computed when nothing else waits, compared, thrown away.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::backend::Outputs;
use super::difference::compare;
use super::models::Models;
use super::slot::Slot;
use crate::catalog::Shadow;
use crate::engine::{NamedTensor, Terms};

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

    /// Queues a copy of a request that `answer` answered. Waits for nothing: without room it is dropped and counted.
    pub(super) fn copy(&self, slot: Arc<Slot>, inputs: Vec<NamedTensor>, answer: &Outputs, shadow: &Shadow) {
        let of = |tensors: &[NamedTensor]| tensors.iter().map(|named| named.tensor.bytes().len()).sum::<usize>();
        let bytes = of(&inputs) + of(&answer.tensors);
        let held = Held { bytes, all: Arc::clone(&self.bytes) };
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let conduct = Arc::clone(&slot.conduct);
        // A single one may be over the bound: it waits alone.
        let fits = before == 0 || before.saturating_add(bytes) <= BYTES_MAX;
        let copy = Copy {
            slot,
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

/// Asks the version, and tells it apart from the answer. What it served, its breaker and its callers know nothing of it.
async fn compute(models: &Arc<Models>, copy: Copy) {
    let Copy { slot, inputs, answer, tolerance, relative_tolerance, _held } = copy;
    let outcome = match models.ready_in(&slot, PATIENCE).await {
        Err(refusal) => Err(refusal.to_string()),
        Ok(loaded) => {
            let terms = Terms { timeout: Some(PATIENCE), priority: PRIORITY };
            models.compute(&loaded, inputs, terms).await.map_err(|error| error.to_string())
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
