//! Open Inference Protocol v2 over HTTP, with Triton's extensions: binary tensors, raw bodies, tensors in shared memory,
//! classification, model configuration, statistics, the model repository, and the log's settings.

mod answer;
mod apart;
mod digits;
mod elements;
mod models;
mod not_numbers;
mod numbers;
mod regions;
mod request;
mod sending;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;

use super::body::read_split;
use super::door::Door;
use super::encoding;
use super::health::status;
use super::problem::Problem;
use crate::access::Principal;
use crate::doors::http::traffic;
use crate::doors::shared_memory::{Owner, Regions, ToRegion};
use crate::flows::inference::Question;
use crate::flows::trace::Exchange;
pub(in crate::doors::http) use models::may_manage;

use answer::answer;
pub(in crate::doors::http) use answer::header_text;
use request::InferRequest;
use sending::Sending;

/// Bytes of JSON in a body that has binary data behind them; 0: the body is one tensor's elements.
const BINARY: &str = "inference-header-content-length";
/// What the server says it can do beyond the protocol, in Triton's words.
pub(in crate::doors) fn extensions(regions: &Regions) -> Vec<&'static str> {
    let mut extensions = vec![
        "binary_tensor_data",
        "classification",
        "logging",
        "model_configuration",
        "model_repository",
        "model_repository(unload_dependents)",
        "statistics",
        "trace",
    ];
    if regions.are_on() {
        extensions.push("system_shared_memory");
    }
    extensions
}

/// For probes, which have no key.
pub(super) fn open_routes() -> Router<Arc<Door>> {
    Router::new().route("/v2", get(server)).route("/v2/health/live", get(live)).route("/v2/health/ready", get(ready))
}

pub(super) fn private_routes() -> Router<Arc<Door>> {
    Router::new()
        .route("/v2/models/{model}/infer", post(infer))
        .route("/v2/models/{model}/versions/{version}/infer", post(version_infer))
        .merge(models::routes())
        .merge(regions::routes())
        .merge(settings::routes())
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
    let extensions = extensions(&door.parts.regions);
    Json(json!({ "name": door.config.server_name, "version": env!("CARGO_PKG_VERSION"), "extensions": extensions }))
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

async fn infer(
    State(door): Whole,
    Extension(who): Extension<Principal>,
    Path(model): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, OipProblem> {
    run(&door, &who, model, None, &headers, body).await
}

async fn version_infer(
    State(door): Whole,
    Extension(who): Extension<Principal>,
    Path((model, version)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, OipProblem> {
    let version = door.parts.inference.version(&model, &version)?;
    run(&door, &who, model, Some(version), &headers, body).await
}

async fn run(
    door: &Arc<Door>,
    who: &Principal,
    model: String,
    version: Option<u32>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, OipProblem> {
    let came = door.parts.inference.traces().is_on().then(|| door.parts.clock.since_boot());
    let request = match json_bytes(headers)? {
        Some(0) => {
            let inputs = door.parts.inference.metadata(&model, version)?.inputs;
            let (_, elements) = read_split(body, headers, door.config.body_max_bytes, 0).await?;
            InferRequest::raw(elements, &inputs)?
        }
        announced => {
            let head_bytes = announced.unwrap_or(usize::MAX);
            let (json, binary) = read_split(body, headers, door.config.body_max_bytes, head_bytes).await?;
            if announced.is_some_and(|announced| announced > json.len()) {
                let message = format!("{BINARY} is {head_bytes}, the body has {} bytes", json.len());
                return Err(Problem::new(StatusCode::BAD_REQUEST, "bad_request", message).into());
            }
            InferRequest::parse(&json, binary)?
        }
    };
    let exchange = came.map(|came| Arc::new(Exchange::received(came, door.parts.clock.since_boot())));
    let InferRequest { id, mut inputs, in_regions, outputs, form, timeout, priority, sequence } = request;
    let regions = &door.parts.regions;
    if !in_regions.is_empty() {
        inputs.extend(regions.read(&Owner::of(who), in_regions).await?);
    }
    // The engine gives up a little earlier than the door, so that its own word on it reaches the caller.
    let most = Duration::from_millis(door.config.request_timeout_ms).mul_f64(0.9);
    let deadline = timeout.map_or(most, |timeout| timeout.min(most));
    let key = traffic::key(&door.parts.inference, headers, sequence.as_deref(), who, id.as_deref(), exchange.clone());
    let question = Question { model, version, inputs, outputs, deadline, priority };
    let inferred = door.parts.inference.infer_for(question, &key).await?;
    let placed = inferred.outputs.iter().enumerate().filter_map(|(at, output)| {
        let (name, elements) = (output.name.clone(), output.tensor.bytes().clone());
        Some(ToRegion { name, elements, place: form.place(at)?.clone() })
    });
    let placed: Vec<_> = placed.collect();
    if !placed.is_empty() {
        regions.write(&Owner::of(who), placed).await?;
    }
    let least = Some(door.config.compress_from_bytes).filter(|&least| least > 0);
    let encoding = least.and_then(|least| Some((encoding::of_answer(headers)?, least)));
    let sending = exchange.map(|exchange| Sending::of(exchange, door));
    Ok(answer(&inferred, id.as_deref(), &form, encoding, sending).await)
}

/// How many bytes of the body are JSON, where the request says so; and whether it is an inference request at all.
fn json_bytes(headers: &HeaderMap) -> Result<Option<usize>, Problem> {
    if let Some(value) = headers.get(BINARY) {
        let bytes = value.to_str().ok().and_then(|value| value.trim().parse().ok());
        return bytes.map(Some).ok_or_else(|| {
            Problem::new(
                StatusCode::BAD_REQUEST,
                "bad_request",
                format!("{BINARY} is not a number of bytes: {value:?}"),
            )
        });
    }
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("application/json");
    let kind = given.split(';').next().unwrap_or("").trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(None);
    }
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", format!("{kind} is not an inference request"))
        .hint(format!("send application/json, or {BINARY} with binary data")))
}
