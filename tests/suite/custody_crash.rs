//! Power cuts: a recorded run of the real writer, cut after every call in every way that a disk allows.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use forebay::app::prove::{Breach, Exploration, Explored, Killing, explore, kill};
use forebay::base::{Clock, SystemClock};
use forebay::store::Synchronous;

fn explored(synchronous: Synchronous, states: u64) -> Explored {
    let folder = tempfile::tempdir().unwrap();
    let what = Exploration { folder: folder.path().to_owned(), synchronous, states, threads: 2, seed: 7 };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let explored = explore(&what, &clock, &AtomicBool::new(false), &|_, _| {}).unwrap();
    eprintln!("{synchronous:?}: {explored:#?}");
    assert!(explored.acknowledged > 500 && explored.released > 100, "too little was acknowledged");
    assert!(explored.writes > 500, "too little was written");
    assert!(explored.partial_states > states / 2, "too few states with a part of the pending writes");
    explored
}

#[test]
fn no_crash_state_of_full_loses_an_acknowledged_row() {
    let explored = explored(Synchronous::Full, 3200);
    assert!(explored.states >= 3000, "{} states", explored.states);
    assert!(explored.syncs > 50 && explored.rows_compared > 100_000);
    assert!(explored.bad_states == 0, "{:?} {:#?}", explored.breaches, explored.examples);
}

#[test]
fn normal_is_caught() {
    let explored = explored(Synchronous::Normal, 400);
    assert!(explored.breaches.get(&Breach::Lost).is_some_and(|states| *states > 50), "{:?}", explored.breaches);
}

#[test]
fn off_is_caught() {
    let explored = explored(Synchronous::Off, 400);
    assert!(explored.breaches.get(&Breach::Corrupt).is_some_and(|states| *states > 20), "{:?}", explored.breaches);
}

#[test]
fn fifty_kills_lose_nothing_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_forebay").into();
    let killing = Killing { folder: folder.path().to_owned(), program, kills: 50, seed: 11 };
    let killed = kill(&killing, &AtomicBool::new(false), &|_| {}).unwrap();
    eprintln!("{killed:?}");
    assert!(killed.findings.is_empty(), "{:#?}", killed.findings);
    assert_eq!(killed.kills, 50);
    assert!(killed.acknowledged > 1000 && killed.under_way > 20, "the kills hit nothing: {killed:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the folder is left as it was");
}
