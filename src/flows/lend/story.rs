//! Lending over a link: what is due is decided, written, then said; what gateways answer is noted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use rand::Rng;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::asking::Asking;
use super::book::{Book, Terms};
use super::config::Budget;
use super::rows::{Key, Row, key_of};
use crate::base::{Backoff, Clock, Name};
use crate::flows::address::Address;
use crate::flows::lease::{LeaseRequest, LeaseWord, VERSION};
use crate::quota::Calendar;
use crate::store::{self, Writer};
use crate::uplink::{CloudMessage, Message, Uplink};

/// Everything is looked at this often, and what was answered at once.
const TICK: Duration = Duration::from_secs(1);
/// Waits after a loss of the link: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Questions that wait for room in the link.
const MAX_WAITING: usize = 1024;

/// What the flow counts; clones share it.
#[derive(Debug, Clone, Default)]
pub struct LendMetrics {
    /// Questions sent.
    pub asked: Counter,
    /// Answers and unasked reports heard.
    pub heard: Counter,
    /// Leases given, or made to last longer.
    pub lent: Counter,
    /// Leases closed by their final report.
    pub closed: Counter,
    /// Leases that a gateway had taken and does not know any more.
    pub forgotten: Counter,
    /// Losses of the link, and writes that failed.
    pub failures: Counter,
}

/// One budget and whom it is asked about.
pub(super) struct Entry {
    pub(super) budget: Budget,
    pub(super) book: Book,
    pub(super) asking: BTreeMap<Name, Asking>,
    /// When it must be on the disk, since boot.
    pub(super) write_by: Option<Duration>,
}

impl Entry {
    pub(super) fn must_write(&mut self, by: Duration) {
        self.write_by = Some(self.write_by.map_or(by, |at| at.min(by)));
    }
}

/// What lending is made of.
pub struct LendParts<U, R> {
    /// A link that listens to the gateways' responses.
    pub uplink: U,
    /// Whose gateways.
    pub tenant: Name,
    /// Whose days and months.
    pub calendar: Calendar,
    /// What there is to lend.
    pub budgets: Vec<Budget>,
    /// The books of the file behind `writer`; a budget without one begins whole, or,
    pub known: Vec<(Key, Book)>,
    /// where an earlier file was lost, with nothing to lend before its next period.
    pub is_lost: bool,
    /// How often a gateway that says nothing is asked.
    pub ask_every: Duration,
    /// Keeps the books.
    pub writer: Writer,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Spreads waits and names questions.
    pub rng: R,
}

/// Lends parts of budgets.
pub struct Lend<U, R> {
    uplink: U,
    heard: Option<mpsc::Receiver<CloudMessage>>,
    pub(super) tenant: Name,
    writer: Writer,
    pub(super) clock: Arc<dyn Clock>,
    calendar: Calendar,
    pub(super) ask_every: Duration,
    rng: R,
    /// Tells this process's questions from an earlier one's.
    pub(super) run: u64,
    pub(super) entries: Vec<Entry>,
    pub(super) waiting: VecDeque<Message>,
    in_flight: usize,
    ticket: u64,
    pub(super) questions: u64,
    pub(super) ticked: Option<Duration>,
    pub(super) metrics: LendMetrics,
}

