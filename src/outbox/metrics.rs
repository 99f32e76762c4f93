//! What the outbox counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of one outbox. Clones share their values.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    pub(super) appended: Counter,
    pub(super) deleted: Counter,
    pub(super) rows: Gauge,
    pub(super) burned: Counter,
    pub(super) corrupt: Counter,
    pub(super) salvaged: Counter,
    pub(super) quarantined: Counter,
}

impl Metrics {
    /// Adds every metric of this room to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("outbox_appended_rows", "Rows committed to the queue", self.appended.clone());
        registry.register("outbox_deleted_rows", "Rows deleted after an acknowledgement", self.deleted.clone());
        registry.register("outbox_rows", "Rows waiting for the cloud", self.rows.clone());
        registry.register("outbox_burned_numbers", "Numbers burned by failed commits", self.burned.clone());
        registry.register("outbox_corrupt_rows", "Rows lost to a wrong checksum", self.corrupt.clone());
        let help = "Rows brought back from files that were set aside";
        registry.register("outbox_salvaged_rows", help, self.salvaged.clone());
        let help = "Numbers of files that were set aside for which no row was found";
        registry.register("outbox_quarantined_numbers", help, self.quarantined.clone());
    }
}
