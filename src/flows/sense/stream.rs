//! One stream's task: payloads in order, each judged, written and answered.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::commit::{Closing, Committed, Committing, Job, Row};
use super::config::{Durability, MAX_SUMMARY_READINGS};
use super::judge::{Admitted, Judge, Memory};
use super::resume::{Left, read_back};
use super::saved::Saved;
use super::scorer::Scorer;
use super::summing::{Order, SummaryNews, SummingUp, summary_bytes};
use crate::base::{Clock, Receipt, Refusal};
use crate::broker::Within;
use crate::flows::board::StreamBoard;
use crate::flows::intake::{IngestError, Ingested};
use crate::flows::record::{self, Closed};
use crate::flows::summary::Drops;
use crate::history::{self, History, StreamNo};
use crate::outbox::{Admission, ClassFull};
use crate::signal::{self, Decoder, Note, Sample};
use crate::store::{CommitError, Reader, Writer};

/// Readings between two saved memories: a restart judges at most about so many again.
pub(super) const SAVE_EVERY: usize = 64;
/// Wait between two tries to read the memory back after a failed commit.
const RELOAD_AGAIN: Duration = Duration::from_millis(200);
/// Most readings after a memory: one payload's worth on top of `SAVE_EVERY`, with room.
const MAX_AFTER: usize = 20_000;

/// A payload on its way in.
pub(in crate::flows) struct Work {
    pub payload: Bytes,
    /// Time since boot at which it reached the door.
    pub arrived: Duration,
    pub receipt: Receipt,
    /// The broker's rows for QoS 2, to be written in the same transaction.
    pub within: Option<Within>,
    /// Its sender's protocol has no word for "full": it is kept until there is room.
    pub waits: bool,
    pub reply: Option<oneshot::Sender<Result<Ingested, IngestError>>>,
}

/// What the task shares with commits that are under way.
#[derive(Default)]
pub(super) struct Flight {
    /// Jobs submitted and not answered.
    jobs: AtomicUsize,
    /// A commit failed: what was computed since stands on readings that are not on the disk.
    pub poisoned: AtomicBool,
    landed: Notify,
}

impl Flight {
    fn take_off(&self) {
        self.jobs.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn land(&self) {
        if self.jobs.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.landed.notify_one();
        }
    }

    async fn all_landed(&self) {
        while self.jobs.load(Ordering::Acquire) > 0 {
            self.landed.notified().await;
        }
    }
}

/// One stream with everything it needs.
pub(super) struct Stream {
    pub decoder: Decoder,
    pub judge: Judge,
    pub scorer: Option<Scorer>,
    pub durability: Durability,
    pub no: StreamNo,
    pub board: Arc<StreamBoard>,
    pub metrics: signal::Metrics,
    pub clock: Arc<dyn Clock>,
    pub history: History,
    pub writer: Writer,
    pub reader: Reader,
    pub committed: Arc<Committed>,
    pub committing: Arc<Mutex<Committing>>,
    pub flight: Arc<Flight>,
    pub since_save: usize,
    pub summing: SummingUp,
    /// What was dropped since the last reading.
    pub drops: Drops,
    /// Wakes publishers that wait for room.
    pub room: Arc<Notify>,
    /// Work waits for room in the queue to the cloud.
    pub parking: Arc<AtomicBool>,
}

/// Work that waits for room in the queue to the cloud. As long as there is any, [`Stream::parking`] keeps further
/// publishers who can wait out of the mailbox, so it holds at most what the mailbox held.
type Parked = VecDeque<Work>;

impl Stream {
    /// Serves until `stop` and the mailbox is empty.
    pub(super) async fn run(
        mut self,
        mut mailbox: mpsc::Receiver<Work>,
        mut orders: mpsc::Receiver<Order>,
        stop: CancellationToken,
    ) {
        let mut samples = Vec::new();
        let mut parked = Parked::default();
        let mut room = self.committed.outbox.room();
        loop {
            let wait = self.summing.due.map(|due| due.saturating_sub(self.clock.since_boot()));
            if wait == Some(Duration::ZERO) {
                self.close_aged().await;
                continue;
            }
            let work = tokio::select! {
                biased;
                Some(order) = orders.recv() => {
                    self.obey(order).await;
                    continue;
                }
                // Closed only with the outbox, which this task holds.
                _ = room.changed(), if !parked.is_empty() => {
                    self.unpark(&mut parked, &mut samples).await;
                    continue;
                }
                work = mailbox.recv() => work,
                () = tokio::time::sleep(wait.unwrap_or(Duration::MAX)), if wait.is_some() => continue,
                () = stop.cancelled() => {
                    mailbox.close();
                    mailbox.recv().await
                }
            };
            let Some(work) = work else { break };
            self.room.notify_waiters();
            self.mend().await;
            if work.waits && !parked.is_empty() {
                // Behind those of its sender that wait already.
                parked.push_back(work);
                continue;
            }
            room.mark_unchanged();
            if let Some(work) = self.take(work, &mut samples).await {
                parked.push_back(work);
                self.parking.store(true, Ordering::Release);
            }
        }
        self.flight.all_landed().await;
    }

