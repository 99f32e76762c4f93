//! How often the cloud may ask.

use std::time::Duration;

/// So many a minute, saved up to a minute's worth.
#[derive(Debug)]
pub(super) struct Rate {
    pub(super) per_minute: u32,
    saved: f64,
    at: Duration,
    told_at: Option<Duration>,
}

/// What the rate says to one request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pass {
    Yes,
    /// It is told so.
    No,
    /// Too many to answer each.
    Silence,
}

impl Rate {
    pub(super) fn new(per_minute: u32, now: Duration) -> Self {
        Self { per_minute, saved: f64::from(per_minute), at: now, told_at: None }
    }

    /// What becomes of one request.
    pub(super) fn pass(&mut self, now: Duration) -> Pass {
        let most = f64::from(self.per_minute);
        let grown = now.saturating_sub(self.at).as_secs_f64() * most / 60.0;
        (self.saved, self.at) = ((self.saved + grown).min(most), now);
        if self.saved >= 1.0 {
            self.saved -= 1.0;
            return Pass::Yes;
        }
        if self.told_at.is_some_and(|told_at| now.saturating_sub(told_at) < Duration::from_secs(1)) {
            return Pass::Silence;
        }
        self.told_at = Some(now);
        Pass::No
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_its_rate_the_cloud_is_told_once_a_second_and_then_nothing() {
        let second = Duration::from_secs(1);
        let mut rate = Rate::new(2, second);
        let passes: Vec<_> = (0..4).map(|_| rate.pass(second)).collect();
        assert_eq!(passes, [Pass::Yes, Pass::Yes, Pass::No, Pass::Silence]);
        assert_eq!(rate.pass(3 * second), Pass::No);
        assert_eq!(rate.pass(32 * second), Pass::Yes, "one every half minute");
        assert_eq!(rate.pass(32 * second), Pass::No);
        assert_eq!(rate.pass(1000 * second), Pass::Yes);
        assert_eq!(
            (rate.pass(1000 * second), rate.pass(1001 * second)),
            (Pass::Yes, Pass::No),
            "saved for a minute at most"
        );
    }
}
