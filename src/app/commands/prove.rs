//! `forebay prove`

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::{note, progress, progress_done, say};
use crate::app::cli::ProveArgs;
use crate::app::prove::{self, Account, Exploration, Explored, Killed, Killing, Place, Report, Wear};
use crate::base::{Clock, SystemClock};
use crate::store::Synchronous;

/// What is assumed if nobody says: 16 GB of flash that takes 2,000 cycles.
const ENDURANCE_TB: f64 = 32.0;
/// Submitters whose rate is measured.
const SUBMITTERS: [u64; 3] = [1, 10, 100];
/// Longest measurement of one thing.
const MEASURING: Duration = Duration::from_secs(10);
/// How the time is shared where there is not enough of it.
const FULL: f64 = 5.0;
const CONTROL: f64 = 1.5;
const KILLS: f64 = 5.0;
/// A control is caught within hundreds of states; more only cost time.
const CONTROL_STATES: u64 = 4000;
/// Crash states of one recording, and kills, after which the account is kept.
const PORTION_STATES: u64 = 5000;
const PORTION_KILLS: u64 = 100;
/// How often a log hears of progress.
const LOG_PROGRESS: Duration = Duration::from_secs(20);
/// How often the time is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Runs the proof within its time, and says what it found.
pub(crate) fn run(args: &ProveArgs) -> Result<ExitCode> {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    if args.child {
        runtime()?.block_on(prove::child(&args.dir, args.submitters, args.seed.unwrap_or(0)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let began = clock.since_boot();
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
    let measuring = (total / 20).min(MEASURING);
    progress("measuring how long a sync takes");
    report.syncs = prove::syncs(&folder, &*clock, measuring)?;
    for submitters in SUBMITTERS {
        progress(format_args!("measuring {submitters} submitters"));
        let one = prove::rate(&folder, &clock, submitters, args.payload_bytes as usize, measuring);
        report.rates.push(runtime()?.block_on(one)?);
    }

    let program = std::env::current_exe().context("failed to find this program's own file")?;
    let account = Account::open(args.account.as_deref(), &program, &report.place)?;
    let (so_far, counted) = (account.totals.full.states, account.totals.killed.kills);
    if so_far + counted > 0 {
        note(format_args!("going on from {so_far} crash states and {counted} kills of earlier runs"));
    }
    let until = began + total;
    let mut proof = Proof { args, folder, seed, clock, until, account };
    let controls = args.negative_controls;
    let left = if controls { CONTROL + CONTROL + KILLS } else { KILLS };
    report.full = Some(proof.explore(Synchronous::Full, args.states, FULL / (FULL + left))?);
    if controls {
        let few = (args.states / 4).clamp(200, CONTROL_STATES);
        report.normal = Some(proof.explore(Synchronous::Normal, few, CONTROL / left)?);
        report.off = Some(proof.explore(Synchronous::Off, few, CONTROL / (left - CONTROL))?);
    }
    report.killed = Some(proof.kill(&program)?);
    report.must_finish = args.account.is_some();
    progress_done();
    if args.json {
        say(serde_json::to_string_pretty(&report.to_json())?);
    } else {
        say(report.to_string().trim_end());
    }
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The parts that take long, one after the other. What a part does not need of its time, the next ones have.
struct Proof<'a> {
    args: &'a ProveArgs,
    folder: PathBuf,
    seed: u64,
    clock: Arc<dyn Clock>,
    until: Duration,
    account: Account,
}

impl Proof<'_> {
    fn explored(&mut self, synchronous: Synchronous) -> &mut Explored {
        match synchronous {
            Synchronous::Full => &mut self.account.totals.full,
            Synchronous::Normal => &mut self.account.totals.normal,
            Synchronous::Off => &mut self.account.totals.off,
        }
    }

    /// A share of the time that is left for everything.
    fn time(&self, share: f64) -> Duration {
        self.clock.since_boot() + self.until.saturating_sub(self.clock.since_boot()).mul_f64(share)
    }

    /// Each portion explores a recording of its own; all cores open its images.
    fn explore(&mut self, synchronous: Synchronous, states: u64, share: f64) -> Result<Explored> {
        let (clock, until, mut told) = (Arc::clone(&self.clock), self.time(share), Told::default());
        self.explored(synchronous).planned = states;
        let mut tried = false;
        loop {
            let before = self.explored(synchronous).clone();
            let is_bad = synchronous == Synchronous::Full && before.bad_states > 0;
            let is_over = tried && clock.since_boot() >= until;
            tried = true;
            if before.states >= states || is_bad || is_over {
                return Ok(before);
            }
            let what = Exploration {
                folder: self.folder.clone(),
                synchronous,
                states: (states - before.states).min(PORTION_STATES),
                threads: threads() as usize,
                seed: self.seed.wrapping_add(before.recordings << 8),
            };
            let word = synchronous.as_str();
            let told = std::cell::RefCell::new(&mut told);
            let tell = |done, _| {
                let line = format_args!("power cuts ({word}): {} of about {states} states", before.states + done);
                told.borrow_mut().tell(&*clock, line);
            };
            let portion = within(&*clock, until, |stop| prove::explore(&what, &clock, stop, &tell))?;
            self.explored(synchronous).add(&portion);
            self.account.save()?;
        }
    }

    fn kill(&mut self, program: &Path) -> Result<Killed> {
        let (clock, kills, mut told) = (Arc::clone(&self.clock), self.args.kills, Told::default());
        self.account.totals.killed.planned = kills;
        let mut tried = false;
        loop {
            let before = self.account.totals.killed.clone();
            let is_over = tried && clock.since_boot() >= self.until;
            tried = true;
            if before.kills >= kills || !before.findings.is_empty() || is_over {
                return Ok(before);
            }
            let what = Killing {
                folder: self.folder.clone(),
                program: program.to_owned(),
                kills: (kills - before.kills).min(PORTION_KILLS),
                seed: self.seed.wrapping_add(before.kills << 8),
            };
            let told = Mutex::new(&mut told);
            let tell = |done| {
                let line = format_args!("kills: {} of {kills}", before.kills + done);
                told.lock().unwrap_or_else(PoisonError::into_inner).tell(&*clock, line);
            };
            let portion = within(&*clock, self.until, |stop| prove::kill_several(&what, threads(), stop, &tell))?;
            self.account.totals.killed.add(&portion);
            self.account.save()?;
        }
    }
}

fn threads() -> u64 {
    std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64)
}

/// Progress for a terminal all the time, for a log now and then.
#[derive(Default)]
struct Told {
    last: Duration,
}

impl Told {
    fn tell(&mut self, clock: &dyn Clock, line: impl std::fmt::Display) {
        progress(&line);
        let now = clock.since_boot();
        if self.last.is_zero() {
            self.last = now;
        }
        if now.saturating_sub(self.last) >= LOG_PROGRESS && !std::io::stderr().is_terminal() {
            self.last = now;
            note(line);
        }
    }
}

/// The folder itself, or the nearest one above that exists: its disk is the one that counts.
fn existing(folder: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(folder).with_context(|| format!("failed to find {}", folder.display()))?;
    let found = absolute.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
    Ok(found.to_owned())
}

/// Runs `work`, which looks at its flag, and sets the flag when the time is over.
fn within<T>(clock: &dyn Clock, until: Duration, work: impl FnOnce(&AtomicBool) -> T) -> T {
    let (stop, done) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
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
