//! A damaged file is set aside and its queue goes on: what can be read is sent under the old epoch, and the ledger says
//! what is missing. Received and declared lost make 1 to the highest number that was reserved.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use forebay::base::{Clock, Epoch, ManualClock, Name, Seq};
use forebay::outbox::{
    self, BatchId, BatchLimits, Class, Envelope, GapReason, Outbox, Salvaged, StreamHandle, StreamKey,
};
use forebay::store::{self, Store, Tx};
use proptest::prelude::{ProptestConfig, Strategy, any, prop_oneof, proptest};

/// Rows of each stream.
const ROWS: u64 = 160;
/// Acknowledged in order, and out of order.
const SETTLED: u64 = 20;
const ACKED: (u64, u64) = (41, 50);
const PAGE: usize = 4096;

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(1_700_000_000_000))
}

fn open(folder: &Path) -> (Store, Outbox, store::Opened) {
    let config = store::Config { ride_ms: 0, ..store::Config::at(folder) };
    let (store, opened) = Store::open(&config, &[outbox::SCHEMA], clock())
        .unwrap_or_else(|error| panic!("the store must open: {error:?}"));
    let pack = outbox::PackConfig { keep_rows: 20, block_rows: 16, ..outbox::PackConfig::default() };
    let config = outbox::Config { pack, ..outbox::Config::default() };
    let outbox = Outbox::open(&config, &store, opened.epoch, clock());
    let outbox = outbox.unwrap_or_else(|error| panic!("the queue must open: {error:?}"));
    (store, outbox, opened)
}

fn body(class: Class, seq: u64) -> Vec<u8> {
    let word = format!("{} {seq} ", class.as_str());
    // Some longer than a page, some than two.
    word.repeat(if seq.is_multiple_of(40) { 900 } else { 1 + usize::try_from(seq % 30).unwrap() }).into_bytes()
}

async fn append(store: &Store, outbox: &Outbox, stream: StreamHandle, class: Class, from: u64, to: u64) {
    let (outbox, stamp) = (outbox.clone(), clock().stamp());
    let work = move |tx: &Tx<'_>| {
        (from..=to).try_for_each(|seq| {
            let given = outbox.append(tx, &stream, &Envelope { body: body(class, seq), stamp })?;
            assert_eq!(given.0, seq);
            Ok(())
        })
    };
    store.writer().commit(1, work).await.unwrap();
}

/// A queue as a kill leaves it: part of it in the log only. Returns its epoch.
async fn killed(folder: &Path) -> Epoch {
    let living = tempfile::tempdir().unwrap();
    let (store, outbox, opened) = open(living.path());
    let classes = [Class::Alarm, Class::Raw];
    let streams = classes.map(|class| outbox.stream(StreamKey::new(Name::new("press").unwrap(), class)).unwrap());
    for (stream, class) in streams.into_iter().zip(classes) {
        append(&store, &outbox, stream, class, 1, ROWS / 2).await;
    }
    // It came together, so it is in blocks; acknowledged rows leave them next.
    for stream in streams {
        let again = outbox.clone();
        let ids = [(1, SETTLED), ACKED].map(|(first, last)| BatchId { stream, first: Seq(first), last: Seq(last) });
        let delete = move |tx: &Tx<'_>| ids.iter().try_for_each(|id| again.delete(tx, id));
        store.writer().commit(1, delete).await.unwrap();
    }
    // A clean end, so that the file has something, and a new life for the log.
    outbox.close().unwrap();
    store.close();
    let (store, outbox, _) = open(living.path());
    for class in classes {
        let stream = outbox.stream(StreamKey::new(Name::new("press").unwrap(), class)).unwrap();
        // These stay single.
        for from in (ROWS / 2 + 1..=ROWS).step_by(2) {
            append(&store, &outbox, stream, class, from, ROWS.min(from + 1)).await;
        }
    }
    leave(living.path(), folder);
    opened.epoch
}

/// What a kill leaves of a file that is in use.
fn leave(living: &Path, folder: &Path) {
    for name in ["forebay.db", "forebay.db-wal", "epoch"] {
        std::fs::copy(living.join(name), folder.join(name)).unwrap();
    }
}

/// What came out of the queue for one class of one epoch.
#[derive(Default)]
struct Heard {
    rows: BTreeSet<u64>,
    gaps: Vec<(u64, u64, u64, GapReason)>,
}

