//! Who is asked next: the plan's order, retries at the same candidate, and the budget that keeps retries from becoming a storm.

use std::fmt;
use std::time::Duration;

use rand::Rng;

use super::config::Retries;
use super::fault::Fault;
use super::plan::Plan;

/// A thousandth of a retry.
const MILLI: u64 = 1000;
/// Retries that can be saved up, in seconds of `budget_per_s` plus what this many requests pay in.
const SAVED_S: u64 = 10;
const SAVED_REQUESTS: u64 = 1000;

/// Retries as a share of the requests, after Finagle's `RetryBudget`: a token bucket into which each request pays
/// `budget_percent` of a retry, and each second `budget_per_s` retries, so that little traffic can retry, too. A retry at
/// the same candidate and a hedge take one out; going on to the next candidate of the plan is free, because it moves load
/// instead of adding to it, and because the plan is bounded.
#[derive(Debug, Clone)]
pub struct RetryBudget {
    percent: u64,
    per_s: u64,
    milli: u64,
    most: u64,
    at: Duration,
}

impl RetryBudget {
    /// With what `budget_per_s` pays in ten seconds.
    pub fn new(retries: &Retries, now: Duration) -> Self {
        let (percent, per_s) = (u64::from(retries.budget_percent), u64::from(retries.budget_per_s));
        let reserve = per_s * SAVED_S * MILLI;
        Self { percent, per_s, milli: reserve, most: reserve + percent * 10 * SAVED_REQUESTS, at: now }
    }

    /// A request came in.
    pub fn pay_in(&mut self, now: Duration) {
        self.tick(now);
        self.milli = (self.milli + self.percent * 10).min(self.most);
    }

    /// Takes one retry, if there is one.
    pub fn take(&mut self, now: Duration) -> bool {
        self.tick(now);
        let left = self.milli.checked_sub(MILLI);
        self.milli = left.unwrap_or(self.milli);
        left.is_some()
    }

    fn tick(&mut self, now: Duration) {
        let elapsed = u64::try_from(now.saturating_sub(self.at).as_millis()).unwrap_or(u64::MAX);
        // Whole thousandths only: the rest of the time counts the next time.
        let paid = elapsed.saturating_mul(self.per_s);
        if paid > 0 {
            self.milli = self.milli.saturating_add(paid).min(self.most);
        }
        self.at = self.at.max(now);
    }
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Ask this candidate (a place in [`Route::candidates`](super::Route::candidates)) after `wait`.
    Ask {
        /// The place.
        candidate: usize,
        /// Zero but for a retry at the same candidate.
        wait: Duration,
    },
    /// Tell the caller.
    Stop(End),
}

/// Why nobody is asked any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Nobody else could answer this, or nobody else should.
    Final,
    /// Everybody in the plan was asked.
    NobodyLeft,
    /// As many attempts as the route allows.
    AttemptsSpent,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Final => "nobody else is asked after this",
            Self::NobodyLeft => "everybody who could be asked was",
            Self::AttemptsSpent => "the route's attempts are used up",
        })
    }
}

/// The attempts of one request along its plan.
#[derive(Debug, Clone)]
pub struct Attempts<'p> {
    plan: &'p Plan<'p>,
    /// Place in the plan's order.
    at: usize,
    made: u32,
    at_this_one: u32,
}

impl<'p> Attempts<'p> {
    /// Nobody was asked yet.
    pub fn new(plan: &'p Plan<'p>) -> Self {
        Self { plan, at: 0, made: 0, at_this_one: 0 }
    }

    /// How many were begun.
    pub fn made(&self) -> u32 {
        self.made
    }

    /// Whom to ask first.
    pub fn first(&mut self) -> Step {
        self.go()
    }

    /// Whom to ask after the last one failed with `fault`.
    pub fn after(&mut self, fault: Fault, budget: &mut RetryBudget, now: Duration, rng: &mut impl Rng) -> Step {
        let route = self.plan.route();
        let retries = route.retries();
        match fault {
            Fault::BadRequest | Fault::Cut | Fault::Cancelled => return Step::Stop(End::Final),
            Fault::ContentRefused if !retries.after_content_refused => return Step::Stop(End::Final),
            Fault::TooLong => return self.longer(),
            _ => {}
        }
        // The last attempt is worth more at somebody else.
        let could_go_on = self.at + 1 < self.plan.len();
        let last = self.made + 1 >= retries.attempts_max;
        if fault.passes()
            && self.at_this_one <= retries.same_candidate_max
            && !(last && could_go_on)
            && self.made < retries.attempts_max
            && budget.take(now)
        {
            let step = retries.wait_ms.saturating_mul(1 << (self.at_this_one - 1).min(6));
            self.made += 1;
            self.at_this_one += 1;
            let wait = Duration::from_millis(step).mul_f64(rng.random_range(0.5..=1.0));
            return Step::Ask { candidate: self.plan.candidate_at(self.at), wait };
        }
        self.skip()
    }

