//! Queue to cloud: batch, send, wait for the acknowledgement, delete. At its own pace, never in the sensor's path.
//!
//! Several batches may wait for their answers. The queue is the only memory: after every loss of the link the rows that
//! were not acknowledged are read from it again, so a row may be sent twice and none is skipped. What is due says `due`,
//! how fast it leaves says `pace`, how the link is says `uplink::LinkJudge`.

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
use crate::uplink::{Answer, LinkJudge, LinkState, Lost, Message, Ticket, Uplink};

use super::address::Address;
use super::batch::{BATCH_OVERHEAD_BYTES, Batch};
use super::day::DayBudget;
use super::due::{Company, Holds, tally};
use super::flight::Flights;
use super::frame;
use super::pace::{Claim, Pace};
use super::queue::{End, Queue};
use super::sync_settings::{Metered, SyncConfig, SyncMetrics};

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

/// A message that is made and waits for its budget. Its batch counts as on its way.
struct Ready {
    key: StreamKey,
    ticket: Ticket,
    message: Message,
    /// Size before compression.
    plain_bytes: u64,
    /// What it costs.
    bytes: u64,
    again: bool,
    overtakes: bool,
    waited: bool,
}

/// There may be ledger entries without a row, which nothing counts: look once even if nothing seems to wait.
#[derive(Debug, Clone, Copy)]
struct Look {
    alarms: bool,
    others: bool,
}

/// Whether a message could be made.
enum Made {
    Ready,
    Nothing,
    /// A row was declared lost: there may be more.
    GaveUp,
}

/// What to do next.
struct Due {
    /// In this order.
    turns: Vec<Claim>,
    /// Rows are counted, so finding none is a matter of a moment.
    counted: bool,
    /// From which end fresh rows are taken.
    fresh_end: End,
    /// After which time to look again, if only time is missing.
    wait: Option<Duration>,
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
    /// One of each claim at most.
    ready: HashMap<Claim, Ready>,
    /// When messages were handed over, since boot.
    submitted: HashMap<Ticket, Duration>,
    holds: Holds,
    company: Company,
    look: Look,
    pace: Pace,
    judge: LinkJudge,
    metered: watch::Receiver<bool>,
    /// Since boot: when the link was lost.
    lost_at: Option<Duration>,
}

impl<U: Uplink, R: Rng + Send> Sync<U, R> {
    /// `writer` is the one of the outbox's store, which has [`SYNC_SCHEMA`](super::SYNC_SCHEMA), too. `rng` spreads the
    /// waits, so that a fleet does not come back at one instant.
    pub fn new(
        outbox: Outbox,
        writer: Writer,
        uplink: U,
        gateway: Name,
        clock: Arc<dyn Clock>,
        config: SyncConfig,
        rng: R,
    ) -> Self {
        let now = clock.since_boot();
        let metrics = SyncMetrics::default();
        metrics.day_left_bytes.set(-1);
        Self {
            queue: Queue::new(outbox, writer),
            uplink,
            gateway,
            rng,
            metrics,
            flights: Flights::new(),
            ready: HashMap::new(),
            submitted: HashMap::new(),
            holds: Holds::default(),
            company: Company::new(config.batch_rows as u64, Duration::from_millis(config.linger_ms)),
            look: Look { alarms: true, others: true },
            pace: Pace::new(&config, now),
            judge: LinkJudge::new(config.link.clone(), now, clock.wall_ms()),
            metered: watch::channel(config.metered == Metered::Yes).1,
            lost_at: None,
            clock,
            config,
        }
    }

    /// Whoever looks at the machine's routes says whether bytes cost money; counts where the setting is "auto".
    #[must_use]
    pub fn metered_by(mut self, metered: watch::Receiver<bool>) -> Self {
        if self.config.metered == Metered::Auto {
            self.metered = metered;
        }
        self
    }

    /// The counters.
    pub fn metrics(&self) -> &SyncMetrics {
        &self.metrics
    }

    /// How the link is, with hysteresis; changes wake the receivers.
    pub fn link(&self) -> watch::Receiver<LinkState> {
        self.judge.state()
    }

