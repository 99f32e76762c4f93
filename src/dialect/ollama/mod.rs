//! Ollama's API (0.12): errors, usage, words, and the list of models.

mod error;
mod models;
mod usage;

pub(crate) use error::{error, read_error};
pub use models::{OllamaModel, ollama_tags};
pub(crate) use usage::{finish_of, usage_of};
