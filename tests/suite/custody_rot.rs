//! One flipped bit in any frame of the log: SQLite would take back every commit from there on and say nothing. Here the
//! file is set aside, what is left is salvaged, the ledger names the rest, and no number is issued twice.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use forebay::base::{Clock, Epoch, ManualClock, Name, Seq};
use forebay::outbox::{self, BatchLimits, Class, Envelope, Outbox, StreamHandle, StreamKey};
use forebay::store::{self, Store, Tx};

use crate::log_file::{self, FRAME, HEADER};

/// Commits of one row in each of two streams.
const COMMITS: u64 = 14;
/// A byte of a frame's salt.
const SALT: usize = 10;
const CLASSES: [Class; 2] = [Class::Alarm, Class::Raw];

struct Bench {
    store: Store,
    outbox: Outbox,
    streams: [StreamHandle; 2],
    epoch: Epoch,
    set_aside: bool,
}

fn open(folder: &Path) -> Bench {
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    let config = store::Config::at(folder);
    let (store, opened) = Store::open(&config, &[outbox::SCHEMA], Arc::<ManualClock>::clone(&clock))
        .unwrap_or_else(|error| panic!("the store must open: {error:?}"));
    // Few numbers at a time, so that marks of reserved numbers are in the log as well.
    let limits = outbox::Config { reserve_rows: 4, ..outbox::Config::default() };
    let outbox = Outbox::open(&limits, &store, opened.epoch, clock).unwrap();
    let streams = CLASSES.map(|class| outbox.stream(StreamKey::new(Name::new("press").unwrap(), class)).unwrap());
    Bench { store, outbox, streams, epoch: opened.epoch, set_aside: opened.quarantined.is_some() }
}

fn body(class: Class, seq: u64) -> Vec<u8> {
    format!("{} {seq} ", class.as_str()).repeat(20).into_bytes()
}

impl Bench {
    /// One row in each stream; returns their numbers.
    async fn append(&self, seq_of_body: Option<u64>) -> [Seq; 2] {
        let (outbox, streams) = (self.outbox.clone(), self.streams);
        let stamp = ManualClock::at(1_700_000_000_000).stamp();
        let work = move |tx: &Tx<'_>| {
            let mut numbers = [Seq(0); 2];
            for (at, class) in CLASSES.into_iter().enumerate() {
                let envelope = Envelope { body: body(class, seq_of_body.unwrap_or(0)), stamp };
                numbers[at] = outbox.append(tx, &streams[at], &envelope)?;
            }
            Ok(numbers)
        };
        self.store.writer().commit(500, work).await.unwrap()
    }

    /// What the queue serves: rows and ledger entries by epoch and class.
    async fn drain(&self, what: &str) -> BTreeMap<(u64, Class), (BTreeSet<u64>, BTreeSet<u64>)> {
        let mut heard: BTreeMap<(u64, Class), (BTreeSet<u64>, BTreeSet<u64>)> = BTreeMap::new();
        while let Some(batch) = self.outbox.next_batch(&BatchLimits { rows: 50, bytes: 1 << 20 }, &[]).await.unwrap() {
            let (rows, gaps) = heard.entry((batch.epoch.0, batch.stream.class)).or_default();
            for row in &batch.rows {
                assert_eq!(row.body, body(batch.stream.class, row.seq.0), "{what}: a wrong row was served");
                rows.insert(row.seq.0);
            }
            gaps.extend(batch.gaps.iter().flat_map(|gap| gap.first.0..=gap.last.0));
            let outbox = self.outbox.clone();
            self.store.writer().commit(1, move |tx| outbox.delete(tx, &batch.id)).await.unwrap();
        }
        heard
    }
}

#[tokio::test]
async fn a_flipped_bit_in_the_log_takes_back_nothing_in_silence_and_issues_no_number_twice() {
    let living = tempfile::tempdir().unwrap();
    let bench = open(living.path());
    for seq in 1..=COMMITS {
        assert_eq!(bench.append(Some(seq)).await, [Seq(seq); 2]);
    }
    let read = |name: &str| std::fs::read(living.path().join(name)).unwrap();
    let (database, log, epoch) =
        (read("forebay.db"), log_file::used(&living.path().join("forebay.db-wal")), read("epoch"));
    let frames = (log.len() - HEADER) / FRAME;
    assert!(frames > COMMITS as usize, "each commit has its own frames");
    // A frame is a commit's last if it says how long the file is after it.
    let is_commit = |frame: usize| log[HEADER + frame * FRAME + 4..][..4] != [0; 4];
    let begins = |before: usize| (0..before - 1).rev().find(|frame| is_commit(*frame)).unwrap() + 1;
    let last_commit_begins = begins(frames);
    // A frame whose salt is hit looks like one of an earlier run, and its commit does not count.
    let last_but_one_begins = begins(last_commit_begins);
    // A frame whose head two sectors share must follow from the checksum before it, or its commit does not count.
    let is_shared = |frame: usize| (HEADER + frame * FRAME) % 512 > 496;
    let (mut set_aside, mut declared, mut served) = (0, 0, 0);
    for frame in 0..frames {
        // Page number, salt, checksum, and somewhere in the page: its head, its middle, its end.
        for at in [[3, 19, 24 + 2000], [SALT, 24 + 4, 24 + 4000]][frame % 2] {
            let what = format!("byte {at} of frame {frame} of {frames}");
            let folder = tempfile::tempdir().unwrap();
            let mut spoiled = log.clone();
            spoiled[HEADER + frame * FRAME + at] ^= 1 << (frame % 8);
            for (name, bytes) in [("forebay.db", &database), ("forebay.db-wal", &spoiled), ("epoch", &epoch)] {
                std::fs::write(folder.path().join(name), bytes).unwrap();
            }
            let again = open(folder.path());
            set_aside += u64::from(again.set_aside);
            for wreck in again.store.wrecks() {
                let _ = again.outbox.salvage(&wreck).await;
            }
            let heard = again.drain(&what).await;
            let numbers = again.append(None).await;
            if again.epoch == bench.epoch {
                assert!(numbers.iter().all(|number| number.0 > COMMITS), "{what}: {numbers:?} are issued twice");
            } else {
                assert!(again.set_aside && again.epoch > bench.epoch, "{what}");
            }
            for class in CLASSES {
                let nothing = Default::default();
                let (rows, gaps) = heard.get(&(bench.epoch.0, class)).unwrap_or(&nothing);
                let missing: Vec<u64> =
                    (1..=COMMITS).filter(|seq| !rows.contains(seq) && !gaps.contains(seq)).collect();
                assert_eq!(missing, [0_u64; 0], "{what}: {} has numbers that nobody accounts for", class.as_str());
                let lost = (1..=COMMITS).filter(|seq| !rows.contains(seq)).count() as u64;
                let hides_a_commit = at == SALT || at == 19 && is_shared(frame + 1);
                if frame < if hides_a_commit { last_but_one_begins } else { last_commit_begins } {
                    assert!(again.set_aside, "{what}: SQLite took back commits in silence");
                }
                declared += lost;
                served += rows.len() as u64;
            }
        }
    }
    eprintln!("{set_aside} set aside, {served} rows served, {declared} declared lost");
    assert!(set_aside > 80 && served > 10 * declared, "{set_aside} set aside, {served} served, {declared} declared");
}