    /// Sends until `stop`; then waits a little for the answers to what was sent, and closes the link.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = self.backoff();
        loop {
            let opened = tokio::select! {
                () = stop.cancelled() => break,
                opened = self.open() => opened,
            };
            let ended = match opened {
                Ok(()) => self.pump(&stop, &mut backoff).await,
                Err(ended) => ended,
            };
            self.unready();
            let reason = match ended {
                Ended::Stopped => {
                    let limit = Duration::from_millis(self.config.drain_ms);
                    let _ = tokio::time::timeout(limit, self.drain()).await;
                    break;
                }
                Ended::Lost(reason) => {
                    self.uplink.close().await;
                    self.flights.lose();
                    self.submitted.clear();
                    self.metrics.in_flight.set(0);
                    let now = self.clock.since_boot();
                    self.lost_at.get_or_insert(now);
                    self.judge.lost(&reason, now, self.clock.wall_ms());
                    self.tell();
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
        let stamp = self.clock.stamp();
        if let Some(day) = &mut self.pace.day {
            let row = day.row_exact(&stamp);
            if let Err(error) = self.queue.keep_now(row).await {
                tracing::warn!(%error, "the day's budget is not written exactly; the next start counts a block too much");
            }
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(
            Duration::from_millis(self.config.retry_first_ms),
            Duration::from_millis(self.config.retry_most_ms),
        )
    }

    /// Knows the day's budget, then opens the link.
    async fn open(&mut self) -> Result<(), Ended> {
        if let (Some(bytes_per_day), None) = (self.config.bytes_per_day, &self.pace.day) {
            let row = self.queue.kept().await?;
            let (share, debt) = (self.config.live_share_percent, self.config.alarm_debt_bytes);
            self.pace.day = Some(DayBudget::resume(bytes_per_day, share, debt, row, &self.clock.stamp()));
        }
        self.uplink.connect().await?;
        let now = self.clock.since_boot();
        if let Some(lost_at) = self.lost_at.take() {
            let outage = now.saturating_sub(lost_at);
            let wait = self.pace.back_after(outage, now, &mut self.rng);
            tracing::info!(outage_ms = outage.as_millis(), wait_ms = wait.as_millis(), "the link to the cloud is back");
        }
        for Position { key, last, .. } in self.queue.positions() {
            self.flights.begin(&key, last);
        }
        self.judge.connected(now);
        self.tell();
        Ok(())
    }

    /// Keeps the window full until something ends it.
    async fn pump(&mut self, stop: &CancellationToken, backoff: &mut Backoff) -> Ended {
        self.look = Look { alarms: true, others: true };
        let (mut appended, mut deleted) = (self.queue.appended(), self.queue.deleted());
        loop {
            // Before the look at the queue, so that what comes during it wakes the next one.
            appended.mark_unchanged();
            deleted.mark_unchanged();
            let wait = match self.fill().await {
                Ok(wait) => wait,
                Err(ended) => return ended,
            };
            self.tell();
            let look = self.judge.next_look(self.clock.since_boot());
            let wait = wait.into_iter().chain(look).min();
            let room = self.has_room();
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
                () = changed(&mut self.metered) => {
                    self.unready();
                    Ok(())
                }
                () = tokio::time::sleep(wait.unwrap_or(Duration::MAX)), if wait.is_some() => Ok(()),
            };
            if let Err(error) = settled {
                return error.into();
            }
        }
    }

    /// Shows how the link is and what is left.
    fn tell(&mut self) {
        let now = self.clock.since_boot();
        let raw = self.uplink.state().borrow().clone();
        self.judge.told(&raw, *self.metered.borrow(), now);
        let state = match &*self.judge.state().borrow() {
            LinkState::Up => 3,
            LinkState::Metered => 2,
            LinkState::Degraded { .. } => 1,
            LinkState::Down { .. } => 0,
        };
        self.metrics.link.set(state);
        self.metrics.answer_ms.set(self.judge.answer_ms() as i64);
        if let Some(day) = &mut self.pace.day {
            self.metrics.day_left_bytes.set(i64::try_from(day.left(now)).unwrap_or(i64::MAX));
        }
        self.metrics.in_flight.set(i64::try_from(self.submitted.len()).unwrap_or(i64::MAX));
    }

    fn has_room(&self) -> bool {
        self.flights.len() - self.ready.len() < self.uplink.window()
    }

    /// Submits what is due and within its budget while the window has room. Gives the time after which to look again,
    /// if only time is missing.
    async fn fill(&mut self) -> Result<Option<Duration>, Ended> {
        self.queue.settle(&mut self.flights).await?;
        while self.has_room() {
            let now = self.clock.since_boot();
            let Due { turns, counted, fresh_end, mut wait } = self.due(now);
            let mut sent = false;
            for claim in turns {
                let end = if claim == Claim::Fresh { fresh_end } else { End::Oldest };
                let made = if self.ready.contains_key(&claim) { Made::Ready } else { self.fetch(claim, end).await? };
                match made {
                    Made::Ready => {}
                    Made::GaveUp => {
                        sent = true;
                        break;
                    }
                    Made::Nothing => {
                        // The count and the rows disagree for a moment (a deletion): look again later.
                        let later = Duration::from_millis(self.config.linger_ms.max(1));
                        wait = if counted { Some(wait.map_or(later, |wait| wait.min(later))) } else { wait };
                        continue;
                    }
                }
                let bytes = self.ready.get(&claim).map_or(0, |ready| ready.bytes);
                let (by_second, by_day) = self.pace.waits(claim, bytes, now);
                if by_second.is_zero() && by_day.is_zero() {
                    self.hand_over(claim).await?;
                    sent = true;
                    break;
                }
                if let Some(ready) = self.ready.get_mut(&claim)
                    && !std::mem::replace(&mut ready.waited, true)
                {
                    self.metrics.paced.inc();
                }
                let needed = by_second.max(by_day);
                wait = Some(wait.map_or(needed, |wait| wait.min(needed)));
                // Its turn: the next must not take the bytes that it waits for. Those of another day are not in its way.
                if by_day.is_zero() {
                    break;
                }
            }
            if !sent {
                return Ok(wait);
            }
        }
        Ok(None)
    }

    /// Alarms at once, a full batch at once, a backlog at once in its turn, anything else when it has waited for company.
    fn due(&mut self, now: Duration) -> Due {
        let (batch_rows, live) = (self.config.batch_rows as u64, self.config.live_share_percent > 0);
        let allowed = |class| self.allows(class);
        let tally = tally(&self.queue.positions(), &self.flights, &self.holds, allowed, (batch_rows, live), now);
        let mut turns = Vec::with_capacity(3);
        if tally.alarms > 0 || self.look.alarms || self.ready.contains_key(&Claim::Alarm) {
            turns.push(Claim::Alarm);
        }
        let mut wait = tally.held_until.map(|until| until - now);
        let mut sooner = |than: Duration| wait = Some(wait.map_or(than, |wait| wait.min(than)));
        let company = self.company.wait(tally.fresh, now);
        let quiet = self.pace.quiet(Claim::Backlog, now);
        if quiet.is_zero() {
            let fresh = company == Some(Duration::ZERO) || self.ready.contains_key(&Claim::Fresh);
            let backlog = tally.backlog > 0 || self.look.others || self.ready.contains_key(&Claim::Backlog);
            match (fresh, backlog) {
                (true, true) if self.pace.share.fresh_first() => turns.extend([Claim::Fresh, Claim::Backlog]),
                (true, true) => turns.extend([Claim::Backlog, Claim::Fresh]),
                (true, false) => turns.push(Claim::Fresh),
                (false, true) => turns.push(Claim::Backlog),
                (false, false) => {}
            }
            if let (false, Some(company)) = (fresh, company) {
                sooner(company);
            }
        } else if tally.fresh + tally.backlog > 0 || self.look.others {
            sooner(quiet);
        }
        let fresh_end = if tally.backlog > 0 || self.ready.contains_key(&Claim::Backlog) { End::Newest } else { End::Oldest };
        let counted = tally.alarms + tally.fresh + tally.backlog > 0;
        Due { turns, counted, fresh_end, wait }
    }

    /// False for what does not leave over a metered link.
    fn allows(&self, class: Class) -> bool {
        !*self.metered.borrow() || self.config.metered_classes.0.contains(&class)
    }

    /// Bodies and what stands around them must fit into one message; [`shrink`] has the last word.
    fn limits(&self) -> BatchLimits {
        let most = self.uplink.max_payload_bytes("");
        let paced = usize::try_from(self.config.message_bytes()).unwrap_or(usize::MAX);
        BatchLimits {
            rows: self.config.batch_rows.min(most / 64),
            bytes: self.config.batch_bytes.min(most / 2).min(paced),
        }
    }

    /// Makes the claim's next message.
    async fn fetch(&mut self, claim: Claim, end: End) -> Result<Made, Ended> {
        let now = self.clock.since_boot();
        let (alarms, metered) = (claim == Claim::Alarm, *self.metered.borrow());
        let (holds, classes) = (&self.holds, &self.config.metered_classes.0);
        let passed = |key: &StreamKey| {
            (key.class == Class::Alarm) != alarms
                || holds.is_held(key, now)
                || (metered && !classes.contains(&key.class))
        };
        let limits = self.limits();
        let found = self.queue.next(&self.gateway, end, limits, &self.flights, passed).await?;
        if claim == Claim::Alarm {
            self.look.alarms = false;
        } else if end == End::Oldest {
            self.look.others = false;
        }
        match found {
            Some((key, batch)) => self.make(claim, key, batch, end == End::Newest).await,
            None => {
                self.company.again();
                Ok(Made::Nothing)
            }
        }
    }

    /// Encodes a batch, smaller if the far side or the burst takes less. One row that is too large by itself is declared
    /// lost: it can never be sent, and everything behind it could not either.
    async fn make(&mut self, claim: Claim, key: StreamKey, mut batch: Batch, overtakes: bool) -> Result<Made, Ended> {
        let address = Address {
            tenant: self.config.tenant.clone(),
            gateway: self.gateway.clone(),
            class: batch.class.clone(),
            stream: batch.stream.clone(),
        };
        let topic = address.topic();
        let limit = self.uplink.max_payload_bytes(&topic);
        let (plain_bytes, payload) = loop {
            let plain = batch.encode();
            let plain_bytes = plain.len() as u64;
            let payload = if self.config.compress { frame::pack(plain) } else { plain };
            let fits = payload.len() <= limit;
            if fits && (payload.len() + topic.len()) as u64 <= self.config.message_bytes() {
                break (plain_bytes, payload);
            }
            if shrink(&mut batch) {
                continue;
            }
            if fits {
                break (plain_bytes, payload);
            }
            self.give_up(&key, &batch, limit).await?;
            return Ok(Made::GaveUp);
        };
        let bytes = (payload.len() + topic.len()) as u64;
        let (ticket, again) = self.flights.depart(&key, batch.first, batch.last, batch.rows.len() as u64);
        let message = Message { topic, payload: Bytes::from(payload) };
        self.ready.insert(claim, Ready { key, ticket, message, plain_bytes, bytes, again, overtakes, waited: false });
        Ok(Made::Ready)
    }

    /// What is left of the batch is one row or one gap.
    async fn give_up(&mut self, key: &StreamKey, batch: &Batch, limit_bytes: usize) -> Result<(), Ended> {
        match batch.rows.first() {
            Some(row) if limit_bytes >= 2 * BATCH_OVERHEAD_BYTES => {
                let (seq, size_bytes) = (row.seq.0, row.body.len());
                tracing::error!(stream = %key, seq, size_bytes, limit_bytes, "a row is too large for the cloud: lost");
                self.metrics.unsendable.inc();
                self.look = Look { alarms: true, others: true };
                Ok(self.queue.give_up(key, row.seq).await?)
            }
            // A far side that takes next to nothing is set up wrongly; that is no reason to throw rows away.
            _ => Err(Ended::Lost(format!("the far side takes {limit_bytes} bytes: too few for any batch"))),
        }
    }

    /// The claim's message leaves. The disk knows of its cost before.
    async fn hand_over(&mut self, claim: Claim) -> Result<(), Ended> {
        let Some(ready) = self.ready.remove(&claim) else { return Ok(()) };
        let (now, bytes) = (self.clock.since_boot(), ready.bytes);
        if self.pace.day.as_mut().is_some_and(|day| !day.is_covered(bytes, now))
            && let Err(error) = self.reserve(bytes).await
        {
            self.flights.cancel(ready.ticket);
            return Err(error.into());
        }
        self.pace.charge(claim, bytes, now);
        if claim == Claim::Fresh {
            self.company.again();
        }
        if ready.again {
            self.metrics.resent.inc();
        }
        if ready.overtakes {
            self.metrics.overtaking.inc();
        }
        self.metrics.bytes.inc_by(ready.plain_bytes);
        self.metrics.sent_bytes.inc_by(bytes);
        tracing::debug!(stream = %ready.key, bytes, "a batch leaves");
        self.submitted.insert(ready.ticket, now);
        self.uplink.submit(ready.ticket, ready.message)?;
        Ok(())
    }

    async fn reserve(&mut self, bytes: u64) -> Result<(), outbox::Error> {
        let stamp = self.clock.stamp();
        let Some(day) = &mut self.pace.day else { return Ok(()) };
        day.credit(&stamp);
        let row = day.row_ahead(bytes, &stamp);
        self.queue.keep(row.clone()).await?;
        day.written(&row);
        Ok(())
    }

    /// Messages that were made and not handed over are made again later.
    fn unready(&mut self) {
        for (_, ready) in self.ready.drain() {
            self.flights.cancel(ready.ticket);
        }
    }

    async fn settle(&mut self, ticket: Ticket, answer: Answer) -> Result<(), outbox::Error> {
        let now = self.clock.since_boot();
        let after = self.submitted.remove(&ticket).map(|at| now.saturating_sub(at));
        let outcome = match answer {
            Answer::Acknowledged => {
                if let Some(after) = after {
                    self.judge.acknowledged(after, now);
                }
                if let Some(arrived) = self.flights.acknowledge(ticket) {
                    self.metrics.rows.inc_by(arrived.rows);
                    self.holds.release(&arrived.key);
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
            let wait = self.holds.hold(key, self.backoff(), now, &mut self.rng);
            tracing::warn!(reason, retry_ms = wait.as_millis(), "the cloud does not take a stream");
        }
        Ok(())
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

/// Resolves when the flag may have changed; never, if nobody can change it.
async fn changed(flag: &mut watch::Receiver<bool>) {
    if flag.changed().await.is_err() {
        std::future::pending::<()>().await;
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
