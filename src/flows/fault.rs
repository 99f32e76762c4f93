//! Why a version did not answer, whose fault that is, and what the caller hears.

use std::time::Duration;

use super::inference::InferError;
use super::models::chain;
use crate::engine::{Error as E, Handle};

/// Whose fault it is that there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// The caller's: the request would fail with every version.
    Caller,
    /// The version's: it failed, or gave what it does not declare or no number.
    Failed,
    /// The version's: it was given the time that is its bound.
    Slow,
    /// A model's that its steps ask: it does not serve.
    NotServing,
    /// The box's: there is no room now.
    Busy,
    /// Nobody's: the caller's time is over, or the gateway is stopping.
    Nobody,
}

/// The time that a version was given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    pub(super) timeout: Duration,
    /// The version's own bound, if it has one.
    pub(super) slow: Option<Duration>,
}

impl Bound {
    /// Whose fault it is that the time is over. A caller in a hurry says nothing about the version.
    fn blame(self) -> Blame {
        if self.slow.is_some_and(|slow| self.timeout >= slow) { Blame::Slow } else { Blame::Nobody }
    }
}

/// No answer.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) blame: Blame,
    pub(super) error: InferError,
}

impl Fault {
    /// Of `error`, which a model gave in its engine.
    pub(super) fn of(error: &E, handle: &Handle, bound: Bound) -> Self {
        let blame = match error {
            // What was sent is an input, everything else it made itself.
            E::NotFinite { name, .. } if handle.inputs().iter().any(|input| *input.name == **name) => Blame::Caller,
            E::MissingInput { .. }
            | E::UnknownInput { .. }
            | E::Shape { .. }
            | E::Unfit { .. }
            | E::Datatype { .. }
            | E::TooLarge { .. } => Blame::Caller,
            E::Busy { .. } | E::BackedOff { .. } => Blame::Busy,
            E::Expired { .. } => bound.blame(),
            E::Closed => Blame::Nobody,
            E::NotFinite { .. }
            | E::NoEngine { .. }
            | E::NoneTakes { .. }
            | E::Load { .. }
            | E::File { .. }
            | E::Declared { .. }
            | E::Sample { .. }
            | E::Setting { .. }
            | E::Delegate { .. }
            | E::NoRoom { .. }
            | E::Thread(_)
            | E::Panicked { .. }
            | E::Run { .. } => Blame::Failed,
        };
        Self { blame, error: translate(error) }
    }

    /// Of `error`, which the steps of a pipeline gave. What a step refuses was made of what the caller sent, so it says
    /// nothing about the version; nor does a model that is away, but another version may have no need of it.
    pub(super) fn of_steps(error: InferError, bound: Bound) -> Self {
        let blame = match &error {
            InferError::Shape { .. } => Blame::Caller,
            InferError::NoModel(_) | InferError::NoVersion(_) | InferError::NotServing { .. } => Blame::NotServing,
            InferError::Busy { .. } => Blame::Busy,
            InferError::Deadline { .. } => bound.blame(),
            InferError::Failed { .. } => Blame::Failed,
        };
        Self { blame, error }
    }
}

impl InferError {
    /// The same, with what the versions that were asked before said.
    pub(super) fn after(self, said: &str) -> Self {
        let and = |text: String| format!("{text}; nobody else answered: {said}");
        match self {
            Self::NoModel(name) => Self::NotServing { reason: and(Self::NoModel(name).to_string()) },
            Self::NoVersion(text) => Self::NotServing { reason: and(text) },
            Self::NotServing { reason } => Self::NotServing { reason: and(reason) },
            Self::Shape { detail } => Self::Shape { detail: and(detail) },
            Self::Busy { detail } => Self::Busy { detail: and(detail) },
            Self::Deadline { detail } => Self::Deadline { detail: and(detail) },
            Self::Failed { detail } => Self::Failed { detail: and(detail) },
        }
    }
}

pub(super) fn translate(error: &E) -> InferError {
    let detail = chain(error);
    match error {
        E::MissingInput { .. }
        | E::UnknownInput { .. }
        | E::Shape { .. }
        | E::Unfit { .. }
        | E::Datatype { .. }
        | E::TooLarge { .. }
        | E::NotFinite { .. } => InferError::Shape { detail },
        E::Busy { .. } | E::BackedOff { .. } => InferError::Busy { detail },
        E::Expired { .. } => InferError::Deadline { detail },
        E::Closed
        | E::NoEngine { .. }
        | E::NoneTakes { .. }
        | E::Load { .. }
        | E::File { .. }
        | E::Declared { .. }
        | E::Sample { .. }
        | E::Setting { .. }
        | E::Delegate { .. }
        | E::NoRoom { .. }
        | E::Thread(_) => InferError::NotServing { reason: detail },
        E::Panicked { .. } | E::Run { .. } => InferError::Failed { detail },
    }
}
