//! The receiving side of a fleet that publishes into a JetStream: messages in small batches, one transaction, then the
//! acknowledgements. Any number of these share one consumer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use rand::Rng;
use tokio_util::sync::CancellationToken;

use crate::base::Backoff;
use crate::uplink::{StreamAck, StreamDelivery, StreamReceiver};

use super::arrival::Arrival;
use super::collect::{CollectConfig, CollectMetrics};
use super::sink::{Effect, Sink};

/// How long a message that would begin a series too many stays away.
const REFUSED_FOR: Duration = Duration::from_secs(60);

type Committing = BoxFuture<'static, (Vec<StreamAck>, Result<Vec<Effect>, String>)>;

enum Ended {
    Stopped,
    Failed(String),
}

/// Bounds of one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamBatch {
    /// Messages.
    pub messages: usize,
    /// Bytes of them.
    pub bytes: usize,
    /// Transactions on their way at once.
    pub commits: usize,
}

impl Default for StreamBatch {
    fn default() -> Self {
        Self { messages: 64, bytes: 2 << 20, commits: 2 }
    }
}

/// The flow's parts.
pub struct CollectStream<R> {
    receiver: StreamReceiver,
    sink: Arc<dyn Sink>,
    batch: StreamBatch,
    config: CollectConfig,
    rng: R,
    metrics: CollectMetrics,
}

impl<R: Rng + Send> CollectStream<R> {
    /// `rng` spreads the waits.
    pub fn new(
        receiver: StreamReceiver,
        sink: Arc<dyn Sink>,
        batch: StreamBatch,
        config: CollectConfig,
        rng: R,
    ) -> Self {
        Self { receiver, sink, batch, config, rng, metrics: CollectMetrics::default() }
    }

    /// The counters.
    pub fn metrics(&self) -> &CollectMetrics {
        &self.metrics
    }

    /// Receives until `stop`; then commits and acknowledges what is in hand.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new(
            Duration::from_millis(self.config.retry_first_ms),
            Duration::from_millis(self.config.retry_most_ms),
        );
        loop {
            let connected = tokio::select! {
                () = stop.cancelled() => break,
                connected = self.receiver.connect() => connected,
            };
            let ended = match connected {
                Ok(()) => self.serve(&stop, &mut backoff).await,
                Err(lost) => Ended::Failed(lost.reason),
            };
            let Ended::Failed(reason) = ended else { break };
            self.metrics.failures.inc();
            let wait = backoff.next_wait(&mut self.rng);
            tracing::warn!(reason, retry_ms = wait.as_millis(), "not receiving");
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.receiver.close().await;
    }

    async fn serve(&mut self, stop: &CancellationToken, backoff: &mut Backoff) -> Ended {
        let mut commits: FuturesUnordered<Committing> = FuturesUnordered::new();
        let mut held: VecDeque<StreamDelivery> = VecDeque::new();
        loop {
            let stopped = stop.is_cancelled();
            let room = commits.len() < self.batch.commits.max(1);
            if room && !held.is_empty() {
                commits.push(self.keep(&mut held));
                continue;
            }
            tokio::select! {
                biased;
                Some((acks, outcome)) = commits.next(), if !commits.is_empty() => match outcome {
                    Ok(effects) => {
                        backoff.reset();
                        self.settle(&acks, &effects);
                    }
                    Err(error) => {
                        // What is still on its way commits or not; either way it comes again.
                        let reason = format!("failed to commit a batch: {error}");
                        acks.iter().for_each(|ack| self.receiver.postpone(ack, Duration::ZERO));
                        held.iter().for_each(|delivery| self.receiver.postpone(&delivery.ack, Duration::ZERO));
                        return self.finish(commits, reason).await;
                    }
                },
                () = stop.cancelled(), if !stopped => {}
                delivery = self.receiver.next(), if !stopped && room => match delivery {
                    Ok(delivery) => self.take(delivery, &mut held),
                    Err(lost) => return Ended::Failed(lost.reason),
                },
                else => return Ended::Stopped,
            }
        }
    }

    /// The message, and what else is here already: together they are one transaction.
    fn take(&mut self, delivery: StreamDelivery, held: &mut VecDeque<StreamDelivery>) {
        let mut bytes = delivery.payload.len();
        held.push_back(delivery);
        while held.len() < self.batch.messages
            && bytes < self.batch.bytes
            && let Some(delivery) = self.receiver.ready()
        {
            bytes += delivery.payload.len();
            held.push_back(delivery);
        }
    }

    fn keep(&self, held: &mut VecDeque<StreamDelivery>) -> Committing {
        self.metrics.messages.inc_by(held.len() as u64);
        let limits = self.sink.limits();
        let (mut acks, mut arrivals) = (Vec::with_capacity(held.len()), Vec::with_capacity(held.len()));
        for StreamDelivery { topic, payload, ack } in held.drain(..) {
            arrivals.push(Arrival::read(topic, payload, limits));
            acks.push(ack);
        }
        let kept = self.sink.keep(arrivals);
        Box::pin(async move { (acks, kept.await) })
    }

    fn settle(&mut self, acks: &[StreamAck], effects: &[Effect]) {
        for (ack, effect) in acks.iter().zip(effects) {
            self.metrics.count(*effect);
            match effect {
                Effect::Stored { .. } => self.receiver.acknowledge(ack),
                Effect::Rejected => self.receiver.terminate(ack),
                Effect::Refused => self.receiver.postpone(ack, REFUSED_FOR),
            }
        }
    }

    /// Takes the outcomes that are still to come, and leaves the connection.
    async fn finish(&mut self, mut commits: FuturesUnordered<Committing>, reason: String) -> Ended {
        while let Some((acks, outcome)) = commits.next().await {
            match outcome {
                Ok(effects) => self.settle(&acks, &effects),
                Err(_) => acks.iter().for_each(|ack| self.receiver.postpone(ack, Duration::ZERO)),
            }
        }
        self.receiver.close().await;
        Ended::Failed(reason)
    }
}
