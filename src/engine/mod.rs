//! Run a model here, on threads of its own, behind one trait.
//!
//! [`Pool::load`] gives a model's bytes to the engines of this build, those that its operators suit best first. The first one
//! that reads the format, agrees with the declared inputs and outputs and reproduces the samples serves it; the [`Handle`] that comes back
//! queues inferences for the pool's threads. On the caller's thread is computed only what is known to take less time than the way
//! to another one (`pace`), while nobody waits and a thread's place is free.
//!
//! Held here: a bounded queue in two lanes (sensors before everybody else) and nine priorities, a deadline per request,
//! requests whose caller has gone are dropped before they are computed, requests that wait for the same model are
//! computed together where that pays, models and loads share the threads' places, a model that has no room in memory is
//! not loaded, a panic in a model is that request's error, and numbers that are not finite are refused on both sides
//! unless the model is declared to deal in them. A box in need gets less service ([`judge`]).
//!
//! A decoder of texts is also read on where it stopped: [`Handle::sequences`]. Each read takes a place among the pool's threads on its
//! caller's, behind sensors and in turn with requests.
//!
//! Never here: manifests, folders, thresholds, sockets. A running inference cannot be interrupted;
//! [`Pool::longest_running`] tells a watchdog. A model of a [`delegate`] is computed by a program of its own, which can.
//!
//! Limits: `queue_requests`, `queue_bytes`, `tensor_bytes_max`, `memory_bytes_max`; a model file's nodes, depth and sizes (`onnx`).

mod back_off;
mod batching;
pub mod bench;
mod classical;
mod config;
pub mod delegate;
mod error;
mod fake;
mod fallback;
mod golden;
mod handle;
mod memory;
mod metrics;
mod onnx;
mod pace;
mod pool;
mod queue;
mod sequence;
mod serving;
mod session;
mod signature;
mod spec;
#[cfg(test)]
mod tests;
mod ties;
#[cfg(feature = "tract")]
mod tract;
#[cfg(feature = "transformer")]
mod transformer;
mod work;

pub use back_off::{BackOff, Level, Readings, judge};
pub use classical::Classical;
pub use config::Config;
pub use error::Error;
pub use fake::{Biased, Failing, Fake, Gate, Panicking, Slow};
pub use handle::{Handle, Outputs, PassedOver, Run, Why};
pub use metrics::Metrics;
pub use onnx::{Dimension, Error as OnnxError, Outline, Port, Signature};
pub use pool::{Condition, Place, Pool};
pub use sequence::{Sequence, Sequences};
pub use serving::{Batching, Serving, Terms, When};
pub use session::{Decoder, Engine, Fit, Reading, Session, built_in};
pub use signature::{files_beside, signature};
pub use spec::{LoadSpec, NamedTensor, Sample, TensorSpec};
#[cfg(feature = "tract")]
pub use tract::Tract;
#[cfg(feature = "transformer")]
pub use transformer::Transformer;
