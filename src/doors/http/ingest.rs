//! Readings over HTTP: acknowledged with 202 after the commit that holds them.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use super::body::read_body;
use super::door::Door;
use super::problem::Problem;
use super::streams;
use crate::access::Principal;

pub(super) fn routes() -> Router<Arc<Door>> {
    Router::new().route("/api/v1/streams/{stream}/readings", get(streams::readings).post(ingest))
}

async fn ingest(
    State(door): State<Arc<Door>>,
    Extension(who): Extension<Principal>,
    Path(stream): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    check_content_type(&headers)?;
    let payload = read_body(body, &headers, door.config.body_max_bytes).await?;
    let ingested = door.parts.intake.ingest(&who, &stream, payload).await?;
    let answer = Json(serde_json::json!({
        "stream": ingested.stream,
        "seq": ingested.seq,
        "first_seq": ingested.first_seq,
        "count": ingested.count,
        "duplicates": ingested.duplicates,
        "durable": ingested.durable,
    }));
    Ok((StatusCode::ACCEPTED, answer).into_response())
}

/// The stream's configuration says how to read the payload, so any data type will do, or none. A form is a mistake
/// (curl's default) or a web page's trick: forms cross sites without asking.
pub(super) fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let kind = given.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    if matches!(kind.as_str(), "application/x-www-form-urlencoded" | "multipart/form-data" | "text/html") {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "content_type",
            format!("{kind} is not a reading"),
        )
        .hint("with curl add: -H 'content-type: application/json'"));
    }
    Ok(())
}