impl<U: Uplink, R: Rng + Send> Lend<U, R> {
    /// Goes on with what is known, and begins the rest.
    pub fn new(parts: LendParts<U, R>) -> Self {
        let LendParts { mut uplink, tenant, calendar, budgets, known, is_lost, ask_every, writer, clock, mut rng } =
            parts;
        let (now_ms, now) = (clock.wall_ms(), clock.since_boot());
        let mut known: BTreeMap<Key, Book> = known.into_iter().collect();
        let entries = budgets.into_iter().map(|budget| {
            let period = budget.period.of(calendar.day_of(now_ms));
            let begin = if is_lost { Book::of_which_nothing_is_known } else { Book::new };
            let book = known.remove(&key_of(&budget)).unwrap_or_else(|| begin(budget.total, period, now_ms));
            let gateways = budget.config.gateways.iter().chain(book.accounts().keys());
            let asking = gateways.map(|gateway| (gateway.clone(), Asking::at(now))).collect();
            Entry { budget, book, asking, write_by: Some(now) }
        });
        let entries = entries.collect();
        let (heard, run) = (uplink.cloud_messages(), rng.random());
        let (waiting, metrics) = (VecDeque::new(), LendMetrics::default());
        let (in_flight, ticket, questions, ticked) = (0, 0, 0, None);
        Self {
            uplink,
            heard,
            tenant,
            writer,
            clock,
            calendar,
            ask_every,
            rng,
            run,
            entries,
            waiting,
            in_flight,
            ticket,
            questions,
            ticked,
            metrics,
        }
    }

    /// The counters.
    pub fn metrics(&self) -> &LendMetrics {
        &self.metrics
    }

    /// Lends until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        // That what an earlier file had lent is not known must outlive this process, too, link or not.
        self.write(true).await;
        loop {
            let connected = tokio::select! {
                () = stop.cancelled() => break,
                connected = self.uplink.connect() => connected,
            };
            let reason = match connected {
                Ok(()) => match self.serve(&stop, &mut backoff).await {
                    Some(reason) => reason,
                    None => break,
                },
                Err(lost) => lost.reason,
            };
            self.metrics.failures.inc();
            (self.in_flight, self.waiting) = (0, VecDeque::new());
            let now = self.clock.since_boot();
            let asking = self.entries.iter_mut().flat_map(|entry| entry.asking.values_mut());
            asking.for_each(|asking| asking.begin_again(now));
            let wait = backoff.next_wait(&mut self.rng);
            tracing::warn!(reason, retry_ms = wait.as_millis(), "nothing is lent: no link to the gateways");
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.write(true).await;
        self.uplink.close().await;
    }

