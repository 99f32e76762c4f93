//! Counters of verdicts over all rules.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::config::Severity;
use super::rule::{State, Transition, Verdict};

/// Cheap to clone; clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    raised: Family<SeverityLabel, Counter>,
    raised_by: Arc<[Counter; 3]>,
    cleared: Counter,
    escalated: Counter,
    suppressed: Counter,
    unscored: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SeverityLabel {
    severity: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let raised = Family::<SeverityLabel, Counter>::default();
        let raised_by = [Severity::Info, Severity::Warning, Severity::Critical]
            .map(|severity| raised.get_or_create(&SeverityLabel { severity: severity.as_str() }).clone());
        Self {
            raised,
            raised_by: Arc::new(raised_by),
            cleared: Counter::default(),
            escalated: Counter::default(),
            suppressed: Counter::default(),
            unscored: Counter::default(),
        }
    }
}

impl Metrics {
    /// Adds the counters under their names.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("rules_alerts_raised", "Alerts raised, by severity", self.raised.clone());
        let counters = [
            ("rules_alerts_cleared", "Alerts cleared", &self.cleared),
            ("rules_alerts_escalated", "Open alerts that got worse", &self.escalated),
            ("rules_alerts_suppressed", "Raised or escalated alerts that were recorded, not told", &self.suppressed),
            ("rules_readings_unscored", "Readings without a score", &self.unscored),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
    }

    /// Counts one verdict.
    pub fn count(&self, verdict: &Verdict) {
        if verdict.state == State::Unscored {
            self.unscored.inc();
        }
        match verdict.transition {
            None | Some(Transition::Released) => return,
            Some(Transition::Raised) => {
                self.raised_by[verdict.severity as usize].inc();
            }
            Some(Transition::Escalated) => {
                self.escalated.inc();
            }
            Some(Transition::Cleared) => {
                self.cleared.inc();
                return;
            }
        }
        if verdict.suppressed {
            self.suppressed.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_counted_by_what_they_changed() {
        let metrics = Metrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let verdict = |state, transition, suppressed| Verdict {
            state,
            transition,
            severity: Severity::Critical,
            suppressed,
            raised_ms: None,
        };
        metrics.count(&verdict(State::Alarm, Some(Transition::Raised), true));
        metrics.count(&verdict(State::Alarm, None, true));
        metrics.count(&verdict(State::Normal, Some(Transition::Cleared), true));
        metrics.count(&verdict(State::Unscored, None, false));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "rules_alerts_raised_total{severity=\"critical\"} 1",
            "rules_alerts_raised_total{severity=\"info\"} 0",
            "rules_alerts_cleared_total 1",
            "rules_alerts_suppressed_total 1",
            "rules_readings_unscored_total 1",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
