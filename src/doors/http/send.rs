//! What an operator asks of a stream: readings for the cloud, or the open summary now.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;

use super::body::read_body;
use super::door::Door;
use super::ingest::check_content_type;
use super::problem::Problem;
use crate::access::Principal;
use crate::flows::raw::Wanted;

/// Readings around an alarm where the request does not say how many.
const MARGIN: u64 = 144;
/// The body is a handful of numbers.
const BODY_MAX_BYTES: usize = 4096;

pub(super) fn routes() -> Router<Arc<Door>> {
    Router::new()
        .route("/api/v1/streams/{stream}/send", post(send))
        .route("/api/v1/streams/{stream}/summary", post(summary))
}

/// Either `from_ms` and `to_ms`, or `alarm` with `before` and `after`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    request: Option<String>,
    from_ms: Option<i64>,
    to_ms: Option<i64>,
    alarm: Option<i64>,
    before: Option<u64>,
    after: Option<u64>,
}

impl Asked {
    fn wanted(&self) -> Option<Wanted> {
        match *self {
            Self { from_ms: Some(from_ms), to_ms: Some(to_ms), alarm: None, before: None, after: None, .. } => {
                (from_ms <= to_ms).then_some(Wanted::Between { from_ms, to_ms })
            }
            Self { alarm: Some(alarm), before, after, from_ms: None, to_ms: None, .. } => {
                Some(Wanted::Around { alarm, before: before.unwrap_or(MARGIN), after: after.unwrap_or(MARGIN) })
            }
            _ => None,
        }
    }
}

/// An operator is whoever may publish to `forebay/{stream}/send`, which no sensor needs, and may read the stream.
async fn check_operator(door: &Door, who: &Principal, stream: &str) -> Result<(), Problem> {
    door.check_readable(who, stream).await?;
    let topic = format!("forebay/{stream}/send");
    if who.may_publish(&topic) {
        return Ok(());
    }
    let message = "this identity may not decide what a stream sends to the cloud";
    Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", message)
        .hint(format!("add {topic:?} to this identity's `publish` rules")))
}

async fn send(
    State(door): State<Arc<Door>>,
    Extension(who): Extension<Principal>,
    Path(stream): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    check_operator(&door, &who, &stream).await?;
    check_content_type(&headers)?;
    let body = read_body(body, &headers, BODY_MAX_BYTES).await?;
    let unclear = |message: String| {
        Problem::new(StatusCode::BAD_REQUEST, "bad_request", message)
            .hint(r#"send {"from_ms": 1, "to_ms": 2} or {"alarm": 1, "before": 144, "after": 144}, and "request" to be able to repeat it"#)
    };
    let asked: Asked = serde_json::from_slice(&body).map_err(|error| unclear(error.to_string()))?;
    let wanted = asked.wanted().ok_or_else(|| unclear("neither a stretch of time nor an alarm".to_owned()))?;
    let request = asked.request.unwrap_or_else(|| (door.parts.request_id)());
    let enqueued = door.parts.raw.enqueue(&stream, &request, wanted).await?;
    Ok((StatusCode::ACCEPTED, Json(enqueued)).into_response())
}

async fn summary(
    State(door): State<Arc<Door>>,
    Extension(who): Extension<Principal>,
    Path(stream): Path<String>,
) -> Result<Response, Problem> {
    check_operator(&door, &who, &stream).await?;
    let news = door.parts.intake.summarise(&stream).await?;
    let numbers = |first, last, count| serde_json::json!({ "stream": stream, "first_seq": first, "last_seq": last, "count": count });
    Ok(match news {
        Some(news) => (StatusCode::ACCEPTED, Json(numbers(news.first, news.last, news.count))).into_response(),
        None => (StatusCode::OK, Json(numbers(0, 0, 0))).into_response(),
    })
}
