//! Asking a stream's model for a score, without ever letting the model stop the stream.

use std::sync::Arc;
use std::time::Duration;

use super::config::ModelConfig;
use super::fit::{ScorerError, fit};
use super::steps::Steps;
use crate::base::Clock;
use crate::catalog::{Manifest, NormaliseMethod, Values};
use crate::engine::{Handle, NamedTensor};
use crate::flows::backend::Backend;
use crate::flows::models::{Loaded, Models, chain};
use crate::signal::{Normalise, Normaliser};

/// A stream begins without scores rather than wait longer for its model.
const LOADS_WITHIN: Duration = Duration::from_secs(60);

/// What a model says of a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Score {
    /// How unusual.
    pub score: f64,
    /// What it expected of the first field, in the field's unit.
    pub expected: Option<f64>,
}

/// Who gives the scores.
enum Asked {
    Model(Handle),
    Pipeline(Box<Steps>),
}

/// A model bound to a stream, with a breaker: after some failures in a row it is left alone for a while.
pub(super) struct Scorer {
    asked: Asked,
    normaliser: Normaliser,
    input: Arc<str>,
    config: ModelConfig,
    title: String,
    clock: Arc<dyn Clock>,
    failures: u32,
    rests_until: Duration,
}

impl Scorer {
    /// Binds the model to the stream of this name; `features` is how many numbers a window gives.
    pub(super) fn bind(
        config: &ModelConfig,
        stream: &str,
        models: &Arc<Models>,
        loaded: &Loaded,
        features: usize,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ScorerError> {
        let manifest = &loaded.manifest;
        let model = format!("{}/{}", manifest.model.name, manifest.model.version);
        let (input, shape) = fit(&model, &manifest.inputs, &manifest.outputs, config, features)?;
        let normaliser = Normaliser::new(&normalisation(manifest), shape)
            .map_err(|source| ScorerError::Normalise { model: model.clone(), source })?;
        let asked = match &loaded.handle {
            Backend::Engine(handle) => Asked::Model(handle.for_sensors()),
            Backend::Pipeline(pipeline) => Asked::Pipeline(Box::new(Steps::of(manifest, pipeline, stream, models))),
        };
        Ok(Self {
            asked,
            normaliser,
            input: input.name.as_str().into(),
            config: config.clone(),
            title: model,
            clock,
            failures: 0,
            rests_until: Duration::ZERO,
        })
    }

    /// `name/version`.
    pub(super) fn title(&self) -> &str {
        &self.title
    }

    /// The score of one window, or `None`: too slow, failing, or resting after failures. Never an error: a reading
    /// without a score is a reading all the same.
    pub(super) async fn score(&mut self, features: Vec<f32>) -> Option<Score> {
        if self.clock.since_boot() < self.rests_until {
            return None;
        }
        match self.ask(features).await {
            Ok(score) => {
                self.failures = 0;
                Some(score)
            }
            Err(reason) => {
                self.failures += 1;
                let rests = self.failures >= self.config.failures;
                tracing::warn!(model.name = self.title, failures = self.failures, rests, reason, "no score");
                if rests {
                    self.failures = 0;
                    self.rests_until = self.clock.since_boot() + Duration::from_millis(self.config.rest_ms);
                }
                None
            }
        }
    }

    async fn ask(&self, features: Vec<f32>) -> Result<Score, String> {
        let tensor = self.normaliser.apply(features).map_err(|error| chain(&error))?;
        let inputs = vec![NamedTensor::new(Arc::clone(&self.input), tensor)];
        let timeout = Duration::from_millis(self.config.timeout_ms);
        let outputs = match &self.asked {
            Asked::Model(handle) => handle.infer(inputs, Some(timeout)).await.map_err(|error| chain(&error))?.tensors,
            Asked::Pipeline(steps) => steps.infer(inputs, timeout).await?,
        };
        let first = |name: &str| {
            let output = outputs.iter().find(|output| &*output.name == name)?;
            output.tensor.to_numbers()?.first().copied()
        };
        let score = first(&self.config.score).ok_or("the score is missing from the outputs")?;
        let expected = first(&self.config.expected).map(|value| self.normaliser.restore(0, value));
        Ok(Score { score, expected })
    }
}

/// The stream's model, if it has one that serves; loaded first, where it loads on request.
pub(super) async fn find(config: &ModelConfig, models: &Arc<Models>) -> Result<Arc<Loaded>, String> {
    let loaded = models.ready(config.name.as_str(), config.version, LOADS_WITHIN).await;
    loaded.map_err(|error| error.to_string())
}

/// How the manifest says that features were scaled in training.
fn normalisation(manifest: &Manifest) -> Normalise {
    let list = |values: &Option<Values>| values.as_ref().map_or_else(Vec::new, |values| values.as_slice().to_vec());
    match &manifest.normalise {
        None => Normalise::None,
        Some(normalise) => match normalise.method {
            NormaliseMethod::None => Normalise::None,
            NormaliseMethod::Zscore => Normalise::Zscore { mean: list(&normalise.mean), std: list(&normalise.std) },
            NormaliseMethod::Minmax => Normalise::MinMax { min: list(&normalise.min), max: list(&normalise.max) },
        },
    }
}
