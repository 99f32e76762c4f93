//! Queue to cloud: batch, send, wait for the acknowledgement, delete. At its own pace, never in the sensor's path.
//!
//! Several batches may wait for their answers. The queue is the only memory: after every loss of the link the rows that
//! were not acknowledged are read from it again, so a row may be sent twice and none is skipped.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::base::{Backoff, Clock, Name, Seq};
use crate::outbox::{self, BatchLimits, Class, Outbox, Position, StreamKey};
use crate::store::Writer;
use crate::uplink::{Answer, LinkState, Lost, Message, Ticket, Uplink};

use super::address::Address;
use super::batch::{BATCH_OVERHEAD_BYTES, Batch};
use super::flight::Flights;
use super::queue::{End, Queue};
use super::sync_settings::{SyncConfig, SyncMetrics};

/// Why nothing is being sent.
enum Ended {
    Stopped,
    Lost(String),
    Queue(outbox::Error),
}

impl From<Lost> for Ended {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost.reason)
    }
}

impl From<outbox::Error> for Ended {
    fn from(error: outbox::Error) -> Self {
        Self::Queue(error)
    }
}

/// A stream whose batch was refused waits, while the others go on.
struct Hold {
    backoff: Backoff,
    /// Time since boot.
    until: Duration,
}

/// Whether there is anything to fetch.
enum Due {
    Now,
    In(Duration),
    Nothing,
}

/// The flow's parts.
pub struct Sync<U, R> {
    queue: Queue,
    uplink: U,
    gateway: Name,
    clock: Arc<dyn Clock>,
    config: SyncConfig,
    rng: R,
    metrics: SyncMetrics,
    flights: Flights<StreamKey>,
    holds: HashMap<StreamKey, Hold>,
    /// There may be ledger entries without a row, which nothing counts: look even if nothing seems to wait.
    look: bool,
    /// Since boot: when rows that wait for company have waited enough.
    linger_until: Option<Duration>,
}

impl<U: Uplink, R: Rng + Send> Sync<U, R> {
    /// `writer` is the one of the outbox's store. `rng` spreads the waits, so that a fleet does not come back at one
    /// instant.
    pub fn new(
        outbox: Outbox,
        writer: Writer,
        uplink: U,
        gateway: Name,
        clock: Arc<dyn Clock>,
        config: SyncConfig,
        rng: R,
    ) -> Self {
        Self {
            queue: Queue::new(outbox, writer),
            uplink,
            gateway,
            clock,
            config,
            rng,
            metrics: SyncMetrics::default(),
            flights: Flights::new(),
            holds: HashMap::new(),
            look: true,
            linger_until: None,
        }
    }

    /// The counters.
    pub fn metrics(&self) -> &SyncMetrics {
        &self.metrics
    }

    /// How the link is.
    pub fn link(&self) -> watch::Receiver<LinkState> {
        self.uplink.state()
    }

    /// Sends until `stop`; then waits a little for the answers to what was sent, and closes the link.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = self.backoff();
        loop {
            let connected = tokio::select! {
                () = stop.cancelled() => break,
                connected = self.uplink.connect() => connected,
            };
            let ended = match connected {
                Ok(()) => self.pump(&stop, &mut backoff).await,
                Err(lost) => lost.into(),
            };
            let reason = match ended {
                Ended::Stopped => {
                    let limit = Duration::from_millis(self.config.drain_ms);
                    let _ = tokio::time::timeout(limit, self.drain()).await;
                    break;
                }
                Ended::Lost(reason) => {
                    self.uplink.close().await;
                    self.flights.lose();
                    self.metrics.in_flight.set(0);
                    reason
                }
                // The link stands, and so does what is on its way.
                Ended::Queue(error) => format!("failed to read the queue: {error}"),
            };
            self.metrics.failures.inc();
            let wait = backoff.next_wait(&mut self.rng);
            tracing::warn!(reason, retry_ms = wait.as_millis(), "nothing is sent to the cloud");
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.uplink.close().await;
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(
            Duration::from_millis(self.config.retry_first_ms),
            Duration::from_millis(self.config.retry_most_ms),
        )
    }