    /// Lends over one connection. `None` at the end, otherwise why it was lost.
    async fn serve(&mut self, stop: &CancellationToken, backoff: &mut Backoff) -> Option<String> {
        loop {
            let now = self.clock.since_boot();
            if self.ticked.is_none_or(|ticked| now.saturating_sub(ticked) >= TICK) {
                self.ticked = Some(now);
                (0..self.entries.len()).for_each(|at| self.lend_all(at));
            }
            if self.write(false).await {
                self.ask();
            }
            if let Err(reason) = self.submit() {
                return Some(reason);
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                answer = self.uplink.answer() => match answer {
                    Ok(_) => {
                        backoff.reset();
                        self.in_flight = self.in_flight.saturating_sub(1);
                    }
                    Err(lost) => return Some(lost.reason),
                },
                Some(message) = hear(&mut self.heard) => self.hear(&message),
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    /// Gives everybody who shares a budget what is due.
    pub(super) fn lend_all(&mut self, at: usize) {
        let (now_ms, now) = (self.clock.wall_ms(), self.clock.since_boot());
        let entry = &mut self.entries[at];
        let period = entry.budget.period.of(self.calendar.day_of(now_ms));
        if entry.book.turn_to(period, entry.budget.total) {
            entry.must_write(now);
            let Budget { level, unit, total, .. } = &entry.budget;
            tracing::info!(level, unit = unit.as_str(), total, "a period of a budget, or another amount, begins");
        }
        for gateway in entry.budget.config.gateways.clone() {
            self.lend(at, &gateway);
        }
    }

    pub(super) fn lend(&mut self, at: usize, gateway: &Name) {
        let (now_ms, now) = (self.clock.wall_ms(), self.clock.since_boot());
        let entry = &mut self.entries[at];
        let Budget { level, unit, total, period, config, .. } = &entry.budget;
        let day = self.calendar.day_of(now_ms);
        let outlast_ms = i64::try_from(config.outlast_s * 1000).unwrap_or(i64::MAX);
        let terms = Terms {
            now_ms,
            // A book of a later period than now is one whose clock was ahead: its leases end as others do.
            latest_ms: period.ends_ms(day).saturating_add(outlast_ms),
            lease_ms: i64::try_from(config.lease_s * 1000).unwrap_or(i64::MAX),
            sharers: config.gateways.len() as u64,
            lend_percent: config.lend_percent.into(),
            smallest: u64::try_from(u128::from(*total) * u128::from(config.smallest_percent) / 100).unwrap_or(u64::MAX),
        };
        let may_lend = entry.asking.get(gateway).is_some_and(|asking| asking.may_lend(now));
        if !may_lend || !config.gateways.contains(gateway) || !entry.book.lend(gateway, &terms) {
            return;
        }
        self.metrics.lent.inc();
        if let (Some(lent), _) = entry.book.to_say(gateway, terms.lease_ms) {
            let (unit, lasts_s) = (unit.as_str(), lent.ends_ms.saturating_sub(now_ms) / 1000);
            tracing::info!(
                level,
                unit,
                %gateway,
                lease.number = lent.number,
                lease.amount = lent.amount,
                lasts_s,
                extends = lent.extends,
                "a part of a budget is lent"
            );
        }
        entry.must_write(now);
    }

    /// Writes what has to be written now. False if the disk does not take it: then nothing may be said.
    pub(super) async fn write(&mut self, all: bool) -> bool {
        let now = self.clock.since_boot();
        let is_due = |entry: &&Entry| entry.write_by.is_some_and(|by| all || by <= now);
        let rows: Vec<Row> =
            self.entries.iter().filter(is_due).map(|entry| Row::of(&entry.budget, &entry.book)).collect();
        if rows.is_empty() {
            return true;
        }
        let bytes = rows.iter().map(Row::bytes).sum();
        let put = move |tx: &store::Tx<'_>| rows.iter().try_for_each(|row| row.put(tx));
        if let Err(error) = self.writer.commit(bytes, put).await {
            self.metrics.failures.inc();
            tracing::warn!(%error, "what is lent could not be written, and is not said");
            return false;
        }
        for entry in &mut self.entries {
            entry.write_by = entry.write_by.filter(|by| !all && *by > now);
        }
        true
    }

    /// Puts the questions that are due into the link's queue. Everything that they say is on the disk.
    pub(super) fn ask(&mut self) {
        let now = self.clock.since_boot();
        for (at, entry) in self.entries.iter_mut().enumerate() {
            let lease_ms = i64::try_from(entry.budget.config.lease_s * 1000).unwrap_or(i64::MAX);
            for (gateway, asking) in &mut entry.asking {
                let (lend, settled) = entry.book.to_say(gateway, lease_ms);
                if self.waiting.len() >= MAX_WAITING || !asking.is_due(lend.as_ref(), &settled, now) {
                    continue;
                }
                self.questions += 1;
                asking.ask(self.questions, lend.as_ref(), &settled, now, self.ask_every);
                let question = LeaseRequest {
                    v: VERSION,
                    id: format!("lend-{:016x}-{at}-{}", self.run, self.questions),
                    what: LeaseWord::Lease,
                    level: entry.budget.level.clone(),
                    name: entry.budget.name.clone(),
                    unit: entry.budget.unit,
                    lend,
                    settled,
                };
                let topic = Address::requests(&self.tenant, gateway);
                self.waiting.push_back(Message { topic, payload: question.to_json() });
            }
        }
    }

    fn submit(&mut self) -> Result<(), String> {
        while self.in_flight < self.uplink.window()
            && let Some(message) = self.waiting.pop_front()
        {
            self.ticket += 1;
            self.uplink.submit(self.ticket, message).map_err(|lost| lost.reason)?;
            self.in_flight += 1;
            self.metrics.asked.inc();
        }
        Ok(())
    }
}

/// The next message; waits for ever where none can come.
async fn hear(heard: &mut Option<mpsc::Receiver<CloudMessage>>) -> Option<CloudMessage> {
    match heard {
        Some(heard) => heard.recv().await,
        None => std::future::pending().await,
    }
}
