//! How many callers came in, and how many were turned away.

use std::fmt::Write as _;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::identities::Denied;

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

/// Why a caller who is known stays out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Reason {
    NotYet,
    Expired,
    Revoked,
    Suspended,
}

impl Reason {
    pub(super) fn of(denied: Denied) -> Option<Self> {
        match denied {
            Denied::Key | Denied::Anonymous | Denied::Certificate => None,
            Denied::NotYet => Some(Self::NotYet),
            Denied::Expired => Some(Self::Expired),
            Denied::Revoked => Some(Self::Revoked),
            Denied::Suspended => Some(Self::Suspended),
        }
    }
}

impl EncodeLabelValue for Reason {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(match self {
            Self::NotYet => "not_yet",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Suspended => "suspended",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ReasonLabels {
    pub(super) reason: Reason,
}

/// Counters of this room.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    pub(super) granted: Family<Labels, Counter>,
    pub(super) denied: Family<Labels, Counter>,
    pub(super) ended: Family<ReasonLabels, Counter>,
    pub(super) keys: Gauge,
    pub(super) edits: Counter,
    pub(super) refused_edits: Counter,
    pub(super) unreadable: Counter,
}

impl Metrics {
    /// Adds them to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("access_granted", "Callers let in", self.granted.clone());
        registry.register("access_denied", "Callers turned away", self.denied.clone());
        registry.register("access_ended", "Of those turned away: known callers, by what ended", self.ended.clone());
        registry.register("access_keys", "Keys made at run time that are kept", self.keys.clone());
        registry.register("access_key_edits", "Keys and tenants made, changed or taken back", self.edits.clone());
        registry.register(
            "access_key_edits_refused",
            "Edits of keys and tenants that were refused, by a rule, a limit or the disk",
            self.refused_edits.clone(),
        );
        registry.register(
            "access_rows_unreadable",
            "Rows of keys and tenants whose checksum did not hold",
            self.unreadable.clone(),
        );
    }
}