    /// Keeps the window full until something ends it.
    async fn pump(&mut self, stop: &CancellationToken, backoff: &mut Backoff) -> Ended {
        self.look = true;
        let (mut appended, mut deleted) = (self.queue.appended(), self.queue.deleted());
        loop {
            // Before the look at the queue, so that what comes during it wakes the next one.
            appended.mark_unchanged();
            deleted.mark_unchanged();
            let wait = match self.fill().await {
                Ok(wait) => wait,
                Err(ended) => return ended,
            };
            let room = self.flights.len() < self.uplink.window();
            let settled = tokio::select! {
                biased;
                () = stop.cancelled() => return Ended::Stopped,
                answer = self.uplink.answer() => match answer {
                    Ok((ticket, answer)) => {
                        if answer == Answer::Acknowledged {
                            backoff.reset();
                        }
                        self.settle(ticket, answer).await
                    }
                    Err(lost) => return lost.into(),
                },
                changed = appended.changed(), if room => match changed {
                    Ok(()) => Ok(()),
                    Err(_) => return Ended::Stopped,
                },
                // Deletes change what is counted as waiting.
                _ = deleted.changed(), if room => Ok(()),
                () = tokio::time::sleep(wait.unwrap_or(Duration::MAX)), if room && wait.is_some() => Ok(()),
            };
            if let Err(error) = settled {
                return error.into();
            }
        }
    }

    /// Submits what is due while the window has room. Gives the time after which to look again, if only time is missing.
    async fn fill(&mut self) -> Result<Option<Duration>, Ended> {
        self.queue.settle(&mut self.flights).await?;
        while self.flights.len() < self.uplink.window() {
            match self.due() {
                Due::Now => {}
                Due::In(wait) => return Ok(Some(wait)),
                Due::Nothing => return Ok(None),
            }
            let now = self.clock.since_boot();
            let held = |key: &StreamKey| self.holds.get(key).is_some_and(|hold| hold.until > now);
            let limits = self.limits();
            let Some((key, batch)) = self.queue.next(&self.gateway, End::Oldest, limits, &self.flights, held).await?
            else {
                self.look = false;
                if !matches!(self.due(), Due::Now) {
                    continue;
                }
                // The count and the rows disagree for a moment (a deletion): look again later.
                self.linger_until = None;
                return Ok(Some(Duration::from_millis(self.config.linger_ms.max(1))));
            };
            self.send(key, batch).await?;
        }
        Ok(None)
    }

    /// Bodies and what stands around them must fit into one message; [`shrink`] has the last word.
    fn limits(&self) -> BatchLimits {
        let most = self.uplink.max_payload_bytes("");
        BatchLimits { rows: self.config.batch_rows.min(most / 64), bytes: self.config.batch_bytes.min(most / 2) }
    }

    /// Alarms at once, a full batch at once, anything else when it has waited for company.
    fn due(&mut self) -> Due {
        if self.look {
            return Due::Now;
        }
        let now = self.clock.since_boot();
        let mut others = 0;
        let mut held_until: Option<Duration> = None;
        for Position { key, rows, .. } in self.queue.positions() {
            let waiting = rows.saturating_sub(self.flights.rows(&key));
            if waiting == 0 {
                continue;
            }
            match self.holds.get(&key) {
                Some(hold) if hold.until > now => {
                    held_until = Some(held_until.map_or(hold.until, |until| until.min(hold.until)));
                }
                _ if key.class == Class::Alarm => return Due::Now,
                _ => others += waiting,
            }
        }
        if others == 0 {
            self.linger_until = None;
            return held_until.map_or(Due::Nothing, |until| Due::In(until - now));
        }
        let until = *self.linger_until.get_or_insert(now + Duration::from_millis(self.config.linger_ms));
        if others >= self.config.batch_rows as u64 || until <= now { Due::Now } else { Due::In(until - now) }
    }

