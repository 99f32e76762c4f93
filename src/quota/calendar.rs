//! Days and months of a time zone.

use std::path::Path;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

/// Where every Linux keeps its time zones.
const ZONES: &str = "/usr/share/zoneinfo";
/// The longest file there has 3.5 KiB.
const MAX_ZONE_BYTES: u64 = 256 << 10;

/// Calendar days and months in one time zone.
#[derive(Debug, Clone)]
pub struct Calendar {
    zone: TimeZone,
}

/// One calendar day and the month it lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day {
    /// Days from 1970-01-01 to this date.
    pub number: i32,
    /// Months from year 0 to this date's month.
    pub month: i32,
    /// The day's first moment, milliseconds since 1970.
    pub starts_ms: i64,
    /// The first moment after it.
    pub ends_ms: i64,
    /// The first moment after its month.
    pub month_ends_ms: i64,
}

impl Calendar {
    /// `UTC`, a name of the time zone database (`Europe/Berlin`) if the machine has one, or a rule in POSIX form
    /// (`CET-1CEST,M3.5.0,M10.5.0/3`), which needs no database. What is wrong with it otherwise.
    pub fn new(time_zone: &str) -> Result<Self, String> {
        Self::with_zones(time_zone, Path::new(ZONES))
    }

    fn with_zones(time_zone: &str, zones: &Path) -> Result<Self, String> {
        if time_zone == "UTC" {
            return Ok(Self { zone: TimeZone::UTC });
        }
        let is_name = time_zone.chars().all(|c| c.is_ascii_alphanumeric() || "/_+-".contains(c));
        if is_name
            && !time_zone.starts_with('/')
            && let Some(data) = small_file(&zones.join(time_zone))
        {
            let zone = TimeZone::tzif(time_zone, &data)
                .map_err(|error| format!("{:?} is no time zone: {error}", zones.join(time_zone)))?;
            return Ok(Self { zone });
        }
        match TimeZone::posix(time_zone) {
            Ok(zone) => Ok(Self { zone }),
            Err(_) => Err(format!(
                "{time_zone:?} is neither a time zone below {} on this machine nor a rule in POSIX form; \
                 use \"UTC\", a name such as \"Europe/Berlin\" or a rule such as \"CET-1CEST,M3.5.0,M10.5.0/3\"",
                zones.display()
            )),
        }
    }

    /// The day of a moment, milliseconds since 1970. Moments outside of the years -9998 to 9998 count as the nearest.
    pub fn day_of(&self, wall_ms: i64) -> Day {
        const MOST_MS: i64 = 253_300_000_000_000;
        let moment = Timestamp::from_millisecond(wall_ms.clamp(-377_600_000_000_000, MOST_MS))
            .expect("lies within the years that a timestamp can hold");
        let date = moment.to_zoned(self.zone.clone()).date();
        let next_month = date.first_of_month().saturating_add(1.month());
        Day {
            number: days_since_1970(date),
            month: i32::from(date.year()) * 12 + i32::from(date.month()) - 1,
            starts_ms: self.first_moment(date),
            ends_ms: self.first_moment(date.saturating_add(1.day())),
            month_ends_ms: self.first_moment(next_month),
        }
    }

    fn first_moment(&self, date: Date) -> i64 {
        // A zone that skips midnight begins the day when its clocks go on.
        date.to_zoned(self.zone.clone()).map_or(i64::MAX, |zoned| zoned.timestamp().as_millisecond())
    }
}

fn days_since_1970(date: Date) -> i32 {
    let epoch = Date::constant(1970, 1, 1);
    epoch.until(date).map_or(0, |span| span.get_days())
}

fn small_file(path: &Path) -> Option<Vec<u8>> {
    let metadata = std::fs::metadata(path).ok()?;
    if !metadata.is_file() || metadata.len() > MAX_ZONE_BYTES {
        return None;
    }
    std::fs::read(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

    #[test]
    fn a_day_begins_and_ends_at_the_zones_own_midnight() {
        let berlin = Calendar::new(BERLIN).unwrap();
        let day = berlin.day_of(ms("2026-11-21T23:30:00Z"));
        assert_eq!(day.number, days_since_1970(Date::constant(2026, 11, 22)));
        assert_eq!(day.month, 2026 * 12 + 10);
        assert_eq!(day.starts_ms, ms("2026-11-21T23:00:00Z"));
        assert_eq!(day.ends_ms, ms("2026-11-22T23:00:00Z"));
        assert_eq!(day.month_ends_ms, ms("2026-11-30T23:00:00Z"));
        let utc = Calendar::new("UTC").unwrap().day_of(ms("2026-11-21T23:30:00Z"));
        assert_eq!(utc.number, day.number - 1);
    }

    #[test]
    fn days_on_which_the_clocks_change_have_23_and_25_hours() {
        let berlin = Calendar::new(BERLIN).unwrap();
        let hours = |at: &str| {
            let day = berlin.day_of(ms(at));
            (day.ends_ms - day.starts_ms) / 3_600_000
        };
        assert_eq!(hours("2026-03-29T12:00:00Z"), 23);
        assert_eq!(hours("2026-10-25T12:00:00Z"), 25);
        assert_eq!(hours("2026-10-26T12:00:00Z"), 24);
    }

    #[test]
    fn a_moment_lies_within_its_day_whatever_it_is() {
        for zone in ["UTC", BERLIN, "<-03>3", "NZST-12NZDT,M9.5.0,M4.1.0/3"] {
            let calendar = Calendar::new(zone).unwrap();
            let mut at = ms("2026-01-01T00:00:00Z");
            while at < ms("2028-03-02T00:00:00Z") {
                let day = calendar.day_of(at);
                assert!(day.starts_ms <= at && at < day.ends_ms && day.ends_ms <= day.month_ends_ms, "{zone} {at}");
                assert_eq!(calendar.day_of(day.ends_ms).number, day.number + 1, "{zone} {at}");
                assert_eq!(calendar.day_of(day.month_ends_ms).month, day.month + 1, "{zone} {at}");
                at += 7 * 3_600_000 + 1;
            }
            for edge in [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX] {
                calendar.day_of(edge);
            }
        }
    }

    #[test]
    fn a_zone_is_read_from_the_database_and_no_other_file_is() {
        let folder = tempfile::tempdir().unwrap();
        let error = Calendar::with_zones("Europe/Berlin", folder.path()).unwrap_err();
        assert!(error.contains("Europe/Berlin") && error.contains("POSIX"), "{error}");
        for name in ["", "/etc/passwd", "../../../etc/passwd", "Europe", "Mars/Olympus"] {
            assert!(Calendar::new(name).is_err(), "{name}");
        }
    }
}
