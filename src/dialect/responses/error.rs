//! The error in the middle of a stream.

use crate::dialect::write::Object;
use crate::dialect::{Failure, chat, sse};

/// Writes `event: error`. OpenAI's clients look for the object `error` in it; the members beside the type are what the
/// reference says.
pub(crate) fn error_event(failure: &Failure, sequence: u64, out: &mut Vec<u8>) {
    sse::event(out, "error", |out| {
        let mut event = Object::new(out);
        event.text("type", "error");
        event.text("code", chat::code_of(failure));
        event.text("message", &failure.message);
        match &failure.param {
            Some(param) => event.text("param", param),
            None => event.null("param"),
        }
        event.number("sequence_number", sequence);
        chat::error_members(failure, event.object("error"));
    });
}
