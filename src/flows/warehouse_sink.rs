//! What arrived, into PostgreSQL.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::base::Clock;
use crate::inbox::{self, Incoming, Reject, Warehouse, WarehouseError};

use super::arrival::Arrival;
use super::sink::{Effect, Rejects, Sink};

/// The inbox in PostgreSQL.
#[derive(Clone)]
pub struct WarehouseSink {
    warehouse: Arc<Warehouse>,
    limits: Arc<inbox::Config>,
    clock: Arc<dyn Clock>,
    rejects: Rejects,
}

impl WarehouseSink {
    /// `limits` says what a batch may hold.
    pub fn new(warehouse: Arc<Warehouse>, limits: inbox::Config, clock: Arc<dyn Clock>, rejects: Rejects) -> Self {
        Self { warehouse, limits: Arc::new(limits), clock, rejects }
    }

    /// All of it in one transaction.
    async fn keep_together(&self, arrivals: &[Arrival]) -> Result<Vec<Effect>, WarehouseError> {
        let (mut batches, mut unreadable) = (Vec::new(), Vec::new());
        for arrival in arrivals {
            match arrival {
                Arrival::Batch { address, batch, .. } => {
                    batches.push(Incoming { tenant: &address.tenant, gateway: &address.gateway, batch });
                }
                Arrival::Unreadable { topic, reason, payload } => unreadable.push(self.reject(topic, reason, payload)),
            }
        }
        let mut applied = self.warehouse.keep(&batches, &unreadable).await?.into_iter();
        let effect = |arrival: &Arrival| match arrival {
            Arrival::Batch { .. } => applied.next().map(Effect::from),
            Arrival::Unreadable { .. } => Some(Effect::Rejected),
        };
        Ok(arrivals.iter().filter_map(effect).collect())
    }

    /// One by one, so that what the database refuses for ever does not hold up what came with it.
    async fn keep_apart(&self, arrivals: &[Arrival]) -> Result<Vec<Effect>, WarehouseError> {
        let mut effects = Vec::with_capacity(arrivals.len());
        for arrival in arrivals {
            match (self.keep_together(std::slice::from_ref(arrival)).await, arrival) {
                (Ok(effect), _) => effects.extend(effect),
                (Err(error), Arrival::Batch { address, payload, .. }) if error.is_about_the_data() => {
                    let (topic, reason) = (address.topic(), error.to_string());
                    tracing::warn!(topic, reason, "put a message aside");
                    self.warehouse.keep(&[], &[self.reject(&topic, &reason, payload)]).await?;
                    effects.push(Effect::Rejected);
                }
                (Err(error), _) => return Err(error),
            }
        }
        Ok(effects)
    }

    fn reject(&self, topic: &str, reason: &str, payload: &Bytes) -> Reject {
        Reject {
            wall_ms: self.clock.wall_ms(),
            topic: topic.to_owned(),
            reason: reason.to_owned(),
            size_bytes: payload.len(),
            payload: payload[..payload.len().min(self.rejects.bytes)].to_vec(),
            most: self.rejects.messages,
        }
    }
}

impl Sink for WarehouseSink {
    fn keep(&self, arrivals: Vec<Arrival>) -> BoxFuture<'static, Result<Vec<Effect>, String>> {
        let sink = self.clone();
        Box::pin(async move {
            let kept = match sink.keep_together(&arrivals).await {
                Err(error) if error.is_about_the_data() => sink.keep_apart(&arrivals).await,
                kept => kept,
            };
            kept.map_err(|error| error.to_string())
        })
    }

    fn limits(&self) -> &inbox::Config {
        &self.limits
    }
}
