//! `{"message": "…"}` with a status, or an exception in a stream.

use crate::dialect::json::Members;
use crate::dialect::write::Object;
use crate::dialect::{Failure, FailureKind};

/// Writes the body of an error.
pub(crate) fn error(failure: &Failure, out: &mut Vec<u8>) {
    Object::new(out).text("message", &failure.message);
}

/// Reads the error of Bedrock; `None` if it is none. Its type is in a header, so the status and the sentence decide.
pub(crate) fn read_error(body: &Members<'_>, status: u16) -> Option<Failure> {
    let message = body.text("message").or_else(|| body.text("Message"))?.into_owned();
    let kind = match FailureKind::of_status(status) {
        FailureKind::InvalidRequest if is_too_long(&message) => FailureKind::ContextTooLong,
        // A model that failed there, not a wrong request.
        FailureKind::InvalidRequest if status == 424 => FailureKind::Upstream,
        kind => kind,
    };
    Some(Failure::new(kind, message))
}

fn is_too_long(message: &str) -> bool {
    message.contains("too long") || message.contains("exceeds the maximum") || message.contains("context length")
}

/// The failure that an exception of a stream tells, or an error of the stream itself; `None` for an event that is newer
/// than this file.
pub(crate) fn failure_of(name: &[u8], data: &[u8]) -> Option<Failure> {
    let kind = match name {
        b"throttlingException" => FailureKind::RateLimited,
        b"validationException" => FailureKind::InvalidRequest,
        b"serviceUnavailableException" => FailureKind::Overloaded,
        b"modelTimeoutException" => FailureKind::Timeout,
        b"internalServerException" | b"modelStreamErrorException" => FailureKind::Upstream,
        // Names of errors begin with a capital letter, those of events do not.
        _ if name.ends_with(b"Exception") || name.first().is_some_and(u8::is_ascii_uppercase) => FailureKind::Upstream,
        _ => return None,
    };
    let members = Members::parse(data).unwrap_or_default();
    let message = members.text("message").map(|message| message.into_owned());
    let message = message.unwrap_or_else(|| String::from_utf8_lossy(data).into_owned());
    let too_long = kind == FailureKind::InvalidRequest && is_too_long(&message);
    Some(Failure::new(if too_long { FailureKind::ContextTooLong } else { kind }, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Dialect;

    #[test]
    fn bedrocks_errors_have_their_kinds() {
        let read = |status, body: &str| Failure::read(Dialect::Bedrock, status, body.as_bytes());
        let long = r#"{"message":"Input is too long for requested model."}"#;
        assert_eq!(read(400, long).kind, FailureKind::ContextTooLong);
        assert_eq!(read(400, r#"{"message":"Malformed input"}"#).kind, FailureKind::InvalidRequest);
        assert_eq!(read(424, r#"{"message":"The model failed"}"#).kind, FailureKind::Upstream);
        assert_eq!(read(403, r#"{"Message":"no access"}"#).message, "no access");
        assert_eq!(read(429, "").kind, FailureKind::RateLimited);
        assert!(failure_of(b"aNewEvent", b"{}").is_none(), "an event that is newer than this file");
        assert_eq!(failure_of(b"aNewException", b"?").unwrap().kind, FailureKind::Upstream);
        assert_eq!(failure_of(b"validationException", long.as_bytes()).unwrap().kind, FailureKind::ContextTooLong);
    }
}
