//! Models and steps between them as one model: a directed graph, declared as data.
//!
//! A pipeline's file says which steps there are, what each reads (an input of the pipeline, or what another step gives) and
//! which of it are the pipeline's outputs. [`Graph::parse`] makes a graph of it or says what is wrong: a name that nobody
//! has, steps that wait for each other, a step that nobody reads, a setting that cannot work. [`Graph::check`] holds element types and
//! shapes against each other, as far as they are known before the first request. Steps without a model ([`Op`]) are pure functions on
//! tensors and are computed here; which model is asked, when and by whom, is left to whoever runs the graph.
//!
//! Never here: async, threads, engines, folders. Nothing is copied that need not be: tensors share their bytes.
//!
//! Limits: 64 steps, 64 tensors into a step, the file 256 KiB; a tensor that a step makes has at most `limits.tensor_bytes_max`, all
//! of a request `limits.request_bytes_max`; 16,384 pixels a side, 4,096 boxes an image.

mod boxes;
mod check;
mod config;
mod error;
mod graph;
mod layout;
mod numbers;
mod op;
mod picture;
mod port;
mod regions;
mod rows;
mod settle;
mod unsure;

pub use config::{FILE_BYTES_MAX, Limits};
pub use error::Error;
pub use graph::{Graph, Member, Source, Step, Work};
pub use op::Op;
pub use port::Port;
pub use rows::{join, marked, pick, put};
