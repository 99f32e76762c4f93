//! One limit of one name, and what it has counted.

use super::budget::{Bucket, Budget};
use super::config::Limit;
use super::refusal::Why;
use super::unit::{Amounts, Now, Span, Unit};

/// In how many milliseconds somebody's request may be over: nobody knows, so it is a second.
const SOON_MS: u64 = 1000;

/// When a lease ends, by both clocks: the earlier of them counts, so that setting one does not lengthen it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) wall_ms: i64,
    pub(super) boot_ms: u64,
}

impl Ends {
    /// Whatever the clocks say.
    pub(super) const PASSED: Self = Self { wall_ms: 0, boot_ms: 0 };

    pub(super) fn at(wall_ms: i64, now: Now) -> Self {
        let lasts_ms = wall_ms.saturating_sub(now.wall_ms).max(0).cast_unsigned();
        Self { wall_ms, boot_ms: now.boot_ms.saturating_add(lasts_ms) }
    }

    pub(super) fn is_over(&self, now: Now) -> bool {
        self.lasts_ms(now) == 0
    }

    /// Milliseconds to the end by the clock that is nearer to it.
    pub(super) fn lasts_ms(&self, now: Now) -> u64 {
        let by_wall = self.wall_ms.saturating_sub(now.wall_ms).max(0).cast_unsigned();
        by_wall.min(self.boot_ms.saturating_sub(now.boot_ms))
    }
}

/// A budget that is kept on the disk.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept {
    pub(super) budget: Budget,
    /// So many of the configured shares have been told.
    pub(super) warned: u8,
    /// What the newest row said was used.
    pub(super) written: u64,
    /// Of a lease.
    pub(super) ends: Option<Ends>,
    /// It was too little for a request.
    pub(super) is_short: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Body {
    AtOnce { held: u64 },
    Rate(Bucket),
    Kept(Box<Kept>),
}

/// A limit and its count.
#[derive(Debug, Clone)]
pub(super) struct Counter {
    pub(super) limit: Limit,
    /// Reservations of earlier generations are not in it.
    pub(super) born: u32,
    pub(super) body: Body,
}

/// The calendar as a counter sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    /// Rises by one whenever a period ends, a lease begins or the clock is set back.
    pub(super) number: u32,
    pub(super) day: i64,
    pub(super) month: i64,
    pub(super) day_ends_ms: i64,
    pub(super) month_ends_ms: i64,
}

impl Turn {
    /// The period of a day or a month.
    pub(super) fn period(&self, span: Span) -> Option<i64> {
        match span {
            Span::Day => Some(self.day),
            Span::Month => Some(self.month),
            Span::AtOnce | Span::Minute | Span::Lease => None,
        }
    }

    pub(super) fn ends_ms(&self, span: Span) -> Option<i64> {
        match span {
            Span::Day => Some(self.day_ends_ms),
            Span::Month => Some(self.month_ends_ms),
            Span::AtOnce | Span::Minute | Span::Lease => None,
        }
    }
}

/// Why a counter does not admit a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) why: Why,
    pub(super) retry_after_ms: Option<u64>,
}

impl Counter {
    pub(super) fn new(limit: Limit, born: u32, now: Now, turn: Turn) -> Self {
        let body = match limit.span {
            Span::AtOnce => Body::AtOnce { held: 0 },
            Span::Minute => Body::Rate(Bucket::full(limit.amount, now.boot_ms)),
            Span::Day | Span::Month | Span::Lease => {
                let budget = Budget::new(turn.period(limit.span).unwrap_or(0), turn.number);
                Body::Kept(Box::new(Kept { budget, ..Kept::default() }))
            }
        };
        Self { limit, born, body }
    }

    /// Brings it to now. True if a period began or was taken back, which the disk must hear of.
    pub(super) fn bring_to(&mut self, now: Now, turn: Turn) -> bool {
        match &mut self.body {
            Body::AtOnce { .. } => false,
            Body::Rate(bucket) => {
                bucket.refill(self.limit.amount, now.boot_ms);
                false
            }
            Body::Kept(kept) => {
                let period = turn.period(self.limit.span).unwrap_or(kept.budget.current.period);
                let turned = kept.budget.turn_to(period, turn.number);
                if turned {
                    kept.warned = 0;
                    kept.written = 0;
                }
                turned
            }
        }
    }

    /// Whether it admits `amount`; to be brought to now before.
    ///
    /// What takes nothing is never in the way of a limit: a model in this process answers when the money is gone.
    pub(super) fn admits(&self, amount: u64, now: Now, turn: Turn) -> Result<(), Block> {
        if amount == 0 {
            return Ok(());
        }
        let limit = self.limit.amount;
        let exhausted = |retry_after_ms| Err(Block { why: Why::Exhausted, retry_after_ms });
        let too_large = Err(Block { why: Why::TooLarge, retry_after_ms: None });
        match &self.body {
            Body::AtOnce { held } if held.saturating_add(amount) <= limit => Ok(()),
            Body::AtOnce { .. } if amount > limit => too_large,
            Body::AtOnce { .. } => exhausted(Some(SOON_MS)),
            Body::Rate(bucket) => match bucket.wait_ms(limit, amount) {
                Some(0) => Ok(()),
                Some(ms) => exhausted(Some(ms)),
                None => too_large,
            },
            Body::Kept(kept) => {
                if self.limit.span == Span::Lease && kept.ends.is_none_or(|ends| ends.is_over(now)) {
                    return Err(Block { why: Why::NoLease, retry_after_ms: None });
                }
                if kept.budget.current.used().checked_add(amount).is_some_and(|sum| sum <= limit) {
                    return Ok(());
                }
                if amount > limit {
                    return too_large;
                }
                if kept.budget.current.spent.saturating_add(amount) <= limit {
                    // Only what is under way is in the way, and most of that takes less than it reserved.
                    return exhausted(Some(SOON_MS));
                }
                let ends_ms = turn.ends_ms(self.limit.span);
                exhausted(ends_ms.map(|ends_ms| ends_ms.saturating_sub(now.wall_ms).max(1).cast_unsigned()))
            }
        }
    }

