//! `{"error": {"message", "type", "param", "code"}}`.

use crate::dialect::json::{self, Members, Sort, sort};
use crate::dialect::write::Object;
use crate::dialect::{Failure, FailureKind};

/// OpenAI's `type` and, where none is given, its `code`.
fn words(kind: FailureKind) -> (&'static str, Option<&'static str>) {
    match kind {
        FailureKind::InvalidRequest | FailureKind::TooLarge | FailureKind::NotFound => ("invalid_request_error", None),
        FailureKind::ContextTooLong => ("invalid_request_error", Some("context_length_exceeded")),
        FailureKind::Authentication => ("invalid_request_error", Some("invalid_api_key")),
        FailureKind::Permission => ("permission_error", Some("permission_denied")),
        FailureKind::Billing => ("insufficient_quota", Some("insufficient_quota")),
        FailureKind::Refused => ("invalid_request_error", Some("content_policy_violation")),
        FailureKind::RateLimited => ("rate_limit_error", Some("rate_limit_exceeded")),
        FailureKind::Overloaded => ("server_error", Some("server_overloaded")),
        FailureKind::Timeout => ("server_error", Some("timeout")),
        FailureKind::RequestTimeout => ("invalid_request_error", Some("request_timeout")),
        FailureKind::Unavailable => ("server_error", Some("unavailable")),
        FailureKind::Upstream => ("server_error", Some("upstream_error")),
        FailureKind::Internal => ("server_error", None),
    }
}

/// Writes the body of an error; the four members are always there, `null` where there is nothing to say.
pub(crate) fn error(failure: &Failure, out: &mut Vec<u8>) {
    error_members(failure, Object::new(out).object("error"));
}

/// Writes the members of the object `error`.
pub(crate) fn error_members(failure: &Failure, mut error: Object<'_>) {
    let (kind, code) = words(failure.kind);
    error.text("message", &failure.message);
    error.text("type", kind);
    match &failure.param {
        Some(param) => error.text("param", param),
        None => error.null("param"),
    }
    match failure.code.as_deref().or(code) {
        Some(code) => error.text("code", code),
        None => error.null("code"),
    }
}

/// The code that belongs to an error beside what the provider said, for writers that name it.
pub(crate) fn code_of(failure: &Failure) -> &str {
    failure.code.as_deref().or(words(failure.kind).1).unwrap_or("server_error")
}

/// Reads the error of a server that speaks OpenAI; `None` if it is none.
pub(crate) fn read_error(body: &Members<'_>, status: u16) -> Option<Failure> {
    let raw = body.get("error")?;
    if sort(raw) != Sort::Object {
        return None;
    }
    let error = Members::lenient(raw);
    let message = error.text("message")?;
    // Some servers give a number as the code: then it is the status once more.
    let code = error.get("code").filter(|raw| sort(raw) == Sort::Text).and_then(json::text);
    let kind = match (code.as_deref(), error.text("type").as_deref()) {
        (Some("context_length_exceeded"), _) => FailureKind::ContextTooLong,
        (Some("insufficient_quota" | "billing_hard_limit_reached"), _) | (_, Some("insufficient_quota")) => {
            FailureKind::Billing
        }
        (Some("content_policy_violation" | "content_filter"), _) => FailureKind::Refused,
        (Some("model_not_found"), _) => FailureKind::NotFound,
        (Some("rate_limit_exceeded"), _) => FailureKind::RateLimited,
        (Some("invalid_api_key"), _) => FailureKind::Authentication,
        (Some("server_overloaded" | "engine_overloaded"), _) => FailureKind::Overloaded,
        // In a stream the status is 200 and only the words say what happened.
        (_, Some("server_error")) if status < 400 => FailureKind::Upstream,
        (_, Some("invalid_request_error")) if status < 400 => FailureKind::InvalidRequest,
        (_, Some("rate_limit_error" | "rate_limit_exceeded" | "tokens" | "requests")) if status < 400 => {
            FailureKind::RateLimited
        }
        _ => FailureKind::of_status(status),
    };
    Some(Failure {
        kind,
        message: message.into_owned(),
        code: code.map(|code| code.into_owned()),
        param: error.text("param").map(|param| param.into_owned()),
    })
}
