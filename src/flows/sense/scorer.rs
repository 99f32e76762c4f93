//! Asking a stream's model for a score, without ever letting the model stop the stream.

use std::sync::Arc;
use std::time::Duration;

use super::config::ModelConfig;
use crate::base::Clock;
use crate::engine::{Handle, NamedTensor};
use crate::flows::models::{Loaded, Models, chain, normalisation};
use crate::signal::Normaliser;

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

/// Why a stream's model cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum ScorerError {
    /// A pipeline is for apps.
    #[error("model {model} is a pipeline, which does not score streams: name one of its models")]
    Pipeline {
        /// `name/version`.
        model: String,
    },
    /// The model takes several inputs, or none.
    #[error("model {model} takes {inputs} inputs; a stream feeds exactly one")]
    Inputs {
        /// `name/version`.
        model: String,
        /// How many it takes.
        inputs: usize,
    },
    /// The features do not fill the model's input.
    #[error(
        "model {model} takes {expected:?} (-1 is any size) and the stream's features are {features} numbers; set window.size and features to fit"
    )]
    Shape {
        /// `name/version`.
        model: String,
        /// The input's shape.
        expected: Vec<i64>,
        /// Numbers a window gives.
        features: usize,
    },
    /// No such output.
    #[error("model {model} has no output {output:?}; it has {outputs}")]
    Output {
        /// `name/version`.
        model: String,
        /// The configured name.
        output: String,
        /// What there is.
        outputs: String,
    },
    /// The manifest's statistics do not fit the features.
    #[error("failed to use the normalisation of model {model}")]
    Normalise {
        /// `name/version`.
        model: String,
        /// What does not fit.
        source: crate::signal::Error,
    },
}

/// A model bound to a stream, with a breaker: after some failures in a row it is left alone for a while.
pub(super) struct Scorer {
    handle: Handle,
    normaliser: Normaliser,
    input: Arc<str>,
    config: ModelConfig,
    title: String,
    clock: Arc<dyn Clock>,
    failures: u32,
    rests_until: Duration,
}

impl Scorer {
    /// Binds the model; `features` is how many numbers a window gives.
    pub(super) fn bind(
        config: &ModelConfig,
        loaded: &Loaded,
        features: usize,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ScorerError> {
        let about = &loaded.manifest.model;
        let model = format!("{}/{}", about.name, about.version);
        // A reading waits for nothing but its own model's turn.
        let Some(handle) = loaded.handle.handle() else { return Err(ScorerError::Pipeline { model }) };
        let [input] = loaded.manifest.inputs.as_slice() else {
            return Err(ScorerError::Inputs { model, inputs: loaded.manifest.inputs.len() });
        };
        let Some(shape) = input.sample_shape(features) else {
            return Err(ScorerError::Shape { model, expected: input.shape.clone(), features });
        };
        let names: Vec<_> = loaded.manifest.outputs.iter().map(|output| output.name.as_str()).collect();
        if !names.contains(&config.score.as_str()) {
            return Err(ScorerError::Output { model, output: config.score.clone(), outputs: names.join(", ") });
        }
        let normaliser = Normaliser::new(&normalisation(&loaded.manifest), shape)
            .map_err(|source| ScorerError::Normalise { model: model.clone(), source })?;
        Ok(Self {
            handle: handle.for_sensors(),
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
        let outputs = self.handle.infer(inputs, Some(timeout)).await.map_err(|error| chain(&error))?;
        let first = |name: &str| {
            let output = outputs.tensors.iter().find(|output| &*output.name == name)?;
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
