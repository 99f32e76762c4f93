//! What can go wrong with a model's file, a prompt or an answer.

/// Why a model cannot be asked, or has no answer. Never holds a prompt or an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum Error {
    /// The model's file has no vocabulary or template that can be used.
    #[error("failed to read the model's file: {0}")]
    File(String),
    /// Something in the request is not what it has to be; the caller can mend it.
    #[error("{field}: expected {expected}, given {given}")]
    Request { field: String, expected: String, given: String },
    /// The model's template refused the messages, or they are more than it may be given.
    #[error("the model's chat template does not take these messages: {0}")]
    Template(String),
    /// Asked for something that is not done here. The words say what would be.
    #[error("{what} is not supported by this model: {instead}")]
    Unsupported { what: String, instead: String },
    /// The prompt does not fit.
    #[error("the prompt has {tokens} tokens, the model takes {most}")]
    TooLong { tokens: usize, most: usize },
    /// As many answers are being made as may be at once. Try later, or ask somebody else.
    #[error("busy: {active} answers are being made, the most is {most} (generate.sequences_max)")]
    Busy { active: usize, most: usize },
    /// No memory for another sequence.
    #[error("no room for a sequence of {tokens} tokens: {why}")]
    NoRoom { tokens: usize, why: String },
    /// What was promised and what was forbidden leave no token. The caller can ask for something else.
    #[error("no token may stand here: what the request promises and what it forbids leave none")]
    Corner,
    /// The decoder could not compute.
    #[error("failed to compute the next token: {0}")]
    Scores(String),
}

impl Error {
    pub(super) fn request(field: impl Into<String>, expected: impl Into<String>, given: impl Into<String>) -> Self {
        Self::Request { field: field.into(), expected: expected.into(), given: given.into() }
    }
}
