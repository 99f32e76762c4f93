//! A circuit breaker: one that fails is left alone for a while, then tried with one request at a time.
//!
//! The states are those of Nygard's "Release It!": closed (asked like everybody), open (not asked), half-open (asked by
//! one request at a time, until some have been answered in a row). What opens it is either failures in a row, or a share
//! of the requests in a window that moves on with time.

use std::fmt;
use std::time::Duration;

use rand::Rng;

use super::window::Window;
use crate::base::Backoff;

/// When a breaker opens, for how long, and what closes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Failures in a row that open it; 0: none do.
    pub failures: u32,
    /// Percent of the requests in the window that open it when they failed; 0: none do.
    pub failure_percent: u8,
    /// With fewer requests in the window the share says nothing.
    pub requests_min: u32,
    /// How far back the share looks.
    pub window: Duration,
    /// How long it stays open the first time; about twice as long each time that it opens again.
    pub open: Duration,
    /// The longest of these times.
    pub open_most: Duration,
    /// Answers in a row, one request at a time, that close it.
    pub probes: u32,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            failures: 5,
            failure_percent: 50,
            requests_min: 20,
            window: Duration::from_secs(60),
            open: Duration::from_secs(5),
            open_most: Duration::from_secs(120),
            probes: 3,
        }
    }
}

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// An answer, in time.
    Answered,
    /// None, or one that took too long.
    Failed,
}

/// Leave to ask. Whoever has it gives it back, with an outcome or without.
#[derive(Debug, PartialEq, Eq)]
pub enum Ticket {
    /// Like everybody.
    Usual,
    /// The one request that tries whether it is well again.
    Probe,
}

/// It is not to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Why it is open.
    pub why: Why,
    /// Until it is tried again; none: somebody tries it now.
    pub retry_in: Option<Duration>,
}

/// Why a breaker is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// So many failures in a row.
    InARow(u32),
    /// So many of so many within the window.
    Share {
        /// Failures.
        failed: u32,
        /// Requests.
        of: u32,
        /// The window in seconds.
        window_s: u64,
    },
    /// It was tried, and failed again.
    Again,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InARow(failures) => write!(f, "{failures} failures in a row"),
            Self::Share { failed, of, window_s } => write!(f, "{failed} of {of} requests failed within {window_s} s"),
            Self::Again => f.write_str("the request that tried it again failed"),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.retry_in {
            Some(wait) => write!(f, "its breaker is open for {} ms more: {}", wait.as_millis(), self.why),
            None => write!(f, "its breaker is open, and another request tries it: {}", self.why),
        }
    }
}

/// What a breaker did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// From now on it is not asked, for so long.
    Opened(Why, Duration),
    /// It is asked like everybody again.
    Closed,
}

/// A breaker as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerState {
    /// `closed`, `open` or `half_open`.
    pub word: &'static str,
    /// Why it is not closed.
    pub why: Option<Why>,
    /// Until it is tried again.
    pub retry_in: Option<Duration>,
    /// Failures in a row while closed.
    pub in_a_row: u32,
    /// Requests within the window.
    pub requests: u32,
    /// Of these without an answer in time.
    pub failed: u32,
    /// How often it opened.
    pub opened: u64,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Closed { in_a_row: u32 },
    Open { until: Duration, why: Why },
    HalfOpen { answered: u32, probing: bool, why: Why },
}

/// The breaker of one candidate.
#[derive(Debug)]
pub struct Breaker {
    terms: Terms,
    phase: Phase,
    window: Window,
    waits: Backoff,
    opened: u64,
}

impl Breaker {
    /// Closed.
    pub fn new(terms: Terms) -> Self {
        let (window, waits) = (Window::new(terms.window), Backoff::new(terms.open, terms.open_most));
        Self { terms, phase: Phase::Closed { in_a_row: 0 }, window, waits, opened: 0 }
    }

    /// Whether [`admit`](Self::admit) would give leave, without taking it.
    pub fn admits(&self, now: Duration) -> bool {
        self.refusal(now).is_none()
    }

