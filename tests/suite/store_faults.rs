//! What a disk that refuses writes costs: nothing that was acknowledged. A child process lives through the fault, so
//! that its file size limit is nobody else's, and dies without a clean end.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use forebay::base::{Clock, ManualClock, Name};
use forebay::outbox::{self, BatchLimits, Class, Envelope, Outbox, StreamKey};
use forebay::store::{Config, Health, Schema, Store, Tx};
use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};

use crate::log_file;

const SCHEMA: Schema =
    Schema { room: "fault", steps: &["CREATE TABLE item (no INTEGER PRIMARY KEY, body BLOB)"], read_at_start: &[] };
const FOLDER: &str = "FOREBAY_FAULT_FOLDER";

fn open(folder: &Path) -> Store {
    let config = Config { probe_ms: 1, ..Config::at(folder) };
    Store::open(&config, &[SCHEMA], Arc::new(ManualClock::at(1_700_000_000_000))).unwrap().0
}

fn insert(no: i64) -> impl FnOnce(&Tx<'_>) -> Result<(), forebay::store::Error> + Send + 'static {
    move |tx| tx.execute("INSERT INTO item VALUES (?1, zeroblob(3000))", [no]).map(drop)
}

/// Files of this process may not grow beyond `bytes`: writes fail with EFBIG, which SQLite calls an I/O error.
#[allow(unsafe_code, reason = "the limit and the signal are the kernel's")]
fn limit_files(bytes: u64) {
    // SAFETY: both calls take plain values; the struct outlives its call.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit), 0);
    }
}

/// The child's life. Without its folder (an ordinary run of the suite) it has nothing to do.
#[tokio::test]
async fn child_that_meets_a_disk_that_refuses() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let store = open(folder);
    let (writer, mut health) = (store.writer(), store.health());
    let mut acknowledged = Vec::new();
    for no in 0..20 {
        writer.commit(3000, insert(no)).await.unwrap();
        acknowledged.push(no);
    }
    let log = log_file::used(&folder.join("forebay.db-wal")).len() as u64;
    // In the middle of a page of the log.
    limit_files(log + 10_000);
    let mut refused = 0;
    for no in 100..130 {
        match writer.commit(3000, insert(no)).await {
            Ok(()) => acknowledged.push(no),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 20, "{refused} refused");
    assert!(matches!(&*health.borrow_and_update(), Health::Failing { restart_heals: false, .. }));
    limit_files(libc::RLIM_INFINITY);
    health.wait_for(|health| *health == Health::Good).await.unwrap();
    for no in 200..210 {
        writer.commit(3000, insert(no)).await.unwrap();
        acknowledged.push(no);
    }
    let list: Vec<String> = acknowledged.iter().map(ToString::to_string).collect();
    std::fs::write(folder.join("acknowledged"), list.join(" ")).unwrap();
    // No destructors, no clean close.
    std::process::abort();
}

#[tokio::test]
async fn a_disk_that_refuses_writes_acknowledges_nothing_and_recovers_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store_faults::child_that_meets_a_disk_that_refuses", "--nocapture"])
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stderr);
    let list = std::fs::read_to_string(folder.path().join("acknowledged"))
        .unwrap_or_else(|error| panic!("{error}: the child said {said}"));
    let acknowledged: Vec<i64> = list.split(' ').map(|no| no.parse().unwrap()).collect();
    let store = open(folder.path());
    let read = |connection: &rusqlite::Connection| {
        let whole: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        let mut statement = connection.prepare("SELECT no FROM item ORDER BY no")?;
        let numbers = statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
        Ok((whole, numbers))
    };
    let (whole, numbers) = store.reader().read(read).await.unwrap();
    assert_eq!(whole, "ok");
    assert_eq!(numbers, acknowledged, "what was acknowledged, and nothing that was refused");
}

