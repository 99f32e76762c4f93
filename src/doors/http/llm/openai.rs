//! OpenAI's paths, and the lists of models that OpenAI and Anthropic have under one path.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{get, post};

use super::ask::{Wanted, ask, enter, request_id};
use super::{Llm, answer};
use crate::dialect::{Dialect, Failure, ModelEntry, Operation, model_entry, model_list};
use crate::flows::answer::ModelLine;

type Whole = State<Arc<Llm>>;

pub(super) fn routes() -> Router<Arc<Llm>> {
    Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completions))
        .route("/v1/responses", post(responses))
        .route("/v1/embeddings", post(embeddings))
        .route("/v1/moderations", post(moderations))
        .route("/v1/models", get(models))
        .route("/v1/models/{model}", get(model))
}

async fn chat(State(llm): Whole, request: Request) -> Response {
    ask(&llm, Wanted::of(Dialect::Chat, Operation::Chat), request).await
}

async fn completions(State(llm): Whole, request: Request) -> Response {
    ask(&llm, Wanted::of(Dialect::Chat, Operation::Completions), request).await
}

async fn responses(State(llm): Whole, request: Request) -> Response {
    ask(&llm, Wanted::of(Dialect::Responses, Operation::Chat), request).await
}

async fn embeddings(State(llm): Whole, request: Request) -> Response {
    ask(&llm, Wanted::of(Dialect::Chat, Operation::Embeddings), request).await
}

async fn moderations(State(llm): Whole, request: Request) -> Response {
    ask(&llm, Wanted::of(Dialect::Chat, Operation::Moderations), request).await
}

async fn models(State(llm): Whole, request: Request) -> Response {
    let (id, dialect) = (request_id(&llm, &request), dialect_of(request.headers()));
    let (who, _place) = match enter(&llm, &request) {
        Ok(entered) => entered,
        Err(refused) => return refused.response(&id, dialect),
    };
    let lines = llm.parts.answer.models(&who);
    let entries: Vec<_> = lines.iter().map(entry).collect();
    answer::json(&id, dialect, model_list(dialect, &entries))
}

async fn model(State(llm): Whole, Path(model): Path<String>, request: Request) -> Response {
    let (id, dialect) = (request_id(&llm, &request), dialect_of(request.headers()));
    let (who, _place) = match enter(&llm, &request) {
        Ok(entered) => entered,
        Err(refused) => return refused.response(&id, dialect),
    };
    match llm.parts.answer.model(&who, &model) {
        Some(line) => answer::json(&id, dialect, model_entry(dialect, &entry(&line))),
        None => answer::failed(&Failure::model_not_found(&model), &id, dialect),
    }
}

/// Anthropic's clients always say which version of its API they speak.
fn dialect_of(headers: &HeaderMap) -> Dialect {
    if headers.contains_key("anthropic-version") { Dialect::Anthropic } else { Dialect::Chat }
}

fn entry(line: &ModelLine) -> ModelEntry<'_> {
    let created_unix_s = line.local.as_ref().map_or(0, |local| local.created_unix_s);
    ModelEntry { id: &line.name, created_unix_s, owned_by: &line.owner }
}
