//! Predictions counted: how many, how they ended, and where their time went.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::predict::{PredictError, Predicted};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Outcome {
    Answered,
    NotServing,
    Content,
    TooLarge,
    Busy,
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Part {
    part: &'static str,
}

/// Metrics of predictions; clones share their values.
#[derive(Debug, Clone)]
pub struct PredictMetrics {
    requests: Family<Ended, Counter>,
    instances: Counter,
    seconds: Family<Part, Histogram>,
    pub(super) waiting: Gauge,
}

impl Default for PredictMetrics {
    fn default() -> Self {
        // 10 us to 10 s.
        let histogram: fn() -> Histogram = || Histogram::new(exponential_buckets(1e-5, 4.0, 11));
        let seconds = Family::new_with_constructor(histogram);
        Self { requests: Family::default(), instances: Counter::default(), seconds, waiting: Gauge::default() }
    }
}

impl PredictMetrics {
    /// Adds them to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("predict_requests", "Predictions by how they ended", self.requests.clone());
        registry.register("predict_instances", "Pictures, sounds, texts and records answered", self.instances.clone());
        registry.register_with_unit(
            "predict",
            "Time of an answered prediction: waiting, steps before the model, model, steps after it",
            Unit::Seconds,
            self.seconds.clone(),
        );
        registry.register("predict_waiting_requests", "Predictions that wait for a thread", self.waiting.clone());
    }

    pub(super) fn answered(&self, predicted: &Predicted) {
        self.requests.get_or_create(&Ended { outcome: Outcome::Answered }).inc();
        self.instances.inc_by(predicted.predictions.len() as u64);
        let seconds = |us: u64| us as f64 / 1e6;
        let observe = |part, us| self.seconds.get_or_create(&Part { part }).observe(seconds(us));
        let model = predicted.laps.iter().position(|lap| lap.step == "model").unwrap_or(0);
        let sum = |laps: &[super::predict::Lap]| laps.iter().map(|lap| lap.us).sum::<u64>();
        observe("waiting", predicted.waited_us);
        observe("before", sum(&predicted.laps[..model]));
        observe("model", predicted.laps.get(model).map_or(0, |lap| lap.us));
        observe("after", sum(predicted.laps.get(model + 1..).unwrap_or_default()));
    }

    pub(super) fn refused(&self, error: &PredictError) {
        use super::inference::InferError;
        let outcome = match error {
            PredictError::NoSteps(_) | PredictError::NotBuilt { .. } => Outcome::NotServing,
            PredictError::Content(_) => Outcome::Content,
            PredictError::TooLarge(_) => Outcome::TooLarge,
            PredictError::Busy(_) => Outcome::Busy,
            PredictError::Failed(_) => Outcome::Failed,
            PredictError::Inference(error) => match error {
                InferError::NoModel(_) | InferError::NoVersion(_) | InferError::NotServing { .. } => {
                    Outcome::NotServing
                }
                InferError::Shape { .. } => Outcome::Content,
                InferError::Busy { .. } | InferError::Deadline { .. } => Outcome::Busy,
                InferError::Failed { .. } => Outcome::Failed,
            },
        };
        self.requests.get_or_create(&Ended { outcome }).inc();
    }
}
