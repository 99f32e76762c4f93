//! The gateway's side of leases: takes what the owner of a budget lends, tells what was used of it, and says both to the
//! disk before it says them to the cloud.
//!
//! Asked or not, it tells: when the link has come back, when a lease is three quarters used, and when one is over. So an
//! owner hears of a gateway that was away as soon as it can, and need not ask often.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::form::Form;
use super::lease::{LeaseAnswer, LeaseOutcome, LeaseRequest, id_of};
use super::rate::{Pass, Rate};
use crate::base::Clock;
use crate::quota::{LeaseError, LeaseReport, LeaseStanding, Now, Quota, Unit};
use crate::store::Writer;
use crate::uplink::{CloudMessage, LinkState, Message};

/// How often leases are looked at for something to tell.
const LOOK: Duration = Duration::from_secs(1);
/// What is over and not settled is told again after this.
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// Bytes of reports in one message that nobody asked for: it stays below the 4,096 that the cloud's side hears.
const MAX_TOLD_BYTES: usize = 3200;
/// What a report takes beside its name, at most, with a level of 64 bytes.
const REPORT_BYTES: usize = 260;

/// What the flow counts; clones share it.
#[derive(Debug, Clone)]
pub struct LeaseMetrics {
    /// Questions about leases.
    pub asked: Counter,
    /// Leases taken.
    pub taken: Counter,
    /// Leases refused or put off.
    pub refused: Counter,
    /// Questions beyond the rate that were not even answered.
    pub dropped: Counter,
    /// Reports told, asked or not.
    pub told: Counter,
    /// Seconds to the end of the lease that ends next; -1 while there is none.
    pub ends_s: Gauge,
}

impl Default for LeaseMetrics {
    fn default() -> Self {
        let ends_s = Gauge::default();
        ends_s.set(-1);
        let counter = Counter::default;
        Self { asked: counter(), taken: counter(), refused: counter(), dropped: counter(), told: counter(), ends_s }
    }
}

impl LeaseMetrics {
    /// Puts the counters into `registry`, as `leases_*`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("leases");
        registry.register("asked", "Questions of the cloud about leases", self.asked.clone());
        registry.register("taken", "Leases taken", self.taken.clone());
        registry.register("refused", "Leases refused or put off", self.refused.clone());
        registry.register("dropped", "Questions about leases beyond the rate, unanswered", self.dropped.clone());
        registry.register("told_reports", "Reports about leases told to the cloud", self.told.clone());
        registry.register("next_end_s", "Seconds to the next end of a lease; -1 without one", self.ends_s.clone());
    }
}

/// What a lease needs to hear of the cloud and say to it.
pub struct LeaseEnds {
    /// Questions about leases.
    pub asked: mpsc::Receiver<CloudMessage>,
    /// Answers.
    pub say: mpsc::Sender<Message>,
    /// Where answers go.
    pub topic: String,
    /// Questions that are looked at in a minute.
    pub per_minute: u32,
    /// How the link is.
    pub link: watch::Receiver<LinkState>,
}

type Key = (String, String, Unit, u64);

/// What an owner should hear of a lease without asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Held,
    /// Three quarters of it are used.
    Scarce,
    /// Nothing is left of it, or too little for a request.
    Spent,
    Over,
}

impl Stage {
    fn of(standing: &LeaseStanding) -> Self {
        let LeaseStanding { report, amount, .. } = standing;
        if report.is_final {
            Self::Over
        } else if report.short || report.used >= *amount {
            Self::Spent
        } else if u128::from(report.used) * 4 >= u128::from(*amount) * 3 {
            Self::Scarce
        } else {
            Self::Held
        }
    }
}

fn key_of(report: &LeaseReport) -> Key {
    (report.level.clone(), report.name.clone(), report.unit, report.number)
}

/// In pieces that the cloud's side hears.
fn in_messages(reports: Vec<LeaseReport>) -> Vec<Vec<LeaseReport>> {
    let mut messages: Vec<Vec<LeaseReport>> = Vec::new();
    let mut room = 0;
    for report in reports {
        // Every byte of a name may need six in JSON.
        let bytes = REPORT_BYTES + serde_json::to_string(&report.name).map_or(0, |name| name.len());
        if room < bytes {
            messages.push(Vec::new());
            room = MAX_TOLD_BYTES;
        }
        room -= bytes.min(room);
        messages.last_mut().expect("one was begun").push(report);
    }
    messages
}

