//! Anthropic's paths.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;

use super::Llm;
use super::ask::{Wanted, ask};
use crate::dialect::{Dialect, Operation};

type Whole = State<Arc<Llm>>;

pub(super) fn routes() -> Router<Arc<Llm>> {
    Router::new().route("/v1/messages", post(messages)).route("/v1/messages/count_tokens", post(count_tokens))
}

async fn messages(State(llm): Whole, request: Request) -> Response {
    ask(&llm, Wanted::of(Dialect::Anthropic, Operation::Chat), request).await
}

async fn count_tokens(State(llm): Whole, request: Request) -> Response {
    ask(&llm, Wanted::of(Dialect::Anthropic, Operation::CountTokens), request).await
}
