//! What can become of a request, and who is to blame for it.

use std::time::Duration;

/// Why an attempt has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The request is wrong: everybody would refuse it.
    BadRequest,
    /// The request is longer than this model takes.
    TooLong,
    /// The candidate will not answer such content.
    ContentRefused,
    /// The gateway's key is not accepted there, or may not use the model.
    Unauthorized,
    /// There is no such model there.
    NotFound,
    /// It cannot do what is asked, and says so; another one may.
    Unable,
    /// Too many requests from us.
    RateLimited {
        /// When to come back, from now.
        retry_after: Option<Duration>,
    },
    /// Too many requests altogether (503, 529), or a full queue.
    Overloaded {
        /// When to come back, from now.
        retry_after: Option<Duration>,
    },
    /// No first byte, or no further one, in time.
    Timeout,
    /// No connection, or an error of its own (5xx).
    Unavailable,
    /// An answer that is none.
    Malformed,
    /// The answer ended in the middle, after the caller had seen a part.
    Cut,
    /// The caller left.
    Cancelled,
}

impl Fault {
    /// The word for records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::TooLong => "too_long",
            Self::ContentRefused => "content_refused",
            Self::Unauthorized => "unauthorized",
            Self::NotFound => "not_found",
            Self::Unable => "unable",
            Self::RateLimited { .. } => "rate_limited",
            Self::Overloaded { .. } => "overloaded",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::Malformed => "malformed",
            Self::Cut => "cut",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether it counts against the target. Being asked too often by us does not: that is waited for instead.
    pub fn counts(self) -> bool {
        match self {
            Self::BadRequest
            | Self::TooLong
            | Self::ContentRefused
            | Self::Unable
            | Self::RateLimited { .. }
            | Self::Cancelled => false,
            Self::Unauthorized
            | Self::NotFound
            | Self::Overloaded { .. }
            | Self::Timeout
            | Self::Unavailable
            | Self::Malformed
            | Self::Cut => true,
        }
    }

    /// How long the target is left alone for it; `unsaid` where it was rate limited and did not say.
    pub fn holds(self, unsaid: Duration) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } => Some(retry_after.unwrap_or(unsaid)),
            Self::Overloaded { retry_after } => retry_after,
            _ => None,
        }
    }

    /// Whether the same target may answer when it is asked once more.
    pub(super) fn passes(self) -> bool {
        matches!(self, Self::Overloaded { retry_after: None } | Self::Timeout | Self::Unavailable | Self::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_everybody_would_refuse_counts_against_nobody() {
        for fault in [Fault::BadRequest, Fault::TooLong, Fault::ContentRefused, Fault::Unable, Fault::Cancelled] {
            assert!(!fault.counts() && !fault.passes(), "{}", fault.as_str());
            assert_eq!(fault.holds(Duration::from_secs(1)), None);
        }
        assert!(Fault::Timeout.counts() && Fault::Cut.counts() && !Fault::Cut.passes());
    }
}
