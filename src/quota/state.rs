//! Everything that is counted, under one lock: levels with their rules, names with their counters, the calendar.

use std::sync::Arc;

use super::calendar::{Calendar, Day};
use super::config::{Config, Limit, WhenUnknown};
use super::counter::{Body, Counter, Turn};
use super::unit::{Now, Span};
use crate::base::{Digest, Map};

/// Longer names are counted under their digest.
const MAX_NAME_BYTES: usize = 256;
/// A day that has begun is not taken back for less: threads read the clock before they wait for the lock, and a time
/// service moves it a little.
const SLACK_MS: i64 = 10_000;
/// Names whose rows wait to be removed. The rows of more than these stay, which costs room and nothing else.
const MAX_GONE: usize = 65_536;
/// Names are looked through for idle ones at most so often.
const SWEEP_MS: u64 = 1000;

/// A name and its counters.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) level: u32,
    pub(super) name: Arc<str>,
    /// Reservations that hold its number.
    pub(super) in_flight: u32,
    /// Waits in `State::dirty`.
    pub(super) is_dirty: bool,
    pub(super) counters: Vec<Counter>,
}

#[derive(Debug)]
pub(super) struct Level {
    pub(super) name: Box<str>,
    every: Option<Arc<[Limit]>>,
    named: Map<Box<str>, Arc<[Limit]>>,
    accounts: Map<Arc<str>, u32>,
}

impl Level {
    fn new(name: &str) -> Self {
        Self { name: name.into(), every: None, named: Map::default(), accounts: Map::default() }
    }

    fn rules(&self, name: &str) -> Option<&Arc<[Limit]>> {
        self.named.get(name).or(self.every.as_ref()).filter(|limits| !limits.is_empty())
    }
}

/// No number is free, and no name is idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany;

#[derive(Debug)]
pub(super) struct State {
    calendar: Calendar,
    today: Day,
    pub(super) turn: Turn,
    pub(super) levels: Vec<Level>,
    pub(super) accounts: Vec<Option<Account>>,
    free: Vec<u32>,
    max_subjects: usize,
    pub(super) generation: u32,
    pub(super) dirty: Vec<u32>,
    /// Names whose rows are of no use any more.
    pub(super) gone: Vec<(Box<str>, Arc<str>)>,
    swept_ms: Option<u64>,
    /// Names that made room for others, until somebody counts them.
    pub(super) forgotten: u64,
    pub(super) warn_percent: Box<[u8]>,
    pub(super) unknown_is_nothing: bool,
}

impl State {
    pub(super) fn new(config: &Config, calendar: Calendar, now: Now) -> Self {
        let today = calendar.day_of(now.wall_ms);
        let mut state = Self {
            calendar,
            today,
            turn: turn_of(today, 1),
            levels: Vec::new(),
            accounts: Vec::new(),
            free: Vec::new(),
            max_subjects: 0,
            generation: 0,
            dirty: Vec::new(),
            gone: Vec::new(),
            swept_ms: None,
            forgotten: 0,
            warn_percent: Box::default(),
            unknown_is_nothing: false,
        };
        state.set_rules(config);
        state
    }

    fn set_rules(&mut self, config: &Config) {
        self.max_subjects = config.max_subjects;
        self.warn_percent = config.warn_percent.clone().into();
        self.unknown_is_nothing = config.when_unknown == WhenUnknown::Admit;
        for level in &mut self.levels {
            level.every = None;
            level.named.clear();
        }
        for entry in &config.limit {
            let at = self.level_or_new(&entry.level);
            let limits: Arc<[Limit]> = entry.limits().into();
            match &entry.name {
                Some(name) => drop(self.levels[at].named.insert(name.as_str().into(), limits)),
                None => self.levels[at].every = Some(limits),
            }
        }
    }

