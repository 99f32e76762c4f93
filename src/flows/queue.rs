//! The outbox as the sync flow needs it: the next batch behind what is on its way, and deletions that do not get lost.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};

use crate::base::{Name, Seq, Stamp};
use crate::outbox::{self, BatchId, BatchLimits, Class, GapReason, Outbox, Position, StreamHandle, StreamKey};
use crate::store::{self, Writer};

use super::batch::{Batch, Gap, Row};
use super::day::DayRow;
use super::flight::{Arrived, Flights};
use super::receipt::Span;

/// A deletion carries a few numbers.
const DELETION_BYTES: usize = 64;

/// Rows that a deletion took, or could not take.
#[derive(Debug, Default)]
struct Deletions {
    done: Vec<Arrived<StreamKey>>,
    failed: Vec<Arrived<StreamKey>>,
}

/// From which end of the queue a batch is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Alarms, then the stream whose first row is the oldest: the order in which everything leaves in the end.
    Oldest,
    /// The last rows, which overtake a backlog.
    Newest,
    /// No rows: a ledger entry that says what was lost.
    Losses,
}

/// The queue's reading end.
pub(super) struct Queue {
    outbox: Outbox,
    writer: Writer,
    handles: HashMap<StreamKey, StreamHandle>,
    deletions: Arc<Mutex<Deletions>>,
    deleted: watch::Sender<u64>,
}

impl Queue {
    pub(super) fn new(outbox: Outbox, writer: Writer) -> Self {
        Self { outbox, writer, handles: HashMap::new(), deletions: Arc::default(), deleted: watch::Sender::new(0) }
    }

    /// Changes after every commit that left something to send.
    pub(super) fn appended(&self) -> watch::Receiver<u64> {
        self.outbox.appended()
    }

    /// Changes after every deletion, done or failed.
    pub(super) fn deleted(&self) -> watch::Receiver<u64> {
        self.deleted.subscribe()
    }

    /// Grows with every loss that is entered into the ledger.
    pub(super) fn losses(&self) -> u64 {
        self.outbox.losses()
    }

    /// Where every stream stands, what is on its way included.
    pub(super) fn positions(&self) -> Vec<Position> {
        self.outbox.positions()
    }

    /// The next batch of a stream that is not `held`, passing over what is on its way. From the `Newest` end it lies
    /// beyond everything that was submitted on this link.
    pub(super) async fn next(
        &mut self,
        gateway: &Name,
        end: End,
        limits: BatchLimits,
        flights: &Flights<StreamKey>,
        held: impl Fn(&StreamKey) -> bool,
    ) -> Result<Option<(StreamKey, Batch)>, outbox::Error> {
        let mut in_flight = Vec::new();
        let positions = self.outbox.positions();
        for &Position { ref key, stream, .. } in &positions {
            let range = |(first, last)| BatchId { stream, first, last };
            if held(key) {
                // One less than the largest number: the outbox looks at the one after it.
                in_flight.push(range((Seq(1), Seq(u64::MAX - 1))));
                continue;
            }
            in_flight.extend(flights.covered(key).map(range));
            if let (End::Newest, Some(highest)) = (end, flights.highest(key)) {
                in_flight.push(range((Seq(1), highest)));
            }
        }
        let batch = match end {
            End::Oldest => self.outbox.next_batch(&limits, &in_flight).await?,
            End::Newest => self.outbox.newest_batch(&limits, &in_flight).await?,
            End::Losses => self.outbox.next_declaration(&in_flight).await?,
        };
        let Some(batch) = batch else { return Ok(None) };
        let outbox::Batch { id, stream: key, epoch, first, last, rows, gaps } = batch;
        self.handles.insert(key.clone(), id.stream);
        let rows = rows
            .into_iter()
            .map(|row| Row { seq: row.seq, stamp: row.stamp, offset_ms: row.offset_ms, body: row.body.into() })
            .collect();
        let gaps = gaps
            .into_iter()
            .map(|gap| Gap {
                first: gap.first,
                last: gap.last,
                reason: gap.reason.as_str().to_owned(),
                count: gap.count,
                wall_ms: gap.wall_ms,
            })
            .collect();
        let class = Name::new(key.class.as_str()).expect("a class is a short word");
        let stream = key.name.clone();
        let settled = positions.iter().find(|position| position.stream == id.stream).map_or(0, |found| found.settled.0);
        let ahead = (end != End::Oldest && settled + 1 < first.0).then_some(Seq(settled + 1));
        Ok(Some((key, Batch { gateway: gateway.clone(), epoch, stream, class, first, last, rows, gaps, ahead })))
    }

