//! Why a provider cannot be set up, and why asking it failed.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use hyper::HeaderMap;

use crate::base::Name;

/// Why a provider cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting that cannot work.
    #[error("failed to set up provider {provider}: {setting} {problem}")]
    Setting {
        /// Whose.
        provider: Name,
        /// The setting's name.
        setting: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A file that cannot be read.
    #[error("failed to read {setting} {} of provider {provider}: {source}", path.display())]
    File {
        /// Whose.
        provider: Name,
        /// The setting that names it.
        setting: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file without what it should hold. Its content is never shown.
    #[error("failed to use {setting} {} of provider {provider}: {problem}", path.display())]
    Content {
        /// Whose.
        provider: Name,
        /// The setting that names it.
        setting: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// Two of one name.
    #[error("failed to set up providers: there are two of the name {name}")]
    Twice {
        /// The name.
        name: Name,
    },
}

/// What kind of failure it was: what to do about it follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The key is missing, wrong, or may not do this. Asking again does not help; another provider may.
    Auth,
    /// The account has no money or quota left. Asking again does not help; another provider may.
    OutOfCredit,
    /// Too many requests or tokens within a time.
    RateLimited,
    /// It has too much to do, or our own connections to it are all taken.
    Overloaded,
    /// No answer, or no more of it, in time.
    Timeout,
    /// The request itself is wrong: every provider would say so.
    BadRequest,
    /// The request is longer than the model takes; one with a larger window may take it.
    TooLong,
    /// It does not have that model, or does not do that.
    NotFound,
    /// Not reached, cut off, or broken at its side.
    Unavailable,
    /// It answered something that is no answer.
    Malformed,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 10] = [
        Self::Auth,
        Self::OutOfCredit,
        Self::RateLimited,
        Self::Overloaded,
        Self::Timeout,
        Self::BadRequest,
        Self::TooLong,
        Self::NotFound,
        Self::Unavailable,
        Self::Malformed,
    ];

    /// The word in records and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::OutOfCredit => "out_of_credit",
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::Timeout => "timeout",
            Self::BadRequest => "bad_request",
            Self::TooLong => "too_long",
            Self::NotFound => "not_found",
            Self::Unavailable => "unavailable",
            Self::Malformed => "malformed",
        }
    }

    /// Whether the same request to the same provider may work a little later.
    pub const fn may_pass(self) -> bool {
        matches!(self, Self::RateLimited | Self::Overloaded | Self::Timeout | Self::Unavailable | Self::Malformed)
    }

    /// Whether another candidate may answer the same request.
    pub const fn another_may_answer(self) -> bool {
        !matches!(self, Self::BadRequest)
    }

    /// Whether it says something about the provider's health (breakers count it), rather than about the request.
    pub const fn is_the_providers(self) -> bool {
        !matches!(self, Self::BadRequest | Self::TooLong | Self::NotFound)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a provider said instead of an answer, so that it can be told in the caller's language.
#[derive(Debug, Clone)]
pub struct ErrorAnswer {
    /// Its HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, at most [`ERROR_BYTES_MAX`] of it.
    pub body: Bytes,
}

/// What is kept of the body of an error.
pub const ERROR_BYTES_MAX: u64 = 64 * 1024;

/// Why asking failed. Its text never holds a key, a prompt or an answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("failed to ask provider {provider}: {reason}")]
pub struct Failure {
    /// Whom.
    pub provider: Name,
    /// What kind of failure.
    pub class: Class,
    /// What happened, for people.
    pub reason: String,
    /// How long it wants to be left alone, if it said so; at most an hour.
    pub retry_after: Option<Duration>,
    /// Whether it may have begun to work on the request, and may bill it.
    pub sent: bool,
    /// What it said, if it said anything.
    pub answer: Option<Box<ErrorAnswer>>,
}

impl Failure {
    /// Before anything was sent.
    pub(super) fn unsent(provider: &Name, class: Class, reason: impl Into<String>) -> Self {
        Self { provider: provider.clone(), class, reason: reason.into(), retry_after: None, sent: false, answer: None }
    }

    /// After the request went out.
    pub(super) fn sent(provider: &Name, class: Class, reason: impl Into<String>) -> Self {
        Self { sent: true, ..Self::unsent(provider, class, reason) }
    }
}