    /// Goes on from the disk if a commit failed.
    async fn mend(&mut self) {
        if self.flight.poisoned.load(Ordering::Acquire) {
            self.reload().await;
        }
    }

    async fn obey(&mut self, order: Order) {
        let Order::Summarise(reply) = order;
        self.mend().await;
        match self.summing.close(Closed::Asked) {
            Some(summed) => self.submit_summary(summed, Some(reply)).await,
            None => drop(reply.send(Ok(None))),
        }
    }

    async fn close_aged(&mut self) {
        self.mend().await;
        if let Some(summed) = self.summing.close(Closed::Age) {
            self.submit_summary(summed, None).await;
        }
    }

    /// A summary that no reading completes.
    async fn submit_summary(
        &mut self,
        summed: record::SummaryRecord,
        reply: Option<oneshot::Sender<Result<Option<SummaryNews>, IngestError>>>,
    ) {
        let (count, bytes) = (summed.count, summary_bytes(&summed));
        let (committed, committing) = (Arc::clone(&self.committed), Arc::clone(&self.committing));
        let job = Job::new(committed, Arc::clone(&committing), self.clock.stamp(), Vec::new(), None);
        let job = Arc::new(job.closing(Closing { summed }));
        let (flight, written, landing) = (Arc::clone(&self.flight), Arc::clone(&job), Arc::clone(&self.flight));
        let numbers = Arc::new(Mutex::new((0, 0)));
        let told = Arc::clone(&numbers);
        self.flight.take_off();
        let sent = self.writer.submit(
            bytes,
            move |tx| {
                if flight.poisoned.load(Ordering::Acquire) {
                    return Ok(());
                }
                let Committing { first_unsummed, last } = *lock(&committing);
                *lock(&told) = (first_unsummed, last);
                written.write(tx)
            },
            move |outcome| {
                let outcome = match outcome {
                    Ok(()) if job.is_written() => Ok(()),
                    Ok(()) => Err(Refusal::Disk),
                    Err(error) => Err(refusal(&error)),
                };
                if outcome.is_err() {
                    landing.poisoned.store(true, Ordering::Release);
                }
                if let Some(reply) = reply {
                    let (first, last) = *lock(&numbers);
                    let news = outcome.map(|()| Some(SummaryNews { first, last, count }));
                    let _ = reply.send(news.map_err(IngestError::from));
                }
                landing.land();
            },
        );
        if sent.await.is_err() {
            self.flight.land();
        }
    }

    /// Tries again what waits, in order, until there is no room again.
    async fn unpark(&mut self, parked: &mut Parked, samples: &mut Vec<Sample>) {
        self.mend().await;
        while let Some(work) = parked.pop_front() {
            if let Some(work) = self.take(work, samples).await {
                parked.push_front(work);
                return;
            }
        }
        self.parking.store(false, Ordering::Release);
        self.room.notify_waiters();
    }

    /// Gives the work back if it has to wait for room in the queue to the cloud.
    async fn take(&mut self, work: Work, samples: &mut Vec<Sample>) -> Option<Work> {
        samples.clear();
        let arrival_ms = self.clock.wall_ms();
        if let Err(error) = self.decoder.decode(&work.payload, arrival_ms, samples) {
            self.reject(work, arrival_ms, &error).await;
            return None;
        }
        // Before anything is judged: what is refused or waits must leave no trace.
        let admission = match self.committed.admit(samples) {
            Ok(admission) => admission,
            Err(_full) if work.waits => return Some(work),
            Err(full) => {
                self.turn_away(work, full);
                return None;
            }
        };
        let mut rows = Vec::with_capacity(samples.len());
        let mut duplicates = 0;
        for sample in samples.drain(..) {
            let (admission, admitted) = self.judge.admit(sample, arrival_ms);
            self.metrics.count(&admission);
            self.tally(&admission, &mut duplicates);
            self.drops.count(&admission);
            if let Some(admitted) = admitted {
                let mut row = self.judged(admitted).await;
                row.summed = self.summing.push(&row, self.clock.since_boot());
                rows.push(row);
            }
        }
        let memory = self.memory_if_due(rows.len());
        let verdict_us = self.micros_since(work.arrived);
        self.submit(work, rows, duplicates, memory, verdict_us, admission).await;
        None
    }

