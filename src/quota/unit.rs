//! What is counted, over which time, and how much of it one request takes.

use serde::{Deserialize, Serialize};

use crate::base::Clock;

/// What a limit counts. To this room all three are plain integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Requests, each one.
    Requests,
    /// Tokens, in and out together.
    Tokens,
    /// Money, in the smallest unit that the caller counts in (Forebay: millionths of a millionth of a dollar).
    Money,
}

impl Unit {
    pub(super) const ALL: [Self; 3] = [Self::Requests, Self::Tokens, Self::Money];

    /// The word in rows, JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::Money => "money",
        }
    }
}

/// The time that a limit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Span {
    /// What is under way at one moment; requests only.
    AtOnce,
    /// A minute's worth at once, refilled evenly.
    Minute,
    /// A calendar day of the configured time zone.
    Day,
    /// A calendar month of the configured time zone.
    Month,
    /// As long as a lease lasts.
    Lease,
}

impl Span {
    pub(super) const KEPT: [Self; 3] = [Self::Day, Self::Month, Self::Lease];

    /// The word in rows, JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AtOnce => "at_once",
            Self::Minute => "minute",
            Self::Day => "day",
            Self::Month => "month",
            Self::Lease => "lease",
        }
    }
}

/// Whose limits a request meets: a level (`key`, `tenant`, ...) and a name in it. Both are plain text here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The level as the configuration names it.
    pub level: &'a str,
    /// The name. One over 256 bytes is counted under its digest.
    pub name: &'a str,
}

impl<'a> Subject<'a> {
    /// `name` at `level`.
    pub fn new(level: &'a str, name: &'a str) -> Self {
        Self { level, name }
    }
}

/// What one request takes, beside being a request. `None` is unknown, which is never nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Tokens.
    pub tokens: Option<u64>,
    /// Money.
    pub money: Option<u64>,
}

impl Amounts {
    /// A request that takes neither tokens nor money.
    pub const FREE: Self = Self { tokens: Some(0), money: Some(0) };

    pub(super) fn of(&self, unit: Unit) -> Option<u64> {
        match unit {
            Unit::Requests => Some(1),
            Unit::Tokens => self.tokens,
            Unit::Money => self.money,
        }
    }

    /// Each amount, or the other's where this one is unknown.
    pub(super) fn or(self, other: Self) -> Self {
        Self { tokens: self.tokens.or(other.tokens), money: self.money.or(other.money) }
    }

    /// Each amount, or the larger of both.
    pub(super) fn max(self, other: Self) -> Self {
        Self { tokens: self.tokens.max(other.tokens), money: self.money.max(other.money) }
    }
}

/// Now, by both clocks: rates go by the time since boot, which nobody sets; days and months by the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since 1970, UTC.
    pub wall_ms: i64,
    /// Milliseconds since boot.
    pub boot_ms: u64,
}

impl Now {
    /// What `clock` says: two cheap calls, no question about its synchronisation.
    pub fn of(clock: &dyn Clock) -> Self {
        Self { wall_ms: clock.wall_ms(), boot_ms: u64::try_from(clock.since_boot().as_millis()).unwrap_or(u64::MAX) }
    }
}
