//! Settings and counters of the sync flow.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::Deserialize;

use crate::base::Name;

/// How batches are made and how failures are waited out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SyncConfig {
    /// First level of every topic: the customer or site.
    pub tenant: Name,
    /// Rows of one batch at most.
    pub batch_rows: usize,
    /// Payload bytes of one batch at most; one larger row still travels alone.
    pub batch_bytes: usize,
    /// How long rows may wait for company. Alarms never wait.
    pub linger_ms: u64,
    /// First wait after a loss of the link or a refusal; the next ones double, with jitter.
    pub retry_first_ms: u64,
    /// Longest such wait.
    pub retry_most_ms: u64,
    /// At the end: how long to wait for the answers to what was sent.
    pub drain_ms: u64,
}

impl Default for SyncConfig {
    fn default() -> Self {
        Self {
            tenant: Name::new("default").expect("letters only"),
            batch_rows: 512,
            batch_bytes: 64 * 1024,
            linger_ms: 200,
            retry_first_ms: 500,
            retry_most_ms: 60_000,
            drain_ms: 2_000,
        }
    }
}

/// What the flow counts; clones share it.
#[derive(Debug, Clone, Default)]
pub struct SyncMetrics {
    /// Batches acknowledged.
    pub batches: Counter,
    /// Rows acknowledged.
    pub rows: Counter,
    /// Payload bytes handed to the link.
    pub bytes: Counter,
    /// Batches that held rows sent before.
    pub resent: Counter,
    /// Losses of the link, refused batches and failed reads of the queue.
    pub failures: Counter,
    /// Rows that are too large for the far side and were declared lost.
    pub unsendable: Counter,
    /// Batches that wait for their answer.
    pub in_flight: Gauge,
}

impl SyncMetrics {
    /// Puts the counters into `registry`, as `sync_*`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("sync");
        registry.register("batches", "Batches acknowledged by the cloud", self.batches.clone());
        registry.register("rows", "Rows acknowledged by the cloud", self.rows.clone());
        registry.register("sent_bytes", "Payload bytes handed to the link", self.bytes.clone());
        registry.register("resent_batches", "Batches that held rows sent before", self.resent.clone());
        registry.register("failures", "Losses of the link, refusals, failed reads", self.failures.clone());
        registry.register("unsendable_rows", "Rows too large for the cloud, declared lost", self.unsendable.clone());
        registry.register("in_flight_batches", "Batches that wait for their answer", self.in_flight.clone());
    }
}
