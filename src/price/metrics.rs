//! How many models have a price, and how often a cost was known.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::build::{Read, Source};
use super::cost::Cost;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Table {
    source: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Known {
    known: &'static str,
}

/// Counters of this room.
#[derive(Debug, Clone)]
pub struct Metrics {
    taken: Family<Table, Gauge>,
    left_out: Family<Table, Gauge>,
    costs: Family<Known, Counter>,
    // Of `costs`, found without a lock and a hash: every answer counts one.
    exact: Counter,
    at_most: Counter,
    unknown: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let costs = Family::<Known, Counter>::default();
        let of = |known| costs.get_or_create_owned(&Known { known });
        let (exact, at_most, unknown) = (of("exact"), of("at_most"), of("unknown"));
        Self { taken: Family::default(), left_out: Family::default(), costs, exact, at_most, unknown }
    }
}

impl Metrics {
    /// Adds them to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("price_models", "Models with a price, by table", self.taken.clone());
        registry.register("price_rows_left_out", "Rows of a table that gave no price", self.left_out.clone());
        registry.register("price_costs", "Answers by whether their cost is known", self.costs.clone());
    }

    /// Tells what was read of a table.
    pub fn table(&self, source: Source, read: &Read) {
        let of = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let label = Table { source: source.as_str() };
        self.taken.get_or_create(&label).set(of(read.taken));
        let left_out = read.known_before + read.not_by_token + read.zero + read.wrong + read.over_limit;
        self.left_out.get_or_create(&label).set(of(left_out));
    }

    /// Counts an answer by its cost.
    pub fn answered(&self, cost: Option<Cost>) {
        match cost {
            Some(Cost { at_most: false, .. }) => self.exact.inc(),
            Some(Cost { at_most: true, .. }) => self.at_most.inc(),
            None => self.unknown.inc(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_costs_and_rows_left_out_are_seen() {
        let metrics = Metrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        metrics.table(Source::LiteLlm, &Read { taken: 7, zero: 2, wrong: 1, ..Read::default() });
        metrics.answered(None);
        metrics.answered(Some(Cost { pico_usd: 1, at_most: true }));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "price_models{source=\"litellm\"} 7",
            "price_rows_left_out{source=\"litellm\"} 3",
            "price_costs_total{known=\"unknown\"} 1",
            "price_costs_total{known=\"at_most\"} 1",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}
