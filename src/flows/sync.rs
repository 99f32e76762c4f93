//! Queue to cloud: batch, send, wait for the acknowledgement, delete. At its own pace, never in the sensor's path.
//!
//! Whose acknowledgement counts is a setting: the receiver's receipt, or the broker's answer (`confirm.rs`).
//!
//! Several batches may wait for their answers. The queue is the only memory: after every loss of the link the rows that
//! were not acknowledged are read from it again, so a row may be sent twice and none is skipped.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::base::{Backoff, Clock, Name, Seq};
use crate::outbox::{self, BatchLimits, Class, Outbox, Position, StreamKey};
use crate::store::Writer;
use crate::uplink::{Answer, CloudMessage, LinkState, Lost, Message, Ticket, Uplink};

use super::address::Address;
use super::batch::{BATCH_OVERHEAD_BYTES, Batch};
use super::confirm::{Confirmations, Heard};
use super::flight::Flights;
use super::queue::{End, Queue};
use super::receipt::{Receipt, Span};
use super::sync_settings::{AcknowledgedBy, SyncConfig, SyncMetrics};

/// Requests of the cloud that may wait, and answers to them.
const MAX_REQUESTS: usize = 16;

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
    confirmations: Confirmations,
    holds: HashMap<StreamKey, Hold>,
    /// What the cloud says.
    cloud: Option<mpsc::Receiver<CloudMessage>>,
    receipts: String,
    /// Whoever answers what is no receipt.
    asking: Option<mpsc::Sender<CloudMessage>>,
    saying: Option<mpsc::Receiver<Message>>,
    /// There may be ledger entries without a row, which nothing counts: look even if nothing seems to wait.
    look: bool,
    /// Since boot: when rows that wait for company have waited enough.
    linger_until: Option<Duration>,
    /// The link says that no receipts come.
    silent: bool,
}

impl<U: Uplink, R: Rng + Send> Sync<U, R> {
    /// `writer` is the one of the outbox's store. `rng` spreads the waits, so that a fleet does not come back at one
    /// instant.
    pub fn new(
        outbox: Outbox,
        writer: Writer,
        mut uplink: U,
        gateway: Name,
        clock: Arc<dyn Clock>,
        config: SyncConfig,
        rng: R,
    ) -> Self {
        let cloud = uplink.from_cloud();
        let by = if cloud.is_some() { config.acknowledged_by } else { AcknowledgedBy::Broker };
        Self {
            queue: Queue::new(outbox, writer),
            uplink,
            confirmations: Confirmations::new(by, &config),
            cloud,
            receipts: Address::receipts(&config.tenant, &gateway),
            asking: None,
            saying: None,
            gateway,
            clock,
            config,
            rng,
            metrics: SyncMetrics::default(),
            flights: Flights::new(),
            holds: HashMap::new(),
            look: true,
            linger_until: None,
            silent: false,
        }
    }

    /// The counters.
    pub fn metrics(&self) -> &SyncMetrics {
        &self.metrics
    }

