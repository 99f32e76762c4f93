//! What a receiver has, what its senders declared lost and why, and what nobody accounts for: as text and as JSON.

use serde_json::{Value, json};

use super::say;
use crate::base::Seq;
use crate::inbox::{Loss, Report, SeriesReport};

/// Prints the report.
pub(super) fn show(report: &Report, as_json: bool) {
    if as_json {
        say(json(report));
        return;
    }
    for line in report.series.iter().flat_map(lines) {
        say(line);
    }
    let series = counted(report.series.len() as u64, "series", "series");
    let (received, lost) = (report.received(), report.readings_lost());
    let skipped = report.skipped();
    let verdict = match report.missing() {
        0 => "every number is accounted for".to_owned(),
        1 => "1 NUMBER IS UNACCOUNTED FOR".to_owned(),
        missing => format!("{missing} NUMBERS ARE UNACCOUNTED FOR"),
    };
    say(format_args!(
        "{series}: {received} received, {lost} acknowledged and declared lost, {skipped} numbers that were nobody's: {verdict}"
    ));
    if report.missing() > 0 {
        say("What still waits at its gateway while newer rows overtake it is among them until it comes.");
    }
}

/// What a word of the ledger means, in one sentence.
fn meaning(reason: &str) -> &'static str {
    match reason {
        "restart" => "reserved by a process that ended before it used them; nothing was acknowledged under them",
        "rollback" => "issued in a commit that failed; nothing was acknowledged under them",
        "corrupt" => "the disk spoiled what was acknowledged: the checksum no longer fitted, or the row was gone",
        "unsendable" => "larger than any message that the far side takes",
        "evicted" => "the oldest of their class, dropped for newer ones when its share of the disk was full",
        "refused_newest" => "new ones of a class whose share of the disk was full and that keeps its oldest",
        "expired" => "older than their class may become",
        "summarised" => "raw rows that gave way to their window's summary when the disk was full",
        "quarantined" => "in a database file that was damaged and set aside, and could not be read back from it",
        _ => "the sender's own word, which this version does not know",
    }
}

fn lines(series: &SeriesReport) -> Vec<String> {
    let holes = if series.missing == 0 { String::new() } else { format!("  MISSING {}", series.missing) };
    let mut lines = vec![format!(
        "{} epoch {} {}/{}: {} received of {}, {} numbers declared lost ({} readings), {} repeated{holes}",
        series.gateway,
        series.epoch,
        series.class,
        series.stream,
        series.received,
        series.highest,
        series.declared_lost,
        series.readings_lost,
        series.duplicates
    )];
    for entry in &series.reasons {
        let share = match (entry.readings, entry.numbers - entry.readings) {
            (0, numbers) => format!("{}, nobody's", counted(numbers, "number", "numbers")),
            (readings, 0) => format!("{} lost", counted(readings, "reading", "readings")),
            (readings, numbers) => {
                let readings = counted(readings, "reading", "readings");
                format!("{readings} lost, {} nobody's", counted(numbers, "number", "numbers"))
            }
        };
        let when = match (time(entry.first_ms), time(entry.last_ms)) {
            (first, last) if first == last => first,
            (first, last) => format!("{first} to {last}"),
        };
        lines.push(format!("  {}: {share} ({when}): {}", entry.reason, meaning(&entry.reason)));
        let ranges: Vec<_> =
            series.losses.iter().filter(|loss| loss.reason == entry.reason).map(|l| range(l.first, l.last)).collect();
        let more = match entry.entries.saturating_sub(ranges.len() as u64) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        if !ranges.is_empty() {
            lines.push(format!("    {}{more}", ranges.join(", ")));
        }
    }
    if series.arrived_anyway > 0 {
        lines.push(format!(
            "  {} declared lost arrived all the same and are counted as received",
            series.arrived_anyway
        ));
    }
    if series.to_come > 0 {
        let numbers = counted(series.to_come, "number", "numbers");
        lines.push(format!("  {numbers} still to come: newer rows overtook them while the gateway's backlog drains"));
    }
    if series.missing > 0 {
        let ranges: Vec<_> = series.missing_ranges.iter().map(|(first, last)| range(*first, *last)).collect();
        let listed: u64 = series.missing_ranges.iter().map(|(first, last)| last.0 - first.0 + 1).sum();
        let more = if listed < series.missing { " and more" } else { "" };
        lines.push(format!("  MISSING, and nobody says why: {}{more}", ranges.join(", ")));
    }
    lines
}

fn counted(count: u64, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}

fn range(first: Seq, last: Seq) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

