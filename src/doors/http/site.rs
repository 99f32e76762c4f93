//! Whether a request is meant for this box and comes from a program rather than from somebody else's web page.

use std::net::{IpAddr, SocketAddr};

use axum::extract::Request;
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderMap, HeaderValue, Method, Version};

// Looked for in every request: named once, by the compiler.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Longest request id that is echoed; a longer one is replaced.
const REQUEST_ID_MAX_BYTES: usize = 64;

/// Why a request is not heard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Strange {
    /// None, two, or one that is no text.
    #[error("the request needs one Host header that is text")]
    Host,
    /// It asks for somebody else (DNS rebinding).
    #[error("{0:?} is not a name of this gateway")]
    NotOurs(String),
    /// A browser sent it for another site.
    #[error("another site made this request")]
    Site,
}

/// Refuses names that are not ours and requests that another site made. `local` is this end of the connection, `hosts` the
/// configured names.
pub(super) fn screen(request: &Request, local: Option<SocketAddr>, hosts: &[String]) -> Result<(), Strange> {
    let Some(host) = host(request)? else { return Ok(()) };
    if !is_ours(host_name(host), local, hosts) {
        return Err(Strange::NotOurs(host.to_owned()));
    }
    if from_another_site(request.method(), request.headers(), host) {
        return Err(Strange::Site);
    }
    Ok(())
}

/// The caller's own id for its request, if it can be echoed.
pub(super) fn request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get(REQUEST_ID)?;
    let plain = id.as_bytes().iter().all(u8::is_ascii_graphic);
    (plain && !id.is_empty() && id.len() <= REQUEST_ID_MAX_BYTES).then(|| id.clone())
}

/// The authority the client asked for. HTTP/1.0 may leave it out: browsers, which are what this is about, do not.
fn host(request: &Request) -> Result<Option<&str>, Strange> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let first = hosts.next();
    if hosts.next().is_some() {
        return Err(Strange::Host);
    }
    if let Some(authority) = request.uri().authority() {
        return Ok(Some(authority.as_str()));
    }
    match first {
        Some(value) => value.to_str().map(Some).map_err(|_| Strange::Host),
        None if request.version() == Version::HTTP_11 => Err(Strange::Host),
        None => Ok(None),
    }
}

/// Without the port.
fn host_name(host: &str) -> &str {
    if host.starts_with('[') {
        return host.find(']').map_or(host, |end| &host[..=end]);
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

/// An address in place of a name cannot be rebound, so the one the connection came in on is fine.
fn is_ours(name: &str, local: Option<SocketAddr>, configured: &[String]) -> bool {
    let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    if let Ok(address) = literal.parse::<IpAddr>() {
        let address = address.to_canonical();
        return address.is_loopback() || local.is_some_and(|local| local.ip().to_canonical() == address);
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || configured.iter().any(|ours| name.eq_ignore_ascii_case(ours))
}

/// A browser says where a request comes from. Following a link to the page is fine; everything else from elsewhere is
/// not, not even from another port of this machine.
fn from_another_site(method: &Method, headers: &HeaderMap, host: &str) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let follows_link = *method == Method::GET && text(FETCH_MODE) == Some("navigate");
    let fetched = matches!(text(FETCH_SITE), Some("cross-site" | "same-site"));
    let origin = headers.get(header::ORIGIN).is_some_and(|origin| {
        let origin = origin.to_str().unwrap_or("null");
        let authority = origin.split_once("://").map_or("null", |(_, authority)| authority);
        !authority.eq_ignore_ascii_case(host)
    });
    origin || (fetched && !follows_link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_and_addresses_are_answered() {
        let local = Some("192.168.7.4:8080".parse().unwrap());
        let configured = ["edge-7.plant.local".to_owned()];
        for ours in ["localhost", "LOCALHOST.", "127.0.0.1", "127.8.8.8", "[::1]", "192.168.7.4", "Edge-7.plant.local"]
        {
            assert!(is_ours(ours, local, &configured), "{ours}");
        }
        for other in ["attacker.example", "localhost.attacker.example", "192.168.7.5", "[fe80::1]", "", "0", "edge-7"] {
            assert!(!is_ours(other, local, &configured), "{other}");
        }
    }

    #[test]
    fn the_port_is_not_part_of_the_name() {
        for (host, name) in [("a:1", "a"), ("a", "a"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("[::1", "[::1")] {
            assert_eq!(host_name(host), name);
        }
    }

    #[test]
    fn a_browser_on_another_site_may_follow_a_link_and_nothing_else() {
        let judge = |method: Method, pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            from_another_site(&method, &headers, "127.0.0.1:8080")
        };
        assert!(!judge(Method::POST, &[]));
        assert!(!judge(Method::POST, &[("origin", "http://127.0.0.1:8080"), ("sec-fetch-site", "same-origin")]));
        assert!(!judge(Method::GET, &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]));
        assert!(judge(Method::POST, &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]));
        assert!(judge(Method::GET, &[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "cors")]));
        assert!(judge(Method::POST, &[("origin", "http://127.0.0.1:3000")]));
        assert!(judge(Method::POST, &[("origin", "null")]));
    }
}
