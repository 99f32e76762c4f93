//! How delegates' hosts are.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// Why a host had to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Cause {
    /// It ended by itself.
    Ended,
    /// No answer in time.
    Hung,
    /// It broke the agreement.
    Lied,
    /// Over its memory limit.
    Memory,
    /// It refused several requests in a row.
    Refusals,
    /// It did not start.
    Start,
}

impl Cause {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Hung => "hung",
            Self::Lied => "lied",
            Self::Memory => "memory",
            Self::Refusals => "refusals",
            Self::Start => "start",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Model {
    model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Restart {
    model: String,
    cause: Cause,
}

/// Metrics of delegates.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    up: Family<Model, Gauge>,
    memory: Family<Model, Gauge>,
    restarts: Family<Restart, Counter>,
}

impl Metrics {
    /// Adds them to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("delegate_up", "Whether a delegate's host answers", self.up.clone());
        registry.register_with_unit("delegate_memory", "Memory of a delegate's host", Unit::Bytes, self.memory.clone());
        registry.register("delegate_restarts", "Hosts that had to go, by cause", self.restarts.clone());
    }

    pub(super) fn up(&self, model: &str, up: bool) {
        self.up.get_or_create(&Model { model: model.to_owned() }).set(i64::from(up));
    }

    pub(super) fn memory(&self, model: &str, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.memory.get_or_create(&Model { model: model.to_owned() }).set(bytes);
    }

    pub(super) fn restarted(&self, model: &str, cause: Cause) {
        self.restarts.get_or_create(&Restart { model: model.to_owned(), cause }).inc();
    }

    /// Forgets a model that was taken away.
    pub(super) fn forget(&self, model: &str) {
        self.up.remove(&Model { model: model.to_owned() });
        self.memory.remove(&Model { model: model.to_owned() });
    }
}
