//! Rows that wait as blocks: what writing them costs from their arrival to the block, and what room it makes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use forebay::base::{Clock as _, Name, SystemClock};
use forebay::outbox::{self, BatchId, Class, Envelope, Outbox, PackConfig, StreamHandle, StreamKey};
use forebay::store::{self, Store, Tx};

use crate::bytes::own_written;
use crate::load::payload;

const ROWS: u64 = 32_768;
const LOOK_ROWS: usize = 8_192;

/// How rows come.
struct Case {
    what: &'static str,
    streams: u64,
    /// Of each stream in one commit.
    rows: u64,
}

const CASES: [Case; 4] = [
    Case { what: "256 of a stream in a commit", streams: 1, rows: 256 },
    Case { what: "32 of each of 8 streams", streams: 8, rows: 32 },
    Case { what: "8 of a stream", streams: 1, rows: 8 },
    Case { what: "2 of each of 32 streams", streams: 32, rows: 2 },
];

pub(crate) fn run() {
    println!("\n## {ROWS} rows that wait: bytes written per byte of body, log and copying back included\n");
    println!(
        "| rows in a commit | body bytes | as single rows | on arrival | by packing | room taken of that of single rows \
         | us on arrival, a row | rows/s packed | rows/s read |\n|---|---|---|---|---|---|---|---|---|"
    );
    for case in CASES {
        for bytes in [60, 200, 800] {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(measure(&case, bytes));
        }
    }
}

struct Bench {
    folder: tempfile::TempDir,
    store: Store,
    outbox: Outbox,
    streams: Vec<StreamHandle>,
}

/// What one run cost.
struct Cost {
    written: u64,
    arriving_s: f64,
    packing_s: f64,
    /// Rows that were packed after they had arrived.
    packed: u64,
    used: f64,
    bench: Bench,
}

async fn cost(case: &Case, bytes: usize, pack: PackConfig, packs: bool) -> Cost {
    let before = own_written();
    let bench = Bench::open(tempfile::tempdir().unwrap(), case.streams, pack.clone());
    let (mut arriving_s, mut packing_s, mut packed) = (0.0, 0.0, 0);
    // The packer looks every so many rows.
    for from in (0..ROWS).step_by(LOOK_ROWS) {
        let began = Instant::now();
        bench.append(case, from, bytes).await;
        arriving_s += began.elapsed().as_secs_f64();
        let began = Instant::now();
        let mut more = packs;
        while more {
            let rows = bench.outbox.pack_cold().await.unwrap();
            (packed, more) = (packed + rows, rows > 0);
        }
        packing_s += began.elapsed().as_secs_f64();
    }
    let used = bench.outbox.usage().iter().map(|class| class.bytes).sum::<u64>() as f64;
    let bench = bench.reopen(case.streams, pack);
    Cost { written: own_written() - before, arriving_s, packing_s, packed, used, bench }
}

async fn measure(case: &Case, bytes: usize) {
    let single = cost(case, bytes, PackConfig { after_s: 0, ..PackConfig::default() }, false).await;
    let arrived = cost(case, bytes, PackConfig::default(), false).await;
    let packed = cost(case, bytes, PackConfig::default(), true).await;
    let (began, mut in_flight, mut rows) = (Instant::now(), HashMap::new(), 0);
    let limits = outbox::BatchLimits { rows: 512, bytes: 64 << 10 };
    let flying = |in_flight: &HashMap<StreamHandle, BatchId>| in_flight.values().copied().collect::<Vec<_>>();
    while let Some(batch) = packed.bench.outbox.next_batch(&limits, &flying(&in_flight)).await.unwrap() {
        rows += batch.rows.len() as u64;
        in_flight.insert(batch.id.stream, BatchId { first: forebay::base::Seq(1), ..batch.id });
    }
    assert_eq!(rows, ROWS);
    let reading_s = began.elapsed().as_secs_f64();
    let per_byte = |written: u64| written as f64 / (ROWS * bytes as u64) as f64;
    println!(
        "| {} | {bytes} | {:.2} | {:.2} | {:.2} | {:.2} | {:.1} | {:.0} | {:.0} |",
        case.what,
        per_byte(single.written),
        per_byte(arrived.written),
        per_byte(packed.written.saturating_sub(arrived.written)),
        packed.used / single.used,
        arrived.arriving_s / ROWS as f64 * 1e6,
        packed.packed as f64 / packed.packing_s,
        ROWS as f64 / reading_s
    );
}

impl Bench {
    fn open(folder: tempfile::TempDir, streams: u64, pack: PackConfig) -> Self {
        let clock = Arc::new(SystemClock::new());
        // No reading comes along to ride with.
        let config = store::Config { ride_ms: 0, ..store::Config::at(folder.path()) };
        let (store, opened) = Store::open(&config, &[outbox::SCHEMA], clock.clone()).unwrap();
        let outbox =
            Outbox::open(&outbox::Config { pack, ..outbox::Config::default() }, &store, opened.epoch, clock).unwrap();
        let stream =
            |n| outbox.stream(StreamKey::new(Name::new(&format!("press-{n}")).unwrap(), Class::Summary)).unwrap();
        let streams = (0..streams).map(stream).collect();
        Self { folder, store, outbox, streams }
    }

    /// The log is copied back in between.
    fn reopen(self, streams: u64, pack: PackConfig) -> Self {
        self.outbox.close().unwrap();
        self.store.close();
        Self::open(self.folder, streams, pack)
    }

    async fn append(&self, case: &Case, from: u64, bytes: usize) {
        let a_commit = usize::try_from(case.streams * case.rows).unwrap();
        for from in (from..from + LOOK_ROWS as u64).step_by(a_commit) {
            let (outbox, streams, stamp) = (self.outbox.clone(), self.streams.clone(), SystemClock::new().stamp());
            let work = move |tx: &Tx<'_>| {
                (from..from + a_commit as u64).try_for_each(|number| {
                    let stream = &streams[usize::try_from(number).unwrap() % streams.len()];
                    let body = payload(number, bytes).into_bytes();
                    outbox.append(tx, stream, &Envelope { body, stamp }).map(drop)
                })
            };
            self.store.writer().commit(1, work).await.unwrap();
        }
    }
}
