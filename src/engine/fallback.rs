//! What becomes of a model whose delegate does not load it, or does not answer: another engine computes it, and says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::error::Error;
use super::handle::{Computed, Loaded, PassedOver, Why};
use super::pool::Pool;
use super::session::Engine;
use super::spec::{LoadSpec, NamedTensor};

/// Of a loaded model.
#[derive(Default)]
pub(super) struct Fallback {
    /// Why a delegate that was asked before its engine does not serve it.
    pub(super) reason: Option<Arc<str>>,
    /// The same model in an engine of this program, for when its delegate does not answer.
    pub(super) stand_in: Option<Box<Loaded>>,
    /// Whether that one computed the last request.
    stood_in: AtomicBool,
}

impl Fallback {
    /// A model was not loaded by `engine`; if that is a delegate, the answers of the next one say why.
    pub(super) fn missed(&mut self, engine: &dyn Engine, spec: &LoadSpec, error: &Error) {
        if engine.wants_stand_in(spec).is_some() {
            tracing::warn!(model = spec.title(), engine = engine.name(), reason = %error, "a delegate does not serve: the next engine does");
            self.reason.get_or_insert_with(|| error.to_string().into());
        }
    }
}

impl Pool {
    /// The model once more, in the first of `engines` that is of this program and computes it.
    pub(super) fn stand_in<'a>(
        &self,
        engines: impl Iterator<Item = &'a Arc<dyn Engine>>,
        spec: &LoadSpec,
        passed_over: &mut Vec<PassedOver>,
    ) -> Option<Box<Loaded>> {
        for engine in engines.filter(|engine| engine.wants_stand_in(spec).is_none()) {
            let error = match self.load_with(engine.as_ref(), spec) {
                Ok(model) => return Some(Box::new(model)),
                Err(error) => error,
            };
            let why = if matches!(error, Error::Sample { .. }) { Why::WrongAnswer } else { Why::DoesNotLoad };
            passed_over.push(PassedOver { engine: engine.name(), why, reason: format!("cannot stand in: {error}") });
        }
        None
    }
}

impl Loaded {
    /// Computes on this thread; where a delegate does not answer and another engine is loaded, there.
    pub(super) fn compute(&self, inputs: &[NamedTensor]) -> Result<Computed, Error> {
        let Fallback { reason, stand_in, stood_in } = &self.fallback;
        let error = match self.run(inputs) {
            Ok(tensors) => {
                if stood_in.load(Ordering::Relaxed) && stood_in.swap(false, Ordering::Relaxed) {
                    tracing::info!(model = self.title, engine = self.engine, "a delegate answers again");
                }
                return Ok(Computed { tensors, engine: self.engine, fallback: reason.clone() });
            }
            Err(error) => error,
        };
        let (Some(other), Error::Delegate { reason, .. } | Error::Run { reason, .. }) = (stand_in, &error) else {
            return Err(error);
        };
        // Where neither computes it, it is the request's fault, and the first word on it counts; but who can tell what is wrong
        // with the request knows better.
        let tensors = other.run(inputs).map_err(|other| match other {
            Error::Unfit { .. } => other,
            _ => error.clone(),
        })?;
        if !stood_in.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                model = self.title,
                engine = self.engine,
                stand_in = other.engine,
                reason,
                "a delegate does not answer: another engine does, until it is back"
            );
        }
        Ok(Computed { tensors, engine: other.engine, fallback: Some(reason.as_str().into()) })
    }
}
