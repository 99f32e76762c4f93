//! What the link counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of one link; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Connections that came up.
    pub connections: Counter,
    /// Attempts to connect that failed, and connections that ended.
    pub losses: Counter,
    /// Messages handed to a connection, again ones included.
    pub sent: Counter,
    /// Payload bytes of those messages.
    pub sent_bytes: Counter,
    /// Messages acknowledged.
    pub acknowledged: Counter,
    /// Messages that the far side refused or had nobody for.
    pub refused: Counter,
    /// Messages from the cloud.
    pub heard: Counter,
    /// Messages from the cloud that were too long, or too many at once.
    pub unheard: Counter,
    /// 2 up, 1 degraded, 0 down.
    pub state: Gauge,
}

impl Metrics {
    /// Puts the counters into `registry`, as `uplink_*`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("uplink");
        registry.register("connections", "Connections to the cloud that came up", self.connections.clone());
        registry.register("losses", "Failed attempts and ended connections", self.losses.clone());
        registry.register("sent_messages", "Messages sent, repeated ones included", self.sent.clone());
        registry.register("sent_bytes", "Payload bytes sent", self.sent_bytes.clone());
        registry.register("acknowledged_messages", "Messages acknowledged", self.acknowledged.clone());
        registry.register("refused_messages", "Messages refused or without a subscriber", self.refused.clone());
        registry.register("heard_messages", "Messages from the cloud", self.heard.clone());
        registry.register("unheard_messages", "Messages from the cloud, too long or too many", self.unheard.clone());
        registry.register("state", "2 up, 1 degraded, 0 down", self.state.clone());
    }
}
