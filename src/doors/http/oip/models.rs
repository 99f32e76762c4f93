//! What models there are: their tensors, configuration and statistics, and the repository that they come from.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{OipProblem, Whole};
use crate::access::Principal;
use crate::doors::http::body::read_body;
use crate::doors::http::door::Door;
use crate::doors::http::health::status;
use crate::doors::http::problem::Problem;
use crate::flows::inference::{Composing, DynamicBatching, InferError, ModelMetadata, Served, TensorMetadata};
use crate::flows::repository::RepositoryError;
use crate::flows::tally::Runs;
use crate::flows::{LoadConfig, data_type, dims};

pub(super) fn routes() -> Router<Arc<Door>> {
    Router::new()
        .route("/v2/models/{model}", get(metadata))
        .route("/v2/models/{model}/ready", get(model_ready))
        .route("/v2/models/{model}/config", get(config))
        .route("/v2/models/{model}/stats", get(statistics))
        .route("/v2/models/{model}/versions/{version}", get(version_metadata))
        .route("/v2/models/{model}/versions/{version}/ready", get(version_ready))
        .route("/v2/models/{model}/versions/{version}/config", get(version_config))
        .route("/v2/models/{model}/versions/{version}/stats", get(version_statistics))
        .route("/v2/models/stats", get(all_statistics))
        .route("/v2/repository/index", post(index))
        .route("/v2/repository/models/{model}/load", post(load))
        .route("/v2/repository/models/{model}/unload", post(unload))
}

type Answer = Result<Response, OipProblem>;

async fn metadata(State(door): Whole, Path(model): Path<String>) -> Answer {
    Ok(Json(describe(&door.parts.inference.metadata(&model, None)?)).into_response())
}

async fn version_metadata(State(door): Whole, Path((model, version)): Path<(String, String)>) -> Answer {
    let version = door.parts.inference.version(&model, &version)?;
    Ok(Json(describe(&door.parts.inference.metadata(&model, Some(version))?)).into_response())
}

async fn model_ready(State(door): Whole, Path(model): Path<String>) -> Answer {
    readiness(&door, &model, None)
}

async fn version_ready(State(door): Whole, Path((model, version)): Path<(String, String)>) -> Answer {
    let version = door.parts.inference.version(&model, &version)?;
    readiness(&door, &model, Some(version))
}

fn readiness(door: &Door, model: &str, version: Option<u32>) -> Answer {
    match door.parts.inference.metadata(model, version) {
        Ok(_) => Ok((status(true), Json(json!({ "name": model, "ready": true }))).into_response()),
        Err(InferError::NotServing { reason }) => {
            Ok((status(false), Json(json!({ "name": model, "ready": false, "reason": reason }))).into_response())
        }
        Err(_) => Err(no_model(model, version).into()),
    }
}

fn no_model(model: &str, version: Option<u32>) -> Problem {
    let version = version.map(|version| format!(" version {version}")).unwrap_or_default();
    Problem::new(StatusCode::NOT_FOUND, "no_model", format!("no model {model:?}{version}"))
        .hint("GET /api/v1/models lists them")
}