    fn turn_away(&self, work: Work, full: ClassFull) {
        let Work { receipt, within, reply, .. } = work;
        tracing::debug!(stream = %self.board.name(), class = full.class.as_str(), "no room: not acknowledged");
        if !receipt.is_watched() && reply.is_none() {
            self.board.count(|tally| tally.overflowed += 1);
        }
        if let Some(within) = within {
            within.refuse(Refusal::Full);
        }
        receipt.refuse(Refusal::Full);
        if let Some(reply) = reply {
            let _ = reply.send(Err(IngestError::Quota));
        }
    }

    async fn judged(&mut self, admitted: Admitted) -> Row {
        let Admitted { reading, id, features } = admitted;
        let window = features.is_some();
        if window {
            self.metrics.count_window();
        }
        let score = match (&mut self.scorer, features) {
            (Some(scorer), Some(features)) => {
                let score = scorer.score(features).await;
                if score.is_none() {
                    self.board.count(|tally| tally.unscored += 1);
                }
                score
            }
            _ => None,
        };
        let judged = self.judge.judge(&reading, score, window);
        Row { reading, id, score, judged, drops: std::mem::take(&mut self.drops), summed: None }
    }

    /// A payload that cannot be read is kept, and its sender is told.
    async fn reject(&mut self, work: Work, wall_ms: i64, error: &signal::Error) {
        let reason = crate::flows::models::chain(error);
        tracing::warn!(stream = %self.board.name(), reason, "payload rejected");
        self.metrics.count_refused();
        let rejected = history::Rejected {
            stream: String::new(),
            wall_ms,
            reason: reason.clone(),
            payload: work.payload.to_vec(),
        };
        let (history, no, within) = (self.history.clone(), self.no, work.within);
        let (board, flight) = (Arc::clone(&self.board), Arc::clone(&self.flight));
        let (receipt, reply) = (work.receipt, work.reply);
        self.flight.take_off();
        let sent = self.writer.submit(
            work.payload.len() + 256,
            move |tx| {
                history.reject(tx, no, &rejected)?;
                within.map_or(Ok(()), |within| within.run(tx))
            },
            move |outcome| {
                let refusal = outcome.as_ref().err().map_or(Refusal::Payload, refusal);
                if outcome.is_ok() {
                    board.count(|tally| tally.rejected += 1);
                }
                receipt.refuse(refusal);
                if let Some(reply) = reply {
                    let _ = reply.send(Err(match outcome {
                        Ok(()) => IngestError::Payload { detail: reason },
                        Err(error) => error.into(),
                    }));
                }
                flight.land();
            },
        );
        if sent.await.is_err() {
            self.flight.land();
        }
    }

    async fn submit(
        &mut self,
        work: Work,
        rows: Vec<Row>,
        duplicates: u64,
        memory: Option<Memory>,
        verdict_us: u32,
        admission: Admission,
    ) {
        let Work { arrived, mut receipt, within, reply, .. } = work;
        if self.durability == Durability::Memory {
            std::mem::replace(&mut receipt, Receipt::unwatched()).kept();
        }
        let readings = rows.len() as u64;
        let summed: usize = rows.iter().filter_map(|row| row.summed.as_ref()).map(summary_bytes).sum();
        let bytes = rows.iter().map(|row| 128 + 8 * row.reading.values.len()).sum::<usize>();
        let bytes = bytes + summed + 64;
        let job = Arc::new(Job::new(
            Arc::clone(&self.committed),
            Arc::clone(&self.committing),
            self.clock.stamp(),
            rows,
            memory.map(|memory| record::encode(&memory)),
        ));
        let (flight, written) = (Arc::clone(&self.flight), Arc::clone(&job));
        let (landing, clock) = (Arc::clone(&self.flight), Arc::clone(&self.clock));
        let durable = self.durability == Durability::Disk;
        let board = Arc::clone(&self.board);
        self.flight.take_off();
        let sent = self.writer.submit(
            bytes,
            move |tx| {
                // After a failed commit of this stream nothing that was computed on top of it may be written.
                if flight.poisoned.load(Ordering::Acquire) {
                    return Ok(());
                }
                written.write(tx)?;
                within.map_or(Ok(()), |within| within.run(tx))
            },
            move |outcome| {
                // What was promised is in the account now; the sender's next payload must not find it there twice.
                drop(admission);
                let outcome = match outcome {
                    Ok(()) if job.is_written() => Ok(()),
                    Ok(()) => Err(Refusal::Disk),
                    Err(error) => Err(refusal(&error)),
                };
                if outcome.is_err() {
                    landing.poisoned.store(true, Ordering::Release);
                    if !durable {
                        board.count(|tally| tally.unkept += readings);
                    }
                }
                receipt.answer(outcome);
                let commit_us = micros(clock.since_boot().saturating_sub(arrived));
                let ingested = outcome.map(|()| job.announce(verdict_us, commit_us, duplicates, durable));
                if let Some(reply) = reply {
                    let _ = reply.send(ingested.map_err(IngestError::from));
                }
                landing.land();
            },
        );
        if sent.await.is_err() {
            self.flight.land();
        }
    }

