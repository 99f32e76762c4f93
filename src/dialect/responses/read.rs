//! Events as a server sends them, borrowed.

use std::borrow::Cow;

use serde::Deserialize;

use crate::dialect::json::{Members, Raw};
use crate::dialect::{Failure, FailureKind};

/// An event of a stream.
#[derive(Debug, Deserialize)]
pub(crate) struct Event<'a> {
    #[serde(rename = "type", borrow)]
    pub(crate) kind: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(crate) response: Option<Raw<'a>>,
    #[serde(borrow, default)]
    pub(crate) item: Option<Raw<'a>>,
    #[serde(default)]
    pub(crate) output_index: u64,
    #[serde(borrow, default)]
    pub(crate) delta: Option<Raw<'a>>,
}

/// The error that an event tells: `error` with its members beside the type or in an object, or a failed response.
pub(crate) fn failure_of(event: &Members<'_>) -> Failure {
    let told = event
        .get("error")
        .or_else(|| Members::lenient(event.get("response")?).get("error"))
        .map(Members::lenient)
        .unwrap_or_else(|| event.clone());
    let message = told.text("message").unwrap_or(Cow::Borrowed("The model's server failed.")).into_owned();
    let code = told.text("code").map(Cow::into_owned);
    let kind = match code.as_deref() {
        Some("rate_limit_exceeded") => FailureKind::RateLimited,
        Some("insufficient_quota") => FailureKind::Billing,
        Some("context_length_exceeded") => FailureKind::ContextTooLong,
        Some("server_is_overloaded" | "slow_down" | "server_overloaded") => FailureKind::Overloaded,
        Some(code) if code.starts_with("invalid_") => FailureKind::InvalidRequest,
        Some(code) if code.contains("policy") => FailureKind::Refused,
        _ => FailureKind::Upstream,
    };
    Failure { code, param: told.text("param").map(Cow::into_owned), ..Failure::new(kind, message) }
}
