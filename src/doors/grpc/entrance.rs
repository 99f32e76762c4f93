//! What every call passes before its handler sees it: who is calling, and whether there is room.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::{BoxFuture, FutureExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::server::NamedService;

pub(super) use super::connection::Peer;

use super::connection::InProgress;
use crate::access::{Access, Principal};
use crate::doors::caller::principal;

/// For probes, which have no key, as over HTTP.
const OPEN: [&str; 4] = [
    "/grpc.health.v1.Health/Check",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
    "/inference.GRPCInferenceService/ServerMetadata",
];

/// A call's place among those in progress. A handler that goes on after its answer has begun keeps a clone of it.
#[derive(Clone)]
pub(super) struct Place(
    #[allow(dead_code, reason = "held, and given back when the last clone goes")]
    Arc<(OwnedSemaphorePermit, Option<InProgress>)>,
);

/// Lets calls in to `inner`.
#[derive(Clone)]
pub(super) struct Entrance<S> {
    pub(super) inner: S,
    pub(super) access: Arc<Access>,
    pub(super) places: Arc<Semaphore>,
}

impl<S> Entrance<S> {
    fn admit<B>(&self, request: &mut Request<B>) -> Result<Place, Status> {
        if !OPEN.contains(&request.uri().path()) {
            let who = self.caller(request).ok_or_else(|| {
                Status::unauthenticated(
                    "this door needs to know who is calling; send `authorization: Bearer KEY` as metadata",
                )
            })?;
            request.extensions_mut().insert(who);
        }
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            Status::unavailable("too many calls in progress; try again, `calls_max` in [grpc] is the bound")
        })?;
        let calls = request.extensions().get::<Peer>().map(Peer::calls);
        let place = Place(Arc::new((place, calls)));
        answer_as_asked(request.headers_mut());
        request.extensions_mut().insert(place.clone());
        Ok(place)
    }

    fn caller<B>(&self, request: &Request<B>) -> Option<Principal> {
        let peer = request.extensions().get::<Peer>()?;
        principal(&self.access, peer.address, peer.certificate.as_deref(), request.headers())
    }
}

/// Clients say of themselves that they take compressed answers, always; only one that compresses its request wants them.
fn answer_as_asked(headers: &mut HeaderMap) {
    const ACCEPTS: &str = "grpc-accept-encoding";
    match headers.get("grpc-encoding").cloned() {
        Some(encoding) if encoding != "identity" => drop(headers.insert(ACCEPTS, encoding)),
        _ => drop(headers.remove(ACCEPTS)),
    }
}

impl<S, B> Service<Request<B>> for Entrance<S>
where
    S: Service<Request<B>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.admit(&mut request) {
            Ok(place) => {
                let answer = self.inner.call(request);
                async move {
                    let _place = place;
                    answer.await
                }
                .boxed()
            }
            Err(status) => async move { Ok(status.into_http()) }.boxed(),
        }
    }
}

impl<S: NamedService> NamedService for Entrance<S> {
    const NAME: &'static str = S::NAME;
}
