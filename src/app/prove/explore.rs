//! The crash-state explorer: a recorded run of the real writer, cut after every call in every way a power cut could.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use anyhow::{Context as _, Result, bail};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

use super::image::{AfterFailedSync, Cut, Image, Player};
use super::load::{self, Life, Plan, Say, small};
use super::oracle::{Breach, Finding, inspect};
use super::scratch::Scratch;
use super::words::{Debt, Word};
use crate::base::{Clock, ManualClock};
use crate::store::{Disk, Event, Synchronous, Watch};

/// Particulars of findings that are kept.
const EXAMPLES: usize = 5;
/// Rounds before the last; each is twice as dense as the one before.
const ROUNDS: u64 = 4;
/// Images that wait for a checker.
const WAITING: usize = 4;

/// What to explore.
#[derive(Debug, Clone)]
pub struct Exploration {
    /// The writer runs in a folder below this one.
    pub folder: PathBuf,
    /// What commits wait for: full, or a negative control.
    pub synchronous: Synchronous,
    /// About how many states to try.
    pub states: u64,
    /// Threads that open images.
    pub threads: usize,
    /// Chance.
    pub seed: u64,
}

/// What was explored and found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Explored {
    /// Recorded runs of the writer.
    pub recordings: u64,
    /// Calls that change the disk, in the recording.
    pub calls: u64,
    /// Of them writes.
    pub writes: u64,
    /// Of them syncs.
    pub syncs: u64,
    /// Rows acknowledged in the recording.
    pub acknowledged: u64,
    /// Rows deleted after the far side had them.
    pub released: u64,
    /// Images to open, about.
    pub planned: u64,
    /// Images opened.
    pub states: u64,
    /// Of them images in which some of what was pending had reached the disk and some not.
    pub partial_states: u64,
    /// Rows read and compared over all images.
    pub rows_compared: u64,
    /// Images with a breach of each kind.
    pub breaches: BTreeMap<Breach, u64>,
    /// Images with any breach.
    pub bad_states: u64,
    /// Some particulars.
    pub examples: Vec<String>,
}

/// One image to open.
struct State {
    image: Image,
    debt: Arc<Debt>,
    at: usize,
    cut: Cut,
}

/// Records a run and explores it. `tell` gets (states tried, states planned) now and then; `stop` ends it early.
pub fn explore(
    what: &Exploration,
    clock: &Arc<dyn Clock>,
    stop: &AtomicBool,
    tell: &dyn Fn(u64, u64),
) -> Result<Explored> {
    let events = record(what, clock)?;
    explore_recording(&events, AfterFailedSync::Lost, what, stop, tell)
}

