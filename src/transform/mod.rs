//! Pre- and post-processing as data: what a caller sends becomes a model's inputs, its outputs become an answer.
//!
//! A model's manifest says in `[predict]` what it takes (a picture, a sound, a text, a JSON record, a series) and what its
//! outputs mean (classes with labels, boxes, masks, quantities). [`Plan::build`] holds every step against the model's
//! signature when the model is loaded; a step that cannot work is an error there, which names it, the tensor, what was
//! expected and what was given. [`Plan::prepare`] makes tensors of instances, [`Plan::finish`] reads what came out.
//!
//! Numbers are those of the training code that people have: PIL, torchvision, OpenCV, librosa, Whisper, scipy and
//! tokenizers, each named where it is done; `tests/suite/transform.rs` asks them.
//!
//! Never here: async, threads, HTTP, files of its own, running a model. All of it is work for a blocking thread.
//!
//! Limits: [`Limits`]; 64 scans of a JPEG, 16,384 pixels a side and 2^24 in all for what a step makes, 4,096 candidates and
//! 1,000 boxes, 2^20 numbers of runs.

mod answer;
mod audio;
mod boxes;
mod config;
mod error;
mod geometry;
mod image;
mod mask;
mod output;
mod plan;
mod port;
mod record;
mod series;
mod text;
mod work;

pub use answer::{Answer, Area, Class, Detection, Mask};
pub use config::Limits;
pub use error::Error;
pub use geometry::Geometry;
pub use output::Named;
pub use plan::{Content, Kind, Plan, Prediction, Run, Source};
pub use port::Port;
pub use text::Words;
pub use work::{Lap, Work};