    /// Whether a request that was admitted in `since` may take `amount` more. It counts in the period it began in.
    pub(super) fn admits_more(&self, amount: u64, since: u32, now: Now, turn: Turn) -> Result<(), Block> {
        match &self.body {
            Body::Kept(kept) if !kept.budget.current.holds(since) => {
                let exhausted = Block { why: Why::Exhausted, retry_after_ms: None };
                // What an earlier lease allowed is not known any more; what an earlier day allowed is.
                let is_known = self.limit.span != Span::Lease;
                match kept.budget.previous.as_ref().filter(|previous| previous.holds(since)) {
                    Some(previous) if amount > 0 => {
                        let sum = previous.used().checked_add(amount);
                        if is_known && sum.is_some_and(|sum| sum <= self.limit.amount) {
                            Ok(())
                        } else {
                            Err(exhausted)
                        }
                    }
                    _ => Ok(()),
                }
            }
            _ => self.admits(amount, now, turn),
        }
    }

    /// Counts what was admitted beyond a reservation of `since`.
    pub(super) fn take_more(&mut self, amount: u64, since: u32) -> bool {
        match &mut self.body {
            Body::Kept(kept) => {
                kept.budget.hold_more(since, amount);
                kept.is_far_from_disk(self.limit.amount)
            }
            Body::AtOnce { .. } | Body::Rate(_) => self.take(amount),
        }
    }

    /// Counts what was admitted. True if the disk should hear of it at once.
    pub(super) fn take(&mut self, amount: u64) -> bool {
        match &mut self.body {
            Body::AtOnce { held } => *held += amount,
            Body::Rate(bucket) => bucket.take(amount),
            Body::Kept(kept) => {
                kept.budget.hold(amount);
                return kept.is_far_from_disk(self.limit.amount);
            }
        }
        false
    }

    /// What was `reserved` in `turn` has become `actual`.
    pub(super) fn settle(&mut self, turn: u32, reserved: u64, actual: u64) -> bool {
        match &mut self.body {
            Body::AtOnce { held } => *held = held.saturating_sub(reserved),
            Body::Rate(bucket) => bucket.correct(self.limit.amount, reserved, actual),
            Body::Kept(kept) => {
                kept.budget.settle(turn, reserved, actual);
                return kept.is_far_from_disk(self.limit.amount);
            }
        }
        false
    }

    /// The highest of `shares` that was reached and not told yet.
    pub(super) fn warn(&mut self, shares: &[u8]) -> Option<u8> {
        let limit = self.limit.amount;
        let Body::Kept(kept) = &mut self.body else { return None };
        let reached = reached(shares, kept.budget.current.spent, limit);
        if reached <= kept.warned {
            return None;
        }
        kept.warned = reached;
        shares.get(usize::from(reached) - 1).copied()
    }

    /// Everything that was reached is taken for told: a restart does not say it again.
    pub(super) fn hush(&mut self, shares: &[u8]) {
        if let Body::Kept(kept) = &mut self.body {
            kept.warned = reached(shares, kept.budget.current.spent, self.limit.amount);
        }
    }

    /// Nothing is lost if it is forgotten; to be brought to now before.
    pub(super) fn is_idle(&self) -> bool {
        match &self.body {
            Body::AtOnce { held } => *held == 0,
            Body::Rate(bucket) => bucket.full_in_ms(self.limit.amount) == 0,
            Body::Kept(kept) => {
                kept.budget.current.used() == 0 && (self.limit.span != Span::Lease || kept.ends.is_none())
            }
        }
    }

    pub(super) fn left(&self) -> u64 {
        match &self.body {
            Body::AtOnce { held } => self.limit.amount.saturating_sub(*held),
            Body::Rate(bucket) => bucket.left(),
            Body::Kept(kept) => kept.budget.left(self.limit.amount),
        }
    }

    /// The same count under another limit.
    pub(super) fn resize(&mut self, amount: u64) {
        if let Body::Rate(bucket) = &mut self.body {
            *bucket = bucket.resized(self.limit.amount, amount);
        }
        self.limit.amount = amount;
    }
}

impl Kept {
    fn is_far_from_disk(&self, limit: u64) -> bool {
        self.budget.current.used().abs_diff(self.written) > limit / 128
    }
}

/// How many of `shares` (in percent, rising) `spent` has reached.
fn reached(shares: &[u8], spent: u64, limit: u64) -> u8 {
    let is_reached = |share: &&u8| u128::from(spent) * 100 >= u128::from(limit) * u128::from(**share);
    if limit == 0 {
        return 0;
    }
    u8::try_from(shares.iter().take_while(is_reached).count()).unwrap_or(u8::MAX)
}

/// What a request takes of a unit: 1 request, and what is known of the rest.
pub(super) fn wanted(amounts: Amounts, unit: Unit, when_unknown_is_nothing: bool) -> Result<u64, Block> {
    match amounts.of(unit) {
        Some(amount) => Ok(amount),
        None if when_unknown_is_nothing => Ok(0),
        None => Err(Block { why: Why::Unknown, retry_after_ms: None }),
    }
}
