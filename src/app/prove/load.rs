//! The real writer under a load: store, queue and history as the gateway uses them, many submitters, deletes between.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::words::Word;
use crate::base::{Clock, Name};
use crate::broker;
use crate::history::{self, History, Reading, StreamNo};
use crate::outbox::{self, BatchLimits, Class, Envelope, Outbox, StreamHandle, StreamKey};
use crate::store::{self, CommitError, Opened, Schema, Store, Tx};

/// The streams of the load. Two classes of one name, so that numbers of one cannot be taken for the other's.
const LANES: [(&str, Class); 3] = [("press", Class::Verdict), ("press", Class::Alarm), ("mill", Class::Raw)];

/// Numbers reserved at a time: few, so that reservations happen often, and no fewer than one transaction appends to a
/// stream, or a transaction that never came to its commit could have issued numbers that nothing remembers.
const RESERVE_ROWS: u64 = 64;

/// Numbers of readings kept. Each kill leaves some out, and what is queued must not be trimmed before it is compared.
const READINGS: u64 = 200_000;

/// Tables of the gateway.
const SCHEMAS: [Schema; 3] = [history::SCHEMA, outbox::SCHEMA, broker::SCHEMA];

/// Says a word to whoever keeps the account: the trace, or a pipe.
pub type Say = Arc<dyn Fn(Word) + Send + Sync>;

#[derive(Clone, Copy)]
struct Lane {
    queue: StreamHandle,
    past: StreamNo,
}

/// The store with what stands on it, as the gateway opens them.
pub struct Life {
    /// The store.
    pub store: Store,
    /// The queue.
    pub outbox: Outbox,
    history: History,
    lanes: Vec<Lane>,
    clock: Arc<dyn Clock>,
}

/// Limits of a store small enough that checkpoints, restarts of the log and lone deletes happen in a short run. All else
/// is the gateway's default.
pub fn small(folder: &Path) -> store::Config {
    store::Config { checkpoint_bytes: 96 << 10, restart_bytes: 256 << 10, ride_ms: 10, ..store::Config::at(folder) }
}

/// How much is written.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Submitters at a time, each with one row under way.
    pub submitters: u64,
    /// Rows of each submitter.
    pub rows: u64,
    /// Acknowledged rows that stay in the queue; what is above is released and deleted.
    pub keep: u64,
    /// Chance.
    pub seed: u64,
}

impl Life {
    /// Opens the file as the gateway does. Blocks.
    pub fn open(config: &store::Config, clock: Arc<dyn Clock>) -> Result<(Self, Opened)> {
        let (store, opened) = Store::open(config, &SCHEMAS, Arc::clone(&clock)).context("failed to open the store")?;
        let queue = outbox::Config { reserve_rows: RESERVE_ROWS, ..outbox::Config::default() };
        let outbox =
            Outbox::open(&queue, &store, opened.epoch, Arc::clone(&clock)).context("failed to open the queue")?;
        let history = History::new(history::Config { readings: READINGS, ..history::Config::default() });
        let mut lanes = Vec::new();
        for (name, class) in LANES {
            let key = StreamKey::new(Name::new(name).expect("letters"), class);
            let queue = outbox.stream(key.clone())?;
            let history = history.clone();
            let past = store.writer().commit_blocking(move |tx| history.stream(tx, &key.to_string()))?;
            lanes.push(Lane { queue, past });
        }
        Ok((Self { store, outbox, history, lanes, clock }, opened))
    }

    /// Ends cleanly.
    pub fn close(self) -> Result<()> {
        let Self { store, outbox, .. } = self;
        outbox.close()?;
        store.close();
        Ok(())
    }

    /// How many lanes there are.
    pub(super) fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// The lane that a row belongs to.
    pub(super) fn lane_of_row(row: u64) -> usize {
        usize::try_from(mixed(row) % LANES.len() as u64).expect("below three")
    }

    /// Where a lane's history is.
    pub(super) fn history_of(&self, lane: usize) -> StreamNo {
        self.lanes[lane].past
    }

    /// Which lane a stream of the queue is.
    pub(super) fn lane_of(&self, stream: StreamHandle) -> Option<usize> {
        self.lanes.iter().position(|lane| lane.queue == stream)
    }