/// Runs the writer through two lives, the first of which ends cleanly, on a disk that is recorded.
fn record(what: &Exploration, clock: &Arc<dyn Clock>) -> Result<Vec<Event>> {
    let home = Scratch::within(&what.folder)?;
    let watch = Arc::new(Watch::default());
    let disk = Disk::watched(&watch).context("failed to watch the disk")?.with_synchronous(what.synchronous);
    let config = crate::store::Config { disk, ..small(home.path()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    watch.trace.start();
    let marks = Arc::clone(&watch);
    let say: Say = Arc::new(move |word: Word| marks.trace.mark(&word.to_string()));
    let mut events = Vec::new();
    // Few submitters make many small commits, many make few large ones: both happen.
    for (life, (submitters, rows)) in [(3, 30), (24, 12), (8, 24)].into_iter().enumerate() {
        let (open, opened) = Life::open(&config, Arc::clone(clock))?;
        say(Word::Began { epoch: opened.epoch.0 });
        let open = Arc::new(open);
        let plan = Plan { submitters, rows, keep: 100, seed: what.seed ^ life as u64 };
        runtime.block_on(load::run(&open, &plan, &say, &Arc::default()))?;
        if life == 2 {
            // What closing does is not part of the last life: a cut comes unasked.
            events = watch.trace.take();
            watch.trace.stop();
        }
        Arc::into_inner(open).context("the load still holds the store")?.close()?;
    }
    Ok(events)
}

/// Explores what was recorded.
pub fn explore_recording(
    events: &[Event],
    after_failed_sync: AfterFailedSync,
    what: &Exploration,
    stop: &AtomicBool,
    tell: &dyn Fn(u64, u64),
) -> Result<Explored> {
    let found = Mutex::new(Explored { planned: what.states, ..count(events) });
    let done = AtomicU64::new(0);
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (give, take) = mpsc::sync_channel::<State>(WAITING);
        let take = Arc::new(Mutex::new(take));
        let mut checkers = Vec::new();
        for _ in 0..what.threads.max(1) {
            let (take, found, done, failed) = (Arc::clone(&take), &found, &done, &failed);
            checkers.push(scope.spawn(move || {
                let outcome = check(&what.folder, &take, found, done);
                failed.fetch_or(outcome.is_err(), Ordering::Relaxed);
                outcome
            }));
        }
        drop(take);
        let ends = || {
            tell(done.load(Ordering::Relaxed), what.states);
            stop.load(Ordering::Relaxed) || failed.load(Ordering::Relaxed)
        };
        // Rounds over the whole recording, thin ones first: whenever the time is over, every part of it was looked at.
        let mut left = what.states;
        for round in 0.. {
            let states = if round < ROUNDS { (what.states >> (ROUNDS - round)).min(left) } else { left };
            let plan = Exploration { states, seed: what.seed.wrapping_add(round), ..what.clone() };
            generate(events, after_failed_sync, &plan, &give, &ends);
            left -= states;
            if left == 0 || ends() {
                break;
            }
        }
        drop(give);
        for checker in checkers {
            match checker.join() {
                Ok(outcome) => outcome?,
                Err(_) => bail!("a thread that opens images panicked"),
            }
        }
        Ok(())
    })?;
    Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn count(events: &[Event]) -> Explored {
    let mut counted = Explored { recordings: 1, ..Explored::default() };
    for event in events {
        counted.calls += u64::from(!matches!(event, Event::Mark(_)));
        counted.writes += u64::from(matches!(event, Event::Written { .. }));
        counted.syncs += u64::from(matches!(event, Event::Synced { .. }));
        if let Event::Mark(word) = event {
            match Word::read(word) {
                Some(Word::Kept { .. }) => counted.acknowledged += 1,
                Some(Word::Released { first, last, .. }) => counted.released += last - first + 1,
                _ => {}
            }
        }
    }
    counted
}

/// Plays the recording and hands out images: after every call, and after every acknowledgement.
fn generate(
    events: &[Event],
    after_failed_sync: AfterFailedSync,
    what: &Exploration,
    give: &mpsc::SyncSender<State>,
    ends: &dyn Fn() -> bool,
) {
    let mut chance = StdRng::seed_from_u64(what.seed);
    let mut player = Player::new(after_failed_sync);
    let mut debt = Arc::new(Debt::default());
    let calls = events.iter().filter(|event| !matches!(event, Event::Mark(_))).count().max(1) as f64;
    // After each call one image by chance at least; what the number of states leaves over is spread evenly.
    let per_call = what.states as f64 / calls;
    let mut due = 0.0;
    let mut kinds = Cut::BY_CHANCE.into_iter().cycle();
    for (at, event) in events.iter().enumerate() {
        player.play(event);
        let mut cuts = Vec::new();
        if let Event::Mark(word) = event {
            let Some(word) = Word::read(word) else { continue };
            Arc::make_mut(&mut debt).hear(word);
            // An acknowledgement is new only if it is the last before the next call.
            let next_is_call = events.get(at + 1).is_none_or(|next| !matches!(next, Event::Mark(_)));
            if matches!(word, Word::Kept { .. }) && next_is_call && chance.random_bool(per_call.min(1.0)) {
                cuts.push(Cut::Nothing);
                cuts.extend(player.is_anything_pending().then(|| kinds.next()).flatten());
            }
        } else {
            due += per_call;
            let is_turn = matches!(event, Event::Synced { .. } | Event::Deleted { .. });
            if is_turn && chance.random_bool(per_call.min(1.0)) {
                cuts.push(Cut::Nothing);
            }
            if player.is_anything_pending() {
                while due >= 1.0 {
                    let all = cuts.is_empty() && chance.random_bool(0.15);
                    cuts.extend(if all { Some(Cut::Everything) } else { kinds.next() });
                    due -= 1.0;
                }
            }
        }
        for cut in cuts {
            let image = player.image(cut, &mut chance);
            if ends() || give.send(State { image, debt: Arc::clone(&debt), at, cut }).is_err() {
                return;
            }
        }
    }
}

fn check(folder: &Path, take: &Mutex<mpsc::Receiver<State>>, found: &Mutex<Explored>, done: &AtomicU64) -> Result<()> {
    let home = Scratch::in_memory(folder)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    loop {
        let next = take.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(State { image, debt, at, cut }) = next else { return Ok(()) };
        put(home.path(), &image)?;
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(1_700_000_000_000));
        let seen = runtime.block_on(inspect(&small(home.path()), clock, &debt));
        done.fetch_add(1, Ordering::Relaxed);
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        found.states += 1;
        found.partial_states += u64::from(Cut::BY_CHANCE.contains(&cut));
        found.rows_compared += seen.rows;
        found.bad_states += u64::from(!seen.findings.is_empty());
        found.note(&seen.findings, at, cut);
    }
}

impl Explored {
    /// Adds what another recording showed. What was planned stays what it is here.
    pub fn add(&mut self, other: &Self) {
        self.recordings += other.recordings;
        self.calls += other.calls;
        self.writes += other.writes;
        self.syncs += other.syncs;
        self.acknowledged += other.acknowledged;
        self.released += other.released;
        self.states += other.states;
        self.partial_states += other.partial_states;
        self.rows_compared += other.rows_compared;
        for (breach, states) in &other.breaches {
            *self.breaches.entry(*breach).or_default() += states;
        }
        self.bad_states += other.bad_states;
        let room = EXAMPLES.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.iter().take(room).cloned());
    }

    fn note(&mut self, findings: &[Finding], at: usize, cut: Cut) {
        let mut kinds: Vec<_> = findings.iter().map(|finding| finding.breach).collect();
        kinds.sort_unstable();
        kinds.dedup();
        for kind in kinds {
            let times = self.breaches.entry(kind).or_default();
            *times += 1;
            if *times == 1 || self.examples.len() < EXAMPLES {
                let finding = findings.iter().find(|finding| finding.breach == kind).expect("it has this kind");
                self.examples.push(format!("call {at}, {cut:?}: {finding}"));
            }
        }
    }
}

/// Makes `folder` hold `image` and nothing else.
pub fn put(folder: &Path, image: &Image) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        fs::remove_file(entry?.path())?;
    }
    for (name, bytes) in image {
        File::create(folder.join(&**name))?.write_all(bytes)?;
    }
    Ok(())
}
