//! `{"error": {"code", "message"}}`, with a status, or as an event of a stream.

use crate::dialect::write::Object;
use crate::dialect::{Failure, FailureKind, sse};

/// The word for a kind of failure: Google's own in small letters, but for requests that are wrong, which have one of
/// their own in this API.
fn word(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::InvalidRequest | FailureKind::ContextTooLong | FailureKind::TooLarge | FailureKind::Refused => {
            "invalid_request"
        }
        FailureKind::Authentication => "unauthenticated",
        FailureKind::Permission => "permission_denied",
        FailureKind::NotFound => "not_found",
        FailureKind::Billing | FailureKind::RateLimited => "resource_exhausted",
        FailureKind::Overloaded | FailureKind::Unavailable => "unavailable",
        FailureKind::Timeout | FailureKind::RequestTimeout => "deadline_exceeded",
        FailureKind::Upstream | FailureKind::Internal => "internal",
    }
}

fn members(failure: &Failure, body: &mut Object<'_>) {
    let mut error = body.object("error");
    error.text("code", word(failure.kind));
    error.text("message", &failure.message);
}

/// Writes the body of an error.
pub(crate) fn error(failure: &Failure, out: &mut Vec<u8>) {
    members(failure, &mut Object::new(out));
}

/// Writes the event that ends a stream in the middle.
pub(crate) fn error_event(failure: &Failure, out: &mut Vec<u8>) {
    sse::event(out, "error", |out| {
        let mut event = Object::new(out);
        event.text("event_type", "error");
        members(failure, &mut event);
    });
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::dialect::Dialect;

    #[test]
    fn every_kind_has_a_word_and_its_status() {
        for kind in FailureKind::ALL {
            let body: Value =
                serde_json::from_slice(&Failure::new(kind, "why").body(Dialect::Interactions, None)).unwrap();
            assert_eq!(body["error"]["message"], "why");
            assert_eq!(
                body["error"]["code"] == "invalid_request",
                [400, 413, 422].contains(&kind.status(Dialect::Interactions))
            );
        }
    }

    #[test]
    fn an_event_says_what_it_is() {
        let mut out = Vec::new();
        error_event(&Failure::cut(), &mut out);
        let text = String::from_utf8(out).unwrap();
        let data = text.strip_prefix("event: error\ndata: ").unwrap();
        let event: Value = serde_json::from_str(data).unwrap();
        assert_eq!((&event["event_type"], &event["error"]["code"]), (&json!("error"), &json!("internal")));
    }
}
