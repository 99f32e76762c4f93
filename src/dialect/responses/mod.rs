//! OpenAI's responses: what their bodies and events look like. Errors outside of a stream are those of chat.

mod calls;
mod error;
mod items;
mod read;
mod state;
mod usage;
mod whole;
mod write;

pub(crate) use calls::Calls;
pub(crate) use error::error_event;
pub(crate) use items::{Item, ending, items};
pub(crate) use read::{Event, failure_of};
pub(crate) use state::{effort, format, function, refuse_state};
pub(crate) use usage::{finish_of, usage_in};
pub(crate) use write::Response;
