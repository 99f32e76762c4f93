//! What a proof found, in plain words and as JSON.

use std::fmt;

use serde_json::{Value, json};

use super::explore::Explored;
use super::kill::Killed;
use super::measure::{Rate, Times};
use super::place::Place;

/// A median below this is faster than a turn of a disk at 7,200 revolutions a minute allows, in milliseconds.
const FASTEST_TURN_MS: f64 = 2.0;
/// A median below this is faster than flash without a protected cache writes, in milliseconds.
const FASTEST_FLASH_MS: f64 = 0.05;
/// Seconds of a year.
const YEAR_S: f64 = 365.25 * 86400.0;

/// Everything that one run of `forebay prove` learned. Parts that were left out are `None`.
#[derive(Debug, Default)]
pub struct Report {
    /// Where.
    pub place: Place,
    /// Syncs of the disk.
    pub syncs: Times,
    /// The writer's rates.
    pub rates: Vec<Rate>,
    /// What wear is reckoned with.
    pub wear: Wear,
    /// The explorer with `synchronous=FULL`, as the gateway runs.
    pub full: Option<Explored>,
    /// Negative controls: must be caught.
    pub normal: Option<Explored>,
    /// See `normal`.
    pub off: Option<Explored>,
    /// Kills.
    pub killed: Option<Killed>,
    /// What was asked for must be done, or nothing is proved.
    pub must_finish: bool,
}

/// What wear is reckoned with.
#[derive(Debug, Clone, Default)]
pub struct Wear {
    /// Bytes that the disk takes in its life, in terabytes (10^12 bytes).
    pub endurance_tb: f64,
    /// True if nobody gave the figure.
    pub assumed: bool,
    /// Rows a second on average.
    pub rows_per_s: f64,
    /// Payload of a row, bytes.
    pub payload_bytes: usize,
}

impl Wear {
    /// Years until the endurance is used up, if every byte of payload costs `written_per_byte`.
    fn years(&self, written_per_byte: f64) -> f64 {
        let bytes_per_s = self.rows_per_s * self.payload_bytes as f64 * written_per_byte;
        self.endurance_tb * 1e12 / bytes_per_s.max(f64::MIN_POSITIVE) / YEAR_S
    }
}

impl Report {
    /// True if something was looked at and nothing was lost.
    pub fn is_good(&self) -> bool {
        let explored = self.full.as_ref().is_none_or(|full| full.bad_states == 0);
        let killed = self.killed.as_ref().is_none_or(|killed| killed.findings.is_empty() && killed.kills > 0);
        explored
            && killed
            && self.controls_are_caught()
            && self.is_enough()
            && (self.is_finished() || !self.must_finish)
    }

    /// True if every state and every kill that was asked for was tried.
    pub fn is_finished(&self) -> bool {
        self.full.as_ref().is_none_or(|full| full.states >= full.planned)
            && self.killed.as_ref().is_none_or(|killed| killed.kills >= killed.planned)
    }

    /// True if the controls were not asked for, or were caught.
    pub fn controls_are_caught(&self) -> bool {
        [&self.normal, &self.off].into_iter().flatten().all(|control| control.bad_states > 0)
    }

    /// True if the time sufficed for anything to be shown: rows were acknowledged, cut in the middle and compared.
    pub fn is_enough(&self) -> bool {
        let explored = |full: &Explored| full.acknowledged > 0 && full.partial_states > 0 && full.rows_compared > 0;
        let killed = |killed: &Killed| killed.acknowledged > 0 && killed.rows_compared > 0;
        self.full.as_ref().is_some_and(explored) && self.killed.as_ref().is_some_and(killed)
    }

    /// A remark on how fast this disk says that it is, if that is suspicious.
    fn suspicion(&self) -> Option<String> {
        let median_ms = self.syncs.share_ms(0.5);
        if self.place.is_memory() || self.syncs.count() == 0 {
            return None;
        }
        if self.place.is_virtual() {
            return Some(
                "a virtual disk: whether a sync reaches something that survives a power cut is decided by its host"
                    .to_owned(),
            );
        }
        let limit = if self.place.rotational == Some(true) { FASTEST_TURN_MS } else { FASTEST_FLASH_MS };
        (median_ms < limit).then(|| {
            "faster than such a device writes by itself. Either it has a cache that survives a power cut (a controller \
             with a battery, a drive with capacitors, a host that answers for its guest), or it says \"done\" before it \
             is. No program can tell these two apart: pull the plug to know."
                .to_owned()
        })
    }

