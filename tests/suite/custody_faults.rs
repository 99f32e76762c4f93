//! A disk that fails at every single call, one after the other: what was acknowledged is there afterwards, and the store
//! goes on by itself.
//!
//! A fixed load runs on a watched disk. For each kind of failure it runs again and again, with the first, the second, the
//! third... call of that kind failing, until a run is over before the failure would come. After each run the disk is cut as by
//! a power failure, with what a failed sync held back lost for good or kept, and opened with the gateway's own code.

use std::path::Path;
use std::sync::{Arc, Mutex};

use forebay::app::prove::{AfterFailedSync, Cut, Debt, Life, Player, Say, Word, inspect, put, small};
use forebay::base::{Clock, ManualClock};
use forebay::store::{Call, Config, Disk, Event, Fault, Harm, Health, Watch};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

/// Commits of the load.
const ROWS: u64 = 10;
/// Tries of one row, and openings, until it must have worked: the failure is one, but it may hit a thing that is tried
/// twice.
const TRIES: usize = 4;

/// What one run came to.
struct Run {
    events: Vec<Event>,
    struck: u64,
    refused: usize,
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(ManualClock::at(1_700_000_000_000))
}

fn config(folder: &Path, disk: Disk) -> Config {
    // Checkpoints and restarts of the log happen within a few commits, and a failing disk is tried again at once.
    Config {
        checkpoint_bytes: 24 << 10,
        restart_bytes: 64 << 10,
        probe_ms: 1,
        ride_ms: 1,
        readers: 1,
        disk,
        ..small(folder)
    }
}

/// The load: rows one after the other with deletes between, a clean end in the middle, and another life.
async fn run(watch: &Arc<Watch>, disk: &Disk, fault: Fault, checkpoint_bytes: u64) -> Run {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { checkpoint_bytes, ..config(folder.path(), disk.clone()) };
    watch.trace.start();
    watch.faults.order(fault);
    let marks = Arc::clone(watch);
    let say: Say = Arc::new(move |word: Word| marks.trace.mark(&word.to_string()));
    let mut refused = 0;
    let mut events = Vec::new();
    for life in 0..2 {
        let life_of = open(&config, &fault, &mut refused);
        say(Word::Began { epoch: life_of.outbox.epoch().0 });
        let mut health = life_of.store.health();
        for row in life * ROWS..(life + 1) * ROWS {
            let mut tries = 0;
            while let Err(error) = life_of.put(row, &say).await {
                refused += 1;
                tries += 1;
                assert!(tries < TRIES, "{fault:?}: row {row} is refused again and again: {error}");
            }
            if row % 4 == 3 {
                for _ in 0..TRIES {
                    // A read or a delete may meet the failure; what was not deleted is sent again.
                    match life_of.release(5, 3, &say).await {
                        Ok(_) => break,
                        Err(_) => refused += 1,
                    }
                }
            }
        }
        // A failed sync of the database file is healed by the next life, which the loop begins.
        let settled = |health: &Health| matches!(health, Health::Good | Health::Failing { restart_heals: true, .. });
        health.wait_for(settled).await.unwrap();
        if life == 1 {
            events = watch.trace.take();
            watch.trace.stop();
        }
        // A clean end that fails in the middle is a kill.
        let _ = life_of.close();
    }
    let struck = watch.faults.struck();
    watch.faults.withdraw();
    watch.trace.stop();
    watch.trace.take();
    Run { events, struck, refused }
}

fn open(config: &Config, fault: &Fault, refused: &mut usize) -> Life {
    let mut tries = 0;
    loop {
        match Life::open(config, clock()) {
            Ok((life, opened)) => {
                assert!(opened.quarantined.is_none(), "{fault:?}: the disk is at fault, and the file was set aside");
                return life;
            }
            Err(error) => {
                tries += 1;
                *refused += 1;
                assert!(tries < TRIES, "{fault:?}: the store does not open: {error:#}");
            }
        }
    }
}

