//! Why a candidate stands where it stands in a plan, or is left out of it.

use std::fmt;
use std::time::Duration;

use super::ask::{Link, Need, Reach};
use super::conditions::Unmet;
use super::vitals::Held;

/// Why a candidate stands where it stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Basis {
    /// Its place in the file.
    Listed,
    /// Its share, by chance.
    Drawn,
    /// Its share, by the request's sticky key.
    Sticky,
    /// Its average time to a first byte; none: never measured.
    Latency(Option<Duration>),
    /// What the request costs there in pico-USD; none: unknown.
    Cost(Option<u64>),
    /// Requests that it has.
    Busy(u32),
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listed => f.write_str("listed"),
            Self::Drawn => f.write_str("drawn"),
            Self::Sticky => f.write_str("sticky"),
            Self::Latency(Some(time)) => write!(f, "{} ms", time.as_millis()),
            Self::Latency(None) => f.write_str("not measured"),
            Self::Cost(Some(pico)) => write!(f, "{}.{:06} USD", pico / 1_000_000_000_000, pico / 1_000_000 % 1_000_000),
            Self::Cost(None) => f.write_str("price unknown"),
            Self::Busy(requests) => write!(f, "{requests} requests"),
        }
    }
}

/// Why a candidate is not asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reason {
    /// It is further away than the request may go.
    Reach {
        /// Where it is.
        at: Reach,
        /// How far the request may go.
        allowed: Reach,
    },
    /// It is not asked over such a link.
    Link(Link),
    /// It cannot do what the request needs.
    Lacks(Need),
    /// Prompt and answer do not fit.
    Length {
        /// Tokens that are needed.
        tokens: u64,
        /// Tokens that fit.
        most: u64,
    },
    /// It is not for such requests.
    When(Unmet),
    /// It has as many requests as it may.
    Full(u32),
    /// It does badly, or asked to be left alone.
    Held(Held),
}

impl Reason {
    /// The word for metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Reach { .. } => "reach",
            Self::Link(_) => "link",
            Self::Lacks(_) => "lacks",
            Self::Length { .. } => "length",
            Self::When(_) => "when",
            Self::Full(_) => "full",
            Self::Held(Held::Breaker(_)) => "breaker",
            Self::Held(Held::RetryAfter(_)) => "retry_after",
            Self::Held(Held::Unhealthy(_)) => "unhealthy",
            Self::Held(Held::Limited(_)) => "limited",
        }
    }

    /// Whether it may be asked later, without anything but time or others' requests being different.
    pub fn passes(&self) -> bool {
        matches!(self, Self::Link(_) | Self::Full(_) | Self::Held(_))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reach { at, allowed: Reach::Box } => {
                write!(f, "it is on the {at}, the request must not leave the box")
            }
            Self::Reach { at, allowed } => write!(f, "it is in the {at}, the request may go to the {allowed} only"),
            Self::Link(link) => write!(f, "the link is {link}"),
            Self::Lacks(need) => write!(f, "it lacks {}", need.as_str()),
            Self::Length { tokens, most } => write!(f, "{tokens} tokens do not fit into {most}"),
            Self::When(unmet) => unmet.fmt(f),
            Self::Full(busy) => write!(f, "it has {busy} requests, which is its bound"),
            Self::Held(held) => held.fmt(f),
        }
    }
}
