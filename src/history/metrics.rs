//! What history counts. Clones share their values.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of one history.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    pub(super) bytes: Gauge,
    pub(super) blocks: Counter,
    pub(super) yielded: Counter,
}

impl Metrics {
    /// Adds them to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("history_bytes", "Bytes of the file that readings take", self.bytes.clone());
        registry.register("history_blocks", "Blocks of readings that were made", self.blocks.clone());
        registry.register(
            "history_yielded_readings",
            "Readings that history forgot before their time, to stay within its bytes",
            self.yielded.clone(),
        );
    }

    /// Readings that were forgotten to stay within history's bytes.
    pub fn yielded_readings(&self) -> u64 {
        self.yielded.get()
    }
}
