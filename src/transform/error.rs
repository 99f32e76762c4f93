//! What can be wrong with a model's steps, found when it is loaded, and with what a caller sent.

/// Why there is no plan, or no answer by it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// `[predict]` cannot be read.
    #[error("failed to read [predict]: {0}")]
    Config(String),
    /// A step does not fit the model's tensor. Said when the model is loaded.
    #[error("failed to use {step} of {tensor:?}: expected {expected}, given {given}")]
    Step {
        /// `[[predict.input]] image: resize`.
        step: String,
        /// The model's input or output.
        tensor: String,
        /// What would fit.
        expected: String,
        /// What the manifest says.
        given: String,
    },
    /// This build leaves out what the step needs.
    #[error("{kind} is not in this build: it needs the cargo feature {feature:?}")]
    NotBuilt {
        /// What was asked.
        kind: &'static str,
        /// The feature.
        feature: &'static str,
    },
    /// What was sent is not what the model takes.
    #[error("{what}: expected {expected}, given {given}")]
    Content {
        /// The source, the instance and the field.
        what: String,
        /// What would be right.
        expected: String,
        /// What came.
        given: String,
    },
    /// What was sent would take too much memory or time.
    #[error("{what} has {given}, the most is {most}")]
    TooLarge {
        /// The source.
        what: String,
        /// With its unit.
        given: String,
        /// With its unit, and the key that sets it.
        most: String,
    },
    /// The model gave something that its steps cannot read.
    #[error("failed to read output {tensor:?} by {step}: {detail}")]
    Output {
        /// The model's output.
        tensor: String,
        /// The step.
        step: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// The caller has gone, or its time is over.
    #[error("nobody waits for the answer any more")]
    Abandoned,
}

impl Error {
    pub(super) fn step(
        step: impl Into<String>,
        tensor: &str,
        expected: impl Into<String>,
        given: impl Into<String>,
    ) -> Self {
        Self::Step { step: step.into(), tensor: tensor.to_owned(), expected: expected.into(), given: given.into() }
    }

    pub(super) fn content(what: impl Into<String>, expected: impl Into<String>, given: impl Into<String>) -> Self {
        Self::Content { what: what.into(), expected: expected.into(), given: given.into() }
    }
}
