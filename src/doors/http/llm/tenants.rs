//! Tenants: whose keys, limits, records and kept answers are apart.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, patch};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::Llm;
use super::office::{Answer, enter, let_in, made, read};
use crate::base::Name;
use crate::doors::http::problem::Problem;

type Whole = State<Arc<Llm>>;

pub(super) fn routes() -> Router<Arc<Llm>> {
    Router::new()
        .route("/api/v1/tenants", get(list).post(create))
        .route("/api/v1/tenants/{tenant}", patch(suspend).delete(remove))
}

async fn list(State(llm): Whole, request: Request) -> Answer {
    let_in(&llm, &request)?;
    Ok(Json(json!({ "tenants": made(&llm)?.tenants() })).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    name: Name,
}

async fn create(State(llm): Whole, request: Request) -> Answer {
    let who = let_in(&llm, &request)?;
    let Order { name } = read(&llm, request, r#"{"name": "acme"}"#).await?;
    let tenant = made(&llm)?.create_tenant(name).await?;
    enter(&llm, &who, "tenant.create", tenant.name.as_str(), "").await;
    Ok((StatusCode::CREATED, Json(tenant)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Suspension {
    suspended: bool,
}

async fn suspend(State(llm): Whole, Path(tenant): Path<String>, request: Request) -> Answer {
    let who = let_in(&llm, &request)?;
    let Suspension { suspended } = read(&llm, request, r#"{"suspended": true}"#).await?;
    let tenant = made(&llm)?.suspend_tenant(&named(&tenant)?, suspended).await?;
    let action = if suspended { "tenant.suspend" } else { "tenant.let_in" };
    enter(&llm, &who, action, tenant.name.as_str(), "").await;
    Ok(Json(tenant).into_response())
}

async fn remove(State(llm): Whole, Path(tenant): Path<String>, request: Request) -> Answer {
    let who = let_in(&llm, &request)?;
    made(&llm)?.remove_tenant(&named(&tenant)?).await?;
    enter(&llm, &who, "tenant.remove", &tenant, "").await;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn named(tenant: &str) -> Result<Name, Problem> {
    Name::new(tenant).map_err(|error| Problem::new(StatusCode::NOT_FOUND, "not_found", error.to_string()))
}
