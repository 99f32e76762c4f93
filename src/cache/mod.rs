//! Answers that were given before, so that the same question is not paid for twice: exact, by meaning, and while on the way.
//!
//! A flow takes the route's [`Policy`] from [`Cache::policy`] and asks in this order; each step does only what the policy says:
//! 1. [`Cache::key`] brings the request's JSON into a normal form and digests it with its [`Partition`];
//! 2. [`Cache::find`] looks for the same request, in memory and then in the database;
//! 3. [`Cache::find_meaning`] looks for one that means the same, by a vector that an [`Embed`] makes;
//! 4. [`Cache::join`] lets requests that are the same wait for the first of them;
//! 5. [`Cache::keep`] and [`Cache::keep_meaning`] keep a good answer, then [`Leader::land`] tells the followers.
//!
//! What is the same: the order of an object's members and the space between tokens make no difference, nor how a character
//! is escaped. Numbers count as they are written. Members that the policy leaves out do not count. A request with two
//! members of one name, half a surrogate pair or over 128 levels has no normal form and passes by.
//!
//! Partitions are walls. Tenant, route, model, dialect and operation always are; the caller's key unless the policy shares
//! within the tenant. For answers by meaning, everything that is not the compared text must be in [`Partition::more`].
//!
//! Never here: what an answer says, whether it was good, which vector a text has, a background task. Nothing is on, and no
//! memory is taken, unless [`Config`] gives it a bound; rows of a part that was switched off go at the next start.
//!
//! Limits, each with a counter: answers in memory in bytes (SIEVE makes room), in the database in bytes and, by meaning, in
//! number (the oldest make room), an answer and a request in bytes (they pass by), flights and followers in number (they
//! ask for themselves), levels and left-out names. The database's writer is never waited for: an answer it has no room
//! for is not kept. A disk that fails, or a row whose checksum does not hold, is a miss.

mod answer;

mod config;
mod embed;
mod exact;
mod flight;
mod lookup;
mod metrics;
mod normal;
mod partition;
mod rows;
mod shelf;
#[cfg(test)]
mod tests;
mod wish;

pub use answer::{Answer, Hit, Worth};
pub use config::{Config, ConfigError, DiskConfig, Policy, Scope, SemanticConfig};
pub use embed::{Embed, EmbedError};
pub use flight::{Abandoned, Follower, Leader, Turn};
pub use lookup::{Cache, Error, Key, Meaning};
pub use metrics::Metrics;
pub use partition::{Partition, Purge};
pub use rows::SCHEMA;
pub use wish::Wish;
