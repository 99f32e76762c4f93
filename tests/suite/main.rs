//! One integration binary: real brokers, real database files, real clients, real browsers.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs, reason = "tests")]

mod arrows;
mod bit_flips;
mod chaos;
mod fleet;
mod link_faults;
mod link_mqtt;
mod link_sync;
mod mosquitto;
mod outbox_model;
mod store_faults;
