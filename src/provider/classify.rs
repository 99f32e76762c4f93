//! An answer that is none becomes a class: by its status, and by the few codes that say what the status does not.
//!
//! Read: OpenAI "Error codes", Anthropic "Errors" (API version 2023-06-01), Google "API errors" (v1beta), Amazon Bedrock
//! "ConverseStream" errors (2023-09-30), Azure OpenAI quotas; all as of October 2026.

use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::RETRY_AFTER;
use jiff::fmt::rfc2822::DateTimeParser;
use memchr::memmem;

use super::error::Class;

/// No wish to be left alone counts for longer.
const RETRY_AFTER_MOST: Duration = Duration::from_secs(3600);

static DATES: DateTimeParser = DateTimeParser::new().relaxed_weekday(true);

/// Codes with which an account says that it has nothing left, whatever the status.
const OUT_OF_CREDIT: [&str; 6] = [
    "\"insufficient_quota\"",
    "\"credit_balance_exhausted\"",
    "\"billing_hard_limit_reached\"",
    "\"enforced_spend_limit_reached\"",
    "\"billing_error\"",
    "credit balance is too low",
];

/// How the makers say that a request is longer than the model's window.
const TOO_LONG: [&str; 5] = [
    "context_length_exceeded",
    "prompt is too long",
    "maximum context length",
    "exceeds the maximum number of tokens",
    "Input is too long for requested model",
];

/// Google says 400 for a wrong key; Amazon says 403 for many things and names them.
const WRONG_KEY: [&str; 2] = ["API_KEY_INVALID", "API key not valid"];

/// The class of a status that is not 2xx.
pub(super) fn class_of(status: u16, body: &[u8]) -> Class {
    let says = |words: &[&str]| words.iter().any(|word| memmem::find(body, word.as_bytes()).is_some());
    match status {
        402 => Class::OutOfCredit,
        400 | 403 | 429 if says(&OUT_OF_CREDIT) => Class::OutOfCredit,
        429 => Class::RateLimited,
        401 | 403 | 407 => Class::Auth,
        400 if says(&WRONG_KEY) => Class::Auth,
        404 | 405 | 410 | 501 => Class::NotFound,
        408 | 504 => Class::Timeout,
        413 => Class::TooLong,
        400 | 422 if says(&TOO_LONG) => Class::TooLong,
        // A conflict of theirs, and a model of Bedrock's that failed: both may work the next time.
        409 | 424 => Class::Unavailable,
        503 | 529 => Class::Overloaded,
        400..=499 => Class::BadRequest,
        _ => Class::Unavailable,
    }
}

/// How long it wants to be left alone: `retry-after-ms` (OpenAI, Azure), `Retry-After` in seconds or as a date, or
/// Google's `retryDelay` in the body.
pub(super) fn retry_after(headers: &HeaderMap, body: &[u8], wall_ms: i64) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let wait = text("retry-after-ms")
        .and_then(|ms| ms.parse::<f64>().ok())
        .and_then(|ms| Duration::try_from_secs_f64(ms / 1000.0).ok())
        .or_else(|| text(RETRY_AFTER.as_str()).and_then(|text| seconds_or_date(text, wall_ms)))
        .or_else(|| retry_delay(body))?;
    Some(wait.min(RETRY_AFTER_MOST))
}

fn seconds_or_date(text: &str, wall_ms: i64) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    // A wrong day of the week makes no date wrong.
    let date = DATES.parse_timestamp(text).ok()?;
    let wait_ms = date.as_millisecond().saturating_sub(wall_ms);
    Some(Duration::from_millis(u64::try_from(wait_ms).unwrap_or(0)))
}

/// `"retryDelay": "17s"` of google.rpc.RetryInfo.
fn retry_delay(body: &[u8]) -> Option<Duration> {
    const KEY: &[u8] = b"\"retryDelay\"";
    let rest = &body[memmem::find(body, KEY)? + KEY.len()..];
    let rest = std::str::from_utf8(&rest[..rest.len().min(64)]).ok()?;
    let rest = rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    let (seconds, _) = rest.split_once("s\"")?;
    Duration::try_from_secs_f64(seconds.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_status_and_the_code_beside_it_say_whose_fault_it_is() {
        let cases: &[(u16, &str, Class)] = &[
            (401, "", Class::Auth),
            (403, "{\"message\":\"The security token included in the request is expired\"}", Class::Auth),
            (
                400,
                "{\"error\":{\"status\":\"INVALID_ARGUMENT\",\"details\":[{\"reason\":\"API_KEY_INVALID\"}]}}",
                Class::Auth,
            ),
            (429, "{\"error\":{\"code\":\"rate_limit_exceeded\"}}", Class::RateLimited),
            (429, "{\"error\":{\"code\":\"insufficient_quota\"}}", Class::OutOfCredit),
            (400, "{\"error\":{\"message\":\"Your credit balance is too low to access\"}}", Class::OutOfCredit),
            (402, "", Class::OutOfCredit),
            (400, "{\"error\":{\"code\":\"context_length_exceeded\"}}", Class::TooLong),
            (400, "{\"error\":{\"message\":\"prompt is too long: 209000 tokens > 200000 maximum\"}}", Class::TooLong),
            (413, "", Class::TooLong),
            (400, "", Class::BadRequest),
            (422, "", Class::BadRequest),
            (404, "", Class::NotFound),
            (408, "", Class::Timeout),
            (504, "", Class::Timeout),
            (500, "", Class::Unavailable),
            (502, "<html>", Class::Unavailable),
            (503, "", Class::Overloaded),
            (529, "", Class::Overloaded),
            (424, "", Class::Unavailable),
            (302, "", Class::Unavailable),
        ];
        for (status, body, class) in cases {
            assert_eq!(class_of(*status, body.as_bytes()), *class, "{status} {body}");
        }
    }

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
    }

    #[test]
    fn the_wish_to_be_left_alone_is_read_in_all_its_forms_and_is_bounded() {
        let now_ms = 784_111_777_000 - 30_000;
        let read = |name, value| retry_after(&headers(name, value), b"", now_ms);
        assert_eq!(read("retry-after", "20"), Some(Duration::from_secs(20)));
        assert_eq!(read("retry-after", "0.5"), Some(Duration::from_millis(500)));
        assert_eq!(read("retry-after-ms", "1500"), Some(Duration::from_millis(1500)));
        assert_eq!(read("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(read("retry-after", "Sun, 06 Nov 1990 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(read("retry-after", "99999999"), Some(RETRY_AFTER_MOST));
        for nonsense in ["", "soon", "-1", "NaN", "1e999", "inf"] {
            assert_eq!(read("retry-after", nonsense), None, "{nonsense:?}");
        }
        let google = b"{\"error\":{\"details\":[{\"@type\":\"type.googleapis.com/google.rpc.RetryInfo\",\"retryDelay\": \"17.5s\"}]}}";
        assert_eq!(retry_after(&HeaderMap::new(), google, 0), Some(Duration::from_millis(17_500)));
    }

    proptest! {
        #[test]
        fn no_body_and_no_header_make_it_fall(status in 100u16..1000, body in proptest::collection::vec(any::<u8>(), 0..200), header in "[ -~]{0,40}") {
            class_of(status, &body);
            retry_after(&headers("retry-after", &header), &body, 0);
            let mut marked = b"\"retryDelay\"".to_vec();
            marked.extend(body);
            retry_delay(&marked);
        }
    }
}
