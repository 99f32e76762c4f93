//! Along the plan until somebody answers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::asking::Asking;
use super::attempt::{Begun, Lease};
use super::call::Call;
use super::fell::Fell;
use super::hedge::{Finish, Runner};
use super::story::Answer;
use crate::dialect::{Failure, FailureKind};
use crate::quota::{Refusal, Span, Why};
use crate::route::{Attempts, Fault, Plan, Reason, Step, Verdict};

/// A client may wait so long for what it asked.
const SOON_MS: u64 = 60_000;

/// No answer, and when to ask again.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) failure: Failure,
    pub(super) retry_after: Option<Duration>,
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self { failure, retry_after: None }
    }
}

/// Somebody answers.
pub(super) struct Won {
    pub(super) lease: Lease,
    pub(super) begun: Begun,
}

/// The best that can be said so far about why there is no answer.
#[derive(Default)]
struct Worst {
    asked: Option<Fell>,
    unfit: Option<Fell>,
    refused: Option<Box<Refusal>>,
    retry_after: Option<Duration>,
}

impl Answer {
    /// Asks one after another. `until` is since boot.
    pub(super) async fn pursue(
        self: &Arc<Self>,
        plan: &Plan<'_>,
        asking: &Asking<'_>,
        call: &mut Call,
        until: Duration,
    ) -> Result<Won, Refused> {
        let beside = self.beside(plan.route().name());
        let mut attempts = Attempts::new(plan);
        let mut worst = Worst::default();
        let mut step = attempts.first();
        while let Step::Ask { candidate, wait } = step {
            if !wait.is_zero() {
                call.waited(wait);
                sleep(wait).await;
            }
            let Some(runner) = self.start(plan, candidate, asking, call, &mut worst) else {
                step = attempts.refused();
                continue;
            };
            let fell = match self.run(plan, runner, &mut attempts, asking, call, until).await {
                Ok(won) => return Ok(won),
                Err(fell) => fell,
            };
            // One that has too many requests and does not say until when is left alone for a while; so the caller is told that.
            let unsaid = Duration::from_millis(self.parts.routing.retry_after_ms);
            let wait = fell.retry_after.or_else(|| fell.fault.holds(unsaid));
            worst.retry_after = worst.retry_after.into_iter().chain(wait).min();
            let now = self.now();
            let fault = fell.fault;
            worst.asked = Some(fell);
            if now >= until {
                break;
            }
            let next = attempts.after(fault, &mut beside.budget(), now, &mut *self.chance());
            if matches!(next, Step::Ask { candidate: again, .. } if again == candidate) {
                self.parts.route_metrics.retry(true);
            }
            step = next;
        }
        Err(worst.refused(plan))
    }

    /// Makes a candidate ready and takes leave to ask it; none: it was passed over.
    fn start<'s>(
        self: &'s Arc<Self>,
        plan: &Plan<'s>,
        at: usize,
        asking: &Asking<'_>,
        call: &mut Call,
        worst: &mut Worst,
    ) -> Option<Box<Runner<'s>>> {
        let ready = match self.ready(plan, at, asking) {
            Ok(ready) => ready,
            Err((name, fell)) => {
                call.passed_over(name, fell.outcome);
                worst.unfit.get_or_insert(fell);
                return None;
            }
        };
        let name = || ready.stop.called(&ready.model);
        // Usually it is the one that everything is held for already.
        if call.held_for != Some(ready.place)
            && let Err(refusal) = call.reserve(&ready.model, self.amounts(ready.stop, &ready.model, asking))
        {
            call.passed_over(name(), "budget");
            worst.refused.get_or_insert(refusal);
            return None;
        }
        let lease = self.lease(ready.place).map_err(|why| call.passed_over(name(), why)).ok()?;
        call.asks(&ready.model);
        Some(Box::new(Runner { ready, lease, began: self.now() }))
    }

    /// Runs one, or two beside each other, within the time.
    async fn run<'s>(
        self: &'s Arc<Self>,
        plan: &Plan<'s>,
        first: Box<Runner<'s>>,
        attempts: &mut Attempts<'_>,
        asking: &Asking<'_>,
        call: &mut Call,
        until: Duration,
    ) -> Result<Won, Fell> {
        let mut second = None;
        let left = until.saturating_sub(first.began);
        let race = timeout(left, self.race(plan, &first, &mut second, attempts, asking, call)).await;
        let now = self.now();
        call.waited(now.saturating_sub(first.began));
        let Ok(Finish { result, by_second, earlier }) = race else {
            for runner in [Some(first), second].into_iter().flatten() {
                self.lost(runner, &Fell::too_slow(), asking, call);
            }
            return Err(Fell::too_slow());
        };
        let (ended, other) = match (by_second, second) {
            (true, Some(second)) => (second, Some(first)),
            (_, second) => (first, second),
        };
        match (other, earlier) {
            (Some(other), Some(earlier)) => self.lost(other, &earlier, asking, call),
            // Whoever was slower; its leave says nothing about it.
            (Some(other), None) => {
                let took = now.saturating_sub(other.began);
                call.cancelled(other.ready.stop, &other.ready.model, took, asking.input_tokens);
            }
            (None, _) => {}
        }
        match result {
            Ok(begun) => {
                let Runner { ready, lease, began } = *ended;
                let why = basis(plan, ready.candidate);
                call.answers(ready.stop, &ready.model, why, ready.left_out, now.saturating_sub(began));
                Ok(Won { lease, begun })
            }
            Err(fell) => {
                self.lost(ended, &fell, asking, call);
                Err(fell)
            }
        }
    }

    /// One that failed.
    fn lost(&self, runner: Box<Runner<'_>>, fell: &Fell, asking: &Asking<'_>, call: &mut Call) {
        let took = self.now().saturating_sub(runner.began);
        call.fell(runner.ready.stop, &runner.ready.model, fell, took, asking.input_tokens);
        // A name that somebody mistyped says nothing about the other models that this candidate stands for.
        let target = &self.parts.routes.targets()[runner.ready.place];
        if !(matches!(fell.fault, Fault::NotFound) && target.is_open()) {
            runner.lease.fail(fell.fault, took);
        }
    }
}

