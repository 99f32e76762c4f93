//! How long a model's runs take, as they tell: some are shorter than the way to another thread and back.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The longest run that the thread of its caller computes: everybody else whom that thread serves waits so much longer.
const BRIEF_NS: u32 = 100_000;
/// No run counts for more, so that one that the system interrupted is forgotten after five others.
const COUNTED_MOST_NS: u32 = 1_000_000;
/// A run changes what is expected of the next by one part in so many.
const INERTIA: i64 = 8;
const SIZES: usize = 32;

/// The time that is expected of a run, in nanoseconds, for each power of two of its inputs' bytes; 0 where there was none.
/// Nothing is concluded from one size to another: some models take a hundred times as long for ten times the input.
#[derive(Debug, Default)]
pub(super) struct Pace([AtomicU32; SIZES]);

impl Pace {
    fn of(&self, bytes: usize) -> &AtomicU32 {
        &self.0[(usize::BITS - bytes.leading_zeros()).min(31) as usize]
    }

    /// Whether a run with so many bytes of inputs is known to be short.
    pub(super) fn is_brief(&self, bytes: usize) -> bool {
        (1..=BRIEF_NS).contains(&self.of(bytes).load(Ordering::Relaxed))
    }

    /// A run took so long.
    pub(super) fn learn(&self, bytes: usize, took: Duration) {
        let took = u32::try_from(took.as_nanos()).unwrap_or(u32::MAX).clamp(1, COUNTED_MOST_NS);
        let expected = self.of(bytes);
        // Two at the same time may forget one of them, which is no harm.
        let before = expected.load(Ordering::Relaxed);
        let change = (i64::from(took) - i64::from(before)) / INERTIA;
        let after = if before == 0 { took } else { before.saturating_add_signed(i32::try_from(change).unwrap_or(0)) };
        expected.store(after.max(1), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_micros(20);

    #[test]
    fn a_size_is_brief_once_a_run_of_it_was_and_says_nothing_of_others() {
        let pace = Pace::default();
        assert!(!pace.is_brief(256));
        pace.learn(256, SHORT);
        assert!(pace.is_brief(256) && pace.is_brief(300) && !pace.is_brief(512) && !pace.is_brief(0));
        pace.learn(4096, Duration::from_millis(3));
        assert!(!pace.is_brief(4096));
        pace.learn(usize::MAX, Duration::ZERO);
        assert!(pace.is_brief(usize::MAX), "a clock that does not move is no reason");
    }

    #[test]
    fn one_long_run_is_forgotten_after_five_and_a_model_that_got_slow_is_not_brief() {
        let pace = Pace::default();
        (0..9).for_each(|_| pace.learn(64, SHORT));
        pace.learn(64, Duration::from_secs(3600));
        assert!(!pace.is_brief(64));
        (0..5).for_each(|_| pace.learn(64, SHORT));
        assert!(pace.is_brief(64));
        (0..9).for_each(|_| pace.learn(64, Duration::from_micros(300)));
        assert!(!pace.is_brief(64));
    }
}
