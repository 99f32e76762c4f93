//! Durable rows per second and commit latency of the store, beside the disk's own sync and a bare SQLite loop.
//!
//! `cargo bench --no-default-features --bench durable [-- FOLDER]`: FOLDER lies on the disk to measure.

#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::unwrap_used, missing_docs, reason = "a bench")]

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use forebay::base::{Clock, Name, SystemClock};
use forebay::outbox::{self, BatchLimits, Class, Envelope, Outbox, StreamKey};
use forebay::store::{self, Schema, Store, Tx};

const SCHEMA: Schema = Schema {
    room: "bench",
    steps: &["CREATE TABLE item (no INTEGER PRIMARY KEY, body BLOB NOT NULL)"],
    read_at_start: &[],
};
const ROW_BYTES: usize = 200;
const SPAN: Duration = Duration::from_secs(3);

fn main() {
    let folder = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let folder = folder.map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::tempdir_in(folder).unwrap();
    println!("{:<44} {:>10} {:>10} {:>10}", "200-byte rows", "rows/s", "p50 ms", "p99 ms");
    let sync = bare_sync(folder.path());
    println!("{:<44} {:>10} {:>10.2} {:>10.2}", "fdatasync of one 4 KiB append", "", at(&sync, 50), at(&sync, 99));
    for batch in [1, 256] {
        bare_sqlite(folder.path(), batch);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for submitters in [1, 10, 100, 1000] {
        runtime.block_on(closed_loop(folder.path(), submitters));
    }
    runtime.block_on(open_loop(folder.path()));
    runtime.block_on(queue(folder.path()));
    let after = bare_sync(folder.path());
    println!("{:<44} {:>10} {:>10.2} {:>10.2}", "fdatasync again, after all", "", at(&after, 50), at(&after, 99));
}

/// Milliseconds at a percentile.
fn at(times: &[Duration], percentile: usize) -> f64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len().saturating_sub(1) * percentile / 100).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
}

fn line(what: &str, rows: u64, took: Duration, times: &[Duration]) {
    let rate = rows as f64 / took.as_secs_f64();
    if times.is_empty() {
        println!("{what:<44} {rate:>10.0}");
    } else {
        println!("{what:<44} {rate:>10.0} {:>10.2} {:>10.2}", at(times, 50), at(times, 99));
    }
}

fn bare_sync(folder: &Path) -> Vec<Duration> {
    let mut file = File::create(folder.join("sync")).unwrap();
    let write = |file: &mut File| {
        let began = Instant::now();
        file.write_all(&[1; 4096]).unwrap();
        file.sync_data().unwrap();
        began.elapsed()
    };
    (0..200).map(|_| write(&mut file)).collect()
}

fn bare_sqlite(folder: &Path, batch: u64) {
    let path = folder.join(format!("bare-{batch}.db"));
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.execute_batch("PRAGMA journal_mode = wal; PRAGMA synchronous = full;").unwrap();
    connection.execute_batch(SCHEMA.steps[0]).unwrap();
    let (began, mut rows, mut times) = (Instant::now(), 0, Vec::new());
    while began.elapsed() < SPAN {
        let commit = Instant::now();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut insert = connection.prepare_cached("INSERT INTO item (body) VALUES (?1)").unwrap();
        for _ in 0..batch {
            insert.execute([[7_u8; ROW_BYTES]]).unwrap();
        }
        drop(insert);
        connection.execute_batch("COMMIT").unwrap();
        rows += batch;
        times.push(commit.elapsed());
    }
    line(&format!("bare rusqlite, batch {batch}"), rows, began.elapsed(), &times);
}

fn open(folder: &Path, name: &str) -> (Store, Outbox) {
    let clock = Arc::new(SystemClock::new());
    let config = store::Config::at(folder.join(name));
    let (store, opened) = Store::open(&config, &[SCHEMA, outbox::SCHEMA], Arc::<SystemClock>::clone(&clock)).unwrap();
    let outbox = Outbox::open(&outbox::Config::default(), &store, opened.epoch, clock).unwrap();
    (store, outbox)
}