/// Takes leases and reports them.
pub struct Leases {
    quota: Quota,
    writer: Writer,
    ends: LeaseEnds,
    clock: Arc<dyn Clock>,
    rate: Rate,
    /// What was told unasked over this link, and when.
    told: BTreeMap<Key, (Stage, Duration)>,
    metrics: LeaseMetrics,
}

impl Leases {
    /// `writer` is the one of the store that keeps `quota`.
    pub fn new(quota: Quota, writer: Writer, ends: LeaseEnds, clock: Arc<dyn Clock>) -> Self {
        let rate = Rate::new(ends.per_minute, clock.since_boot());
        Self { quota, writer, ends, clock, rate, told: BTreeMap::new(), metrics: LeaseMetrics::default() }
    }

    /// The counters.
    pub fn metrics(&self) -> &LeaseMetrics {
        &self.metrics
    }

    /// Answers and tells until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                message = self.ends.asked.recv() => match message {
                    Some(message) => self.hear(message).await,
                    None => return,
                },
                changed = self.ends.link.changed() => match changed {
                    // What was said over a link that is gone may not have arrived.
                    Ok(()) if matches!(*self.ends.link.borrow_and_update(), LinkState::Down { .. }) => self.told.clear(),
                    Ok(()) => {}
                    Err(_) => return,
                },
                _ = look.tick() => self.look().await,
            }
        }
    }

    async fn hear(&mut self, CloudMessage { payload, done, .. }: CloudMessage) {
        self.metrics.asked.inc();
        let answer = match self.rate.pass(self.clock.since_boot()) {
            Pass::Yes => self.answer(&payload).await,
            Pass::No => {
                tracing::warn!("the cloud asks too often about leases");
                let reason =
                    format!("at most {} questions about leases a minute; ask again later", self.rate.per_minute);
                LeaseAnswer::of(&id_of(&payload), LeaseOutcome::Later, Vec::new()).because(&reason)
            }
            Pass::Silence => {
                self.metrics.dropped.inc();
                return;
            }
        };
        if matches!(answer.outcome, LeaseOutcome::Later | LeaseOutcome::Refused) {
            self.metrics.refused.inc();
        }
        if let Some(done) = done.filter(|_| answer.outcome != LeaseOutcome::Later) {
            done.tell();
        }
        self.say(Form::of(&payload), &answer);
    }

    /// False if there is no room for it now.
    fn say(&self, form: Form, answer: &LeaseAnswer) -> bool {
        let message = Message { topic: self.ends.topic.clone(), payload: Bytes::from(form.write(answer)) };
        let said = self.ends.say.try_send(message).is_ok();
        if said {
            self.metrics.told.inc_by(answer.reports.len() as u64);
        } else {
            tracing::warn!(request.id = answer.id, "what is to be said about leases found no room; it is said again");
        }
        said
    }

    /// The answer to one question, after everything that it says is on the disk.
    pub(super) async fn answer(&self, payload: &[u8]) -> LeaseAnswer {
        let request = match Form::of(payload).read::<LeaseRequest>(payload) {
            Ok(request) => request,
            Err(reason) => {
                tracing::warn!(reason, "a question of the cloud about a lease cannot be read");
                let reason = format!("it cannot be read: {reason}");
                return LeaseAnswer::of(&id_of(payload), LeaseOutcome::Refused, Vec::new()).because(&reason);
            }
        };
        let (level, unit) = (request.level.as_str(), request.unit.as_str());
        let (outcome, reason) = match request.check() {
            Ok(()) => self.take(&request),
            Err(reason) => {
                tracing::warn!(reason, "a question of the cloud about a lease means nothing");
                return LeaseAnswer::of(&id_of(payload), LeaseOutcome::Refused, Vec::new()).because(reason);
            }
        };
        let now = Now::of(&*self.clock);
        let mut reports = self.quota.close_leases(now);
        reports.retain(|report| request.is_about(report));
        if let Err(error) = self.quota.flush(&self.writer).await {
            tracing::warn!(%error, level, unit, "what became of a lease could not be written, and is not told");
            let reason = "this gateway's disk does not take it now";
            return LeaseAnswer::of(&request.id, LeaseOutcome::Later, Vec::new()).because(reason);
        }
        let answer = LeaseAnswer::of(&request.id, outcome, reports);
        match reason {
            Some(reason) => {
                tracing::warn!(level, unit, reason, "the cloud lends a part of a budget, which is not taken");
                answer.because(&reason)
            }
            None => answer,
        }
    }

    /// What becomes of what the question brings, and why not what it asks for.
    fn take(&self, request: &LeaseRequest) -> (LeaseOutcome, Option<String>) {
        let LeaseRequest { level, name, unit, .. } = request;
        if !self.quota.is_leased(level, name, *unit) {
            let unit = unit.as_str();
            let reason = format!(
                "no [[quota.limit]] of this gateway says that {unit} of {level} {name:?} are leased: add leased = [\"{unit}\"] to its entry"
            );
            return (LeaseOutcome::Refused, Some(reason));
        }
        for number in request.settled.iter().copied() {
            let (level, name) = (level.clone(), name.clone());
            self.quota.settled_lease(&LeaseReport {
                number,
                level,
                name,
                unit: *unit,
                used: 0,
                short: false,
                is_final: true,
            });
        }
        let now = Now::of(&*self.clock);
        let Some(lease) = request.lease(now) else { return (LeaseOutcome::Told, None) };
        if request.lend.is_some_and(|lent| lent.extends) {
            if self.quota.extend(&lease, now) {
                return (LeaseOutcome::Taken, None);
            }
            return (LeaseOutcome::Told, None);
        }
        match self.quota.grant(&lease, now) {
            Ok(()) => {
                self.metrics.taken.inc();
                let lasts_s = lease.ends_ms.saturating_sub(now.wall_ms) / 1000;
                tracing::info!(
                    level,
                    unit = unit.as_str(),
                    lease.number,
                    lease.amount,
                    lasts_s,
                    "the cloud lends a part of a budget: taken"
                );
                (LeaseOutcome::Taken, None)
            }
            Err(LeaseError::Old(_)) => (LeaseOutcome::Taken, None),
            Err(LeaseError::Void) => match self.quota.decline(&lease, now) {
                Ok(()) | Err(LeaseError::Old(_)) => {
                    let reason = "it had ended when it came, by this gateway's clock, and nothing was used of it";
                    (LeaseOutcome::Refused, Some(reason.to_owned()))
                }
                Err(error) => (LeaseOutcome::Later, Some(error.to_string())),
            },
            Err(error @ (LeaseError::TooSoon | LeaseError::TooMany)) => (LeaseOutcome::Later, Some(error.to_string())),
        }
    }

    /// Tells what nobody asked for and somebody should know.
    pub(super) async fn look(&mut self) {
        let (now, at) = (Now::of(&*self.clock), self.clock.since_boot());
        let standings = self.quota.lease_standings(now);
        let next = standings.iter().filter(|standing| standing.lasts_ms > 0).map(|standing| standing.lasts_ms).min();
        self.metrics.ends_s.set(next.map_or(-1, |ms| i64::try_from(ms / 1000).unwrap_or(i64::MAX)));
        self.told.retain(|key, _| standings.iter().any(|standing| key_of(&standing.report) == *key));
        if standings.is_empty() || matches!(*self.ends.link.borrow(), LinkState::Down { .. }) {
            return;
        }
        let is_due = |standing: &LeaseStanding| match self.told.get(&key_of(&standing.report)) {
            // The first time over this link: all of them.
            None => true,
            Some((Stage::Over, told_at)) => at.saturating_sub(*told_at) >= TELL_AGAIN,
            Some((stage, _)) => Stage::of(standing) > *stage,
        };
        let due: BTreeMap<Key, Stage> =
            standings.iter().filter(|one| is_due(one)).map(|one| (key_of(&one.report), Stage::of(one))).collect();
        if due.is_empty() {
            return;
        }
        let mut reports = self.quota.close_leases(now);
        reports.retain(|report| due.contains_key(&key_of(report)));
        if let Err(error) = self.quota.flush(&self.writer).await {
            tracing::warn!(%error, "what was used of leases could not be written, and is not told");
            return;
        }
        for reports in in_messages(reports) {
            let keys: Vec<_> = reports.iter().map(key_of).collect();
            if !self.say(Form::Json, &LeaseAnswer::of("", LeaseOutcome::Told, reports)) {
                return;
            }
            for key in keys {
                let stage = due.get(&key).copied().unwrap_or(Stage::Held);
                self.told.insert(key, (stage, at));
            }
        }
    }
}