/// The disk as a power cut at the end of the recording leaves it, and what was owed then.
async fn survives(events: &[Event], fault: Fault, image_folder: &Path) {
    let mut debt = Debt::default();
    for event in events {
        if let Event::Mark(word) = event {
            debt.hear(Word::read(word).unwrap());
        }
    }
    assert!(debt.acknowledged >= 2 * ROWS, "{fault:?}: {} rows were acknowledged", debt.acknowledged);
    let mut worlds = vec![AfterFailedSync::Lost];
    if events.iter().any(|event| matches!(event, Event::SyncFailed { .. })) {
        worlds.push(AfterFailedSync::Kept);
    }
    for world in worlds {
        let mut player = Player::new(world);
        events.iter().for_each(|event| player.play(event));
        for cut in [Cut::Nothing, Cut::Everything] {
            put(image_folder, &player.image(cut, &mut StdRng::seed_from_u64(fault.nth))).unwrap();
            let seen = inspect(&small(image_folder), clock(), &debt).await;
            assert!(seen.findings.is_empty(), "{fault:?}, {world:?}, {cut:?}: {:#?}", seen.findings);
            assert!(seen.rows > 0);
        }
    }
}

/// Fails every call of a kind, one after the other. `at_least` is how many there are.
fn every_call(call: Call, harm: Harm, at_least: u64) {
    every_call_with(call, harm, at_least, 24 << 10);
}

fn every_call_with(call: Call, harm: Harm, at_least: u64, checkpoint_bytes: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let watch = Arc::new(Watch::default());
    let disk = Disk::watched(&watch).unwrap();
    let image = tempfile::tempdir_in(if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" }).unwrap();
    let mut refusals = 0;
    for nth in 1.. {
        let fault = Fault { call, harm, nth, lasting: false };
        let run = runtime.block_on(run(&watch, &disk, fault, checkpoint_bytes));
        if run.struck == 0 {
            eprintln!("{call:?} {harm:?}: {} failures, {refusals} refusals", nth - 1);
            assert!(nth > at_least, "{call:?} {harm:?}: only {} calls could fail", nth - 1);
            return;
        }
        refusals += run.refused;
        runtime.block_on(survives(&run.events, fault, image.path()));
    }
}

#[test]
fn a_failing_write_at_every_call_loses_nothing_acknowledged() {
    every_call(Call::Write, Harm::Io, 100);
}

#[test]
fn a_full_disk_at_every_write_loses_nothing_acknowledged() {
    every_call(Call::Write, Harm::Full, 100);
}

#[test]
fn a_short_write_at_every_call_loses_nothing_acknowledged() {
    every_call(Call::Write, Harm::Short, 100);
}

#[test]
fn a_failing_sync_at_every_call_is_never_believed_later() {
    every_call(Call::Sync, Harm::Io, 30);
}

/// The next start finds in the system's cache what the failed sync lost, and no checkpoint brings it to the disk in time.
#[test]
fn a_failing_sync_is_not_believed_by_a_next_start_that_makes_no_checkpoint() {
    every_call_with(Call::Sync, Harm::Io, 30, 1 << 30);
}

#[test]
fn a_failing_read_at_every_call_loses_nothing_acknowledged() {
    every_call(Call::Read, Harm::Io, 20);
}

#[test]
fn a_failing_truncation_open_delete_or_map_loses_nothing_acknowledged() {
    every_call(Call::Truncate, Harm::Io, 0);
    every_call(Call::Open, Harm::Io, 10);
    every_call(Call::Delete, Harm::Io, 1);
    every_call(Call::Map, Harm::Io, 2);
}

/// From some call on nothing works until the disk is good again.
#[test]
fn while_the_disk_fails_nothing_is_acknowledged_and_afterwards_everything_is() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let watch = Arc::new(Watch::default());
    let disk = Disk::watched(&watch).unwrap();
    for (call, harm) in
        [(Call::Write, Harm::Io), (Call::Write, Harm::Full), (Call::Sync, Harm::Io), (Call::Map, Harm::Io)]
    {
        let folder = tempfile::tempdir().unwrap();
        let image = tempfile::tempdir().unwrap();
        watch.trace.take();
        watch.trace.start();
        // Without checkpoints: one that comes late and finds the disk failing says that a restart would help.
        let own = Config { checkpoint_bytes: 1 << 30, ..config(folder.path(), disk.clone()) };
        let life = Life::open(&own, clock()).unwrap().0;
        let (marks, kept) = (Arc::clone(&watch), Arc::new(Mutex::new(0)));
        let count = Arc::clone(&kept);
        let say: Say = Arc::new(move |word: Word| {
            *count.lock().unwrap() += u64::from(matches!(word, Word::Kept { .. }));
            marks.trace.mark(&word.to_string());
        });
        say(Word::Began { epoch: life.outbox.epoch().0 });
        runtime.block_on(async {
            for row in 0..10 {
                life.put(row, &say).await.unwrap();
            }
            let fault = Fault { call, harm, nth: 1, lasting: true };
            watch.faults.order(fault);
            let mut health = life.store.health();
            if call != Call::Map {
                for row in 10..20 {
                    life.put(row, &say).await.unwrap_err();
                }
                assert_eq!(*kept.lock().unwrap(), 10, "{fault:?}");
                let told = health.borrow_and_update().clone();
                assert!(matches!(told, Health::Failing { restart_heals: false, .. }), "{fault:?}: {told:?}");
            }
            watch.faults.withdraw();
            health.wait_for(|health| *health == Health::Good).await.unwrap();
            for row in 20..30 {
                life.put(row, &say).await.unwrap();
            }
            let events = watch.trace.take();
            watch.trace.stop();
            let mut debt = Debt::default();
            let words =
                events.iter().filter_map(|event| if let Event::Mark(word) = event { Word::read(word) } else { None });
            words.for_each(|word| debt.hear(word));
            for world in [AfterFailedSync::Lost, AfterFailedSync::Kept] {
                let mut player = Player::new(world);
                events.iter().for_each(|event| player.play(event));
                put(image.path(), &player.image(Cut::Nothing, &mut StdRng::seed_from_u64(1))).unwrap();
                let seen = inspect(&small(image.path()), clock(), &debt).await;
                assert!(seen.findings.is_empty(), "{fault:?}, {world:?}: {:#?}", seen.findings);
            }
        });
        life.close().unwrap();
    }
}

