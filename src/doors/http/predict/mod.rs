//! Predictions over HTTP: `POST /v1/models/{model}/predict` takes a JPEG, a PNG, a WAV, a text or JSON, and answers with
//! labels and units. `/v1/models/{model}:predict` is the same, for clients of TensorFlow Serving and KServe's first protocol.

mod answer;
mod content;
mod multipart;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::post;

use super::body::read_body;
use super::door::Door;
use super::problem::Problem;
use super::traffic;
use crate::access::Principal;
use content::Form;

/// Larger bodies are taken apart on a thread of their own.
const AT_ONCE_BYTES: usize = 32 * 1024;

pub(super) fn routes() -> Router<Arc<Door>> {
    Router::new()
        .route("/v1/models/{model}/predict", post(predict))
        .route("/v1/models/{model}/versions/{version}/predict", post(version_predict))
        .route("/v1/models/{model}", post(predict_verb))
}

type Whole = State<Arc<Door>>;
type Answer = Result<Response, Problem>;

async fn predict(
    State(door): Whole,
    Extension(who): Extension<Principal>,
    Path(model): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    run(&door, &model, None, &who, &headers, body).await
}

async fn version_predict(
    State(door): Whole,
    Extension(who): Extension<Principal>,
    Path((model, version)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let version = door.parts.predict.version(&model, &version)?;
    run(&door, &model, Some(version), &who, &headers, body).await
}

async fn predict_verb(
    State(door): Whole,
    Extension(who): Extension<Principal>,
    Path(model): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    match model.strip_suffix(":predict") {
        Some(model) => run(&door, model, None, &who, &headers, body).await,
        None => Err(Problem::new(StatusCode::NOT_FOUND, "no_such_path", format!("nothing to do with {model:?}"))
            .hint("POST /v1/models/{model}/predict asks a model")),
    }
}

async fn run(
    door: &Door,
    model: &str,
    version: Option<u32>,
    who: &Principal,
    headers: &HeaderMap,
    body: Body,
) -> Answer {
    // The story gives up a little earlier than the door, so that its own word on it reaches the caller.
    let deadline = Duration::from_millis(door.config.request_timeout_ms).mul_f64(0.9);
    let key = traffic::key(&door.parts.inference, headers, None, who, None, None);
    let asked = door.parts.predict.ask_for(model, version, key, deadline).await?;
    // Before the body is read: what cannot be is not sent.
    let form = Form::of(headers, asked.sources())?;
    let body = read_body(body, headers, door.config.body_max_bytes).await?;
    let (sources, most) = (asked.sources().to_vec(), door.parts.predict.instances_max());
    let instances = if body.len() <= AT_ONCE_BYTES {
        form.instances(&body, &sources, most)?
    } else {
        let taking_apart = tokio::task::spawn_blocking(move || form.instances(&body, &sources, most));
        taking_apart.await.map_err(|_| {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "prediction", "failed to take the body apart")
        })??
    };
    let predicted = door.parts.predict.predict(asked, instances, deadline).await?;
    Ok(answer::answer(&predicted))
}
