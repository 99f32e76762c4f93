//! Forebay: an edge gateway that is MQTT broker, inference server and durable queue to the cloud in one binary.
//!
//! The map, from the ground up. An arrow follows the call and never points up or sideways;
//! `tests/suite/arrows.rs` holds the table.

// Tier 0, ground: nouns every room may name; no async, no policy.
pub mod base;

// Tier 1, footing: start-up of logs and metrics; the one SQLite file with its one writer.
pub mod store;
pub mod telemetry;

// Tier 2, rooms: siblings never import each other.
pub mod access;
pub mod broker;
pub mod cache;
pub mod catalog;
pub mod dialect;
pub mod engine;
pub mod generate;
pub mod history;
pub mod inbox;
pub mod ledger;
pub mod outbox;
pub mod pipeline;
pub mod price;
pub mod provider;
pub mod quota;
pub mod route;
pub mod rules;
pub mod signal;
pub mod transform;
pub mod uplink;

// Tier 3, stories: the order of steps, nothing else.
pub mod flows;

// Tier 4, doors: decode, ask who it is, call a flow, encode.
pub mod doors;

// Tier 5, roof: configuration, build, run and drain, the command line.
pub mod app;
