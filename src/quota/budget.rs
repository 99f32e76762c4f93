//! Arithmetic of one counter: a bucket for a minute, a purse for a day, a month or a lease.

/// Parts of a unit in which a bucket is counted: milliseconds of a minute, so that a refill is exact.
const PARTS: i64 = 60_000;
/// Most that a bucket may hold, so that its parts fit.
pub(super) const MAX_PER_MINUTE: u64 = 100_000_000_000;

/// A minute's worth, refilled evenly by the time since boot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    /// In parts. Below zero, after a request that took more than was reserved for it.
    level: i64,
    filled_ms: u64,
}

impl Bucket {
    pub(super) fn full(limit: u64, boot_ms: u64) -> Self {
        Self { level: capacity(limit), filled_ms: boot_ms }
    }

    pub(super) fn refill(&mut self, limit: u64, boot_ms: u64) {
        let passed = i64::try_from(boot_ms.saturating_sub(self.filled_ms)).unwrap_or(i64::MAX);
        self.filled_ms = self.filled_ms.max(boot_ms);
        let flow = passed.saturating_mul(i64::try_from(limit).unwrap_or(i64::MAX));
        self.level = self.level.saturating_add(flow).min(capacity(limit));
    }

    /// Milliseconds until `amount` is there: 0 is now, None is never.
    pub(super) fn wait_ms(&self, limit: u64, amount: u64) -> Option<u64> {
        if amount == 0 {
            return Some(0);
        }
        if amount > limit {
            return None;
        }
        let missing = parts(amount).saturating_sub(self.level).max(0).cast_unsigned();
        Some(if missing == 0 { 0 } else { missing.div_ceil(limit) })
    }

    pub(super) fn take(&mut self, amount: u64) {
        self.level = self.level.saturating_sub(parts(amount));
    }

    /// Takes or gives back the difference to what was reserved. The debt is bounded by a minute's worth.
    pub(super) fn correct(&mut self, limit: u64, reserved: u64, actual: u64) {
        let level = self.level.saturating_add(parts(reserved)).saturating_sub(parts(actual));
        self.level = level.clamp(-capacity(limit), capacity(limit));
    }

    /// Takes over at another limit: what was used stays used.
    pub(super) fn resized(self, from: u64, to: u64) -> Self {
        let used = capacity(from).saturating_sub(self.level);
        Self { level: capacity(to).saturating_sub(used).max(-capacity(to)), filled_ms: self.filled_ms }
    }

    pub(super) fn left(&self) -> u64 {
        self.level.max(0).cast_unsigned() / PARTS.cast_unsigned()
    }

    pub(super) fn full_in_ms(&self, limit: u64) -> u64 {
        if limit == 0 {
            return 0;
        }
        capacity(limit).saturating_sub(self.level).max(0).cast_unsigned().div_ceil(limit)
    }
}

fn parts(amount: u64) -> i64 {
    i64::try_from(amount.min(MAX_PER_MINUTE)).unwrap_or(i64::MAX).saturating_mul(PARTS)
}

fn capacity(limit: u64) -> i64 {
    parts(limit)
}

/// What was spent in one period, and what is reserved of it by requests under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Purse {
    /// The day, the month or the lease.
    pub(super) period: i64,
    pub(super) spent: u64,
    pub(super) held: u64,
    /// Turns of the calendar in which reservations of this purse were made, both included.
    first_turn: u32,
    last_turn: u32,
    /// Its row says the same.
    pub(super) is_written: bool,
    /// Of a lease: what its owner was told as the last word. What comes later counts elsewhere.
    pub(super) told: Option<u64>,
}

impl Purse {
    pub(super) fn new(period: i64, turn: u32) -> Self {
        Self { period, first_turn: turn, last_turn: turn, ..Self::default() }
    }

    /// As a row remembers it: requests whose end nobody saw are charged as they were reserved.
    pub(super) fn resumed(period: i64, turn: u32, spent: u64, told: Option<u64>) -> Self {
        Self { spent, told, ..Self::new(period, turn) }
    }

    pub(super) fn used(&self) -> u64 {
        self.spent.saturating_add(self.held)
    }

    pub(super) fn holds(&self, turn: u32) -> bool {
        self.told.is_none() && (self.first_turn..=self.last_turn).contains(&turn)
    }
}

/// The purse of now and the one before.
#[derive(Debug, Clone, Default)]
pub(super) struct Budget {
    pub(super) current: Purse,
    pub(super) previous: Option<Box<Purse>>,
    /// Rows of periods that are neither of the two may be on the disk.
    pub(super) has_turned: bool,
}

impl Budget {
    pub(super) fn new(period: i64, turn: u32) -> Self {
        Self { current: Purse::new(period, turn), previous: None, has_turned: false }
    }

    /// The calendar says that it is `period`. True if that is news.
    ///
    /// Forward begins an empty purse. Backward, because the wall clock was set, takes along what was spent under the
    /// later date: a clock that was wrong never gives a budget twice on its way back.
    pub(super) fn turn_to(&mut self, period: i64, turn: u32) -> bool {
        if self.current.last_turn == turn {
            return false;
        }
        if period > self.current.period {
            self.begin(period, turn);
            return true;
        }
        self.current.last_turn = turn;
        if period == self.current.period {
            return false;
        }
        if let Some(previous) = self.previous.take_if(|previous| previous.period >= period) {
            self.current.first_turn = previous.first_turn;
            self.current.spent = self.current.spent.saturating_add(previous.spent);
            self.current.held = self.current.held.saturating_add(previous.held);
        }
        self.current.period = period;
        self.current.is_written = false;
        self.has_turned = true;
        true
    }

