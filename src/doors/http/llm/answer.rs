//! From what the story gives to a response.

use axum::body::Body;
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::Llm;
use super::first::First;
use super::pings::Pinged;
use crate::dialect::{Dialect, Failure, FailureKind};
use crate::doors::http::site::REQUEST_ID;
use crate::flows::answer::{Answered, Given, Told};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const NO_SNIFF: HeaderValue = HeaderValue::from_static("nosniff");

// Each is in every answer: looked at once, by the compiler.
const ROUTE: HeaderName = HeaderName::from_static("x-forebay-route");
const MODEL: HeaderName = HeaderName::from_static("x-forebay-model");
const CACHE: HeaderName = HeaderName::from_static("x-forebay-cache");
const LINK: HeaderName = HeaderName::from_static("x-forebay-link");
const COST: HeaderName = HeaderName::from_static("x-forebay-cost-usd");
const USAGE: HeaderName = HeaderName::from_static("x-forebay-usage");
const LEFT_OUT: HeaderName = HeaderName::from_static("x-forebay-left-out");
const ATTEMPTS: HeaderName = HeaderName::from_static("x-forebay-attempts");
const OVERHEAD: HeaderName = HeaderName::from_static("x-forebay-overhead-us");
/// The limit, what is left of it and when it is whole again: of requests and of tokens.
const RATES: [[HeaderName; 3]; 2] = [
    [
        HeaderName::from_static("x-ratelimit-limit-requests"),
        HeaderName::from_static("x-ratelimit-remaining-requests"),
        HeaderName::from_static("x-ratelimit-reset-requests"),
    ],
    [
        HeaderName::from_static("x-ratelimit-limit-tokens"),
        HeaderName::from_static("x-ratelimit-remaining-tokens"),
        HeaderName::from_static("x-ratelimit-reset-tokens"),
    ],
];
const ANTHROPIC_RATES: [[HeaderName; 3]; 2] = [
    [
        HeaderName::from_static("anthropic-ratelimit-requests-limit"),
        HeaderName::from_static("anthropic-ratelimit-requests-remaining"),
        HeaderName::from_static("anthropic-ratelimit-requests-reset"),
    ],
    [
        HeaderName::from_static("anthropic-ratelimit-tokens-limit"),
        HeaderName::from_static("anthropic-ratelimit-tokens-remaining"),
        HeaderName::from_static("anthropic-ratelimit-tokens-reset"),
    ],
];

/// A response with the headers that all of them have.
pub(super) fn response(
    status: u16,
    content_type: HeaderValue,
    id: &HeaderValue,
    dialect: Dialect,
    body: Body,
) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.reserve(20);
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(REQUEST_ID, id.clone());
    if dialect == Dialect::Anthropic {
        headers.insert("request-id", id.clone());
    }
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, NO_SNIFF);
    response
}

/// JSON that nobody was asked for.
pub(super) fn json(id: &HeaderValue, dialect: Dialect, body: impl Into<Bytes>) -> Response {
    response(200, JSON, id, dialect, Body::from(body.into()))
}

/// An error in the caller's dialect.
pub(super) fn failed(failure: &Failure, id: &HeaderValue, dialect: Dialect) -> Response {
    let body = failure.body(dialect, id.to_str().ok());
    let status = failure.kind.status(dialect);
    let mut response = response(status, JSON, id, dialect, Body::from(body));
    if failure.kind == FailureKind::Billing {
        // Clients of OpenAI and Anthropic heed it: trying a spent budget again helps nobody.
        response.headers_mut().insert("x-should-retry", HeaderValue::from_static("false"));
    }
    if status == 401 {
        let realm = HeaderValue::from_static(r#"Bearer realm="forebay""#);
        response.headers_mut().insert(header::WWW_AUTHENTICATE, realm);
    }
    response
}

/// An answer, a stream or an error, and how it came about.
pub(super) fn told(
    llm: &Llm,
    answered: Answered,
    id: &HeaderValue,
    dialect: Dialect,
    place: OwnedSemaphorePermit,
) -> Response {
    let Answered { told, given } = answered;
    let mut response = match given {
        Given::Whole { content_type, body } => {
            let content_type = HeaderValue::from_str(&content_type).unwrap_or(JSON);
            response(200, content_type, id, dialect, Body::from(body))
        }
        Given::Stream(stream) => {
            let content_type = HeaderValue::from_static(stream.content_type());
            let pinged = Pinged::new(stream, dialect, llm.config.ping_ms, llm.parts.metrics.clone(), place);
            let mut response =
                response(200, content_type, id, dialect, Body::from_stream(First::new(pinged, Pinged::has_text)));
            // nginx would gather frames.
            response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
            response
        }
        Given::Failed(failure) => failed(&failure, id, dialect),
    };
    let headers = response.headers_mut();
    decision(&told, headers);
    rates(llm, &told, dialect, headers);
    if let Some(wait) = told.retry_after {
        let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000).max(1)));
        headers.insert("retry-after-ms", HeaderValue::from(ms));
    }
    response
}

