//! What the door counts about itself.

use std::time::Duration;

use axum::http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Class {
    class: &'static str,
}

/// Metrics of this room; clones share their values.
#[derive(Debug, Clone)]
pub struct Metrics {
    responses: Family<Class, Counter>,
    seconds: Histogram,
    pub(super) denied: Counter,
    pub(super) refused: Counter,
    pub(super) overloaded: Counter,
    pub(super) watchers: Gauge,
    pub(super) missed: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            responses: Family::default(),
            seconds: Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0]),
            denied: Counter::default(),
            refused: Counter::default(),
            overloaded: Counter::default(),
            watchers: Gauge::default(),
            missed: Counter::default(),
        }
    }
}

impl Metrics {
    /// Gives every metric its name. Counters get `_total` by themselves.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("http_responses", "HTTP responses by class of status", self.responses.clone());
        registry.register("http_request_seconds", "From request head to response head", self.seconds.clone());
        registry.register("http_denied", "Requests from callers nobody knows", self.denied.clone());
        registry.register("http_refused", "Requests for a foreign host or by another site", self.refused.clone());
        registry.register("http_overloaded", "Requests and watchers over the bound", self.overloaded.clone());
        registry.register("http_watchers", "Open event streams", self.watchers.clone());
        registry.register("http_missed_events", "Events that slow watchers missed", self.missed.clone());
    }

    pub(super) fn answered(&self, status: StatusCode, took: Duration) {
        let class = match status.as_u16() {
            100..=199 => "1xx",
            200..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            _ => "5xx",
        };
        self.responses.get_or_create(&Class { class }).inc();
        self.seconds.observe(took.as_secs_f64());
    }
}
