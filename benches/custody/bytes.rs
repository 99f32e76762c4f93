//! Bytes written to the disk per byte of payload, log and copying back included.

use std::time::Duration;

use crate::load::{Load, Until, payload};
use crate::servers::{Server, Setup};

struct Case {
    what: &'static str,
    payload_bytes: usize,
    messages: u64,
    streams: usize,
    publishers: usize,
    window: usize,
    pause: Duration,
    stream: &'static str,
}

const FULL: Case = Case {
    what: "full group commit",
    payload_bytes: 60,
    messages: 200_000,
    streams: 1,
    publishers: 8,
    window: 64,
    pause: Duration::ZERO,
    stream: "",
};
const SLOW: Case =
    Case { what: "one at a time", messages: 1_000, publishers: 1, window: 1, pause: Duration::from_millis(5), ..FULL };

pub(crate) fn run() {
    println!("\n## Bytes written per payload byte (write_bytes of the process, clean stop included)\n");
    println!(
        "| | payload bytes | messages | records a commit | bytes written per payload byte |\n|---|---|---|---|---|"
    );
    for payload_bytes in [60, 200, 1000] {
        gateway(&Case { payload_bytes, ..FULL });
        gateway(&Case { what: "10 streams", payload_bytes, streams: 10, publishers: 10, ..FULL });
        gateway(&Case { what: "100 streams", payload_bytes, streams: 100, publishers: 100, window: 8, ..FULL });
        gateway(&Case { payload_bytes, ..SLOW });
    }
    let verdicts = "[stream.cloud]\nverdicts = true";
    gateway(&Case { what: "and each verdict to the cloud", stream: verdicts, ..FULL });
    for batch in [1, 64, 256] {
        bare(batch);
    }
}

fn gateway(case: &Case) {
    let setup =
        Setup { streams: case.streams, payload_bytes: case.payload_bytes, stream: case.stream, ..Setup::default() };
    let server = Server::gateway(&setup);
    let before = server.written_bytes();
    let (records, commits) =
        (server.metric("forebay_store_records_total"), server.metric("forebay_store_commits_total"));
    let load = Load {
        window: case.window,
        pause: case.pause,
        topics: case.streams,
        payload_bytes: case.payload_bytes,
        ..Load::new(server.address, case.publishers, Until::Messages(case.messages))
    };
    let seen = load.run();
    assert_eq!(server.metric("forebay_signal_payloads_refused_total"), 0.0, "the payload is wrong");
    let records = server.metric("forebay_store_records_total") - records;
    let commits = server.metric("forebay_store_commits_total") - commits;
    let written = server.finish() - before;
    let bytes = payload(1, case.payload_bytes).len();
    line(case.what, bytes, seen.messages, records / commits, written);
}

fn line(what: &str, payload_bytes: usize, messages: u64, together: f64, written: u64) {
    let factor = written as f64 / (payload_bytes as u64 * messages) as f64;
    println!("| {what} | {payload_bytes} | {messages} | {together:.0} | {factor:.2} |");
}

/// [`Server::written_bytes`] of this process.
pub(crate) fn own_written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    let line = io.lines().find(|line| line.starts_with("write_bytes:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A table with a blob, and nothing else: what SQLite itself costs.
fn bare(batch: u64) {
    let folder = tempfile::tempdir().unwrap();
    let connection = rusqlite::Connection::open(folder.path().join("bare.db")).unwrap();
    connection.execute_batch("PRAGMA journal_mode = wal; PRAGMA synchronous = full;").unwrap();
    connection.execute_batch("CREATE TABLE item (no INTEGER PRIMARY KEY, body BLOB NOT NULL)").unwrap();
    let (before, rows) = (own_written(), if batch == 1 { 3_000 } else { 400_000 });
    for _ in 0..rows / batch {
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut insert = connection.prepare_cached("INSERT INTO item (body) VALUES (?1)").unwrap();
        for _ in 0..batch {
            insert.execute([[7_u8; 60]]).unwrap();
        }
        drop(insert);
        connection.execute_batch("COMMIT").unwrap();
    }
    drop(connection);
    line("bare rusqlite, one table of blobs", 60, rows / batch * batch, batch as f64, own_written() - before);
}
