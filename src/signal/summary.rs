//! A window in a few numbers, for the uplink.

use serde::{Deserialize, Serialize};

use super::feature::Moments;
use super::window::View;

/// What is sent of a window instead of its readings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Window time of the first reading; ms since 1970.
    pub first_ms: i64,
    /// Window time of the last reading; ms since 1970.
    pub last_ms: i64,
    /// Readings.
    pub count: usize,
    /// Readings whose values are clamped, held, out of range or not finite.
    pub flagged: usize,
    /// Samples that are missing by the expected rate.
    pub missing: u64,
    /// In the order of the stream's fields.
    pub fields: Vec<FieldSummary>,
}

/// One field of a [`Summary`]: of its finite values only, so that one NaN does not void the rest.
/// Without a finite value the numbers are absent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FieldSummary {
    /// Finite values.
    pub count: usize,
    /// Smallest.
    pub min: Option<f64>,
    /// Largest.
    pub max: Option<f64>,
    /// Arithmetic mean.
    pub mean: Option<f64>,
    /// Population standard deviation.
    pub std: Option<f64>,
}

impl FieldSummary {
    fn of(values: &[f64]) -> Self {
        let finite: Vec<f64>;
        let values = if values.iter().all(|value| value.is_finite()) {
            values
        } else {
            finite = values.iter().copied().filter(|value| value.is_finite()).collect();
            &finite
        };
        let moments = Moments::of(values);
        // Sums beyond f64 are not numbers either.
        let number = |number: f64| number.is_finite().then_some(number);
        Self {
            count: values.len(),
            min: number(moments.min),
            max: number(moments.max),
            mean: number(moments.mean),
            std: number(moments.variance.sqrt()),
        }
    }
}

impl View<'_> {
    /// The window in a few numbers; `None` for no readings.
    pub fn summary(&self) -> Option<Summary> {
        let times = self.times_ms();
        Some(Summary {
            first_ms: *times.first()?,
            last_ms: *times.last()?,
            count: self.len(),
            flagged: self.flagged(),
            missing: self.missing(),
            fields: (0..self.fields()).map(|field| FieldSummary::of(self.values(field))).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::Window;
    use crate::signal::sample::{Gap, Note, Notes, Reading, Values};

    #[test]
    fn a_summary_counts_what_is_flagged_missing_and_not_finite() {
        let config = toml::from_str("fields=[{name='a'},{name='b'}]\n[window]\nsize=3").unwrap();
        let mut window = Window::new(&config).unwrap();
        assert_eq!(window.view().summary(), None);
        let mut notes = Notes::NONE;
        notes.insert(Note::NonFinite);
        let gap = Some(Gap { from_ms: 0, to_ms: 1, missing: 4 });
        for (time_ms, values, notes, gap) in [
            (10, [1.0, f64::NAN], notes, None),
            (20, [2.0, f64::INFINITY], notes, gap),
            (30, [3.0, f64::NAN], Notes::NONE, None),
        ] {
            window.push(&Reading { time_ms, arrival_ms: 0, values: Values::from_slice(&values), notes, gap });
        }
        let summary = window.view().summary().unwrap();
        assert_eq!((summary.first_ms, summary.last_ms, summary.count), (10, 30, 3));
        assert_eq!((summary.flagged, summary.missing), (2, 4));
        let first = summary.fields[0];
        assert_eq!((first.count, first.min, first.max, first.mean), (3, Some(1.0), Some(3.0), Some(2.0)));
        assert!((first.std.unwrap() - (2.0_f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(summary.fields[1], FieldSummary { count: 0, min: None, max: None, mean: None, std: None });
        let text = serde_json::to_string(&summary).unwrap();
        assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), summary);
    }
}
