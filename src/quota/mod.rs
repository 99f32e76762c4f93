//! How much a caller may still take: requests, tokens and money, a minute, a day and a month.
//!
//! A request meets limits at several levels (its key, user, team, tenant and model: plain texts here). [`Quota::reserve`]
//! admits it at all of them or at none, under one lock, before anybody is asked. When it is known what it took,
//! [`Reservation::settle`] puts that in the place of what was reserved; [`Reservation::refund`] gives everything back. So
//! concurrent requests that reserve what they take at most cannot overspend a budget, not by one unit.
//!
//! - Rates are buckets: a minute's worth at once, refilled evenly by the time since boot. In the worst minute that is
//!   twice the limit. They and requests under way start anew with the process.
//! - Budgets are counted in calendar days and months of one time zone, and kept in the store ([`Quota::resume`],
//!   [`Quota::keep`], [`Quota::flush`]): written behind in batches. A crash may lose what was reserved and settled since
//!   the newest commit, which is at most `flush_ms` of it and about a 128th of a budget's limit; what was under way is
//!   charged as reserved. While the disk refuses, limits hold in memory.
//! - A request counts in the period in which it was admitted, whenever it ends. If the wall clock is set back over a
//!   midnight, what was spent under the later date is added to the earlier one; if it was ahead, a budget may have begun
//!   early, once for each time.
//! - What a request took beyond its reservation is counted as it is, so a budget can be overspent by wrong estimates.
//!   A bucket owes at most a minute.
//! - An unknown amount is never nothing: it refuses, or is admitted and counted in the metrics, as configured. What
//!   takes nothing of a unit is never refused for it, so a local model answers when the money is gone.
//! - A [`Lease`] is a share that the cloud has granted until a time: spent offline, reported and reconciled later. The
//!   [`Pool`] that it comes from is the owner's side.
//!
//! Never here: what a token or a dollar is, who a caller is, waiting until a limit allows.
//!
//! Limits: `max_subjects` names, 4,096 entries, 64 levels in the configuration; a name of over 256 bytes is counted under
//! its digest. One reservation takes under a microsecond; nothing runs and nothing is held while no limit is configured.

mod admit;
mod budget;
mod calendar;
mod config;
mod counter;
mod keep;
mod lease;
mod metrics;
mod pool;
mod refusal;
mod reservation;
mod reserve;
mod rows;
mod standing;
mod state;
#[cfg(test)]
mod tests;
mod unit;

pub use calendar::{Calendar, Day};
pub use config::{Config, LimitConfig, Usd, WhenUnknown};
pub use keep::{Remembered, Resumed, remembered};
pub use lease::{Lease, LeaseError, LeaseReport, LeaseStanding};
pub use metrics::Metrics;
pub use pool::{Pool, Reported};
pub use refusal::{Rate, Rates, Refusal, Warning, Why};
pub use reservation::Reservation;
pub use reserve::{Quota, SettingError};
pub use rows::SCHEMA;
pub use standing::Standing;
pub use unit::{Amounts, Now, Span, Subject, Unit};
