//! A window of readings in a few numbers and sketches, for the uplink.

use super::feature::Moments;
use super::sample::{Note, Reading};
use super::sketch::{SketchConfig, hll, kll};

/// What is sent of a window instead of its readings.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Earliest source time; ms since 1970.
    pub first_ms: i64,
    /// Latest source time; ms since 1970.
    pub last_ms: i64,
    /// Readings.
    pub count: u64,
    /// Samples that are missing by the expected rate.
    pub missing: u64,
    /// Readings whose source time steps back.
    pub late: u64,
    /// Readings that repeat one, where repeats are kept.
    pub duplicates: u64,
    /// Readings whose values are clamped, held, out of range or not finite.
    pub flagged: u64,
    /// In the order of the stream's fields.
    pub fields: Vec<FieldSummary>,
    /// Readings with a score.
    pub scored: u64,
    /// Highest score.
    pub peak: Option<f64>,
    /// KLL sketch of the scores.
    pub scores: Option<Vec<u8>>,
}

/// One field of a [`Summary`]: of its finite values only, so that one NaN does not void the rest.
/// Without a finite value the numbers and sketches are absent.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldSummary {
    /// Finite values.
    pub count: u64,
    /// Smallest.
    pub min: Option<f64>,
    /// Largest.
    pub max: Option<f64>,
    /// Arithmetic mean.
    pub mean: Option<f64>,
    /// Population standard deviation.
    pub std: Option<f64>,
    /// KLL sketch: quantiles.
    pub quantiles: Option<Vec<u8>>,
    /// HyperLogLog sketch: how many different values.
    pub distinct: Option<Vec<u8>>,
}

impl FieldSummary {
    fn of(values: &[f64], config: &SketchConfig) -> Self {
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
            count: values.len() as u64,
            min: number(moments.min),
            max: number(moments.max),
            mean: number(moments.mean),
            std: number(moments.variance.sqrt()),
            quantiles: kll(values, config.quantile_points),
            distinct: hll(values, config.distinct_lg_k),
        }
    }
}

/// Gathers a window. Memory grows with its readings: eight bytes a value and a score.
#[derive(Debug, Clone, Default)]
pub struct Summing {
    first_ms: i64,
    last_ms: i64,
    count: u64,
    missing: u64,
    late: u64,
    duplicates: u64,
    flagged: u64,
    fields: Vec<Vec<f64>>,
    scores: Vec<f64>,
}

impl Summing {
    /// Readings gathered.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Takes a reading and its score in.
    pub fn push(&mut self, reading: &Reading, score: Option<f64>) {
        if self.count == 0 {
            (self.first_ms, self.last_ms) = (reading.time_ms, reading.time_ms);
            self.fields.resize(reading.values.len(), Vec::new());
        }
        self.first_ms = self.first_ms.min(reading.time_ms);
        self.last_ms = self.last_ms.max(reading.time_ms);
        self.count += 1;
        self.missing = self.missing.saturating_add(reading.gap.map_or(0, |gap| gap.missing));
        self.late += u64::from(reading.notes.contains(Note::Late) || reading.notes.contains(Note::ClockStep));
        self.duplicates += u64::from(reading.notes.contains(Note::Duplicate));
        self.flagged += u64::from(reading.notes.taints_values());
        for (column, value) in self.fields.iter_mut().zip(&reading.values) {
            column.push(*value);
        }
        self.scores.extend(score.filter(|score| score.is_finite()));
    }

    /// The window so far, and begins anew; `None` without a reading.
    pub fn finish(&mut self, config: &SketchConfig) -> Option<Summary> {
        let done = std::mem::take(self);
        (done.count > 0).then(|| Summary {
            first_ms: done.first_ms,
            last_ms: done.last_ms,
            count: done.count,
            missing: done.missing,
            late: done.late,
            duplicates: done.duplicates,
            flagged: done.flagged,
            fields: done.fields.iter().map(|values| FieldSummary::of(values, config)).collect(),
            scored: done.scores.len() as u64,
            peak: done.scores.iter().copied().reduce(f64::max),
            // A score is one more field and half as interesting.
            scores: kll(&done.scores, config.quantile_points / 2),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::sample::{Gap, Notes, Values};

    #[test]
    fn a_summary_counts_what_is_flagged_missing_and_not_finite() {
        let mut summing = Summing::default();
        assert_eq!(summing.finish(&SketchConfig::default()), None);
        let mut notes = Notes::NONE;
        notes.insert(Note::NonFinite);
        let gap = Some(Gap { from_ms: 0, to_ms: 1, missing: 4 });
        for (time_ms, values, notes, gap, score) in [
            (10, [1.0, f64::NAN], notes, None, None),
            (30, [2.0, f64::INFINITY], notes, gap, Some(0.5)),
            (
                20,
                [3.0, f64::NAN],
                [Note::Late].into_iter().fold(Notes::NONE, |mut notes, note| {
                    notes.insert(note);
                    notes
                }),
                None,
                Some(0.25),
            ),
        ] {
            let values = Values::from_slice(&values);
            summing.push(&Reading { time_ms, arrival_ms: 0, values, notes, gap }, score);
        }
        let summary = summing.finish(&SketchConfig::default()).unwrap();
        assert_eq!((summary.first_ms, summary.last_ms, summary.count), (10, 30, 3));
        assert_eq!((summary.flagged, summary.missing, summary.late), (2, 4, 1));
        assert_eq!((summary.scored, summary.peak), (2, Some(0.5)));
        let first = &summary.fields[0];
        assert_eq!((first.count, first.min, first.max, first.mean), (3, Some(1.0), Some(3.0), Some(2.0)));
        assert!((first.std.unwrap() - (2.0_f64 / 3.0).sqrt()).abs() < 1e-12);
        let empty =
            FieldSummary { count: 0, min: None, max: None, mean: None, std: None, quantiles: None, distinct: None };
        assert_eq!(summary.fields[1], empty);
        assert_eq!(summing.finish(&SketchConfig::default()), None, "a window begins anew");
    }
}
