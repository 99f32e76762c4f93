//! Times of day in which alerts are recorded but not told.

use std::fmt;

use serde::{Deserialize, Serialize};

const DAY_MS: i64 = 86_400_000;
const MINUTE_MS: i64 = 60_000;

/// A daily period, by a fixed offset from UTC (no time zone database: it does not follow daylight saving time).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuietConfig {
    /// Start, included.
    pub from: TimeOfDay,
    /// End, not included; before `from` it lies on the next day. `24:00` is the end of the day.
    pub to: TimeOfDay,
    /// Minutes east of UTC.
    #[serde(default)]
    pub utc_offset_minutes: i32,
    /// Days on which the period starts: `["mon", "tue"]`. Default: every day.
    #[serde(default)]
    pub days: Days,
}

/// Minutes since midnight, written `HH:MM`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeOfDay(u16);

impl TryFrom<String> for TimeOfDay {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let problem = "expected a time of day such as 06:30";
        let (hours, minutes) = text.split_once(':').ok_or(problem)?;
        let digits = |text: &str| {
            let two = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            if two { text.parse::<u16>().ok() } else { None }
        };
        match (digits(hours), digits(minutes)) {
            (Some(hours), Some(minutes)) if hours * 60 + minutes <= 1440 && minutes < 60 => {
                Ok(Self(hours * 60 + minutes))
            }
            _ => Err(problem),
        }
    }
}

impl From<TimeOfDay> for String {
    fn from(time: TimeOfDay) -> Self {
        format!("{time:?}")
    }
}

impl fmt::Debug for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

/// Days of the week; none means all.
#[derive(Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Days(u8);

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl TryFrom<Vec<String>> for Days {
    type Error = &'static str;

    fn try_from(names: Vec<String>) -> Result<Self, Self::Error> {
        names.iter().try_fold(Self(0), |days, name| {
            let day = DAYS.iter().position(|day| day == name).ok_or("expected mon, tue, wed, thu, fri, sat or sun")?;
            Ok(Self(days.0 | 1 << day))
        })
    }
}

impl fmt::Debug for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries((0..7).filter(|&day| self.holds(day)).map(|day| DAYS[day])).finish()
    }
}

impl Days {
    /// `day` counts from Monday.
    fn holds(self, day: usize) -> bool {
        self.0 == 0 || self.0 & (1 << day) != 0
    }
}

impl QuietConfig {
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.from == self.to {
            return Err("`from` and `to` are equal: the period is empty (00:00 to 24:00 is the whole day)");
        }
        if self.utc_offset_minutes.abs() > 24 * 60 {
            return Err("`utc_offset_minutes` is more than a day");
        }
        Ok(())
    }

    /// True if the moment lies in the period; ms since 1970, UTC.
    pub(super) fn holds(&self, now_ms: i64) -> bool {
        let local_ms = now_ms.saturating_add(i64::from(self.utc_offset_minutes) * MINUTE_MS);
        // 1970 began on a Thursday.
        let today = (local_ms.div_euclid(DAY_MS) + 3).rem_euclid(7) as usize;
        let yesterday = (today + 6) % 7;
        let minute = (local_ms.rem_euclid(DAY_MS) / MINUTE_MS) as u16;
        let (from, to) = (self.from.0, self.to.0);
        if from < to {
            (from..to).contains(&minute) && self.days.holds(today)
        } else {
            (minute >= from && self.days.holds(today)) || (minute < to && self.days.holds(yesterday))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet(text: &str) -> QuietConfig {
        toml::from_str(text).unwrap()
    }

    /// 2026-01-03 was a Saturday.
    fn at(day: i64, hour: i64, minute: i64) -> i64 {
        1_767_225_600_000 + ((day - 1) * 24 * 60 + hour * 60 + minute) * MINUTE_MS
    }

    #[test]
    fn a_period_includes_its_start_and_not_its_end() {
        let quiet = quiet("from='06:00'\nto='07:30'");
        assert_eq!(
            [(5, 59), (6, 0), (7, 29), (7, 30)].map(|(h, m)| quiet.holds(at(1, h, m))),
            [false, true, true, false]
        );
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_starts() {
        let quiet = quiet("from='22:00'\nto='06:00'\ndays=['sat']");
        assert!(quiet.holds(at(3, 23, 0)) && quiet.holds(at(4, 5, 59)));
        assert!(!quiet.holds(at(3, 5, 0)) && !quiet.holds(at(4, 23, 0)) && !quiet.holds(at(4, 6, 0)));
    }

    #[test]
    fn local_time_is_utc_plus_the_offset() {
        let quiet = quiet("from='00:00'\nto='24:00'\ndays=['sat']\nutc_offset_minutes=-300");
        assert!(!quiet.holds(at(3, 4, 59)) && quiet.holds(at(3, 5, 0)));
        assert!(quiet.holds(at(4, 4, 59)) && !quiet.holds(at(4, 5, 0)));
    }

    #[test]
    fn times_before_1970_and_at_the_ends_of_time_are_times_of_day_too() {
        let quiet = quiet("from='23:00'\nto='24:00'");
        assert!(quiet.holds(-1) && !quiet.holds(-2 * 3_600_000));
        let _ = (quiet.holds(i64::MIN), quiet.holds(i64::MAX));
    }

    #[test]
    fn what_is_no_time_of_day_is_refused() {
        for wrong in ["6:00", "24:01", "12:60", "aa:bb", "1200", "-1:00", "+1:00", "99:99"] {
            assert!(TimeOfDay::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
        assert_eq!(String::from(TimeOfDay::try_from("07:05".to_owned()).unwrap()), "07:05");
        assert!(toml::from_str::<QuietConfig>("from='01:00'\nto='02:00'\ndays=['monday']").is_err());
    }
}
