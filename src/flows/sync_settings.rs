//! Settings and counters of the sync flow.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::Deserialize;

use crate::base::Name;

/// Whose word lets a row leave the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AcknowledgedBy {
    /// The receiver's, after its commit (`forebay collect`, or whoever answers as `docs/batch.cddl` says). A broker
    /// that forgets what it took costs nothing.
    #[default]
    Receiver,
    /// The broker's: for rules, bridges and other consumers that answer nothing. What the broker forgets is gone.
    Broker,
}

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
    /// Whose word lets a row leave the queue. On a link that hears nothing it is the far side's own.
    pub acknowledged_by: AcknowledgedBy,
    /// Batches that the broker took and no receiver has confirmed yet, at once. They are kept in memory.
    pub unconfirmed_batches: usize,
    /// Their bytes; one larger batch still travels alone.
    pub unconfirmed_bytes: usize,
    /// A batch without a receipt for this long is sent again; the next waits double. While no receipt comes at all,
    /// only the oldest batch is.
    pub receipt_timeout_ms: u64,
    /// Longest such wait.
    pub receipt_most_ms: u64,
    /// Requests of the cloud that are looked at in a minute; 0 takes none.
    pub requests_per_minute: u32,
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
            acknowledged_by: AcknowledgedBy::Receiver,
            unconfirmed_batches: 64,
            unconfirmed_bytes: 1024 * 1024,
            receipt_timeout_ms: 10_000,
            receipt_most_ms: 600_000,
            requests_per_minute: 6,
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
    /// Batches that wait for their acknowledgement.
    pub in_flight: Gauge,
    /// Receipts that confirmed a batch.
    pub receipts: Counter,
    /// Receipts for nothing that was sent on this connection, or for other bytes: they change nothing.
    pub strange_receipts: Counter,
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
        registry.register("in_flight_batches", "Batches that wait for their acknowledgement", self.in_flight.clone());
        registry.register("receipts", "Batches that a receiver confirmed", self.receipts.clone());
        registry.register("strange_receipts", "Receipts for nothing that was sent", self.strange_receipts.clone());
    }
}
