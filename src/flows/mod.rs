//! The stories: which room is called in which order, and nothing else.

pub mod batch;
pub mod board;
mod cbor;
pub mod inference;
pub mod intake;
pub mod models;
pub mod query;
pub mod record;
pub mod sense;
