//! The sceptic's questions, and the answers as text.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::time::Duration;

use super::site::Anomaly;
use super::watch::Peaks;
use crate::app::replay::{Reading, Report as FeedReport};
use crate::flows::record::{AlarmRecord, VerdictRecord};

/// Everything that was seen.
pub(crate) struct Evidence {
    /// What the sensor published.
    pub(crate) published: Vec<Reading>,
    /// How the sensor fared.
    pub(crate) feed: FeedReport,
    /// First publish of each reading, time since boot, by position.
    pub(crate) verdict_us: Vec<u32>,
    /// Rows of the verdict stream in the cloud, in order of arrival.
    pub(crate) verdicts: Vec<VerdictRecord>,
    /// Rows of the alarm stream in the cloud.
    pub(crate) alarms: Vec<AlarmRecord>,
    /// Batches' rows that arrived more than once and had no second effect.
    pub(crate) repeats: u64,
    /// Highest queue and memory.
    pub(crate) peaks: Peaks,
    /// Labelled anomalies within what was published.
    pub(crate) anomalies: Vec<Anomaly>,
    /// The cut, the kill and the repair, as they happened.
    pub(crate) events: Vec<String>,
    /// From restoring the cable to an empty queue.
    pub(crate) drain: Duration,
}

/// The counts that must agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Readings that the gateway acknowledged.
    pub(crate) acknowledged: u64,
    /// Different readings that the cloud has.
    pub(crate) received: u64,
    /// Acknowledged readings that the cloud does not have.
    pub(crate) missing: u64,
    /// Readings that the cloud has more than once.
    pub(crate) duplicated: u64,
    /// Readings that the cloud has with another value than the sensor published, or never published.
    pub(crate) altered: u64,
}

impl Counts {
    /// True if nothing was lost, doubled or altered.
    pub(crate) fn agree(&self) -> bool {
        self.acknowledged == self.received && self.missing == 0 && self.duplicated == 0 && self.altered == 0
    }
}

/// Holds what the cloud has against what was published.
pub(crate) fn count(published: &[Reading], acknowledged: usize, verdicts: &[VerdictRecord]) -> Counts {
    let mut times_seen: HashMap<u64, u64> = HashMap::new();
    let mut altered = 0;
    for verdict in verdicts {
        let n = verdict.id.as_deref().and_then(|id| id.parse::<u64>().ok());
        let original = n.and_then(|n| published.get(usize::try_from(n.checked_sub(1)?).ok()?));
        match (n, original) {
            (Some(n), Some(original)) => {
                *times_seen.entry(n).or_default() += 1;
                if verdict.values.first() != Some(&Some(original.value)) {
                    altered += 1;
                }
            }
            _ => altered += 1,
        }
    }
    let received = times_seen.len() as u64;
    let missing = published.iter().filter(|reading| !times_seen.contains_key(&reading.n)).count() as u64;
    let duplicated = times_seen.values().filter(|&&times| times > 1).count() as u64;
    Counts { acknowledged: acknowledged as u64, received, missing, duplicated, altered }
}

/// The alarms raised, with the anomaly each fell into.
fn judge(anomalies: &[Anomaly], alarms: &[AlarmRecord]) -> (BTreeMap<usize, i64>, usize) {
    let mut caught = BTreeMap::new();
    let mut elsewhere = 0;
    for alarm in alarms.iter().filter(|alarm| alarm.kind == "raised") {
        let inside = anomalies.iter().position(|window| (window.from_ms..=window.to_ms).contains(&alarm.time_ms));
        match inside {
            Some(window) => {
                caught.entry(window).or_insert(alarm.time_ms);
            }
            None => elsewhere += 1,
        }
    }
    (caught, elsewhere)
}

fn clock_text(time_ms: i64) -> String {
    let text = jiff::Timestamp::from_millisecond(time_ms).map(|time| time.to_string()).unwrap_or_default();
    // Minutes are enough: the recording has a reading every five.
    text.get(..16).unwrap_or(&text).replace('T', " ")
}

fn latency(title: &str, sorted_us: &[u32]) -> String {
    let at = |share: f64| {
        let last = sorted_us.len().saturating_sub(1) as f64;
        f64::from(sorted_us.get((last * share).round() as usize).copied().unwrap_or(0)) / 1000.0
    };
    format!("  {title:<34} p50 {:>8.1} ms   p99 {:>8.1} ms   ({} of them)\n", at(0.5), at(0.99), sorted_us.len())
}

