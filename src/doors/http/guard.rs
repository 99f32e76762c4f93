//! What every request passes before a handler sees it, and what every response carries.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::door::Door;
use super::problem::Problem;
use super::server::Ends;

const REQUEST_ID: &str = "x-request-id";
/// Longest request id that is echoed; a longer one is replaced.
const REQUEST_ID_MAX_BYTES: usize = 64;
/// For JSON and text: nothing may be loaded, and nobody may frame it. The page sets its own.
const CLOSED: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// Host, origin, concurrency and deadline on the way in; request id, security headers and metrics on the way out.
pub(super) async fn pass(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let started = door.parts.clock.since_boot();
    let id = request_id(request.headers()).unwrap_or_else(|| made_id(&door));
    let path = request.uri().path().to_owned();
    let answer = match screen(&door, &request) {
        Ok(()) => run(&door, request, next).await,
        Err(problem) => Err(problem),
    };
    let mut response = answer.unwrap_or_else(|problem| problem_for(&path, problem));
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(CLOSED);
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    let took = door.parts.clock.since_boot().saturating_sub(started);
    door.parts.metrics.answered(response.status(), took);
    response
}

async fn run(door: &Door, request: Request, next: Next) -> Result<Response, Problem> {
    let Ok(_permit) = door.requests.try_acquire() else {
        door.parts.metrics.overloaded.inc();
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "too many requests in progress")
            .hint("send it again; `requests_max` in [http] is the bound")
            .retry_after(1));
    };
    let deadline = Duration::from_millis(door.config.request_timeout_ms);
    tokio::time::timeout(deadline, next.run(request)).await.map_err(|_| {
        Problem::new(StatusCode::GATEWAY_TIMEOUT, "timeout", "no answer in time")
            .hint("whether the request took effect is unknown; `request_timeout_ms` in [http] is the bound")
            .retry_after(1)
    })
}

/// Refuses names that are not ours and requests that another site made.
fn screen(door: &Door, request: &Request) -> Result<(), Problem> {
    let host = host(request)?;
    let Some(host) = host else { return Ok(()) };
    let ends = request.extensions().get::<Ends>().map(|ends| ends.local);
    if !is_ours(host_name(host), ends, &door.config.hosts) {
        door.parts.metrics.refused.inc();
        return Err(Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "wrong_host",
            format!("{host:?} is not a name of this gateway"),
        )
        .hint("use its address, or add the name to `hosts` in [http]"));
    }
    if from_another_site(request.method(), request.headers(), host) {
        door.parts.metrics.refused.inc();
        return Err(Problem::new(StatusCode::FORBIDDEN, "cross_site", "another site made this request")
            .hint("open the page itself, or call from a program that is not a browser"));
    }
    Ok(())
}

/// The authority the client asked for. HTTP/1.0 may leave it out: browsers, which are what this is about, do not.
fn host(request: &Request) -> Result<Option<&str>, Problem> {
    let bad = |message: &str| Problem::new(StatusCode::BAD_REQUEST, "bad_host", message).hint("send one Host header");
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let first = hosts.next();
    if hosts.next().is_some() {
        return Err(bad("two Host headers"));
    }
    if let Some(authority) = request.uri().authority() {
        return Ok(Some(authority.as_str()));
    }
    match first {
        Some(value) => value.to_str().map(Some).map_err(|_| bad("the Host header is not text")),
        None if request.version() == Version::HTTP_11 => Err(bad("no Host header")),
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
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let follows_link = *method == Method::GET && text("sec-fetch-mode") == Some("navigate");
    let fetched = matches!(text("sec-fetch-site"), Some("cross-site" | "same-site"));
    let origin = headers.get(header::ORIGIN).is_some_and(|origin| {
        let origin = origin.to_str().unwrap_or("null");
        let authority = origin.split_once("://").map_or("null", |(_, authority)| authority);
        !authority.eq_ignore_ascii_case(host)
    });
    origin || (fetched && !follows_link)
}

fn request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get(REQUEST_ID)?;
    let plain = id.as_bytes().iter().all(u8::is_ascii_graphic);
    (plain && !id.is_empty() && id.len() <= REQUEST_ID_MAX_BYTES).then(|| id.clone())
}

fn made_id(door: &Door) -> HeaderValue {
    HeaderValue::from_str(&(door.parts.request_id)()).unwrap_or(HeaderValue::from_static("unnamed"))
}

/// Inference clients expect another form of error than everybody else.
pub(super) fn problem_for(path: &str, problem: Problem) -> Response {
    if path == "/v2" || path.starts_with("/v2/") { problem.into_oip() } else { problem.into_response() }
}

pub(super) async fn no_such_path(uri: Uri) -> Response {
    let hint = "the page is at /, readings at /api/v1/streams, models at /v2/models/{model}, health at /readyz";
    let message = format!("nothing at {}", uri.path());
    problem_for(uri.path(), Problem::new(StatusCode::NOT_FOUND, "no_such_path", message).hint(hint))
}

pub(super) async fn wrong_method(method: Method, uri: Uri) -> Response {
    let message = format!("{} does not take {method}", uri.path());
    let hint = "the `allow` header says what it takes";
    problem_for(uri.path(), Problem::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", message).hint(hint))
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
