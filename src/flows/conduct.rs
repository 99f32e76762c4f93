//! How a version does under traffic: its breaker, how often it was chosen and passed over, and what its shadow showed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::Rng;
use serde::Serialize;

use super::difference::Comparison;
use crate::catalog::{BreakerTerms, Traffic};
use crate::route::{Breaker, Change, Outcome, Refused, Terms, Ticket};

/// Why a version did not answer a request that came to it first or in its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// It could not compute it.
    Failed,
    /// It took longer than `slow_ms`.
    Slow,
    /// No room in the queue, or too many wait for it to be loaded.
    Busy,
    /// Its breaker is open.
    Breaker,
    /// It does not serve, or there is no such version.
    NotServing,
}

impl Why {
    /// The word in metrics and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Slow => "slow",
            Self::Busy => "busy",
            Self::Breaker => "breaker",
            Self::NotServing => "not_serving",
        }
    }
}

/// A version's figures as a target of split requests.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ConductCounts {
    /// Requests that came to it first.
    pub chosen: u64,
    /// Requests that it answered in the place of another version.
    pub stood_in: u64,
    /// Requests that it did not answer and that went to another version, or to none.
    pub passed_over: BTreeMap<Why, u64>,
    /// What came of the copies that it got.
    pub shadow: Option<ShadowCounts>,
}

/// What came of copies.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ShadowCounts {
    /// Copies whose answer was the caller's, within the tolerances.
    pub matched: u64,
    /// Copies with another answer.
    pub differed: u64,
    /// Copies without an answer.
    pub failed: u64,
    /// Copies that found no room and were not computed.
    pub dropped: u64,
    /// The largest absolute difference of a number.
    pub largest_difference: f64,
    /// Where and how the last one that differed did.
    pub last_difference: Option<String>,
    /// Why the last one that failed did.
    pub last_failure: Option<String>,
    /// Time in the engine of the copies that were answered, in microseconds.
    pub shadow_us: u64,
    /// The same of the requests that they were copies of.
    pub answer_us: u64,
}

/// A breaker for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BreakerView {
    /// `closed`, `open` or `half_open`.
    pub state: &'static str,
    /// Why it is not closed.
    pub reason: Option<String>,
    /// Until it is tried again, in milliseconds.
    pub retry_in_ms: Option<u64>,
    /// Failures in a row while closed.
    pub failures_in_a_row: u32,
    /// Requests within its window.
    pub requests: u32,
    /// Of these without an answer in time.
    pub failed: u32,
    /// How often it opened.
    pub opened: u64,
}

#[derive(Debug)]
struct Inner {
    breaker: Breaker,
    counts: ConductCounts,
}

/// One version's. It counts on over being put to sleep, and begins anew when another file takes the version's place.
#[derive(Debug)]
pub(super) struct Conduct {
    slow: Option<Duration>,
    inner: Mutex<Inner>,
}

/// The catalog's words in the room's.
fn terms(said: &BreakerTerms) -> Terms {
    Terms {
        failures: said.failures,
        failure_percent: said.failure_percent,
        requests_min: said.requests_min,
        window: Duration::from_secs(said.window_s),
        open: Duration::from_millis(said.open_ms),
        open_most: Duration::from_millis(said.open_most_ms),
        probes: said.probes,
    }
}