    /// Submits row `row` and waits for its answer.
    pub async fn put(&self, row: u64, say: &Say) -> Result<(), CommitError> {
        let lane = Self::lane_of_row(row);
        let Lane { queue, past } = self.lanes[lane];
        let (outbox, history) = (self.outbox.clone(), self.history.clone());
        let envelope = Envelope { body: body_of(row), stamp: self.clock.stamp() };
        let bytes = envelope.body.len();
        let issued = Arc::new(AtomicU64::new(0));
        let (seen, said) = (Arc::clone(&issued), Arc::clone(say));
        let work = move |tx: &Tx<'_>| {
            let seq = outbox.append(tx, &queue, &envelope)?.0;
            said(Word::Issued { lane, seq });
            seen.store(seq, Ordering::Relaxed);
            history.append(tx, past, &reading_of(row, envelope.stamp.wall_ms)).map(drop)
        };
        let (tell, told) = oneshot::channel();
        let said = Arc::clone(say);
        let done = move |result: Result<(), CommitError>| {
            if result.is_ok() {
                said(Word::Kept { lane, seq: issued.load(Ordering::Relaxed), row });
            }
            let _ = tell.send(result);
        };
        self.store.writer().submit(bytes, work, done).await.map_err(|_| CommitError::Closed)?;
        told.await.unwrap_or(Err(CommitError::Closed))
    }

    /// Releases and deletes the next batch, if more than `keep` rows wait. False if nothing was to do.
    pub async fn release(&self, keep: u64, rows: usize, say: &Say) -> Result<bool> {
        let waiting: u64 = self.outbox.depth().iter().map(|(_, rows)| rows).sum();
        if waiting <= keep {
            return Ok(false);
        }
        let limits = BatchLimits { rows, bytes: 64 << 10 };
        let Some(batch) = self.outbox.next_batch(&limits, &[]).await? else { return Ok(false) };
        if let Some(lane) = self.lane_of(batch.id.stream) {
            say(Word::Released { lane, first: batch.first.0, last: batch.last.0 });
        }
        let outbox = self.outbox.clone();
        let (tell, told) = oneshot::channel();
        let done = move |result| drop(tell.send(result));
        self.store.writer().ride(0, move |tx| outbox.delete(tx, &batch.id), done).await?;
        told.await??;
        Ok(true)
    }
}

/// Runs `plan` until every row was answered or `stop` is set. Returns the first failure of a commit.
pub async fn run(life: &Arc<Life>, plan: &Plan, say: &Say, stop: &Arc<AtomicBool>) -> Result<()> {
    let mut tasks = JoinSet::new();
    let mut chance = StdRng::seed_from_u64(plan.seed);
    let first = chance.random_range(0..1_u64 << 40) << 20;
    let ended = Arc::new(AtomicBool::new(false));
    let drain = {
        let (life, say, ended, keep) = (Arc::clone(life), Arc::clone(say), Arc::clone(&ended), plan.keep);
        let mut chance = StdRng::seed_from_u64(chance.random());
        async move {
            let mut news = life.outbox.appended();
            while !ended.load(Ordering::Relaxed) {
                if !life.release(keep, chance.random_range(1..keep.max(8) as usize), &say).await? {
                    let _ = tokio::time::timeout(Duration::from_millis(5), news.changed()).await;
                }
            }
            Ok::<_, anyhow::Error>(())
        }
    };
    // What an earlier life left is moved into blocks meanwhile.
    let tend = {
        let (life, ended) = (Arc::clone(life), Arc::clone(&ended));
        async move {
            let mut keeper = life.history.keeper(life.store.reader(), life.store.writer());
            while !ended.load(Ordering::Relaxed) {
                if !matches!(keeper.step().await, Ok(true)) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            Ok(())
        }
    };
    let mut drains = JoinSet::new();
    drains.spawn(drain);
    drains.spawn(tend);
    for submitter in 0..plan.submitters {
        let (life, say, stop, rows) = (Arc::clone(life), Arc::clone(say), Arc::clone(stop), plan.rows);
        tasks.spawn(async move {
            for n in 0..rows {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                life.put(first + submitter * rows + n, &say).await?;
            }
            Ok::<_, CommitError>(())
        });
    }
    let mut outcome = Ok(());
    while let Some(ended) = tasks.join_next().await {
        let ended = ended.context("a submitter panicked").and_then(|result| result.map_err(Into::into));
        outcome = outcome.and(ended);
    }
    ended.store(true, Ordering::Relaxed);
    while let Some(drained) = drains.join_next().await {
        outcome = outcome.and(drained.context("the drain panicked").and_then(|result| result));
    }
    outcome
}

/// A row's bytes, known from its number alone: most are small, some fill a page, few need several.
pub(super) fn body_of(row: u64) -> Vec<u8> {
    let chance = mixed(row ^ 0x9e37_79b9);
    let length = match chance % 64 {
        0 => 9000 + chance % 3000,
        1..=4 => 1200 + chance % 800,
        _ => 60 + chance % 300,
    };
    let mut body = Vec::with_capacity(usize::try_from(length).expect("small") + 8);
    body.extend_from_slice(&row.to_le_bytes());
    let mut next = chance;
    while (body.len() as u64) < length {
        next = mixed(next);
        body.extend_from_slice(&next.to_le_bytes());
    }
    body
}

/// The row that a body says it is.
pub(super) fn row_of(body: &[u8]) -> Option<u64> {
    body.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes))
}

fn reading_of(row: u64, time_ms: i64) -> Reading {
    Reading {
        seq: 0,
        time_ms,
        id: Some(row.to_string()),
        values: vec![(row % 1000) as f64],
        score: Some(0.5),
        expected: None,
        state: 0,
        extra: None,
    }
}

/// SplitMix64's last step (Steele, Lea, Flood 2014): neighbours become strangers.
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
