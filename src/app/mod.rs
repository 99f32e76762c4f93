//! The roof: configuration, build, run and drain, the command line.

pub mod config;
pub mod replay;
