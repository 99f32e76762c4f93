//! Samples become windows, windows become features, features become tensors. Pure.
//!
//! The way of a payload: [`Decoder`] reads samples, [`Intake`] lets them in or drops them (each decision is a counted
//! [`Note`]), [`Window`] gathers readings, [`Features`] computes numbers of a window, [`Normaliser`] makes them the
//! tensor a model was trained on; [`Summing`] gathers what goes to the cloud instead of readings, with sketches
//! ([`Quantiles`], [`Distinct`]) that merge.
//!
//! Never here: clocks, threads, files, models. Time is an argument, and the same samples always give the same windows:
//! after a restart or a failed commit, restore [`Intake`] and [`Window`] from what was last committed and go on.
//!
//! Limits: 64 fields, payload and samples per payload by setting, paths of 16 segments, JSON and CBOR nested 128 deep,
//! ids of 64 bytes, 1,048,576 values in a window, 64 windows that overlap in time.

mod config;
mod decode;
mod error;
mod feature;
mod intake;
mod metrics;
mod moment;
mod normalise;
mod path;
mod ring;
mod sample;
mod sketch;
mod spectrum;
mod summary;
mod window;

pub use config::{
    Config, DecoderConfig, DuplicateKey, Feature, FieldConfig, Format, IntakeConfig, Keep, Missing, NonFinite,
    OutOfRange, SpectrumConfig, WindowConfig, WindowTime,
};
pub use decode::Decoder;
pub use error::{Error, Position};
pub use feature::Features;
pub use intake::{Intake, IntakeState};
pub use metrics::Metrics;
pub use moment::TimeFormat;
pub use normalise::{Normalise, Normaliser};
pub use path::Path;
pub use sample::{Admission, Gap, Id, MAX_FIELDS, Note, Notes, Reading, Sample, Values};
pub use sketch::{Distinct, Quantiles, SketchConfig, SketchError};
pub use summary::{FieldSummary, Summary, Summing};
pub use window::{Ready, View, Window, WindowState};
