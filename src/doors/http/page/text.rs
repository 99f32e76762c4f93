//! Numbers and times as people read them.

use std::fmt::Write;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A measured value: three to four digits, and the same number of decimals over most of a sensor's range, so that the
/// figure does not jump about while it changes.
pub(super) fn value(number: f64) -> String {
    let size = number.abs();
    let decimals = match size {
        _ if size >= 1000.0 => 0,
        _ if size >= 10.0 => 1,
        _ if size >= 1.0 || size == 0.0 => 2,
        _ if size >= 0.01 => 4,
        _ => return format!("{number:.2e}"),
    };
    grouped(&format!("{number:.decimals$}"))
}

/// A score, which has no unit: two decimals are what anybody compares.
pub(super) fn score(number: f64) -> String {
    if number.abs() < 1000.0 { format!("{number:.2}") } else { value(number) }
}

/// A label on an axis with this step between labels.
pub(super) fn tick(number: f64, step: f64) -> String {
    let decimals = (-step.abs().log10().floor()).clamp(0.0, 6.0) as usize;
    grouped(&format!("{number:.decimals$}"))
}

/// A count with thousands apart.
pub(super) fn count(number: u64) -> String {
    grouped(&number.to_string())
}

/// Readings a second.
pub(super) fn rate(number: f64) -> String {
    match number {
        _ if number >= 100.0 => count(number.round() as u64),
        _ if number >= 10.0 => format!("{number:.1}"),
        _ if number > 0.0 => format!("{number:.2}"),
        _ => "0".to_owned(),
    }
}

/// Bytes in powers of 1024.
pub(super) fn bytes(number: u64) -> String {
    let size = number as f64;
    match number {
        0..1024 => format!("{number} B"),
        1024..1_048_576 => format!("{:.1} KiB", size / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", size / 1_048_576.0),
        _ => format!("{:.2} GiB", size / 1_073_741_824.0),
    }
}

/// A latency.
pub(super) fn latency(us: u64) -> String {
    let us_f = us as f64;
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..10_000 => format!("{:.2} ms", us_f / 1e3),
        10_000..1_000_000 => format!("{:.1} ms", us_f / 1e3),
        _ => format!("{:.2} s", us_f / 1e6),
    }
}

/// How long something lasted, in its two largest units.
pub(super) fn duration(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min"),
        3600..86_400 => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// Day, month, year, hour and minute in UTC; seconds only where there are any.
pub(super) fn time(ms: i64) -> String {
    let seconds = if ms.rem_euclid(60_000) == 0 { "" } else { ":%S" };
    formatted(ms, &format!("%-d %b %Y, %H:%M{seconds}"))
}

/// For the `datetime` attribute.
pub(super) fn machine_time(ms: i64) -> String {
    formatted(ms, "%Y-%m-%dT%H:%M:%SZ")
}

pub(super) fn formatted(ms: i64, format: &str) -> String {
    match Timestamp::from_millisecond(ms) {
        Ok(time) => time.to_zoned(TimeZone::UTC).strftime(format).to_string(),
        Err(_) => format!("{ms} ms"),
    }
}

fn grouped(number: &str) -> String {
    let (sign, digits) = number.strip_prefix('-').map_or(("", number), |digits| ("\u{2212}", digits));
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(whole, fraction)| (whole, Some(fraction)));
    let zero = whole.bytes().all(|c| c == b'0') && fraction.is_none_or(|f| f.bytes().all(|c| c == b'0'));
    let mut text = if zero { String::new() } else { sign.to_owned() };
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if let Some(fraction) = fraction {
        let _ = write!(text, ".{fraction}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_like_an_instrument() {
        assert_eq!(value(73.967_322), "74.0");
        assert_eq!(value(-1234.5), "\u{2212}1,234");
        assert_eq!(value(0.0), "0.00");
        assert_eq!(value(-0.000_000_1), "-1.00e-7");
        assert_eq!(tick(-0.001, 20.0), "0");
        assert_eq!(tick(0.25, 0.05), "0.25");
        assert_eq!(count(22_695), "22,695");
        assert_eq!(bytes(9_318_400), "8.9 MiB");
        assert_eq!(latency(640), "640 µs");
        assert_eq!(latency(5_240), "5.24 ms");
        assert_eq!(duration(99_000_000), "1 d 3 h");
    }

    #[test]
    fn times_are_utc_and_never_panic() {
        assert_eq!(time(1_386_018_900_000), "2 Dec 2013, 21:15");
        assert_eq!(time(1_386_018_901_500), "2 Dec 2013, 21:15:01");
        assert_eq!(machine_time(0), "1970-01-01T00:00:00Z");
        assert!(time(i64::MIN).ends_with(" ms"));
    }
}
