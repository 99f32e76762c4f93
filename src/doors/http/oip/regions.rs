//! Regions of shared memory, registered and let go; those of GPUs are refused, as by a Triton without one.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{OipProblem, Whole};
use crate::access::Principal;
use crate::doors::caller::is_forwarded;
use crate::doors::http::body::read_body;
use crate::doors::http::door::Door;
use crate::doors::http::problem::Problem;
use crate::doors::http::server::Ends;
use crate::doors::shared_memory::{Owner, RegionView};

/// The body is a name and two numbers.
const BODY_MAX_BYTES: usize = 4096;

pub(super) fn routes() -> Router<Arc<Door>> {
    Router::new()
        .route("/v2/systemsharedmemory/status", get(all))
        .route("/v2/systemsharedmemory/region/{region}/status", get(one))
        .route("/v2/systemsharedmemory/region/{region}/register", post(register))
        .route("/v2/systemsharedmemory/region/{region}/unregister", post(unregister))
        .route("/v2/systemsharedmemory/unregister", post(unregister_all))
        .route("/v2/cudasharedmemory/status", get(no_gpu_regions))
        .route("/v2/cudasharedmemory/region/{region}/status", get(no_such_gpu_region))
        .route("/v2/cudasharedmemory/region/{region}/register", post(no_gpu))
        .route("/v2/cudasharedmemory/region/{region}/unregister", post(nothing_to_do))
        .route("/v2/cudasharedmemory/unregister", post(nothing_to_do))
}

type Answer = Result<Response, OipProblem>;

#[derive(Deserialize)]
struct Asked {
    key: String,
    #[serde(default)]
    offset: u64,
    byte_size: u64,
}

fn describe(regions: &[RegionView]) -> Value {
    let region = |region: &RegionView| json!({ "name": region.name, "key": region.key, "offset": region.offset, "byte_size": region.bytes });
    regions.iter().map(region).collect()
}

async fn all(State(door): Whole, Extension(who): Extension<Principal>) -> Answer {
    Ok(Json(describe(&door.parts.regions.status(&Owner::of(&who), None)?)).into_response())
}

async fn one(State(door): Whole, Extension(who): Extension<Principal>, Path(region): Path<String>) -> Answer {
    Ok(Json(describe(&door.parts.regions.status(&Owner::of(&who), Some(&region))?)).into_response())
}

async fn register(
    State(door): Whole,
    Extension(who): Extension<Principal>,
    Extension(ends): Extension<Ends>,
    Path(region): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let body = read_body(body, &headers, BODY_MAX_BYTES).await?;
    let asked: Asked = serde_json::from_slice(&body).map_err(|error| {
        let message = format!("failed to register region {region:?}: {error}");
        Problem::new(StatusCode::BAD_REQUEST, "bad_request", message)
            .hint("send {\"key\": \"/forebay-frames\", \"offset\": 0, \"byte_size\": 4096}")
    })?;
    let Asked { key, offset, byte_size } = asked;
    let asked = RegionView { name: region, key, offset, bytes: byte_size };
    door.parts.regions.register(&Owner::of(&who), ends.peer, is_forwarded(&headers), asked)?;
    Ok(Json(json!({})).into_response())
}

async fn unregister(State(door): Whole, Extension(who): Extension<Principal>, Path(region): Path<String>) -> Response {
    door.parts.regions.unregister(&Owner::of(&who), Some(&region));
    Json(json!({})).into_response()
}

async fn unregister_all(State(door): Whole, Extension(who): Extension<Principal>) -> Response {
    door.parts.regions.unregister(&Owner::of(&who), None);
    Json(json!({})).into_response()
}

async fn no_gpu_regions() -> Response {
    Json(json!([])).into_response()
}

async fn no_such_gpu_region(Path(region): Path<String>) -> OipProblem {
    let message = format!("Unable to find cuda shared memory region: {region:?}");
    Problem::new(StatusCode::NOT_FOUND, "shared_memory", message).hint("memory of GPUs is not supported").into()
}

async fn no_gpu(Path(region): Path<String>) -> OipProblem {
    let message = format!("failed to register CUDA shared memory region: {region:?}, GPUs not supported");
    Problem::new(StatusCode::BAD_REQUEST, "shared_memory", message)
        .hint("register system shared memory, or send the tensors with the request")
        .into()
}

/// Clients clean up before they begin; there never is anything.
async fn nothing_to_do() -> Response {
    Json(json!({})).into_response()
}
