//! What runs the box: keys, records, sums, limits, kept answers, the audit. For operators; an app sees its own records, sums
//! and limits.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::caller::{known, operator};
use super::{Llm, body};
use crate::access::{KeyChange, KeyInfo, KeyOrder, Keys, KeysError, Principal};
use crate::dialect::Dialect;
use crate::doors::http::problem::Problem;
use crate::doors::http::server::Ends;
use crate::doors::http::site;
use crate::doors::http::streams::parameters;
use crate::flows::answer::{CallsWanted, OfficeError, UsageWanted};

/// Largest body of these paths.
const BODY_MAX_BYTES: usize = 64 << 10;
/// Keys of a page.
const PAGE: usize = 100;

type Whole = State<Arc<Llm>>;
pub(super) type Answer = Result<Response, Problem>;

pub(super) fn routes() -> Router<Arc<Llm>> {
    Router::new()
        .route("/api/v1/keys", get(keys).post(create))
        .route("/api/v1/keys/{key}", get(key).patch(change).delete(revoke))
        .route("/api/v1/keys/{key}/rotate", post(rotate))
        .route("/api/v1/calls", get(calls))
        .route("/api/v1/usage", get(usage))
        .route("/api/v1/limits", get(limits))
        .route("/api/v1/cache/purge", post(purge))
        .route("/api/v1/audit", get(audit))
}

/// An operator whose request is meant for us.
pub(super) fn let_in(llm: &Llm, request: &Request) -> Result<Principal, Problem> {
    screen(llm, request)?;
    operator(llm, request)
}

fn screen(llm: &Llm, request: &Request) -> Result<(), Problem> {
    let local = request.extensions().get::<Ends>().map(|ends| ends.local);
    site::screen(request, local, &llm.parts.hosts).map_err(|strange| {
        llm.parts.metrics.strange.inc();
        Problem::new(StatusCode::FORBIDDEN, "refused", strange.to_string()).hint("call this gateway by its own name")
    })
}

pub(super) fn made(llm: &Llm) -> Result<&Arc<Keys>, Problem> {
    llm.parts
        .access
        .keys()
        .ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "no_keys", "this gateway makes no keys at run time"))
}

/// The JSON of a small body.
pub(super) async fn read<T: serde::de::DeserializeOwned>(
    llm: &Llm,
    request: Request,
    like: &str,
) -> Result<T, Problem> {
    let (head, body) = request.into_parts();
    let config = super::Config { body_max_bytes: BODY_MAX_BYTES, ..llm.config.clone() };
    let wrong = |status: StatusCode, code: &'static str, message: String| {
        Problem::new(status, code, message).hint(format!("send something like {like}"))
    };
    let body = body::read(body, &head.headers, &config).await.map_err(|failure| {
        let status = StatusCode::from_u16(failure.kind.status(Dialect::Chat)).unwrap_or(StatusCode::BAD_REQUEST);
        let code = match status {
            StatusCode::PAYLOAD_TOO_LARGE => "too_large",
            StatusCode::BAD_REQUEST => "bad_request",
            _ => "timeout",
        };
        wrong(status, code, failure.message)
    })?;
    // A list would be read as an order's members in a row, and an empty one as an order for everything.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(wrong(StatusCode::BAD_REQUEST, "bad_request", "the body is no JSON object".to_owned()));
    }
    serde_json::from_slice(&body).map_err(|error| wrong(StatusCode::BAD_REQUEST, "bad_request", error.to_string()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    tenant: Option<String>,
    after: Option<String>,
    most: Option<usize>,
}

async fn keys(State(llm): Whole, raw: RawQuery, request: Request) -> Answer {
    let_in(&llm, &request)?;
    let asked: Listed = parameters(&raw, "tenant, after and most")?;
    let listed = made(&llm)?.list(asked.tenant.as_deref(), asked.after.as_deref(), asked.most.unwrap_or(PAGE));
    Ok(Json(json!({ "keys": listed })).into_response())
}

/// A key with its text, which is told once.
#[derive(Serialize)]
struct Fresh<'a> {
    key: &'a str,
    #[serde(flatten)]
    info: KeyInfo,
}

