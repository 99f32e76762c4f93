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
use crate::flows::answer::{Knocking, Request as Question};

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
    let Wanted { dialect, operation, model, .. } = wanted;
    let name = id.to_str().unwrap_or("");
    let mut knock = llm.parts.answer.knock(Knocking { dialect, operation, model, id: name, arrived });
    let entered = known(llm, &request).and_then(|who| {
        knock.is_from(&who);
        Ok((who, place(llm)?))
    });
    let (who, place) = match entered {
        Ok(entered) => entered,
        Err(refused) => {
            knock.turned_away(&refused.0);
            discard(request).await;
            return refused.response(&id, dialect);
        }
    };
    let (head, body) = request.into_parts();
    let body = match body::read(body, &head.headers, &llm.config).await {
        Ok(body) => body,
        Err(failure) => {
            llm.parts.metrics.bodies.inc();
            knock.turned_away(&failure);
            return answer::failed(&failure, &id, dialect);
        }
    };
    knock.entered();
    let question = Question {
        dialect,
        operation,
        model,
        stream: wanted.stream,
        batch: wanted.batch,
        body: &body,
        who: &who,
        id: name,
        headers: &head.headers,
        arrived,
    };
    let answered = llm.parts.answer.answer(question).await;
    answer::told(llm, answered, &id, dialect, place)
}

/// Somebody who is known and has a place, for paths that only look something up.
pub(super) fn enter(llm: &Llm, request: &Request) -> Result<(Principal, OwnedSemaphorePermit), Refused> {
    let who = known(llm, request)?;
    Ok((who, place(llm)?))
}

/// Somebody who is known, at a host that is this one.
fn known(llm: &Llm, request: &Request) -> Result<Principal, Refused> {
    let local = request.extensions().get::<Ends>().map(|ends| ends.local);
    if let Err(strange) = site::screen(request, local, &llm.parts.hosts) {
        llm.parts.metrics.strange.inc();
        let message = format!("Failed to hear this request: {strange}.");
        return Err(Refused(Failure::new(FailureKind::Permission, message)));
    }
    caller::principal(&llm.parts.access, request).map_err(|denied| {
        llm.parts.metrics.denied.inc();
        Refused(caller::failure(denied))
    })
}

fn place(llm: &Llm) -> Result<OwnedSemaphorePermit, Refused> {
    Arc::clone(&llm.places).try_acquire_owned().map_err(|_| {
        llm.parts.metrics.overloaded.inc();
        Refused(Failure::new(FailureKind::Overloaded, "This gateway has as many requests as it takes; send it again."))
    })
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
