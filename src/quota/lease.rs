//! Shares of a budget that is one for many gateways, so that each can spend without asking: the gateway's side.
//!
//! The owner keeps a [`Pool`](super::Pool) and lends parts of it with an end. A gateway spends no more than its lease and
//! nothing after its end ([`Quota::grant`]), and tells what it used when the link allows ([`Quota::lease_reports`]). What was
//! told as final ([`Quota::close_leases`]) is final, whatever becomes of clocks and of requests that took more than they
//! reserved: that counts in the next lease.

use serde::{Deserialize, Serialize};

use super::budget::Budget;
use super::config::Limit;
use super::counter::{Body, Counter, Ends, Kept};
use super::reserve::Quota;
use super::state::{Account, State};
use super::unit::{Now, Span, Unit};

/// Names that leases may be for beyond the configuration's own.
const MAX_LEASED: usize = 65_536;

/// A part of a budget, lent to one gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// Its number: rises with each lease of the same level, name and unit, from 1.
    pub number: u64,
    /// The level, as in the configuration.
    pub level: String,
    /// The name at that level.
    pub name: String,
    /// What is lent.
    pub unit: Unit,
    /// How much of it.
    pub amount: u64,
    /// When it ends, milliseconds since 1970.
    pub ends_ms: i64,
}

/// What a gateway says about a lease. Repeating one, or sending an older one later, changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseReport {
    /// The lease's number.
    pub number: u64,
    /// The level.
    pub level: String,
    /// The name at that level.
    pub name: String,
    /// What was lent.
    pub unit: Unit,
    /// How much of it was used by requests that are over. More than was lent, if requests took more than they reserved.
    pub used: u64,
    /// It was too little for a request.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub short: bool,
    /// Nothing more will be used: it has ended or a newer one has come, and no request of it is under way.
    pub is_final: bool,
}

/// A lease as its gateway sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseStanding {
    /// What the owner is told.
    pub report: LeaseReport,
    /// What may be spent of it in all; 0 once it is closed.
    pub amount: u64,
    /// What requests under way have reserved of it.
    pub held: u64,
    /// Milliseconds to its end; 0 once it is closed.
    pub lasts_ms: u64,
}

/// Why a lease was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// A newer one, or the same, is here already.
    #[error("failed to take a lease: number {0} or a newer one is here already")]
    Old(u64),
    /// It ended before it came, or it has no number, or more than a row can hold.
    #[error("failed to take a lease: it has ended, or its number or amount is out of range")]
    Void,
    /// The one before the last is not settled yet, and two are kept at most.
    #[error("failed to take a lease: the one before the last is not settled yet, see its report")]
    TooSoon,
    /// More names than are kept.
    #[error("failed to take a lease: too many names have one")]
    TooMany,
}

impl Quota {
    /// True if the configuration says that this name spends nothing of this unit without a lease.
    pub fn is_leased(&self, level: &str, name: &str, unit: Unit) -> bool {
        let state = self.inner.lock();
        state.limits_of(level, name).iter().any(|limit| (limit.unit, limit.span) == (unit, Span::Lease))
    }

    /// Takes a lease: from now on it is the limit of its unit for its name. The one before it is closed; requests of it that
    /// are under way still count there.
    pub fn grant(&self, lease: &Lease, now: Now) -> Result<(), LeaseError> {
        if now.wall_ms >= lease.ends_ms {
            return Err(LeaseError::Void);
        }
        self.take(lease, lease.amount, Ends::at(lease.ends_ms, now), now)
    }

    /// Moves the end of a lease that is here; never nearer. False if it is not, or has been told as final: then it stays so.
    pub fn extend(&self, lease: &Lease, now: Now) -> bool {
        let mut state = self.inner.lock();
        let State { accounts, levels, .. } = &mut *state;
        let is_it =
            |account: &Account| *levels[account.level as usize].name == *lease.level && *account.name == *lease.name;
        let mut named = accounts.iter_mut().enumerate().filter_map(|(id, account)| Some((id, account.as_mut()?)));
        let Some((id, account)) = named.find(|(_, account)| is_it(account)) else { return false };
        let is_unit = |counter: &&mut Counter| (counter.limit.unit, counter.limit.span) == (lease.unit, Span::Lease);
        let Some(counter) = account.counters.iter_mut().find(is_unit) else { return false };
        let Body::Kept(kept) = &mut counter.body else { return false };
        let Kept { budget: Budget { current, .. }, ends, .. } = &mut **kept;
        if current.period.cast_unsigned() != lease.number || current.told.is_some() {
            return false;
        }
        let later = Ends::at(lease.ends_ms, now);
        if ends.is_none_or(|ends| ends.lasts_ms(now) < later.lasts_ms(now)) {
            *ends = Some(later);
            current.is_written = false;
            let is_first = state.mark_dirty(u32::try_from(id).expect("accounts are numbered by u32"));
            drop(state);
            if is_first {
                self.inner.dirty.notify_one();
            }
        }
        true
    }

