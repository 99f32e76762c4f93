//! Open Inference Protocol v2 over JSON: health, model metadata, inference.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;

use super::door::Door;
use super::health::status;
use super::ingest::read_body;
use super::problem::Problem;
use super::tensor_json::{InferRequest, write_outputs};
use crate::flows::inference::{ModelMetadata, TensorMetadata};

/// Announces a binary tensor body, which this door does not read yet.
const BINARY: &str = "inference-header-content-length";

/// For probes, which have no key.
pub(super) fn open_routes() -> Router<Arc<Door>> {
    Router::new().route("/v2", get(server)).route("/v2/health/live", get(live)).route("/v2/health/ready", get(ready))
}

pub(super) fn private_routes() -> Router<Arc<Door>> {
    Router::new()
        .route("/v2/models/{model}", get(metadata))
        .route("/v2/models/{model}/ready", get(model_ready))
        .route("/v2/models/{model}/infer", post(infer))
        .route("/v2/models/{model}/versions/{version}", get(version_metadata))
        .route("/v2/models/{model}/versions/{version}/ready", get(version_ready))
        .route("/v2/models/{model}/versions/{version}/infer", post(version_infer))
}

type Whole = State<Arc<Door>>;

/// A [`Problem`] in the protocol's own form.
struct OipProblem(Problem);

impl<P: Into<Problem>> From<P> for OipProblem {
    fn from(problem: P) -> Self {
        Self(problem.into())
    }
}

impl IntoResponse for OipProblem {
    fn into_response(self) -> Response {
        self.0.into_oip()
    }
}

async fn server(State(door): Whole) -> Response {
    Json(json!({ "name": door.config.server_name, "version": env!("CARGO_PKG_VERSION"), "extensions": [] }))
        .into_response()
}

async fn live(State(door): Whole) -> Response {
    let alive = door.parts.query.health().alive;
    (status(alive), Json(json!({ "live": alive }))).into_response()
}

async fn ready(State(door): Whole) -> Response {
    let ready = door.parts.query.health().ready;
    (status(ready), Json(json!({ "ready": ready }))).into_response()
}

async fn metadata(State(door): Whole, Path(model): Path<String>) -> Result<Response, OipProblem> {
    Ok(Json(describe(&find(&door, &model, None)?)).into_response())
}

async fn version_metadata(
    State(door): Whole,
    Path((model, version)): Path<(String, String)>,
) -> Result<Response, OipProblem> {
    let version = parse_version(&version)?;
    Ok(Json(describe(&find(&door, &model, Some(version))?)).into_response())
}

async fn model_ready(State(door): Whole, Path(model): Path<String>) -> Result<Response, OipProblem> {
    readiness(&door, &model, None)
}

async fn version_ready(
    State(door): Whole,
    Path((model, version)): Path<(String, String)>,
) -> Result<Response, OipProblem> {
    let version = parse_version(&version)?;
    readiness(&door, &model, Some(version))
}

fn readiness(door: &Door, model: &str, version: Option<u32>) -> Result<Response, OipProblem> {
    let models = door.parts.query.models();
    let mut known = models.iter().filter(|view| view.name == model && version.is_none_or(|v| view.version == v));
    let Some(first) = known.next() else { return Err(no_model(model, version).into()) };
    let serving = first.serving || known.any(|view| view.serving);
    Ok((status(serving), Json(json!({ "name": model, "ready": serving }))).into_response())
}

async fn infer(
    State(door): Whole,
    Path(model): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, OipProblem> {
    run(&door, &model, None, &headers, body).await
}

async fn version_infer(
    State(door): Whole,
    Path((model, version)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, OipProblem> {
    let version = parse_version(&version)?;
    run(&door, &model, Some(version), &headers, body).await
}

async fn run(
    door: &Door,
    model: &str,
    version: Option<u32>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, OipProblem> {
    check_content_type(headers)?;
    let body = read_body(body, headers, door.config.body_max_bytes).await?;
    let request = InferRequest::parse(&body)?;
    // The engine gives up a little earlier than the door, so that its own word on it reaches the caller.
    let deadline = Duration::from_millis(door.config.request_timeout_ms).mul_f64(0.9);
    let inferred = door.parts.inference.infer(model, version, request.inputs, deadline).await?;
    let outputs = write_outputs(&inferred.outputs, &request.outputs)?;
    let mut answer = json!({
        "model_name": inferred.model,
        "model_version": inferred.version.to_string(),
        "outputs": outputs,
    });
    if let Some(id) = request.id {
        answer["id"] = id.into();
    }
    let headers = [("x-forebay-engine", inferred.engine), ("x-forebay-duration-us", inferred.duration_us.to_string())];
    Ok((headers, Json(answer)).into_response())
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.contains_key(BINARY) {
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "binary", "binary tensor data is not supported")
            .hint("send tensors as JSON (in NVIDIA's client: binary_data=False)"));
    }
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("application/json");
    let kind = given.split(';').next().unwrap_or("").trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", format!("{kind} is not an inference request"))
        .hint("send application/json"))
}

fn parse_version(text: &str) -> Result<u32, Problem> {
    text.parse().map_err(|_| {
        Problem::new(StatusCode::NOT_FOUND, "no_model", format!("{text:?} is not a version"))
            .hint("versions are whole numbers; GET /v2/models/{model} lists them")
    })
}

fn no_model(model: &str, version: Option<u32>) -> Problem {
    let version = version.map(|version| format!(" version {version}")).unwrap_or_default();
    Problem::new(StatusCode::NOT_FOUND, "no_model", format!("no model {model:?}{version}"))
        .hint("GET /api/v1/models lists them")
}

fn find(door: &Door, model: &str, version: Option<u32>) -> Result<ModelMetadata, Problem> {
    let found = door.parts.inference.metadata(model);
    found.filter(|found| version.is_none_or(|v| found.versions.contains(&v))).ok_or_else(|| no_model(model, version))
}

fn describe(model: &ModelMetadata) -> serde_json::Value {
    let tensors = |tensors: &[TensorMetadata]| -> Vec<_> {
        let tensor = |t: &TensorMetadata| json!({ "name": t.name, "datatype": t.datatype.as_str(), "shape": t.shape });
        tensors.iter().map(tensor).collect()
    };
    json!({
        "name": model.name,
        "versions": model.versions.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "platform": model.platform,
        "inputs": tensors(&model.inputs),
        "outputs": tensors(&model.outputs),
    })
}
