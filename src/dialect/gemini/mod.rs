//! Google's `generateContent` (Gemini API v1beta, Vertex AI v1): errors, usage, words and paths.

mod array;
mod error;
mod models;
mod path;
mod usage;

pub use array::GeminiArray;
pub(crate) use error::{error, read_error};
pub use models::{gemini_models, gemini_tokens};
pub use path::{GeminiCall, gemini_call, gemini_path, vertex_path};
pub(crate) use usage::{finish_of, usage_of, write_details, write_usage};