    /// Where the cloud's requests come out, and where answers to them go in. Both are bounded; what comes while they are
    /// full is dropped, since whoever asks asks again.
    pub fn requests(&mut self) -> (mpsc::Receiver<CloudMessage>, mpsc::Sender<Message>) {
        let (asking, asked) = mpsc::channel(MAX_REQUESTS);
        let (say, saying) = mpsc::channel(MAX_REQUESTS);
        (self.asking, self.saying) = (Some(asking), Some(saying));
        (asked, say)
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
                    self.confirmations.lose();
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
            let (room, window) = (self.has_room(), self.has_window());
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
                Some(message) = next(&mut self.cloud) => self.hear(message, backoff).await,
                Some(message) = next(&mut self.saying), if window => match self.say(message) {
                    Ok(()) => Ok(()),
                    Err(lost) => return lost.into(),
                },
                changed = appended.changed(), if room => match changed {
                    Ok(()) => Ok(()),
                    Err(_) => return Ended::Stopped,
                },
                // Deletes change what is counted as waiting.
                _ = deleted.changed(), if room => Ok(()),
                () = tokio::time::sleep(wait.unwrap_or(Duration::MAX)), if wait.is_some() => Ok(()),
            };
            if let Err(error) = settled {
                return error.into();
            }
        }
    }

    /// The link takes a message.
    fn has_window(&self) -> bool {
        self.confirmations.asked() < self.uplink.window()
    }

    /// The link takes a batch, and it may be remembered.
    fn has_room(&self) -> bool {
        self.has_window() && !self.confirmations.is_full()
    }

    /// Submits what is due while there is room. Gives the time after which to look again, if only time is missing.
    async fn fill(&mut self) -> Result<Option<Duration>, Ended> {
        self.queue.settle(&mut self.flights).await?;
        let again = self.send_again()?;
        let wait = if self.has_room() { self.fill_from_queue().await? } else { None };
        Ok([again, wait].into_iter().flatten().min())
    }

    /// Sends what has waited too long for its receipt, and says so of the link. Gives the time after which to look again.
    fn send_again(&mut self) -> Result<Option<Duration>, Lost> {
        let now = self.clock.since_boot();
        let silent = self.confirmations.silent_since(now).map(|since| {
            let since_ms = self.clock.wall_ms() - i64::try_from((now - since).as_millis()).unwrap_or(i64::MAX);
            // To the second: what the clocks differ by between two looks is no news.
            let since = jiff::Timestamp::from_second(since_ms / 1000).unwrap_or_default();
            format!("the broker takes batches and no receiver has confirmed one since {since}; they stay in the queue")
        });
        if silent.is_some() != self.silent {
            self.silent = silent.is_some();
            if let Some(reason) = &silent {
                tracing::warn!(reason, "no receipts");
            }
            self.uplink.complain("receipts", silent);
        }
        while self.has_window() {
            let Some((ticket, message)) = self.confirmations.again(now) else { break };
            self.metrics.resent.inc();
            self.metrics.bytes.inc_by(message.payload.len() as u64);
            self.uplink.submit(ticket, message)?;
        }
        // Without room the answer that makes some is the reason to look again.
        let due_at = self.confirmations.due_at(now).filter(|due_at| self.has_window() || *due_at > now);
        Ok(due_at.map(|due_at| due_at.saturating_sub(now)))
    }

    async fn fill_from_queue(&mut self) -> Result<Option<Duration>, Ended> {
        while self.has_room() {
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
        let message = Message { topic, payload: Bytes::from(payload) };
        let asked = self.confirmations.depart(ticket, Span::of(&batch), &message);
        self.uplink.submit(asked, message)?;
        Ok(())
    }

    /// Submits an answer to the cloud. Nobody waits for what becomes of it.
    fn say(&mut self, message: Message) -> Result<(), Lost> {
        let asked = self.confirmations.depart_otherwise();
        self.uplink.submit(asked, message)
    }

    /// What the cloud says: a receipt, or something for others to answer.
    async fn hear(&mut self, message: CloudMessage, backoff: &mut Backoff) -> Result<(), outbox::Error> {
        if message.topic != self.receipts {
            if self.asking.as_ref().is_none_or(|asking| asking.try_send(message).is_err()) {
                tracing::warn!("a request of the cloud is dropped: too many at once, or nobody answers them");
            }
            return Ok(());
        }
        let now = self.clock.since_boot();
        let heard = match Receipt::decode(&message.payload) {
            Ok(receipt) => self.confirmations.heard(receipt, now),
            // A receiver that knows the standard and not us gives the name of the message back.
            Err(_) => match message.correlation.as_deref().map(<[u8; 32]>::try_from) {
                Some(Ok(digest)) => self.confirmations.heard_name(&digest.into(), now),
                _ => Heard::Nothing,
            },
        };
        match heard {
            Heard::Kept(ticket) => {
                backoff.reset();
                self.metrics.receipts.inc();
                self.arrived(ticket).await?;
            }
            Heard::Refused(ticket, reason) => self.not_taken(ticket, Some(&format!("the receiver says: {reason}"))),
            Heard::Nothing => drop(self.metrics.strange_receipts.inc()),
        }
        self.metrics.in_flight.set(i64::try_from(self.flights.len()).unwrap_or(i64::MAX));
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

    async fn settle(&mut self, asked: Ticket, answer: Answer) -> Result<(), outbox::Error> {
        let reason = match answer {
            Answer::Acknowledged => {
                if let Some(ticket) = self.confirmations.taken(asked, self.clock.since_boot()) {
                    self.arrived(ticket).await?;
                }
                None
            }
            Answer::NoSubscriber => Some("nobody subscribes".to_owned()),
            Answer::Refused { reason } => Some(reason),
            // Found out between the look at the limit and the send; the next look is right.
            Answer::TooLarge { .. } => {
                if let Some(ticket) = self.confirmations.not_taken(asked) {
                    self.not_taken(ticket, None);
                }
                None
            }
        };
        if let Some(reason) = reason
            && let Some(ticket) = self.confirmations.not_taken(asked)
        {
            self.not_taken(ticket, Some(&reason));
        }
        self.metrics.in_flight.set(i64::try_from(self.flights.len()).unwrap_or(i64::MAX));
        Ok(())
    }

    /// The batch is safe where its acknowledgement came from.
    async fn arrived(&mut self, ticket: u64) -> Result<(), outbox::Error> {
        self.metrics.batches.inc();
        if let Some(arrived) = self.flights.acknowledge(ticket) {
            self.metrics.rows.inc_by(arrived.rows);
            self.holds.remove(&arrived.key);
            self.queue.delete(arrived).await?;
        }
        Ok(())
    }

    /// The batch is fetched again, after a while if there is a reason.
    fn not_taken(&mut self, ticket: u64, reason: Option<&str>) {
        self.confirmations.close(ticket);
        let Some(key) = self.flights.refuse(ticket) else { return };
        if let Some(reason) = reason {
            self.metrics.failures.inc();
            self.hold(key, reason);
        }
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
        let mut backoff = self.backoff();
        while self.flights.len() > 0 {
            let settled = tokio::select! {
                answer = self.uplink.answer() => match answer {
                    Ok((ticket, answer)) => self.settle(ticket, answer).await,
                    Err(_) => return,
                },
                Some(message) = next(&mut self.cloud) => self.hear(message, &mut backoff).await,
            };
            if settled.is_err() {
                return;
            }
        }
    }
}

/// The next message; waits for ever where none can come.
async fn next<T>(channel: &mut Option<mpsc::Receiver<T>>) -> Option<T> {
    match channel {
        Some(open) => match open.recv().await {
            Some(message) => Some(message),
            None => {
                *channel = None;
                std::future::pending().await
            }
        },
        None => std::future::pending().await,
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
