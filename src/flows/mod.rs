//! The stories: which room is called in which order, and nothing else.

pub mod board;
pub mod query;
pub mod record;