    /// Everything, for programs.
    pub fn to_json(&self) -> Value {
        json!({
            "good": self.is_good(),
            "place": {
                "file_system": self.place.file_system,
                "mounted_at": self.place.mounted_at,
                "source": self.place.source,
                "device": self.place.device(),
                "rotational": self.place.rotational,
                "write_back_cache": self.place.write_back,
                "warning": self.place.warning(),
            },
            "sync_ms": times_json(&self.syncs),
            "sync_suspicion": self.suspicion(),
            "rates": self.rates.iter().map(|rate| json!({
                "submitters": rate.submitters,
                "rows_per_s": rate.rows_per_s,
                "delay_ms": times_json(&rate.delays),
                "rows_per_commit": rate.rows_per_commit,
                "written_bytes_per_payload_byte": rate.written_per_byte,
                "years": self.wear.years(rate.written_per_byte),
            })).collect::<Vec<_>>(),
            "wear": {
                "endurance_tb": self.wear.endurance_tb,
                "endurance_is_assumed": self.wear.assumed,
                "rows_per_s": self.wear.rows_per_s,
                "payload_bytes": self.wear.payload_bytes,
            },
            "crash_states": self.full.as_ref().map(explored_json),
            "control_normal": self.normal.as_ref().map(explored_json),
            "control_off": self.off.as_ref().map(explored_json),
            "kills": self.killed.as_ref().map(|killed| json!({
                "kills": killed.kills,
                "with_rows_under_way": killed.under_way,
                "acknowledged": killed.acknowledged,
                "rows_compared": killed.rows_compared,
                "findings": killed.findings.iter().map(ToString::to_string).collect::<Vec<_>>(),
            })),
        })
    }
}

fn times_json(times: &Times) -> Value {
    json!({
        "count": times.count(), "p50": times.share_ms(0.5), "p99": times.share_ms(0.99), "max": times.share_ms(1.0),
    })
}

