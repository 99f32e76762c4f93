//! What every request passes before a handler sees it, and what every response carries.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::body::discard;
use super::door::Door;
use super::problem::Problem;
use super::server::Ends;
use super::site::{self, Strange};

const REQUEST_ID: &str = "x-request-id";
/// For JSON and text: nothing may be loaded, and nobody may frame it. The page sets its own.
const CLOSED: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// Host, origin, concurrency and deadline on the way in; request id, security headers and metrics on the way out.
pub(super) async fn pass(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let started = door.parts.clock.since_boot();
    let id = site::request_id(request.headers()).unwrap_or_else(|| made_id(&door));
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
    let local = request.extensions().get::<Ends>().map(|ends| ends.local);
    site::screen(request, local, &door.config.hosts).map_err(|strange| {
        let message = strange.to_string();
        match strange {
            Strange::Host => Problem::new(StatusCode::BAD_REQUEST, "bad_host", message).hint("send one Host header"),
            Strange::NotOurs(_) => {
                door.parts.metrics.refused.inc();
                Problem::new(StatusCode::MISDIRECTED_REQUEST, "wrong_host", message)
                    .hint("use its address, or add the name to `hosts` in [http]")
            }
            Strange::Site => {
                door.parts.metrics.refused.inc();
                Problem::new(StatusCode::FORBIDDEN, "cross_site", message)
                    .hint("open the page itself, or call from a program that is not a browser")
            }
        }
    })
}

fn made_id(door: &Door) -> HeaderValue {
    HeaderValue::from_str(&(door.parts.request_id)()).unwrap_or(HeaderValue::from_static("unnamed"))
}

/// Inference clients expect another form of error than everybody else.
pub(super) fn problem_for(path: &str, problem: Problem) -> Response {
    if path == "/v2" || path.starts_with("/v2/") { problem.into_oip() } else { problem.into_response() }
}

pub(super) async fn no_such_path(uri: Uri, request: Request) -> Response {
    discard(request).await;
    let hint = "the page is at /, readings at /api/v1/streams, models at /v2/models/{model}, health at /readyz";
    let message = format!("nothing at {}", uri.path());
    problem_for(uri.path(), Problem::new(StatusCode::NOT_FOUND, "no_such_path", message).hint(hint))
}

pub(super) async fn wrong_method(method: Method, uri: Uri, request: Request) -> Response {
    discard(request).await;
    let message = format!("{} does not take {method}", uri.path());
    let hint = "the `allow` header says what it takes";
    problem_for(uri.path(), Problem::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", message).hint(hint))
}
