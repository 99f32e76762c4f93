//! `{"error": {"code", "message", "status", "details"}}`.

use crate::dialect::json::{self, Members, Sort, sort};
use crate::dialect::write::Object;
use crate::dialect::{Dialect, Failure, FailureKind};

/// Google's word for a kind of failure.
fn word(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::InvalidRequest | FailureKind::ContextTooLong | FailureKind::TooLarge | FailureKind::Refused => {
            "INVALID_ARGUMENT"
        }
        FailureKind::Authentication => "UNAUTHENTICATED",
        FailureKind::Permission => "PERMISSION_DENIED",
        FailureKind::NotFound => "NOT_FOUND",
        FailureKind::Billing | FailureKind::RateLimited => "RESOURCE_EXHAUSTED",
        FailureKind::Overloaded | FailureKind::Unavailable => "UNAVAILABLE",
        FailureKind::Timeout | FailureKind::RequestTimeout => "DEADLINE_EXCEEDED",
        FailureKind::Upstream | FailureKind::Internal => "INTERNAL",
    }
}

/// Writes the body of an error.
pub(crate) fn error(failure: &Failure, out: &mut Vec<u8>) {
    let mut body = Object::new(out);
    let mut error = body.object("error");
    error.number("code", u64::from(failure.kind.status(Dialect::Gemini)));
    error.text("message", &failure.message);
    error.text("status", word(failure.kind));
}

/// Reads the error of a server that speaks Gemini; `None` if it is none.
pub(crate) fn read_error(body: &Members<'_>, status: u16) -> Option<Failure> {
    let error = Members::lenient(body.get("error").filter(|raw| sort(raw) == Sort::Object)?);
    let message = error.text("message")?.into_owned();
    let told = error.get("code").and_then(json::whole).and_then(|code| u16::try_from(code).ok());
    let status = if status < 400 { told.unwrap_or(status) } else { status };
    // A wrong key is an invalid argument there; the details say so.
    let reason = error.get("details").map(json::lenient_elements).unwrap_or_default();
    let reason = reason.into_iter().find_map(|detail| Members::lenient(detail).text("reason"));
    let kind = match (error.text("status").as_deref(), reason.as_deref()) {
        (_, Some("API_KEY_INVALID" | "API_KEY_EXPIRED" | "ACCESS_TOKEN_EXPIRED")) => FailureKind::Authentication,
        (Some("INVALID_ARGUMENT"), _) if message.contains("token count") && message.contains("exceeds") => {
            FailureKind::ContextTooLong
        }
        (Some("INVALID_ARGUMENT" | "OUT_OF_RANGE"), _) => FailureKind::InvalidRequest,
        // The API is not sold where the caller is, or billing is off.
        (Some("FAILED_PRECONDITION"), _) => FailureKind::Billing,
        (Some("UNAUTHENTICATED"), _) => FailureKind::Authentication,
        (Some("PERMISSION_DENIED"), _) => FailureKind::Permission,
        (Some("NOT_FOUND"), _) => FailureKind::NotFound,
        (Some("RESOURCE_EXHAUSTED"), _) => FailureKind::RateLimited,
        (Some("UNAVAILABLE"), _) => FailureKind::Overloaded,
        (Some("DEADLINE_EXCEEDED"), _) => FailureKind::Timeout,
        (Some("INTERNAL" | "UNKNOWN"), _) => FailureKind::Upstream,
        _ => FailureKind::of_status(status),
    };
    Some(Failure { code: reason.map(|reason| reason.into_owned()), ..Failure::new(kind, message) })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(status: u16, body: &Value) -> FailureKind {
        Failure::read(Dialect::Gemini, status, body.to_string().as_bytes()).kind
    }

    #[test]
    fn googles_errors_have_their_kinds() {
        let of = |status: &str, message: &str| json!({"error": {"code": 400, "message": message, "status": status}});
        assert_eq!(read(400, &of("INVALID_ARGUMENT", "no")), FailureKind::InvalidRequest);
        let long = "The input token count (9) exceeds the maximum number of tokens allowed (8).";
        assert_eq!(read(400, &of("INVALID_ARGUMENT", long)), FailureKind::ContextTooLong);
        assert_eq!(read(429, &of("RESOURCE_EXHAUSTED", "quota")), FailureKind::RateLimited);
        assert_eq!(read(503, &of("UNAVAILABLE", "overloaded")), FailureKind::Overloaded);
        let mut key = of("INVALID_ARGUMENT", "API key not valid.");
        key["error"]["details"] =
            json!([{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]);
        assert_eq!(read(400, &key), FailureKind::Authentication);
        assert_eq!(read(400, &json!([key])), FailureKind::Authentication, "Vertex AI sends a list");
        for odd in ["", "<html>", "[]", "{\"error\":7}", "{\"error\":{}}"] {
            assert_eq!(Failure::read(Dialect::Gemini, 500, odd.as_bytes()).kind, FailureKind::Upstream, "{odd}");
        }
    }

    #[test]
    fn every_kind_is_written_and_read_again_as_one_of_the_same_status() {
        for kind in FailureKind::ALL {
            let body = Failure::new(kind, "m").body(Dialect::Gemini, None);
            let status = kind.status(Dialect::Gemini);
            let value: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(value["error"]["code"], status);
            assert_eq!(Failure::read(Dialect::Gemini, status, &body).message, "m");
        }
    }
}
