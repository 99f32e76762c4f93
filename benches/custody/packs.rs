//! Rows that wait long, packed: what writing the blocks costs, and what room it makes.

use std::sync::Arc;
use std::time::Instant;

use forebay::base::{Clock as _, Name, SystemClock};
use forebay::outbox::{self, Class, Envelope, Outbox, PackConfig, StreamKey};
use forebay::store::{self, Store, Tx};

use crate::bytes::own_written;
use crate::load::payload;

const ROWS: u64 = 100_000;

pub(crate) fn run() {
    println!("\n## Packing {ROWS} waiting rows, and sending them from their blocks\n");
    println!("| body bytes | bytes written per byte packed | room taken after/before | rows/s packed | rows/s read |");
    println!("|---|---|---|---|---|");
    for bytes in [60, 200, 800] {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(packed(bytes));
    }
}

async fn packed(bytes: usize) {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(SystemClock::new());
    // No reading comes along to ride with.
    let config = store::Config { ride_ms: 0, ..store::Config::at(folder.path()) };
    let (store, opened) = Store::open(&config, &[outbox::SCHEMA], clock.clone()).unwrap();
    let config =
        outbox::Config { pack: PackConfig { keep_rows: 0, ..PackConfig::default() }, ..outbox::Config::default() };
    let outbox = Outbox::open(&config, &store, opened.epoch, clock.clone()).unwrap();
    let stream = outbox.stream(StreamKey::new(Name::new("press").unwrap(), Class::Raw)).unwrap();
    for from in (0..ROWS).step_by(256) {
        let (outbox, stamp) = (outbox.clone(), clock.stamp());
        let work = move |tx: &Tx<'_>| {
            (from..ROWS.min(from + 256)).try_for_each(|number| {
                let body = payload(number, bytes).into_bytes();
                outbox.append(tx, &stream, &Envelope { body, stamp }).map(drop)
            })
        };
        store.writer().commit(1, work).await.unwrap();
    }
    let used = |outbox: &Outbox| outbox.usage().iter().map(|class| class.bytes).sum::<u64>() as f64;
    let (before, written, began) = (used(&outbox), own_written(), Instant::now());
    while outbox.pack_cold().await.unwrap() > 0 {}
    let packing = began.elapsed().as_secs_f64();
    let after = used(&outbox);
    let (began, mut in_flight, mut rows) = (Instant::now(), Vec::new(), 0);
    let limits = outbox::BatchLimits { rows: 512, bytes: 64 << 10 };
    while let Some(batch) = outbox.next_batch(&limits, &in_flight).await.unwrap() {
        rows += batch.rows.len() as u64;
        in_flight = vec![outbox::BatchId { first: forebay::base::Seq(1), ..batch.id }];
    }
    assert_eq!(rows, ROWS);
    let reading = began.elapsed().as_secs_f64();
    outbox.close().unwrap();
    store.close();
    println!(
        "| {bytes} | {:.2} | {:.2} | {:.0} | {:.0} |",
        (own_written() - written) as f64 / (ROWS * bytes as u64) as f64,
        after / before,
        ROWS as f64 / packing,
        ROWS as f64 / reading
    );
}
