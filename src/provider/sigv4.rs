//! AWS Signature Version 4, in the `Authorization` header.
//!
//! After "Create a signed AWS API request" of the AWS IAM User Guide. The tests' numbers are of AWS's own signing test
//! suite (awslabs/aws-c-auth, `tests/aws-signing-test-suite/v4`).

use std::fmt::Write as _;

use bytes::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::{HeaderMap, Method};
use ring::{digest, hmac};

use super::address::escape;

const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// What proves who we are to AWS.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct AwsKeys {
    pub(super) access_key_id: String,
    pub(super) secret_access_key: String,
    pub(super) session_token: Option<String>,
}

/// A region and a service there: what a signature is good for.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    pub(super) region: String,
    pub(super) service: &'static str,
}

/// Adds `x-amz-date`, where there is one `x-amz-security-token`, and `authorization` to `headers`, which hold `host` by
/// now. Signed are these, `host` and `content-type`: what lies between may change the others.
pub(super) fn sign(
    keys: &AwsKeys,
    scope: &Scope,
    method: &Method,
    path: &PathAndQuery,
    headers: &mut HeaderMap,
    body: &Bytes,
    wall_ms: i64,
) -> Result<(), String> {
    let time = timestamp(wall_ms)?;
    let value = |text: &str| {
        HeaderValue::from_str(text).map_err(|_| "the AWS keys have characters that no header takes".to_owned())
    };
    headers.insert(DATE, value(&time)?);
    if let Some(token) = &keys.session_token {
        let mut token = value(token)?;
        token.set_sensitive(true);
        headers.insert(TOKEN, token);
    }
    let names = [CONTENT_TYPE, HOST, DATE, TOKEN];
    let signed: Vec<_> = names.iter().filter_map(|name| Some((name.as_str(), headers.get(name)?.as_bytes()))).collect();
    let signature = signature(keys, scope, method, path, &signed, body, &time);
    let names = joined(signed.iter().map(|(name, _)| *name));
    let mut text = value(&format!(
        "AWS4-HMAC-SHA256 Credential={}/{}/{}/{}/aws4_request, SignedHeaders={names}, Signature={signature}",
        keys.access_key_id,
        &time[..8],
        scope.region,
        scope.service
    ))?;
    text.set_sensitive(true);
    headers.insert(AUTHORIZATION, text);
    Ok(())
}

/// `signed`: lowercase names in order.
fn signature(
    keys: &AwsKeys,
    scope: &Scope,
    method: &Method,
    path: &PathAndQuery,
    signed: &[(&str, &[u8])],
    body: &[u8],
    time: &str,
) -> String {
    let mut canonical = format!("{method}\n");
    // Every service but S3 wants the escaped path escaped once more.
    escape(path.path(), "/", &mut canonical);
    canonical.push('\n');
    canonical_query(path.query().unwrap_or_default(), &mut canonical);
    canonical.push('\n');
    for (name, value) in signed {
        let value = String::from_utf8_lossy(value);
        let _ = write!(canonical, "{name}:");
        for (at, word) in value.split_ascii_whitespace().enumerate() {
            canonical.push_str(if at == 0 { "" } else { " " });
            canonical.push_str(word);
        }
        canonical.push('\n');
    }
    let names = joined(signed.iter().map(|(name, _)| *name));
    let _ = write!(canonical, "\n{names}\n{}", sha256(body));

    let date = &time[..8];
    let (region, service) = (&scope.region, scope.service);
    let to_sign =
        format!("AWS4-HMAC-SHA256\n{time}\n{date}/{region}/{service}/aws4_request\n{}", sha256(canonical.as_bytes()));
    let mut key = mac(format!("AWS4{}", keys.secret_access_key).as_bytes(), date.as_bytes());
    for part in [region.as_str(), service, "aws4_request"] {
        key = mac(key.as_ref(), part.as_bytes());
    }
    hex::encode(mac(key.as_ref(), to_sign.as_bytes()))
}

