//! Names for versions, set while the gateway runs, by whoever may manage models.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, put};
use axum::{Json, Router};
use serde::Deserialize;

use super::body::read_body;
use super::door::Door;
use super::oip::may_manage;
use super::problem::Problem;
use crate::access::Principal;

type Answer = Result<Json<serde_json::Value>, Problem>;
type Whole = State<Arc<Door>>;

pub(super) fn routes() -> Router<Arc<Door>> {
    Router::new()
        .route("/api/v1/models/{model}/aliases", get(list))
        .route("/api/v1/models/{model}/aliases/{alias}", put(set).delete(remove))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    version: u32,
}

async fn list(State(door): Whole, Path(model): Path<String>) -> Answer {
    Ok(Json(serde_json::json!({ "aliases": door.parts.repository.aliases(&model)? })))
}

async fn set(
    State(door): Whole,
    Extension(who): Extension<Principal>,
    Path((model, alias)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    may_manage(&who)?;
    let body = read_body(body, &headers, door.config.body_max_bytes).await?;
    let Asked { version } = serde_json::from_slice(&body).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, "bad_request", format!("not a version for an alias: {error}"))
            .hint("send {\"version\": 2}")
    })?;
    door.parts.repository.set_alias(&model, &alias, version).await?;
    list(State(door), Path(model)).await
}

async fn remove(
    State(door): Whole,
    Extension(who): Extension<Principal>,
    Path((model, alias)): Path<(String, String)>,
) -> Answer {
    may_manage(&who)?;
    door.parts.repository.remove_alias(&model, &alias).await?;
    list(State(door), Path(model)).await
}
