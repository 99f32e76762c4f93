//! Shares of a budget that is one for many gateways, so that each can spend without asking.
//!
//! The owner keeps a [`Pool`] and lends parts of it with an end. A gateway spends no more than its lease and nothing after
//! its end ([`Quota::grant`]), and tells what it used when the link allows ([`Quota::lease_reports`]). A part that was lent
//! stays taken until its report has come, however long that takes: all gateways together can never admit more than the
//! pool has, whatever is lost or repeated on the way.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::config::Limit;
use super::counter::{Body, Counter, Ends};
use super::reserve::Quota;
use super::unit::{Now, Span, Unit};

/// Leases of one pool that are out at the same time.
const MAX_OUT: usize = 65_536;
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
    /// Nothing more will be used: it has ended or a newer one has come, and no request of it is under way.
    pub is_final: bool,
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
    /// Takes a lease: from now on it is the limit of its unit for its name. The one before it is closed; requests of it that
    /// are under way still count there.
    pub fn grant(&self, lease: &Lease, now: Now) -> Result<(), LeaseError> {
        let number = i64::try_from(lease.number).map_err(|_| LeaseError::Void)?;
        if number < 1 || lease.amount > i64::MAX.cast_unsigned() || now.wall_ms >= lease.ends_ms {
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
        kept.ends = Some(Ends::at(lease.ends_ms, now));
        kept.written = 0;
        counter.limit.amount = lease.amount;
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
        let state = self.inner.lock();
        let mut reports = Vec::new();
        for account in state.accounts.iter().flatten() {
            for counter in &account.counters {
                let Body::Kept(kept) = &counter.body else { continue };
                if counter.limit.span != Span::Lease {
                    continue;
                }
                let is_over = kept.ends.is_none_or(|ends| ends.is_over(now));
                let purses =
                    [kept.budget.previous.as_deref().map(|purse| (purse, true)), Some((&kept.budget.current, is_over))];
                for (purse, is_over) in purses.into_iter().flatten().filter(|(purse, _)| purse.period > 0) {
                    reports.push(LeaseReport {
                        number: purse.period.cast_unsigned(),
                        level: state.levels[account.level as usize].name.to_string(),
                        name: account.name.to_string(),
                        unit: counter.limit.unit,
                        used: purse.spent,
                        is_final: is_over && purse.held == 0,
                    });
                }
            }
        }
        reports
    }

    /// The owner has taken a final report: the lease need not be told any more. One that has ended goes on refusing until a
    /// newer one comes.
    pub fn settled_lease(&self, report: &LeaseReport) {
        let mut state = self.inner.lock();
        let Some(at) = state.levels.iter().position(|level| *level.name == *report.level) else { return };
        let is_it = |account: &super::state::Account| account.level as usize == at && *account.name == *report.name;
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

/// The owner's side: one budget for one period, and what is lent of it. Plain data: keep it where the owner keeps things.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    total: u64,
    /// Told in final reports.
    spent: u64,
    next: u64,
    out: BTreeMap<u64, Out>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Out {
    amount: u64,
    /// Told so far.
    used: u64,
}

/// What a report changed in a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reported {
    /// It is noted; the lease is still out.
    Noted,
    /// The lease is closed; what it did not use is in the pool again.
    Closed {
        /// Given back.
        returned: u64,
    },
    /// It was closed before.
    Known,
    /// No such lease was ever given.
    Stranger,
}

impl Pool {
    /// A budget of `total`, none of it lent, whose first lease gets the number `first`: one more than the last of the
    /// period before, so that numbers rise for ever.
    pub fn new(total: u64, first: u64) -> Self {
        Self { total, spent: 0, next: first.max(1), out: BTreeMap::new() }
    }

    /// What can still be lent.
    pub fn left(&self) -> u64 {
        let out = self.out.values().fold(0_u64, |sum, lease| sum.saturating_add(lease.amount.max(lease.used)));
        self.total.saturating_sub(self.spent).saturating_sub(out)
    }

    /// What was used as far as has been told.
    pub fn used(&self) -> u64 {
        self.out.values().fold(self.spent, |sum, lease| sum.saturating_add(lease.used))
    }

    /// Lends up to `wanted`, no more than an even share of what is left among `sharers` gateways: the lease's number and
    /// amount. None if nothing is left or 65,536 leases are out.
    pub fn lend(&mut self, wanted: u64, sharers: u64) -> Option<(u64, u64)> {
        let left = self.left();
        // The last bits go out whole rather than as nothing.
        let amount = wanted.min(left.div_ceil(sharers.max(1)));
        if amount == 0 || self.out.len() >= MAX_OUT {
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.out.insert(number, Out { amount, used: 0 });
        Some((number, amount))
    }

    /// Takes what a gateway says about lease `number`.
    pub fn report(&mut self, number: u64, used: u64, is_final: bool) -> Reported {
        let Some(lease) = self.out.get_mut(&number) else {
            return if number < self.next { Reported::Known } else { Reported::Stranger };
        };
        // Reports may overtake each other; what is used never falls.
        lease.used = lease.used.max(used);
        if !is_final {
            return Reported::Noted;
        }
        let Out { amount, used } = *lease;
        self.out.remove(&number);
        self.spent = self.spent.saturating_add(used);
        Reported::Closed { returned: amount.saturating_sub(used) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::{Amounts, Config, Subject, Why};
    use proptest::prelude::{ProptestConfig, proptest};

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
    fn a_part_that_was_lent_is_taken_until_its_report_comes_and_repeats_change_nothing() {
        let mut pool = Pool::new(100, 1);
        assert_eq!(pool.lend(40, 1), Some((1, 40)));
        assert_eq!(pool.lend(100, 2), Some((2, 30)));
        assert_eq!(pool.left(), 30);
        assert_eq!(pool.report(1, 10, false), Reported::Noted);
        assert_eq!((pool.left(), pool.used()), (30, 10), "it may use the rest yet");
        assert_eq!(pool.report(1, 25, true), Reported::Closed { returned: 15 });
        assert_eq!(pool.report(1, 25, true), Reported::Known);
        assert_eq!(pool.report(1, 5, false), Reported::Known);
        assert_eq!(pool.report(3, 5, true), Reported::Stranger);
        assert_eq!((pool.left(), pool.used()), (45, 25));
        assert_eq!(pool.report(2, 50, true), Reported::Closed { returned: 0 });
        assert_eq!((pool.left(), pool.used()), (25, 75), "more than was lent is told as it was");
        let kept: Pool = serde_json::from_str(&serde_json::to_string(&pool).unwrap()).unwrap();
        assert_eq!(kept, pool);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// Gateways that keep to their leases, a link that loses, repeats and reorders what they say.
        #[test]
        fn gateways_together_never_use_more_than_the_pool(
            total in 0_u64..1000,
            steps in proptest::collection::vec((0_u8..4, 0_usize..4, 0_u64..300), 0..80),
        ) {
            let mut pool = Pool::new(total, 1);
            let mut leases: Vec<(u64, u64, u64, bool)> = Vec::new();
            for (what, who, amount) in steps {
                match what {
                    0 => leases.extend(pool.lend(amount, who as u64).map(|(number, amount)| (number, amount, 0, false))),
                    1 => if let Some(lease) = leases.iter_mut().rev().nth(who).filter(|lease| !lease.3) {
                        lease.2 = lease.1.min(lease.2 + amount);
                    },
                    _ => if let Some(lease) = leases.iter_mut().rev().nth(who) {
                        lease.3 |= what == 3;
                        pool.report(lease.0, lease.2, lease.3);
                    },
                }
                let used: u64 = leases.iter().map(|lease| lease.2).sum();
                let could: u64 = leases.iter().map(|lease| if lease.3 { lease.2 } else { lease.1 }).sum();
                assert!(used <= could && could + pool.left() <= total, "{used} {could} {} {total}", pool.left());
            }
        }
    }
}
