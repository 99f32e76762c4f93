//! What arrived, into PostgreSQL.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::base::Clock;
use crate::inbox::{self, Incoming, Reject, Warehouse};

use super::arrival::Arrival;
use super::sink::{Effect, Rejects, Sink};

/// The inbox in PostgreSQL.
pub struct WarehouseSink {
    warehouse: Arc<Warehouse>,
    limits: inbox::Config,
    clock: Arc<dyn Clock>,
    rejects: Rejects,
}

impl WarehouseSink {
    /// `limits` says what a batch may hold.
    pub fn new(warehouse: Arc<Warehouse>, limits: inbox::Config, clock: Arc<dyn Clock>, rejects: Rejects) -> Self {
        Self { warehouse, limits, clock, rejects }
    }
}

impl Sink for WarehouseSink {
    fn keep(&self, arrivals: Vec<Arrival>) -> BoxFuture<'static, Result<Vec<Effect>, String>> {
        let (warehouse, rejects, wall_ms) = (Arc::clone(&self.warehouse), self.rejects, self.clock.wall_ms());
        Box::pin(async move {
            let (mut batches, mut unreadable, mut is_batch) = (Vec::new(), Vec::new(), Vec::new());
            for arrival in arrivals {
                is_batch.push(matches!(arrival, Arrival::Batch { .. }));
                match arrival {
                    Arrival::Batch { address, batch, .. } => {
                        batches.push(Incoming { tenant: address.tenant, gateway: address.gateway, batch });
                    }
                    Arrival::Unreadable { topic, reason, payload } => unreadable.push(Reject {
                        wall_ms,
                        topic,
                        reason,
                        size_bytes: payload.len(),
                        payload: payload[..payload.len().min(rejects.bytes)].to_vec(),
                        most: rejects.messages,
                    }),
                }
            }
            let applied = warehouse.keep(&batches, &unreadable).await.map_err(|error| error.to_string())?;
            let mut applied = applied.into_iter();
            let effect = |batch: bool| if batch { applied.next().map(Effect::from) } else { Some(Effect::Rejected) };
            Ok(is_batch.into_iter().filter_map(effect).collect())
        })
    }

    fn limits(&self) -> &inbox::Config {
        &self.limits
    }
}