    /// Uses up the number of a lease that came too late: it is told as final with nothing used, and cannot come again.
    pub fn decline(&self, lease: &Lease, now: Now) -> Result<(), LeaseError> {
        self.take(lease, 0, Ends::PASSED, now)
    }

    fn take(&self, lease: &Lease, amount: u64, ends: Ends, now: Now) -> Result<(), LeaseError> {
        let number = i64::try_from(lease.number).map_err(|_| LeaseError::Void)?;
        if number < 1 || amount > i64::MAX.cast_unsigned() {
            return Err(LeaseError::Void);
        }
        let mut state = self.inner.lock();
        if state.live() >= MAX_LEASED {
            return Err(LeaseError::TooMany);
        }
        state.next_turn();
        let id = state.account_or_new(&lease.level, &lease.name, now);
        let (turn, generation) = (state.turn, state.generation);
        let shares = state.warn_percent.clone();
        let account = state.held(id);
        let is_it = |counter: &Counter| (counter.limit.unit, counter.limit.span) == (lease.unit, Span::Lease);
        let at = account.counters.iter().position(is_it).unwrap_or_else(|| {
            let limit = Limit { unit: lease.unit, span: Span::Lease, amount: 0 };
            // Requests that are under way already count in it when they end.
            account.counters.push(Counter::new(limit, generation, now, turn));
            account.counters.len() - 1
        });
        let counter = &mut account.counters[at];
        let Body::Kept(kept) = &mut counter.body else { return Err(LeaseError::Void) };
        if number <= kept.budget.current.period {
            return Err(LeaseError::Old(lease.number));
        }
        if kept.budget.previous.as_ref().is_some_and(|previous| previous.period > 0) {
            return Err(LeaseError::TooSoon);
        }
        kept.budget.begin(number, turn.number);
        if kept.budget.previous.as_ref().is_some_and(|previous| previous.period == 0) {
            kept.budget.previous = None;
        }
        kept.ends = Some(ends);
        kept.is_short = false;
        kept.written = 0;
        counter.limit.amount = amount;
        counter.hush(&shares);
        let is_first = state.mark_dirty(id);
        self.inner.limits_something(&state);
        drop(state);
        if is_first {
            self.inner.dirty.notify_one();
        }
        Ok(())
    }

    /// What is known of all leases, those that are closed included until [`settled_lease`](Self::settled_lease).
    pub fn lease_reports(&self, now: Now) -> Vec<LeaseReport> {
        self.leases(now, false).into_iter().map(|standing| standing.report).collect()
    }

    /// The same, and what it calls final stays so: a lease that has ended does not come back with a clock that is set back,
    /// and what its requests take beyond their reservations counts in the next one. To be [flushed](Self::flush) before
    /// it is told.
    pub fn close_leases(&self, now: Now) -> Vec<LeaseReport> {
        self.leases(now, true).into_iter().map(|standing| standing.report).collect()
    }

    /// How all leases stand, the older of a name first.
    pub fn lease_standings(&self, now: Now) -> Vec<LeaseStanding> {
        self.leases(now, false)
    }

    fn leases(&self, now: Now, closes: bool) -> Vec<LeaseStanding> {
        let mut state = self.inner.lock();
        let (mut standings, mut closed) = (Vec::new(), Vec::new());
        let State { accounts, levels, .. } = &mut *state;
        for (id, account) in accounts.iter_mut().enumerate() {
            let Some(account) = account else { continue };
            for counter in account.counters.iter_mut().filter(|counter| counter.limit.span == Span::Lease) {
                let Body::Kept(kept) = &mut counter.body else { continue };
                let Kept { budget, ends, is_short, .. } = &mut **kept;
                let lasts_ms = ends.map_or(0, |ends| ends.lasts_ms(now));
                let earlier = budget.previous.as_deref_mut().map(|purse| (purse, 0));
                for (purse, lasts_ms) in earlier.into_iter().chain([(&mut budget.current, lasts_ms)]) {
                    if purse.period == 0 {
                        continue;
                    }
                    let is_final = purse.told.is_some() || (lasts_ms == 0 && purse.held == 0);
                    if closes && is_final && purse.told.is_none() {
                        purse.told = Some(purse.spent);
                        purse.is_written = false;
                        closed.push(u32::try_from(id).expect("accounts are numbered by u32"));
                    }
                    standings.push(LeaseStanding {
                        report: LeaseReport {
                            number: purse.period.cast_unsigned(),
                            level: levels[account.level as usize].name.to_string(),
                            name: account.name.to_string(),
                            unit: counter.limit.unit,
                            used: purse.told.unwrap_or(purse.spent),
                            short: lasts_ms > 0 && *is_short,
                            is_final,
                        },
                        amount: if lasts_ms == 0 { 0 } else { counter.limit.amount },
                        held: purse.held,
                        lasts_ms,
                    });
                }
                if budget.current.told.is_some() {
                    *ends = Some(Ends::PASSED);
                }
            }
        }
        let mut is_first = false;
        for id in closed {
            is_first |= state.mark_dirty(id);
        }
        drop(state);
        if is_first {
            self.inner.dirty.notify_one();
        }
        standings
    }