async fn create(State(llm): Whole, request: Request) -> Answer {
    let who = let_in(&llm, &request)?;
    let order: KeyOrder = read(&llm, request, r#"{"name": "line-7", "tenant": "default", "models": ["*"]}"#).await?;
    let fresh = (llm.parts.new_key)();
    let info = made(&llm)?.create(order, &fresh).await?;
    enter(&llm, &who, "key.create", &info.id, info.name.as_str()).await;
    Ok((StatusCode::CREATED, Json(Fresh { key: &fresh.text, info })).into_response())
}

async fn key(State(llm): Whole, Path(key): Path<String>, request: Request) -> Answer {
    let_in(&llm, &request)?;
    Ok(Json(made(&llm)?.info(&key)?).into_response())
}

async fn change(State(llm): Whole, Path(key): Path<String>, request: Request) -> Answer {
    let who = let_in(&llm, &request)?;
    let change: KeyChange = read(&llm, request, r#"{"models": ["gpt-4o*"], "expires_ms": null}"#).await?;
    let info = made(&llm)?.change(&key, change).await?;
    enter(&llm, &who, "key.change", &key, "").await;
    Ok(Json(info).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Removed {
    #[serde(default)]
    forget: bool,
}

async fn revoke(State(llm): Whole, Path(key): Path<String>, raw: RawQuery, request: Request) -> Answer {
    let who = let_in(&llm, &request)?;
    let asked: Removed = parameters(&raw, "forget")?;
    let keys = made(&llm)?;
    if asked.forget {
        keys.remove(&key).await?;
        enter(&llm, &who, "key.remove", &key, "").await;
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let info = keys.revoke(&key).await?;
    enter(&llm, &who, "key.revoke", &key, "").await;
    Ok(Json(info).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotation {
    #[serde(default)]
    overlap_ms: i64,
}

async fn rotate(State(llm): Whole, Path(key): Path<String>, request: Request) -> Answer {
    let who = let_in(&llm, &request)?;
    let Rotation { overlap_ms } = read(&llm, request, r#"{"overlap_ms": 86400000}"#).await?;
    let fresh = (llm.parts.new_key)();
    let info = made(&llm)?.rotate(&key, &fresh, overlap_ms).await?;
    enter(&llm, &who, "key.rotate", &key, &format!("the old text is good for {overlap_ms} ms")).await;
    Ok(Json(Fresh { key: &fresh.text, info }).into_response())
}

async fn calls(State(llm): Whole, raw: RawQuery, request: Request) -> Answer {
    screen(&llm, &request)?;
    let who = known(&llm, &request)?;
    let takes = "after, most, from_ms, to_ms, id, tenant, key, user, route, model and failed";
    let mut asked: CallsWanted = parameters(&raw, takes)?;
    if !who.is_operator() {
        (asked.tenant, asked.key) = (Some(who.tenant().to_owned()), Some(who.name().to_owned()));
    }
    Ok(Json(llm.parts.office.calls(asked).await?).into_response())
}

async fn usage(State(llm): Whole, raw: RawQuery, request: Request) -> Answer {
    screen(&llm, &request)?;
    let who = known(&llm, &request)?;
    let mut asked: UsageWanted = parameters(&raw, "first_day, last_day, tenant, key, model and by")?;
    if !who.is_operator() {
        (asked.tenant, asked.key) = (Some(who.tenant().to_owned()), Some(who.name().to_owned()));
    }
    Ok(Json(llm.parts.office.usage(asked).await?).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    level: Option<String>,
    name: Option<String>,
}

async fn limits(State(llm): Whole, raw: RawQuery, request: Request) -> Answer {
    screen(&llm, &request)?;
    let who = known(&llm, &request)?;
    let asked: Limits = parameters(&raw, "level and name")?;
    let office = &llm.parts.office;
    let limits = if who.is_operator() {
        office.limits(asked.level.as_deref(), asked.name.as_deref())
    } else {
        office.limits(Some("key"), Some(who.name()))
    };
    Ok(Json(json!({ "limits": limits })).into_response())
}

async fn purge(State(llm): Whole, request: Request) -> Answer {
    let who = let_in(&llm, &request)?;
    let purge = read(&llm, request, r#"{"tenant": "default", "older_than_s": 3600}, or {} for all"#).await?;
    let purged = llm.parts.office.purge(&who, &purge).await?;
    Ok(Json(json!({ "purged": purged })).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Audited {
    before: Option<i64>,
    most: Option<usize>,
}

async fn audit(State(llm): Whole, raw: RawQuery, request: Request) -> Answer {
    let_in(&llm, &request)?;
    let asked: Audited = parameters(&raw, "before and most")?;
    let entries = llm.parts.office.audit(asked.before, asked.most).await?;
    Ok(Json(json!({ "entries": entries })).into_response())
}

/// Enters what was done. It is done by now: a disk that refuses the entry is told to the log, not to the operator.
pub(super) async fn enter(llm: &Llm, who: &Principal, action: &str, target: &str, detail: &str) {
    if let Err(error) = llm.parts.office.enter(who, action, target, detail).await {
        tracing::error!(%error, action, target, "an operator's action is not in the audit");
    }
}

impl From<OfficeError> for Problem {
    fn from(error: OfficeError) -> Self {
        let message = error.to_string();
        match error {
            OfficeError::Store(_) | OfficeError::Cache(_) => {
                tracing::warn!(%error, "a question to the records failed");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "store", message)
                    .hint("GET /readyz says what is wrong")
                    .retry_after(5)
            }
            OfficeError::Cursor(_) | OfficeError::By(_) => Self::new(StatusCode::BAD_REQUEST, "bad_parameter", message),
        }
    }
}

impl From<KeysError> for Problem {
    fn from(error: KeysError) -> Self {
        let message = error.to_string();
        let (status, code) = match error {
            KeysError::Unknown(_) | KeysError::Tenant(_) => (StatusCode::NOT_FOUND, "not_found"),
            KeysError::TenantThere(_)
            | KeysError::TenantInUse { .. }
            | KeysError::TenantKept(_)
            | KeysError::Taken { .. }
            | KeysError::Reused
            | KeysError::Revoked(_)
            | KeysError::NotRevoked(_) => (StatusCode::CONFLICT, "conflict"),
            KeysError::TooMany | KeysError::TooManyTenants => (StatusCode::INSUFFICIENT_STORAGE, "too_many"),
            KeysError::Patterns(_) | KeysError::Times { .. } | KeysError::Unit | KeysError::Overlap(_) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "wrong_value")
            }
            KeysError::Unwritten { .. } | KeysError::Store(_) => {
                tracing::error!(%error, "keys could not be kept");
                return Self::new(StatusCode::SERVICE_UNAVAILABLE, "store", message)
                    .hint("GET /readyz says what is wrong")
                    .retry_after(5);
            }
        };
        Self::new(status, code, message)
    }
}
