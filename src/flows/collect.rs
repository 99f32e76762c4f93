//! The receiving side of a fleet: message, batch, one transaction, receipt, acknowledgement, in this order.
//!
//! The effect of a row is exactly once: the inbox commits which rows it has in the transaction that holds them. What
//! cannot be read is put aside with its reason and acknowledged, since the broker would bring it for ever.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use rand::Rng;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::base::{Backoff, Digest};
use crate::uplink::{AckToken, Delivery, Receiver};

use super::address::Address;
use super::arrival::Arrival;
use super::receipt::{Receipt, Span, Verdict};
use super::sink::{Effect, Sink};

/// Bounds of the receiving flow.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CollectConfig {
    /// Transactions that may be on their way to the disk at once.
    pub commits: usize,
    /// First wait after a loss of the link or of the disk; the next ones double, with jitter.
    pub retry_first_ms: u64,
    /// Longest such wait.
    pub retry_most_ms: u64,
}

impl Default for CollectConfig {
    fn default() -> Self {
        Self { commits: 16, retry_first_ms: 500, retry_most_ms: 30_000 }
    }
}

/// What the flow counts; clones share it.
#[derive(Debug, Clone, Default)]
pub struct CollectMetrics {
    /// Messages taken from the broker, committed or not.
    pub messages: Counter,
    /// Batches committed, also those that brought nothing new.
    pub batches: Counter,
    /// Rows that were new.
    pub rows: Counter,
    /// Rows that had come before.
    pub duplicates: Counter,
    /// Messages put aside.
    pub rejected: Counter,
    /// Messages left to the broker, because they begin a series beyond the limit.
    pub refused: Counter,
    /// Receipts and refusals sent to gateways.
    pub receipts: Counter,
    /// Losses of the link or of the disk.
    pub failures: Counter,
}

impl CollectMetrics {
    /// Puts the counters into `registry`, as `collect_*`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("collect");
        registry.register("messages", "Messages taken from the broker", self.messages.clone());
        registry.register("batches", "Batches committed", self.batches.clone());
        registry.register("rows", "Rows that were new", self.rows.clone());
        registry.register("duplicate_rows", "Rows that had come before", self.duplicates.clone());
        registry.register("rejected_messages", "Messages that could not be read", self.rejected.clone());
        registry.register("refused_messages", "Messages beyond the limit of series", self.refused.clone());
        registry.register("receipts", "Receipts and refusals sent to gateways", self.receipts.clone());
        registry.register("failures", "Losses of the link or of the disk", self.failures.clone());
    }

    pub(super) fn count(&self, effect: Effect) {
        match effect {
            Effect::Stored { rows, duplicates } => {
                self.batches.inc();
                self.rows.inc_by(rows);
                self.duplicates.inc_by(duplicates);
            }
            Effect::Rejected => drop(self.rejected.inc()),
            Effect::Refused => {
                tracing::error!("a batch begins one series too many and stays at the broker: raise inbox.max_series");
                self.refused.inc();
            }
        }
    }
}

/// What to say to the sender of one message, once it is known what became of it.
struct Answer {
    /// `None` where no gateway can be behind the message.
    topic: Option<String>,
    digest: Digest,
    /// What it carries, or why nobody can tell.
    span: Result<Span, String>,
    token: AckToken,
    wanted: bool,
}

type Committing = BoxFuture<'static, (Answer, Result<Vec<Effect>, String>)>;

enum Ended {
    Stopped,
    Failed(String),
}

/// The flow's parts.
pub struct Collect<R> {
    receiver: Receiver,
    sink: Arc<dyn Sink>,
    config: CollectConfig,
    rng: R,
    metrics: CollectMetrics,
}

impl<R: Rng + Send> Collect<R> {
    /// `rng` spreads the waits.
    pub fn new(receiver: Receiver, sink: Arc<dyn Sink>, config: CollectConfig, rng: R) -> Self {
        Self { receiver, sink, config, rng, metrics: CollectMetrics::default() }
    }

    /// The counters.
    pub fn metrics(&self) -> &CollectMetrics {
        &self.metrics
    }

    /// Receives until `stop`; then commits and acknowledges what is in hand, and leaves the session to the broker.
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
        // In the order of arrival, which is the order that MQTT asks acknowledgements to have.
        let mut commits: FuturesOrdered<Committing> = FuturesOrdered::new();
        loop {
            let stopped = stop.is_cancelled();
            tokio::select! {
                biased;
                Some((answer, outcome)) = commits.next(), if !commits.is_empty() => match outcome {
                    Ok(effects) => {
                        backoff.reset();
                        for effect in effects {
                            self.metrics.count(effect);
                            self.answer(&answer, effect);
                        }
                    }
                    Err(error) => {
                        let reason = format!("failed to commit a batch: {error}");
                        self.receiver.disconnect(&reason);
                        return Ended::Failed(reason);
                    }
                },
                () = stop.cancelled(), if !stopped => {}
                delivery = self.receiver.next(), if !stopped && commits.len() < self.config.commits => match delivery {
                    Ok(delivery) => commits.push_back(self.keep(delivery)),
                    Err(lost) => return Ended::Failed(lost.reason),
                },
                else => return Ended::Stopped,
            }
        }
    }

    /// The commit of one message, whatever it holds.
    fn keep(&self, delivery: Delivery) -> Committing {
        let Delivery { topic, payload, answer_wanted, token } = delivery;
        self.metrics.messages.inc();
        let receipts = Address::parse(&topic).map(|address| Address::receipts(&address.tenant, &address.gateway));
        let digest = Digest::of(&payload);
        let arrival = Arrival::read(topic, payload, self.sink.limits());
        let span = match &arrival {
            Arrival::Batch { address, batch, .. } => Ok(Span::of_verified(address, batch)),
            Arrival::Unreadable { reason, .. } => Err(reason.clone()),
        };
        let answer = Answer { topic: receipts, digest, span, token, wanted: answer_wanted };
        let kept = self.sink.keep(vec![arrival]);
        Box::pin(async move { (answer, kept.await) })
    }

    /// After the commit: the receipt to the sender, then the acknowledgement to the broker. Killed in between, the
    /// broker brings the message again, and the receipt is repeated.
    fn answer(&mut self, answer: &Answer, effect: Effect) {
        let verdict = match (effect, &answer.span) {
            (Effect::Stored { .. }, Ok(span)) => Verdict::Kept(span.clone()),
            (Effect::Refused, _) => Verdict::Refused { reason: "it keeps no more series".to_owned() },
            (_, Err(reason)) => Verdict::Refused { reason: reason.clone() },
            (Effect::Rejected, Ok(_)) => Verdict::Refused { reason: "it was put aside".to_owned() },
        };
        if let Some(topic) = &answer.topic {
            let receipt = Receipt { digest: answer.digest, verdict };
            if self.receiver.say(topic, &Bytes::from(receipt.encode())) {
                self.metrics.receipts.inc();
            }
        }
        // What is refused stays at the broker, unless its sender is known to keep it.
        if effect != Effect::Refused || answer.wanted {
            self.receiver.acknowledge(answer.token);
        }
    }
}
