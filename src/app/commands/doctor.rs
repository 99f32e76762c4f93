//! `forebay doctor`

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::{note, say};
use crate::app::config::{Loaded, Overrides};
use crate::base::{Clock, ClockState, SystemClock};
use crate::engine;

/// Syncs of the disk that are measured.
const SYNCS: usize = 32;

/// Looks at this machine. Changes nothing but a probe file on the state folder's disk, which it removes.
pub(crate) fn run(config: &Path, overrides: &Overrides) -> ExitCode {
    let loaded = Loaded::read(config, overrides);
    let clock = SystemClock::new();
    let mut fine = true;
    let mut line = |good: bool, what: &str, text: String| {
        fine &= good;
        say(format_args!("{} {what:<8} {text}", if good { "ok " } else { "BAD" }));
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
    if let Err(diagnosis) = &loaded {
        note(diagnosis);
    }
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn machine(line: &mut impl FnMut(bool, &str, String)) {
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
fn disk(state_dir: &Path, clock: &dyn Clock, line: &mut impl FnMut(bool, &str, String)) {
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

fn port(door: &str, address: SocketAddr, line: &mut impl FnMut(bool, &str, String)) {
    match TcpListener::bind(address) {
        Ok(_) => line(true, door, format!("{address} is free")),
        Err(error) => {
            line(false, door, format!("{address} cannot be opened: {error} (is a gateway or another broker running?)"))
        }
    }
}