fn insert(tx: &Tx<'_>) -> Result<(), store::Error> {
    tx.execute("INSERT INTO item (body) VALUES (?1)", [[7_u8; ROW_BYTES]]).map(drop)
}

/// Each submitter waits for its acknowledgement before it goes on.
async fn closed_loop(folder: &Path, submitters: usize) {
    let (store, _) = open(folder, &format!("closed-{submitters}"));
    let times = Arc::new(Mutex::new(Vec::new()));
    let (began, mut tasks) = (Instant::now(), tokio::task::JoinSet::new());
    for _ in 0..submitters {
        let (writer, times) = (store.writer(), Arc::clone(&times));
        tasks.spawn(async move {
            let mut own = Vec::new();
            while began.elapsed() < SPAN {
                let submitted = Instant::now();
                let (tell, told) = tokio::sync::oneshot::channel();
                writer.submit(ROW_BYTES, insert, |result| drop(tell.send(result))).await.unwrap();
                told.await.unwrap().unwrap();
                own.push(submitted.elapsed());
            }
            times.lock().unwrap().append(&mut own);
        });
    }
    tasks.join_all().await;
    let times = times.lock().unwrap();
    line(&format!("store, {submitters} submitters, each waits"), times.len() as u64, began.elapsed(), &times);
    let commits = store.metrics().commits_done().max(1);
    println!("{:<44} {:>10.1}", "    records per commit", times.len() as f64 / commits as f64);
}

/// One submitter that only waits for room, as a broker's connections together do.
async fn open_loop(folder: &Path) {
    let (store, _) = open(folder, "open");
    let (writer, acknowledged) = (store.writer(), Arc::new(AtomicU64::new(0)));
    let began = Instant::now();
    while began.elapsed() < SPAN {
        for _ in 0..64 {
            let acknowledged = Arc::clone(&acknowledged);
            let done = move |result: Result<(), store::CommitError>| {
                result.unwrap();
                acknowledged.fetch_add(1, Ordering::Relaxed);
            };
            writer.submit(ROW_BYTES, insert, done).await.unwrap();
        }
    }
    store.close();
    line("store, bounded queue always full", acknowledged.load(Ordering::Relaxed), began.elapsed(), &[]);
}

async fn queue(folder: &Path) {
    let (store, outbox) = open(folder, "queue");
    let stream = outbox.stream(StreamKey::new(Name::new("press").unwrap(), Class::Raw)).unwrap();
    let stamp = SystemClock::new().stamp();
    let (writer, began) = (store.writer(), Instant::now());
    for _ in 0..100_000 {
        let outbox = outbox.clone();
        let work =
            move |tx: &Tx<'_>| outbox.append(tx, &stream, &Envelope { body: vec![7; ROW_BYTES], stamp }).map(drop);
        writer.submit(ROW_BYTES, work, |result| result.unwrap()).await.unwrap();
    }
    writer.commit(1, |_| Ok(())).await.unwrap();
    line("outbox.append of 100,000 rows", 100_000, began.elapsed(), &[]);
    outbox.close().unwrap();
    store.close();

    let began = Instant::now();
    let (store, outbox) = open(folder, "queue");
    println!("{:<44} {:>10} {:>10.2}", "opening store and outbox, 100,000 queued", "", at(&[began.elapsed()], 50));
    let limits = BatchLimits { rows: 500, bytes: 256 << 10 };
    let (began, mut times, mut rows) = (Instant::now(), Vec::new(), 0);
    loop {
        let asked = Instant::now();
        let Some(batch) = outbox.next_batch(&limits, &[]).await.unwrap() else { break };
        times.push(asked.elapsed());
        rows += batch.rows.len() as u64;
        let outbox = outbox.clone();
        store.writer().commit(0, move |tx| outbox.delete(tx, &batch.id)).await.unwrap();
    }
    line("draining in batches of 500, one at a time", rows, began.elapsed(), &times);
    let pages: u64 = std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    println!("{:<44} {:>10.1} MB", "resident memory of this bench", (pages * 4096) as f64 / 1e6);
}
