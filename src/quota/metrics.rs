//! What quotas count. Clones share their values.

use std::fmt::Write as _;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::refusal::{Refusal, Why};
use super::unit::{Span, Unit};

impl EncodeLabelValue for Unit {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.as_str())
    }
}

impl EncodeLabelValue for Span {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.as_str())
    }
}

impl EncodeLabelValue for Why {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.as_str())
    }
}

/// Levels are the configuration's, so they are few; names are not told.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RefusalLabels {
    level: String,
    unit: Unit,
    span: Span,
    why: Why,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct UnitLabels {
    pub(super) unit: Unit,
}

/// Counters of this room.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    pub(super) granted: Counter,
    pub(super) refused: Family<RefusalLabels, Counter>,
    pub(super) unsettled: Counter,
    pub(super) unknown: Family<UnitLabels, Counter>,
    pub(super) over: Family<UnitLabels, Counter>,
    pub(super) subjects: Gauge,
    pub(super) forgotten: Counter,
    pub(super) turned_back: Counter,
    pub(super) rows: Counter,
    pub(super) flush_failures: Counter,
    pub(super) bad_rows: Counter,
}

impl Metrics {
    /// Puts the counters into `registry`, as `quota_*`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("quota");
        registry.register("granted", "Requests that every limit admitted", self.granted.clone());
        registry.register("refused", "Requests that a limit refused", self.refused.clone());
        registry.register(
            "unsettled",
            "Requests that were charged as reserved because nobody said what they took",
            self.unsettled.clone(),
        );
        registry.register("unknown", "Admitted requests whose amount stayed unknown", self.unknown.clone());
        registry.register("over", "Requests that took more than was reserved for them", self.over.clone());
        registry.register("subjects", "Names that are counted", self.subjects.clone());
        registry.register("forgotten_subjects", "Idle names that made room for others", self.forgotten.clone());
        registry.register(
            "turned_back",
            "Times that the calendar went back to an earlier day",
            self.turned_back.clone(),
        );
        registry.register("written_rows", "Rows of budgets that were written", self.rows.clone());
        registry.register(
            "flush_failures",
            "Writes of budgets that failed and are tried again",
            self.flush_failures.clone(),
        );
        registry.register("bad_rows", "Rows of budgets whose checksum was wrong", self.bad_rows.clone());
    }

    pub(super) fn refuse(&self, refusal: &Refusal) {
        let labels = RefusalLabels {
            level: refusal.level.to_string(),
            unit: refusal.unit,
            span: refusal.span,
            why: refusal.why,
        };
        self.refused.get_or_create(&labels).inc();
    }
}
