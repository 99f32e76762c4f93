//! How long this disk takes to make a write durable, and what that makes of the writer: rows a second, at which delay.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;

use super::scratch::Scratch;
use crate::base::{Clock, Name};
use crate::outbox::{self, Class, Envelope, Outbox, StreamKey};
use crate::store::{self, Disk, Store, Watch};

/// The log's size while syncs are measured: writes go round in it as SQLite's do.
const LOG_BYTES: u64 = 4 << 20;

/// A sorted set of durations.
#[derive(Debug, Clone, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The time that this share of all stays within, in milliseconds. 0 if there are none.
    pub fn share_ms(&self, share: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        let at = ((self.0.len() as f64 * share) as usize).min(last);
        self.0.get(at).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    }
}

/// Syncs of a 4 KiB write into a file that has its length already, one after the other.
pub fn syncs(folder: &Path, clock: &dyn Clock, most: Duration) -> Result<Times> {
    let home = Scratch::within(folder)?;
    let file = File::create(home.path().join("log")).context("failed to create a file")?;
    for at in 0..LOG_BYTES >> 16 {
        file.write_all_at(&[0x5a; 1 << 16], at << 16).context("failed to write")?;
    }
    file.sync_all().context("failed to sync")?;
    let (began, mut times, mut number) = (clock.since_boot(), Vec::new(), 0_u64);
    while times.len() < 32 || clock.since_boot().saturating_sub(began) < most {
        number += 1;
        let block = [number as u8; 4096];
        let before = clock.since_boot();
        file.write_all_at(&block, (number * 4096) % LOG_BYTES).context("failed to write")?;
        file.sync_data().context("failed to sync")?;
        times.push(clock.since_boot().saturating_sub(before));
    }
    Ok(Times::of(times))
}

/// What the writer does with a number of submitters, each waiting for its acknowledgement.
#[derive(Debug, Clone)]
pub struct Rate {
    /// Submitters at a time.
    pub submitters: u64,
    /// Acknowledged rows a second.
    pub rows_per_s: f64,
    /// Delays of acknowledgements.
    pub delays: Times,
    /// Rows in one commit on average.
    pub rows_per_commit: f64,
    /// Bytes handed to the system for each byte of payload, log and checkpoints together.
    pub written_per_byte: f64,
}

/// Runs the store and the queue with the gateway's defaults for `most`.
pub async fn rate(
    folder: &Path,
    clock: &Arc<dyn Clock>,
    submitters: u64,
    payload_bytes: usize,
    most: Duration,
) -> Result<Rate> {
    let home = Scratch::within(folder)?;
    let watch = Arc::new(Watch::default());
    let disk = Disk::watched(&watch).context("failed to watch the disk")?;
    let config = store::Config { disk, ..store::Config::at(home.path()) };
    let (store, opened) = Store::open(&config, &[outbox::SCHEMA], Arc::clone(clock))?;
    let outbox = Outbox::open(&outbox::Config::default(), &store, opened.epoch, Arc::clone(clock))?;
    let stream = outbox.stream(StreamKey::new(Name::new("press").expect("letters"), Class::Raw))?;
    let stop = Arc::new(AtomicBool::new(false));
    let rows = Arc::new(AtomicU64::new(0));
    let delays = Arc::new(Mutex::new(Vec::new()));
    let (commits, written) = (store.metrics().commits_done(), watch.written_bytes());
    let began = clock.since_boot();
    let mut tasks = JoinSet::new();
    for _ in 0..submitters {
        let (writer, outbox, clock) = (store.writer(), outbox.clone(), Arc::clone(clock));
        let (stop, rows, delays) = (Arc::clone(&stop), Arc::clone(&rows), Arc::clone(&delays));
        tasks.spawn(async move {
            let mut own = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let (outbox, before) = (outbox.clone(), clock.since_boot());
                let envelope = Envelope { body: vec![0x55; payload_bytes], stamp: clock.stamp() };
                writer.commit(payload_bytes, move |tx| outbox.append(tx, &stream, &envelope)).await?;
                own.push(clock.since_boot().saturating_sub(before));
                rows.fetch_add(1, Ordering::Relaxed);
            }
            delays.lock().unwrap_or_else(PoisonError::into_inner).append(&mut own);
            Ok::<_, store::Error>(())
        });
    }
    tokio::time::sleep(most).await;
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended.context("a submitter panicked")??;
    }
    let took = clock.since_boot().saturating_sub(began);
    let commits = store.metrics().commits_done() - commits;
    outbox.close()?;
    // With the last checkpoint: what is in the log now must be copied some time.
    store.close();
    let (rows, written) = (rows.load(Ordering::Relaxed), watch.written_bytes() - written);
    let delays = Times::of(std::mem::take(&mut *delays.lock().unwrap_or_else(PoisonError::into_inner)));
    Ok(Rate {
        submitters,
        rows_per_s: rows as f64 / took.as_secs_f64(),
        delays,
        rows_per_commit: rows as f64 / commits.max(1) as f64,
        written_per_byte: written as f64 / (rows as f64 * payload_bytes as f64).max(1.0),
    })
}