    /// Why [`admit`](Self::admit) would give no leave.
    pub fn refusal(&self, now: Duration) -> Option<Refused> {
        match self.phase {
            Phase::Open { until, why } if now < until => Some(Refused { why, retry_in: Some(until - now) }),
            Phase::HalfOpen { probing: true, why, .. } => Some(Refused { why, retry_in: None }),
            Phase::Closed { .. } | Phase::Open { .. } | Phase::HalfOpen { .. } => None,
        }
    }

    /// Leave to ask, or why not. `now` is since boot.
    pub fn admit(&mut self, now: Duration) -> Result<Ticket, Refused> {
        match &mut self.phase {
            Phase::Closed { .. } => Ok(Ticket::Usual),
            Phase::Open { until, why } if now < *until => Err(Refused { why: *why, retry_in: Some(*until - now) }),
            Phase::Open { why, .. } => {
                self.phase = Phase::HalfOpen { answered: 0, probing: true, why: *why };
                Ok(Ticket::Probe)
            }
            Phase::HalfOpen { probing: true, why, .. } => Err(Refused { why: *why, retry_in: None }),
            Phase::HalfOpen { probing, .. } => {
                *probing = true;
                Ok(Ticket::Probe)
            }
        }
    }

    /// Takes back a ticket whose request says nothing about the candidate: the caller's own mistake, or one who left.
    pub fn forget(&mut self, ticket: &Ticket) {
        if let (Ticket::Probe, Phase::HalfOpen { probing, .. }) = (ticket, &mut self.phase) {
            *probing = false;
        }
    }

    /// Takes back a ticket with what came of it. `rng` spreads the times at which several breakers try again.
    pub fn settle(&mut self, ticket: &Ticket, outcome: Outcome, now: Duration, rng: &mut impl Rng) -> Option<Change> {
        match (ticket, &mut self.phase) {
            (Ticket::Usual, Phase::Closed { in_a_row }) => {
                self.window.add(outcome == Outcome::Failed, now);
                if outcome == Outcome::Answered {
                    *in_a_row = 0;
                    return None;
                }
                *in_a_row = in_a_row.saturating_add(1);
                let why = self.trips(now)?;
                Some(self.open(why, now, rng))
            }
            (Ticket::Probe, Phase::HalfOpen { answered, probing, .. }) => {
                if outcome == Outcome::Failed {
                    return Some(self.open(Why::Again, now, rng));
                }
                *answered += 1;
                *probing = false;
                (*answered >= self.terms.probes).then(|| {
                    self.phase = Phase::Closed { in_a_row: 0 };
                    self.window = Window::new(self.terms.window);
                    self.waits.reset();
                    Change::Closed
                })
            }
            // Asked before it opened: what came of it is known by now.
            (Ticket::Usual, Phase::Open { .. } | Phase::HalfOpen { .. })
            // A probe ends its phase by itself, so there is none outside of it.
            | (Ticket::Probe, Phase::Closed { .. } | Phase::Open { .. }) => None,
        }
    }

    fn trips(&mut self, now: Duration) -> Option<Why> {
        let terms = &self.terms;
        if let Phase::Closed { in_a_row } = self.phase
            && terms.failures > 0
            && in_a_row >= terms.failures
        {
            return Some(Why::InARow(in_a_row));
        }
        let (of, failed) = self.window.counts(now);
        let share = terms.failure_percent > 0
            && of >= terms.requests_min.max(1)
            && u64::from(failed) * 100 >= u64::from(of) * u64::from(terms.failure_percent);
        share.then_some(Why::Share { failed, of, window_s: terms.window.as_secs() })
    }

    fn open(&mut self, why: Why, now: Duration, rng: &mut impl Rng) -> Change {
        let wait = self.waits.next_wait(rng);
        self.phase = Phase::Open { until: now + wait, why };
        self.opened += 1;
        Change::Opened(why, wait)
    }

