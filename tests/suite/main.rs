//! One integration binary: real brokers, real database files, real clients, real browsers.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs, reason = "tests")]

mod arrows;
mod mqtt_custody;
mod mqtt_exchange;
mod mqtt_fixture;
mod mqtt_hostile;
mod mqtt_transport;