    /// Puts the purse of now aside and begins an empty one; of a lease, one that has what came after the last word.
    pub(super) fn begin(&mut self, period: i64, turn: u32) {
        let late = self.current.told.map_or(0, |told| self.current.spent.saturating_sub(told));
        let fresh = Purse { spent: late, ..Purse::new(period, turn) };
        self.previous = Some(Box::new(std::mem::replace(&mut self.current, fresh)));
        self.has_turned = true;
    }

    pub(super) fn left(&self, limit: u64) -> u64 {
        limit.saturating_sub(self.current.used())
    }

    pub(super) fn hold(&mut self, amount: u64) {
        self.current.held = self.current.held.saturating_add(amount);
        self.current.is_written = false;
    }

    /// More for a reservation of `turn`, where that is still known.
    pub(super) fn hold_more(&mut self, turn: u32, amount: u64) {
        if let Some(purse) = self.of(turn) {
            purse.held = purse.held.saturating_add(amount);
            purse.is_written = false;
        }
    }

    fn of(&mut self, turn: u32) -> Option<&mut Purse> {
        match &mut self.previous {
            Some(previous) if previous.holds(turn) => Some(previous),
            _ => Some(&mut self.current).filter(|current| current.holds(turn)),
        }
    }

    /// What was reserved in `turn` has become `actual`. It counts in the period in which it was reserved. A reservation
    /// that outlived two turns counts now, if at all.
    pub(super) fn settle(&mut self, turn: u32, reserved: u64, actual: u64) {
        let (purse, reserved) = match self.of(turn) {
            Some(purse) => (purse, reserved),
            None => (&mut self.current, 0),
        };
        purse.held = purse.held.saturating_sub(reserved);
        purse.spent = purse.spent.saturating_add(actual);
        purse.is_written = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_refills_evenly_and_says_how_long_to_wait() {
        let mut bucket = Bucket::full(60, 1000);
        bucket.take(60);
        assert_eq!((bucket.left(), bucket.wait_ms(60, 1)), (0, Some(1000)));
        bucket.refill(60, 1999);
        assert_eq!((bucket.left(), bucket.wait_ms(60, 1)), (0, Some(1)));
        bucket.refill(60, 2000);
        assert_eq!((bucket.left(), bucket.wait_ms(60, 1)), (1, Some(0)));
        assert_eq!(bucket.wait_ms(60, 61), None, "never more than a minute's worth");
        bucket.refill(60, 500);
        assert_eq!(bucket.left(), 1, "time never steps back");
        bucket.refill(60, u64::MAX);
        assert_eq!((bucket.left(), bucket.full_in_ms(60)), (60, 0));
    }

    #[test]
    fn a_bucket_owes_at_most_a_minute() {
        let mut bucket = Bucket::full(100, 0);
        bucket.take(10);
        bucket.correct(100, 10, u64::MAX);
        assert_eq!(bucket.wait_ms(100, 1), Some(60_600));
        bucket.refill(100, 120_000);
        assert_eq!(bucket.left(), 100);
        let mut closed = Bucket::full(0, 0);
        closed.refill(0, 1_000_000);
        assert_eq!((closed.wait_ms(0, 1), closed.wait_ms(0, 0), closed.full_in_ms(0)), (None, Some(0), 0));
    }

    #[test]
    fn a_settled_request_counts_on_the_day_it_was_admitted() {
        let mut budget = Budget::new(10, 1);
        budget.hold(30);
        assert!(budget.turn_to(11, 2));
        assert_eq!(budget.left(100), 100);
        budget.hold(5);
        budget.settle(1, 30, 20);
        assert_eq!(budget.previous.as_ref().map(|purse| (purse.spent, purse.held)), Some((20, 0)));
        assert_eq!((budget.current.spent, budget.current.held), (0, 5));
    }

    #[test]
    fn a_clock_that_is_set_back_takes_what_was_spent_along() {
        let mut budget = Budget::new(10, 1);
        budget.hold(50);
        budget.settle(1, 50, 50);
        budget.hold(7);
        budget.turn_to(375, 2);
        budget.hold(30);
        assert!(budget.turn_to(10, 3));
        assert_eq!((budget.current.spent, budget.current.held, budget.left(100)), (50, 37, 13));
        budget.settle(2, 30, 25);
        budget.settle(1, 7, 7);
        assert_eq!((budget.current.spent, budget.current.held), (82, 0));
        assert!(budget.previous.is_none() && budget.has_turned);
    }

    #[test]
    fn a_step_back_to_between_two_known_days_leaves_the_earlier_one_alone() {
        let mut budget = Budget::new(10, 1);
        budget.hold(1);
        budget.settle(1, 1, 40);
        budget.turn_to(375, 2);
        budget.hold(0);
        budget.settle(2, 0, 30);
        budget.turn_to(11, 3);
        assert_eq!((budget.current.period, budget.current.spent), (11, 30));
        assert_eq!(budget.previous.as_ref().map(|purse| (purse.period, purse.spent)), Some((10, 40)));
    }

    #[test]
    fn a_reservation_older_than_both_purses_frees_nothing_that_is_not_its_own() {
        let mut budget = Budget::new(10, 1);
        budget.hold(50);
        budget.turn_to(11, 2);
        budget.turn_to(12, 3);
        budget.hold(60);
        budget.settle(1, 50, 50);
        assert_eq!((budget.current.spent, budget.current.held), (50, 60));
    }
}
