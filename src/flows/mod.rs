//! The stories: which room is called in which order, and nothing else.

mod load_spec;

pub use load_spec::load_spec;
