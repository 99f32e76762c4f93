//! `{"error": "…"}`, with a status, or as a line of a stream.

use crate::dialect::json::Members;
use crate::dialect::write::Object;
use crate::dialect::{Failure, FailureKind};

/// Writes the body of an error.
pub(crate) fn error(failure: &Failure, out: &mut Vec<u8>) {
    Object::new(out).text("error", &failure.message);
}

/// Reads the error of an Ollama server; `None` if it is none.
pub(crate) fn read_error(body: &Members<'_>, status: u16) -> Option<Failure> {
    let message = body.text("error")?.into_owned();
    let kind = match FailureKind::of_status(status) {
        FailureKind::InvalidRequest if message.contains("exceeds") && message.contains("context") => {
            FailureKind::ContextTooLong
        }
        // In a stream the status is 200 and there is nothing but the sentence.
        _ if status < 400 => FailureKind::Upstream,
        kind => kind,
    };
    Some(Failure::new(kind, message))
}
