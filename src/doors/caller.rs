//! Who is calling over HTTP: a bearer key, a user name with a key (what a browser can send), a client's certificate, or this
//! machine itself.

use std::net::SocketAddr;

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::access::{Access, How, Principal};

/// Headers that a reverse proxy adds. Behind one, everybody seems to come from this machine.
const FORWARDED: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

/// Whether a request came through a proxy, so that its sender is not at the other end of the connection.
pub(super) fn is_forwarded(headers: &HeaderMap) -> bool {
    FORWARDED.iter().any(|name| headers.contains_key(*name))
}

/// The caller behind a request's headers, on a connection whose client has shown this certificate. Credentials come before
/// the certificate: a proxy has one certificate and forwards everybody's.
pub(super) fn principal(
    access: &Access,
    peer: SocketAddr,
    certificate: Option<&[u8]>,
    headers: &HeaderMap,
) -> Option<Principal> {
    match headers.get(header::AUTHORIZATION) {
        Some(credentials) => match parse(credentials)? {
            Credentials::Bearer(key) => access.bearer(&key).ok(),
            Credentials::Basic(name, key) => access.password(&name, key.as_bytes()).ok(),
        },
        None if is_forwarded(headers) => None,
        None => match certificate {
            Some(leaf) => access.certificate(leaf).ok(),
            None => access.anonymous(peer).ok(),
        },
    }
}

/// The name of a caller who has one: everybody on this machine is the same nobody.
pub(super) fn identity(who: &Principal) -> Option<&str> {
    (who.how() != How::Loopback).then(|| who.name())
}

#[derive(Debug, PartialEq, Eq)]
enum Credentials {
    Bearer(String),
    Basic(String, String),
}

fn parse(value: &HeaderValue) -> Option<Credentials> {
    let (scheme, rest) = value.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(Credentials::Bearer(rest.trim().to_owned()));
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let pair = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
        let (name, key) = pair.split_once(':')?;
        return Some(Credentials::Basic(name.to_owned(), key.to_owned()));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_as_bearer_or_basic_and_nothing_else() {
        let read = |text: &str| parse(&HeaderValue::from_str(text).unwrap());
        assert_eq!(read("Bearer abc"), Some(Credentials::Bearer("abc".into())));
        assert_eq!(read("basic cHJlc3M6YTpi"), Some(Credentials::Basic("press".into(), "a:b".into())));
        for bad in ["", "Bearer", "Digest x", "Basic ***", "Basic cHJlc3M="] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
