//! Counters of what was let in, dropped and noticed, over all streams.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::sample::{Admission, Note};

/// Cheap to clone; clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    accepted: Counter,
    dropped: Counter,
    missing: Counter,
    refused: Counter,
    windows: Counter,
    family: Family<NoteLabel, Counter>,
    /// In the order of [`Note::ALL`], so that counting looks nothing up.
    notes: Arc<[Counter]>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NoteLabel {
    note: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let family = Family::<NoteLabel, Counter>::default();
        let notes =
            Note::ALL.iter().map(|note| family.get_or_create(&NoteLabel { note: note.as_str() }).clone()).collect();
        Self {
            accepted: Counter::default(),
            dropped: Counter::default(),
            missing: Counter::default(),
            refused: Counter::default(),
            windows: Counter::default(),
            family,
            notes,
        }
    }
}

impl Metrics {
    /// Adds the counters under their names.
    pub fn register(&self, registry: &mut Registry) {
        let counters = [
            ("signal_samples_accepted", "Samples that went on into windows", &self.accepted),
            ("signal_samples_dropped", "Samples that a policy dropped", &self.dropped),
            ("signal_samples_missing", "Samples that the expected rate misses", &self.missing),
            ("signal_payloads_refused", "Payloads that could not be decoded", &self.refused),
            ("signal_windows_ready", "Windows that became ready", &self.windows),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        registry.register("signal_samples_noted", "Samples by what was noticed about them", self.family.clone());
    }

    /// Counts what became of a sample.
    pub fn count(&self, admission: &Admission) {
        match admission {
            Admission::Accepted(_) => self.accepted.inc(),
            Admission::Dropped { .. } => self.dropped.inc(),
        };
        for note in admission.notes().iter() {
            self.notes[note as usize].inc();
        }
        if let Some(gap) = admission.gap() {
            self.missing.inc_by(gap.missing);
        }
    }

    /// Counts a payload that could not be decoded.
    pub fn count_refused(&self) {
        self.refused.inc();
    }

    /// Counts a window that became ready.
    pub fn count_window(&self) {
        self.windows.inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::sample::{Gap, Notes};

    #[test]
    fn every_note_is_counted_under_its_name() {
        let metrics = Metrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut notes = Notes::NONE;
        notes.insert(Note::Late);
        notes.insert(Note::Gap);
        let gap = Some(Gap { from_ms: 0, to_ms: 9, missing: 8 });
        metrics.clone().count(&Admission::Dropped { reason: Note::Late, notes, gap });
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "signal_samples_dropped_total 1",
            "signal_samples_accepted_total 0",
            "signal_samples_missing_total 8",
            "signal_samples_noted_total{note=\"late\"} 1",
            "signal_samples_noted_total{note=\"clamped\"} 0",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
