//! Shares of a budget that is one for many gateways: the owner's side.
//!
//! A part that was lent stays taken until its final report has come, however long that takes: all gateways together can
//! never admit more than the pool has, whatever is lost or repeated on the way.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Leases of one pool that are out at the same time.
const MAX_OUT: usize = 65_536;

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

    /// What the budget has for its period.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Another budget for the same period; what was used and lent stays so.
    pub fn resize(&mut self, total: u64) {
        self.total = total;
    }

    /// The number that the next lease will have.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// What is lent and not told as used.
    pub fn out(&self) -> u64 {
        self.out.values().fold(0_u64, |sum, lease| sum.saturating_add(lease.amount.saturating_sub(lease.used)))
    }

    /// Leases without a final report.
    pub fn leases(&self) -> usize {
        self.out.len()
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
    use proptest::prelude::{ProptestConfig, proptest};

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
