//! The arithmetic of one budget: its pool, what is lent of it to whom, and what is still to be said.
//!
//! A lease is renewed in one of two ways. While there is something left in it, it is made to last longer under the same
//! number: nothing moves. When it is nearly used up, a larger one takes its place under the next number, and what was left
//! of it returns. Never a smaller one: the gateway would have less than before until its report has come.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::Name;
use crate::flows::lease::{Lent, MAX_SETTLED};
use crate::quota::{LeaseReport, Pool, Reported};

/// Pools of periods that are over, for what is still told about them.
const EARLIER_POOLS: usize = 2;
/// Forgotten leases of one gateway that are shown.
const MAX_FORGOTTEN: usize = 16;

/// One budget as its owner knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Book {
    period: i64,
    /// What was lent of this period is not known: all of it counts as used.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    unknown: bool,
    pools: BTreeMap<i64, Pool>,
    gateways: BTreeMap<Name, Account>,
}

/// What one gateway has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Account {
    /// Without a final report, oldest first; two at most.
    pub(super) loans: Vec<Loan>,
    /// Closed, and the gateway does not know yet that it may forget them.
    pub(super) settled: Vec<u64>,
    /// Taken, and not known there any more: they count as used.
    pub(super) forgotten: Vec<Loan>,
}

/// A part of the budget at a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loan {
    /// Its number.
    pub number: u64,
    /// The period that it counts in.
    pub period: i64,
    /// How much was lent.
    pub amount: u64,
    /// Told so far.
    pub used: u64,
    /// When it ends, milliseconds since 1970.
    pub ends_ms: i64,
    /// How long it lasts at most from its arrival.
    pub lasts_ms: u64,
    /// The gateway has it on its disk.
    pub taken: bool,
    /// The end that the gateway is known to have heard of.
    pub heard_ms: i64,
    /// It was too little for a request.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub short: bool,
}

impl Loan {
    fn is_scarce(&self) -> bool {
        self.short || u128::from(self.used) * 4 >= u128::from(self.amount) * 3
    }

    fn rest(&self) -> u64 {
        self.amount.saturating_sub(self.used)
    }
}

/// What a lease is made by, now.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Now, milliseconds since 1970.
    pub now_ms: i64,
    /// When a lease of this period ends at the latest.
    pub latest_ms: i64,
    /// How long a lease lasts.
    pub lease_ms: i64,
    /// Gateways that share the budget.
    pub sharers: u64,
    /// How much of what is left is lent at once, all sharers together, in percent.
    pub lend_percent: u64,
    /// The smallest lease while there is so much.
    pub smallest: u64,
}

/// What a report changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Nothing.
    Nothing,
    /// It is noted; it need not be on the disk yet.
    Noted,
    /// A lease is closed, and what it did not use is in the pool again.
    Closed {
        /// Given back.
        returned: u64,
    },
    /// No such lease was ever given here.
    Stranger,
}

impl Book {
    /// A budget of `total` of which nothing is lent. Nothing is known of earlier ones, so the first lease's number is above
    /// all that a program with this clock has given so far.
    pub fn new(total: u64, period: i64, now_ms: i64) -> Self {
        let first = now_ms.max(1).cast_unsigned();
        Self { period, unknown: false, pools: [(period, Pool::new(total, first))].into(), gateways: BTreeMap::new() }
    }

    /// The same, where something was lent of this period and nobody knows what: nothing is lent before the next one.
    pub fn of_which_nothing_is_known(total: u64, period: i64, now_ms: i64) -> Self {
        Self { unknown: true, ..Self::new(total, period, now_ms) }
    }

    /// The pool of now.
    pub(super) fn pool(&self) -> &Pool {
        self.pools.get(&self.period).expect("each period's pool is made with it")
    }

    pub(super) fn period(&self) -> i64 {
        self.period
    }

    pub(super) fn is_unknown(&self) -> bool {
        self.unknown
    }

