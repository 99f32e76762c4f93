//! Source times: text or number to milliseconds since 1970.

use jiff::Timestamp;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::Offset;
use serde::{Deserialize, Serialize};

use super::error::Error;

/// The last millisecond of the year 9999: later times are unit mistakes (microseconds read as milliseconds).
const LAST_MS: f64 = 253_402_300_799_999.0;

/// How a source writes its times.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TimeFormat {
    /// `2026-03-01T12:00:00Z`, with any offset.
    #[default]
    Rfc3339,
    /// Seconds since 1970, fractions allowed.
    UnixS,
    /// Milliseconds since 1970.
    UnixMs,
    /// Microseconds since 1970.
    UnixUs,
    /// Nanoseconds since 1970.
    UnixNs,
    /// A strptime pattern such as `%Y-%m-%d %H:%M:%S`.
    Pattern(String),
}

impl TryFrom<String> for TimeFormat {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        Ok(match text.as_str() {
            "rfc3339" => Self::Rfc3339,
            "unix_s" => Self::UnixS,
            "unix_ms" => Self::UnixMs,
            "unix_us" => Self::UnixUs,
            "unix_ns" => Self::UnixNs,
            pattern if pattern.contains('%') && pattern.len() <= 128 => Self::Pattern(text),
            _ => {
                let problem =
                    "expected rfc3339, unix_s, unix_ms, unix_us, unix_ns or a pattern such as %Y-%m-%d %H:%M:%S";
                return Err(Error::setting("time_format", problem));
            }
        })
    }
}

impl From<TimeFormat> for String {
    fn from(format: TimeFormat) -> Self {
        match format {
            TimeFormat::Pattern(pattern) => pattern,
            other => other.expects().to_owned(),
        }
    }
}

impl TimeFormat {
    /// The setting's word, or the pattern.
    pub(super) fn expects(&self) -> &str {
        match self {
            Self::Rfc3339 => "rfc3339",
            Self::UnixS => "unix_s",
            Self::UnixMs => "unix_ms",
            Self::UnixUs => "unix_us",
            Self::UnixNs => "unix_ns",
            Self::Pattern(pattern) => pattern,
        }
    }

    /// Formats today's date by the pattern and reads it back, so that a pattern that can never match is found at start.
    pub(super) fn check(&self) -> Result<(), Error> {
        let Self::Pattern(pattern) = self else { return Ok(()) };
        let text = jiff::fmt::strtime::format(pattern, &Timestamp::UNIX_EPOCH.to_zoned(jiff::tz::TimeZone::UTC));
        match text.map_err(|error| error.to_string()).map(|text| self.text_ms(&text, Offset::UTC)) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => {
                Err(Error::setting("decoder.time_format", format!("`{pattern}` does not give a date and a time")))
            }
            Err(problem) => Err(Error::setting("decoder.time_format", format!("`{pattern}`: {problem}"))),
        }
    }

    /// Milliseconds of a text. `zone` is for patterns without `%z`.
    pub(super) fn text_ms(&self, text: &str, zone: Offset) -> Option<i64> {
        let text = text.trim();
        match self {
            Self::Rfc3339 => text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond),
            Self::Pattern(pattern) => {
                let parsed = BrokenDownTime::parse(pattern, text).ok()?;
                let timestamp = parsed
                    .to_timestamp()
                    .or_else(|_| parsed.to_datetime().and_then(|civil| zone.to_timestamp(civil)))
                    .ok()?;
                Some(timestamp.as_millisecond())
            }
            _ => match text.parse::<i64>() {
                Ok(whole) => self.whole_ms(whole),
                Err(_) => self.number_ms(text.parse().ok()?),
            },
        }
    }

    /// Milliseconds of a whole number, exact.
    pub(super) fn whole_ms(&self, number: i64) -> Option<i64> {
        let ms = match self {
            Self::UnixS => number.checked_mul(1000)?,
            Self::UnixMs => number,
            Self::UnixUs => number.div_euclid(1000),
            Self::UnixNs => number.div_euclid(1_000_000),
            Self::Rfc3339 | Self::Pattern(_) => return None,
        };
        in_range(ms as f64).then_some(ms)
    }

    /// Milliseconds of a number with a fraction.
    pub(super) fn number_ms(&self, number: f64) -> Option<i64> {
        let ms = match self {
            Self::UnixS => number * 1e3,
            Self::UnixMs => number,
            Self::UnixUs => number / 1e3,
            Self::UnixNs => number / 1e6,
            Self::Rfc3339 | Self::Pattern(_) => return None,
        };
        in_range(ms).then(|| ms.round() as i64)
    }
}

/// Years 1 to 9999; false for NaN.
fn in_range(ms: f64) -> bool {
    (-62_135_596_800_000.0..=LAST_MS).contains(&ms)
}

/// Milliseconds of seconds since 1970, if they lie in years 1 to 9999.
pub(super) fn seconds_to_ms(seconds: f64) -> Option<i64> {
    TimeFormat::UnixS.number_ms(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(text: &str) -> TimeFormat {
        TimeFormat::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn each_format_reads_the_same_moment() {
        let moment = 1_386_018_900_250;
        let zone = Offset::UTC;
        assert_eq!(format("rfc3339").text_ms("2013-12-02T22:15:00.250+01:00", zone), Some(1_386_018_900_250));
        assert_eq!(format("unix_s").number_ms(1_386_018_900.25), Some(moment));
        assert_eq!(format("unix_ms").whole_ms(moment), Some(moment));
        assert_eq!(format("unix_us").whole_ms(1_386_018_900_250_999), Some(moment));
        assert_eq!(format("unix_ns").text_ms("1386018900250999999", zone), Some(moment));
        let pattern = format("%Y-%m-%d %H:%M:%S");
        assert_eq!(pattern.text_ms("2013-12-02 21:15:00", zone), Some(1_386_018_900_000));
        let plus_one = Offset::from_seconds(3600).unwrap();
        assert_eq!(pattern.text_ms("2013-12-02 22:15:00", plus_one), Some(1_386_018_900_000));
        assert_eq!(format("%d.%m.%Y %H:%M %z").text_ms("02.12.2013 22:15 +0100", zone), Some(1_386_018_900_000));
    }

    #[test]
    fn moments_outside_of_the_calendar_are_refused() {
        let ms = format("unix_ms");
        assert_eq!(ms.number_ms(f64::NAN), None);
        assert_eq!(ms.number_ms(f64::INFINITY), None);
        assert_eq!(ms.whole_ms(i64::MAX), None);
        assert_eq!(ms.whole_ms(1_386_018_900_000_000), None, "microseconds taken for milliseconds");
        assert_eq!(format("unix_s").whole_ms(i64::MIN), None);
        assert_eq!(format("rfc3339").text_ms("yesterday", Offset::UTC), None);
    }

    #[test]
    fn a_pattern_that_can_never_give_a_time_is_found_at_start() {
        assert!(format("%Y-%m-%d %H:%M:%S").check().is_ok());
        assert!(format("%s").check().is_ok());
        assert!(format("%H:%M").check().is_err());
        assert!(format("%Y-%").check().is_err());
        assert!(TimeFormat::try_from("iso".to_owned()).is_err());
    }
}
