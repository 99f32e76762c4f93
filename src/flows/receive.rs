//! What every receiving flow does, whatever it receives from: connect, serve, wait after a loss, begin again; and after
//! a commit say so to whoever sent the message.

use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use tokio_util::sync::CancellationToken;

use crate::base::{Backoff, Digest};
use crate::uplink::Lost;

use super::address::Address;
use super::arrival::Arrival;
use super::collect::{CollectConfig, CollectMetrics};
use super::receipt::{Receipt, Span, Verdict};
use super::sink::Effect;

/// Why nothing is being received.
pub(super) enum Ended {
    Stopped,
    Failed(String),
}

/// A flow over connections that end.
pub(super) trait Receiving: Send {
    /// Opens the connection if it is not open.
    fn connect(&mut self) -> impl Future<Output = Result<(), Lost>> + Send;

    /// Receives over this connection until it ends or `stop`. What is committed resets `backoff`.
    fn serve(&mut self, stop: &CancellationToken, backoff: &mut Backoff) -> impl Future<Output = Ended> + Send;

    /// Ends the connection in good order, if there is one.
    fn close(&mut self) -> impl Future<Output = ()> + Send;
}

/// Receives until `stop`.
pub(super) async fn until_stopped(
    mut receiving: impl Receiving,
    config: CollectConfig,
    mut rng: impl Rng + Send,
    metrics: CollectMetrics,
    stop: CancellationToken,
) {
    let mut backoff =
        Backoff::new(Duration::from_millis(config.retry_first_ms), Duration::from_millis(config.retry_most_ms));
    loop {
        let connected = tokio::select! {
            () = stop.cancelled() => break,
            connected = receiving.connect() => connected,
        };
        let ended = match connected {
            Ok(()) => receiving.serve(&stop, &mut backoff).await,
            Err(lost) => Ended::Failed(lost.reason),
        };
        let Ended::Failed(reason) = ended else { break };
        metrics.failures.inc();
        let wait = backoff.next_wait(&mut rng);
        tracing::warn!(reason, retry_ms = wait.as_millis(), "not receiving");
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(wait) => {}
        }
    }
    receiving.close().await;
}

/// What to say to the sender of one message, once it is known what became of it.
#[derive(Debug)]
pub(super) struct Confirming {
    /// Where; `None` if no gateway can be behind the message.
    topic: Option<String>,
    digest: Digest,
    /// What it carries, or why nobody can tell.
    span: Result<Span, String>,
}

impl Confirming {
    /// Of the message that `arrival` was read from.
    pub(super) fn of(arrival: &Arrival) -> Self {
        let (topic, payload, span) = match arrival {
            Arrival::Batch { address, batch, payload } => (
                Some(Address::receipts(&address.tenant, &address.gateway)),
                payload,
                Ok(Span::of_verified(address, batch)),
            ),
            Arrival::Unreadable { topic, reason, payload } => {
                let receipts =
                    Address::parse(topic).map(|address| Address::receipts(&address.tenant, &address.gateway));
                (receipts, payload, Err(reason.clone()))
            }
        };
        Self { topic, digest: Digest::of(payload), span }
    }

    /// The receipt, or the refusal, with its topic.
    pub(super) fn receipt(&self, effect: Effect) -> Option<(&str, Bytes)> {
        let verdict = match (effect, &self.span) {
            (Effect::Stored { .. }, Ok(span)) => Verdict::Kept(span.clone()),
            (Effect::Refused, _) => Verdict::Refused { reason: "it keeps no more series".to_owned() },
            (_, Err(reason)) => Verdict::Refused { reason: reason.clone() },
            (Effect::Rejected, Ok(_)) => Verdict::Refused { reason: "it was put aside".to_owned() },
        };
        let receipt = Receipt { digest: self.digest, verdict };
        self.topic.as_deref().map(|topic| (topic, Bytes::from(receipt.encode())))
    }
}