    pub(super) fn accounts(&self) -> &BTreeMap<Name, Account> {
        &self.gateways
    }

    /// Follows calendar and configuration: a new pool for each period. True if something changed. A calendar that goes
    /// back begins nothing again.
    pub fn turn_to(&mut self, period: i64, total: u64) -> bool {
        if period > self.period {
            let next = self.pool().next();
            self.pools.insert(period, Pool::new(total, next));
            (self.period, self.unknown) = (period, false);
            while self.pools.len() > 1 + EARLIER_POOLS {
                self.pools.pop_first();
            }
            let known = &self.pools;
            for account in self.gateways.values_mut() {
                account.loans.retain(|loan| known.contains_key(&loan.period));
                account.forgotten.retain(|loan| loan.period == period);
            }
            return true;
        }
        let pool = self.pools.get_mut(&self.period).expect("each period's pool is made with it");
        let changed = pool.total() != total;
        pool.resize(total);
        changed
    }

    /// Lends `gateway` what it should have now, or makes its lease last longer. True if something is to be said, once it is
    /// on the disk.
    pub fn lend(&mut self, gateway: &Name, terms: &Terms) -> bool {
        let (is_dry, share) = (self.is_dry(terms), self.share(terms));
        // Looked for only where it matters: there may be a thousand of them.
        let is_wanted_elsewhere = is_dry
            && self.gateways.iter().any(|(name, other)| {
                name != gateway && other.loans.last().is_none_or(|loan| loan.taken && loan.is_scarce())
            });
        let period = self.period;
        let account = self.gateways.entry(gateway.clone()).or_default();
        let ends_ms = terms.now_ms.saturating_add(terms.lease_ms).min(terms.latest_ms);
        let has_two = account.loans.len() > 1;
        if let Some(newest) = account.loans.last_mut() {
            if !newest.taken || newest.heard_ms != newest.ends_ms {
                return false;
            }
            let is_replaceable = newest.period < period || (newest.is_scarce() && share > newest.rest());
            if has_two || !is_replaceable {
                let is_current = newest.period == period && newest.ends_ms > terms.now_ms;
                let is_half_over = newest.ends_ms.saturating_sub(terms.now_ms) <= terms.lease_ms / 2;
                let gains_ms = ends_ms.saturating_sub(newest.ends_ms);
                // What it does not need goes back to who does: it ends, and both have their share of the rest.
                let is_needed = newest.rest() > 0 && !is_wanted_elsewhere;
                if is_current
                    && is_half_over
                    && is_needed
                    && (gains_ms >= terms.lease_ms / 4 || ends_ms == terms.latest_ms)
                {
                    newest.ends_ms = newest.ends_ms.max(ends_ms);
                    return gains_ms > 0;
                }
                return false;
            }
        }
        if self.unknown || share == 0 || ends_ms <= terms.now_ms {
            return false;
        }
        let pool = self.pools.get_mut(&period).expect("each period's pool is made with it");
        let Some((number, amount)) = pool.lend(share, 1) else { return false };
        let lasts_ms = ends_ms.saturating_sub(terms.now_ms).cast_unsigned();
        let account = self.gateways.entry(gateway.clone()).or_default();
        account.loans.push(Loan {
            number,
            period,
            amount,
            used: 0,
            ends_ms,
            lasts_ms,
            taken: false,
            heard_ms: 0,
            short: false,
        });
        true
    }

    fn share(&self, terms: &Terms) -> u64 {
        let left = u128::from(self.pool().left());
        let share = (left * u128::from(terms.lend_percent)).div_ceil(100 * u128::from(terms.sharers.max(1)));
        u64::try_from(share.max(terms.smallest.into()).min(left)).unwrap_or(u64::MAX)
    }

    fn is_dry(&self, terms: &Terms) -> bool {
        self.pool().left() < terms.smallest.max(1)
    }

