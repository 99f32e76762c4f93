//! What this room counts, by provider.

use std::fmt::Write as _;
use std::ops::Deref;
use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::error::Class;
use crate::base::Name;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Whose {
    provider: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Outcome {
    Answered,
    Failed(Class),
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(match self {
            Self::Answered => "answered",
            Self::Failed(class) => class.as_str(),
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct What {
    provider: String,
    outcome: Outcome,
}

/// Counters of this room; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    requests: Family<What, Counter>,
    in_flight: Family<Whose, Gauge>,
    connections: Family<Whose, Counter>,
    refused: Family<Whose, Counter>,
    cut: Family<What, Counter>,
    received: Family<Whose, Counter>,
    tokens: Family<Whose, Counter>,
}

impl Metrics {
    /// Puts the counters into `registry`, as `provider_*`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("provider");
        registry.register("requests", "Requests to providers, by what came of them", self.requests.clone());
        registry.register("in_flight", "Requests whose answer has not ended", self.in_flight.clone());
        registry.register("connections", "Connections opened", self.connections.clone());
        registry.register("refused", "Requests for which no connection was free", self.refused.clone());
        registry.register("cut_answers", "Answers that began and did not end", self.cut.clone());
        registry.register("received_bytes", "Bytes of answers", self.received.clone());
        registry.register("token_exchanges", "Access tokens asked for", self.tokens.clone());
    }

    /// Those of one provider, looked up once.
    pub(super) fn of(&self, provider: &Name) -> Counters {
        let whose = Whose { provider: provider.to_string() };
        let what = |outcome| What { provider: provider.to_string(), outcome };
        Counters(Arc::new(Each {
            answered: self.requests.get_or_create_owned(&what(Outcome::Answered)),
            failed: Class::ALL.map(|class| self.requests.get_or_create_owned(&what(Outcome::Failed(class)))),
            cut: Class::ALL.map(|class| self.cut.get_or_create_owned(&what(Outcome::Failed(class)))),
            in_flight: self.in_flight.get_or_create_owned(&whose),
            connections: self.connections.get_or_create_owned(&whose),
            refused: self.refused.get_or_create_owned(&whose),
            received: self.received.get_or_create_owned(&whose),
            tokens: self.tokens.get_or_create_owned(&whose),
        }))
    }
}

/// One provider's counters. Every answer holds them: a clone counts one reference, not one for each counter.
#[derive(Debug, Clone, Default)]
pub(super) struct Counters(Arc<Each>);

impl Deref for Counters {
    type Target = Each;

    fn deref(&self) -> &Each {
        &self.0
    }
}

#[derive(Debug, Default)]
pub(super) struct Each {
    pub(super) answered: Counter,
    failed: [Counter; Class::ALL.len()],
    cut: [Counter; Class::ALL.len()],
    pub(super) in_flight: Gauge,
    pub(super) connections: Counter,
    pub(super) refused: Counter,
    pub(super) received: Counter,
    pub(super) tokens: Counter,
}

impl Each {
    pub(super) fn failed(&self, class: Class) {
        self.failed[place(class)].inc();
    }

    pub(super) fn cut(&self, class: Class) {
        self.cut[place(class)].inc();
    }

    /// One more in flight, until what comes back is dropped.
    pub(super) fn enter(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }
}

fn place(class: Class) -> usize {
    Class::ALL.iter().position(|known| *known == class).expect("every class is in the list of all")
}

/// A request whose answer has not ended.
#[derive(Debug)]
pub(super) struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}
