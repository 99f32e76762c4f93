//! How one target is doing: its breaker, whether it asked to be left alone, its probes, its times, who waits for it.

use std::fmt;
use std::time::Duration;

use rand::Rng;

use super::breaker::{Breaker, BreakerState, Change, Outcome, Refused, Ticket};
use super::config::{Hedge, Settings};
use super::fault::Fault;
use super::latency::{PeakEwma, Percentiles};

/// Times that say enough for a percentile.
const TIMES_MIN: u32 = 20;

/// Why a target is not to be asked now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Its breaker is open.
    Breaker(Refused),
    /// It said when to come back (`Retry-After`), so long from now.
    RetryAfter(Duration),
    /// So many of its probes failed in a row.
    Unhealthy(u32),
    /// A limit of the gateway's own for this target is used up, for so long; whoever counts says so.
    Limited(Duration),
}

impl Held {
    /// Until it may be asked, where that is known.
    pub fn retry_in(&self) -> Option<Duration> {
        match self {
            Self::Breaker(refused) => refused.retry_in,
            Self::RetryAfter(wait) | Self::Limited(wait) => Some(*wait),
            Self::Unhealthy(_) => None,
        }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Breaker(refused) => refused.fmt(f),
            Self::RetryAfter(wait) => write!(f, "it asked to be left alone for {} ms more", wait.as_millis()),
            Self::Unhealthy(probes) => write!(f, "{probes} of its probes failed in a row"),
            Self::Limited(wait) => write!(f, "its limit here is used up for {} ms more", wait.as_millis()),
        }
    }
}

/// A target at one moment, as the choice needs it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Standing {
    /// Why it is not to be asked; none: it is.
    pub held: Option<Held>,
    /// Average time to the first byte of an answer; none: never measured.
    pub latency: Option<Duration>,
    /// Requests that it has now.
    pub busy: u32,
    /// What this request would cost there, in pico-USD; none: unknown, which is never taken for cheap. Only asked for
    /// by routes with the strategy `cost`.
    pub cost: Option<u64>,
}

/// Leave to ask, to be given back with [`Vitals::settle`] or [`Vitals::forget`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a leave that is not given back keeps the target busy"]
pub struct Leave(Ticket);

/// The state of one target. A few hundred bytes, whatever it is asked.
#[derive(Debug)]
pub struct Vitals {
    breaker: Breaker,
    latency: PeakEwma,
    times: Percentiles,
    busy: u32,
    held_until: Option<Duration>,
    retry_after: Duration,
    retry_after_max: Duration,
    /// Probes that failed in a row; while unhealthy, those that succeeded.
    probes: u32,
    unhealthy: bool,
    unhealthy_after: u32,
    healthy_after: u32,
}

impl Vitals {
    /// Healthy, never asked.
    pub fn new(settings: &Settings) -> Self {
        Self {
            breaker: Breaker::new(settings.breaker.terms()),
            latency: PeakEwma::new(Duration::from_millis(settings.latency_memory_ms)),
            times: Percentiles::new(),
            busy: 0,
            held_until: None,
            retry_after: Duration::from_millis(settings.retry_after_ms),
            retry_after_max: Duration::from_millis(settings.retry_after_max_ms),
            probes: 0,
            unhealthy: false,
            unhealthy_after: settings.unhealthy_after,
            healthy_after: settings.healthy_after,
        }
    }

    /// For the choice. `now` is since boot, here and below.
    pub fn standing(&self, now: Duration) -> Standing {
        let waits = self.held_until.and_then(|until| until.checked_sub(now)).filter(|wait| !wait.is_zero());
        let held = if self.unhealthy {
            Some(Held::Unhealthy(self.unhealthy_after))
        } else {
            waits.map(Held::RetryAfter).or_else(|| self.breaker.refusal(now).map(Held::Breaker))
        };
        Standing { held, latency: self.latency.read(now, self.busy == 0), busy: self.busy, cost: None }
    }

    /// Leave to ask, or why not: another request may have been quicker since the choice.
    pub fn begin(&mut self, now: Duration) -> Result<Leave, Held> {
        if let Some(held) = self.standing(now).held {
            return Err(held);
        }
        let ticket = self.breaker.admit(now).map_err(Held::Breaker)?;
        self.busy = self.busy.saturating_add(1);
        Ok(Leave(ticket))
    }