/// The report, and whether the counts agree.
pub(crate) fn write(evidence: &Evidence) -> (String, bool) {
    let counts = count(&evidence.published, evidence.feed.acknowledged, &evidence.verdicts);
    let mut text = String::from("\nWhat happened\n");
    for event in &evidence.events {
        let _ = writeln!(text, "  {event}");
    }
    let _ = writeln!(text, "\nReadings");
    for (what, number) in [
        ("acknowledged by the gateway", counts.acknowledged),
        ("received by the cloud", counts.received),
        ("missing", counts.missing),
        ("duplicated", counts.duplicated),
        ("altered", counts.altered),
    ] {
        let _ = writeln!(text, "  {what:<34} {number:>8}");
    }
    let repeated_sends = evidence.feed.sent - evidence.feed.acknowledged;
    let _ = writeln!(
        text,
        "  (the sensor sent {repeated_sends} readings again after the kill, the link carried {} rows twice; neither had a second effect)",
        evidence.repeats
    );
    let (caught, elsewhere) = judge(&evidence.anomalies, &evidence.alarms);
    let _ = writeln!(text, "\nAnomalies caught: {} of {}", caught.len(), evidence.anomalies.len());
    for (at, window) in evidence.anomalies.iter().enumerate() {
        let (from, to) = (clock_text(window.from_ms), clock_text(window.to_ms));
        let _ = match caught.get(&at) {
            Some(raised) => {
                let after_h = (raised - window.from_ms) as f64 / 3_600_000.0;
                writeln!(text, "  {from} to {to}   alarm at {} ({after_h:.1} h into it)", clock_text(*raised))
            }
            None => writeln!(text, "  {from} to {to}   missed"),
        };
    }
    let _ = writeln!(text, "  alarms outside the labelled windows {elsewhere}");
    let _ = writeln!(text, "\nLatency");
    text.push_str(&latency("publish to PUBACK (on the disk)", &evidence.feed.latencies_us));
    text.push_str(&latency("publish to verdict at an app", &evidence.verdict_us));
    let megabytes = |kib: Option<u64>| {
        kib.map_or("unknown (no /proc here)".to_owned(), |kib| format!("{:>8.1} MB", kib as f64 / 1024.0))
    };
    let _ = writeln!(text, "\nGateway");
    let _ = writeln!(text, "  {:<34} {:>8} rows", "queue at its deepest", evidence.peaks.queue_rows);
    let _ = writeln!(text, "  {:<34} {:>8.1} s", "from link restored to queue empty", evidence.drain.as_secs_f64());
    let _ = writeln!(text, "  {:<34} {}", "memory while it served", megabytes(evidence.peaks.memory_kib));
    let _ = writeln!(text, "  {:<34} {}", "memory while it started", megabytes(evidence.peaks.starting_kib));
    let _ = writeln!(
        text,
        "\n{}",
        if counts.agree() { "Every acknowledged reading is in the cloud, once." } else { "THE COUNTS DIFFER." }
    );
    (text, counts.agree())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(n: u64, value: f64) -> Reading {
        Reading { n, time: String::new(), value }
    }

    fn verdict(id: &str, value: f64) -> VerdictRecord {
        VerdictRecord {
            number: 0,
            id: Some(id.to_owned()),
            time_ms: 0,
            values: vec![Some(value)],
            score: None,
            state: "normal".to_owned(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn a_missing_a_doubled_and_an_altered_reading_are_each_seen() {
        let published = [reading(1, 1.0), reading(2, 2.0), reading(3, 3.0)];
        let exact = [verdict("1", 1.0), verdict("2", 2.0), verdict("3", 3.0)];
        assert!(count(&published, 3, &exact).agree());
        let missing = count(&published, 3, &exact[..2]);
        assert_eq!((missing.missing, missing.agree()), (1, false));
        let doubled = count(&published, 3, &[exact.as_slice(), &exact[..1]].concat());
        assert_eq!((doubled.duplicated, doubled.agree()), (1, false));
        let altered = count(&published, 3, &[verdict("1", 1.5), verdict("2", 2.0), verdict("3", 3.0)]);
        assert_eq!((altered.altered, altered.agree()), (1, false));
        let invented = count(&published, 3, &[exact.as_slice(), &[verdict("9", 1.0)]].concat());
        assert!(!invented.agree());
    }

    #[test]
    fn an_alarm_counts_for_the_window_it_rises_in() {
        let anomalies = [Anomaly { from_ms: 100, to_ms: 200 }, Anomaly { from_ms: 300, to_ms: 400 }];
        let alarm = |time_ms, kind: &str| AlarmRecord {
            alarm: 1,
            kind: kind.to_owned(),
            severity: String::new(),
            time_ms,
            seq: 1,
            score: None,
            values: Vec::new(),
            suppressed: false,
            model: None,
        };
        let alarms = [alarm(150, "raised"), alarm(250, "cleared"), alarm(160, "raised"), alarm(290, "raised")];
        let (caught, elsewhere) = judge(&anomalies, &alarms);
        assert_eq!((caught, elsewhere), (BTreeMap::from([(0, 150)]), 1));
    }
}
