//! `forebay prove`

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::{progress, progress_done, say};
use crate::app::cli::ProveArgs;
use crate::app::prove::{self, Exploration, Killing, Place, Report, Wear};
use crate::base::{Clock, SystemClock};
use crate::store::Synchronous;

/// What is assumed if nobody says: 16 GB of flash that takes 2,000 cycles.
const ENDURANCE_TB: f64 = 32.0;
/// Submitters whose rate is measured.
const SUBMITTERS: [u64; 3] = [1, 10, 100];
/// How often progress is said, and the time looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Runs the proof within its time, and says what it found.
pub(crate) fn run(args: &ProveArgs) -> Result<ExitCode> {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    if args.child {
        runtime()?.block_on(prove::child(&args.dir, args.submitters, args.seed.unwrap_or(0)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let total = Duration::from_secs(args.seconds.max(5));
    let seed = args.seed.unwrap_or_else(|| rand::Rng::random(&mut StdRng::from_os_rng()));
    let folder = existing(&args.dir)?;
    let mut report = Report { place: Place::of(&folder), ..Report::default() };
    report.wear = Wear {
        endurance_tb: args.endurance_tbw.unwrap_or(ENDURANCE_TB),
        assumed: args.endurance_tbw.is_none(),
        rows_per_s: args.rate,
        payload_bytes: args.payload_bytes as usize,
    };
    progress("measuring how long a sync takes");
    report.syncs = prove::syncs(&folder, &*clock, total / 20)?;
    for submitters in SUBMITTERS {
        progress(format_args!("measuring {submitters} submitters"));
        let one = prove::rate(&folder, &clock, submitters, args.payload_bytes as usize, total / 20);
        report.rates.push(runtime()?.block_on(one)?);
    }

    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let explore = |synchronous, states, share: f64| {
        let what = Exploration { folder: folder.clone(), synchronous, states, threads, seed };
        let word = synchronous.as_str();
        let tell = |done, planned| progress(format_args!("power cuts ({word}): {done} of about {planned} states"));
        within(&*clock, total.mul_f64(share), |stop| prove::explore(&what, &clock, stop, &tell))
    };
    // A third for the controls, if they are asked for.
    let share = if args.negative_controls { 0.25 } else { 0.45 };
    report.full = Some(explore(Synchronous::Full, args.states, share)?);
    if args.negative_controls {
        let few = (args.states / 4).max(200);
        report.normal = Some(explore(Synchronous::Normal, few, 0.1)?);
        report.off = Some(explore(Synchronous::Off, few, 0.1)?);
    }
    let program = std::env::current_exe().context("failed to find this program's own file")?;
    let killing = Killing { folder: folder.clone(), program, kills: args.kills, seed };
    let tell = |kills| progress(format_args!("kills: {kills} of {}", args.kills));
    report.killed = Some(within(&*clock, total.mul_f64(0.3), |stop| prove::kill(&killing, stop, &tell))?);
    progress_done();
    if args.json {
        say(serde_json::to_string_pretty(&report.to_json())?);
    } else {
        say(report.to_string().trim_end());
    }
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The folder itself, or the nearest one above that exists: its disk is the one that counts.
fn existing(folder: &Path) -> Result<std::path::PathBuf> {
    let absolute = std::path::absolute(folder).with_context(|| format!("failed to find {}", folder.display()))?;
    let found = absolute.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
    Ok(found.to_owned())
}

/// Runs `work`, which looks at its flag, and sets the flag when the time is over.
fn within<T>(clock: &dyn Clock, time: Duration, work: impl FnOnce(&AtomicBool) -> T) -> T {
    let (stop, done) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let until = clock.since_boot() + time;
            while clock.since_boot() < until && !done.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK);
            }
            stop.store(true, Ordering::Relaxed);
        });
        let result = work(&stop);
        done.store(true, Ordering::Relaxed);
        result
    })
}
