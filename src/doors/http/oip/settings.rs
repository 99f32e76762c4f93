//! Triton's settings of log and trace.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value as JsonValue, json};

use super::models::may_manage;
use super::{OipProblem, Whole};
use crate::access::Principal;
use crate::doors::http::body::read_body;
use crate::doors::http::door::Door;
use crate::doors::http::problem::Problem;
use crate::doors::settings::{TRACE, Value, change_log, check_trace, log_settings};

/// The body is a handful of settings.
const BODY_MAX_BYTES: usize = 4096;

pub(super) fn routes() -> Router<Arc<Door>> {
    Router::new()
        .route("/v2/logging", get(log).post(set_log))
        .route("/v2/trace/setting", get(trace).post(set_trace))
        .route("/v2/models/{model}/trace/setting", get(model_trace).post(set_model_trace))
}

type Answer = Result<Response, OipProblem>;

fn bad(message: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad_setting", message)
}

async fn settings(headers: &HeaderMap, body: Body) -> Result<Map<String, JsonValue>, Problem> {
    let body = read_body(body, headers, BODY_MAX_BYTES).await?;
    serde_json::from_slice(&body).map_err(|error| bad(format!("not an object of settings: {error}")))
}

async fn log(State(door): Whole) -> Response {
    let settings = log_settings(&door.parts.logging).into_iter().map(|(name, value)| {
        let value = match value {
            Value::Truth(truth) => truth.into(),
            Value::Number(number) => number.into(),
            Value::Text(text) => text.into(),
        };
        (name.to_owned(), value)
    });
    Json(JsonValue::Object(settings.collect())).into_response()
}

async fn set_log(State(door): Whole, Extension(who): Extension<Principal>, headers: HeaderMap, body: Body) -> Answer {
    may_manage(&who)?;
    let given = settings(&headers, body).await?.into_iter().map(|(name, value)| {
        let value = match value {
            JsonValue::Bool(truth) => Value::Truth(truth),
            JsonValue::String(text) => Value::Text(text),
            JsonValue::Number(number) if number.is_u64() => Value::Number(number.as_u64().unwrap_or(0)),
            // Whatever it is, no setting takes it.
            other => Value::Text(other.to_string()),
        };
        (name, value)
    });
    change_log(&door.parts.logging, who.name(), &given.collect::<Vec<_>>()).map_err(bad)?;
    Ok(log(State(door)).await)
}

fn traced() -> Response {
    let settings = TRACE.into_iter().map(|(name, value)| {
        let value = if name == "trace_level" { json!([value]) } else { value.into() };
        (name.to_owned(), value)
    });
    Json(JsonValue::Object(settings.collect())).into_response()
}

async fn trace() -> Response {
    traced()
}

async fn set_trace(Extension(who): Extension<Principal>, headers: HeaderMap, body: Body) -> Answer {
    may_manage(&who)?;
    for (name, value) in settings(&headers, body).await? {
        let text = |value: JsonValue| match value {
            JsonValue::String(text) => text,
            other => other.to_string(),
        };
        let values = match value {
            JsonValue::Null => Vec::new(),
            JsonValue::Array(values) => values.into_iter().map(text).collect(),
            value => vec![text(value)],
        };
        check_trace(&name, &values).map_err(bad)?;
    }
    Ok(traced())
}

async fn model_trace(State(door): Whole, Path(model): Path<String>) -> Answer {
    door.parts.inference.metadata(&model, None)?;
    Ok(traced())
}

async fn set_model_trace(
    State(door): Whole,
    who: Extension<Principal>,
    Path(model): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    door.parts.inference.metadata(&model, None)?;
    set_trace(who, headers, body).await
}