impl Worst {
    /// What the caller is told.
    fn refused(self, plan: &Plan<'_>) -> Refused {
        let retry_after = self.retry_after;
        if let Some(fell) = self.asked {
            let helps = matches!(
                fell.fault,
                Fault::RateLimited { .. } | Fault::Overloaded { .. } | Fault::Unavailable | Fault::Timeout
            );
            return Refused { failure: *fell.failure, retry_after: retry_after.filter(|_| helps) };
        }
        if let Some(refusal) = self.refused {
            return over_limit(&refusal);
        }
        match self.unfit {
            Some(fell) => (*fell.failure).into(),
            None => nobody(plan),
        }
    }
}

/// A limit of this gateway's.
pub(super) fn over_limit(refusal: &Refusal) -> Refused {
    // What is there again soon is a rate, also where others only hold it; a spent budget is not, though midnight comes.
    let is_soon = refusal.retry_after_ms.map_or(refusal.span == Span::AtOnce, |ms| ms <= SOON_MS);
    let passes = refusal.why == Why::Exhausted && is_soon;
    let kind = if passes { FailureKind::RateLimited } else { FailureKind::Billing };
    let mut message = refusal.to_string();
    message.push('.');
    let code = if passes { "rate_limit_exceeded" } else { "insufficient_quota" };
    let failure = Failure { code: Some(code.to_owned()), ..Failure::new(kind, message) };
    Refused { failure, retry_after: refusal.retry_after_ms.map(Duration::from_millis) }
}

/// Nobody of the plan can be asked.
pub(super) fn nobody(plan: &Plan<'_>) -> Refused {
    let reasons = || {
        plan.considered()[plan.len()..].iter().filter_map(|considered| match considered.verdict {
            Verdict::LeftOut(reason) => Some(reason),
            Verdict::Asked(_) => None,
        })
    };
    let kind = if plan.may_pass() || reasons().next().is_none() {
        FailureKind::Unavailable
    } else if reasons().any(|reason| matches!(reason, Reason::Length { .. })) {
        FailureKind::ContextTooLong
    } else {
        FailureKind::InvalidRequest
    };
    let message = format!("Nobody can be asked just now: {}.", plan.explanation());
    let failure = Failure { code: Some("no_candidate".to_owned()), ..Failure::new(kind, message) };
    Refused { failure, retry_after: plan.retry_in() }
}

/// Why a candidate stands where it stands.
fn basis(plan: &Plan<'_>, candidate: usize) -> String {
    let found = plan.considered().iter().find(|considered| considered.candidate == candidate);
    match found.map(|considered| considered.verdict) {
        Some(Verdict::Asked(basis)) => basis.to_string(),
        _ => String::new(),
    }
}