    /// Submits a batch, smaller if the far side takes less. One row that is too large by itself is declared lost:
    /// it can never be sent, and everything behind it could not either.
    async fn send(&mut self, key: StreamKey, mut batch: Batch) -> Result<(), Ended> {
        let address = Address {
            tenant: self.config.tenant.clone(),
            gateway: self.gateway.clone(),
            class: batch.class.clone(),
            stream: batch.stream.clone(),
        };
        let topic = address.topic();
        let limit = self.uplink.max_payload_bytes(&topic);
        let mut payload = batch.encode();
        while payload.len() > limit {
            if !shrink(&mut batch) {
                return self.give_up(&key, &batch, limit).await;
            }
            payload = batch.encode();
        }
        let rows = batch.rows.len() as u64;
        let (ticket, again) = self.flights.depart(&key, batch.first, batch.last, rows);
        if again {
            self.metrics.resent.inc();
        }
        self.metrics.bytes.inc_by(payload.len() as u64);
        self.metrics.in_flight.set(i64::try_from(self.flights.len()).unwrap_or(i64::MAX));
        self.uplink.submit(ticket, Message { topic, payload: Bytes::from(payload) })?;
        Ok(())
    }

    /// What is left of the batch is one row or one gap.
    async fn give_up(&mut self, key: &StreamKey, batch: &Batch, limit_bytes: usize) -> Result<(), Ended> {
        match batch.rows.first() {
            Some(row) if limit_bytes >= 2 * BATCH_OVERHEAD_BYTES => {
                let (seq, size_bytes) = (row.seq.0, row.body.len());
                tracing::error!(stream = %key, seq, size_bytes, limit_bytes, "a row is too large for the cloud: lost");
                self.metrics.unsendable.inc();
                self.look = true;
                Ok(self.queue.give_up(key, row.seq).await?)
            }
            // A far side that takes next to nothing is set up wrongly; that is no reason to throw rows away.
            _ => Err(Ended::Lost(format!("the far side takes {limit_bytes} bytes: too few for any batch"))),
        }
    }

    async fn settle(&mut self, ticket: Ticket, answer: Answer) -> Result<(), outbox::Error> {
        let outcome = match answer {
            Answer::Acknowledged => {
                if let Some(arrived) = self.flights.acknowledge(ticket) {
                    self.metrics.rows.inc_by(arrived.rows);
                    self.holds.remove(&arrived.key);
                    self.queue.delete(arrived).await?;
                }
                self.metrics.batches.inc();
                Ok(())
            }
            Answer::NoSubscriber => Err("nobody subscribes".to_owned()),
            Answer::Refused { reason } => Err(reason),
            // Found out between the look at the limit and the send; the next look is right.
            Answer::TooLarge { .. } => {
                self.flights.refuse(ticket);
                Ok(())
            }
        };
        if let Err(reason) = outcome
            && let Some(key) = self.flights.refuse(ticket)
        {
            self.metrics.failures.inc();
            self.hold(key, &reason);
        }
        self.metrics.in_flight.set(i64::try_from(self.flights.len()).unwrap_or(i64::MAX));
        Ok(())
    }

    fn hold(&mut self, key: StreamKey, reason: &str) {
        let now = self.clock.since_boot();
        let backoff = self.backoff();
        let hold = self.holds.entry(key).or_insert(Hold { backoff, until: now });
        let wait = hold.backoff.next_wait(&mut self.rng);
        hold.until = now + wait;
        tracing::warn!(reason, retry_ms = wait.as_millis(), "the cloud does not take a stream");
    }

    /// Takes the answers that are still to come.
    async fn drain(&mut self) {
        while self.flights.len() > 0 {
            let Ok((ticket, answer)) = self.uplink.answer().await else { return };
            if self.settle(ticket, answer).await.is_err() {
                return;
            }
        }
    }
}

/// Keeps the first half of what the batch covers. False if that is one row or one gap already.
fn shrink(batch: &mut Batch) -> bool {
    let rows = batch.rows.iter().map(|row| row.seq);
    let mut ends: Vec<Seq> = rows.chain(batch.gaps.iter().map(|gap| gap.last)).collect();
    if ends.len() < 2 {
        return false;
    }
    ends.sort_unstable();
    let last = ends[ends.len() / 2 - 1];
    batch.rows.retain(|row| row.seq <= last);
    batch.gaps.retain(|gap| gap.last <= last);
    batch.last = last;
    true
}
