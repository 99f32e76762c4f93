//! When the box is short of memory, hot or on a low battery, models step back: what is measured decides, and this
//! decision is a plain function of it.

use std::fmt;

use serde::Deserialize;

/// `[engine.back_off]`: from which readings on models step back. 0 leaves a reading out of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackOff {
    /// Memory that is left, in percent of what the box or its control group has.
    pub memory_reduced_percent: u8,
    /// The same for the least of service.
    pub memory_minimal_percent: u8,
    /// The hottest zone, in °C.
    pub temperature_reduced_c: u8,
    /// The same for the least of service.
    pub temperature_minimal_c: u8,
    /// Charge of a battery that is being used up, in percent.
    pub battery_reduced_percent: u8,
    /// The same for the least of service.
    pub battery_minimal_percent: u8,
}

impl Default for BackOff {
    fn default() -> Self {
        Self {
            memory_reduced_percent: 10,
            memory_minimal_percent: 5,
            temperature_reduced_c: 85,
            temperature_minimal_c: 95,
            battery_reduced_percent: 30,
            battery_minimal_percent: 15,
        }
    }
}

/// What the box says of itself. None: it does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Readings {
    /// Memory that is left, in percent.
    pub memory_left_percent: Option<f64>,
    /// The hottest zone, in °C.
    pub temperature_c: Option<f64>,
    /// Charge in percent; only while the battery is being used up.
    pub battery_percent: Option<f64>,
}

/// How much service there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// All of it.
    #[default]
    Normal,
    /// Half of the threads; requests of the priorities 6 to 9 are refused; models that load on request and that nobody
    /// uses are put away at once.
    Reduced,
    /// One thread; what is refused or put away as before; and no model is loaded.
    Minimal,
}

impl Level {
    /// Its word in answers and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Reduced => "reduced",
            Self::Minimal => "minimal",
        }
    }

    /// How many of `threads` compute.
    pub fn threads(self, threads: usize) -> usize {
        match self {
            Self::Normal => threads,
            Self::Reduced => (threads / 2).max(1),
            Self::Minimal => 1,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a reading must be better by before its level ends, so that service does not flap at the edge.
const MARGIN: f64 = 3.0;

/// The level for these readings after `before`, and the readings that speak for it.
pub fn judge(config: &BackOff, readings: &Readings, before: Level) -> (Level, Vec<String>) {
    // A value that is bad when it is low becomes one that is bad when it is high.
    let low = |reduced: u8, minimal: u8| (-f64::from(reduced), -f64::from(minimal), reduced > 0, minimal > 0);
    let high = |reduced: u8, minimal: u8| (f64::from(reduced), f64::from(minimal), reduced > 0, minimal > 0);
    let each = [
        (
            readings.memory_left_percent.map(|left| (-left, format!("{left:.1} % of the memory is left"))),
            low(config.memory_reduced_percent, config.memory_minimal_percent),
        ),
        (
            readings.temperature_c.map(|degrees| (degrees, format!("{degrees:.0} °C"))),
            high(config.temperature_reduced_c, config.temperature_minimal_c),
        ),
        (
            readings.battery_percent.map(|charge| (-charge, format!("the battery has {charge:.0} %"))),
            low(config.battery_reduced_percent, config.battery_minimal_percent),
        ),
    ];
    let mut worst = Level::Normal;
    let mut reasons = Vec::new();
    for (reading, (reduced, minimal, has_reduced, has_minimal)) in each {
        let Some((value, says)) = reading.filter(|(value, _)| value.is_finite()) else { continue };
        let past = |edge: f64, level: Level| value >= if before >= level { edge - MARGIN } else { edge };
        let level = if has_minimal && past(minimal, Level::Minimal) {
            Level::Minimal
        } else if has_reduced && past(reduced, Level::Reduced) {
            Level::Reduced
        } else {
            continue;
        };
        worst = worst.max(level);
        reasons.push(says);
    }
    (worst, reasons)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(left: f64) -> Readings {
        Readings { memory_left_percent: Some(left), ..Readings::default() }
    }

    #[test]
    fn each_reading_alone_decides_and_the_worst_wins() {
        let config = BackOff::default();
        let level = |readings| judge(&config, &readings, Level::Normal).0;
        assert_eq!(level(Readings::default()), Level::Normal, "a box that says nothing serves in full");
        for (left, expected) in [(50.0, Level::Normal), (9.9, Level::Reduced), (4.0, Level::Minimal)] {
            assert_eq!(level(memory(left)), expected, "{left}");
        }
        assert_eq!(level(Readings { temperature_c: Some(90.0), ..Readings::default() }), Level::Reduced);
        assert_eq!(level(Readings { battery_percent: Some(10.0), ..Readings::default() }), Level::Minimal);
        let all = Readings { memory_left_percent: Some(4.0), temperature_c: Some(86.0), battery_percent: Some(80.0) };
        let (worst, reasons) = judge(&config, &all, Level::Normal);
        assert_eq!((worst, reasons.join(", ")), (Level::Minimal, "4.0 % of the memory is left, 86 °C".to_owned()));
        assert_eq!(level(memory(f64::NAN)), Level::Normal);
    }

    #[test]
    fn a_level_ends_only_when_its_reading_is_clearly_better() {
        let config = BackOff::default();
        assert_eq!(judge(&config, &memory(11.0), Level::Normal).0, Level::Normal);
        assert_eq!(judge(&config, &memory(11.0), Level::Reduced).0, Level::Reduced);
        assert_eq!(judge(&config, &memory(13.5), Level::Reduced).0, Level::Normal);
        assert_eq!(judge(&config, &memory(7.0), Level::Minimal).0, Level::Minimal);
        assert_eq!(judge(&config, &memory(9.0), Level::Minimal).0, Level::Reduced);
    }

    #[test]
    fn a_bound_of_nothing_leaves_the_reading_out() {
        let config = BackOff { memory_reduced_percent: 0, memory_minimal_percent: 0, ..BackOff::default() };
        assert_eq!(judge(&config, &memory(0.1), Level::Minimal), (Level::Normal, Vec::new()));
    }

    #[test]
    fn a_level_never_takes_the_last_thread() {
        for level in [Level::Normal, Level::Reduced, Level::Minimal] {
            assert_eq!(level.threads(1), 1);
        }
        assert_eq!((Level::Reduced.threads(7), Level::Minimal.threads(7)), (3, 1));
    }
}
