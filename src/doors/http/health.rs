//! Alive, ready, and the numbers.

use std::sync::{Arc, PoisonError};

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use super::door::Door;
use super::problem::Problem;

const OPENMETRICS: HeaderValue = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// For probes, which have no key. They say whether, and what is wrong, never what is measured.
pub(super) fn open_routes() -> Router<Arc<Door>> {
    Router::new().route("/healthz", get(alive)).route("/readyz", get(ready))
}

pub(super) fn private_routes() -> Router<Arc<Door>> {
    Router::new().route("/metrics", get(metrics))
}

async fn alive(State(door): State<Arc<Door>>) -> Response {
    let health = door.parts.query.health();
    (status(health.alive), Json(health)).into_response()
}

async fn ready(State(door): State<Arc<Door>>) -> Response {
    let health = door.parts.query.health();
    (status(health.ready), Json(health)).into_response()
}

pub(super) fn status(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

async fn metrics(State(door): State<Arc<Door>>) -> Result<Response, Problem> {
    let mut text = String::new();
    let registry = door.parts.registry.lock().unwrap_or_else(PoisonError::into_inner);
    prometheus_client::encoding::text::encode(&mut text, &registry)
        .map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "metrics", "failed to write the metrics"))?;
    Ok(([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response())
}