fn explored_json(explored: &Explored) -> Value {
    let breaches: serde_json::Map<_, _> =
        explored.breaches.iter().map(|(breach, states)| (breach.as_str().to_owned(), json!(states))).collect();
    json!({
        "recordings": explored.recordings, "calls": explored.calls, "writes": explored.writes, "syncs": explored.syncs,
        "acknowledged": explored.acknowledged, "planned": explored.planned, "states": explored.states,
        "partial_states": explored.partial_states, "rows_compared": explored.rows_compared,
        "bad_states": explored.bad_states, "breaches": breaches, "examples": explored.examples,
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_disk(f)?;
        self.write_rates(f)?;
        if let Some(full) = &self.full {
            write_explored(f, "as the gateway runs (FULL)", full)?;
        }
        for (name, control) in [("control: NORMAL", &self.normal), ("control: OFF", &self.off)] {
            let Some(control) = control else { continue };
            write_explored(f, name, control)?;
            let verdict =
                if control.bad_states > 0 { "caught, as it must be" } else { "NOT caught: this proof proves nothing" };
            writeln!(f, "    {verdict}")?;
        }
        if let Some(killed) = &self.killed {
            let planned = short_of(killed.kills, killed.planned);
            writeln!(f, "\nKills")?;
            writeln!(
                f,
                "  {} processes killed{planned}, {} of them with rows under way",
                killed.kills, killed.under_way
            )?;
            writeln!(
                f,
                "  {} rows acknowledged, {} rows read back and compared, {} breaches",
                killed.acknowledged,
                killed.rows_compared,
                killed.findings.len()
            )?;
            killed.findings.iter().try_for_each(|finding| writeln!(f, "    {finding}"))?;
        }
        writeln!(f, "\n{}", self.verdict())
    }
}

impl Report {
    fn write_disk(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = &self.place;
        writeln!(f, "This disk")?;
        let kind = if place.file_system.is_empty() { "unknown file system" } else { &place.file_system };
        let cache = match place.write_back {
            Some(true) => "; the drive has a write cache, which a sync flushes",
            Some(false) => "; the drive says it has no write cache to flush",
            None => "",
        };
        writeln!(f, "  {kind} on {} ({}){cache}", place.mounted_at.display(), place.device())?;
        if let Some(warning) = place.warning() {
            writeln!(f, "  CAREFUL: {warning}")?;
        }
        if self.syncs.count() == 0 {
            return Ok(());
        }
        writeln!(
            f,
            "  a sync takes {:.2} ms (half of them), {:.2} ms (99 of 100), {:.2} ms (worst of {})",
            self.syncs.share_ms(0.5),
            self.syncs.share_ms(0.99),
            self.syncs.share_ms(1.0),
            self.syncs.count()
        )?;
        match self.suspicion() {
            Some(suspicion) => writeln!(f, "  {suspicion}"),
            None => Ok(()),
        }
    }

    fn write_rates(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rates.is_empty() {
            return Ok(());
        }
        let wear = &self.wear;
        writeln!(f, "\nWhat it can promise, each row of {} bytes acknowledged after its sync", wear.payload_bytes)?;
        writeln!(
            f,
            "  submitters     rows/s   p50 ms   p99 ms   max ms   rows a commit   bytes written per payload byte"
        )?;
        for rate in &self.rates {
            writeln!(
                f,
                "  {:>10} {:>10.0} {:>8.2} {:>8.2} {:>8.2} {:>15.1} {:>17.1}",
                rate.submitters,
                rate.rows_per_s,
                rate.delays.share_ms(0.5),
                rate.delays.share_ms(0.99),
                rate.delays.share_ms(1.0),
                rate.rows_per_commit,
                rate.written_per_byte
            )?;
        }
        let assumed =
            if wear.assumed { " (an assumption: 16 GB of flash that takes 2,000 cycles; --endurance-tbw)" } else { "" };
        writeln!(f, "\nWhat wears it: {} TB in its life{assumed}", wear.endurance_tb)?;
        let years: Vec<String> = self
            .rates
            .iter()
            .map(|rate| {
                format!("{:.1} years at {:.0} rows a commit", wear.years(rate.written_per_byte), rate.rows_per_commit)
            })
            .collect();
        writeln!(f, "  {} rows/s of {} bytes: {}", wear.rows_per_s, wear.payload_bytes, years.join(", "))?;
        writeln!(
            f,
            "  counted at the files; the file system's journal and the flash's own copying come on top, often two to four times"
        )
    }

    fn verdict(&self) -> String {
        if !self.controls_are_caught() {
            return "NOT PROVED: a negative control was not caught".to_owned();
        }
        let is_bad = self.full.as_ref().is_some_and(|full| full.bad_states > 0)
            || self.killed.as_ref().is_some_and(|killed| !killed.findings.is_empty());
        if !is_bad && !self.is_enough() {
            return "NOT PROVED: the time did not suffice for anything to be compared; give it more (--seconds)"
                .to_owned();
        }
        if is_bad {
            return "BROKEN: see the breaches above; do not trust this build on this disk, and tell us".to_owned();
        }
        if self.must_finish && !self.is_finished() {
            return "NOT FINISHED: no breach so far; another run goes on from here".to_owned();
        }
        let mut verdict =
            "HOLDS: nothing acknowledged was lost, no file was damaged, no number was issued twice".to_owned();
        if self.place.is_memory() {
            verdict.push_str("\nBut this folder is memory: a power cut loses all of it. Name a folder on the disk that the box will use.");
        } else {
            verdict.push_str(
                "\nAs far as this disk keeps what it says is synced: that last step only a pulled plug can test.",
            );
        }
        verdict
    }
}

/// What the time did not suffice for.
fn short_of(done: u64, planned: u64) -> String {
    if done < planned { format!(" of {planned}, then the time was over (--seconds)") } else { String::new() }
}

fn write_explored(f: &mut fmt::Formatter<'_>, name: &str, explored: &Explored) -> fmt::Result {
    writeln!(f, "\nPower cuts, {name}")?;
    writeln!(
        f,
        "  {} recorded: {} calls ({} writes, {} syncs), {} rows acknowledged",
        if explored.recordings == 1 { "one run".to_owned() } else { format!("{} runs", explored.recordings) },
        explored.calls,
        explored.writes,
        explored.syncs,
        explored.acknowledged
    )?;
    writeln!(
        f,
        "  {} crash states opened{} ({} with a part of the pending writes), {} rows read back and compared",
        explored.states,
        short_of(explored.states, explored.planned),
        explored.partial_states,
        explored.rows_compared
    )?;
    let kinds: Vec<_> =
        explored.breaches.iter().map(|(breach, states)| format!("{} in {states}", breach.as_str())).collect();
    let kinds = if kinds.is_empty() { String::new() } else { format!(": {}", kinds.join(", ")) };
    writeln!(f, "  {} bad states{kinds}", explored.bad_states)?;
    explored.examples.iter().take(3).try_for_each(|example| writeln!(f, "    {example}"))
}
