//! Why a candidate gave no answer: what routing makes of it, and what the caller is told if nobody else does.

use std::time::Duration;

use crate::dialect::{self, Dialect, Failure, FailureKind};
use crate::provider::{self, Class};
use crate::route::Fault;

use super::local::LocalFailure;

/// One attempt without an answer.
#[derive(Debug, Clone)]
pub(super) struct Fell {
    /// For routing.
    pub(super) fault: Fault,
    /// For the caller.
    pub(super) failure: Box<Failure>,
    /// The word in the record.
    pub(super) outcome: &'static str,
    /// The status that it answered with.
    pub(super) status: Option<u16>,
    /// How long it wants to be left alone.
    pub(super) retry_after: Option<Duration>,
    /// It may have worked on the request without saying so, and may bill it.
    pub(super) may_cost: bool,
}

impl Fell {
    fn new(fault: Fault, kind: FailureKind, message: impl Into<String>) -> Self {
        let failure = Box::new(Failure::new(kind, message));
        Self { fault, failure, outcome: fault.as_str(), status: None, retry_after: None, may_cost: false }
    }

    /// A provider's failure. What it said about the request is passed on in the caller's language; what it said about the
    /// gateway's own account is not the caller's business.
    pub(super) fn of_provider(failure: &provider::Failure, spoken: Dialect) -> Self {
        let said = failure.answer.as_ref().map(|answer| Failure::read(spoken, answer.status, &answer.body));
        let refused = said.as_ref().is_some_and(is_refusal);
        let retry_after = failure.retry_after;
        let fault = match failure.class {
            Class::BadRequest | Class::TooLong if refused => Fault::ContentRefused,
            Class::BadRequest => Fault::BadRequest,
            Class::TooLong => Fault::TooLong,
            // Asking the same one again does not help, and others may.
            Class::Auth | Class::OutOfCredit => Fault::Unauthorized,
            Class::NotFound => Fault::NotFound,
            Class::RateLimited => Fault::RateLimited { retry_after },
            Class::Overloaded => Fault::Overloaded { retry_after },
            Class::Timeout => Fault::Timeout,
            Class::Unavailable => Fault::Unavailable,
            Class::Malformed => Fault::Malformed,
        };
        let (kind, message) = told(failure.class, fault);
        let said = said
            .filter(|_| matches!(fault, Fault::BadRequest | Fault::TooLong | Fault::ContentRefused | Fault::NotFound));
        let failure_told = match said {
            Some(said) => Failure { kind, ..said },
            None => Failure::new(kind, message),
        };
        Self {
            fault,
            failure: Box::new(failure_told),
            outcome: if fault == Fault::ContentRefused { fault.as_str() } else { failure.class.as_str() },
            status: failure.answer.as_ref().map(|answer| answer.status),
            retry_after,
            may_cost: failure.sent && failure.answer.is_none(),
        }
    }

    /// A failure of a model of this box.
    pub(super) fn of_local(failure: &LocalFailure) -> Self {
        let kind = match failure.fault {
            Fault::BadRequest | Fault::Unable => FailureKind::InvalidRequest,
            Fault::NotFound => FailureKind::NotFound,
            Fault::TooLong => FailureKind::ContextTooLong,
            Fault::ContentRefused => FailureKind::Refused,
            Fault::RateLimited { .. } => FailureKind::RateLimited,
            Fault::Overloaded { .. } => FailureKind::Overloaded,
            Fault::Timeout => FailureKind::Timeout,
            _ => FailureKind::Unavailable,
        };
        Self::new(failure.fault, kind, failure.reason.clone())
    }

    /// An error that came inside of a stream, before anything of it went out.
    pub(super) fn of_stream(failure: Failure) -> Self {
        let fault = match failure.kind {
            FailureKind::InvalidRequest | FailureKind::TooLarge => Fault::BadRequest,
            FailureKind::ContextTooLong => Fault::TooLong,
            FailureKind::Refused => Fault::ContentRefused,
            FailureKind::Authentication | FailureKind::Permission | FailureKind::Billing => Fault::Unauthorized,
            FailureKind::NotFound => Fault::NotFound,
            FailureKind::RateLimited => Fault::RateLimited { retry_after: None },
            FailureKind::Overloaded => Fault::Overloaded { retry_after: None },
            FailureKind::Timeout | FailureKind::RequestTimeout => Fault::Timeout,
            FailureKind::Unavailable | FailureKind::Upstream | FailureKind::Internal => Fault::Unavailable,
        };
        let class = match fault {
            Fault::Unauthorized => Class::Auth,
            Fault::RateLimited { .. } => Class::RateLimited,
            _ => Class::Unavailable,
        };
        let (kind, message) = told(class, fault);
        let its_own = matches!(fault, Fault::BadRequest | Fault::TooLong | Fault::ContentRefused | Fault::NotFound);
        let failure = if its_own { failure } else { Failure::new(kind, message) };
        let failure = Box::new(failure);
        Self { fault, failure, outcome: fault.as_str(), status: None, retry_after: None, may_cost: true }
    }

    /// An answer that makes no sense, or a request that cannot be said to this candidate.
    pub(super) fn of_dialect(error: &dialect::Error) -> Self {
        let fault = if error.is_callers() { Fault::BadRequest } else { Fault::Malformed };
        let failure = Box::new(error.failure());
        Self { fault, failure, outcome: fault.as_str(), status: None, retry_after: None, may_cost: !error.is_callers() }
    }

    /// It took too long to begin.
    pub(super) fn too_slow() -> Self {
        let (kind, message) = told(Class::Timeout, Fault::Timeout);
        Self { may_cost: true, ..Self::new(Fault::Timeout, kind, message) }
    }

    /// It closed its stream before it had said anything.
    pub(super) fn silent() -> Self {
        let (kind, message) = told(Class::Unavailable, Fault::Unavailable);
        Self { may_cost: true, ..Self::new(Fault::Unavailable, kind, message) }
    }

    /// It cannot be asked for this at all.
    pub(super) fn unfit(message: impl Into<String>) -> Self {
        Self::new(Fault::Unable, FailureKind::InvalidRequest, message)
    }
}

/// A filter's refusal that comes as a 400.
fn is_refusal(failure: &Failure) -> bool {
    let words = ["content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"];
    failure.kind == FailureKind::Refused || failure.code.as_deref().is_some_and(|code| words.contains(&code))
}

/// The kind of error that a caller sees for a class, and the words if the provider's own stay here.
fn told(class: Class, fault: Fault) -> (FailureKind, &'static str) {
    if fault == Fault::ContentRefused {
        return (FailureKind::Refused, "The model's provider refuses this content.");
    }
    match class {
        Class::Auth => (FailureKind::Upstream, "The model's provider does not accept this gateway's key."),
        Class::OutOfCredit => {
            (FailureKind::Upstream, "This gateway's account at the model's provider has no credit left.")
        }
        Class::RateLimited => (FailureKind::RateLimited, "The model's provider gets too many requests from here."),
        Class::Overloaded => (FailureKind::Overloaded, "The model has too much to do."),
        Class::Timeout => (FailureKind::Timeout, "The model did not answer in time."),
        Class::BadRequest => (FailureKind::InvalidRequest, "The model's provider does not understand the request."),
        Class::TooLong => (FailureKind::ContextTooLong, "The request is longer than the model can read."),
        Class::NotFound => (FailureKind::NotFound, "The provider does not have this model, or not for this."),
        Class::Unavailable => (FailureKind::Unavailable, "The model cannot be reached, or broke off."),
        Class::Malformed => (FailureKind::Upstream, "The model's provider answered something that is no answer."),
    }
}
