//! How long inferences wait and take, how many wait now, and what fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::error::{Error, Kind};
use super::handle::Why;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Labels {
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfModel {
    model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PassedOver {
    engine: &'static str,
    why: Why,
}

/// Metrics of this room.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(super) queue_depth: Gauge,
    pub(super) abandoned: Counter,
    pub(super) batches: Counter,
    pub(super) batched: Counter,
    pub(super) spoiled: Counter,
    pub(super) memory_bytes: Gauge,
    pub(super) threads_allowed: Gauge,
    pub(super) level: Gauge,
    queue_wait: Histogram,
    inference: Histogram,
    computed_ns: Arc<AtomicU64>,
    errors: Family<Labels, Counter>,
    fallbacks: Family<OfModel, Counter>,
    passed_over: Family<PassedOver, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        // 2 us to 8 s.
        let buckets = || Histogram::new(exponential_buckets(2e-6, 4.0, 12));
        Self {
            queue_depth: Gauge::default(),
            abandoned: Counter::default(),
            batches: Counter::default(),
            batched: Counter::default(),
            spoiled: Counter::default(),
            memory_bytes: Gauge::default(),
            threads_allowed: Gauge::default(),
            level: Gauge::default(),
            queue_wait: buckets(),
            inference: buckets(),
            computed_ns: Arc::default(),
            errors: Family::default(),
            fallbacks: Family::default(),
            passed_over: Family::default(),
        }
    }
}

impl Metrics {
    /// Adds them to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("engine_queue_depth_requests", "Inferences that wait", self.queue_depth.clone());
        registry.register("engine_abandoned", "Inferences not computed: caller gone", self.abandoned.clone());
        registry.register("engine_batches", "Runs for several requests together", self.batches.clone());
        registry.register("engine_batched_requests", "Requests answered by such runs", self.batched.clone());
        let spoiled = "Such runs that failed, whose requests were then computed one by one";
        registry.register("engine_spoiled_batches", spoiled, self.spoiled.clone());
        registry.register("engine_memory_reserved_bytes", "Reserved by loaded models", self.memory_bytes.clone());
        registry.register("engine_threads_allowed", "Threads that may compute now", self.threads_allowed.clone());
        let level = "Service of models: 0 normal, 1 reduced, 2 minimal";
        registry.register("engine_back_off_level", level, self.level.clone());
        registry.register_with_unit("engine_queue_wait", "Time in the queue", Unit::Seconds, self.queue_wait.clone());
        registry.register_with_unit("engine_inference", "Time to compute", Unit::Seconds, self.inference.clone());
        registry.register("engine_errors", "Models not loaded and requests not answered", self.errors.clone());
        registry.register(
            "engine_fallbacks",
            "Inferences that a delegate should have computed",
            self.fallbacks.clone(),
        );
        let help = "Models that an engine was chosen for and did not load or answered wrong";
        registry.register("engine_passed_over", help, self.passed_over.clone());
    }

    pub(super) fn waited(&self, wait: Duration) {
        self.queue_wait.observe(wait.as_secs_f64());
    }

    pub(super) fn computed(&self, took: Duration) {
        self.inference.observe(took.as_secs_f64());
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.computed_ns.fetch_add(took_ns, Ordering::Relaxed);
    }

    /// Time that models have computed since the start.
    pub fn computed_time(&self) -> Duration {
        Duration::from_nanos(self.computed_ns.load(Ordering::Relaxed))
    }

    pub(super) fn fell_back(&self, model: &str) {
        self.fallbacks.get_or_create(&OfModel { model: model.to_owned() }).inc();
    }

    pub(super) fn failed(&self, error: &Error) {
        self.errors.get_or_create(&Labels { kind: error.kind() }).inc();
    }

    pub(super) fn passed_over(&self, engine: &'static str, why: Why) {
        self.passed_over.get_or_create(&PassedOver { engine, why }).inc();
    }

    #[cfg(test)]
    pub(super) fn passed_over_of(&self, engine: &'static str, why: Why) -> u64 {
        self.passed_over.get_or_create(&PassedOver { engine, why }).get()
    }

    #[cfg(test)]
    pub(super) fn errors_of(&self, kind: Kind) -> u64 {
        self.errors.get_or_create(&Labels { kind }).get()
    }
}