    /// Whom to ask when the last one could not be asked at all: its breaker opened since the plan was made.
    /// That was no attempt.
    pub fn refused(&mut self) -> Step {
        self.made = self.made.saturating_sub(1);
        self.skip()
    }

    /// The next one that nobody has asked, for a hedge; none if there is none, or no attempt or retry left. From then on
    /// it counts as asked.
    pub fn hedge(&mut self, budget: &mut RetryBudget, now: Duration) -> Option<usize> {
        let left = self.at + 1 < self.plan.len() && self.made < self.plan.route().retries().attempts_max;
        if !left || !budget.take(now) {
            return None;
        }
        match self.skip() {
            Step::Ask { candidate, .. } => Some(candidate),
            Step::Stop(_) => None,
        }
    }

    /// The next one that takes more than the one that was too short for it.
    fn longer(&mut self) -> Step {
        let candidates = self.plan.route().candidates();
        let short = candidates[self.plan.candidate_at(self.at)].context_tokens();
        let longer = |at: &usize| {
            let context = candidates[self.plan.candidate_at(*at)].context_tokens();
            context.is_none() || short.is_none() || context > short
        };
        match (self.at + 1..self.plan.len()).find(longer) {
            Some(at) => {
                self.at = at;
                self.go()
            }
            None => Step::Stop(End::NobodyLeft),
        }
    }

    fn skip(&mut self) -> Step {
        self.at += 1;
        self.go()
    }

