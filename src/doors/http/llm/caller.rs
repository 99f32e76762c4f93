//! Who asks: clients of models carry their key in the header that their maker chose.

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};

use super::Llm;
use crate::access::{Access, Denied, Principal};
use crate::dialect::{Failure, FailureKind};
use crate::doors::caller;
use crate::doors::http::problem::Problem;
use crate::doors::http::server::Ends;

/// Beside `authorization`.
const HEADERS: [&str; 3] = ["x-api-key", "x-goog-api-key", "api-key"];

/// The caller behind a request.
pub(super) fn principal(access: &Access, request: &Request) -> Result<Principal, Denied> {
    let headers = request.headers();
    if headers.contains_key(header::AUTHORIZATION) {
        return bearer(access, headers);
    }
    let named = HEADERS.iter().find_map(|name| headers.get(*name));
    if let Some(value) = named {
        return access.bearer(value.to_str().map_or("", str::trim));
    }
    if let Some(key) = request.uri().query().and_then(query_key) {
        return access.bearer(key);
    }
    let Some(ends) = request.extensions().get::<Ends>() else { return Err(Denied::Anonymous) };
    caller::principal(access, ends.peer, ends.certificate.as_deref(), headers).ok_or(Denied::Anonymous)
}

/// A bearer token says why it opens nothing; anything else is read as everywhere.
fn bearer(access: &Access, headers: &HeaderMap) -> Result<Principal, Denied> {
    let text = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).ok_or(Denied::Key)?;
    let (scheme, rest) = text.split_once(' ').ok_or(Denied::Key)?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return access.bearer(rest.trim());
    }
    let nobody = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
    caller::principal(access, nobody, None, headers).ok_or(Denied::Key)
}

/// Google's `?key=`. Keys have no characters that would be escaped.
fn query_key(query: &str) -> Option<&str> {
    query.split('&').find_map(|pair| pair.strip_prefix("key=")).filter(|key| !key.is_empty())
}

/// What a caller is told who is not known.
pub(super) fn failure(denied: Denied) -> Failure {
    let message = match denied {
        Denied::Key => "Incorrect API key provided.".to_owned(),
        Denied::Anonymous => {
            "You did not provide an API key: send it as `Authorization: Bearer KEY`, `x-api-key` or `x-goog-api-key`."
                .to_owned()
        }
        other => format!("Incorrect API key provided: {other}."),
    };
    let kind = if denied == Denied::Suspended { FailureKind::Permission } else { FailureKind::Authentication };
    let code = if denied == Denied::Suspended { "tenant_suspended" } else { "invalid_api_key" };
    Failure { code: Some(code.to_owned()), ..Failure::new(kind, message) }
}

/// An operator, or the problem that the caller is none.
pub(super) fn operator(llm: &Llm, request: &Request) -> Result<Principal, Problem> {
    let who = known(llm, request)?;
    if who.is_operator() {
        return Ok(who);
    }
    Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", "this is for operators")
        .hint("use a key or an identity whose role is `operator`"))
}

/// Somebody, or the problem that nobody knows who.
pub(super) fn known(llm: &Llm, request: &Request) -> Result<Principal, Problem> {
    principal(&llm.parts.access, request).map_err(|denied| {
        llm.parts.metrics.denied.inc();
        Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", denied.to_string())
            .hint("send `authorization: Bearer KEY`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_the_query_is_found_among_others() {
        assert_eq!(query_key("alt=sse&key=abc"), Some("abc"));
        assert_eq!(query_key("key="), None);
        assert_eq!(query_key("monkey=1"), None);
    }
}
