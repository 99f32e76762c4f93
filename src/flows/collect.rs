//! The receiving side of a fleet: message, batch, one transaction, acknowledgement, in this order.
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

use crate::base::{Backoff, Clock, Name};
use crate::inbox::{Applied, Inbox, IncomingBatch, IncomingGap, IncomingRow, VerifiedBatch};
use crate::store::{self, Schema, Tx, Writer};
use crate::uplink::{AckToken, Delivery, Receiver};

use super::address::Address;
use super::batch::{Batch, Decoded, Gap, Limits, Row};

/// Messages that cannot be read, newest last, for a person to look at.
pub const COLLECT_SCHEMA: Schema = Schema {
    room: "collect",
    steps: &["CREATE TABLE collect_rejected (
        id INTEGER PRIMARY KEY,
        wall_ms INTEGER NOT NULL,
        topic TEXT NOT NULL,
        reason TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        payload BLOB NOT NULL
    ) STRICT"],
};

/// Bounds of the receiving flow.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CollectConfig {
    /// Transactions that may be on their way to the disk at once.
    pub commits: usize,
    /// Rejected messages that are kept; the oldest goes first.
    pub rejected_messages: u32,
    /// Bytes kept of each.
    pub rejected_bytes: usize,
    /// First wait after a loss of the link or of the disk; the next ones double, with jitter.
    pub retry_first_ms: u64,
    /// Longest such wait.
    pub retry_most_ms: u64,
}

impl Default for CollectConfig {
    fn default() -> Self {
        Self {
            commits: 16,
            rejected_messages: 1000,
            rejected_bytes: 64 * 1024,
            retry_first_ms: 500,
            retry_most_ms: 30_000,
        }
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
        registry.register("failures", "Losses of the link or of the disk", self.failures.clone());
    }
}

/// What one committed message did.
enum Effect {
    Stored {
        rows: u64,
        duplicates: u64,
    },
    Rejected,
    /// Nothing: it would begin a series beyond the inbox's limit.
    Refused,
}

type Committing = BoxFuture<'static, (AckToken, Result<Effect, store::Error>)>;

enum Ended {
    Stopped,
    Failed(String),
}

/// The flow's parts.
pub struct Collect<R> {
    receiver: Receiver,
    writer: Writer,
    inbox: Inbox,
    clock: Arc<dyn Clock>,
    config: CollectConfig,
    rng: R,
    metrics: CollectMetrics,
}

impl<R: Rng + Send> Collect<R> {
    /// `rng` spreads the waits.
    pub fn new(
        receiver: Receiver,
        writer: Writer,
        inbox: Inbox,
        clock: Arc<dyn Clock>,
        config: CollectConfig,
        rng: R,
    ) -> Self {
        Self { receiver, writer, inbox, clock, config, rng, metrics: CollectMetrics::default() }
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
                Some((token, outcome)) = commits.next(), if !commits.is_empty() => match outcome {
                    Ok(effect) => {
                        backoff.reset();
                        self.count(&effect);
                        if !matches!(effect, Effect::Refused) {
                            self.receiver.acknowledge(token);
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

    fn count(&self, effect: &Effect) {
        match effect {
            Effect::Stored { rows, duplicates } => {
                self.metrics.batches.inc();
                self.metrics.rows.inc_by(*rows);
                self.metrics.duplicates.inc_by(*duplicates);
            }
            Effect::Rejected => drop(self.metrics.rejected.inc()),
            Effect::Refused => {
                tracing::error!("a batch begins one series too many and stays at the broker: raise inbox.max_series");
                self.metrics.refused.inc();
            }
        }
    }

    /// The commit of one message, whatever it holds.
    fn keep(&self, delivery: Delivery) -> Committing {
        let Delivery { topic, payload, token } = delivery;
        self.metrics.messages.inc();
        let writer = self.writer.clone();
        let bytes = payload.len();
        match self.read(&topic, &payload) {
            Ok((gateway, batch)) => {
                let inbox = self.inbox.clone();
                let commit = async move {
                    let applied = writer.commit(bytes, move |tx| inbox.apply(tx, &gateway, &batch)).await;
                    let effect = |applied| match applied {
                        Applied::Stored { new_rows: rows, duplicates, .. } => Effect::Stored { rows, duplicates },
                        Applied::TooManySeries => Effect::Refused,
                    };
                    (token, applied.map(effect))
                };
                Box::pin(commit)
            }
            Err(reason) => {
                tracing::warn!(topic, reason, "put a message aside");
                let wall_ms = self.clock.wall_ms();
                let (most, keep) = (self.config.rejected_messages, self.config.rejected_bytes);
                let commit = async move {
                    let work = move |tx: &Tx<'_>| reject(tx, wall_ms, &topic, &reason, &payload, (most, keep));
                    (token, writer.commit(bytes, work).await.map(|()| Effect::Rejected))
                };
                Box::pin(commit)
            }
        }
    }

    /// The batch that a message holds, if its topic may carry it, and whose it is.
    fn read(&self, topic: &str, payload: &Bytes) -> Result<(Name, VerifiedBatch), String> {
        let address = Address::parse(topic).ok_or("the topic is not fleet/v1/TENANT/GATEWAY/CLASS/STREAM")?;
        let config = self.inbox.config();
        let limits = Limits { rows: config.max_batch_rows, gaps: config.max_batch_gaps, ..Limits::default() };
        let decoded = Batch::decode(payload, &limits).map_err(|error| error.to_string())?;
        // The broker's rules say who may publish where; a batch must not speak for another gateway than its topic does.
        if !address.is_of(&decoded.batch) {
            return Err("the batch is of another gateway or stream than its topic".to_owned());
        }
        let Decoded { batch, digest, row_bytes } = decoded;
        let Batch { gateway, epoch, stream, class, first, last, rows, gaps } = batch;
        let (class, rows) = (class.to_string(), rows.into_iter().map(incoming_row).collect());
        let gaps = gaps.into_iter().map(incoming_gap).collect();
        let incoming = IncomingBatch { epoch, class, stream, first, last, rows, gaps, digest };
        let verified = incoming.verify(&row_bytes, config).map_err(|error| error.to_string())?;
        Ok((gateway, verified))
    }
}

fn incoming_row(row: Row) -> IncomingRow {
    IncomingRow {
        seq: row.seq,
        wall_ms: row.stamp.wall_ms,
        boot_ms: row.stamp.boot_ms,
        clock_state: row.stamp.state.as_str(),
        body: row.body.into(),
    }
}

fn incoming_gap(gap: Gap) -> IncomingGap {
    IncomingGap { first: gap.first, last: gap.last, count: gap.count, reason: gap.reason, wall_ms: gap.wall_ms }
}

fn reject(
    tx: &Tx<'_>,
    wall_ms: i64,
    topic: &str,
    reason: &str,
    payload: &Bytes,
    (most, keep): (u32, usize),
) -> Result<(), store::Error> {
    let size_bytes = i64::try_from(payload.len()).unwrap_or(i64::MAX);
    let kept = &payload[..payload.len().min(keep)];
    tx.execute(
        "INSERT INTO collect_rejected (wall_ms, topic, reason, size_bytes, payload) VALUES (?1, ?2, ?3, ?4, ?5)",
        (wall_ms, topic, reason, size_bytes, kept),
    )?;
    tx.execute("DELETE FROM collect_rejected WHERE id <= (SELECT max(id) FROM collect_rejected) - ?1", (most,))?;
    Ok(())
}
