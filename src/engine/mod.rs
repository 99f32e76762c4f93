//! Run a model here, on threads of its own, behind one trait.
//!
//! [`Pool::load`] gives a model's bytes to the engines of this build in order. The first one that reads the format,
//! agrees with the declared inputs and outputs and reproduces the samples serves it; the [`Handle`] that comes back
//! queues inferences for the pool's threads. Nothing is ever computed on the caller's thread.
//!
//! Held here: a bounded queue in two lanes (sensors before everybody else), a deadline per request, requests whose
//! caller has gone are dropped before they are computed, a panic in a model is that request's error, and numbers that
//! are not finite are refused on both sides unless the model is declared to deal in them.
//!
//! Never here: manifests, folders, thresholds, sockets. A running inference cannot be interrupted;
//! [`Pool::longest_running`] tells a watchdog. A model of a [`delegate`] is computed by a program of its own, which can.
//!
//! Limits: `queue_requests`, `queue_bytes`, `tensor_bytes_max`; a model file's nodes, depth and sizes (`onnx`).

mod classical;
mod config;
pub mod delegate;
mod error;
mod fake;
mod fallback;
mod golden;
mod handle;
mod metrics;
mod onnx;
mod pool;
mod queue;
mod session;
mod spec;
#[cfg(feature = "tract")]
mod tract;

pub use classical::Classical;
pub use config::Config;
pub use error::Error;
pub use fake::{Biased, Failing, Fake, Gate, Panicking, Slow};
pub use handle::{Handle, Outputs, PassedOver, Why};
pub use metrics::Metrics;
pub use onnx::{Dimension, Error as OnnxError, Outline, Port, Signature};
pub use pool::Pool;
pub use session::{Engine, Session, built_in};
pub use spec::{LoadSpec, NamedTensor, Sample, TensorSpec};
#[cfg(feature = "tract")]
pub use tract::Tract;
