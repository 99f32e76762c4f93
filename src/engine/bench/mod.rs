//! How fast a model is in each engine, and whether they agree: what `forebay model bench` shows.
//!
//! A [`Trial`] is a model in one engine, alone on the caller's thread: no queue, no joined requests, nobody who stands in. Its
//! inputs are [`Rows`]: the model's golden samples, somebody's arrays, or numbers by chance, joined into batches as requests are.
//! Time comes from a clock and what the process used from a [`Meter`], both arguments.
//!
//! Never here: which engine serves a model (`pool`), what is printed.
//!
//! Limits: [`RUNS_MAX`] runs of a size of batch are kept, [`ELEMENTS_MAX`] elements of a row.

mod inputs;
mod series;
mod trial;

pub use inputs::{FreeDimension, Rows};
pub use series::Series;
pub use trial::{Difference, Golden, Meter, Trial, fit_of};

/// Runs of one size of batch whose times are kept; a measurement ends there.
pub const RUNS_MAX: usize = 200_000;
/// Elements of all inputs of a row that is made up.
pub const ELEMENTS_MAX: usize = 1 << 26;
