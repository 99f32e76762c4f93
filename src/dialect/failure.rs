//! Errors as the dialects shape them: read from a provider, written for a caller.

use super::json::{self, Members, Sort, sort};
use super::{Dialect, anthropic, bedrock, chat, gemini, interactions, oip, ollama};

/// What went wrong, as far as a caller's program acts on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The request is wrong.
    InvalidRequest,
    /// The request is longer than the model can read.
    ContextTooLong,
    /// Nobody knows the caller's key.
    Authentication,
    /// The key may not do this.
    Permission,
    /// The bill is not paid, or a budget is used up: waiting does not help.
    Billing,
    /// There is no such model or address.
    NotFound,
    /// The request has too many bytes.
    TooLarge,
    /// The request is understood and refused, by a filter for instance.
    Refused,
    /// Too many requests or tokens: waiting helps.
    RateLimited,
    /// The provider has too much to do.
    Overloaded,
    /// The provider took too long.
    Timeout,
    /// The caller took too long to send its request.
    RequestTimeout,
    /// Nobody can be asked just now: the link is down, no candidate is left.
    Unavailable,
    /// The provider failed, or what it said makes no sense.
    Upstream,
    /// This gateway failed.
    Internal,
}

impl FailureKind {
    /// Every kind.
    pub const ALL: [Self; 15] = [
        Self::InvalidRequest,
        Self::ContextTooLong,
        Self::Authentication,
        Self::Permission,
        Self::Billing,
        Self::NotFound,
        Self::TooLarge,
        Self::Refused,
        Self::RateLimited,
        Self::Overloaded,
        Self::Timeout,
        Self::RequestTimeout,
        Self::Unavailable,
        Self::Upstream,
        Self::Internal,
    ];

    /// The kind that an HTTP status alone stands for.
    pub fn of_status(status: u16) -> Self {
        match status {
            401 => Self::Authentication,
            402 => Self::Billing,
            403 => Self::Permission,
            404 => Self::NotFound,
            408 | 504 => Self::Timeout,
            413 => Self::TooLarge,
            422 => Self::Refused,
            429 => Self::RateLimited,
            503 | 529 => Self::Overloaded,
            400..=499 => Self::InvalidRequest,
            _ => Self::Upstream,
        }
    }

    /// The HTTP status that a caller of `dialect` gets.
    pub fn status(self, dialect: Dialect) -> u16 {
        match self {
            Self::InvalidRequest | Self::ContextTooLong => 400,
            Self::Authentication => 401,
            // OpenAI's clients take a spent budget as a 429 with a code of its own, Anthropic's as a 402.
            Self::Billing => match dialect {
                Dialect::Anthropic => 402,
                _ => 429,
            },
            Self::Permission => 403,
            Self::NotFound => 404,
            Self::TooLarge => 413,
            Self::Refused => 422,
            Self::RateLimited => 429,
            Self::Overloaded => match dialect {
                Dialect::Anthropic => 529,
                _ => 503,
            },
            Self::Unavailable => 503,
            Self::Timeout => 504,
            Self::RequestTimeout => 408,
            Self::Upstream => 502,
            Self::Internal => 500,
        }
    }
}

/// An error that goes to a caller, or came from a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What sort of error.
    pub kind: FailureKind,
    /// A sentence for people. From a provider it may repeat parts of the request: it goes to the caller, not to a log.
    pub message: String,
    /// A word for programs, in OpenAI's vocabulary where it has one.
    pub code: Option<String>,
    /// The member of the request that is wrong.
    pub param: Option<String>,
}

/// Bytes of a provider's message that are passed on; the rest is cut off.
const MESSAGE_MAX_BYTES: usize = 4_096;

impl Failure {
    /// A failure with a message.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), code: None, param: None }
    }

    /// Nobody here answers under that name.
    pub fn model_not_found(model: &str) -> Self {
        Self {
            code: Some("model_not_found".to_owned()),
            param: Some("model".to_owned()),
            ..Self::new(
                FailureKind::NotFound,
                format!("The model `{model}` does not exist or you do not have access to it."),
            )
        }
    }

    /// A stream ended before the answer did.
    pub fn cut() -> Self {
        Self::new(FailureKind::Upstream, "The model's answer broke off before its end.")
    }

    /// The body for a caller of `dialect`. `request_id` is told where the dialect has a place for it.
    pub fn body(&self, dialect: Dialect, request_id: Option<&str>) -> Vec<u8> {
        let mut out = Vec::with_capacity(160 + self.message.len());
        match dialect {
            Dialect::Chat | Dialect::Responses => chat::error(self, &mut out),
            Dialect::Anthropic => anthropic::error(self, request_id, &mut out),
            Dialect::Gemini => gemini::error(self, &mut out),
            Dialect::Interactions => interactions::error(self, &mut out),
            Dialect::Ollama => ollama::error(self, &mut out),
            Dialect::Bedrock => bedrock::error(self, &mut out),
            Dialect::Oip => oip::error(self, &mut out),
        }
        out
    }

    /// Reads the error of a provider. Whatever it is, HTML or nothing at all, it comes out as some failure with that
    /// status.
    pub fn read(dialect: Dialect, status: u16, body: &[u8]) -> Self {
        // Vertex AI answers a refused stream with a list of one error.
        let body = body.trim_ascii();
        let body = body.strip_prefix(b"[").and_then(|body| body.strip_suffix(b"]")).unwrap_or(body);
        let members = Members::parse(body).unwrap_or_default();
        let read = match dialect {
            Dialect::Chat | Dialect::Responses => chat::read_error(&members, status),
            Dialect::Anthropic => anthropic::read_error(&members, status),
            Dialect::Gemini => gemini::read_error(&members, status),
            Dialect::Ollama => ollama::read_error(&members, status),
            Dialect::Bedrock => bedrock::read_error(&members, status),
            Dialect::Oip => oip::read_error(&members, status),
            // No server is asked in it.
            Dialect::Interactions => None,
        };
        // Proxies and servers of other houses: `{"error": "..."}`, `{"message": "..."}`, `{"detail": ...}`.
        let mut failure = read.or_else(|| loose(&members, status)).unwrap_or_else(|| {
            Self::new(FailureKind::of_status(status), format!("The model's server answered with status {status}."))
        });
        shorten(&mut failure.message);
        failure
    }
}

