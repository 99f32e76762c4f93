//! What the MQTT door counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// Counters of the MQTT door.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Sockets accepted.
    pub accepted: Counter,
    /// Sockets closed at once: too many connections.
    pub over_limit: Counter,
    /// Connections that did not get past TLS, WebSocket or CONNECT.
    pub refused: Counter,
    /// Connections closed for breaking the protocol.
    pub faults: Counter,
    /// Connections closed because nothing was heard for 1.5 times the keep-alive.
    pub silent: Counter,
    /// Publishes and filters that the identity may not use.
    pub denied: Counter,
    /// Deliveries larger than the client's Maximum Packet Size.
    pub too_large: Counter,
    /// Payloads of MQTT 3.1.1 clients that no stream could read: acknowledged, or they would come for ever.
    pub unreadable: Counter,
}

impl Metrics {
    /// Registers all of them.
    pub fn register(&self, registry: &mut Registry) {
        let mut counter = |name: &str, help: &str, counter: &Counter| registry.register(name, help, counter.clone());
        counter("mqtt_accepted_connections", "Sockets accepted", &self.accepted);
        counter("mqtt_over_limit_connections", "Sockets closed because there were too many", &self.over_limit);
        counter("mqtt_refused_connections", "Connections refused before or at CONNECT", &self.refused);
        counter("mqtt_protocol_faults", "Connections closed for breaking the protocol", &self.faults);
        counter("mqtt_silent_connections", "Connections closed after 1.5 times the keep-alive", &self.silent);
        counter("mqtt_denied_requests", "Publishes and filters the identity may not use", &self.denied);
        counter("mqtt_too_large_deliveries", "Deliveries over the client's Maximum Packet Size", &self.too_large);
        counter("mqtt_unreadable_payloads", "Unreadable MQTT 3.1.1 payloads, acknowledged", &self.unreadable);
    }
}
