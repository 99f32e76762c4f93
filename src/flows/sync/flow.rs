//! The flow's loop: open the link, keep its window full, wait for what comes, begin again after a loss.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::base::{Backoff, Clock, Name};
use crate::flows::address::Address;
use crate::flows::confirm::Confirmations;
use crate::flows::day::DayBudget;
use crate::flows::due::{Company, Holds};
use crate::flows::flight::Flights;
use crate::flows::pace::{Claim, Pace};
use crate::flows::queue::Queue;
use crate::flows::sync_settings::{AcknowledgedBy, Metered, SyncConfig, SyncMetrics};
use crate::outbox::{self, Outbox, Position, StreamKey};
use crate::store::Writer;
use crate::uplink::{Answer, CloudMessage, LinkJudge, LinkState, Lost, Message, Ticket, Uplink};

use super::hear::next;
use super::send::{Look, Ready};

/// Requests of the cloud that may wait, and answers to them.
const MAX_REQUESTS: usize = 16;

/// Why nothing is being sent.
pub(super) enum Ended {
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

/// The flow's parts.
pub struct Sync<U, R> {
    pub(super) queue: Queue,
    pub(super) uplink: U,
    pub(super) gateway: Name,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) config: SyncConfig,
    pub(super) rng: R,
    pub(super) metrics: SyncMetrics,
    pub(super) flights: Flights<StreamKey>,
    pub(super) confirmations: Confirmations,
    /// Made and not handed over: one of each claim at most.
    pub(super) ready: HashMap<Claim, Ready>,
    /// When the link was given what it has not answered, since boot.
    pub(super) submitted: HashMap<Ticket, Duration>,
    pub(super) holds: Holds,
    pub(super) company: Company,
    pub(super) look: Look,
    /// Losses that were looked for.
    pub(super) losses: u64,
    pub(super) pace: Pace,
    pub(super) judge: LinkJudge,
    metered: watch::Receiver<bool>,
    /// Since boot: when the link was lost.
    lost_at: Option<Duration>,
    /// What the cloud says.
    pub(super) cloud: Option<mpsc::Receiver<CloudMessage>>,
    pub(super) receipts: String,
    /// Whoever answers what is no receipt.
    pub(super) asking: Option<mpsc::Sender<CloudMessage>>,
    /// Whoever answers questions about leases.
    pub(super) leasing: Option<mpsc::Sender<CloudMessage>>,
    /// The other end of `saying`, until its takers have it.
    say: Option<mpsc::Sender<Message>>,
    saying: Option<mpsc::Receiver<Message>>,
    /// The link says that no receipts come.
    pub(super) silent: bool,
}

impl<U: Uplink, R: Rng + Send> Sync<U, R> {
    /// `writer` is the one of the outbox's store, which has [`SYNC_SCHEMA`](crate::flows::SYNC_SCHEMA), too. `rng` spreads the
    /// waits, so that a fleet does not come back at one instant.
    pub fn new(
        outbox: Outbox,
        writer: Writer,
        mut uplink: U,
        gateway: Name,
        clock: Arc<dyn Clock>,
        config: SyncConfig,
        rng: R,
    ) -> Self {
        let cloud = uplink.cloud_messages();
        let by = if cloud.is_some() { config.acknowledged_by } else { AcknowledgedBy::Broker };
        let now = clock.since_boot();
        let metrics = SyncMetrics::default();
        metrics.day_left_bytes.set(-1);
        Self {
            queue: Queue::new(outbox, writer),
            uplink,
            confirmations: Confirmations::new(by, &config),
            cloud,
            receipts: Address::receipts(&config.tenant, &gateway),
            asking: None,
            leasing: None,
            say: None,
            saying: None,
            silent: false,
            gateway,
            rng,
            metrics,
            flights: Flights::new(),
            ready: HashMap::new(),
            submitted: HashMap::new(),
            holds: Holds::default(),
            company: Company::new(config.batch_rows as u64, Duration::from_millis(config.linger_ms)),
            losses: 0,
            look: Look { losses: true, alarms: true, others: true },
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

    /// Where the cloud's requests come out, and where answers to them go in. Both are bounded; what comes while they are
    /// full is dropped, since whoever asks asks again.
    pub fn requests(&mut self) -> (mpsc::Receiver<CloudMessage>, mpsc::Sender<Message>) {
        let (asking, asked) = mpsc::channel(MAX_REQUESTS);
        self.asking = Some(asking);
        (asked, self.voice())
    }

    /// The same for questions about leases, which have room of their own to wait in.
    pub fn leases(&mut self) -> (mpsc::Receiver<CloudMessage>, mpsc::Sender<Message>) {
        let (leasing, asked) = mpsc::channel(MAX_REQUESTS);
        self.leasing = Some(leasing);
        (asked, self.voice())
    }

    fn voice(&mut self) -> mpsc::Sender<Message> {
        if let Some(say) = &self.say {
            return say.clone();
        }
        let (say, saying) = mpsc::channel(2 * MAX_REQUESTS);
        self.saying = Some(saying);
        self.say.insert(say).clone()
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
                opened = self.open(&mut backoff) => opened,
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
                    self.confirmations.lose();
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

    pub(super) fn backoff(&self) -> Backoff {
        Backoff::new(
            Duration::from_millis(self.config.retry_first_ms),
            Duration::from_millis(self.config.retry_most_ms),
        )
    }

    /// Knows the day's budget, then opens the link.
    async fn open(&mut self, backoff: &mut Backoff) -> Result<(), Ended> {
        if let (Some(bytes_per_day), None) = (self.config.bytes_per_day, &self.pace.day) {
            let row = self.queue.kept(self.clock.stamp()).await?;
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
        self.catch_up(backoff).await?;
        Ok(())
    }

    /// Keeps the window full until something ends it.
    async fn pump(&mut self, stop: &CancellationToken, backoff: &mut Backoff) -> Ended {
        self.look = Look { losses: true, alarms: true, others: true };
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
    pub(super) fn tell(&mut self) {
        let now = self.clock.since_boot();
        let raw = self.uplink.state().borrow().clone();
        self.judge.told(&raw, self.is_metered(), now);
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
        let in_flight = self.flights.len() - self.ready.len();
        self.metrics.in_flight.set(i64::try_from(in_flight).unwrap_or(i64::MAX));
    }

    pub(super) fn is_metered(&self) -> bool {
        *self.metered.borrow()
    }
}

/// Resolves when the flag may have changed; never, if nobody can change it.
async fn changed(flag: &mut watch::Receiver<bool>) {
    if flag.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
