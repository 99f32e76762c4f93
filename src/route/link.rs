//! The link as routing believes it to be: what gets worse is believed at once, what gets better only when it stays.

use std::time::Duration;

use super::ask::Link;

/// Relapses after which the wait no longer doubles.
const DOUBLINGS_MAX: u32 = 4;

/// Hysteresis for the way back, so that a link that comes and goes does not move every conversation with it.
///
/// A better state counts once the link has been at least as good without interruption for `back`. Each relapse from the
/// believed state within ten times `back` of its return doubles the wait, at most 16-fold; after ten times `back` without
/// one it is `back` again.
#[derive(Debug, Clone)]
pub struct LinkGate {
    back: Duration,
    believed: Link,
    /// When the believed state last became better.
    better_at: Option<Duration>,
    relapses: u32,
    /// Since when it has been seen to be up, and up or metered.
    since: [Option<Duration>; 2],
}

impl LinkGate {
    /// `first` is believed at once; a better state after `back`.
    pub fn new(first: Link, back: Duration) -> Self {
        Self { back, believed: first, better_at: None, relapses: 0, since: [None; 2] }
    }

    /// Somebody looked at the link at `now`, since boot. Call it at least as often as the link may change; between two
    /// calls nothing is known to have been different.
    pub fn observe(&mut self, link: Link, now: Duration) -> Link {
        for (level, since) in [Link::Up, Link::Metered].into_iter().zip(&mut self.since) {
            *since = (link <= level).then(|| since.unwrap_or(now));
        }
        if link > self.believed {
            self.relapse(now);
            self.believed = link;
            return link;
        }
        let wait = self.wait();
        let lasted = |since: Option<Duration>| since.is_some_and(|since| now.saturating_sub(since) >= wait);
        let levels = [Link::Up, Link::Metered].into_iter().zip(self.since);
        if let Some((better, _)) = levels.into_iter().find(|(level, since)| *level < self.believed && lasted(*since)) {
            self.believed = better;
            self.better_at = Some(now);
        }
        self.believed
    }

    /// What is believed, without looking.
    pub fn believed(&self) -> Link {
        self.believed
    }

    /// How long a better state must last now.
    pub fn wait(&self) -> Duration {
        self.back.saturating_mul(1 << self.relapses)
    }

    fn relapse(&mut self, now: Duration) {
        let soon = self.better_at.is_some_and(|at| now.saturating_sub(at) <= self.back.saturating_mul(10));
        self.relapses = if soon { (self.relapses + 1).min(DOUBLINGS_MAX) } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn worse_is_believed_at_once_and_better_only_when_it_stays() {
        let mut gate = LinkGate::new(Link::Up, at(30));
        assert_eq!(gate.observe(Link::Down, at(1)), Link::Down);
        assert_eq!(gate.observe(Link::Up, at(2)), Link::Down);
        assert_eq!(gate.observe(Link::Up, at(31)), Link::Down);
        assert_eq!(gate.observe(Link::Up, at(32)), Link::Up);
        assert_eq!(gate.observe(Link::Metered, at(33)), Link::Metered);
    }

    #[test]
    fn a_moment_without_link_starts_the_wait_again() {
        let mut gate = LinkGate::new(Link::Down, at(30));
        gate.observe(Link::Up, at(0));
        gate.observe(Link::Down, at(29));
        assert_eq!(gate.observe(Link::Up, at(30)), Link::Down);
        assert_eq!(gate.observe(Link::Up, at(59)), Link::Down);
        assert_eq!(gate.observe(Link::Up, at(60)), Link::Up);
    }

    #[test]
    fn a_link_that_was_metered_meanwhile_comes_back_as_metered_first() {
        let mut gate = LinkGate::new(Link::Down, at(30));
        gate.observe(Link::Up, at(0));
        gate.observe(Link::Metered, at(20));
        assert_eq!(gate.observe(Link::Up, at(30)), Link::Metered, "what lasted all the time");
        assert_eq!(gate.observe(Link::Up, at(59)), Link::Metered);
        assert_eq!(gate.observe(Link::Up, at(60)), Link::Up);
    }

    #[test]
    fn a_link_that_flaps_is_believed_later_each_time_and_forgiven_after_a_while() {
        let mut gate = LinkGate::new(Link::Up, at(10));
        let mut now = 0;
        let mut waits = Vec::new();
        for _ in 0..6 {
            gate.observe(Link::Down, at(now));
            waits.push(gate.wait().as_secs());
            gate.observe(Link::Up, at(now + 1));
            now += 1 + gate.wait().as_secs();
            assert_eq!(gate.observe(Link::Up, at(now)), Link::Up);
            now += 1;
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 160]);
        gate.observe(Link::Down, at(now + 1000));
        assert_eq!(gate.wait(), at(10));
    }

    proptest! {
        /// Whatever is seen: never better than the last look, and after a quiet time exactly as good.
        #[test]
        fn what_is_believed_is_never_better_than_what_was_seen(looks in prop::collection::vec((0_u64..40, 0_usize..3), 1..60)) {
            let links = [Link::Up, Link::Metered, Link::Down];
            let (mut gate, mut now) = (LinkGate::new(Link::Up, at(10)), 0);
            for (s, link) in &looks {
                now += s;
                prop_assert!(gate.observe(links[*link], at(now)) >= links[*link]);
            }
            let last = links[looks[looks.len() - 1].1];
            gate.observe(last, at(now));
            prop_assert_eq!(gate.observe(last, at(now + 160)), last);
        }
    }
}