/// Cuts at a character so that a page of HTML does not travel on.
fn shorten(message: &mut String) {
    if message.len() > MESSAGE_MAX_BYTES {
        let end = (0..=MESSAGE_MAX_BYTES).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(end);
    }
}

/// An error in no dialect that we know: the first text under the usual names.
fn loose(members: &Members<'_>, status: u16) -> Option<Failure> {
    let mut found = None;
    for name in ["error", "message", "Message", "detail", "error_message"] {
        let Some(raw) = members.get(name) else { continue };
        found = match sort(raw) {
            Sort::Text => json::text(raw),
            Sort::Object => Members::lenient(raw).text("message"),
            _ => None,
        };
        if found.is_some() {
            break;
        }
    }
    Some(Failure::new(FailureKind::of_status(status), found?.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_shape_of_the_callers_dialect() {
        let failure = Failure::model_not_found("x");
        assert_eq!(
            String::from_utf8(failure.body(Dialect::Chat, None)).unwrap(),
            r#"{"error":{"message":"The model `x` does not exist or you do not have access to it.","type":"invalid_request_error","param":"model","code":"model_not_found"}}"#
        );
        assert_eq!(
            String::from_utf8(failure.body(Dialect::Anthropic, Some("req_1"))).unwrap(),
            r#"{"type":"error","error":{"type":"not_found_error","message":"The model `x` does not exist or you do not have access to it."},"request_id":"req_1"}"#
        );
        assert_eq!(failure.kind.status(Dialect::Chat), 404);
    }

    #[test]
    fn every_kind_comes_back_from_each_dialect_as_what_it_was() {
        // Where a dialect has no word of its own, the nearest one comes back.
        let near = |kind| match kind {
            FailureKind::Internal | FailureKind::Unavailable => None,
            // To whom a provider says so, it is a provider that took too long.
            FailureKind::RequestTimeout => Some(FailureKind::Timeout),
            kind => Some(kind),
        };
        for kind in FailureKind::ALL {
            for dialect in [Dialect::Chat, Dialect::Anthropic] {
                let body = Failure::new(kind, "why").body(dialect, None);
                let read = Failure::read(dialect, kind.status(dialect), &body);
                assert_eq!(read.message, "why");
                let exact = match (dialect, kind) {
                    (Dialect::Anthropic, FailureKind::ContextTooLong | FailureKind::Refused) => None,
                    _ => near(kind),
                };
                if let Some(exact) = exact {
                    assert_eq!(read.kind, exact, "{dialect}");
                }
            }
        }
    }

    #[test]
    fn whatever_a_server_says_becomes_a_failure() {
        let read = |status, body: &str| Failure::read(Dialect::Chat, status, body.as_bytes());
        assert_eq!(read(502, "<html>Bad Gateway</html>").kind, FailureKind::Upstream);
        assert_eq!(read(503, "").message, "The model's server answered with status 503.");
        assert_eq!(read(500, r#"{"detail":"out of memory"}"#).message, "out of memory");
        assert_eq!(read(400, r#"{"error":"no"}"#).message, "no");
        assert_eq!(read(429, r#"{"error":{"message":7}}"#).kind, FailureKind::RateLimited);
        assert_eq!(read(429, r#"{"error":{"message":"x","code":"insufficient_quota"}}"#).kind, FailureKind::Billing);
        assert_eq!(read(400, r#"{"error":{"message":"x","code":400}}"#).code, None);
        let long = format!(r#"{{"error":{{"message":"{}"}}}}"#, "ä".repeat(100_000));
        assert_eq!(read(400, &long).message.len(), MESSAGE_MAX_BYTES);
        let long = Failure::read(Dialect::Anthropic, 400, br#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 9 tokens > 8 maximum"}}"#);
        assert_eq!(long.kind, FailureKind::ContextTooLong);
    }
}
