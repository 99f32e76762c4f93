//! A version becomes one that serves, or the reason why not; those that nobody asks go to sleep.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::backend::Backend;
use super::load_spec::{fill, load_spec};
use super::model_view::passed_over;
use super::models::{Loaded, Models, chain};
use super::predict::Predictor;
use super::slot::{Slot, serving};
use super::speech::Speech;
use crate::catalog::Model;
use crate::engine::{self, Level, Pool, Why};

/// How often models are looked at that nobody has asked for a while.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Models {
    /// Loads what [`Slot::begins_loading`] gave to this caller, and says what came of it. Models that load on request and
    /// that nobody uses make room, the one first that was asked the longest ago. Takes as long as the model needs: not for
    /// an async thread.
    pub(super) fn load_now(&self, slot: &Slot) {
        let _panicked = Panicked(slot);
        let outcome = loop {
            if slot.graph.is_some() {
                break self.load_pipeline(slot);
            }
            match load_one(&slot.model, slot, &self.pool) {
                Err(refusal @ Refusal { no_room: true, .. }) if self.makes_room(slot) => {
                    tracing::info!(model = slot.title(), reason = refusal.reason, "another model made room");
                }
                outcome => break outcome,
            }
        };
        let about = &slot.model.manifest.model;
        slot.touch(self.clock.since_boot());
        match outcome {
            Ok(loaded) => {
                let passed_over = loaded.handle.handle().map(passed_over).unwrap_or_default().join("; ");
                tracing::info!(model.name = %about.name, model.version = about.version, model.engine = loaded.handle.engine(), batching = loaded.handle.batching(), passed_over, "model serves");
                slot.serves(loaded);
            }
            Err(Refusal { reason, may_pass, .. }) => {
                tracing::error!(model.name = %about.name, model.version = about.version, reason, "model does not serve");
                // What may be gone the next time is tried the next time, if requests load it at all.
                slot.fails(&reason, may_pass);
            }
        }
    }

    /// Puts the model to sleep that was asked the longest ago, of those that nobody needs now.
    fn makes_room(&self, but: &Slot) -> bool {
        let mut slots = self.all_slots();
        slots.sort_by_key(|slot| slot.used_ms());
        slots.iter().any(|slot| !std::ptr::eq(&raw const **slot, but) && self.may_sleep(slot) && slot.sleeps())
    }

    fn may_sleep(&self, slot: &Slot) -> bool {
        let about = &slot.model.manifest.model;
        !self.shelf().streams.contains_key(&(about.name.clone(), about.version))
    }

    /// Puts models to sleep that load on request and that nobody asked for their time, until `stop`; at once while the box
    /// has not enough for all.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        while tokio::time::timeout(LOOK_EVERY, stop.cancelled()).await.is_err() {
            self.put_idle_to_sleep();
        }
    }

    /// One look of [`keep`](Self::keep).
    pub fn put_idle_to_sleep(&self) {
        let now = self.clock.since_boot();
        let scarce = self.pool.condition().level > Level::Normal;
        for slot in self.all_slots() {
            let limit = Duration::from_secs(slot.how.idle_unload_s);
            let idle = scarce || (!limit.is_zero() && slot.idle(now) >= limit);
            if idle && self.may_sleep(&slot) && slot.sleeps() {
                tracing::info!(model = slot.title(), scarce, "model put to sleep: nobody asks");
            }
        }
    }
}

/// A load that ends with a panic has ended, and those who wait for it hear of it. Any other end is said before.
struct Panicked<'a>(&'a Slot);

impl Drop for Panicked<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fails("loading it panicked", false);
        }
    }
}

/// Why a version was not loaded.
pub(super) struct Refusal {
    pub(super) reason: String,
    /// Its memory is taken by others.
    pub(super) no_room: bool,
    /// It may be loaded later, as it is.
    pub(super) may_pass: bool,
}

impl From<engine::Error> for Refusal {
    fn from(error: engine::Error) -> Self {
        let no_room = matches!(error, engine::Error::NoRoom { .. });
        let may_pass = no_room || matches!(error, engine::Error::BackedOff { .. });
        Self { reason: chain(&error), no_room, may_pass }
    }
}

/// Loads one version, or says why not. Takes as long as the model needs: not for an async thread.
fn load_one(model: &Arc<Model>, slot: &Slot, pool: &Pool) -> Result<Arc<Loaded>, Refusal> {
    let how = serving(&slot.how);
    pool.has_room(&slot.title(), &model.manifest.model.format, model.size_bytes, &how)?;
    let spec = load_spec(model).map_err(|error| Refusal { reason: chain(&error), no_room: false, may_pass: false })?;
    let mut manifest = model.manifest.clone();
    fill(&mut manifest, &spec.inputs, &spec.outputs);
    if let Some(triton) = &model.triton {
        let reason = |reason| Refusal { reason, no_room: false, may_pass: false };
        triton.check(&manifest).map_err(reason)?;
        for note in &triton.notes {
            tracing::info!(model.name = %manifest.model.name, note, "left out of Triton's configuration");
        }
    }
    let predictor =
        Predictor::of(model, &manifest).map_err(|reason| Refusal { reason, no_room: false, may_pass: false })?;
    let handle = pool.load_as(&spec, &how)?;
    // An engine that was the right one and failed is news; one that was not chosen is not.
    for passed in handle.passed_over().iter().filter(|passed| passed.why != Why::NotChosen) {
        let (engine, reason, about) = (passed.engine, passed.reason.as_str(), &manifest.model);
        tracing::warn!(model.name = %about.name, model.version = about.version, model.engine = engine, reason, "an engine is passed over");
    }
    let (handle, tally, conduct) = (Backend::Engine(handle), Arc::clone(&slot.tally), Arc::clone(&slot.conduct));
    let (speech, request_rows_max) = (Speech::of(model, &spec.bytes), slot.request_rows_max);
    Ok(Arc::new(Loaded { manifest, handle, tally, conduct, predictor, request_rows_max, speech }))
}