    fn go(&mut self) -> Step {
        if self.at >= self.plan.len() {
            return Step::Stop(End::NobodyLeft);
        }
        if self.made >= self.plan.route().retries().attempts_max {
            return Step::Stop(End::AttemptsSpent);
        }
        self.made += 1;
        self.at_this_one = 1;
        Step::Ask { candidate: self.plan.candidate_at(self.at), wait: Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Ask, RouteConfig, Routes, Standing};
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn routes(retries: &str) -> Routes {
        let text = format!(
            "name = 'r'\nmodels = ['m']\nretries = {{ {retries} }}\n[[candidate]]\nprovider = 'a'\ncontext_tokens = 100\n\
             [[candidate]]\nprovider = 'b'\ncontext_tokens = 50\n[[candidate]]\nprovider = 'c'\ncontext_tokens = 200\n\
             [[candidate]]\nprovider = 'd'\n"
        );
        Routes::new(&[toml::from_str::<RouteConfig>(&text).unwrap()]).unwrap()
    }

    /// Whom these faults, one after the other, lead to, and how it ends if it does.
    fn walk(retries: &str, faults: &[Fault], budget: &mut RetryBudget) -> (Vec<usize>, Option<End>) {
        let routes = routes(retries);
        let plan = routes.decide(&Ask::new("m", "chat", 1), |_, _| Standing::default()).unwrap();
        let (mut attempts, mut rng) = (Attempts::new(&plan), StdRng::seed_from_u64(1));
        let mut step = attempts.first();
        let mut asked = Vec::new();
        for at in 0..=faults.len() {
            match step {
                Step::Ask { candidate, wait } => {
                    let again = asked.last() == Some(&candidate);
                    assert_eq!(again, !wait.is_zero(), "only a retry at the same candidate waits");
                    asked.push(candidate);
                }
                Step::Stop(end) => return (asked, Some(end)),
            }
            if let Some(fault) = faults.get(at) {
                step = attempts.after(*fault, budget, ms(0), &mut rng);
            }
        }
        (asked, None)
    }

    fn budget() -> RetryBudget {
        RetryBudget::new(&Retries::default(), ms(0))
    }

    #[test]
    fn who_fails_is_followed_by_the_next_until_nobody_or_no_attempt_is_left() {
        let faults = [Fault::Unavailable, Fault::Timeout, Fault::Unauthorized, Fault::Malformed];
        assert_eq!(walk("", &faults, &mut budget()), (vec![0, 1, 2, 3], Some(End::NobodyLeft)));
        assert_eq!(walk("attempts_max = 2", &faults, &mut budget()), (vec![0, 1], Some(End::AttemptsSpent)));
    }

    #[test]
    fn what_everybody_would_refuse_is_final() {
        for fault in [Fault::BadRequest, Fault::Cut, Fault::Cancelled, Fault::ContentRefused] {
            assert_eq!(walk("", &[fault], &mut budget()), (vec![0], Some(End::Final)));
        }
        assert_eq!(walk("after_content_refused = true", &[Fault::ContentRefused], &mut budget()).0, [0, 1]);
    }

    #[test]
    fn a_request_that_is_too_long_goes_to_those_who_take_more() {
        assert_eq!(walk("", &[Fault::TooLong], &mut budget()).0, [0, 2]);
        assert_eq!(walk("", &[Fault::TooLong; 3], &mut budget()), (vec![0, 2, 3], Some(End::NobodyLeft)));
    }

    #[test]
    fn a_retry_is_for_what_may_pass_and_the_last_attempt_for_somebody_else() {
        let retries = "same_candidate_max = 2, attempts_max = 4";
        assert_eq!(walk(retries, &[Fault::Unavailable; 3], &mut budget()).0, [0, 0, 0, 1]);
        assert_eq!(walk("same_candidate_max = 9, attempts_max = 3", &[Fault::Timeout; 2], &mut budget()).0, [0, 0, 1]);
        let limited = Fault::RateLimited { retry_after: None };
        assert_eq!(walk(retries, &[limited, Fault::Unauthorized], &mut budget()).0, [0, 1, 2]);
    }

    #[test]
    fn without_budget_nobody_is_retried_and_the_next_one_is_still_asked() {
        let mut empty = RetryBudget::new(&Retries { budget_per_s: 0, ..Retries::default() }, ms(0));
        assert_eq!(walk("same_candidate_max = 3", &[Fault::Unavailable; 2], &mut empty).0, [0, 1, 2]);
    }

    #[test]
    fn waits_double_within_their_jitter() {
        let routes = routes("same_candidate_max = 9, attempts_max = 9, wait_ms = 100");
        let plan = routes.decide(&Ask::new("m", "chat", 1), |_, _| Standing::default()).unwrap();
        let (mut attempts, mut rng, mut budget) = (Attempts::new(&plan), StdRng::seed_from_u64(1), budget());
        attempts.first();
        for step in [100, 200, 400, 800] {
            let Step::Ask { candidate: 0, wait } = attempts.after(Fault::Timeout, &mut budget, ms(0), &mut rng) else {
                panic!("a retry");
            };
            assert!(wait >= ms(step / 2) && wait <= ms(step), "{wait:?} for {step}");
        }
        assert_eq!(attempts.made(), 5);
    }

    #[test]
    fn one_who_could_not_be_asked_is_no_attempt() {
        let routes = routes("attempts_max = 1");
        let plan = routes.decide(&Ask::new("m", "chat", 1), |_, _| Standing::default()).unwrap();
        let mut attempts = Attempts::new(&plan);
        attempts.first();
        assert_eq!(attempts.refused(), Step::Ask { candidate: 1, wait: Duration::ZERO });
        assert_eq!(attempts.made(), 1);
    }

    #[test]
    fn a_hedge_asks_the_next_one_and_takes_from_the_budget() {
        let routes = routes("attempts_max = 3");
        let plan = routes.decide(&Ask::new("m", "chat", 1), |_, _| Standing::default()).unwrap();
        let (mut attempts, mut budget) = (
            Attempts::new(&plan),
            RetryBudget::new(&Retries { budget_per_s: 1, budget_percent: 0, ..Retries::default() }, ms(0)),
        );
        attempts.first();
        (0..9).for_each(|_| assert!(budget.take(ms(0))));
        assert_eq!(attempts.hedge(&mut budget, ms(0)), Some(1));
        assert_eq!(attempts.hedge(&mut budget, ms(0)), None, "the budget is used up");
        assert_eq!(attempts.hedge(&mut budget, ms(1000)), Some(2));
        assert_eq!(attempts.hedge(&mut budget, ms(9000)), None, "three attempts are made");
    }

    #[test]
    fn retries_are_a_share_of_the_requests() {
        let mut budget =
            RetryBudget::new(&Retries { budget_percent: 20, budget_per_s: 0, ..Retries::default() }, ms(0));
        let mut taken = 0;
        for _ in 0..1000 {
            budget.pay_in(ms(0));
            taken += u32::from(budget.take(ms(0)));
        }
        assert_eq!(taken, 200);
        // What was saved is bounded: a night of requests is no storm in the morning.
        (0..1_000_000).for_each(|_| budget.pay_in(ms(0)));
        assert_eq!((0..10_000).filter(|_| budget.take(ms(0))).count(), 200);
    }

    #[test]
    fn little_traffic_can_retry_too_and_time_pays_in_every_millisecond() {
        let mut budget = RetryBudget::new(&Retries { budget_percent: 0, budget_per_s: 2, ..Retries::default() }, ms(0));
        assert_eq!((0..100).filter(|_| budget.take(ms(0))).count(), 20, "ten seconds' worth to begin with");
        assert_eq!((1..=3000).filter(|at| budget.take(ms(*at))).count(), 6);
        assert_eq!((0..100).filter(|_| budget.take(Duration::MAX)).count(), 20);
        assert!(!budget.take(ms(0)), "a clock that went back pays nothing");
    }
}
