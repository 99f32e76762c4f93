//! Who is calling: keys, passwords and client certificates become a [`Principal`] with topic rules.
//!
//! A caller is an *identity* of the configuration (`[[access.identity]]`), proved by
//! - a **key**: at least 128 random bits from [`new_key`], of which only the SHA-256 is configured. It travels as a
//!   bearer token, or as the MQTT password with the identity's name as user name. There is no slow password hash on
//!   purpose: it would let strangers burn this box's cores by connecting, and a random key does not need one. So a
//!   password that a person made up must not be used here;
//! - a **client certificate** that the TLS layer has verified: its one common name, or a DNS or URI alternative name;
//! - or nothing at all, from this machine itself, where `allow_anonymous_loopback` says so.
//!
//! Topic rules are MQTT filters in which `%u` stands for the identity's name and `%c` for the client id. What no rule
//! allows is forbidden. A subscription is allowed only if one rule covers it whole.
//!
//! Never here: sockets, TLS, sessions, files, and no answer that tells an unknown name from a wrong key.
//!
//! Limits: 4096 identities, 256 rules each.

mod certificate;
mod config;
mod filter;
mod identities;
mod key;
mod metrics;
mod principal;

pub use config::{Config, Identity};
pub use filter::{Filter, FilterError};
pub use identities::{Access, Denied, Error};
pub use key::{NewKey, new_key};
pub use metrics::Metrics;
pub use principal::{How, Principal};
