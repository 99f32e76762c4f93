//! The real writer as a process of its own, killed under load again and again, with an account of what it acknowledged.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

use super::load::{self, Life, Plan, Say, small};
use super::oracle::{Finding, inspect};
use super::scratch::Scratch;
use super::words::{Debt, Word};
use crate::base::{Clock, SystemClock};

/// Rows that stay in the queue of the process that is killed.
const KEEP: u64 = 300;
/// Longest life after the first acknowledgement.
const LONGEST_LIFE: Duration = Duration::from_millis(120);

/// What to kill how often.
#[derive(Debug, Clone)]
pub struct Killing {
    /// The file lives in a folder below this one.
    pub folder: PathBuf,
    /// This program.
    pub program: PathBuf,
    /// Lives.
    pub kills: u64,
    /// Chance.
    pub seed: u64,
}

/// What the kills left.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Killed {
    /// Processes to kill.
    pub planned: u64,
    /// Processes that were killed.
    pub kills: u64,
    /// Of them in the middle of a commit or with rows under way, as far as can be told: numbers were issued that were
    /// never acknowledged.
    pub under_way: u64,
    /// Rows acknowledged over all lives.
    pub acknowledged: u64,
    /// Rows read and compared.
    pub rows_compared: u64,
    /// What was wrong.
    pub findings: Vec<Finding>,
}

impl Killed {
    /// Adds what became of another file. What was planned stays what it is here.
    pub fn add(&mut self, other: &Self) {
        self.kills += other.kills;
        self.under_way += other.under_way;
        self.acknowledged += other.acknowledged;
        self.rows_compared += other.rows_compared;
        self.findings.extend(other.findings.iter().cloned());
    }
}

/// Kills with `threads` files at a time. `tell` gets the number of kills so far.
pub fn kill_several(what: &Killing, threads: u64, stop: &AtomicBool, tell: &(dyn Fn(u64) + Sync)) -> Result<Killed> {
    let so_far = AtomicU64::new(0);
    let lanes = std::thread::scope(|scope| {
        let lane = |n: u64| {
            let kills = what.kills / threads + u64::from(n < what.kills % threads);
            let own = Killing { kills, seed: what.seed.wrapping_add(n.wrapping_mul(0x9e37_79b9)), ..what.clone() };
            let so_far = &so_far;
            scope.spawn(move || kill(&own, stop, &|_| tell(so_far.fetch_add(1, Ordering::Relaxed) + 1)))
        };
        let lanes: Vec<_> = (0..threads).map(lane).collect();
        lanes.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    let mut all = Killed { planned: what.kills, ..Killed::default() };
    for lane in lanes {
        all.add(&lane.map_err(|_| anyhow::anyhow!("a thread that kills panicked"))??);
    }
    Ok(all)
}

/// Starts, kills and inspects until `what.kills` lives are over, something is found, or `stop` is set. `tell` gets the
/// number of kills so far.
pub fn kill(what: &Killing, stop: &AtomicBool, tell: &dyn Fn(u64)) -> Result<Killed> {
    let home = Scratch::within(&what.folder)?;
    let mut chance = StdRng::seed_from_u64(what.seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut killed = Killed { planned: what.kills, ..Killed::default() };
    let mut debt = Debt::default();
    while killed.kills < what.kills && !stop.load(Ordering::Relaxed) {
        let words = one_life(what, home.path(), &mut chance)?;
        words.iter().for_each(|word| debt.hear(*word));
        killed.kills += 1;
        killed.acknowledged = debt.acknowledged;
        let issued = words.iter().filter(|word| matches!(word, Word::Issued { .. })).count();
        let kept = words.iter().filter(|word| matches!(word, Word::Kept { .. })).count();
        killed.under_way += u64::from(issued > kept);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let seen = runtime.block_on(inspect(&small(home.path()), clock, &debt));
        seen.words.iter().for_each(|word| debt.hear(*word));
        killed.rows_compared += seen.rows;
        killed.findings = seen.findings;
        tell(killed.kills);
        if !killed.findings.is_empty() {
            break;
        }
    }
    Ok(killed)
}

/// One process from its start to its death. Returns what it said.
fn one_life(what: &Killing, folder: &Path, chance: &mut StdRng) -> Result<Vec<Word>> {
    let submitters = [1_u64, 4, 16, 64][chance.random_range(0..4)];
    let mut child = Command::new(&what.program)
        .args(["prove", "--child", "--seed", &chance.random::<u32>().to_string()])
        .args(["--submitters", &submitters.to_string(), "--dir"])
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("failed to start {}", what.program.display()))?;
    let output = child.stdout.take().context("the pipe was asked for")?;
    let began = Arc::new((Mutex::new(false), std::sync::Condvar::new()));
    let told = Arc::clone(&began);
    let reader = std::thread::spawn(move || {
        let mut words = Vec::new();
        for line in BufReader::new(output).lines() {
            // The last line may be cut: what was not said whole was not said.
            let Ok(line) = line else { break };
            let Some(word) = Word::read(&line) else { break };
            if matches!(word, Word::Kept { .. }) {
                *told.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
                told.1.notify_one();
            }
            words.push(word);
        }
        *told.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        told.1.notify_one();
        words
    });
    // Most lives end under load, some while the file is being opened.
    if chance.random_bool(0.9) {
        let mut kept = began.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !*kept {
            kept = began.1.wait(kept).unwrap_or_else(PoisonError::into_inner);
        }
    }
    std::thread::sleep(LONGEST_LIFE.mul_f64(chance.random::<f64>()));
    child.kill().context("failed to kill the writer")?;
    child.wait().context("failed to wait for the writer")?;
    reader.join().map_err(|_| anyhow::anyhow!("the reader of the pipe panicked"))
}

/// The process that is killed: writes without end and says so on standard output, each word before the next step.
pub async fn child(folder: &Path, submitters: u64, seed: u64) -> Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let (life, opened) = Life::open(&small(folder), clock)?;
    let say: Say = Arc::new(|word| {
        // One write each: a line is in the pipe whole, and before what follows it. Nobody to hear it is the end.
        let line = format!("{word}\n");
        if std::io::stdout().lock().write_all(line.as_bytes()).is_err() {
            std::process::abort();
        }
    });
    say(Word::Began { epoch: opened.epoch.0 });
    let plan = Plan { submitters, rows: u64::MAX >> 32, keep: KEEP, seed };
    load::run(&Arc::new(life), &plan, &say, &Arc::default()).await
}
