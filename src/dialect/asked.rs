//! What is kept of a request until its answer is translated back.

use bytes::Bytes;

use super::{Dialect, Facts, Operation};

/// Bounds of what is held in memory for one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of one frame of a stream.
    pub frame_max_bytes: usize,
    /// The most bytes of text and arguments that are kept of a stream for a dialect that repeats them at the end
    /// (responses). At the bound the stream ends with an error.
    pub kept_max_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { frame_max_bytes: 8 << 20, kept_max_bytes: 16 << 20 }
    }
}

/// The request as its answer needs it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The caller's dialect.
    pub dialect: Dialect,
    /// What was asked for.
    pub operation: Operation,
    /// The caller's body: responses repeat much of it.
    pub request: Bytes,
    /// Letters and digits that nobody else has, without prefix: ids of answers and items are made from it.
    pub id: String,
    /// When the answer began, in seconds since 1970.
    pub created_unix_s: u64,
    /// The model's name as the caller shall see it; `None` leaves what the model's server says.
    pub model_shown: Option<String>,
    /// Whether an OpenAI stream ends with the usage.
    pub include_usage: bool,
    /// The estimate of the prompt, in case nobody tells its tokens.
    pub input_tokens_estimated: u64,
    /// The output of a model of the Open Inference Protocol, as [`OipModel::output`](super::OipModel::output).
    pub oip_output: Option<String>,
    /// Bounds.
    pub limits: Limits,
}

impl Asked {
    /// Keeps what `facts` say of `request`.
    pub fn new(facts: &Facts<'_>, request: Bytes, id: impl Into<String>, created_unix_s: u64) -> Self {
        Self {
            dialect: facts.dialect,
            operation: facts.operation,
            request,
            id: id.into(),
            created_unix_s,
            model_shown: None,
            include_usage: facts.include_usage,
            input_tokens_estimated: facts.input_tokens_estimated(),
            oip_output: None,
            limits: Limits::default(),
        }
    }

    /// The model's name that a translated answer carries.
    pub(crate) fn model<'a>(&'a self, told: Option<&'a str>) -> &'a str {
        self.model_shown.as_deref().or(told).unwrap_or("unknown")
    }
}
