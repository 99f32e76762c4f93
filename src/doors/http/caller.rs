//! Nobody comes further who is not known.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::door::Door;
use super::guard;
use super::problem::Problem;
use super::server::Ends;
use crate::doors::caller::principal;

/// Puts the caller's `Principal` into the request, or answers 401.
pub(super) async fn identify(
    State(door): State<Arc<Door>>,
    Extension(ends): Extension<Ends>,
    mut request: Request,
    next: Next,
) -> Response {
    match principal(&door.parts.access, ends.peer, ends.certificate.as_deref(), request.headers()) {
        Some(principal) => {
            request.extensions_mut().insert(principal);
            next.run(request).await
        }
        None => {
            door.parts.metrics.denied.inc();
            let problem =
                Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "this door needs to know who is calling")
                    .hint("send `authorization: Bearer KEY`; a browser asks for the identity's name and its key");
            let mut response = guard::problem_for(request.uri().path(), problem);
            let challenges = [r#"Bearer realm="forebay""#, r#"Basic realm="forebay", charset="UTF-8""#];
            for challenge in challenges {
                response.headers_mut().append(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            }
            response.into_response()
        }
    }
}