    /// Forgets what was computed since the last commit and reads the stream's memory back from the disk, so that the
    /// repeat of a refused reading is a new reading.
    async fn reload(&mut self) {
        loop {
            self.flight.all_landed().await;
            let reader = self.reader.clone();
            match read_back(&reader, std::slice::from_mut(self)).await {
                Ok(()) => {
                    self.flight.poisoned.store(false, Ordering::Release);
                    tracing::warn!(stream = %self.board.name(), "a commit failed; the stream goes on from what is on the disk");
                    return;
                }
                Err(error) => {
                    tracing::error!(stream = %self.board.name(), error = crate::flows::models::chain(&error), "failed to read the stream's memory back");
                    tokio::time::sleep(RELOAD_AGAIN).await;
                }
            }
        }
    }

    /// Whose readings it needs to go on, and how many before its memory.
    pub(super) fn reads_back(&self) -> (StreamNo, usize) {
        (self.no, self.judge.capacity())
    }

    /// Takes up where the disk says the stream stands.
    pub(super) fn go_on(&mut self, left: Left) {
        let Left { saved, first, opened_ms, readings } = left;
        let seq = saved.as_deref().map_or(0, Saved::seq);
        let split = readings.partition_point(|reading| reading.seq <= seq);
        let (mut before, mut after) = readings.split_at(split);
        // Without a memory the newest readings fill the windows.
        if seq == 0 {
            after = &after[after.len().saturating_sub(self.judge.capacity() + SAVE_EVERY)..];
        } else {
            before = &before[before.len().saturating_sub(self.judge.capacity())..];
            after = &after[..after.len().min(MAX_AFTER)];
        }
        let window = &readings[readings.partition_point(|reading| reading.seq < first)..];
        let window = &window[..window.len().min(MAX_SUMMARY_READINGS as usize)];
        let parsed = saved.as_deref().and_then(Saved::parse);
        let fresh = self.committed.fresh_judge();
        self.judge = fresh;
        match parsed {
            Some(Saved { memory }) => self.judge.restore(memory, before, after),
            None => self.judge.judge_again(after),
        }
        let open = self.committed.fresh_window();
        self.summing.restore(open, window, opened_ms, self.clock.wall_ms(), self.clock.since_boot());
        self.drops = Drops::default();
        let end = |reading: Option<&history::Reading>| reading.map_or(0, |reading| reading.seq);
        *lock(&self.committing) = Committing { first_unsummed: end(window.first()), last: end(window.last()) };
        self.since_save = after.len();
    }

    fn memory_if_due(&mut self, rows: usize) -> Option<Memory> {
        self.since_save += rows;
        (self.since_save >= SAVE_EVERY).then(|| {
            self.since_save = 0;
            self.judge.save()
        })
    }

    fn tally(&self, admission: &signal::Admission, duplicates: &mut u64) {
        let notes = admission.notes();
        let missing = admission.gap().map_or(0, |gap| gap.missing);
        let is_duplicate = matches!(admission, signal::Admission::Dropped { reason: Note::Duplicate, .. });
        let is_dropped = matches!(admission, signal::Admission::Dropped { .. }) && !is_duplicate;
        *duplicates += u64::from(is_duplicate);
        if !notes.is_empty() || missing > 0 {
            self.board.count(|tally| {
                tally.duplicates += u64::from(is_duplicate);
                tally.dropped += u64::from(is_dropped);
                tally.flagged += u64::from(!is_duplicate && !is_dropped);
                tally.missing += missing;
            });
        }
    }

    fn micros_since(&self, arrived: Duration) -> u32 {
        micros(self.clock.since_boot().saturating_sub(arrived))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refusal(error: &CommitError) -> Refusal {
    match error {
        CommitError::Full(_) => Refusal::Full,
        CommitError::Disk(_) | CommitError::Corrupt(_) => Refusal::Disk,
        CommitError::Closed => Refusal::Dropped,
    }
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}
