//! `{"error": "…"}`, with a status, or as an event of a stream.

use crate::dialect::json::Members;
use crate::dialect::write::Object;
use crate::dialect::{Failure, FailureKind};

/// Writes the body of an error.
pub(crate) fn error(failure: &Failure, out: &mut Vec<u8>) {
    Object::new(out).text("error", &failure.message);
}

/// Reads the error of a server; `None` if it is none.
pub(crate) fn read_error(body: &Members<'_>, status: u16) -> Option<Failure> {
    let message = body.text("error")?.into_owned();
    let kind = match FailureKind::of_status(status) {
        // vLLM's words for it, whatever the status is that Triton gives them.
        _ if message.contains("maximum context length") || message.contains("longer than the maximum model length") => {
            FailureKind::ContextTooLong
        }
        // In a stream the status is 200 and there is nothing but the sentence. The protocol's 424 is a model that failed.
        _ if status < 400 || status == 424 => FailureKind::Upstream,
        kind => kind,
    };
    Some(Failure::new(kind, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Dialect;

    #[test]
    fn errors_of_servers_become_what_they_mean() {
        let read = |status, body: &str| Failure::read(Dialect::Oip, status, body.as_bytes());
        let unknown = read(404, r#"{"error":"Request for unknown model: 'e5' is not found"}"#);
        assert_eq!(unknown.kind, FailureKind::NotFound);
        assert_eq!(unknown.message, "Request for unknown model: 'e5' is not found");
        assert_eq!(read(400, r#"{"error":"unexpected shape"}"#).kind, FailureKind::InvalidRequest);
        assert_eq!(read(424, r#"{"error":"x"}"#).kind, FailureKind::Upstream);
        assert_eq!(read(429, r#"{"error":"Model is overloaded"}"#).kind, FailureKind::RateLimited);
        assert_eq!(read(503, "").kind, FailureKind::Overloaded);
        let long = r#"{"error":"This model's maximum context length is 2048 tokens"}"#;
        assert_eq!(read(500, long).kind, FailureKind::ContextTooLong);
        let mut out = Vec::new();
        error(&unknown, &mut out);
        assert_eq!(out, br#"{"error":"Request for unknown model: 'e5' is not found"}"#);
    }
}