async fn drain(store: &Store, outbox: &Outbox) -> BTreeMap<(u64, Class), Heard> {
    let mut heard: BTreeMap<(u64, Class), Heard> = BTreeMap::new();
    while let Some(batch) = outbox.next_batch(&BatchLimits { rows: 30, bytes: 1 << 20 }, &[]).await.unwrap() {
        let one = heard.entry((batch.epoch.0, batch.stream.class)).or_default();
        let mut covered: Vec<u64> = batch.rows.iter().map(|row| row.seq.0).collect();
        for row in &batch.rows {
            assert!(one.rows.insert(row.seq.0), "{} came twice", row.seq);
            assert_eq!(row.body, body(batch.stream.class, row.seq.0), "a wrong row was served");
        }
        for gap in &batch.gaps {
            covered.extend(gap.first.0..=gap.last.0);
            one.gaps.push((gap.first.0, gap.last.0, gap.count, gap.reason));
        }
        covered.sort_unstable();
        assert_eq!(
            covered,
            (batch.first.0..=batch.last.0).collect::<Vec<_>>(),
            "each number is a row or in the ledger"
        );
        let outbox = outbox.clone();
        store.writer().commit(1, move |tx| outbox.delete(tx, &batch.id)).await.unwrap();
    }
    heard
}

/// An earlier run found the file corrupt.
fn mark(folder: &Path) {
    std::fs::write(folder.join("forebay.db.corrupt"), b"").unwrap();
}

/// The next start: sets the file aside, salvages it, and sends what there is.
async fn next_start(folder: &Path) -> (BTreeMap<(u64, Class), Heard>, Vec<Salvaged>) {
    let (store, outbox, opened) = open(folder);
    assert!(opened.quarantined.is_some());
    let mut salvaged = Vec::new();
    for wreck in store.wrecks() {
        // A wreck without a known stream or epoch has nothing to say.
        let outcome = outbox.salvage(&wreck).await.ok();
        if outcome.is_some_and(|salvaged| salvaged.is_whole) {
            wreck.remove();
        }
        salvaged.extend(outcome);
    }
    let heard = drain(&store, &outbox).await;
    outbox.close().unwrap();
    store.close();
    (heard, salvaged)
}

/// Every number above the acknowledged ones, from the first to the highest.
fn check_whole(heard: &Heard, what: &str) {
    let mut all = heard.rows.clone();
    for &(first, last, count, _) in &heard.gaps {
        assert!(count <= last - first + 1);
        for number in first..=last {
            assert!(all.insert(number), "{what}: {number} is a row and in the ledger");
        }
    }
    let highest = *all.last().unwrap();
    let unaccounted: Vec<u64> = (SETTLED + 1..=highest)
        .filter(|number| !all.contains(number) && !(ACKED.0..=ACKED.1).contains(number))
        .collect();
    assert_eq!(unaccounted, [0_u64; 0], "{what}");
    assert!(highest >= ROWS, "{what}: {highest} is the highest that anybody speaks of");
}

#[tokio::test]
async fn a_file_set_aside_whole_gives_back_every_row_and_goes_away() {
    let folder = tempfile::tempdir().unwrap();
    let epoch = killed(folder.path()).await;
    mark(folder.path());
    let (heard, salvaged) = next_start(folder.path()).await;
    assert_eq!(salvaged.len(), 1);
    assert_eq!((salvaged[0].streams, salvaged[0].lost), (2, 0));
    for class in [Class::Alarm, Class::Raw] {
        let heard = &heard[&(epoch.0, class)];
        let wanted: BTreeSet<u64> = (SETTLED + 1..=ROWS).filter(|seq| !(ACKED.0..=ACKED.1).contains(seq)).collect();
        assert_eq!(heard.rows, wanted, "what the cloud has is not sent again");
        assert!(heard.gaps.iter().all(|gap| gap.3 == GapReason::Restart && gap.2 == 0), "{:?}", heard.gaps);
    }
    let left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains("quarantine"))
        .collect();
    assert_eq!(left, [""; 0], "nothing in it that nobody else has");
    // Drained: the next start forgets the old streams, and one more has nothing to do.
    for _ in 0..2 {
        let (store, outbox, opened) = open(folder.path());
        assert!(opened.quarantined.is_none() && store.wrecks().is_empty());
        assert!(drain(&store, &outbox).await.is_empty());
        assert!(outbox.depth().iter().all(|(key, rows)| *rows == 0 && key.epoch.is_none()), "{:?}", outbox.depth());
        outbox.close().unwrap();
        store.close();
    }
}

