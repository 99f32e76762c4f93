//! OpenAI's chat completions: what their bodies and frames look like.

mod error;
mod read;
mod usage;
mod write;

pub(crate) use error::{code_of, error, error_members, read_error};
pub(crate) use read::{Chunk, Completion, Delta, Message, ToolCallDelta, spoken, usage_in};
pub(crate) use usage::{finish_of, usage_of, write_usage};
pub(crate) use write::{Chunks, completion_head};
