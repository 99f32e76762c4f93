//! Why a model of this box gave no answer, as routing and callers understand it.

use crate::flows::answer::LocalFailure;
#[cfg(feature = "text")]
use crate::flows::inference::InferError;
use crate::flows::models::NotServing;
use crate::route::Fault;

/// This model does not do it; another one may.
pub(super) fn cannot(reason: &str) -> LocalFailure {
    LocalFailure { fault: Fault::Unable, reason: reason.to_owned() }
}

fn busy(reason: String) -> LocalFailure {
    LocalFailure { fault: Fault::Overloaded { retry_after: None }, reason }
}

pub(super) fn unavailable(reason: impl Into<String>) -> LocalFailure {
    LocalFailure { fault: Fault::Unavailable, reason: reason.into() }
}

pub(super) fn of_models(error: &NotServing) -> LocalFailure {
    let reason = error.to_string();
    match error {
        NotServing::Unknown(_) => LocalFailure { fault: Fault::NotFound, reason },
        NotServing::Refused { .. } => unavailable(reason),
        NotServing::Busy { .. } => busy(reason),
        NotServing::Loading { .. } => LocalFailure { fault: Fault::Timeout, reason },
    }
}

#[cfg(feature = "text")]
pub(super) fn of_inference(error: &InferError) -> LocalFailure {
    let reason = error.to_string();
    match error {
        InferError::NoModel(_) | InferError::NoVersion(_) => cannot(&reason),
        InferError::Busy { .. } => busy(reason),
        InferError::Deadline { .. } => LocalFailure { fault: Fault::Timeout, reason },
        InferError::NotServing { .. } | InferError::Shape { .. } | InferError::Failed { .. } => unavailable(reason),
    }
}
