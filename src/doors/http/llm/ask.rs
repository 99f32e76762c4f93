//! One question over HTTP, from the connection to the response.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::HeaderValue;
use axum::response::Response;
use tokio::sync::OwnedSemaphorePermit;

use super::{Llm, answer, body, caller};
use crate::access::Principal;
use crate::dialect::{Dialect, Failure, FailureKind, Operation};
use crate::doors::http::body::discard;
use crate::doors::http::server::Ends;
use crate::doors::http::site;
use crate::flows::answer::Request as Question;

/// What a path asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) dialect: Dialect,
    pub(super) operation: Operation,
    /// Where the path has it.
    pub(super) model: Option<&'a str>,
    /// Likewise.
    pub(super) stream: Option<bool>,
    pub(super) batch: bool,
}

impl Wanted<'_> {
    /// What a path without more in it asks for.
    pub(super) fn of(dialect: Dialect, operation: Operation) -> Self {
        Self { dialect, operation, model: None, stream: None, batch: false }
    }
}

/// Asks.
pub(super) async fn ask(llm: &Arc<Llm>, wanted: Wanted<'_>, request: Request) -> Response {
    let arrived = llm.parts.clock.since_boot();
    let id = request_id(llm, &request);
    let dialect = wanted.dialect;
    let (who, place) = match enter(llm, &request) {
        Ok(entered) => entered,
        Err(refused) => {
            discard(request).await;
            return refused.response(&id, dialect);
        }
    };
    let (head, body) = request.into_parts();
    let body = match body::read(body, &head.headers, &llm.config).await {
        Ok(body) => body,
        Err(failure) => {
            llm.parts.metrics.bodies.inc();
            return answer::failed(&failure, &id, dialect);
        }
    };
    let question = Question {
        dialect,
        operation: wanted.operation,
        model: wanted.model,
        stream: wanted.stream,
        batch: wanted.batch,
        body: &body,
        who: &who,
        id: id.to_str().unwrap_or(""),
        headers: &head.headers,
        arrived,
    };
    let answered = llm.parts.answer.answer(question).await;
    answer::told(llm, answered, &id, dialect, place)
}

/// Somebody who is known and has a place, for paths that only look something up.
pub(super) fn enter(llm: &Llm, request: &Request) -> Result<(Principal, OwnedSemaphorePermit), Refused> {
    let local = request.extensions().get::<Ends>().map(|ends| ends.local);
    if let Err(strange) = site::screen(request, local, &llm.parts.hosts) {
        llm.parts.metrics.strange.inc();
        let message = format!("Failed to hear this request: {strange}.");
        return Err(Refused(Failure::new(FailureKind::Permission, message)));
    }
    let who = caller::principal(&llm.parts.access, request).map_err(|denied| {
        llm.parts.metrics.denied.inc();
        Refused(caller::failure(denied))
    })?;
    let place = Arc::clone(&llm.places).try_acquire_owned().map_err(|_| {
        llm.parts.metrics.overloaded.inc();
        Refused(Failure::new(FailureKind::Overloaded, "This gateway has as many requests as it takes; send it again."))
    })?;
    Ok((who, place))
}

/// Why somebody comes no further.
pub(super) struct Refused(Failure);

impl Refused {
    pub(super) fn response(&self, id: &HeaderValue, dialect: Dialect) -> Response {
        let mut response = answer::failed(&self.0, id, dialect);
        if self.0.kind == FailureKind::Overloaded {
            response.headers_mut().insert("retry-after", HeaderValue::from(1));
        }
        response
    }
}

/// The client's own id, or a new one.
pub(super) fn request_id(llm: &Llm, request: &Request) -> HeaderValue {
    site::request_id(request.headers()).unwrap_or_else(|| {
        HeaderValue::from_str(&(llm.parts.request_id)()).unwrap_or(HeaderValue::from_static("unnamed"))
    })
}
