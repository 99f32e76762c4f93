//! Asking a model elsewhere: addresses, proof of identity, connections, time limits, and what kind of failure it was.
//!
//! A [`Provider`] takes a body in a language that it speaks ([`Kind::wires`], [`Kind::takes`]) and gives back the answer's
//! bytes as they come ([`ReplyBody`]); translating is somebody else's. Keys come from files ([`Config::key_file`], or a
//! systemd credential), are read again when the file changes, and are never in the configuration, a log or an error.
//! Every failure has a [`Class`], which says what to do: another candidate, later, or nothing.
//!
//! Connections have no tasks of their own: whoever waits for an answer drives its connection, and whoever drops the
//! future or the body closes it, which is how a request is cancelled. HTTP/1.1 only, over TLS 1.2 or 1.3 or in the clear.
//!
//! Never here: reading a prompt or an answer, choosing or trying another provider, counting tokens, a breaker, a
//! redirect (it is an error), an environment variable but SSL_CERT_FILE and SSL_CERT_DIR.
//!
//! Limits, by provider: `connections_max` requests at once, `waiting_max` more that wait for `connect_timeout_ms`, then
//! [`Class::Overloaded`]; `first_byte_timeout_ms`, `idle_timeout_ms`, `total_timeout_ms` ([`Class::Timeout`]);
//! `answer_bytes_max` of an answer ([`Class::Malformed`]), 64 KiB of an error ([`ERROR_BYTES_MAX`]), 64 KiB of a head; 64 KiB
//! of a key file; 8 addresses of a name; an hour of Retry-After. A provider without requests has no connection, no
//! buffer and no timer.

mod address;
mod ask;
mod auth;
mod body;
mod classify;
mod config;
mod connect;
mod credential;
mod error;
mod event_stream;
mod fake;
mod google;
mod kind;
mod metrics;
mod oip;
mod pool;
mod providers;
mod remote;
mod reshape;
mod secret;
mod sigv4;
mod tls;

pub use ask::{Ask, Asking, Provider, Reply};
pub use body::ReplyBody;
pub use config::{Config, Model, RenamedModel};
pub use error::{Class, ERROR_BYTES_MAX, Error, ErrorAnswer, Failure};
pub use fake::{Asked, Failing, Fake, Scripted};
pub use kind::{Call, Kind, Operation, Wire};
pub use metrics::Metrics;
pub use oip::OipModel;
pub use providers::Providers;
pub use remote::Remote;
pub use secret::looks_like_key;