    /// Other rules and perhaps another calendar; counts of limits that stay, stay.
    pub(super) fn reload(&mut self, config: &Config, calendar: Calendar, now: Now) {
        self.calendar = calendar;
        self.generation = self.generation.wrapping_add(1);
        self.set_rules(config);
        self.today = self.calendar.day_of(now.wall_ms);
        self.turn = turn_of(self.today, self.turn.number.wrapping_add(1));
        let (generation, turn) = (self.generation, self.turn);
        for account in self.accounts.iter_mut().flatten() {
            let level = &self.levels[account.level as usize];
            let limits = level.rules(&account.name).map(|limits| limits.to_vec()).unwrap_or_default();
            let mut before = std::mem::take(&mut account.counters);
            for limit in limits {
                let same = |counter: &Counter| (counter.limit.unit, counter.limit.span) == (limit.unit, limit.span);
                match before.iter().position(same) {
                    Some(at) => {
                        let mut counter = before.swap_remove(at);
                        if limit.span != Span::Lease {
                            counter.bring_to(now, turn);
                            counter.resize(limit.amount);
                            counter.hush(&self.warn_percent);
                        }
                        account.counters.push(counter);
                    }
                    None => account.counters.push(Counter::new(limit, generation, now, turn)),
                }
            }
            // A lease is the cloud's word, not the configuration's.
            account.counters.extend(before.into_iter().filter(|counter| !counter.is_idle() && is_granted(counter)));
        }
    }

    /// True if anything is limited at all.
    pub(super) fn is_limiting(&self) -> bool {
        let has_rules = |level: &Level| level.every.is_some() || !level.named.is_empty() || !level.accounts.is_empty();
        self.levels.iter().any(has_rules)
    }

    /// Follows the wall clock over midnight, in either direction. True if it went back.
    pub(super) fn turn_to(&mut self, now: Now) -> bool {
        if (self.today.starts_ms.saturating_sub(SLACK_MS)..self.today.ends_ms).contains(&now.wall_ms) {
            return false;
        }
        let before = self.today.number;
        self.today = self.calendar.day_of(now.wall_ms);
        self.turn = turn_of(self.today, self.turn.number.wrapping_add(1));
        self.today.number < before
    }

    pub(super) fn day_of(&self, wall_ms: i64) -> i32 {
        if (self.today.starts_ms..self.today.ends_ms).contains(&wall_ms) {
            return self.today.number;
        }
        self.calendar.day_of(wall_ms).number
    }

    /// A reservation or a lease from here on is told apart from those before.
    pub(super) fn next_turn(&mut self) {
        self.turn.number = self.turn.number.wrapping_add(1);
    }

    fn level_or_new(&mut self, name: &str) -> usize {
        if let Some(at) = self.levels.iter().position(|level| &*level.name == name) {
            return at;
        }
        self.levels.push(Level::new(name));
        self.levels.len() - 1
    }

    /// Whether a name has an entry of its own that limits something.
    pub(super) fn names(&self, level: &str, name: &str) -> bool {
        let found = self.levels.iter().find(|known| &*known.name == level);
        found.and_then(|level| level.named.get(name)).is_some_and(|limits| !limits.is_empty())
    }

    /// The number of a name that is counted now.
    pub(super) fn known(&self, level: &str, name: &str) -> Option<u32> {
        let level = self.levels.iter().find(|known| &*known.name == level)?;
        if name.len() > MAX_NAME_BYTES {
            return level.accounts.get(&*Digest::of(name.as_bytes()).to_string()).copied();
        }
        level.accounts.get(name).copied()
    }

    /// The number of a name that has limits; None if it has none.
    pub(super) fn account(&mut self, level: &str, name: &str, now: Now) -> Result<Option<u32>, TooMany> {
        let Some(at) = self.levels.iter().position(|known| &*known.name == level) else { return Ok(None) };
        if name.len() > MAX_NAME_BYTES {
            return self.account_at(at, &Digest::of(name.as_bytes()).to_string(), now);
        }
        self.account_at(at, name, now)
    }