#[tokio::test]
async fn of_a_drained_file_that_was_set_aside_nothing_is_said_to_be_lost() {
    let (living, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, outbox, opened) = open(living.path());
    let stream = outbox.stream(StreamKey::new(Name::new("press").unwrap(), Class::Raw)).unwrap();
    append(&store, &outbox, stream, Class::Raw, 1, 10).await;
    let (again, all) = (outbox.clone(), BatchId { stream, first: Seq(1), last: Seq(10) });
    store.writer().commit(1, move |tx| again.delete(tx, &all)).await.unwrap();
    leave(living.path(), folder.path());
    mark(folder.path());
    let (heard, salvaged) = next_start(folder.path()).await;
    assert_eq!((salvaged[0].rows, salvaged[0].lost, salvaged[0].is_whole), (0, 0, true));
    let heard = &heard[&(opened.epoch.0, Class::Raw)];
    assert!(heard.rows.is_empty());
    assert!(heard.gaps.iter().all(|gap| gap.3 == GapReason::Restart && gap.2 == 0), "{:?}", heard.gaps);
}

#[tokio::test]
async fn a_salvage_that_is_cut_off_at_any_point_goes_on_with_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let epoch = killed(folder.path()).await;
    mark(folder.path());
    for commits in 0..4 {
        let (store, outbox, _) = open(folder.path());
        for wreck in store.wrecks() {
            let before = store.metrics().commits_done();
            let cut = std::future::poll_fn(|context| {
                let done = store.metrics().commits_done() - before >= commits;
                if !done {
                    context.waker().wake_by_ref();
                }
                if done { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
            });
            tokio::select! {
                biased;
                () = cut => {}
                salvaged = outbox.salvage(&wreck) => drop(salvaged.unwrap()),
            }
        }
        // No clean end.
        drop((outbox, store));
    }
    let (store, outbox, _) = open(folder.path());
    for wreck in store.wrecks() {
        outbox.salvage(&wreck).await.unwrap();
    }
    let heard = drain(&store, &outbox).await;
    for class in [Class::Alarm, Class::Raw] {
        let heard = &heard[&(epoch.0, class)];
        check_whole(heard, "after cuts");
        assert_eq!(heard.rows.len() as u64, ROWS - SETTLED - (ACKED.1 - ACKED.0 + 1));
    }
}

#[tokio::test]
async fn whatever_becomes_of_the_file_what_is_left_of_it_is_sent_and_the_rest_declared() {
    type Spoil = fn(&mut Vec<u8>, &mut Vec<u8>);
    let spoils: [(&str, Spoil); 8] = [
        ("the header is zeros", |database, _| database[..100].fill(0)),
        ("the schema is garbage", |database, _| database[100..PAGE].fill(0xa5)),
        ("the log is gone", |_, log| log.clear()),
        ("the log's header is garbage", |_, log| log[..32].fill(0x5a)),
        ("the file ends in the middle", |database, _| database.truncate(database.len() / 2 + 77)),
        ("one page in three is zeros", |database, _| {
            database.chunks_mut(PAGE).skip(1).step_by(3).for_each(|page| page.fill(0));
        }),
        ("one bit in each page", |database, _| {
            for (number, page) in database.chunks_mut(PAGE).enumerate() {
                page[(number * 911) % PAGE] ^= 1 << (number % 8);
            }
        }),
        ("everything is gone", |database, log| {
            database.fill(0);
            log.clear();
        }),
    ];
    let original = tempfile::tempdir().unwrap();
    let epoch = killed(original.path()).await;
    let read = |name: &str| std::fs::read(original.path().join(name)).unwrap();
    for (what, spoil) in spoils {
        let folder = tempfile::tempdir().unwrap();
        let (mut database, mut log) = (read("forebay.db"), read("forebay.db-wal"));
        spoil(&mut database, &mut log);
        std::fs::write(folder.path().join("forebay.db"), &database).unwrap();
        if !log.is_empty() {
            std::fs::write(folder.path().join("forebay.db-wal"), &log).unwrap();
        }
        std::fs::copy(original.path().join("epoch"), folder.path().join("epoch")).unwrap();
        mark(folder.path());
        let (heard, salvaged) = next_start(folder.path()).await;
        let rows: usize = heard.iter().filter(|(key, _)| key.0 == epoch.0).map(|(_, heard)| heard.rows.len()).sum();
        for ((of, _), heard) in &heard {
            assert_eq!(*of, epoch.0, "{what}");
            if what != "the log is gone" {
                check_whole(heard, what);
            }
        }
        match what {
            "everything is gone" => assert_eq!((rows, salvaged.iter().map(|one| one.streams).sum()), (0, 0_u64)),
            "the header is zeros" | "the schema is garbage" | "the log's header is garbage" => {
                assert_eq!(rows as u64, 2 * (ROWS - SETTLED - (ACKED.1 - ACKED.0 + 1)), "{what}");
            }
            "the log is gone" => assert_eq!(rows as u64, 2 * (ROWS / 2 - SETTLED - (ACKED.1 - ACKED.0 + 1))),
            _ => assert!(rows > 60, "{what}: {rows} rows came back"),
        }
    }
}

