//! HTTP: health, metrics, streams, ingest, inference, predictions, and the live page.
//!
//! One request walks: connection (bounded, with time-outs) -> guard (host, origin, concurrency, deadline) -> caller
//! (key, user name and key, or this machine itself) -> one flow function -> JSON or HTML. Status codes are chosen
//! here, by exhaustive matches.
//!
//! The page sits on loopback, where it may be open without a key. So a website in a browser on the same machine must
//! not be able to read it or post to it: names that are not ours are refused (DNS rebinding), requests that another
//! site made are refused, and there is no CORS.
//!
//! Never here: SQL, MQTT, what an alert is. Every list, body, connection and watcher has a bound in [`Config`] or
//! beside its handler.

mod again;
mod aliases;
mod body;
mod caller;
mod config;
mod door;
mod encoding;
mod events;
mod guard;
mod health;
mod ingest;
mod llm;
mod metrics;
mod oip;
mod openapi;
mod page;
mod predict;
mod problem;
mod pulse;
mod send;
mod server;
mod site;
mod stall;
mod streams;
mod traces;
mod traffic;

pub use config::Config;
pub use door::{Door, Parts};
pub use llm::{Config as LlmConfig, Llm, Metrics as LlmMetrics, Parts as LlmParts, routes as llm_routes};
pub use metrics::Metrics;
#[cfg(feature = "grpc")]
pub(in crate::doors) use oip::extensions;
pub use server::{Error, acceptor, bind, serve};
