//! What this part of the door counts: requests that came no further. The story counts the others.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// Counters; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    pub(super) denied: Counter,
    pub(super) strange: Counter,
    pub(super) overloaded: Counter,
    pub(super) bodies: Counter,
    pub(super) pings: Counter,
}

impl Metrics {
    /// Puts the counters into `registry`, as `http_llm_*`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("http_llm");
        registry.register("denied", "Requests without a key that opens", self.denied.clone());
        registry.register("refused", "Requests for another host, or of another site", self.strange.clone());
        registry.register("overloaded", "Requests for which there was no place", self.overloaded.clone());
        registry.register("bodies_refused", "Bodies that were too large, too slow or broken off", self.bodies.clone());
        registry.register("pings", "Comments in streams that were silent", self.pings.clone());
    }
}
