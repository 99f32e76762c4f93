//! Reserving, settling and looking: the face of the room.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;
use tokio::sync::Notify;

use super::admit::{News, admit, admits, holds, pinned, unpin};
use super::calendar::Calendar;
use super::config::Config;
use super::counter::{Body, wanted};
use super::metrics::{Metrics, UnitLabels};
use super::refusal::{Rate, Rates, Refusal, Warning};
use super::reservation::Reservation;
use super::state::State;
use super::unit::{Amounts, Now, Span, Subject, Unit};

/// Warnings of dropped reservations that wait for somebody to fetch them.
const MAX_KEPT_WARNINGS: usize = 256;

/// Settings that make no quota.
#[derive(Debug, thiserror::Error)]
#[error("failed to use quota.{key}: {problem}")]
pub struct SettingError {
    /// The key, below `[quota]`.
    pub key: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

/// Everybody's limits and what is left of them. A cheap clone.
#[derive(Clone)]
pub struct Quota {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    state: Mutex<State>,
    /// False: nothing is limited, and nobody takes the lock.
    is_limiting: AtomicBool,
    pub(super) flush_ms: AtomicU64,
    pub(super) metrics: Metrics,
    /// Something waits to be written.
    pub(super) dirty: Notify,
    /// It should not wait long.
    pub(super) urgent: Notify,
    /// A batch holds it until its commit is over, whatever became of the one who waits for it.
    pub(super) writing: Arc<tokio::sync::Mutex<()>>,
    kept_warnings: Mutex<Vec<Warning>>,
}

impl fmt::Debug for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quota").field("subjects", &self.inner.lock().live()).finish_non_exhaustive()
    }
}

fn calendar(config: &Config) -> Result<Calendar, SettingError> {
    config.check().map_err(|(key, problem)| SettingError { key, problem })?;
    Calendar::new(&config.time_zone).map_err(|problem| SettingError { key: "time_zone", problem })
}

impl Quota {
    /// Limits as `config` has them, with nothing counted yet.
    pub fn new(config: &Config, now: Now) -> Result<Self, SettingError> {
        let state = State::new(config, calendar(config)?, now);
        Ok(Self {
            inner: Arc::new(Inner {
                is_limiting: AtomicBool::new(state.is_limiting()),
                state: Mutex::new(state),
                flush_ms: AtomicU64::new(config.flush_ms),
                metrics: Metrics::default(),
                dirty: Notify::new(),
                urgent: Notify::new(),
                writing: Arc::default(),
                kept_warnings: Mutex::default(),
            }),
        })
    }

    /// Other limits. What has been counted of those that stay is kept, requests under way included; a budget that is
    /// new counts from now.
    pub fn reload(&self, config: &Config, now: Now) -> Result<(), SettingError> {
        let calendar = calendar(config)?;
        let mut state = self.inner.lock();
        state.reload(config, calendar, now);
        self.inner.flush_ms.store(config.flush_ms, Ordering::Relaxed);
        self.inner.is_limiting.store(state.is_limiting(), Ordering::Release);
        Ok(())
    }

