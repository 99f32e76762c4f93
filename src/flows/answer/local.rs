//! Models of this box, as this story asks them: in OpenAI's dialect, so that every other one comes for free.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::dialect::{self, Asked, Operation};
use crate::generate;
use crate::price::LocalUse;
use crate::route::Fault;

/// A model of this box, for lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalModel {
    /// Its name.
    pub name: String,
    /// When its file came, in seconds since 1970; 0 if nobody knows.
    pub created_unix_s: u64,
    /// Bytes of its file.
    pub size_bytes: u64,
    /// SHA-256 of its file in hex; may be empty.
    pub digest: String,
    /// What it is made of, such as `qwen2`; may be empty.
    pub family: String,
    /// Such as `0.5B`; may be empty.
    pub parameter_size: String,
    /// Such as `Q4_K_M`; may be empty.
    pub quantization: String,
}

/// One question to a model of this box.
#[derive(Debug, Clone)]
pub struct LocalAsk<'a> {
    /// The model.
    pub model: &'a str,
    /// Whose prompts may begin with what was read of another one of theirs: the time of an answer tells of it.
    pub partition: &'a str,
    /// Whether the answer is to come as OpenAI's server-sent events rather than one body.
    pub stream: bool,
    /// The request in OpenAI's dialect (chat, completions or embeddings), and what answers are written with.
    pub asked: Asked,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to ask a model of this box: {reason}")]
pub struct LocalFailure {
    /// What became of it. [`Fault::Unable`]: this model does not do what is asked, and another may.
    pub fault: Fault,
    /// A sentence for the caller. Never a prompt.
    pub reason: String,
}

impl LocalFailure {
    /// Of a request that cannot be read.
    pub(in crate::flows) fn of_request(error: &dialect::Error) -> Self {
        Self { fault: Fault::BadRequest, reason: error.failure().message }
    }

    /// Of a model, a template or its messages.
    pub(in crate::flows) fn of_generation(error: &generate::Error) -> Self {
        use generate::Error;
        let fault = match error {
            Error::File(_) | Error::Unsupported { .. } => Fault::Unable,
            Error::Request { .. } | Error::Template(_) | Error::Corner => Fault::BadRequest,
            Error::TooLong { .. } => Fault::TooLong,
            Error::Busy { .. } | Error::NoRoom { .. } => Fault::Overloaded { retry_after: None },
            Error::Scores(_) => Fault::Unavailable,
        };
        Self { fault, reason: error.to_string() }
    }
}

/// An answer on its way. Dropping it ends the work.
pub trait LocalBody: Send {
    /// The next bytes, never empty; none: it ended as it should.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, LocalFailure>>>;

    /// What was used so far; none: nobody knows.
    fn used(&self) -> Option<LocalUse>;
}

/// A future that asks.
pub type LocalAsking<'a> = Pin<Box<dyn Future<Output = Result<Box<dyn LocalBody>, LocalFailure>> + Send + 'a>>;

/// Whoever runs language models on this box.
pub trait Local: Send + Sync {
    /// The models that can be asked now.
    fn models(&self) -> Vec<LocalModel>;

    /// Whether this one can be asked for this now.
    fn has(&self, model: &str, operation: Operation) -> bool;

    /// Asks. Dropping the future or the body cancels it.
    fn ask<'a>(&'a self, ask: LocalAsk<'a>) -> LocalAsking<'a>;
}
