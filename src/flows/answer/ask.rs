//! The order of the steps.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::RngCore;

use super::answered::{Answered, Given};
use super::asking::Asking;
use super::attempt::{Begun, Flowing, Lease};
use super::call::{Call, Spent};
use super::kept::{Keeping, Look, worth};
use super::pursue::{Refused, Won, nobody, over_limit};
use super::request::Request;
use super::story::Answer;
use crate::dialect::{Dialect, Failure, FailureKind, Operation, Usage, token_count};
use crate::price::LocalUse;
use crate::quota::Unit;
use crate::route::{Found, NoRoute, Plan, RouteCandidate, Standing, Strategy};

/// What a question comes to before its caller is told.
enum Outcome {
    Whole { content_type: Arc<str>, body: Bytes },
    Stream { lease: Lease, flowing: Box<Flowing>, keeping: Option<Box<Keeping>>, left: Duration },
}

impl Answer {
    /// One question. Dropping the future is how a caller leaves; it is recorded all the same.
    pub async fn answer(self: &Arc<Self>, request: Request<'_>) -> Answered {
        let mut call = Call::new(self, &request);
        let outcome = self.steps(&request, &mut call).await;
        match outcome {
            Ok(Outcome::Whole { content_type, body }) => {
                Answered { told: call.told(None), given: Given::Whole { content_type, body } }
            }
            Ok(Outcome::Stream { lease, flowing, keeping, left }) => {
                let told = call.told(None);
                let stream = super::stream::AnswerStream::new(call, lease, flowing, keeping, left);
                Answered { told, given: Given::Stream(Box::new(stream)) }
            }
            Err(Refused { failure, retry_after }) => {
                call.end(failure.kind.status(request.dialect), word(failure.kind), &Spent::Nothing);
                Answered { told: call.told(retry_after), given: Given::Failed(failure) }
            }
        }
    }

    async fn steps(self: &Arc<Self>, request: &Request<'_>, call: &mut Call) -> Result<Outcome, Refused> {
        let asking = Asking::read(self, request).map_err(|error| {
            self.parts.dialect_metrics.error(request.dialect, &error);
            Refused::from(error.failure())
        })?;
        call.learn(&asking);
        let reach = request.reach().map_err(|why| Refused::from(Failure::new(FailureKind::InvalidRequest, why)))?;
        if !request.who.may_use_model(&asking.model) {
            return Err(forbidden(&asking.model).into());
        }
        let tags = request.tags();
        let chance = self.chance().next_u64();
        let mut ask = asking.for_routing(&tags, reach, call.link(), chance);
        let found = self.parts.routes.find(&ask).map_err(|no_route| {
            self.parts.route_metrics.unknown_model();
            Refused::from(no_such_model(&asking.model, no_route))
        })?;
        let route = found.route();
        if !request.who.may_use_route(route.name().as_str()) {
            return Err(forbidden(&asking.model).into());
        }
        let sticky = asking.sticky(route);
        ask.sticky = sticky.as_ref().map(|digest| &digest.as_bytes()[..]);
        let now = self.now();
        let plan = found.plan(&ask, |found, candidate| self.standing(found, candidate, &asking, now));
        let beside = self.beside(route.name());
        beside.metrics.decided(&plan);
        beside.budget().pay_in(now);
        call.decided(&plan);
        let outcome = self.along(&plan, &asking, call, now).await;
        call.explain(&plan);
        outcome
    }

    /// What is kept, or else who answers first of the plan.
    async fn along(
        self: &Arc<Self>,
        plan: &Plan<'_>,
        asking: &Asking<'_>,
        call: &mut Call,
        now: Duration,
    ) -> Result<Outcome, Refused> {
        let route = plan.route();
        let until = call.arrived() + route.timeout().unwrap_or(Duration::from_millis(self.parts.config.timeout_ms));
        self.reserve(plan, asking, call)?;
        let keeping = match self.look(asking, route.name(), call, until.saturating_sub(now)).await? {
            Look::Found(hit, how) => {
                let model = String::from_utf8_lossy(&hit.answer.note).into_owned();
                call.found(how, &model);
                call.end(200, "", &Spent::Kept { saved: hit.answer.worth.cost_pico_usd });
                return Ok(Outcome::Whole { content_type: hit.answer.content_type, body: hit.answer.body });
            }
            Look::Ask(keeping) => keeping,
        };
        let won = if plan.is_empty() { Err(nobody(plan)) } else { self.pursue(plan, asking, call, until).await };
        match won {
            Ok(won) => Ok(self.given(won, keeping, call, until)),
            // Nobody needs to be asked for a number that is an estimate at its best.
            Err(_) if asking.operation() == Operation::CountTokens => Ok(counted(asking, call)),
            Err(refused) => Err(refused),
        }
    }