    /// Admits a request that is counted for all `subjects` and takes at most `amounts`, or refuses it without counting
    /// anything: all limits or none. Of several limits that refuse, the one that takes longest to pass is told.
    ///
    /// A subject without limits costs nothing. The same subject twice is counted once.
    pub fn reserve(&self, subjects: &[Subject<'_>], amounts: Amounts, now: Now) -> Result<Reservation, Box<Refusal>> {
        if !self.inner.is_limiting.load(Ordering::Acquire) {
            return Ok(Reservation::of_nothing(amounts));
        }
        let outcome = self.inner.reserve(subjects, amounts, now);
        match &outcome {
            Ok(_) => drop(self.inner.metrics.granted.inc()),
            Err(refusal) => self.inner.metrics.refuse(refusal),
        }
        outcome
    }

    /// Whether `subject` has an entry of its own in the configuration, one that limits something.
    pub fn has_its_own(&self, subject: Subject<'_>) -> bool {
        self.inner.is_limiting.load(Ordering::Acquire) && self.inner.lock().names(subject.level, subject.name)
    }

    /// The days since 1970-01-01 of the configured time zone's date at a moment, milliseconds since 1970.
    pub fn day_of(&self, wall_ms: i64) -> i32 {
        self.inner.lock().day_of(wall_ms)
    }

    /// Warnings of requests that nobody settled, oldest first; at most 256 wait.
    pub fn take_warnings(&self) -> Vec<Warning> {
        std::mem::take(&mut *self.inner.kept_warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What this room counts.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }
}

impl Inner {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics between two counts of one request: a poisoned lock still guards whole numbers.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn limits_something(&self, state: &State) {
        self.is_limiting.store(state.is_limiting(), Ordering::Release);
    }

    fn tell(&self, news: &News) {
        if news.first_dirty {
            self.dirty.notify_one();
        }
        if news.urgent {
            self.urgent.notify_one();
        }
    }

    fn reserve(
        self: &Arc<Self>,
        subjects: &[Subject<'_>],
        amounts: Amounts,
        now: Now,
    ) -> Result<Reservation, Box<Refusal>> {
        let mut state = self.lock();
        self.follow_the_clock(&mut state, now);
        let accounts = pinned(&mut state, subjects, now)?;
        let mut news = News::default();
        let blocked = admit(&mut state, &accounts, now, &mut news, admits(amounts, now));
        if let Some(refusal) = blocked {
            unpin(&mut state, &accounts);
            drop(state);
            self.tell(&news);
            return Err(Box::new(refusal.told(amounts)));
        }
        let held = self.take(&mut state, accounts, amounts, &mut news);
        drop(state);
        self.tell(&news);
        for unit in [Unit::Tokens, Unit::Money].into_iter().filter(|unit| amounts.of(*unit).is_none()) {
            self.metrics.unknown.get_or_create(&UnitLabels { unit }).inc();
        }
        Ok(held)
    }

    fn follow_the_clock(&self, state: &mut State, now: Now) {
        if state.turn_to(now) {
            self.metrics.turned_back.inc();
            tracing::warn!("the wall clock was set back over a midnight; what was spent since is counted before it");
        }
    }

    /// Counts what was admitted at `accounts`, which are pinned.
    fn take(
        self: &Arc<Self>,
        state: &mut State,
        accounts: SmallVec<[u32; 6]>,
        amounts: Amounts,
        news: &mut News,
    ) -> Reservation {
        let mut rates = Rates::default();
        for &id in &accounts {
            let mut is_kept = false;
            for counter in &mut state.held(id).counters {
                let unit = counter.limit.unit;
                news.urgent |= counter.take(amounts.of(unit).unwrap_or(0));
                match &counter.body {
                    Body::Rate(bucket) => {
                        let limit = counter.limit.amount;
                        let rate = Rate { limit, left: bucket.left(), resets_ms: bucket.full_in_ms(limit) };
                        rates.meet(unit, rate);
                    }
                    Body::Kept(_) => is_kept = true,
                    Body::AtOnce { .. } => {}
                }
            }
            if is_kept {
                news.first_dirty |= state.mark_dirty(id);
            }
        }
        let (generation, turn) = (state.generation, state.turn.number);
        Reservation { quota: Some(Arc::clone(self)), accounts, reserved: amounts, generation, turn, rates }
    }

    /// Raises `held` to `amounts`, and takes `own` at `subject` beside it: both or neither.
    pub(super) fn raise(
        self: &Arc<Self>,
        held: &Reservation,
        amounts: Amounts,
        beside: Option<(Subject<'_>, Amounts)>,
        now: Now,
    ) -> Result<Option<Reservation>, Box<Refusal>> {
        let to = held.reserved.max(amounts);
        let more = |unit: Unit| match unit {
            Unit::Requests => 0,
            _ => to.of(unit).unwrap_or(0).saturating_sub(held.reserved.of(unit).unwrap_or(0)),
        };
        let mut news = News::default();
        let mut state = self.lock();
        let mut others = SmallVec::new();
        let mut blocked = None;
        if let Some((subject, own)) = beside {
            self.follow_the_clock(&mut state, now);
            others = pinned(&mut state, &[subject], now)?;
            blocked = admit(&mut state, &others, now, &mut news, admits(own, now)).map(|blocked| blocked.told(own));
        }
        if blocked.is_none() {
            let raised = admit(&mut state, &held.accounts, now, &mut news, |counter, turn, is_nothing| {
                wanted(amounts, counter.limit.unit, is_nothing)?;
                let amount = if holds(counter, held) { more(counter.limit.unit) } else { 0 };
                counter.admits_more(amount, held.turn, now, turn)
            });
            blocked = raised.map(|blocked| blocked.told(to));
        }
        if let Some(refusal) = blocked {
            unpin(&mut state, &others);
            drop(state);
            self.tell(&news);
            return Err(Box::new(refusal));
        }
        for &id in &held.accounts {
            for counter in state.held(id).counters.iter_mut().filter(|counter| holds(counter, held)) {
                news.urgent |= counter.take_more(more(counter.limit.unit), held.turn);
            }
            news.first_dirty |= state.mark_dirty(id);
        }
        let taken = beside.map(|(_, own)| self.take(&mut state, others, own, &mut news));
        drop(state);
        self.tell(&news);
        Ok(taken)
    }

    /// Takes the account of `subject` out of `held`.
    pub(super) fn split(&self, held: &mut Reservation, subject: Subject<'_>) -> SmallVec<[u32; 6]> {
        let state = self.lock();
        let known = state.known(subject.level, subject.name);
        let at = held.accounts.iter().position(|id| Some(*id) == known);
        at.map(|at| held.accounts.remove(at)).into_iter().collect()
    }

    /// The end of a reservation: its request counted or not, and what it took.
    pub(super) fn end(&self, held: &Reservation, requests: u64, actual: Amounts) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let mut news = News::default();
        let mut state = self.lock();
        for &id in &held.accounts {
            let shares = std::mem::take(&mut state.warn_percent);
            let account = state.held(id);
            account.in_flight -= 1;
            let (level, name) = (account.level, Arc::clone(&account.name));
            let mut reached = SmallVec::<[_; 2]>::new();
            let mut is_kept = false;
            for counter in &mut account.counters {
                let unit = counter.limit.unit;
                let reserved = if holds(counter, held) { held.reserved.of(unit).unwrap_or(0) } else { 0 };
                let took = match (unit, counter.limit.span) {
                    (Unit::Requests, Span::AtOnce) => 0,
                    (Unit::Requests, _) => requests,
                    (Unit::Tokens | Unit::Money, _) => actual.of(unit).unwrap_or(0),
                };
                news.urgent |= counter.settle(held.turn, reserved, took);
                is_kept |= matches!(counter.body, Body::Kept(_));
                if let Some(percent) = counter.warn(&shares)
                    && let Body::Kept(kept) = &counter.body
                {
                    reached.push((counter.limit, percent, kept.budget.current.spent));
                }
            }
            if is_kept {
                news.first_dirty |= state.mark_dirty(id);
            }
            state.warn_percent = shares;
            warnings.extend(reached.into_iter().map(|(limit, percent, spent)| Warning {
                level: state.levels[level as usize].name.clone(),
                name: (*name).into(),
                unit: limit.unit,
                span: limit.span,
                percent,
                spent,
                limit: limit.amount,
            }));
        }
        drop(state);
        self.tell(&news);
        for unit in [Unit::Tokens, Unit::Money] {
            if actual.of(unit).unwrap_or(0) > held.reserved.of(unit).unwrap_or(u64::MAX) {
                self.metrics.over.get_or_create(&UnitLabels { unit }).inc();
            }
        }
        warnings
    }

    pub(super) fn keep_warnings(&self, warnings: Vec<Warning>) {
        if warnings.is_empty() {
            return;
        }
        let mut kept = self.kept_warnings.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(warnings);
        let excess = kept.len().saturating_sub(MAX_KEPT_WARNINGS);
        kept.drain(..excess);
    }
}

impl Rates {
    fn meet(&mut self, unit: Unit, rate: Rate) {
        let place = match unit {
            Unit::Requests => &mut self.requests,
            Unit::Tokens => &mut self.tokens,
            Unit::Money => return,
        };
        if place.is_none_or(|known| rate.left < known.left) {
            *place = Some(rate);
        }
    }
}