    /// Whether it is asked like everybody.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed { .. })
    }

    /// For people.
    pub fn state(&self, now: Duration) -> BreakerState {
        let (requests, failed) = self.window.counts(now);
        let state = |word, why, retry_in, in_a_row| BreakerState {
            word,
            why,
            retry_in,
            in_a_row,
            requests,
            failed,
            opened: self.opened,
        };
        match self.phase {
            Phase::Closed { in_a_row } => state("closed", None, None, in_a_row),
            Phase::Open { until, why } if now < until => state("open", Some(why), Some(until - now), 0),
            // The next request tries it.
            Phase::Open { why, .. } | Phase::HalfOpen { why, .. } => state("half_open", Some(why), None, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    const FAILED: Outcome = Outcome::Failed;
    const ANSWERED: Outcome = Outcome::Answered;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn only_in_a_row() -> Terms {
        Terms { failures: 3, failure_percent: 0, probes: 2, ..Terms::default() }
    }

    struct Bench(Breaker, StdRng);

    impl Bench {
        fn new(terms: Terms) -> Self {
            Self(Breaker::new(terms), StdRng::seed_from_u64(3))
        }

        /// One request from beginning to end.
        fn request(&mut self, outcome: Outcome, now: Duration) -> Result<Option<Change>, Refused> {
            let ticket = self.0.admit(now)?;
            Ok(self.0.settle(&ticket, outcome, now, &mut self.1))
        }

        fn opens_after(&mut self, now: Duration) -> Duration {
            match self.request(FAILED, now) {
                Ok(Some(Change::Opened(_, wait))) => wait,
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn failures_in_a_row_open_it_and_an_answer_between_them_does_not() {
        let mut bench = Bench::new(only_in_a_row());
        for outcome in [FAILED, FAILED, ANSWERED, FAILED, FAILED] {
            assert_eq!(bench.request(outcome, at(0)), Ok(None));
        }
        assert_eq!(bench.0.state(at(0)).in_a_row, 2);
        assert!(matches!(bench.request(FAILED, at(0)), Ok(Some(Change::Opened(Why::InARow(3), _)))));
        let refused = bench.request(ANSWERED, at(1)).unwrap_err();
        assert!(refused.to_string().contains("3 failures in a row"), "{refused}");
        let state = bench.0.state(at(1));
        assert_eq!((state.word, state.opened, state.failed, state.requests), ("open", 1, 5, 6));
    }

    #[test]
    fn a_share_of_failures_opens_it_only_with_enough_requests_within_the_window() {
        let terms = Terms { failures: 0, failure_percent: 50, requests_min: 10, ..Terms::default() };
        let mut bench = Bench::new(terms.clone());
        for n in 0..9 {
            assert_eq!(bench.request(if n % 2 == 0 { FAILED } else { ANSWERED }, at(n * 10)), Ok(None));
        }
        // The same spread over an hour: there are never enough of them.
        let mut slow = Bench::new(terms);
        for n in 0..100 {
            assert_eq!(slow.request(FAILED, Duration::from_secs(n * 40)), Ok(None), "{n}");
        }
        let opened = bench.request(FAILED, at(100)).unwrap();
        assert!(
            matches!(opened, Some(Change::Opened(Why::Share { failed: 6, of: 10, window_s: 60 }, _))),
            "{opened:?}"
        );
    }

    #[test]
    fn it_is_tried_by_one_request_at_a_time_and_closes_after_enough_answers() {
        let mut bench = Bench::new(only_in_a_row());
        bench.request(FAILED, at(0)).unwrap();
        bench.request(FAILED, at(0)).unwrap();
        let wait = bench.opens_after(at(0));
        assert!(wait >= at(2500) && wait <= at(5000), "{wait:?}");
        assert!(bench.0.admit(wait - at(1)).is_err() && !bench.0.admits(wait - at(1)));
        assert!(bench.0.admits(wait));
        assert_eq!(bench.0.state(wait).word, "half_open");
        let probe = bench.0.admit(wait).unwrap();
        assert_eq!(probe, Ticket::Probe);
        assert_eq!(bench.0.admit(wait).unwrap_err().retry_in, None, "one is enough");
        bench.0.forget(&probe);
        let probe = bench.0.admit(wait).expect("the one before went away");
        assert_eq!(bench.0.settle(&probe, ANSWERED, wait, &mut bench.1), None);
        assert_eq!(bench.request(ANSWERED, wait), Ok(Some(Change::Closed)));
        let state = bench.0.state(wait);
        assert_eq!((state.word, state.requests, state.in_a_row), ("closed", 0, 0), "it starts over");
    }

    #[test]
    fn one_that_fails_again_is_left_alone_for_longer_each_time_up_to_the_most() {
        let mut bench = Bench::new(Terms { failures: 1, open_most: at(20_000), ..Terms::default() });
        let mut now = at(0);
        for most in [5000, 10_000, 20_000, 20_000, 20_000] {
            let wait = bench.opens_after(now);
            assert!(wait >= at(most / 2) && wait <= at(most), "{wait:?} of {most}");
            now += wait;
        }
        for _ in 0..3 {
            bench.request(ANSWERED, now).unwrap();
        }
        assert!(bench.opens_after(now) <= at(5000), "being well again starts over");
    }

    #[test]
    fn what_was_asked_before_it_opened_says_nothing_afterwards() {
        let mut bench = Bench::new(only_in_a_row());
        let early: Vec<_> = (0..2).map(|_| bench.0.admit(at(0)).unwrap()).collect();
        for _ in 0..3 {
            bench.request(FAILED, at(0)).unwrap();
        }
        for (ticket, outcome) in early.iter().zip([ANSWERED, FAILED]) {
            assert_eq!(bench.0.settle(ticket, outcome, at(1), &mut bench.1), None);
        }
        assert_eq!(bench.0.state(at(1)).word, "open");
    }

    #[test]
    fn with_nothing_that_opens_it_it_stays_closed() {
        let mut bench = Bench::new(Terms { failures: 0, failure_percent: 0, ..Terms::default() });
        for n in 0..1000 {
            assert_eq!(bench.request(FAILED, at(n)), Ok(None));
        }
    }

    proptest! {
        /// Whatever happens: at most one probe is out, an open breaker lets nobody through before its time, and it can
        /// always be asked again at some time.
        #[test]
        fn it_never_lets_two_try_it_and_never_stays_shut(
            steps in prop::collection::vec((0_u8..4, 0_u64..8000), 1..200), seed: u64,
        ) {
            let mut bench = Bench(Breaker::new(only_in_a_row()), StdRng::seed_from_u64(seed));
            let (mut now, mut tickets) = (at(0), Vec::new());
            for (step, ms) in steps {
                match step {
                    0 => now += at(ms),
                    1 => {
                        let admits = bench.0.admits(now);
                        let state = bench.0.state(now);
                        match bench.0.admit(now) {
                            Ok(ticket) => {
                                prop_assert!(admits && state.word != "open");
                                tickets.push(ticket);
                            }
                            Err(refused) => {
                                prop_assert!(!admits);
                                prop_assert!(refused.retry_in.is_none_or(|wait| wait > Duration::ZERO && wait <= at(120_000)));
                            }
                        }
                    }
                    2 => if let Some(ticket) = tickets.pop() {
                        bench.0.settle(&ticket, if ms % 2 == 0 { FAILED } else { ANSWERED }, now, &mut bench.1);
                    },
                    _ => if let Some(ticket) = tickets.pop() {
                        bench.0.forget(&ticket);
                    },
                }
                prop_assert!(tickets.iter().filter(|ticket| **ticket == Ticket::Probe).count() <= 1);
            }
            tickets.iter().for_each(|ticket| bench.0.forget(ticket));
            prop_assert!(bench.0.admits(now + at(120_000)));
        }
    }
}
