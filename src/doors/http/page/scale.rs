//! From values and times to places on the picture, and which of them get a label.

use super::text;

/// A straight scale from `low` to `high`, which differ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Scale {
    /// Holds all finite `values`; around a constant it opens a little.
    pub(super) fn around(values: impl Iterator<Item = f64>) -> Self {
        let start = (f64::INFINITY, f64::NEG_INFINITY);
        let (low, high) = values.filter(|v| v.is_finite()).fold(start, |(low, high), v| (low.min(v), high.max(v)));
        if low > high {
            return Self { low: 0.0, high: 1.0 };
        }
        let room = if high - low > 0.0 { high - low } else { low.abs().max(1.0) * 0.1 };
        Self { low: low - room * 0.06, high: high + room * 0.16 }
    }

    /// Place from 0 at `low` to 1 at `high`; outside values stay outside.
    pub(super) fn share(self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    /// Round values on the scale, at most about `most`, and the step between them.
    pub(super) fn ticks(self, most: u32) -> (Vec<f64>, f64) {
        let raw = (self.high - self.low) / f64::from(most.max(1));
        let power = 10_f64.powf(raw.log10().floor());
        let step =
            [1.0, 2.0, 2.5, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= raw).unwrap_or(power * 10.0);
        let first = (self.low / step).ceil();
        let count = ((self.high / step).floor() - first).clamp(0.0, 50.0) as u32;
        ((0..=count).map(|i| (first + f64::from(i)) * step).collect(), step)
    }
}

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const STEPS: [i64; 20] = [
    1_000,
    5_000,
    15_000,
    MINUTE,
    5 * MINUTE,
    10 * MINUTE,
    15 * MINUTE,
    30 * MINUTE,
    HOUR,
    2 * HOUR,
    3 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
    2 * DAY,
    4 * DAY,
    7 * DAY,
    14 * DAY,
    28 * DAY,
    91 * DAY,
];

/// Round times in `from..=to` with labels, at most about `most`. A label shows the day where a day begins or days are
/// the step, else the time of day.
pub(super) fn time_ticks(from_ms: i64, to_ms: i64, most: i64) -> Vec<(i64, String)> {
    let span = to_ms.saturating_sub(from_ms).max(1);
    let longest = STEPS[STEPS.len() - 1];
    let step =
        STEPS.into_iter().find(|step| span / step <= most).unwrap_or_else(|| longest * (span / longest / most + 1));
    let first = from_ms.div_euclid(step).saturating_add(i64::from(from_ms.rem_euclid(step) != 0)).saturating_mul(step);
    let times = std::iter::successors(Some(first), |time| time.checked_add(step)).take_while(|time| *time <= to_ms);
    let label = |time: i64| {
        let format = match step {
            _ if time.rem_euclid(DAY) == 0 => "%-d %b",
            MINUTE.. => "%H:%M",
            _ => "%H:%M:%S",
        };
        text::formatted(time, format)
    };
    times.take(50).map(|time| (time, label(time))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_holds_its_values_and_opens_around_a_constant() {
        let scale = Scale::around([2.0, 10.0, f64::NAN].into_iter());
        assert!(scale.share(2.0) > 0.0 && scale.share(10.0) < 1.0);
        let flat = Scale::around([7.0, 7.0].into_iter());
        assert!(flat.low < 7.0 && flat.high > 7.0);
        assert_eq!(Scale::around(std::iter::empty()), Scale { low: 0.0, high: 1.0 });
    }

    #[test]
    fn ticks_are_round_few_and_inside() {
        for (low, high) in [(0.0, 1.0), (-3.2, 117.0), (71.2, 71.9), (1e-9, 2e-9), (0.0, 1e12)] {
            let scale = Scale { low, high };
            let (ticks, step) = scale.ticks(5);
            assert!((2..=6).contains(&ticks.len()), "{low} {high}: {ticks:?}");
            assert!(ticks.iter().all(|t| *t >= low - step * 1e-6 && *t <= high + step * 1e-6), "{ticks:?}");
        }
    }

    #[test]
    fn time_labels_show_days_over_days_and_hours_within() {
        let week = time_ticks(1_386_018_900_000, 1_386_018_900_000 + 7 * DAY, 8);
        assert_eq!(week[0].1, "3 Dec");
        let hour = time_ticks(1_386_018_900_000, 1_386_018_900_000 + HOUR, 8);
        assert_eq!(hour[0].1, "21:20");
        assert!(time_ticks(i64::MIN, i64::MAX, 8).len() <= 50);
        assert!(time_ticks(5, 5, 8).len() <= 1);
    }
}