    /// What is to be said to `gateway`, if anything: a lease that it may not know, and those that it may forget.
    pub fn to_say(&self, gateway: &Name, lease_ms: i64) -> (Option<Lent>, Vec<u64>) {
        let Some(account) = self.gateways.get(gateway) else { return (None, Vec::new()) };
        let unheard = account.loans.last().filter(|loan| !loan.taken || loan.heard_ms != loan.ends_ms);
        let lent = unheard.map(|loan| Lent {
            number: loan.number,
            amount: loan.amount,
            ends_ms: loan.ends_ms,
            lasts_ms: if loan.taken { lease_ms.max(0).cast_unsigned() } else { loan.lasts_ms },
            extends: loan.taken,
        });
        (lent, account.settled.clone())
    }

    /// `gateway` has this lease, with this end, on its disk. True if that is news.
    pub fn taken(&mut self, gateway: &Name, number: u64, ends_ms: i64) -> bool {
        let account = self.gateways.get_mut(gateway);
        let loan = account.and_then(|account| account.loans.iter_mut().find(|loan| loan.number == number));
        let Some(loan) = loan else { return false };
        let news = !loan.taken || loan.heard_ms != ends_ms;
        (loan.taken, loan.heard_ms) = (true, ends_ms);
        news
    }

    /// What `gateway` says about one of its leases.
    pub fn heard(&mut self, gateway: &Name, report: &LeaseReport) -> Heard {
        let next = self.pool().next();
        let account = self.gateways.entry(gateway.clone()).or_default();
        let Account { loans, settled, forgotten } = account;
        let number = report.number;
        let Some(loan) = loans.iter_mut().chain(forgotten.iter_mut()).find(|loan| loan.number == number) else {
            if number >= next {
                return Heard::Stranger;
            }
            // It was closed, or nobody remembers its period. A number that is another gateway's is not settled for it.
            if report.is_final && !settled.contains(&number) && settled.len() < MAX_SETTLED {
                settled.push(number);
                return Heard::Noted;
            }
            return Heard::Nothing;
        };
        let before = (loan.taken, loan.used, loan.short);
        loan.taken = true;
        loan.short |= report.short;
        loan.used = loan.used.max(report.used);
        let changed = before != (loan.taken, loan.used, loan.short);
        let Some(pool) = self.pools.get_mut(&loan.period) else { return Heard::Nothing };
        match pool.report(number, report.used, report.is_final) {
            Reported::Closed { returned } => {
                loans.retain(|loan| loan.number != number);
                forgotten.retain(|loan| loan.number != number);
                if settled.len() < MAX_SETTLED {
                    settled.push(number);
                }
                Heard::Closed { returned }
            }
            Reported::Noted if changed => Heard::Noted,
            Reported::Noted | Reported::Known | Reported::Stranger => Heard::Nothing,
        }
    }

    /// What an answer of `gateway` does not speak of: settled leases are forgotten there, as they may be. One that it had
    /// taken should be there: it counts as used as a whole. `is_late` if the answer is to a question from before it was
    /// known as taken. Returns what was forgotten that should not have been.
    pub fn missing(&mut self, gateway: &Name, reports: &[LeaseReport], is_late: bool) -> Vec<Loan> {
        let Some(account) = self.gateways.get_mut(gateway) else { return Vec::new() };
        let is_told = |number: u64| reports.iter().any(|report| report.number == number);
        account.settled.retain(|&number| is_told(number));
        if is_late {
            return Vec::new();
        }
        let is_gone = |loan: &Loan| loan.taken && !is_told(loan.number);
        let gone: Vec<Loan> = account.loans.iter().filter(|loan| is_gone(loan)).cloned().collect();
        account.loans.retain(|loan| !is_gone(loan));
        account.forgotten.extend(gone.iter().cloned());
        let excess = account.forgotten.len().saturating_sub(MAX_FORGOTTEN);
        account.forgotten.drain(..excess);
        gone
    }
}