/// Parameters in the order of their escaped names, then values.
fn canonical_query(query: &str, out: &mut String) {
    let mut parameters: Vec<_> = query
        .split('&')
        .filter(|parameter| !parameter.is_empty())
        .map(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let mut pair = (String::new(), String::new());
            // What is escaped in the query stays so.
            escape(name, "%", &mut pair.0);
            escape(value, "%", &mut pair.1);
            pair
        })
        .collect();
    parameters.sort_unstable();
    for (at, (name, value)) in parameters.iter().enumerate() {
        let _ = write!(out, "{}{name}={value}", if at == 0 { "" } else { "&" });
    }
}

fn joined<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut text = String::new();
    for name in names {
        text.push_str(if text.is_empty() { "" } else { ";" });
        text.push_str(name);
    }
    text
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes))
}

fn mac(key: &[u8], text: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text)
}

/// `20150830T123600Z`.
fn timestamp(wall_ms: i64) -> Result<String, String> {
    let time = jiff::Timestamp::from_millisecond(wall_ms).map_err(|_| "the clock stands at no date".to_owned())?;
    Ok(time.strftime("%Y%m%dT%H%M%SZ").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2015-08-30T12:36:00Z.
    const TIME_MS: i64 = 1_440_938_160_000;
    const TOKEN_TEXT: &str = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";

    fn keys(token: Option<&str>) -> AwsKeys {
        AwsKeys {
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: token.map(str::to_owned),
        }
    }

    fn scope() -> Scope {
        Scope { region: "us-east-1".to_owned(), service: "service" }
    }

    fn of_headers(method: &Method, path: &'static [u8], signed: &[(&str, &str)], body: &str) -> String {
        let signed: Vec<_> = signed.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let path = PathAndQuery::from_maybe_shared(Bytes::from_static(path)).unwrap();
        signature(&keys(None), &scope(), method, &path, &signed, body.as_bytes(), "20150830T123600Z")
    }

    #[test]
    fn signatures_are_those_of_the_makers_test_suite() {
        let host = ("host", "example.amazonaws.com");
        let date = ("x-amz-date", "20150830T123600Z");
        let get = |path| of_headers(&Method::GET, path, &[host, date], "");
        assert_eq!(get(b"/"), "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31", "get-vanilla");
        assert_eq!(
            get(b"/?Param2=value2&Param1=value1"),
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            "get-vanilla-query-order-key-case"
        );
        assert_eq!(
            get("/ሴ".as_bytes()),
            "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
            "get-utf8"
        );
        assert_eq!(
            of_headers(&Method::POST, b"/", &[host, ("my-header1", "VALUE1"), date], ""),
            "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
            "post-header-value-case"
        );
        let trimmed = [host, ("my-header1", " value1"), ("my-header2", " \"a   b   c\""), date];
        assert_eq!(
            of_headers(&Method::GET, b"/", &trimmed, ""),
            "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
            "get-header-value-trim"
        );
        let hash = "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e";
        let form = [
            ("content-length", "13"),
            ("content-type", "application/x-www-form-urlencoded"),
            host,
            ("x-amz-content-sha256", hash),
            date,
        ];
        assert_eq!(
            of_headers(&Method::POST, b"/", &form, "Param1=value1"),
            "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b",
            "post-x-www-form-urlencoded"
        );
    }

    #[test]
    fn a_signed_request_carries_date_token_and_authorization() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("example.amazonaws.com"));
        let path = PathAndQuery::from_static("/");
        sign(&keys(Some(TOKEN_TEXT)), &scope(), &Method::POST, &path, &mut headers, &Bytes::new(), TIME_MS).unwrap();
        assert_eq!(headers["x-amz-date"], "20150830T123600Z");
        assert_eq!(headers["x-amz-security-token"], TOKEN_TEXT);
        let expected = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
                        SignedHeaders=host;x-amz-date;x-amz-security-token, \
                        Signature=85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead";
        assert_eq!(headers["authorization"], expected, "post-sts-header-before");
        assert!(headers["authorization"].is_sensitive() && headers["x-amz-security-token"].is_sensitive());
    }

    #[test]
    fn the_escaped_colon_of_a_models_name_is_escaped_once_more() {
        let mut canonical = String::new();
        escape("/model/claude-v1%3A0/converse", "/", &mut canonical);
        assert_eq!(canonical, "/model/claude-v1%253A0/converse");
    }
}
