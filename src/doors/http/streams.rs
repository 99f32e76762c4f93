//! Streams, readings, curves, windows, alerts, queue, link and models as JSON.

use std::sync::Arc;

use axum::extract::{Extension, Path, Query as UrlQuery, RawQuery, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::door::Door;
use super::problem::Problem;
use crate::access::Principal;
use crate::flows::query::{EngineView, LinkView, ModelView, QueueView, StreamView};

const READINGS_MAX: usize = 10_000;
const WINDOWS_MAX: usize = 1_000;
const ALERTS_MAX: usize = 1_000;
const LOSSES_MAX: usize = 10_000;
const CURVE_POINTS_MAX: usize = 5_000;

type Answer<T> = Result<Json<T>, Problem>;
type Me = Extension<Principal>;
type Whole = State<Arc<Door>>;

/// A list that may grow more members later.
#[derive(Debug, Serialize)]
struct Streams {
    streams: Vec<StreamView>,
}

pub(super) fn routes() -> Router<Arc<Door>> {
    Router::new()
        .route("/api/v1/streams", get(streams))
        .route("/api/v1/streams/{stream}", get(stream))
        .route("/api/v1/streams/{stream}/curve", get(curve))
        .route("/api/v1/streams/{stream}/windows", get(windows))
        .route("/api/v1/alerts", get(alerts))
        .route("/api/v1/queue", get(queue))
        .route("/api/v1/losses", get(losses))
        .route("/api/v1/link", get(link))
        .route("/api/v1/models", get(models))
        .route("/api/v1/engine", get(engine))
}

/// Query parameters, with a problem in our own form where they cannot be read.
pub(super) fn parameters<T: DeserializeOwned>(raw: &RawQuery, takes: &str) -> Result<T, Problem> {
    let uri = format!("/?{}", raw.0.as_deref().unwrap_or(""));
    let bad = |message: String| Problem::parameter(message, format!("this path takes {takes}"));
    let uri = uri.parse().map_err(|_| bad("the query string is malformed".to_owned()))?;
    UrlQuery::<T>::try_from_uri(&uri).map(|query| query.0).map_err(|error| bad(error.body_text()))
}

pub(super) fn bounded(name: &str, asked: Option<usize>, default: usize, max: usize) -> Result<usize, Problem> {
    match asked.unwrap_or(default) {
        count if (1..=max).contains(&count) => Ok(count),
        count => Err(Problem::parameter(format!("{name}={count} is out of range"), format!("use 1 to {max}"))),
    }
}

async fn streams(State(door): Whole, Extension(who): Me) -> Answer<Streams> {
    Ok(Json(Streams { streams: door.streams(&who).await? }))
}

async fn stream(State(door): Whole, Extension(who): Me, Path(name): Path<String>) -> Answer<StreamView> {
    let streams = door.streams(&who).await?;
    let found = streams.into_iter().find(|stream| stream.name == name);
    found.map(Json).ok_or_else(|| Problem::no_stream(&name))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CurveParameters {
    from_ms: Option<i64>,
    to_ms: Option<i64>,
    points: Option<usize>,
}

async fn curve(
    State(door): Whole,
    Extension(who): Me,
    Path(name): Path<String>,
    raw: RawQuery,
) -> Answer<serde_json::Value> {
    door.check_readable(&who, &name).await?;
    let asked: CurveParameters = parameters(&raw, "from_ms, to_ms (ms since 1970) and points")?;
    let points = bounded("points", asked.points, 600, CURVE_POINTS_MAX)?;
    if let (Some(from), Some(to)) = (asked.from_ms, asked.to_ms)
        && from > to
    {
        return Err(Problem::parameter("from_ms is after to_ms", "swap them"));
    }
    let curve = door.parts.query.curve(&name, asked.from_ms, asked.to_ms, points).await?;
    Ok(Json(serde_json::json!({ "stream": name, "curve": curve })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadingsParameters {
    after_seq: Option<u64>,
    limit: Option<usize>,
}

/// `GET .../readings`; its route stands beside the `POST` in `ingest`.
pub(super) async fn readings(
    State(door): Whole,
    Extension(who): Me,
    Path(name): Path<String>,
    raw: RawQuery,
) -> Answer<serde_json::Value> {
    door.check_readable(&who, &name).await?;
    let asked: ReadingsParameters = parameters(&raw, "after_seq and limit")?;
    let limit = bounded("limit", asked.limit, 100, READINGS_MAX)?;
    let readings = door.parts.query.readings(&name, asked.after_seq, limit).await?;
    Ok(Json(serde_json::json!({ "stream": name, "readings": readings })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowsParameters {
    limit: Option<usize>,
}

async fn windows(
    State(door): Whole,
    Extension(who): Me,
    Path(name): Path<String>,
    raw: RawQuery,
) -> Answer<serde_json::Value> {
    door.check_readable(&who, &name).await?;
    let asked: WindowsParameters = parameters(&raw, "limit")?;
    let limit = bounded("limit", asked.limit, 100, WINDOWS_MAX)?;
    let windows = door.parts.query.windows(&name, limit).await?;
    Ok(Json(serde_json::json!({ "stream": name, "windows": windows })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AlertsParameters {
    stream: Option<String>,
    limit: Option<usize>,
}

async fn alerts(State(door): Whole, Extension(who): Me, raw: RawQuery) -> Answer<serde_json::Value> {
    let asked: AlertsParameters = parameters(&raw, "stream and limit")?;
    let limit = bounded("limit", asked.limit, 100, ALERTS_MAX)?;
    if let Some(stream) = &asked.stream {
        door.check_readable(&who, stream).await?;
    }
    let readable = door.readable(&who).await?;
    let mut alerts = door.parts.query.alerts(asked.stream.as_deref(), limit).await?;
    alerts.retain(|alert| readable.contains(&alert.stream));
    Ok(Json(serde_json::json!({ "alerts": alerts })))
}

/// Sums are for every caller; names only for those who may read the stream.
async fn queue(State(door): Whole, Extension(who): Me) -> Answer<QueueView> {
    let readable = door.readable(&who).await?;
    let mut queue = door.parts.query.queue().await?;
    queue.streams.retain(|stream| readable.contains(&stream.name));
    Ok(Json(queue))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LossesParameters {
    limit: Option<usize>,
}

/// Client ids are for those who may see every topic.
async fn losses(State(door): Whole, Extension(who): Me, raw: RawQuery) -> Answer<serde_json::Value> {
    if !who.may_subscribe("#") {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            "this identity may not see other clients' losses",
        )
        .hint("add \"#\" to its `subscribe` rules"));
    }
    let asked: LossesParameters = parameters(&raw, "limit")?;
    let limit = bounded("limit", asked.limit, 100, LOSSES_MAX)?;
    Ok(Json(serde_json::json!({ "sessions": door.parts.query.session_losses(limit).await? })))
}

async fn link(State(door): Whole) -> (StatusCode, Json<LinkView>) {
    (StatusCode::OK, Json(door.parts.query.link()))
}

#[derive(Serialize)]
struct Models {
    models: Vec<ModelView>,
}

async fn engine(State(door): Whole) -> Json<EngineView> {
    Json(door.parts.query.engine())
}

async fn models(State(door): Whole) -> Json<Models> {
    Json(Models { models: door.parts.query.models() })
}
