//! The sceptic's questions, and the answers as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::proof::{Counts, Fetched, count_summaries, count_verdicts};
use super::site::Anomaly;
use super::watch::Peaks;
use crate::app::replay::{Reading, Report as FeedReport};
use crate::flows::record::{AlarmRecord, SummaryRecord, VerdictRecord};

/// Share of the readings' JSON that may leave for the cloud with default settings.
const MOST_SENT: f64 = 0.02;
/// Below so many readings the handshakes and alarms of the story itself are most of what is sent.
const SHARE_FROM_READINGS: usize = 10_000;

/// Everything that was seen.
pub(crate) struct Evidence {
    /// What the sensor published.
    pub(crate) published: Vec<Reading>,
    /// How the sensor fared.
    pub(crate) feed: FeedReport,
    /// First publish of each reading, time since boot, by position.
    pub(crate) verdict_us: Vec<u32>,
    /// Rows of the verdict stream in the cloud, in order of arrival, if it was to get them.
    pub(crate) verdicts: Option<Vec<VerdictRecord>>,
    /// Rows of the summary stream in the cloud.
    pub(crate) summaries: Vec<SummaryRecord>,
    /// How far their sketches are off at worst: rank, and relative error of the number of different values.
    pub(crate) sketch_errors: (f64, f64),
    /// Rows of the alarm stream in the cloud.
    pub(crate) alarms: Vec<AlarmRecord>,
    /// Alarms that the gateway knows and the cloud does not.
    pub(crate) alarms_missing: u64,
    /// Batches' rows that arrived more than once and had no second effect.
    pub(crate) repeats: u64,
    /// Bytes of the readings as the sensor published them.
    pub(crate) raw_bytes: u64,
    /// Bytes that went over the cable towards the cloud.
    pub(crate) sent_bytes: u64,
    /// Readings fetched on demand, what they are about, and the bytes that they took.
    pub(crate) fetched: (Fetched, String, u64),
    /// Highest queue and memory.
    pub(crate) peaks: Peaks,
    /// Labelled anomalies within what was published.
    pub(crate) anomalies: Vec<Anomaly>,
    /// The cut, the kill and the repair, as they happened.
    pub(crate) events: Vec<String>,
    /// From restoring the cable to an empty queue.
    pub(crate) drain: Duration,
}

impl Evidence {
    fn share(&self) -> f64 {
        self.sent_bytes as f64 / self.raw_bytes.max(1) as f64
    }

    /// True if so little was sent as default settings promise. Whoever wants every verdict pays for it.
    fn is_little(&self) -> bool {
        self.verdicts.is_some() || self.published.len() < SHARE_FROM_READINGS || self.share() <= MOST_SENT
    }
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

fn readings(text: &mut String, evidence: &Evidence) -> bool {
    let acknowledged = evidence.feed.acknowledged;
    let summed = count_summaries(&evidence.published, acknowledged, &evidence.summaries);
    let lines = |text: &mut String, counts: &Counts, received: &str, altered: &str| {
        for (what, number) in [
            ("acknowledged by the gateway", counts.acknowledged),
            (received, counts.received),
            ("missing", counts.missing),
            ("duplicated", counts.duplicated),
            (altered, counts.altered),
        ] {
            let _ = writeln!(text, "  {what:<34} {number:>8}");
        }
    };
    let mut agree = summed.agree();
    if let Some(verdicts) = &evidence.verdicts {
        let counts = count_verdicts(&evidence.published, acknowledged, verdicts);
        agree &= counts.agree();
        let _ = writeln!(text, "\nReadings, each with its verdict");
        lines(text, &counts, "received by the cloud", "altered");
    }
    let _ = writeln!(text, "\nReadings, as {} summaries stand for them", evidence.summaries.len());
    lines(text, &summed, "received by the cloud", "altered");
    let repeated_sends = evidence.feed.sent - acknowledged;
    let _ = writeln!(
        text,
        "  (count, extremes, mean and times of each summary were held against the recording;\n   the sensor sent {repeated_sends} readings again after the kill, the link carried {} rows twice; neither had a second effect)",
        evidence.repeats
    );
    let (rank, distinct) = evidence.sketch_errors;
    let (rank, distinct) = (rank * 100.0, distinct * 100.0);
    let _ = writeln!(text, "  {:<34} {rank:>8.2} % of the ranks at worst", "quantiles in the summaries are off by");
    let _ = writeln!(text, "  {:<34} {distinct:>8.2} % at worst", "counts of different values by");
    agree
}

fn sent(text: &mut String, evidence: &Evidence) {
    let _ = writeln!(text, "\nSent to the cloud");
    let _ = writeln!(text, "  {:<34} {:>8} bytes", "the readings as JSON", evidence.raw_bytes);
    let _ = writeln!(
        text,
        "  {:<34} {:>8} bytes, {:.2} %",
        "everything that left over the cable",
        evidence.sent_bytes,
        evidence.share() * 100.0
    );
    let (fetched, about, bytes) = &evidence.fetched;
    let verdict = if fetched.identical { "identical to the recording's" } else { "NOT THE RECORDING'S" };
    let _ = writeln!(
        text,
        "  on demand: {} readings {about} in {} rows, {bytes} bytes, {verdict}",
        fetched.readings, fetched.rows
    );
}

/// The report, and whether everything agrees.
pub(crate) fn write(evidence: &Evidence) -> (String, bool) {
    let mut text = String::from("\nWhat happened\n");
    for event in &evidence.events {
        let _ = writeln!(text, "  {event}");
    }
    let agree = readings(&mut text, evidence);
    sent(&mut text, evidence);
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
    let _ = writeln!(text, "  alarms that the cloud does not know  {}", evidence.alarms_missing);
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
    let mut complaints = Vec::new();
    if !agree {
        complaints.push("THE COUNTS DIFFER.".to_owned());
    }
    if evidence.alarms_missing > 0 {
        complaints.push("THE CLOUD LACKS ALARMS.".to_owned());
    }
    if !evidence.fetched.0.identical {
        complaints.push("WHAT WAS FETCHED IS NOT WHAT WAS PUBLISHED.".to_owned());
    }
    if !evidence.is_little() {
        complaints.push(format!("MORE THAN {} % OF THE READINGS' BYTES WERE SENT.", MOST_SENT * 100.0));
    }
    let good = complaints.is_empty();
    if good {
        complaints.push("Every acknowledged reading is accounted for in the cloud, once.".to_owned());
    }
    let _ = writeln!(text, "\n{}", complaints.join("\n"));
    (text, good)
}

#[cfg(test)]
mod tests {
    use super::*;

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