    /// How a candidate is doing, and what this would cost there if its route wants to know.
    fn standing<'s>(
        &self,
        found: &Found<'s>,
        candidate: &'s RouteCandidate,
        asking: &Asking<'_>,
        now: Duration,
    ) -> Standing {
        let stop = &self.stops[candidate.place()];
        let standing = stop.vitals().standing(now);
        if found.route().strategy() != Strategy::Cost {
            return standing;
        }
        let named = found.model_of(candidate);
        let cost = match stop.provider() {
            // What this box takes is known afterwards, and is nothing before; without prices of it nobody ever knows.
            None => self.parts.local_prices.cost(&LocalUse::default()).pico_usd,
            Some(provider) => {
                provider.model(&named).and_then(|model| self.cost(stop, model, &asking.most(), asking.tier()))
            }
        };
        Standing { cost, ..standing }
    }

    /// Holds what the first candidate that can be paid for, and whose model has room in its limits, may take.
    fn reserve(&self, plan: &Plan<'_>, asking: &Asking<'_>, call: &mut Call) -> Result<(), Refused> {
        let mut first = None;
        for at in plan.order() {
            let candidate = &plan.route().candidates()[at];
            let stop = &self.stops[candidate.place()];
            let named = plan.model_of(candidate);
            let upstream = stop.provider().and_then(|provider| provider.model(&named)).unwrap_or(&named);
            match call.reserve(upstream, self.amounts(stop, upstream, asking)) {
                Ok(()) => {
                    call.held_for = Some(candidate.place());
                    return Ok(());
                }
                // Somebody cheaper may be next, or a model that has fewer requests.
                Err(refusal) if refusal.unit == Unit::Money || &*refusal.level == "model" => {
                    first = first.or(Some(refusal));
                }
                Err(refusal) => return Err(over_limit(&refusal)),
            }
        }
        first.map_or(Ok(()), |refusal| Err(over_limit(&refusal)))
    }

    /// An answer that is whole is settled, recorded and kept now; a stream when it ends.
    fn given(&self, won: Won, keeping: Option<Box<Keeping>>, call: &mut Call, until: Duration) -> Outcome {
        let Won { lease, begun } = won;
        match begun {
            Begun::Whole { answer, used } => {
                let (usage, cost) = if call.operation() == Operation::CountTokens {
                    (free(), Some(0))
                } else {
                    let usage = answer.usage;
                    call.took(self.here(lease.place(), used));
                    (usage, self.cost_of(lease.place(), call.model_answered(), &usage, call.tier(), used))
                };
                lease.settle();
                call.end(200, "", &Spent::Used { usage, cost });
                if let Some(keeping) = keeping {
                    self.keep(*keeping, call, JSON, answer.body.clone(), worth(&usage, cost));
                }
                Outcome::Whole { content_type: Arc::from(JSON), body: answer.body }
            }
            Begun::Stream(flowing) => {
                Outcome::Stream { lease, flowing, keeping, left: until.saturating_sub(self.now()) }
            }
        }
    }
}

const JSON: &str = "application/json";

fn free() -> Usage {
    Usage { input_tokens: Some(0), output_tokens: Some(0), ..Usage::default() }
}

/// The count of tokens as this gateway estimates it.
fn counted(asking: &Asking<'_>, call: &mut Call) -> Outcome {
    let tokens = asking.input_tokens;
    let body = match asking.request.dialect {
        Dialect::Gemini => format!("{{\"totalTokens\":{tokens}}}").into_bytes(),
        _ => token_count(tokens),
    };
    call.found("estimate", "");
    call.cache = "off";
    call.end(200, "", &Spent::Used { usage: free(), cost: Some(0) });
    Outcome::Whole { content_type: Arc::from(JSON), body: body.into() }
}

fn forbidden(model: &str) -> Failure {
    let message = format!("This key may not use the model `{model}`.");
    Failure { code: Some("model_not_allowed".to_owned()), ..Failure::new(FailureKind::Permission, message) }
}

fn no_such_model(model: &str, why: NoRoute<'_>) -> Failure {
    let failure = Failure::model_not_found(model);
    match why {
        NoRoute::Unknown => failure,
        NoRoute::NotFor(..) => Failure { message: format!("{} {why}.", failure.message), ..failure },
    }
}

/// The word in the record.
pub(super) fn word(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::InvalidRequest => "invalid_request",
        FailureKind::ContextTooLong => "context_too_long",
        FailureKind::Authentication => "authentication",
        FailureKind::Permission => "permission",
        FailureKind::Billing => "budget",
        FailureKind::NotFound => "not_found",
        FailureKind::TooLarge => "too_large",
        FailureKind::Refused => "content_refused",
        FailureKind::RateLimited => "rate_limited",
        FailureKind::Overloaded => "overloaded",
        FailureKind::Timeout | FailureKind::RequestTimeout => "timeout",
        FailureKind::Unavailable => "unavailable",
        FailureKind::Upstream => "upstream",
        FailureKind::Internal => "internal",
    }
}
