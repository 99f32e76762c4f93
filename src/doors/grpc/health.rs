//! The health service that Kubernetes, Envoy and load balancers ask: `grpc.health.v1.Health`.
//!
//! Services: the empty name and `inference.GRPCInferenceService` are the gateway's readiness; any other is taken for a
//! model, `name` or `name/version`, and says whether that one serves.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, stream};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService as _;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::entrance::Place;
use super::service::Oip;
use super::wire::grpc_inference_service_server::GrpcInferenceServiceServer;
use crate::flows::models::ModelView;
use crate::flows::query::Query;

/// Between two looks for a watcher.
const LOOK: Duration = Duration::from_secs(1);

/// The service.
pub(super) struct Probe {
    query: Arc<Query>,
    stop: CancellationToken,
}

impl Probe {
    /// Watchers are let go at `stop`.
    pub(super) fn new(query: Arc<Query>, stop: CancellationToken) -> Self {
        Self { query, stop }
    }
}

fn state(query: &Query, service: &str) -> ServingStatus {
    let of = |serves| if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
    if service.is_empty() || service == GrpcInferenceServiceServer::<Oip>::NAME {
        return of(query.health().ready);
    }
    let (name, version) = match service.rsplit_once('/') {
        Some((name, version)) => match version.parse::<u32>() {
            Ok(version) => (name, Some(version)),
            Err(_) => return ServingStatus::ServiceUnknown,
        },
        None => (service, None),
    };
    let models = query.models();
    let is_asked = |model: &&ModelView| model.name == name && version.is_none_or(|version| model.version == version);
    let mut asked = models.iter().filter(is_asked).peekable();
    if asked.peek().is_none() { ServingStatus::ServiceUnknown } else { of(asked.any(|model| model.serving)) }
}

struct Watcher {
    query: Arc<Query>,
    service: String,
    said: Option<ServingStatus>,
    ticks: Interval,
    stop: CancellationToken,
    _place: Option<Place>,
}

#[tonic::async_trait]
impl Health for Probe {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        match state(&self.query, &service) {
            ServingStatus::ServiceUnknown => Err(Status::not_found(format!(
                "{service:?} is neither a service nor a model; send \"\", \"inference.GRPCInferenceService\" or a model's name"
            ))),
            status => Ok(Response::new(HealthCheckResponse { status: status.into() })),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// What is unknown now may be loaded later: the watcher is told so and stays.
    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let place = request.extensions().get::<Place>().cloned();
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let watcher = Watcher {
            query: Arc::clone(&self.query),
            service: request.into_inner().service,
            said: None,
            ticks,
            stop: self.stop.clone(),
            _place: place,
        };
        let news = stream::unfold(watcher, async |mut watcher| {
            loop {
                tokio::select! {
                    () = watcher.stop.cancelled() => return None,
                    _ = watcher.ticks.tick() => {}
                }
                let now = state(&watcher.query, &watcher.service);
                if watcher.said != Some(now) {
                    watcher.said = Some(now);
                    return Some((Ok(HealthCheckResponse { status: now.into() }), watcher));
                }
            }
        });
        Ok(Response::new(Box::pin(news)))
    }
}
