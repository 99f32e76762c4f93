//! How many callers came in, and how many were turned away.

use std::fmt::Write as _;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// What the caller offered as proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Offer {
    Loopback,
    Key,
    Password,
    Certificate,
}

impl EncodeLabelValue for Offer {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(match self {
            Self::Loopback => "loopback",
            Self::Key => "key",
            Self::Password => "password",
            Self::Certificate => "certificate",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Labels {
    pub(super) how: Offer,
}

/// Counters of this room.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    pub(super) granted: Family<Labels, Counter>,
    pub(super) denied: Family<Labels, Counter>,
}

impl Metrics {
    /// Adds them to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("access_granted", "Callers let in", self.granted.clone());
        registry.register("access_denied", "Callers turned away", self.denied.clone());
    }
}
