//! Why a version did not answer, whose fault that is, and what the caller hears.

use std::time::Duration;

use super::inference::InferError;
use super::models::{Loaded, chain};
use crate::engine::Error as E;

/// Whose fault it is that there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// The caller's: the request would fail with every version.
    Caller,
    /// The version's: it failed, or gave what it does not declare or no number.
    Failed,
    /// The version's: it was given the time that is its bound.
    Slow,
    /// The box's: there is no room now.
    Busy,
    /// Nobody's: the caller's time is over, or the gateway is stopping.
    Nobody,
}

/// What whoever answers for a version said.
#[derive(Debug)]
pub(super) enum Failure {
    /// An engine.
    Engine(E),
    /// The steps of a pipeline.
    Pipeline(InferError),
    /// Nobody: the request is beyond what the version takes.
    Request(InferError),
}

/// No answer.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) blame: Blame,
    pub(super) error: InferError,
}

impl Fault {
    /// Of what `loaded` said after it was given `timeout`; `slow` is its bound.
    pub(super) fn of(failure: Failure, loaded: &Loaded, timeout: Duration, slow: Option<Duration>) -> Self {
        let is_slow = slow.is_some_and(|slow| timeout >= slow);
        match failure {
            Failure::Engine(error) => Self::of_engine(&error, loaded, is_slow),
            Failure::Request(error) => Self { blame: Blame::Caller, error },
            Failure::Pipeline(error) => {
                let blame = match &error {
                    InferError::Shape { .. } => Blame::Caller,
                    InferError::Busy { .. } => Blame::Busy,
                    InferError::Deadline { .. } if is_slow => Blame::Slow,
                    InferError::Deadline { .. } => Blame::Nobody,
                    InferError::NoModel(_)
                    | InferError::NoVersion(_)
                    | InferError::NotServing { .. }
                    | InferError::Failed { .. } => Blame::Failed,
                };
                Self { blame, error }
            }
        }
    }

    fn of_engine(error: &E, loaded: &Loaded, is_slow: bool) -> Self {
        let blame = match error {
            // What was sent is an input, everything else it made itself.
            E::NotFinite { name, .. } if loaded.manifest.inputs.iter().any(|input| input.name == *name) => {
                Blame::Caller
            }
            E::MissingInput { .. }
            | E::UnknownInput { .. }
            | E::Shape { .. }
            | E::Datatype { .. }
            | E::TooLarge { .. } => Blame::Caller,
            E::Busy { .. } | E::BackedOff { .. } => Blame::Busy,
            // A caller in a hurry says nothing about the version.
            E::Expired { .. } if is_slow => Blame::Slow,
            E::Expired { .. } | E::Closed => Blame::Nobody,
            E::NotFinite { .. }
            | E::NoEngine { .. }
            | E::NoneTakes { .. }
            | E::Load { .. }
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
        | E::Datatype { .. }
        | E::TooLarge { .. }
        | E::NotFinite { .. } => InferError::Shape { detail },
        E::Busy { .. } | E::BackedOff { .. } => InferError::Busy { detail },
        E::Expired { .. } => InferError::Deadline { detail },
        E::Closed
        | E::NoEngine { .. }
        | E::NoneTakes { .. }
        | E::Load { .. }
        | E::Declared { .. }
        | E::Sample { .. }
        | E::Setting { .. }
        | E::Delegate { .. }
        | E::NoRoom { .. }
        | E::Thread(_) => InferError::NotServing { reason: detail },
        E::Panicked { .. } | E::Run { .. } => InferError::Failed { detail },
    }
}
