//! How requests for a model are spread over its versions, seen and set while the gateway runs, by whoever may manage models.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use axum::{Json, Router};

use super::body::read_body;
use super::door::Door;
use super::oip::may_manage;
use super::problem::Problem;
use crate::access::Principal;
use crate::doors::caller::identity;
use crate::flows::inference::{Bearings, Inference, Key};
use crate::flows::trace::Exchange;
use crate::flows::traffic::{SetTraffic, TrafficView};

type Answer = Result<Json<TrafficView>, Problem>;
type Whole = State<Arc<Door>>;

pub(super) fn routes() -> Router<Arc<Door>> {
    Router::new().route("/api/v1/models/{model}/traffic", get(show).put(set).delete(remove))
}

/// What holds a request to the same versions as others: its header, its sequence, or who asks. `request` is what the caller
/// calls it, `exchange` when it came.
pub(super) fn key(
    inference: &Inference,
    headers: &HeaderMap,
    sequence: Option<&str>,
    who: &Principal,
    request: Option<&str>,
    exchange: Option<Arc<Exchange>>,
) -> Key {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    inference.key(&Bearings { header: Some(&header), sequence, caller: identity(who), request, exchange })
}

async fn show(State(door): Whole, Path(model): Path<String>) -> Answer {
    Ok(Json(door.parts.repository.traffic(&model)?))
}

async fn set(
    State(door): Whole,
    Extension(who): Extension<Principal>,
    Path(model): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    may_manage(&who)?;
    let body = read_body(body, &headers, door.config.body_max_bytes).await?;
    let asked: SetTraffic = serde_json::from_slice(&body).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, "bad_request", format!("not a model's traffic: {error}"))
            .hint("send {\"split\": {\"prod\": 90, \"canary\": 10}}, {\"shadow\": {\"to\": \"canary\", \"percent\": 10}}, or both")
    })?;
    door.parts.repository.set_traffic(&model, asked).await?;
    show(State(door), Path(model)).await
}

async fn remove(State(door): Whole, Extension(who): Extension<Principal>, Path(model): Path<String>) -> Answer {
    may_manage(&who)?;
    door.parts.repository.remove_traffic(&model).await?;
    show(State(door), Path(model)).await
}
