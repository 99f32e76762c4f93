//! Counts of what happened lately, in little room.

use std::time::Duration;

const PARTS: usize = 10;

/// Counts of the last so many seconds, a tenth of them at a time.
#[derive(Debug, Clone)]
pub(super) struct Window {
    part: Duration,
    /// Number of the part that is being counted, since boot.
    at: u128,
    requests: [u32; PARTS],
    failed: [u32; PARTS],
}

impl Window {
    pub(super) fn new(length: Duration) -> Self {
        let part = (length / PARTS as u32).max(Duration::from_millis(1));
        Self { part, at: 0, requests: [0; PARTS], failed: [0; PARTS] }
    }

    fn number(&self, now: Duration) -> u128 {
        now.as_nanos() / self.part.as_nanos()
    }

    fn place(number: u128) -> usize {
        (number % PARTS as u128) as usize
    }

    pub(super) fn add(&mut self, failed: bool, now: Duration) {
        let number = self.number(now).max(self.at);
        // Parts that nothing was counted in since are empty now.
        for back in 0..(number - self.at).min(PARTS as u128) {
            let place = Self::place(number - back);
            (self.requests[place], self.failed[place]) = (0, 0);
        }
        self.at = number;
        let place = Self::place(number);
        self.requests[place] = self.requests[place].saturating_add(1);
        self.failed[place] = self.failed[place].saturating_add(u32::from(failed));
    }

    /// Requests and failures within the window.
    pub(super) fn counts(&self, now: Duration) -> (u32, u32) {
        let now = self.number(now).max(self.at);
        let since = now - self.at;
        // The oldest parts are over, as many as have passed since.
        let counted = (0..PARTS as u128).filter(|back| back + since < PARTS as u128 && *back <= self.at);
        counted.map(|back| Self::place(self.at - back)).fold((0_u32, 0_u32), |(requests, failed), place| {
            (requests.saturating_add(self.requests[place]), failed.saturating_add(self.failed[place]))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    proptest! {
        /// The window counts what a list of everything would.
        #[test]
        fn the_window_is_what_came_within_it(steps in prop::collection::vec((0_u64..9000, any::<bool>()), 1..80), after in 0_u64..70_000) {
            let mut window = Window::new(at(10_000));
            let (mut now, mut all) = (0, Vec::new());
            for (ms, failed) in steps {
                now += ms;
                window.add(failed, at(now));
                all.push((now, failed));
            }
            now += after;
            let (requests, failures) = window.counts(at(now));
            // The oldest part may be cut by up to its own length.
            let within = |ms: u64| all.iter().filter(|(then, _)| then / 1000 + ms / 1000 > now / 1000).count() as u32;
            prop_assert_eq!(requests, within(10_000));
            prop_assert!(failures <= requests);
        }
    }
}