fn describe(model: &ModelMetadata) -> Value {
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

async fn config(State(door): Whole, Path(model): Path<String>) -> Answer {
    Ok(Json(configuration(&door.parts.inference.metadata(&model, None)?)).into_response())
}

async fn version_config(State(door): Whole, Path((model, version)): Path<(String, String)>) -> Answer {
    let version = door.parts.inference.version(&model, &version)?;
    Ok(Json(configuration(&door.parts.inference.metadata(&model, Some(version))?)).into_response())
}

/// Triton's configuration of a model. The batch is a dimension like the others and `max_batch_size` 0, unless the model
/// was loaded with another.
fn configuration(model: &ModelMetadata) -> Value {
    let rows_max = model.request_rows_max;
    let tensors = |tensors: &[TensorMetadata]| -> Vec<_> {
        let tensor = |t: &TensorMetadata| json!({ "name": t.name, "data_type": data_type(t.datatype), "dims": dims(&t.shape, rows_max) });
        tensors.iter().map(tensor).collect()
    };
    let mut config = json!({
        "name": model.name,
        "platform": model.platform,
        "backend": model.engine,
        "max_batch_size": rows_max,
        "input": tensors(&model.inputs),
        "output": tensors(&model.outputs),
        "default_model_filename": model.file,
    });
    if let Some(DynamicBatching { rows_max, delay_us }) = model.batching {
        config["dynamic_batching"] =
            json!({ "preferred_batch_size": [rows_max], "max_queue_delay_microseconds": delay_us });
    }
    if !model.composing.is_empty() {
        config["ensemble_scheduling"] = json!({ "step": model.composing.iter().map(composing).collect::<Vec<_>>() });
    }
    config
}

/// A step as Triton's ensembles write it; steps without a model have no word there.
fn composing(step: &Composing) -> Value {
    let map = |pairs: &[(String, String)]| {
        Value::Object(pairs.iter().map(|(name, tensor)| (name.clone(), tensor.as_str().into())).collect())
    };
    json!({
        "model_name": step.model,
        "model_version": step.version.map_or(-1, i64::from),
        "input_map": map(&step.inputs),
        "output_map": map(&step.outputs),
    })
}

async fn statistics(State(door): Whole, Path(model): Path<String>) -> Answer {
    served(&door, Some(&model), None)
}

async fn version_statistics(State(door): Whole, Path((model, version)): Path<(String, String)>) -> Answer {
    let version = door.parts.inference.version(&model, &version)?;
    served(&door, Some(&model), Some(version))
}

async fn all_statistics(State(door): Whole) -> Answer {
    served(&door, None, None)
}

fn served(door: &Door, model: Option<&str>, version: Option<u32>) -> Answer {
    let served = door.parts.inference.served(model, version)?;
    Ok(Json(json!({ "model_stats": served.iter().map(figures).collect::<Vec<_>>() })).into_response())
}

/// Waiting counts as `queue`; reading requests and writing answers happen outside of the model and are not counted with it.
fn figures(served: &Served) -> Value {
    let counts = &served.counts;
    let batch = |(rows, runs): (&u64, &Runs)| {
        let Runs { compute, input, output } = runs;
        json!({ "batch_size": rows, "compute_input": input, "compute_infer": compute, "compute_output": output })
    };
    let mut figures = json!({
        "name": served.model,
        "version": served.version.to_string(),
        "last_inference": counts.last_ms,
        "inference_count": counts.inferences,
        "execution_count": counts.executions,
        "inference_stats": {
            "success": counts.success,
            "fail": counts.fail,
            "queue": counts.queue,
            "compute_input": counts.input,
            "compute_infer": counts.compute,
            "compute_output": counts.output,
        },
        "batch_stats": counts.batches.iter().map(batch).collect::<Vec<_>>(),
    });
    if !served.steps.is_empty() {
        figures["pipeline_steps"] = json!(served.steps);
    }
    figures
}

#[derive(Default, Deserialize)]
struct IndexRequest {
    /// Only what serves.
    #[serde(default)]
    ready: bool,
}

/// Triton's clients send no body, an empty one, or JSON without saying so.
async fn index(State(door): Whole, headers: HeaderMap, body: Body) -> Answer {
    let body = read_body(body, &headers, door.config.body_max_bytes).await?;
    let asked: IndexRequest = if body.is_empty() {
        IndexRequest::default()
    } else {
        serde_json::from_slice(&body).map_err(|error| {
            Problem::new(StatusCode::BAD_REQUEST, "bad_request", format!("not an index request: {error}"))
        })?
    };
    let models = door.parts.repository.index(asked.ready).await?;
    let entry = |view: &crate::flows::models::ModelView| {
        let mut entry = json!({
            "name": view.name,
            "version": view.version.to_string(),
            "state": view.state_word(),
        });
        if let Some(problem) = &view.problem {
            entry["reason"] = problem.as_str().into();
        }
        entry
    };
    Ok(Json(models.iter().map(entry).collect::<Vec<_>>()).into_response())
}

async fn load(
    State(door): Whole,
    Extension(who): Extension<Principal>,
    Path(model): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    may_manage(&who)?;
    let body = read_body(body, &headers, door.config.body_max_bytes).await?;
    let mut asked = LoadConfig::default();
    for (parameter, value) in parameters(&body)? {
        if parameter.starts_with("file:") {
            return Err(RepositoryError::Files { model, file: parameter }.into());
        }
        let Some(text) = value.as_str().filter(|_| parameter == "config") else {
            return Err(unknown_parameter(&parameter, "`config` is a model configuration as a JSON text"));
        };
        let configuration = |problem| RepositoryError::Configuration { model: model.clone(), problem };
        asked = LoadConfig::parse(text).map_err(configuration)?;
    }
    door.parts.repository.load_as(&model, asked).await?;
    Ok(Json(json!({})).into_response())
}

async fn unload(
    State(door): Whole,
    Extension(who): Extension<Principal>,
    Path(model): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    may_manage(&who)?;
    let body = read_body(body, &headers, door.config.body_max_bytes).await?;
    let mut with_dependents = false;
    for (parameter, value) in parameters(&body)? {
        match value.as_bool().filter(|_| parameter == "unload_dependents") {
            Some(truth) => with_dependents = truth,
            None => return Err(unknown_parameter(&parameter, "`unload_dependents` is true or false")),
        }
    }
    door.parts.repository.unload_all(&model, with_dependents).await?;
    Ok(Json(json!({})).into_response())
}

pub(in crate::doors::http) fn may_manage(who: &Principal) -> Result<(), Problem> {
    if who.may_manage_models() {
        return Ok(());
    }
    Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", format!("{} may not load or unload models", who.name()))
        .hint("give this identity `manage_models = true` in [[access.identity]]"))
}

fn unknown_parameter(parameter: &str, hint: &str) -> OipProblem {
    let message = format!("parameter {parameter:?} cannot be given like that");
    Problem::new(StatusCode::BAD_REQUEST, "bad_request", message).hint(hint).into()
}

/// The parameters of a request to load or unload, which Triton's clients send without saying that they are JSON.
fn parameters(body: &[u8]) -> Result<Map<String, Value>, Problem> {
    let bad = |message: String| Problem::new(StatusCode::BAD_REQUEST, "bad_request", message);
    if body.is_empty() {
        return Ok(Map::new());
    }
    let asked: Value =
        serde_json::from_slice(body).map_err(|error| bad(format!("not a request of a model: {error}")))?;
    let Value::Object(mut members) = asked else {
        return Err(bad("not a request of a model: expected an object, or no body".to_owned()));
    };
    let parameters = members.remove("parameters").unwrap_or_else(|| json!({}));
    if let Some(member) = members.keys().next() {
        return Err(bad(format!("not a request of a model: unknown field `{member}`")));
    }
    match parameters {
        Value::Object(parameters) => Ok(parameters),
        other => Err(bad(format!("parameters are an object, given {other}"))),
    }
}
