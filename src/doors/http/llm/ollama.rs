//! Ollama's paths.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::json;

use super::ask::{Wanted, ask, enter, request_id};
use super::{Llm, answer, body};
use crate::dialect::{Dialect, Failure, FailureKind, OllamaModel, Operation, ollama_tags};
use crate::doors::http::body::discard;
use crate::flows::answer::ModelLine;

/// The version of Ollama whose API this is.
const VERSION: &str = "0.12.0";

type Whole = State<Arc<Llm>>;

pub(super) fn routes() -> Router<Arc<Llm>> {
    Router::new()
        .route("/api/chat", post(chat))
        .route("/api/generate", post(generate))
        .route("/api/embed", post(embed))
        .route("/api/embeddings", post(embed))
        .route("/api/tags", get(tags))
        .route("/api/show", post(show))
        .route("/api/version", get(version))
}

async fn chat(State(llm): Whole, request: Request) -> Response {
    ask(&llm, Wanted::of(Dialect::Ollama, Operation::Chat), request).await
}

async fn generate(State(llm): Whole, request: Request) -> Response {
    ask(&llm, Wanted::of(Dialect::Ollama, Operation::Completions), request).await
}

async fn embed(State(llm): Whole, request: Request) -> Response {
    ask(&llm, Wanted::of(Dialect::Ollama, Operation::Embeddings), request).await
}

async fn version(State(llm): Whole, request: Request) -> Response {
    let id = request_id(&llm, &request);
    answer::json(&id, Dialect::Ollama, json!({ "version": VERSION }).to_string())
}

async fn tags(State(llm): Whole, request: Request) -> Response {
    let id = request_id(&llm, &request);
    match enter(&llm, &request) {
        Err(refused) => refused.response(&id, Dialect::Ollama),
        Ok((who, _place)) => {
            let lines = llm.parts.answer.models(&who);
            let models: Vec<_> = lines.iter().map(told).collect();
            answer::json(&id, Dialect::Ollama, ollama_tags(&models))
        }
    }
}

fn told(line: &ModelLine) -> OllamaModel<'_> {
    let Some(local) = &line.local else {
        return OllamaModel {
            name: &line.name,
            modified_unix_s: 0,
            size_bytes: 0,
            digest: "",
            family: "",
            parameter_size: "",
            quantization: "",
        };
    };
    OllamaModel {
        name: &line.name,
        modified_unix_s: local.created_unix_s,
        size_bytes: local.size_bytes,
        digest: &local.digest,
        family: &local.family,
        parameter_size: &local.parameter_size,
        quantization: &local.quantization,
    }
}

#[derive(Deserialize)]
struct Shown {
    /// `name` is what older clients say.
    #[serde(alias = "name")]
    model: String,
}

async fn show(State(llm): Whole, request: Request) -> Response {
    let id = request_id(&llm, &request);
    let (who, _place) = match enter(&llm, &request) {
        Ok(entered) => entered,
        Err(refused) => {
            discard(request).await;
            return refused.response(&id, Dialect::Ollama);
        }
    };
    let (head, body) = request.into_parts();
    let failure = match body::read(body, &head.headers, &llm.config).await {
        Err(failure) => failure,
        Ok(body) => match serde_json::from_slice::<Shown>(&body) {
            Err(_) => Failure::new(FailureKind::InvalidRequest, "Send {\"model\": \"...\"}."),
            Ok(asked) => match llm.parts.answer.model(&who, &asked.model) {
                None => Failure::model_not_found(&asked.model),
                Some(line) => {
                    let told = told(&line);
                    let shown = json!({
                        "modelfile": "",
                        "parameters": "",
                        "template": "",
                        "details": {
                            "parent_model": "",
                            "format": if told.digest.is_empty() { "" } else { "gguf" },
                            "family": told.family,
                            "families": [told.family],
                            "parameter_size": told.parameter_size,
                            "quantization_level": told.quantization,
                        },
                        "model_info": {},
                        "capabilities": ["completion"],
                    });
                    return answer::json(&id, Dialect::Ollama, shown.to_string());
                }
            },
        },
    };
    answer::failed(&failure, &id, Dialect::Ollama)
}