/// Commits that fail one after the other, each smaller than the one before, leave their ends behind the first that works.
#[test]
fn what_failed_commits_left_behind_the_last_good_one_is_no_rot() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let watch = Arc::new(Watch::default());
    let disk = Disk::watched(&watch).unwrap();
    let (folder, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // No commit but those that are asked for.
    let config = Config { checkpoint_bytes: 1 << 30, probe_ms: 3_600_000, ..config(folder.path(), disk) };
    let life = Life::open(&config, clock()).unwrap().0;
    let say: Say = Arc::new(|_| {});
    runtime.block_on(async {
        for row in 0..4 {
            life.put(row, &say).await.unwrap();
        }
        watch.faults.order(Fault { call: Call::Sync, harm: Harm::Io, nth: 1, lasting: true });
        let mut row = 100;
        for together in [40, 20, 10, 5] {
            let puts = (0..together).map(|_| {
                row += 1;
                life.put(row, &say)
            });
            for put in futures_util::future::join_all(puts).await {
                put.unwrap_err();
            }
        }
        watch.faults.withdraw();
        life.put(200, &say).await.unwrap();
    });
    for name in ["forebay.db", "forebay.db-wal", "epoch"] {
        std::fs::copy(folder.path().join(name), killed.path().join(name)).unwrap();
    }
    let (after, opened) = Life::open(&small(killed.path()), clock()).unwrap();
    assert_eq!(opened.quarantined, None);
    after.close().unwrap();
    life.close().unwrap();
}
