//! The receiving side of a fleet that publishes into a JetStream: messages in small batches, one transaction, then the
//! receipts and acknowledgements. Any number of these share one consumer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use rand::Rng;
use tokio_util::sync::CancellationToken;

use crate::base::Backoff;
use crate::uplink::{Lost, StreamAck, StreamDelivery, StreamReceiver};

use super::arrival::Arrival;
use super::collect::{CollectConfig, CollectMetrics};
use super::receive::{Confirming, Ended, Receiving, until_stopped};
use super::sink::{Effect, Sink};

/// How long a message that would begin a series too many stays away.
const REFUSED_FOR: Duration = Duration::from_secs(60);

type Committing = BoxFuture<'static, (Vec<Answer>, Result<Vec<Effect>, String>)>;

/// What is still to be said about one message.
struct Answer {
    /// Where its sender waits for a receipt.
    confirming: Option<Confirming>,
    ack: StreamAck,
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
    pub async fn run(self, stop: CancellationToken) {
        let Self { receiver, sink, batch, config, rng, metrics } = self;
        let collecting = Collecting { receiver, sink, batch, metrics: metrics.clone() };
        until_stopped(collecting, config, rng, metrics, stop).await;
    }
}

/// What serves a connection.
struct Collecting {
    receiver: StreamReceiver,
    sink: Arc<dyn Sink>,
    batch: StreamBatch,
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
                Some((answers, outcome)) = commits.next(), if !commits.is_empty() => match outcome {
                    Ok(effects) => {
                        backoff.reset();
                        self.settle(&answers, &effects);
                    }
                    Err(error) => {
                        // What is still on its way commits or not; either way it comes again.
                        let reason = format!("failed to commit a batch: {error}");
                        answers.iter().for_each(|answer| self.receiver.postpone(&answer.ack, Duration::ZERO));
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
}

impl Collecting {
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
        let (mut answers, mut arrivals) = (Vec::with_capacity(held.len()), Vec::with_capacity(held.len()));
        for StreamDelivery { topic, payload, answer_wanted, ack } in held.drain(..) {
            let arrival = Arrival::read(topic, payload, limits);
            let confirming = answer_wanted.then(|| Confirming::of(&arrival));
            arrivals.push(arrival);
            answers.push(Answer { confirming, ack });
        }
        let kept = self.sink.keep(arrivals);
        Box::pin(async move { (answers, kept.await) })
    }

    /// After the commit: the receipt to the sender, then the acknowledgement to the stream. Killed in between, the
    /// stream brings the message again, and the receipt is repeated.
    fn settle(&mut self, answers: &[Answer], effects: &[Effect]) {
        for (Answer { confirming, ack }, effect) in answers.iter().zip(effects) {
            self.metrics.count(*effect);
            if let Some((topic, receipt)) = confirming.as_ref().and_then(|confirming| confirming.receipt(*effect))
                && self.receiver.say(topic, &receipt)
            {
                self.metrics.receipts.inc();
            }
            match effect {
                Effect::Stored { .. } => self.receiver.acknowledge(ack),
                Effect::Rejected => self.receiver.terminate(ack),
                // Its sender keeps it and sends it again.
                Effect::Refused if confirming.is_some() => self.receiver.terminate(ack),
                Effect::Refused => self.receiver.postpone(ack, REFUSED_FOR),
            }
        }
    }

    /// Takes the outcomes that are still to come, and leaves the connection.
    async fn finish(&mut self, mut commits: FuturesUnordered<Committing>, reason: String) -> Ended {
        while let Some((answers, outcome)) = commits.next().await {
            match outcome {
                Ok(effects) => self.settle(&answers, &effects),
                Err(_) => answers.iter().for_each(|answer| self.receiver.postpone(&answer.ack, Duration::ZERO)),
            }
        }
        self.receiver.close().await;
        Ended::Failed(reason)
    }
}