    fn account_at(&mut self, at: usize, name: &str, now: Now) -> Result<Option<u32>, TooMany> {
        let level = &self.levels[at];
        if let Some(&id) = level.accounts.get(name) {
            return Ok(Some(id));
        }
        let Some(limits) = level.rules(name).map(Arc::clone) else { return Ok(None) };
        if self.live() >= self.max_subjects {
            self.sweep(now);
            if self.live() >= self.max_subjects {
                return Err(TooMany);
            }
        }
        Ok(Some(self.add(at, name, &limits, now)))
    }

    /// The number of a name, whether it has limits or not and however many there are: for what was kept and granted.
    pub(super) fn account_or_new(&mut self, level: &str, name: &str, now: Now) -> u32 {
        let at = self.level_or_new(level);
        if let Some(&id) = self.levels[at].accounts.get(name) {
            return id;
        }
        let limits = self.levels[at].rules(name).map(Arc::clone).unwrap_or_default();
        self.add(at, name, &limits, now)
    }

    /// True if the rules have a word on this limit of this name.
    pub(super) fn limits_of(&self, level: &str, name: &str) -> &[Limit] {
        let found = self.levels.iter().find(|known| &*known.name == level);
        found.and_then(|level| level.rules(name)).map_or(&[], |limits| limits)
    }

    fn add(&mut self, at: usize, name: &str, limits: &[Limit], now: Now) -> u32 {
        let (generation, turn) = (self.generation, self.turn);
        let name: Arc<str> = name.into();
        let account = Account {
            level: u32::try_from(at).expect("levels are few"),
            name: Arc::clone(&name),
            in_flight: 0,
            is_dirty: false,
            counters: limits.iter().map(|limit| Counter::new(*limit, generation, now, turn)).collect(),
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.accounts[id as usize] = Some(account);
                id
            }
            None => {
                self.accounts.push(Some(account));
                u32::try_from(self.accounts.len() - 1).expect("subjects are bounded far below")
            }
        };
        self.levels[at].accounts.insert(name, id);
        id
    }

    pub(super) fn live(&self) -> usize {
        self.accounts.len() - self.free.len()
    }

    /// Forgets names whose counts would be the same if they came back.
    fn sweep(&mut self, now: Now) {
        if self.swept_ms.is_some_and(|swept_ms| now.boot_ms.saturating_sub(swept_ms) < SWEEP_MS) {
            return;
        }
        self.swept_ms = Some(now.boot_ms);
        for id in 0..self.accounts.len() {
            let Some(account) = &mut self.accounts[id] else { continue };
            for counter in &mut account.counters {
                counter.bring_to(now, self.turn);
            }
            if account.in_flight > 0 || account.is_dirty || !account.counters.iter().all(Counter::is_idle) {
                continue;
            }
            let account = self.accounts[id].take().expect("looked at just above");
            let level = &mut self.levels[account.level as usize];
            level.accounts.remove(&account.name);
            let is_kept = account.counters.iter().any(|counter| matches!(counter.body, Body::Kept(_)));
            if is_kept && self.gone.len() < MAX_GONE {
                self.gone.push((level.name.clone(), account.name));
            }
            self.free.push(u32::try_from(id).expect("came from this list"));
            self.forgotten += 1;
        }
    }

    /// The account behind a number that somebody holds.
    pub(super) fn held(&mut self, id: u32) -> &mut Account {
        self.accounts[id as usize].as_mut().expect("an account is not forgotten while a request holds it")
    }

    /// The disk must hear of it. True if nothing waited before.
    pub(super) fn mark_dirty(&mut self, id: u32) -> bool {
        let Some(account) = self.accounts.get_mut(id as usize).and_then(Option::as_mut) else { return false };
        if std::mem::replace(&mut account.is_dirty, true) {
            return false;
        }
        self.dirty.push(id);
        self.dirty.len() == 1
    }
}

fn is_granted(counter: &Counter) -> bool {
    counter.limit.span == Span::Lease
}

fn turn_of(day: Day, number: u32) -> Turn {
    Turn {
        number,
        day: day.number.into(),
        month: day.month.into(),
        day_ends_ms: day.ends_ms,
        month_ends_ms: day.month_ends_ms,
    }
}