    /// The stream that a batch came from. Rows of a file that was set aside have the same numbers as rows of this one:
    /// only the epoch tells them apart.
    pub(super) fn key_of(&self, Span { epoch, class, stream, .. }: Span) -> Option<StreamKey> {
        let class = Class::from_word(class.as_str())?;
        Some(StreamKey { name: stream, class, epoch: (epoch != self.outbox.epoch()).then_some(epoch) })
    }

    /// Deletes acknowledged rows, riding in a later commit. A deletion that fails stays known and is
    /// tried again by [`settle`](Self::settle).
    pub(super) async fn delete(&self, arrived: Arrived<StreamKey>) -> Result<(), outbox::Error> {
        let Some(&stream) = self.handles.get(&arrived.key) else { return Ok(()) };
        let id = BatchId { stream, first: arrived.first, last: arrived.last };
        let (outbox, deletions, deleted) = (self.outbox.clone(), self.deletions.clone(), self.deleted.clone());
        let done = move |outcome: Result<(), _>| {
            {
                let mut deletions = lock(&deletions);
                match outcome {
                    Ok(()) => deletions.done.push(arrived),
                    Err(_) => deletions.failed.push(arrived),
                }
            }
            deleted.send_modify(|count| *count += 1);
        };
        let work = move |tx: &store::Tx<'_>| outbox.delete(tx, &id);
        Ok(self.writer.ride(DELETION_BYTES, work, done).await.map_err(store::Error::from)?)
    }

    /// Takes note of finished deletions and tries failed ones again.
    pub(super) async fn settle(&self, flights: &mut Flights<StreamKey>) -> Result<(), outbox::Error> {
        let Deletions { done, failed } = std::mem::take(&mut *lock(&self.deletions));
        for gone in &done {
            flights.left(gone);
        }
        for arrived in failed {
            self.delete(arrived).await?;
        }
        Ok(())
    }

    /// The day's budget as the last run left it.
    pub(super) async fn kept(&self, now: Stamp) -> Result<Option<DayRow>, outbox::Error> {
        Ok(self.writer.commit_from_reserve(move |tx| DayRow::read(tx, &now)).await?)
    }

    /// Writes the day's budget with the next commit that happens anyway. Returns when it is on the disk.
    pub(super) async fn keep(&self, row: DayRow) -> Result<(), outbox::Error> {
        let (tell, told) = oneshot::channel();
        let work = move |tx: &store::Tx<'_>| row.write(tx);
        let done = move |outcome: Result<(), store::CommitError>| drop(tell.send(outcome));
        self.writer.ride(DayRow::BYTES, work, done).await.map_err(store::Error::from)?;
        match told.await {
            Ok(outcome) => Ok(outcome.map_err(store::Error::from)?),
            Err(_) => Err(store::Error::from(store::Closed).into()),
        }
    }

    /// The same, at once: for the end.
    pub(super) async fn keep_now(&self, row: DayRow) -> Result<(), outbox::Error> {
        Ok(self.writer.commit_from_reserve(move |tx| row.write(tx)).await?)
    }

    /// Enters one row into the loss ledger in its place: it can never be sent.
    pub(super) async fn give_up(&self, key: &StreamKey, seq: Seq) -> Result<(), outbox::Error> {
        let Some(&stream) = self.handles.get(key) else { return Ok(()) };
        self.outbox.give_up(stream, seq, GapReason::Unsendable).await
    }
}

fn lock(deletions: &Mutex<Deletions>) -> MutexGuard<'_, Deletions> {
    deletions.lock().unwrap_or_else(PoisonError::into_inner)
}
