//! What the inbox counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// Counters of one inbox. Clones share their values.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    pub(super) rows: Counter,
    pub(super) duplicates: Counter,
    pub(super) declared_lost: Counter,
    pub(super) refused: Counter,
}

impl Metrics {
    /// Adds every metric of this room to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("inbox_new_rows", "Rows committed for the first time", self.rows.clone());
        registry.register("inbox_duplicate_rows", "Rows that were there already", self.duplicates.clone());
        registry.register("inbox_declared_lost", "Numbers newly declared lost by a sender", self.declared_lost.clone());
        registry.register("inbox_refused_batches", "Batches refused by the limit on series", self.refused.clone());
    }
}