#[derive(Debug, Clone)]
enum Wound {
    Garbage { at: proptest::sample::Index, bytes: Vec<u8> },
    Zeros { at: proptest::sample::Index, width: usize },
    Swap { one: proptest::sample::Index, other: proptest::sample::Index },
    Truncate { at: proptest::sample::Index },
}

fn wound() -> impl Strategy<Value = Wound> {
    let index = any::<proptest::sample::Index>;
    prop_oneof![
        4 => (index(), proptest::collection::vec(any::<u8>(), 1..600)).prop_map(|(at, bytes)| Wound::Garbage { at, bytes }),
        2 => (index(), 1_usize..9000).prop_map(|(at, width)| Wound::Zeros { at, width }),
        2 => (index(), index()).prop_map(|(one, other)| Wound::Swap { one, other }),
        1 => index().prop_map(|at| Wound::Truncate { at }),
    ]
}

fn inflict(bytes: &mut Vec<u8>, wound: &Wound) {
    if bytes.len() < 2 * PAGE {
        return;
    }
    match wound {
        Wound::Garbage { at, bytes: garbage } => {
            let at = at.index(bytes.len());
            let end = (at + garbage.len()).min(bytes.len());
            bytes[at..end].copy_from_slice(&garbage[..end - at]);
        }
        Wound::Zeros { at, width } => {
            let at = at.index(bytes.len());
            let end = (at + width).min(bytes.len());
            bytes[at..end].fill(0);
        }
        Wound::Swap { one, other } => {
            let pages = bytes.len() / PAGE;
            let (one, other) = (one.index(pages) * PAGE, other.index(pages) * PAGE);
            for at in 0..PAGE {
                bytes.swap(one + at, other + at);
            }
        }
        Wound::Truncate { at } => bytes.truncate(at.index(bytes.len())),
    }
}

async fn survive(wounds: Vec<(bool, Wound)>) {
    let folder = tempfile::tempdir().unwrap();
    let epoch = killed(folder.path()).await;
    for (in_log, wound) in &wounds {
        let path = folder.path().join(if *in_log { "forebay.db-wal" } else { "forebay.db" });
        let mut bytes = std::fs::read(&path).unwrap();
        inflict(&mut bytes, wound);
        std::fs::write(&path, bytes).unwrap();
    }
    mark(folder.path());
    let (heard, salvaged) = next_start(folder.path()).await;
    assert!(salvaged.len() <= 1);
    for ((of, _), heard) in &heard {
        assert_eq!(*of, epoch.0);
        // Marks and acknowledged ranges have their own pages: with those gone less is known, and nothing is made up.
        let mut all = heard.rows.clone();
        for &(first, last, ..) in &heard.gaps {
            assert!((first..=last).all(|number| all.insert(number)), "a row that is in the ledger as well");
        }
        assert!(heard.rows.iter().all(|seq| (1..=ROWS).contains(seq)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_garbage_never_stops_the_process_and_is_never_served(
        wounds in proptest::collection::vec((any::<bool>(), wound()), 1..8)
    ) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(survive(wounds));
    }
}
