//! What the ledger counts. Clones share their values.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of one ledger.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    pub(super) records: Counter,
    pub(super) dropped: Counter,
    pub(super) waiting: Gauge,
    pub(super) bytes: Gauge,
    pub(super) pruned: Counter,
    pub(super) folded: Counter,
    pub(super) flush_failures: Counter,
    pub(super) bad_sums: Counter,
}

impl Metrics {
    /// Puts the counters into `registry`, as `ledger_*`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("ledger");
        registry.register("records", "Requests that were recorded", self.records.clone());
        registry.register(
            "dropped",
            "Requests without a record, as too many waited; sums have them",
            self.dropped.clone(),
        );
        registry.register("waiting", "Records that wait for the disk", self.waiting.clone());
        registry.register("bytes", "Bytes of the file that records take", self.bytes.clone());
        registry.register("pruned_records", "Records that made room for newer ones", self.pruned.clone());
        registry.register("folded", "Requests that were summed up as (other)", self.folded.clone());
        registry.register("flush_failures", "Writes that failed and are tried again", self.flush_failures.clone());
        registry.register("bad_sums", "Sums whose checksum was wrong; they begin anew", self.bad_sums.clone());
    }

    /// Requests that have no record.
    pub fn dropped_records(&self) -> u64 {
        self.dropped.get()
    }
}
