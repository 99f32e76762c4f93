//! Google's interactions: one path that answers, and those of what is kept, which is nothing here.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{get, post};

use super::ask::{Wanted, ask, enter, request_id};
use super::{Llm, answer};
use crate::dialect::{Dialect, Failure, FailureKind, Operation};
use crate::doors::http::body::discard;

type Whole = State<Arc<Llm>>;

pub(super) fn routes() -> Router<Arc<Llm>> {
    Router::new()
        .route("/v1beta/interactions", post(interact))
        .route("/v1beta/interactions/{id}", get(kept).delete(kept))
        .route("/v1beta/interactions/{id}/cancel", post(kept))
}

async fn interact(State(llm): Whole, request: Request) -> Response {
    ask(&llm, Wanted::of(Dialect::Interactions, Operation::Chat), request).await
}

/// Whatever id it is: an interaction is over when its answer is.
async fn kept(State(llm): Whole, request: Request) -> Response {
    let id = request_id(&llm, &request);
    let entered = enter(&llm, &request);
    discard(request).await;
    match entered {
        Err(refused) => refused.response(&id, Dialect::Interactions),
        Ok(_) => {
            let message = "This gateway keeps no interactions: send the whole conversation as `input`.";
            answer::failed(&Failure::new(FailureKind::NotFound, message), &id, Dialect::Interactions)
        }
    }
}