    /// The owner has taken a final report: the lease need not be told any more. One that has ended goes on refusing until a
    /// newer one comes.
    pub fn settled_lease(&self, report: &LeaseReport) {
        let mut state = self.inner.lock();
        let Some(at) = state.levels.iter().position(|level| *level.name == *report.level) else { return };
        let is_it = |account: &Account| account.level as usize == at && *account.name == *report.name;
        let Some(id) = state.accounts.iter().position(|account| account.as_ref().is_some_and(is_it)) else { return };
        let id = u32::try_from(id).expect("accounts are numbered by u32");
        let is_unit = |counter: &&mut Counter| (counter.limit.unit, counter.limit.span) == (report.unit, Span::Lease);
        let Some(counter) = state.held(id).counters.iter_mut().find(is_unit) else { return };
        let Body::Kept(kept) = &mut counter.body else { return };
        if kept
            .budget
            .previous
            .take_if(|purse| purse.period.cast_unsigned() == report.number && purse.held == 0)
            .is_some()
        {
            kept.budget.has_turned = true;
            if state.mark_dirty(id) {
                drop(state);
                self.inner.dirty.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::{Amounts, Config, Subject, Why};

    const TENANT: Subject<'static> = Subject { level: "tenant", name: "acme" };

    fn now(ms: u64) -> Now {
        Now { wall_ms: 1_700_000_000_000 + ms.cast_signed(), boot_ms: 5000 + ms }
    }

    fn lease(number: u64, amount: u64, ends_in_ms: u64) -> Lease {
        let ends_ms = now(ends_in_ms).wall_ms;
        Lease { number, level: "tenant".into(), name: "acme".into(), unit: Unit::Tokens, amount, ends_ms }
    }

    fn tokens(tokens: u64) -> Amounts {
        Amounts { tokens: Some(tokens), money: Some(0) }
    }

    fn leased() -> Quota {
        let config: Config = toml::from_str("[[limit]]\nlevel = 'tenant'\nleased = ['tokens']").unwrap();
        Quota::new(&config, now(0)).unwrap()
    }

    fn why(quota: &Quota, amount: u64, at_ms: u64) -> Why {
        quota.reserve(&[TENANT], tokens(amount), now(at_ms)).unwrap_err().why
    }

    #[test]
    fn nothing_is_spent_without_a_lease_beyond_it_or_after_its_end() {
        let quota = leased();
        assert_eq!(why(&quota, 1, 0), Why::NoLease);
        quota.reserve(&[TENANT], tokens(0), now(0)).expect("takes nothing of what is leased").refund();
        quota.grant(&lease(1, 100, 1000), now(0)).unwrap();
        let held = quota.reserve(&[TENANT], tokens(60), now(1)).unwrap();
        assert_eq!(why(&quota, 41, 2), Why::Exhausted);
        assert_eq!(why(&quota, 101, 2), Why::TooLarge);
        held.settle(tokens(10));
        quota.reserve(&[TENANT], tokens(90), now(999)).unwrap().refund();
        assert_eq!(why(&quota, 1, 1000), Why::NoLease);
        let set_back = Now { wall_ms: now(10).wall_ms, boot_ms: now(1000).boot_ms };
        let refusal = quota.reserve(&[TENANT], tokens(1), set_back).unwrap_err();
        assert_eq!(refusal.why, Why::NoLease, "setting the clock back does not lengthen a lease");
    }

    #[test]
    fn a_new_lease_closes_the_one_before_and_each_reports_its_own() {
        let quota = leased();
        quota.grant(&lease(7, 100, 1000), now(0)).unwrap();
        let held = quota.reserve(&[TENANT], tokens(60), now(1)).unwrap();
        quota.grant(&lease(8, 50, 2000), now(2)).unwrap();
        assert_eq!(quota.grant(&lease(8, 50, 2000), now(2)), Err(LeaseError::Old(8)));
        assert_eq!(quota.grant(&lease(9, 50, 2000), now(2)), Err(LeaseError::TooSoon));
        assert_eq!(quota.grant(&lease(9, 50, 2), now(2)), Err(LeaseError::Void));
        let newer = quota.reserve(&[TENANT], tokens(50), now(3)).unwrap();
        let told = |quota: &Quota| {
            let reports = quota.lease_reports(now(4));
            reports.iter().map(|report| (report.number, report.used, report.is_final)).collect::<Vec<_>>()
        };
        assert_eq!(told(&quota), [(7, 0, false), (8, 0, false)]);
        held.settle(tokens(70));
        newer.settle(tokens(20));
        assert_eq!(told(&quota), [(7, 70, true), (8, 20, false)]);
        quota.settled_lease(&quota.lease_reports(now(4))[0]);
        assert_eq!(told(&quota), [(8, 20, false)]);
        assert_eq!(quota.lease_reports(now(2000))[0].used, 20);
        assert!(quota.lease_reports(now(2000))[0].is_final);
    }
    #[test]
    fn what_was_told_as_final_stays_so_and_what_comes_late_counts_in_the_next_lease() {
        let quota = leased();
        quota.grant(&lease(1, 100, 1000), now(0)).unwrap();
        quota.reserve(&[TENANT], tokens(30), now(1)).unwrap().settle(tokens(30));
        // It reserves nothing, and says at its end what it took.
        let local = quota.reserve(&[TENANT], tokens(0), now(2)).unwrap();
        let told = |quota: &Quota, at_ms| {
            let reports = quota.close_leases(now(at_ms));
            reports.iter().map(|report| (report.number, report.used, report.is_final)).collect::<Vec<_>>()
        };
        assert_eq!(told(&quota, 3), [(1, 30, false)]);
        assert_eq!(told(&quota, 1000), [(1, 30, true)]);
        let set_back = Now { wall_ms: now(5).wall_ms, boot_ms: now(5).boot_ms };
        assert_eq!(quota.reserve(&[TENANT], tokens(1), set_back).unwrap_err().why, Why::NoLease);
        local.settle(tokens(7));
        assert_eq!(told(&quota, 1001), [(1, 30, true)]);
        quota.grant(&lease(2, 50, 9000), now(1002)).unwrap();
        assert_eq!(told(&quota, 1003), [(1, 30, true), (2, 7, false)]);
        assert_eq!(why(&quota, 44, 1004), Why::Exhausted);
        quota.reserve(&[TENANT], tokens(43), now(1004)).unwrap().refund();
    }

    #[test]
    fn a_lease_that_is_here_may_last_longer_and_one_that_was_told_as_final_may_not() {
        let quota = leased();
        assert!(!quota.extend(&lease(1, 100, 3000), now(0)), "not here");
        quota.grant(&lease(1, 100, 1000), now(0)).unwrap();
        quota.reserve(&[TENANT], tokens(30), now(1)).unwrap().settle(tokens(30));
        assert!(quota.extend(&lease(1, 100, 3000), now(1)) && quota.extend(&lease(1, 100, 2000), now(1)));
        assert!(!quota.extend(&lease(2, 100, 3000), now(1)));
        assert_eq!(why(&quota, 71, 2999), Why::Exhausted);
        assert!(quota.lease_reports(now(2999))[0].short, "its owner hears that it was too little");
        quota.close_leases(now(3000));
        assert!(!quota.extend(&lease(1, 100, 9000), now(3000)));
        assert_eq!(why(&quota, 1, 3001), Why::NoLease);
    }

    #[test]
    fn a_lease_that_came_too_late_is_declined_once_and_for_all() {
        let quota = leased();
        quota.grant(&lease(1, 100, 1000), now(0)).unwrap();
        assert_eq!(quota.grant(&lease(2, 100, 5), now(6)), Err(LeaseError::Void));
        quota.decline(&lease(2, 100, 5), now(6)).unwrap();
        assert_eq!(why(&quota, 1, 7), Why::NoLease);
        let reports = quota.close_leases(now(7));
        assert!(reports.iter().all(|report| report.is_final && report.used == 0), "{reports:?}");
        assert_eq!(quota.grant(&lease(2, 100, 9000), now(8)), Err(LeaseError::Old(2)));
        reports.iter().for_each(|report| quota.settled_lease(report));
        quota.grant(&lease(3, 100, 9000), now(8)).unwrap();
        quota.reserve(&[TENANT], tokens(100), now(9)).unwrap().refund();
        assert!(quota.is_leased("tenant", "acme", Unit::Tokens) && !quota.is_leased("tenant", "acme", Unit::Money));
        assert!(!quota.is_leased("key", "acme", Unit::Tokens));
    }
}
