//! Traces of requests, as Triton writes them into its trace file.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::door::Door;
use super::problem::Problem;
use super::streams::parameters;
use crate::flows::trace::Trace;

pub(super) fn routes() -> Router<Arc<Door>> {
    Router::new().route("/api/v1/traces", get(traces))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TracesParameters {
    model: Option<String>,
}

async fn traces(State(door): State<Arc<Door>>, raw: RawQuery) -> Result<Response, Problem> {
    let asked: TracesParameters = parameters(&raw, "model")?;
    let (traces, overwritten) = door.parts.inference.traces().newest(asked.model.as_deref());
    let mut response = Json(traces.iter().flat_map(told).collect::<Vec<_>>()).into_response();
    response.headers_mut().insert("x-forebay-traces-overwritten", HeaderValue::from(overwritten));
    Ok(response)
}

/// What was asked, and when; two objects with one id.
fn told(trace: &Trace) -> [Value; 2] {
    let mut asked = json!({ "id": trace.id, "model_name": trace.model, "model_version": trace.version });
    let more = [
        ("parent_id", trace.parent.map(Value::from)),
        ("request_id", trace.request.as_deref().map(Value::from)),
        ("forebay_error", trace.error.as_deref().map(Value::from)),
    ];
    for (name, value) in more {
        if let Some(value) = value {
            asked[name] = value;
        }
    }
    let moment = |&(name, ns): &(&str, u64)| json!({ "name": name, "ns": ns });
    let timestamps: Vec<_> = trace.moments.iter().map(moment).collect();
    [asked, json!({ "id": trace.id, "timestamps": timestamps })]
}
