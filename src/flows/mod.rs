//! The stories: which room is called in which order, and nothing else.

<<<<<<< HEAD
pub mod batch;
pub mod board;
mod cbor;
pub mod query;
pub mod record;
=======
mod load_spec;

pub use load_spec::load_spec;
>>>>>>> engine
