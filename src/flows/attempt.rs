//! One version is asked once: its engine, its figures, its breaker, and perhaps a copy for a shadow.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;

use super::backend::{Backend, Outputs};
use super::fault::{Blame, Bound, Fault};
use super::inference::{InferError, Inference, Steps};
use super::key::Key;
use super::models::Loaded;
use super::slot::Slot;
use super::tally::Ran;
use super::traffic::Plan;
use super::way::Turn;
use crate::engine;
use crate::route::{Change, Outcome};

impl Inference {
    /// Asks the version whose turn it is, as a request of `began`, since boot. Its breaker hears what came of it, and a copy
    /// of what was answered may go to a shadow. `key` holds the steps of a pipeline to versions.
    pub(super) async fn ask(
        &self,
        plan: Option<&Arc<Plan>>,
        key: &Key,
        turn: &mut Turn,
        inputs: Vec<engine::NamedTensor>,
        terms: engine::Terms,
        began: Duration,
    ) -> Result<Outputs, Fault> {
        let loaded = &turn.loaded;
        let timeout = terms.timeout.unwrap_or(Duration::MAX);
        let timeout = turn.most.map_or(timeout, |most| most.min(timeout));
        let terms = engine::Terms { timeout: terms.timeout.map(|_| timeout), ..terms };
        let shadow = plan.and_then(|plan| self.shadow_of(plan, loaded)).map(|slot| (slot, inputs.clone()));
        let trace = self.traces.begin(loaded.manifest.model.name.as_str(), key.trace);
        // The steps of one request, and those of its copy, come to the same versions.
        let has_steps = loaded.handle.pipeline().is_some() || shadow.is_some();
        let steps = if has_steps { key.settled(|| self.draw()) } else { Key::default() };
        let steps = steps.within(trace.as_ref().map(|begun| begun.id));
        let asked = self.clock.since_boot();
        let slow = loaded.conduct.slow();
        let (answer, outcome) = match self.run(loaded, &steps, inputs, terms, Bound { timeout, slow }, began).await {
            Ok(outputs) => {
                let took = self.clock.since_boot().saturating_sub(asked);
                // An answer that took too long is better than none, and no good sign.
                let is_slow = slow.is_some_and(|slow| took >= slow);
                (Ok(outputs), Some(if is_slow { Outcome::Failed } else { Outcome::Answered }))
            }
            Err(fault) => {
                let outcome = matches!(fault.blame, Blame::Failed | Blame::Slow).then_some(Outcome::Failed);
                (Err(fault), outcome)
            }
        };
        if let Some(outcome) = outcome {
            let change = turn.pass.settle(outcome, self.clock.since_boot(), &mut *self.chance());
            // Nobody asks the breaker of a model whose requests are not spread.
            tell(change.filter(|_| self.models.plan(loaded.manifest.model.name.as_str()).is_some()), loaded);
        }
        if let Some(begun) = trace {
            let times = (began, self.clock.since_boot());
            self.traces.end(&begun, loaded, key, &answer, times);
        }
        if let (Ok(outputs), Some((slot, inputs)), Some(shadow)) =
            (&answer, shadow, plan.and_then(|plan| plan.shadow.as_ref()))
        {
            self.shadows.copy(slot, steps, inputs, outputs, shadow);
        }
        answer
    }

    /// The version that gets a copy of this request, if one does: by chance, and not the one that answers it.
    fn shadow_of(&self, plan: &Plan, loaded: &Loaded) -> Option<Arc<Slot>> {
        let shadow = plan.shadow.as_ref()?;
        if self.chance().random_range(0.0..100.0) >= shadow.percent {
            return None;
        }
        let slot = self.models.resolve(plan.model.as_str(), shadow.to.as_str()).ok()?;
        (slot.version() != loaded.manifest.model.version).then_some(slot)
    }

    /// Computes, and counts it as a request of `began`, since boot.
    async fn run(
        &self,
        loaded: &Loaded,
        key: &Key,
        inputs: Vec<engine::NamedTensor>,
        terms: engine::Terms,
        bound: Bound,
        began: Duration,
    ) -> Result<Outputs, Fault> {
        let took = || self.clock.since_boot().saturating_sub(began);
        let batch = inputs.first().and_then(|input| input.tensor.shape().first()).map_or(1, |&batch| batch as u64);
        let most = loaded.request_rows_max;
        if most > 0 && batch > u64::from(most) {
            let name = &loaded.manifest.model.name;
            let detail = format!("the request has a batch of {batch}, {name} was loaded with max_batch_size {most}");
            return Err(Fault { blame: Blame::Caller, error: InferError::Shape { detail } });
        }
        let ran = match &loaded.handle {
            Backend::Engine(handle) => {
                let ran = handle.infer_on(inputs, terms).await;
                ran.map(Outputs::from).map_err(|error| Fault::of(&error, handle, bound))
            }
            Backend::Pipeline(pipeline) => {
                let name = loaded.manifest.model.name.as_str();
                let steps = Steps { inference: self, key };
                let ran = self.models.compose(name, pipeline, &steps, inputs, terms).await;
                ran.map_err(|error| Fault::of_steps(error, bound))
            }
        };
        match ran {
            Ok(outputs) => {
                let compute = Duration::from_micros(outputs.duration_us);
                let ran = Ran {
                    compute,
                    waited: Duration::from_micros(outputs.run.waited_us),
                    input: Duration::from_nanos(outputs.run.input_ns),
                    output: Duration::from_nanos(outputs.run.output_ns),
                    rows: outputs.run.rows as u64,
                    leads: outputs.run.leads,
                };
                loaded.tally.answered(batch, took(), ran, self.clock.wall_ms());
                Ok(outputs)
            }
            Err(fault) => {
                loaded.tally.failed(took(), self.clock.wall_ms());
                Err(fault)
            }
        }
    }
}

/// A breaker that opens or closes is news.
fn tell(change: Option<Change>, loaded: &Loaded) {
    let about = &loaded.manifest.model;
    let (name, version, engine) = (&about.name, about.version, loaded.handle.engine());
    match change {
        None => {}
        Some(Change::Opened(why, wait)) => {
            let (reason, wait_ms) = (why.to_string(), u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
            tracing::warn!(model.name = %name, model.version = version, model.engine = engine, reason, wait_ms, "breaker opened: the version is passed over");
        }
        Some(Change::Closed) => {
            tracing::info!(model.name = %name, model.version = version, model.engine = engine, "breaker closed: the version is asked again");
        }
    }
}
