//! What the broker counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters and gauges of the broker.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Messages that came in, from clients and from inside.
    pub received: Counter,
    /// Deliveries handed to connections.
    pub delivered: Counter,
    /// QoS 0 deliveries dropped at a full queue.
    pub dropped_qos0: Counter,
    /// QoS 1 and 2 deliveries that a full persistent queue did not take.
    pub dropped_persistent: Counter,
    /// Messages that expired before they were delivered.
    pub expired: Counter,
    /// QoS 0 readings that a busy tap did not take.
    pub dropped_tap: Counter,
    /// QoS 1 and 2 publishes that were refused.
    pub refused: Counter,
    /// Queued and retained messages whose checksum was wrong.
    pub corrupt: Counter,
    /// Queued and retained messages that came back from a file that was set aside.
    pub salvaged: Counter,
    /// Clients disconnected because their queue was full.
    pub overflowed: Counter,
    /// Clients connected now.
    pub connected: Gauge,
    /// Sessions, with and without a connection.
    pub sessions: Gauge,
    /// Retained messages.
    pub retained: Gauge,
    /// Bytes waiting for persistent sessions.
    pub persistent_bytes: Gauge,
}

impl Metrics {
    /// Registers all of them.
    pub fn register(&self, registry: &mut Registry) {
        let mut counter = |name: &str, help: &str, counter: &Counter| registry.register(name, help, counter.clone());
        counter("broker_received_messages", "Messages published by clients and from inside", &self.received);
        counter("broker_delivered_messages", "Deliveries handed to connections", &self.delivered);
        counter("broker_dropped_qos0_messages", "QoS 0 deliveries dropped at a full queue", &self.dropped_qos0);
        counter(
            "broker_dropped_persistent_messages",
            "QoS 1 and 2 deliveries that a full persistent queue did not take",
            &self.dropped_persistent,
        );
        counter("broker_expired_messages", "Messages that expired before delivery", &self.expired);
        counter("broker_dropped_tap_messages", "QoS 0 readings that a busy stream did not take", &self.dropped_tap);
        counter("broker_refused_messages", "QoS 1 and 2 publishes that were refused", &self.refused);
        counter("broker_corrupt_messages", "Queued and retained messages with a wrong checksum", &self.corrupt);
        let help = "Queued and retained messages that came back from a file that was set aside";
        counter("broker_salvaged_messages", help, &self.salvaged);
        counter("broker_overflowed_clients", "Clients disconnected at a full queue", &self.overflowed);
        let mut gauge = |name: &str, help: &str, gauge: &Gauge| registry.register(name, help, gauge.clone());
        gauge("broker_connected_clients", "Clients connected now", &self.connected);
        gauge("broker_sessions", "Sessions, with and without a connection", &self.sessions);
        gauge("broker_retained_messages", "Retained messages", &self.retained);
        gauge("broker_persistent_queue_bytes", "Bytes waiting for persistent sessions", &self.persistent_bytes);
    }
}