fn decision(told: &Told, headers: &mut HeaderMap) {
    let mut put = |name: HeaderName, text: Option<&str>| {
        // A model's name may have characters that no header takes; then it is left out.
        if let Some(value) = text.and_then(|text| HeaderValue::from_str(text).ok()) {
            headers.insert(name, value);
        }
    };
    put(ROUTE, told.route.as_deref());
    put(MODEL, told.candidate.as_deref());
    put(COST, told.cost_pico.map(usd).as_deref());
    if told.is_estimated {
        put(USAGE, Some("estimated"));
    }
    if !told.left_out.is_empty() {
        put(LEFT_OUT, Some(&told.left_out.join(", ")));
    }
    headers.insert(CACHE, HeaderValue::from_static(told.cache));
    headers.insert(LINK, HeaderValue::from_static(told.link.as_str()));
    headers.insert(ATTEMPTS, HeaderValue::from(told.attempts));
    let overhead_us = u64::try_from(told.overhead.as_micros()).unwrap_or(u64::MAX);
    headers.insert(OVERHEAD, HeaderValue::from(overhead_us));
}

/// Pico-USD in dollars, with as many digits as it takes.
fn usd(pico: u64) -> String {
    const DIGITS: usize = 12;
    let behind = (pico % 1_000_000_000_000).to_string();
    let mut text = (pico / 1_000_000_000_000).to_string() + ".";
    text.extend(std::iter::repeat_n('0', DIGITS - behind.len()));
    text.push_str(&behind);
    text.truncate(text.trim_end_matches('0').len());
    if text.ends_with('.') {
        text.push('0');
    }
    text
}

fn rates(llm: &Llm, told: &Told, dialect: Dialect, headers: &mut HeaderMap) {
    let is_anthropic = dialect == Dialect::Anthropic;
    let names = if is_anthropic { ANTHROPIC_RATES } else { RATES };
    for ([limit, remaining, reset], rate) in names.into_iter().zip([told.rates.requests, told.rates.tokens]) {
        let Some(rate) = rate else { continue };
        headers.insert(limit, HeaderValue::from(rate.limit));
        headers.insert(remaining, HeaderValue::from(rate.left));
        let text = if is_anthropic {
            let at_ms = llm.parts.clock.wall_ms().saturating_add(i64::try_from(rate.resets_ms).unwrap_or(i64::MAX));
            let whole_s = at_ms.saturating_add(999) / 1000;
            jiff::Timestamp::from_second(whole_s).map(|time| time.to_string()).unwrap_or_default()
        } else {
            span(rate.resets_ms)
        };
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(reset, value);
        }
    }
}

/// A time in milliseconds as OpenAI writes it: `17ms`, `1.5s`, `6m0s`.
fn span(ms: u64) -> String {
    match ms {
        // The usual one, in every answer.
        0..1000 => ms.to_string() + "ms",
        1000..60_000 if ms.is_multiple_of(1000) => format!("{}s", ms / 1000),
        1000..60_000 => format!("{}.{}s", ms / 1000, format!("{:03}", ms % 1000).trim_end_matches('0')),
        _ => format!("{}m{}s", ms / 60_000, (ms % 60_000) / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_has_as_many_digits_as_it_takes() {
        for (pico, text) in [
            (0, "0.0"),
            (75_000_000, "0.000075"),
            (1, "0.000000000001"),
            (2_000_000_000_000, "2.0"),
            (u64::MAX, "18446744.073709551615"),
        ] {
            assert_eq!(usd(pico), text);
        }
    }

    #[test]
    fn spans_are_written_as_openai_writes_them() {
        for (ms, text) in
            [(0, "0ms"), (17, "17ms"), (1000, "1s"), (1500, "1.5s"), (59_999, "59.999s"), (360_000, "6m0s")]
        {
            assert_eq!(span(ms), text);
        }
    }
}
