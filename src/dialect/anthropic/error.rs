//! `{"type": "error", "error": {"type", "message"}, "request_id"}`.

use crate::dialect::json::{Members, Sort, sort};
use crate::dialect::write::Object;
use crate::dialect::{Failure, FailureKind};

/// Anthropic's word for a kind of failure.
fn word(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::InvalidRequest | FailureKind::ContextTooLong | FailureKind::Refused => "invalid_request_error",
        FailureKind::Authentication => "authentication_error",
        FailureKind::Billing => "billing_error",
        FailureKind::Permission => "permission_error",
        FailureKind::NotFound => "not_found_error",
        FailureKind::TooLarge => "request_too_large",
        FailureKind::RateLimited => "rate_limit_error",
        FailureKind::Overloaded | FailureKind::Unavailable => "overloaded_error",
        FailureKind::Timeout | FailureKind::RequestTimeout => "timeout_error",
        FailureKind::Upstream | FailureKind::Internal => "api_error",
    }
}

/// Writes the body of an error.
pub(crate) fn error(failure: &Failure, request_id: Option<&str>, out: &mut Vec<u8>) {
    let mut body = Object::new(out);
    body.text("type", "error");
    {
        let mut error = body.object("error");
        error.text("type", word(failure.kind));
        error.text("message", &failure.message);
    }
    match request_id {
        Some(id) => body.text("request_id", id),
        None => body.null("request_id"),
    }
}

/// Reads the error of a server that speaks Anthropic, also from an event; `None` if it is none.
pub(crate) fn read_error(body: &Members<'_>, status: u16) -> Option<Failure> {
    let raw = body.get("error").filter(|raw| sort(raw) == Sort::Object)?;
    let error = Members::lenient(raw);
    let message = error.text("message")?.into_owned();
    let kind = match error.text("type").as_deref() {
        // Anthropic has no word of its own for this.
        Some("invalid_request_error") if message.starts_with("prompt is too long") => FailureKind::ContextTooLong,
        Some("invalid_request_error") => FailureKind::InvalidRequest,
        Some("authentication_error") => FailureKind::Authentication,
        Some("billing_error") => FailureKind::Billing,
        Some("permission_error") => FailureKind::Permission,
        Some("not_found_error") => FailureKind::NotFound,
        Some("request_too_large") => FailureKind::TooLarge,
        Some("rate_limit_error") => FailureKind::RateLimited,
        Some("overloaded_error") => FailureKind::Overloaded,
        Some("timeout_error") => FailureKind::Timeout,
        Some("api_error") => FailureKind::Upstream,
        _ => FailureKind::of_status(status),
    };
    Some(Failure::new(kind, message))
}
