//! The story over fake and failing providers: what the caller gets, what is recorded, and what is settled.

mod attempts;
mod chosen;
mod kept;
mod limits;
mod models;
mod scope;
mod streams;
mod world;