    /// An answer began after `took`.
    pub fn began(&mut self, took: Duration, now: Duration) {
        self.latency.add(took, now);
        self.times.add(took);
    }

    /// Answered whole.
    pub fn settle(&mut self, leave: &Leave, now: Duration, rng: &mut impl Rng) -> Option<Change> {
        self.busy = self.busy.saturating_sub(1);
        self.breaker.settle(&leave.0, Outcome::Answered, now, rng)
    }

    /// Not answered; `took` until that was clear. What is not the target's fault says nothing about it.
    pub fn fail(
        &mut self,
        leave: &Leave,
        fault: Fault,
        took: Duration,
        now: Duration,
        rng: &mut impl Rng,
    ) -> Option<Change> {
        self.busy = self.busy.saturating_sub(1);
        if let Some(wait) = fault.holds(self.retry_after) {
            let until = now + wait.min(self.retry_after_max);
            self.held_until = Some(self.held_until.map_or(until, |held| held.max(until)));
        }
        if !fault.counts() {
            self.breaker.forget(&leave.0);
            return None;
        }
        if fault == Fault::Timeout {
            self.latency.add(took, now);
        }
        self.breaker.settle(&leave.0, Outcome::Failed, now, rng)
    }

    /// Gives leave back without an outcome: the caller left, or a hedge was answered by somebody else.
    pub fn forget(&mut self, leave: &Leave) {
        self.busy = self.busy.saturating_sub(1);
        self.breaker.forget(&leave.0);
    }

    /// Whether something is wrong with it: its breaker is not closed, or its probes failed.
    pub fn is_failing(&self, now: Duration) -> bool {
        self.unhealthy || !self.breaker.is_closed() || self.breaker.refusal(now).is_some()
    }

    /// A probe came back. Whether that changed its health.
    pub fn probed(&mut self, well: bool) -> bool {
        if well != self.unhealthy {
            self.probes = 0;
            return false;
        }
        self.probes = self.probes.saturating_add(1);
        let enough = if self.unhealthy { self.healthy_after } else { self.unhealthy_after };
        if enough == 0 || self.probes < enough {
            return false;
        }
        self.unhealthy = !self.unhealthy;
        self.probes = 0;
        true
    }

    /// When a second one is asked for the same answer: the percentile of this target's times, within the hedge's bounds.
    pub fn hedge_after(&self, hedge: &Hedge) -> Duration {
        let (least, most) = (Duration::from_millis(hedge.after_ms_min), Duration::from_millis(hedge.after_ms_max));
        let measured = Some(&self.times).filter(|times| times.total() >= TIMES_MIN);
        measured.and_then(|times| times.percentile(hedge.percentile)).map_or(most, |time| time.max(least).min(most))
    }

