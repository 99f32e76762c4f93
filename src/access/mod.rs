//! Who is calling: keys, passwords and client certificates become a [`Principal`] with topics, models, a tenant and a role.
//!
//! A caller is an *identity* of the configuration (`[[access.identity]]`), or has a *key* that was made while the gateway
//! runs ([`Keys`]). It is proved by
//! - a **key**: at least 128 random bits from [`new_key`], of which only the SHA-256 is kept. It travels as a
//!   bearer token, in one of the headers that model APIs use, or as the MQTT password with the identity's name as user
//!   name. There is no slow password hash on purpose: it would let strangers burn this box's cores by connecting, and a
//!   random key does not need one. So a password that a person made up must not be used here;
//! - a **client certificate** that the TLS layer has verified: its one common name, or a DNS or URI alternative name;
//! - or nothing at all, from this machine itself, where `allow_anonymous_loopback` says so.
//!
//! Topic rules are MQTT filters in which `%u` stands for the identity's name and `%c` for the client id. What no rule
//! allows is forbidden. A subscription is allowed only if one rule covers it whole. Keys made at run time have no topics.
//!
//! Every caller belongs to a tenant (`default` unless said), perhaps to a team and a user, has a role, and patterns for
//! the models and routes that it may use. An `app` uses the box, an `operator` also runs it, for every tenant.
//!
//! Keys made at run time are rows, written before they open, and are found in memory by digest; see [`Keys`]. A key may
//! begin, end, be replaced with an overlap, and be taken back at once. A [`Principal`] is of the moment it was asked for:
//! ask again for each request, and a connection that stays open keeps what it came with.
//!
//! Times are judged by the box's wall clock, which never falls back behind the last time on the disk; on a box that does not
//! know the time, a key that has ended since may open.
//!
//! Never here: sockets, TLS, sessions, files, and no answer that tells an unknown name from a wrong key. Whoever has a
//! key's text is told that it has ended; nobody else is.
//!
//! Limits: 4096 identities, 256 rules each; 10,000 keys made at run time and 1,000 tenants, beyond which making one is an
//! error and counted in `access_key_edits_refused`; 64 patterns a list.

mod certificate;
mod config;
mod filter;
mod grant;
mod identities;
mod key;
mod keys;
mod metrics;
mod pattern;
mod principal;
mod record;
mod ring;
mod rows;
mod tenant;
#[cfg(test)]
mod tests;

pub use config::{Config, Identity};
pub use filter::{Filter, FilterError};
pub use grant::{DEFAULT_TENANT, Role, User, UserError};
pub use identities::{Access, Denied, Error};
pub use key::{NewKey, new_key};
pub use keys::{Keys, KeysError};
pub use metrics::Metrics;
pub use pattern::{Pattern, PatternError};
pub use principal::{How, Principal};
pub use record::{KeyChange, KeyInfo, KeyOrder, KeyState};
pub use rows::SCHEMA;
pub use tenant::Tenant;
