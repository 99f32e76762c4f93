//! Anthropic's messages: what their bodies and events look like.

mod error;
mod read;
mod request;
mod turns;
mod usage;
mod write;

pub(crate) use error::{error, read_error};
pub(crate) use read::{Block, Event};
pub(crate) use request::{Conversation, NoBudget, Thinking, thinking, write_source};
pub(crate) use turns::Turns;
pub(crate) use usage::{Counts, finish_of, write_usage};
pub(crate) use write::{Events, call_head, message_head, message_stop, text_block};
