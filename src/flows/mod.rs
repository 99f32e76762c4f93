//! The stories: which room is called in which order, and nothing else.
