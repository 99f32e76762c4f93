//! What can be wrong with a pipeline, found when it is loaded, and with a request, found by a step.

/// Why there is no pipeline, or no answer by one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("line {line}, column {column}: {message}")]
    Form {
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What is wrong there.
        message: String,
    },
    /// The graph as a whole.
    #[error("{0}")]
    Graph(String),
    /// A step of it: a setting, or a tensor that it cannot take.
    #[error("step {step}: {problem}")]
    Step {
        /// Its name.
        step: String,
        /// What was expected, and what is there.
        problem: String,
    },
}

impl Error {
    pub(super) fn step(step: &str, problem: impl Into<String>) -> Self {
        Self::Step { step: step.to_owned(), problem: problem.into() }
    }
}