impl Conduct {
    /// As the configuration says of the model, if it does.
    pub(super) fn new(traffic: Option<&Traffic>) -> Self {
        let breaker = Breaker::new(traffic.map_or_else(Terms::default, |traffic| terms(&traffic.breaker)));
        let slow = traffic.and_then(|traffic| traffic.slow_ms).map(Duration::from_millis);
        Self { slow, inner: Mutex::new(Inner { breaker, counts: ConductCounts::default() }) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing below panics halfway through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Longer than this is slow.
    pub(super) fn slow(&self) -> Option<Duration> {
        self.slow
    }

    pub(super) fn admits(&self, now: Duration) -> bool {
        self.lock().breaker.admits(now)
    }

    /// Leave to ask it, or why it is left alone.
    pub(super) fn admit(self: &Arc<Self>, now: Duration) -> Result<Pass, Refused> {
        let ticket = self.lock().breaker.admit(now)?;
        Ok(Pass { conduct: Arc::clone(self), ticket: Some(ticket) })
    }

    /// Leave for a request that has nobody else to go to, whatever the breaker says.
    pub(super) fn anyway(self: &Arc<Self>) -> Pass {
        Pass { conduct: Arc::clone(self), ticket: None }
    }

    pub(super) fn chosen(&self) {
        self.lock().counts.chosen += 1;
    }

    pub(super) fn stood_in(&self) {
        self.lock().counts.stood_in += 1;
    }

    pub(super) fn passed_over(&self, why: Why) {
        *self.lock().counts.passed_over.entry(why).or_default() += 1;
    }

    /// A copy for it found no room.
    pub(super) fn copy_dropped(&self) {
        self.lock().counts.shadow.get_or_insert_default().dropped += 1;
    }

    /// What came of a copy: how its answer compares with the caller's, and the microseconds of both in the engine; or why
    /// there is none.
    pub(super) fn copied(&self, outcome: Result<(Comparison, u64, u64), String>) {
        let mut inner = self.lock();
        let shadow = inner.counts.shadow.get_or_insert_default();
        match outcome {
            Ok((comparison, shadow_us, answer_us)) => {
                shadow.shadow_us = shadow.shadow_us.saturating_add(shadow_us);
                shadow.answer_us = shadow.answer_us.saturating_add(answer_us);
                shadow.largest_difference = shadow.largest_difference.max(comparison.largest);
                match comparison.differs {
                    None => shadow.matched += 1,
                    Some(what) => {
                        shadow.differed += 1;
                        shadow.last_difference = Some(what);
                    }
                }
            }
            Err(reason) => {
                shadow.failed += 1;
                shadow.last_failure = Some(reason);
            }
        }
    }

    pub(super) fn counts(&self) -> ConductCounts {
        self.lock().counts.clone()
    }

    pub(super) fn breaker(&self, now: Duration) -> BreakerView {
        let state = self.lock().breaker.state(now);
        BreakerView {
            state: state.word,
            reason: state.why.map(|why| why.to_string()),
            retry_in_ms: state.retry_in.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
            failures_in_a_row: state.in_a_row,
            requests: state.requests,
            failed: state.failed,
            opened: state.opened,
        }
    }
}

/// Leave to ask a version once or more. Dropped without an outcome, it says nothing about the version.
#[derive(Debug)]
pub(super) struct Pass {
    conduct: Arc<Conduct>,
    ticket: Option<Ticket>,
}

impl Pass {
    /// What came of asking. A pass that is used again counts like everybody's.
    pub(super) fn settle(&mut self, outcome: Outcome, now: Duration, rng: &mut impl Rng) -> Option<Change> {
        let ticket = self.ticket.take().unwrap_or(Ticket::Usual);
        self.conduct.lock().breaker.settle(&ticket, outcome, now, rng)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.conduct.lock().breaker.forget(&ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    #[test]
    fn a_probe_whose_caller_leaves_lets_the_next_one_try() {
        let traffic =
            Traffic { breaker: BreakerTerms { failures: 1, ..BreakerTerms::default() }, ..Traffic::default() };
        let conduct = Arc::new(Conduct::new(Some(&traffic)));
        let mut rng = StdRng::seed_from_u64(1);
        let opened = conduct.admit(Duration::ZERO).unwrap().settle(Outcome::Failed, Duration::ZERO, &mut rng);
        assert!(matches!(opened, Some(Change::Opened(..))));
        assert_eq!(conduct.breaker(Duration::ZERO).state, "open");
        let later = Duration::from_secs(10);
        let probe = conduct.admit(later).unwrap();
        assert!(conduct.admit(later).is_err() && !conduct.admits(later));
        drop(probe);
        let mut probe = conduct.admit(later).unwrap();
        // The second time it is used it is nobody's probe any more.
        assert_eq!(probe.settle(Outcome::Answered, later, &mut rng), None);
        assert_eq!(probe.settle(Outcome::Failed, later, &mut rng), None);
        drop(probe);
        assert_eq!(conduct.breaker(later).state, "half_open");
    }
}