#[tokio::test]
async fn a_full_file_opens_resumes_its_queue_takes_nothing_and_drains() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        max_bytes: 2 << 20,
        reserve_bytes: 256 << 10,
        restart_bytes: 512 << 10,
        checkpoint_bytes: 128 << 10,
        ..Config::at(folder.path())
    };
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    let key = StreamKey::new(Name::new("press").unwrap(), Class::Raw);
    let mut acknowledged = 0;
    for life in 0..3 {
        let (store, opened) = Store::open(&config, &[outbox::SCHEMA], Arc::<ManualClock>::clone(&clock)).unwrap();
        // Nothing leaves by itself: it is the file's limit that is looked at.
        let blocks = outbox::ClassConfig { policy: Some(outbox::Policy::Block), ..outbox::ClassConfig::default() };
        let limits = outbox::Config { raw: blocks, ..outbox::Config::default() };
        let outbox = Outbox::open(&limits, &store, opened.epoch, Arc::<ManualClock>::clone(&clock)).unwrap();
        let stream = outbox.stream(key.clone()).unwrap();
        let writer = store.writer();
        // What compresses would be a small block each, and take minutes to fill the file.
        let mut rng = StdRng::seed_from_u64(7);
        let mut append = || {
            let (outbox, stamp) = (outbox.clone(), clock.stamp());
            let mut body = vec![0; 8000];
            rng.fill_bytes(&mut body);
            let work = move |tx: &Tx<'_>| outbox.append(tx, &stream, &Envelope { body, stamp }).map(drop);
            writer.commit(8000, work)
        };
        let before = acknowledged;
        while append().await.is_ok() {
            acknowledged += 1;
        }
        assert_eq!(outbox.depth()[0].1, acknowledged);
        assert!(life == 0 || acknowledged - before < 10, "it was full before");
        if life < 2 {
            // The outbox is not closed: every life burns its reserve, and the ledger has room for it.
            drop((outbox, store));
            continue;
        }
        let mut received = 0;
        while let Some(batch) = outbox.next_batch(&BatchLimits { rows: 100, bytes: 1 << 20 }, &[]).await.unwrap() {
            received += batch.rows.len() as u64;
            let outbox = outbox.clone();
            let (tell, told) = tokio::sync::oneshot::channel();
            let delete = move |tx: &Tx<'_>| outbox.delete(tx, &batch.id);
            writer.ride(0, delete, |result| drop(tell.send(result))).await.unwrap();
            told.await.unwrap().unwrap();
        }
        assert_eq!(received, acknowledged);
        append().await.unwrap();
    }
}

#[tokio::test]
async fn at_the_hard_limit_the_ledger_and_a_checkpoint_still_fit() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        max_bytes: 2 << 20,
        reserve_bytes: 256 << 10,
        restart_bytes: 512 << 10,
        checkpoint_bytes: 128 << 10,
        ..Config::at(folder.path())
    };
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    let blocks = outbox::ClassConfig { policy: Some(outbox::Policy::Block), ..outbox::ClassConfig::default() };
    let limits = outbox::Config { raw: blocks, ..outbox::Config::default() };
    let open = || {
        let (store, opened) = Store::open(&config, &[outbox::SCHEMA], Arc::<ManualClock>::clone(&clock)).unwrap();
        let outbox = Outbox::open(&limits, &store, opened.epoch, Arc::<ManualClock>::clone(&clock)).unwrap();
        let stream = outbox.stream(StreamKey::new(Name::new("press").unwrap(), Class::Raw)).unwrap();
        (store, outbox, stream)
    };
    let (store, outbox, stream) = open();
    let mut rows = 0_u64;
    // As a flow does that asks nobody for room: it is the file that says no.
    loop {
        let (appending, stamp) = (outbox.clone(), clock.stamp());
        let work = move |tx: &Tx<'_>| {
            let append = |_| appending.append(tx, &stream, &Envelope { body: vec![7; 100], stamp }).map(drop);
            (0..50).try_for_each(append)
        };
        match store.writer().commit(5000, work).await {
            Ok(()) => rows += 50,
            Err(_) => break,
        }
    }
    assert!(rows > 2000, "{rows}");
    assert!(matches!(&*store.health().borrow(), Health::Failing { restart_heals: false, .. }));
    // Every second row: no entry grows into its neighbour, and hardly a page becomes free.
    for seq in (1..=600).step_by(2) {
        outbox.give_up(stream, forebay::base::Seq(seq), outbox::GapReason::Unsendable).await.unwrap();
    }
    drop((outbox, store));
    let size = |name: &str| std::fs::metadata(folder.path().join(name)).map_or(0, |file| file.len());
    assert!(size("forebay.db") + size("forebay.db-wal") <= 2 << 20, "the checkpoint kept the limit");
    let (store, outbox, _) = open();
    let (mut received, mut lost) = (0, 0);
    while let Some(batch) = outbox.next_batch(&BatchLimits { rows: 500, bytes: 1 << 20 }, &[]).await.unwrap() {
        received += batch.rows.len() as u64;
        lost += batch.gaps.iter().map(|gap| gap.count).sum::<u64>();
        let outbox = outbox.clone();
        store.writer().commit_from_reserve(move |tx| outbox.delete(tx, &batch.id)).await.unwrap();
    }
    assert_eq!((received, lost), (rows - 300, 300));
}
