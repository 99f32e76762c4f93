//! Why a request may not be made now, and what its caller may be told about rates.

use std::fmt;

use super::unit::{Span, Unit};

/// A limit that a request would break. No other limit has counted the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The level of the limit.
    pub level: Box<str>,
    /// The name at that level; at a key's level its id.
    pub name: Box<str>,
    /// What it counts.
    pub unit: Unit,
    /// Over which time.
    pub span: Span,
    /// What it allows.
    pub limit: u64,
    /// What is left of it.
    pub left: u64,
    /// What the request would take, as far as that is known.
    pub wanted: Option<u64>,
    /// The reason.
    pub why: Why,
    /// In how many milliseconds the same request may pass, as far as is known today. None: not by waiting.
    pub retry_after_ms: Option<u64>,
}

/// The reason of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// Used up for now.
    Exhausted,
    /// The request alone is larger than the limit.
    TooLarge,
    /// Nobody knows how much of the unit it would take, and the limit counts that.
    Unknown,
    /// The share that the cloud had granted has ended, or was never granted.
    NoLease,
    /// Too many names are counted already.
    TooManySubjects,
}

impl Why {
    /// The word in metrics and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::TooLarge => "too_large",
            Self::Unknown => "unknown_amount",
            Self::NoLease => "no_lease",
            Self::TooManySubjects => "too_many_subjects",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { level, name, limit, left, .. } = self;
        let unit = self.unit.as_str();
        let span = match self.span {
            Span::AtOnce => "at the same time",
            Span::Minute => "a minute",
            Span::Day => "a day",
            Span::Month => "a month",
            Span::Lease => "of its lease",
        };
        match self.why {
            Why::Exhausted => write!(f, "{level} {name:?} has {left} of its {limit} {unit} {span} left")?,
            Why::TooLarge => write!(f, "{level} {name:?} has {limit} {unit} {span}, which one request alone exceeds")?,
            Why::Unknown => write!(f, "{level} {name:?} has {limit} {unit} {span}, and what this takes is unknown")?,
            Why::NoLease => write!(f, "{level} {name:?} has no valid lease of {unit}")?,
            Why::TooManySubjects => write!(f, "no more names can be counted at level {level}")?,
        }
        if let Some(wanted) = self.wanted
            && matches!(self.why, Why::Exhausted | Why::TooLarge)
        {
            write!(f, "; this request takes {wanted}")?;
        }
        match self.retry_after_ms {
            Some(ms) if self.why == Why::Exhausted => write!(f, "; try again in {} s", ms.div_ceil(1000)),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Refusal {}

/// One rate, as `x-ratelimit-*` headers tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Allowed a minute.
    pub limit: u64,
    /// Left now, after this request.
    pub left: u64,
    /// Milliseconds until all of it is there again.
    pub resets_ms: u64,
}

impl Refusal {
    /// The rate that refused, for the headers that a request which passed has as well; none where it was no rate.
    pub fn rates(&self) -> Rates {
        let full_ms = u128::from(self.limit - self.left.min(self.limit)) * 60_000;
        let resets_ms = full_ms.checked_div(self.limit.into()).map_or(60_000, |ms| u64::try_from(ms).unwrap_or(60_000));
        let rate = (self.span == Span::Minute).then_some(Rate { limit: self.limit, left: self.left, resets_ms });
        match self.unit {
            Unit::Requests => Rates { requests: rate, tokens: None },
            Unit::Tokens => Rates { requests: None, tokens: rate },
            Unit::Money => Rates::default(),
        }
    }
}

/// The tightest rates of those that a request met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// Of requests.
    pub requests: Option<Rate>,
    /// Of tokens.
    pub tokens: Option<Rate>,
}

/// A budget that has reached a share of its limit, told once a period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The level of the budget.
    pub level: Box<str>,
    /// The name at that level.
    pub name: Box<str>,
    /// What it counts.
    pub unit: Unit,
    /// Over which time.
    pub span: Span,
    /// The share that was reached: the highest of the configured ones.
    pub percent: u8,
    /// Spent so far.
    pub spent: u64,
    /// The limit.
    pub limit: u64,
}
