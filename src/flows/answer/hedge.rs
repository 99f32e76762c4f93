//! One candidate asked, and a second one beside it where the first takes long.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::asking::Asking;
use super::attempt::{Begun, Lease, Ready};
use super::call::Call;
use super::fell::Fell;
use super::story::Answer;
use crate::route::{Attempts, Plan};

/// A candidate that is being asked.
pub(super) struct Runner<'s> {
    pub(super) ready: Ready<'s>,
    pub(super) lease: Lease,
    pub(super) began: Duration,
}

/// What came of it.
pub(super) struct Finish {
    /// Of whoever ended the race: an answer, or the last failure.
    pub(super) result: Result<Begun, Fell>,
    /// It was the second one.
    pub(super) by_second: bool,
    /// The other one had failed before; none: it was not asked, or is cancelled now.
    pub(super) earlier: Option<Fell>,
}

impl Answer {
    /// Asks `first`; if its route hedges and it takes long, also the next of the plan, which is put into `second`.
    pub(super) async fn race<'s>(
        self: &'s Arc<Self>,
        plan: &Plan<'s>,
        first: &Runner<'s>,
        second: &mut Option<Box<Runner<'s>>>,
        attempts: &mut Attempts<'_>,
        asking: &Asking<'_>,
        call: &mut Call,
    ) -> Finish {
        let alone = |result| Finish { result, by_second: false, earlier: None };
        let mut first_run = pin!(self.attempt(asking, &first.ready));
        let Some(hedge) = plan.route().hedge() else { return alone(first_run.await) };
        let after = first.ready.stop.vitals().hedge_after(hedge);
        tokio::select! {
            biased;
            result = &mut first_run => return alone(result),
            () = sleep(after) => {}
        }
        *second = self.second(plan, attempts, asking, call);
        let Some(second) = second else { return alone(first_run.await) };
        // Elsewhere, so that a race with one runner, as nearly all are, needs no room for two.
        let mut second_run = Box::pin(self.attempt(asking, &second.ready));
        let (result, by_second) = tokio::select! {
            biased;
            result = &mut first_run => (result, false),
            result = &mut second_run => (result, true),
        };
        match result {
            Ok(begun) => {
                if by_second {
                    self.parts.route_metrics.hedge_won();
                }
                Finish { result: Ok(begun), by_second, earlier: None }
            }
            Err(earlier) => {
                let result = if by_second { first_run.await } else { second_run.await };
                Finish { result, by_second: !by_second, earlier: Some(earlier) }
            }
        }
    }

    /// The second one, if there is one that may be asked and can be paid for beside the first.
    fn second<'s>(
        self: &'s Arc<Self>,
        plan: &Plan<'s>,
        attempts: &mut Attempts<'_>,
        asking: &Asking<'_>,
        call: &mut Call,
    ) -> Option<Box<Runner<'s>>> {
        let now = self.now();
        let at = attempts.hedge(&mut self.beside(plan.route().name()).budget(), now)?;
        let ready = self.ready(plan, at, asking).map_err(|(name, fell)| call.passed_over(name, fell.outcome)).ok()?;
        let refused = |call: &mut Call, why| call.passed_over(ready.stop.called(&ready.model), why);
        if call.reserve_beside(&ready.model, self.amounts(ready.stop, &ready.model, asking)).is_err() {
            refused(call, "budget");
            return None;
        }
        let lease = self.lease(ready.place).map_err(|why| refused(call, why)).ok()?;
        self.parts.route_metrics.hedge();
        call.asks(&ready.model);
        Some(Box::new(Runner { ready, lease, began: now }))
    }
}
