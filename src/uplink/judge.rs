//! How the link is, as others should see it: worse at once, better only after it has held. One place for every kind of
//! link, fed by whoever sends. Pure: the time is an argument.
//!
//! A link that comes and goes is called degraded, steadily, until it has held for a while or stays away; the smoothed
//! answer time (RFC 6298: an eighth of every new one) and the share of losses among answers and losses have a threshold
//! for going in and a lower one for coming out. Refusals are the link's own word.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::watch;

use super::link::LinkState;

/// Answers before their time says anything.
const ANSWERS_BEFORE_SLOW: u32 = 4;
/// Answers and losses count half as much after this time.
const HALF_LIFE: Duration = Duration::from_secs(30);
/// Less than so many answers and losses say nothing about the share of losses.
const ENOUGH: f64 = 5.0;

/// When a link counts as what.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkLimits {
    /// Losses within `flap_window_ms` that make a link one that comes and goes. At least 2.
    pub flap_losses: u32,
    /// See `flap_losses`.
    pub flap_window_ms: u64,
    /// A link that came and went must hold for so long before it is called up again.
    pub up_hold_ms: u64,
    /// A link that comes and goes is called down when it has been away for so long.
    pub down_after_ms: u64,
    /// Refusals, slow answers and lost batches must have been over for so long before the link is called good.
    pub recover_ms: u64,
    /// Smoothed time from handing over a batch to its answer, from which on the link is degraded.
    pub slow_enter_ms: u64,
    /// The same, below which it is not any more.
    pub slow_exit_ms: u64,
    /// Losses of the connection among its answers and losses of the last half minute or so, in percent, from which on
    /// the link is degraded.
    pub loss_enter_percent: u8,
    /// The same, below which it is not any more.
    pub loss_exit_percent: u8,
}

impl Default for LinkLimits {
    fn default() -> Self {
        Self {
            flap_losses: 2,
            flap_window_ms: 60_000,
            up_hold_ms: 15_000,
            down_after_ms: 10_000,
            recover_ms: 5_000,
            slow_enter_ms: 5_000,
            slow_exit_ms: 2_500,
            loss_enter_percent: 20,
            loss_exit_percent: 5,
        }
    }
}

impl LinkLimits {
    /// Finds what cannot work: the setting and what would be right.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        if !(2..=100).contains(&self.flap_losses) {
            return Err(("flap_losses", "must be 2 to 100"));
        }
        if self.slow_exit_ms > self.slow_enter_ms || self.slow_enter_ms == 0 {
            return Err(("slow_exit_ms", "must not be above slow_enter_ms, and that one not 0"));
        }
        if self.loss_exit_percent > self.loss_enter_percent || !(1..=100).contains(&self.loss_enter_percent) {
            return Err(("loss_exit_percent", "must not be above loss_enter_percent, and that one 1 to 100"));
        }
        Ok(())
    }
}

/// Keeps the [`LinkState`] that others see.
#[derive(Debug)]
pub struct LinkJudge {
    limits: LinkLimits,
    shown: watch::Sender<LinkState>,
    metered: bool,
    /// Since boot, when the connection stands.
    connected_at: Option<Duration>,
    /// Of the connection that stands, or of the last one: the far side does not take something.
    complaint: Option<String>,
    /// Since boot; the newest `flap_losses`.
    losses: VecDeque<Duration>,
    /// Since boot and since 1970, and why.
    down: (Duration, i64, String),
    flapping: bool,
    answer_ms: f64,
    answers: u32,
    slow: bool,
    /// Answers and losses, and losses alone, each counting less as it ages.
    outcomes: (f64, f64),
    /// Since boot: how old they are.
    outcomes_at: Duration,
    lossy: bool,
    /// The last sign of trouble on a standing connection, and when it was seen.
    trouble: Option<(Duration, String)>,
}