    /// For people: its breaker.
    pub fn breaker(&self, now: Duration) -> BreakerState {
        self.breaker.state(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn vitals() -> (Vitals, StdRng) {
        (Vitals::new(&Settings::default()), StdRng::seed_from_u64(1))
    }

    #[test]
    fn retry_after_holds_a_target_until_then_and_no_longer_than_the_bound() {
        let (mut vitals, mut rng) = vitals();
        let leave = vitals.begin(ms(0)).unwrap();
        let fault = Fault::RateLimited { retry_after: Some(ms(2000)) };
        assert_eq!(vitals.fail(&leave, fault, ms(5), ms(0), &mut rng), None);
        assert_eq!(vitals.standing(ms(500)).held, Some(Held::RetryAfter(ms(1500))));
        assert_eq!(vitals.begin(ms(1999)), Err(Held::RetryAfter(ms(1))));
        let leave = vitals.begin(ms(2000)).unwrap();
        let fault = Fault::RateLimited { retry_after: Some(Duration::from_secs(1 << 40)) };
        vitals.fail(&leave, fault, ms(5), ms(2000), &mut rng);
        assert_eq!(vitals.standing(ms(2000)).held, Some(Held::RetryAfter(ms(Settings::default().retry_after_max_ms))));
    }

    #[test]
    fn a_later_and_shorter_retry_after_does_not_shorten_the_first() {
        let (mut vitals, mut rng) = vitals();
        let (first, second) = (vitals.begin(ms(0)).unwrap(), vitals.begin(ms(0)).unwrap());
        vitals.fail(&first, Fault::RateLimited { retry_after: Some(ms(9000)) }, ms(1), ms(1), &mut rng);
        vitals.fail(&second, Fault::RateLimited { retry_after: None }, ms(1), ms(2), &mut rng);
        assert_eq!(vitals.standing(ms(2)).held, Some(Held::RetryAfter(ms(8999))));
    }

    #[test]
    fn a_callers_fault_says_nothing_about_the_target() {
        let (mut vitals, mut rng) = vitals();
        for _ in 0..100 {
            let leave = vitals.begin(ms(0)).unwrap();
            vitals.fail(&leave, Fault::BadRequest, ms(1), ms(1), &mut rng);
        }
        assert_eq!(vitals.standing(ms(1)), Standing::default());
        assert_eq!(vitals.breaker(ms(1)).requests, 0);
    }

    #[test]
    fn failures_in_a_row_open_the_breaker_and_busy_comes_back_to_nobody() {
        let (mut vitals, mut rng) = vitals();
        let leaves: Vec<_> = (0..5).map(|_| vitals.begin(ms(0)).unwrap()).collect();
        assert_eq!(vitals.standing(ms(0)).busy, 5);
        let changes: Vec<_> =
            leaves.iter().filter_map(|leave| vitals.fail(leave, Fault::Unavailable, ms(1), ms(1), &mut rng)).collect();
        assert_eq!(changes.len(), 1);
        let standing = vitals.standing(ms(1));
        assert!(matches!(standing.held, Some(Held::Breaker(_))) && standing.busy == 0, "{standing:?}");
        assert!(standing.held.unwrap().retry_in().is_some());
    }

    #[test]
    fn probes_in_a_row_change_its_health_and_one_of_the_other_kind_starts_the_count_again() {
        let (mut vitals, _) = vitals();
        for (well, changed) in
            [(false, false), (false, false), (true, false), (false, false), (false, false), (false, true)]
        {
            assert_eq!(vitals.probed(well), changed);
        }
        assert_eq!(vitals.standing(ms(0)).held, Some(Held::Unhealthy(3)));
        assert!(vitals.begin(ms(0)).is_err());
        for (well, changed) in [(true, false), (false, false), (true, false), (true, true)] {
            assert_eq!(vitals.probed(well), changed);
        }
        assert_eq!(vitals.standing(ms(0)).held, None);
    }

    #[test]
    fn it_is_failing_until_its_breaker_has_closed() {
        let (mut vitals, mut rng) = vitals();
        assert!(!vitals.is_failing(ms(0)));
        for _ in 0..5 {
            let leave = vitals.begin(ms(0)).unwrap();
            vitals.fail(&leave, Fault::Unavailable, ms(1), ms(0), &mut rng);
        }
        let later = Duration::from_secs(600);
        assert!(vitals.is_failing(ms(1)) && vitals.is_failing(later), "nobody has tried it");
        for _ in 0..3 {
            assert!(vitals.is_failing(later));
            let leave = vitals.begin(later).unwrap();
            vitals.settle(&leave, later, &mut rng);
        }
        assert!(!vitals.is_failing(later));
    }

    #[test]
    fn a_hedge_waits_for_the_percentile_within_its_bounds() {
        let (mut vitals, _) = vitals();
        let hedge = Hedge { percentile: 95, after_ms_min: 50, after_ms_max: 2000 };
        assert_eq!(vitals.hedge_after(&hedge), ms(2000), "nothing is known yet");
        (0..100).for_each(|at| vitals.began(ms(if at % 10 == 0 { 900 } else { 100 }), ms(at)));
        let after = vitals.hedge_after(&hedge);
        assert!(after >= ms(900) && after < ms(1150), "{after:?}");
        let percentile = |percentile| vitals.hedge_after(&Hedge { percentile, after_ms_min: 300, ..hedge });
        assert_eq!(percentile(50), ms(300));
    }
}
