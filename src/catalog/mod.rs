//! Models on this box: manifests, versions, digests.
//!
//! A model is a folder `<name>/<version>/` with a `manifest.toml` and one model file beside it, or an artifact with the
//! same two files in an OCI layout below the models folder. [`Catalog::scan`] reads
//! them all; what is broken becomes a [`Problem`] that says where and what to do, and the others are there all the same.
//! The newest version is served unless another is asked for, by number or by an [alias](Aliases). A model's bytes are handed out only after their SHA-256
//! agreed with the manifest. A `config.pbtxt` of Triton's beside the versions is read, too: how the model is served where nothing
//! else says so ([`Triton`]).
//!
//! Never here: running a model, fetching one, or following a path or link out of the models folder.
//!
//! Limits: manifest 1 MiB, `config.pbtxt` 256 KiB, model file `model_bytes_max`, 1024 models, 256 versions each, 64 inputs and outputs, golden
//! files of 64 MiB together, 16 other files (tokenizers, labels) of 32 MiB.

mod aliases;
mod config;
mod golden;
mod kept;
mod manifest;
mod model;
mod npy;
mod oci;
mod parse;
mod pbtxt;
mod scan;
mod serving;
mod splits;
mod traffic;
mod triton;
mod values;

pub use aliases::{AliasError, Aliases, DEFAULT};
pub use config::{Config, ModelConfig};
pub use golden::{Golden, GoldenFile, GoldenValue};
pub use manifest::{About, FileEntry, Labels, Manifest, Normalisation, NormaliseMethod, Port, Thresholds, Training};
pub use model::{Error, Model};
pub use npy::parse as parse_npy;
pub use parse::ManifestError;
pub use scan::{Catalog, Problem};
pub use serving::{BatchWhen, LoadWhen, Serving, Settled, Versions};
pub use splits::{SetTraffic, Splits, TrafficError};
pub use traffic::{BreakerTerms, Shadow, Split, Sticky, Traffic};
pub use triton::Triton;
pub use values::Values;
