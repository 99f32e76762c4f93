//! The receiving side of a fleet: message, batch, one transaction, receipt, acknowledgement, in this order.
//!
//! The effect of a row is exactly once: the inbox commits which rows it has in the transaction that holds them. What
//! cannot be read is put aside with its reason and acknowledged, since the broker would bring it for ever.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use rand::Rng;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::base::Backoff;
use crate::uplink::{AckToken, Delivery, Lost, Receiver};

use super::arrival::Arrival;
use super::receive::{Confirming, Ended, Receiving, until_stopped};
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

type Committing = BoxFuture<'static, (Answer, Result<Vec<Effect>, String>)>;

/// What is still to be said about one message.
struct Answer {
    confirming: Confirming,
    token: AckToken,
    wanted: bool,
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
    pub async fn run(self, stop: CancellationToken) {
        let Self { receiver, sink, config, rng, metrics } = self;
        let collecting = Collecting { receiver, sink, commits: config.commits, metrics: metrics.clone() };
        until_stopped(collecting, config, rng, metrics, stop).await;
    }
}

/// What serves a connection.
struct Collecting {
    receiver: Receiver,
    sink: Arc<dyn Sink>,
    commits: usize,
    metrics: CollectMetrics,
}

impl Receiving for Collecting {
    async fn connect(&mut self) -> Result<(), Lost> {
        self.receiver.connect().await
    }

    async fn close(&mut self) {
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
                delivery = self.receiver.next(), if !stopped && commits.len() < self.commits => match delivery {
                    Ok(delivery) => commits.push_back(self.keep(delivery)),
                    Err(lost) => return Ended::Failed(lost.reason),
                },
                else => return Ended::Stopped,
            }
        }
    }
}

impl Collecting {
    /// The commit of one message, whatever it holds.
    fn keep(&self, delivery: Delivery) -> Committing {
        let Delivery { topic, payload, answer_wanted: wanted, token } = delivery;
        self.metrics.messages.inc();
        let arrival = Arrival::read(topic, payload, self.sink.limits());
        let answer = Answer { confirming: Confirming::of(&arrival), token, wanted };
        let kept = self.sink.keep(vec![arrival]);
        Box::pin(async move { (answer, kept.await) })
    }

    /// After the commit: the receipt to the sender, then the acknowledgement to the broker. Killed in between, the
    /// broker brings the message again, and the receipt is repeated.
    fn answer(&mut self, answer: &Answer, effect: Effect) {
        if let Some((topic, receipt)) = answer.confirming.receipt(effect)
            && self.receiver.say(topic, &receipt)
        {
            self.metrics.receipts.inc();
        }
        // What is refused stays at the broker, unless its sender is known to keep it.
        if effect != Effect::Refused || answer.wanted {
            self.receiver.acknowledge(answer.token);
        }
    }
}
