//! What local language models did.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of this room, of all models together.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Answers that were begun.
    pub begun: Counter,
    /// Answers that were called off before they were whole.
    pub called_off: Counter,
    /// Requests that were told `busy` or `no room`.
    pub turned_away: Counter,
    /// Tokens of prompts that were computed.
    pub read_tokens: Counter,
    /// Tokens of prompts that were still there from a request before.
    pub reused_tokens: Counter,
    /// Tokens that were made.
    pub made_tokens: Counter,
    /// Answers that are being made.
    pub active: Gauge,
    /// Sequences that are kept for requests that begin alike.
    pub kept: Gauge,
    /// Bytes that keys and values may take, of all sequences.
    pub cache_bytes: Gauge,
    /// Kept sequences that gave way.
    pub evicted: Counter,
}

impl Metrics {
    /// Adds them to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        let counters = [
            ("generate_begun", "Answers of local language models that were begun", &self.begun),
            ("generate_called_off", "Answers that were called off before they were whole", &self.called_off),
            ("generate_turned_away", "Requests that local language models had no room for", &self.turned_away),
            ("generate_read_tokens", "Tokens of prompts that were computed", &self.read_tokens),
            ("generate_reused_tokens", "Tokens of prompts that were there from a request before", &self.reused_tokens),
            ("generate_made_tokens", "Tokens that were made", &self.made_tokens),
            ("generate_evicted", "Kept sequences that gave way", &self.evicted),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        let gauges = [
            ("generate_active", "Answers that are being made", &self.active),
            ("generate_kept", "Sequences that are kept for requests that begin alike", &self.kept),
            ("generate_cache_bytes", "Bytes that keys and values of all sequences may take", &self.cache_bytes),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
    }
}