impl LinkJudge {
    /// Not connected yet.
    pub fn new(limits: LinkLimits, now: Duration, wall_ms: i64) -> Self {
        let reason = "not connected yet".to_owned();
        let down = LinkState::Down { since_ms: wall_ms, reason: reason.clone() };
        Self {
            limits,
            shown: watch::Sender::new(down),
            metered: false,
            connected_at: None,
            complaint: None,
            losses: VecDeque::new(),
            down: (now, wall_ms, reason),
            flapping: false,
            answer_ms: 0.0,
            answers: 0,
            slow: false,
            outcomes: (0.0, 0.0),
            outcomes_at: now,
            lossy: false,
            trouble: None,
        }
    }

    /// What others see; changes wake them.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.shown.subscribe()
    }

    /// Smoothed time of answers, in milliseconds.
    pub fn answer_ms(&self) -> f64 {
        self.answer_ms
    }

    /// The connection stands.
    pub fn connected(&mut self, now: Duration) {
        self.connected_at.get_or_insert(now);
        self.show(now);
    }

    /// The connection is gone, or an attempt failed.
    pub fn lost(&mut self, reason: &str, now: Duration, wall_ms: i64) {
        reason.clone_into(&mut self.down.2);
        if self.connected_at.take().is_some() {
            (self.down.0, self.down.1) = (now, wall_ms);
            self.losses.push_back(now);
            if self.losses.len() > self.limits.flap_losses as usize {
                self.losses.pop_front();
            }
            let window = Duration::from_millis(self.limits.flap_window_ms);
            let recent = self.losses.iter().filter(|at| now.saturating_sub(**at) <= window).count();
            self.flapping |= recent >= self.limits.flap_losses as usize;
            self.outcome(1.0, now);
        }
        self.show(now);
    }

    /// A batch was acknowledged after so long.
    pub fn acknowledged(&mut self, after: Duration, now: Duration) {
        let after_ms = after.as_secs_f64() * 1000.0;
        self.answer_ms = if self.answers == 0 { after_ms } else { self.answer_ms + (after_ms - self.answer_ms) / 8.0 };
        self.answers = self.answers.saturating_add(1);
        let threshold = if self.slow { self.limits.slow_exit_ms } else { self.limits.slow_enter_ms };
        self.slow = self.answers >= ANSWERS_BEFORE_SLOW && self.answer_ms >= threshold as f64;
        self.outcome(0.0, now);
        self.show(now);
    }

    fn outcome(&mut self, loss: f64, now: Duration) {
        self.age(now);
        self.outcomes = (self.outcomes.0 + 1.0, self.outcomes.1 + loss);
        self.age(now);
    }

    fn age(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.outcomes_at).as_secs_f64();
        let weight = 0.5_f64.powf(passed / HALF_LIFE.as_secs_f64());
        self.outcomes = (self.outcomes.0 * weight, self.outcomes.1 * weight);
        self.outcomes_at = now;
        let percent = if self.lossy { self.limits.loss_exit_percent } else { self.limits.loss_enter_percent };
        let (all, losses) = self.outcomes;
        self.lossy = all >= ENOUGH && losses * 100.0 >= all * f64::from(percent);
    }

    /// What the link itself says, and whether its bytes cost money.
    pub fn told(&mut self, raw: &LinkState, metered: bool, now: Duration) {
        self.complaint = if let LinkState::Degraded { reason } = raw { Some(reason.clone()) } else { None };
        self.metered = metered;
        self.age(now);
        self.show(now);
    }

    /// When time alone may change the state: look again then, with [`show`](Self::show).
    pub fn next_look(&self, now: Duration) -> Option<Duration> {
        let hold = match self.connected_at {
            Some(at) if self.flapping => Some(at + Duration::from_millis(self.limits.up_hold_ms)),
            None if self.flapping => Some(self.down.0 + Duration::from_millis(self.limits.down_after_ms)),
            _ => None,
        };
        let recovered = self.trouble.as_ref().map(|(at, _)| *at + Duration::from_millis(self.limits.recover_ms));
        [hold, recovered].into_iter().flatten().filter(|at| *at > now).min().map(|at| at - now)
    }

    /// Judges anew.
    pub fn show(&mut self, now: Duration) {
        let held = |at: Duration, ms: u64| now.saturating_sub(at) >= Duration::from_millis(ms);
        let state = match self.connected_at {
            None if self.flapping && !held(self.down.0, self.limits.down_after_ms) => self.comes_and_goes(),
            None => {
                // A long absence is no flap: the next connection is as good as any.
                self.flapping &= !held(self.down.0, self.limits.flap_window_ms);
                LinkState::Down { since_ms: self.down.1, reason: self.down.2.clone() }
            }
            Some(at) => {
                if self.flapping && held(at, self.limits.up_hold_ms) {
                    // It has held; what it lost before is paid for with that.
                    (self.flapping, self.lossy, self.outcomes) = (false, false, (0.0, 0.0));
                }
                if let Some(reason) = self.sign() {
                    self.trouble = Some((now, reason));
                }
                if self.trouble.as_ref().is_some_and(|(at, _)| held(*at, self.limits.recover_ms))
                    && self.sign().is_none()
                {
                    self.trouble = None;
                }
                match &self.trouble {
                    Some((_, reason)) => LinkState::Degraded { reason: reason.clone() },
                    None if self.flapping => self.comes_and_goes(),
                    None if self.metered => LinkState::Metered,
                    None => LinkState::Up,
                }
            }
        };
        self.shown.send_if_modified(|shown| {
            let changed = *shown != state;
            *shown = state;
            changed
        });
    }

    fn comes_and_goes(&self) -> LinkState {
        let (losses, window_s) = (self.limits.flap_losses, self.limits.flap_window_ms / 1000);
        LinkState::Degraded {
            reason: format!("the connection comes and goes: lost {losses} times or more within {window_s} s"),
        }
    }

    /// What is wrong with the standing connection now.
    fn sign(&self) -> Option<String> {
        if let Some(complaint) = &self.complaint {
            return Some(complaint.clone());
        }
        if self.slow {
            return Some(format!("answers take longer than {} ms", self.limits.slow_exit_ms));
        }
        let lossy = self.lossy && !self.flapping;
        lossy.then(|| {
            format!("the connection was lost once for less than {} answers", 100 / self.limits.loss_exit_percent.max(1))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Clock, ManualClock};

    struct Bench {
        clock: ManualClock,
        judge: LinkJudge,
        state: watch::Receiver<LinkState>,
        /// Words that were shown, without repetition.
        seen: Vec<&'static str>,
    }

    impl Bench {
        fn new() -> Self {
            let clock = ManualClock::at(1_000_000);
            let judge = LinkJudge::new(LinkLimits::default(), clock.since_boot(), clock.wall_ms());
            let state = judge.state();
            Self { clock, judge, state, seen: Vec::new() }
        }

        fn note(&mut self) {
            let word = match &*self.state.borrow() {
                LinkState::Up => "up",
                LinkState::Metered => "metered",
                LinkState::Degraded { .. } => "degraded",
                LinkState::Down { .. } => "down",
            };
            if self.seen.last() != Some(&word) {
                self.seen.push(word);
            }
        }

        /// As the sender does: looks again when the judge says so.
        fn pass(&mut self, mut by: Duration) {
            while let Some(wait) = self.judge.next_look(self.clock.since_boot()).filter(|wait| *wait <= by) {
                self.clock.advance(wait);
                by -= wait;
                self.judge.show(self.clock.since_boot());
                self.note();
            }
            self.clock.advance(by);
        }

        fn connect(&mut self) {
            self.judge.connected(self.clock.since_boot());
            self.note();
        }

        fn lose(&mut self) {
            self.judge.lost("cut", self.clock.since_boot(), self.clock.wall_ms());
            self.note();
        }

        fn answer(&mut self, after_ms: u64) {
            self.judge.acknowledged(Duration::from_millis(after_ms), self.clock.since_boot());
            self.note();
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_clean_loss_is_down_and_up_again() {
        let mut bench = Bench::new();
        bench.connect();
        bench.pass(SECOND * 100);
        bench.lose();
        let down = LinkState::Down { since_ms: 1_100_000, reason: "cut".to_owned() };
        assert_eq!(*bench.state.borrow(), down);
        bench.pass(SECOND * 30);
        bench.lose();
        assert_eq!(*bench.state.borrow(), down, "a failed attempt is no new loss");
        bench.connect();
        assert_eq!(bench.seen, ["up", "down", "up"]);
    }

    #[test]
    fn a_square_wave_of_a_second_does_not_flap_and_a_link_that_holds_is_up_again() {
        let mut bench = Bench::new();
        for _ in 0..300 {
            bench.connect();
            bench.pass(SECOND);
            bench.lose();
            bench.pass(SECOND);
        }
        assert_eq!(bench.seen, ["up", "down", "up", "degraded"], "ten minutes of it");
        bench.connect();
        bench.pass(Duration::from_millis(14_999));
        assert_eq!(bench.seen.last(), Some(&"degraded"));
        bench.pass(Duration::from_millis(1));
        assert_eq!(bench.seen.last(), Some(&"up"));
    }

    #[test]
    fn a_flapping_link_that_stays_away_is_down() {
        let mut bench = Bench::new();
        for _ in 0..5 {
            bench.connect();
            bench.pass(SECOND);
            bench.lose();
            bench.pass(SECOND);
        }
        bench.pass(SECOND * 9);
        assert_eq!(bench.seen.last(), Some(&"down"));
        bench.pass(SECOND * 120);
        bench.lose();
        bench.connect();
        assert_eq!(bench.seen.last(), Some(&"up"), "that was long ago");
    }

    #[test]
    fn slow_answers_have_a_threshold_to_enter_and_a_lower_one_to_leave() {
        let mut bench = Bench::new();
        bench.connect();
        for _ in 0..3 {
            bench.answer(9_000);
        }
        assert_eq!(bench.seen, ["up"], "three answers say nothing");
        bench.answer(9_000);
        assert_eq!(bench.seen.last(), Some(&"degraded"));
        while bench.judge.answer_ms() >= 4_000.0 {
            bench.pass(SECOND);
            bench.answer(3_000);
        }
        bench.pass(SECOND * 60);
        assert_eq!(bench.seen.last(), Some(&"degraded"), "below the entry, above the exit");
        while bench.judge.answer_ms() >= 2_500.0 {
            bench.answer(100);
        }
        assert_eq!(bench.seen.last(), Some(&"degraded"), "not at once");
        bench.pass(SECOND * 5);
        assert_eq!(bench.seen, ["up", "degraded", "up"]);
    }

    #[test]
    fn answers_that_alternate_by_the_second_do_not_flap() {
        let mut bench = Bench::new();
        bench.connect();
        let refused = LinkState::Degraded { reason: "the broker refuses a topic".to_owned() };
        for _ in 0..100 {
            for raw in [&refused, &LinkState::Up] {
                bench.judge.told(raw, false, bench.clock.since_boot());
                bench.note();
                bench.pass(SECOND);
            }
        }
        assert_eq!(bench.seen, ["up", "degraded"]);
        bench.pass(SECOND * 5);
        assert_eq!(bench.seen.last(), Some(&"up"));
    }

    #[test]
    fn a_line_that_loses_often_is_degraded_and_one_cut_is_nothing() {
        // Losses far enough apart not to count as coming and going.
        let limits = LinkLimits { flap_window_ms: 1_000, ..LinkLimits::default() };
        let mut bench = Bench::new();
        bench.judge.limits = limits;
        let round = |bench: &mut Bench, answers: u32| {
            for _ in 0..answers {
                bench.answer(10);
            }
            bench.pass(SECOND * 2);
            bench.lose();
            bench.connect();
        };
        bench.connect();
        round(&mut bench, 20);
        assert_eq!(bench.seen, ["up", "down", "up"]);
        for _ in 0..12 {
            round(&mut bench, 3);
        }
        assert_eq!(bench.seen.last(), Some(&"degraded"), "one loss for three answers");
        for _ in 0..200 {
            bench.answer(10);
        }
        bench.pass(SECOND * 5);
        assert_eq!(bench.seen.last(), Some(&"up"));
    }

    #[test]
    fn a_metered_link_says_so_unless_something_is_wrong_with_it() {
        let mut bench = Bench::new();
        bench.connect();
        bench.judge.told(&LinkState::Up, true, bench.clock.since_boot());
        bench.note();
        bench.lose();
        bench.connect();
        assert_eq!(bench.seen, ["up", "metered", "down", "metered"]);
    }
}
