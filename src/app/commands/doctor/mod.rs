//! `forebay doctor`

mod accelerators;
mod delegates;

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::{note, say};
use crate::app::config::{Loaded, Overrides};
use crate::base::{Clock, ClockState, SystemClock};
use crate::engine;

/// Syncs of the disk that are measured.
const SYNCS: usize = 32;

/// What was found about one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// It works.
    Ok,
    /// It is not there, and nothing needs it.
    Absent,
    /// Something needs it and it does not work.
    Bad,
}

/// One line of the answer.
#[derive(Debug, Serialize)]
struct Finding {
    state: State,
    what: &'static str,
    text: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

/// Looks at this machine. Changes nothing but a probe file on the state folder's disk, which it removes.
pub(crate) fn run(config: &Path, overrides: &Overrides, json: bool) -> ExitCode {
    let loaded = Loaded::read(config, overrides);
    let clock = SystemClock::new();
    let mut findings = Vec::new();
    let mut line = |good: bool, what: &'static str, text: String| {
        findings.push(Finding { state: if good { State::Ok } else { State::Bad }, what, text, advice: None });
    };
    match &loaded {
        Ok(loaded) => line(true, "config", loaded.file.clone()),
        Err(diagnosis) => {
            line(false, "config", format!("cannot be used, so only the machine is looked at: {}", diagnosis.message))
        }
    }
    let state = clock.state();
    let advice = match state {
        ClockState::Ntp => "disciplined by NTP",
        ClockState::Rtc => "not synchronised; set by a battery-backed clock (rows say `rtc`)",
        ClockState::Unsynced => {
            "not synchronised and without a battery-backed clock (rows say `unsynced` and are corrected later)"
        }
    };
    line(true, "clock", advice.to_owned());
    machine(&mut line);
    let engines: Vec<_> = engine::built_in().iter().map(|engine| engine.name()).collect();
    let named = if engines.is_empty() {
        "none: models do not run in this build (--features tract)".to_owned()
    } else {
        engines.join(", ")
    };
    line(!engines.is_empty(), "engines", named);
    if let Ok(loaded) = &loaded {
        disk(&loaded.config.store.state_dir, &clock, &mut line);
        for listener in &loaded.config.mqtt.listener {
            port("mqtt", listener.address, &mut line);
        }
        port("http", loaded.config.http.address, &mut line);
    }
    findings.extend(delegates::findings(loaded.as_ref().ok().and_then(|loaded| loaded.config.delegate.as_ref())));
    findings.extend(accelerators::findings(Path::new("/")));
    let fine = findings.iter().all(|finding| finding.state != State::Bad);
    if json {
        let problem = loaded.as_ref().err().map(ToString::to_string);
        say(serde_json::json!({ "fine": fine, "findings": findings, "problem": problem }));
    } else {
        for Finding { state, what, text, advice } in &findings {
            let mark = match state {
                State::Ok => "ok ",
                State::Absent => "-- ",
                State::Bad => "BAD",
            };
            say(format_args!("{mark} {what:<8} {text}"));
            if let Some(advice) = advice {
                say(format_args!("             {advice}"));
            }
        }
        if let Err(diagnosis) = &loaded {
            note(diagnosis);
        }
    }
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn machine(line: &mut impl FnMut(bool, &'static str, String)) {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mib = |bytes: u64| bytes >> 20;
    let total = system.total_memory();
    let text = if total == 0 {
        format!("{cores} cores; memory unknown (no /proc here)")
    } else {
        format!("{cores} cores, {} MiB of memory, {} free", mib(total), mib(system.available_memory()))
    };
    line(true, "machine", text);
}

/// Measures how long the disk takes to make a small write durable: what every acknowledgement waits for.
fn disk(state_dir: &Path, clock: &dyn Clock, line: &mut impl FnMut(bool, &'static str, String)) {
    // A folder that is not there yet will be made on the same disk as the nearest one that is.
    let absolute = std::path::absolute(state_dir).unwrap_or_else(|_| state_dir.to_owned());
    let folder = absolute.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
    let probe = folder.join(".forebay-doctor");
    let measured = (|| {
        let mut file = std::fs::File::create(&probe)?;
        let mut syncs = Vec::with_capacity(SYNCS);
        for _ in 0..SYNCS {
            file.write_all(&[0; 4096])?;
            let before = clock.since_boot();
            file.sync_data()?;
            syncs.push(clock.since_boot().saturating_sub(before));
        }
        std::fs::remove_file(&probe)?;
        syncs.sort_unstable();
        Ok::<_, std::io::Error>(syncs)
    })();
    match measured {
        Err(error) => {
            let text =
                format!("failed to write in {}: {error}; make it writable for the service's user", folder.display());
            line(false, "disk", text);
        }
        Ok(syncs) => {
            let (median, worst) = (syncs[SYNCS / 2], syncs[SYNCS - 1]);
            let suspect = match median < Duration::from_micros(20) {
                true => "; so fast that it may not reach a disk (tmpfs?)",
                false => "",
            };
            line(
                true,
                "disk",
                format!(
                    "{}: a sync takes {:.2} ms (worst of {SYNCS}: {:.2} ms); every acknowledgement waits for one, which up to 256 share{suspect}",
                    folder.display(),
                    median.as_secs_f64() * 1000.0,
                    worst.as_secs_f64() * 1000.0
                ),
            );
        }
    }
}

fn port(door: &'static str, address: SocketAddr, line: &mut impl FnMut(bool, &'static str, String)) {
    match TcpListener::bind(address) {
        Ok(_) => line(true, door, format!("{address} is free")),
        Err(error) => {
            line(false, door, format!("{address} cannot be opened: {error} (is a gateway or another broker running?)"))
        }
    }
}
