//! The configuration file: composed of what each room owns, read once, consumed by the build.

mod diagnosis;

pub use diagnosis::{Diagnosis, nearest};