/// To the second, UTC.
fn time(wall_ms: i64) -> String {
    jiff::Timestamp::from_second(wall_ms.div_euclid(1000))
        .map_or_else(|_| "no time".to_owned(), |time| time.to_string())
}

fn json(report: &Report) -> Value {
    let loss = |loss: &Loss| {
        json!({
            "first": loss.first.0, "last": loss.last.0, "numbers": loss.numbers, "readings": loss.readings,
            "reason": loss.reason, "wall_ms": loss.wall_ms,
        })
    };
    let series = |series: &SeriesReport| {
        let reasons: Vec<_> = series
            .reasons
            .iter()
            .map(|entry| {
                json!({
                    "reason": entry.reason, "meaning": meaning(&entry.reason), "entries": entry.entries,
                    "numbers": entry.numbers, "readings": entry.readings,
                    "first_ms": entry.first_ms, "last_ms": entry.last_ms,
                })
            })
            .collect();
        let missing: Vec<_> = series.missing_ranges.iter().map(|(first, last)| json!([first.0, last.0])).collect();
        json!({
            "gateway": series.gateway.as_str(), "epoch": series.epoch.0, "class": series.class,
            "stream": series.stream.as_str(), "highest": series.highest.0, "received": series.received,
            "declared_lost": series.declared_lost, "readings_lost": series.readings_lost,
            "numbers_skipped": series.declared_lost - series.readings_lost, "arrived_anyway": series.arrived_anyway,
            "reasons": reasons, "losses": series.losses.iter().map(loss).collect::<Vec<_>>(),
            "missing": series.missing, "missing_ranges": missing, "to_come": series.to_come,
            "duplicates": series.duplicates,
        })
    };
    json!({
        "accounted": report.missing() == 0,
        "received": report.received(), "readings_lost": report.readings_lost(), "numbers_skipped": report.skipped(),
        "missing": report.missing(), "duplicates": report.duplicates(),
        "series": report.series.iter().map(series).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Epoch, Name};
    use crate::inbox::ReasonReport;

    fn report() -> Report {
        let reason = |reason: &str, numbers, readings| ReasonReport {
            reason: reason.to_owned(),
            entries: 1,
            numbers,
            readings,
            first_ms: 1_700_000_000_000,
            last_ms: 1_700_000_000_999,
        };
        let series = SeriesReport {
            gateway: Name::new("press-7").unwrap(),
            epoch: Epoch(2),
            class: "raw".to_owned(),
            stream: Name::new("temperature").unwrap(),
            highest: Seq(100),
            received: 80,
            declared_lost: 15,
            readings_lost: 5,
            arrived_anyway: 3,
            reasons: vec![reason("evicted", 5, 5), reason("restart", 9, 0), reason("sunspots", 1, 0)],
            losses: vec![Loss {
                first: Seq(1),
                last: Seq(5),
                numbers: 5,
                readings: 5,
                reason: "evicted".to_owned(),
                wall_ms: 1_700_000_000_000,
            }],
            missing: 5,
            missing_ranges: vec![(Seq(90), Seq(93)), (Seq(99), Seq(99))],
            to_come: 0,
            duplicates: 7,
        };
        Report { series: vec![series] }
    }

    #[test]
    fn every_gap_has_a_line_with_its_reason_in_plain_words_and_an_unknown_word_is_no_error() {
        let report = report();
        let lines = lines(&report.series[0]);
        assert_eq!(
            lines,
            [
                "press-7 epoch 2 raw/temperature: 80 received of 100, 15 numbers declared lost (5 readings), 7 repeated  MISSING 5",
                "  evicted: 5 readings lost (2023-11-14T22:13:20Z): the oldest of their class, dropped for newer ones when \
                 its share of the disk was full",
                "    1-5",
                "  restart: 9 numbers, nobody's (2023-11-14T22:13:20Z): reserved by a process that ended before it used \
                 them; nothing was acknowledged under them",
                "  sunspots: 1 number, nobody's (2023-11-14T22:13:20Z): the sender's own word, which this version does not know",
                "  3 declared lost arrived all the same and are counted as received",
                "  MISSING, and nobody says why: 90-93, 99",
            ]
        );
    }

    #[test]
    fn the_json_says_the_same() {
        let json = json(&report());
        assert_eq!(
            (&json["accounted"], &json["missing"], &json["readings_lost"]),
            (&json!(false), &json!(5), &json!(5))
        );
        assert_eq!(json["numbers_skipped"], 10);
        assert_eq!(json["series"][0]["missing_ranges"], json!([[90, 93], [99, 99]]));
        assert_eq!(json["series"][0]["reasons"][2]["reason"], "sunspots");
    }
}
