//! What the disk is made to write for rows that wait: frames of the log, and pages copied back from it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use forebay::base::{Clock, ManualClock, Name};
use forebay::outbox::{self, Class, Envelope, Outbox, PackConfig, StreamHandle, StreamKey};
use forebay::store::{self, Store, Tx};

const PAGE: u64 = 4096;
const FRAME: u64 = 24 + PAGE;

/// Readings as a sensor sends them: time, number, waves with some noise.
fn body(n: u64, bytes: usize) -> Vec<u8> {
    let mut text = format!(r#"{{"t":{},"n":{}"#, 1_700_000_000_000 + 100 * n, 10_000_000 + n);
    for field in 0..bytes.saturating_sub(42) / 14 {
        let noise = (n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(field as u64) >> 33) % 100;
        let value = 50.0 + 20.0 * (n as f64 / 500.0 + field as f64).sin() + noise as f64 / 100.0;
        text += &format!(r#","v{field}":{value:.4}"#);
    }
    let rest = bytes.saturating_sub(text.len() + 8);
    text += &format!(r#","u":"{:->rest$}"}}"#, "");
    text.into_bytes()
}

struct Bench {
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
    store: Store,
    outbox: Outbox,
    stream: StreamHandle,
}

impl Bench {
    fn open(pack: PackConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        // The log is copied back at the end only: it tells everything that was written.
        let limits = store::Config {
            ride_ms: 0,
            checkpoint_bytes: 64 << 20,
            restart_bytes: 64 << 20,
            ..store::Config::at(folder.path())
        };
        let (store, opened) = Store::open(&limits, &[outbox::SCHEMA], Arc::<ManualClock>::clone(&clock)).unwrap();
        let config = outbox::Config { pack, ..outbox::Config::default() };
        let outbox = Outbox::open(&config, &store, opened.epoch, Arc::<ManualClock>::clone(&clock)).unwrap();
        let stream = outbox.stream(StreamKey::new(Name::new("press").unwrap(), Class::Summary)).unwrap();
        Self { folder, clock, store, outbox, stream }
    }

    async fn append(&self, commits: u64, rows: u64, bytes: usize) {
        for commit in 0..commits {
            let (outbox, stream, stamp) = (self.outbox.clone(), self.stream, self.clock.stamp());
            let work = move |tx: &Tx<'_>| {
                (commit * rows..(commit + 1) * rows)
                    .try_for_each(|n| outbox.append(tx, &stream, &Envelope { body: body(n, bytes), stamp }).map(drop))
            };
            self.store.writer().commit(bytes, work).await.unwrap();
        }
    }

    /// Pages of each frame of the log so far.
    fn frames(&self) -> Vec<u32> {
        let log = std::fs::read(Path::new(self.folder.path()).join("forebay.db-wal")).unwrap();
        let frame = usize::try_from(FRAME).unwrap();
        log[32..].chunks_exact(frame).map(|frame| u32::from_be_bytes(frame[..4].try_into().unwrap())).collect()
    }
}

/// Bytes that these frames are, and the copies of their pages.
fn written(frames: &[u32]) -> f64 {
    (frames.len() as u64 * FRAME + frames.iter().collect::<BTreeSet<_>>().len() as u64 * PAGE) as f64
}

#[tokio::test]
async fn rows_that_come_together_cost_less_than_two_bytes_written_per_byte_of_body() {
    for (bytes, most) in [(60, 2.0), (200, 1.2), (800, 1.0)] {
        let bench = Bench::open(PackConfig::default());
        let before = bench.frames().len();
        bench.append(24, 256, bytes).await;
        let cost = written(&bench.frames()[before..]) / (24 * 256 * bytes) as f64;
        assert!(cost < most, "{bytes} B: {cost:.2} bytes written per byte of body");
    }
}

#[tokio::test]
async fn packing_rows_that_came_few_at_a_time_writes_less_than_two_bytes_per_byte_of_body() {
    for (bytes, commits, rows) in [(60, 600, 8), (200, 600, 8), (800, 700, 2)] {
        let bench = Bench::open(PackConfig::default());
        bench.append(commits, rows, bytes).await;
        let before = bench.frames().len();
        let mut packed = 0;
        loop {
            match bench.outbox.pack_cold().await.unwrap() {
                0 => break,
                more => packed += more,
            }
        }
        assert_eq!(packed, commits * rows, "all of it");
        let cost = written(&bench.frames()[before..]) / (packed * bytes as u64) as f64;
        assert!(cost < 1.5, "{bytes} B: {cost:.2} bytes written per byte of body");
    }
}
