//! What comes back: the link's answers, the receiver's receipts, and what else the cloud says.

use rand::Rng;
use tokio::sync::mpsc;

use crate::base::Backoff;
use crate::flows::confirm::Heard;
use crate::flows::lease::is_lease;
use crate::flows::pace::Claim;
use crate::flows::receipt::Receipt;
use crate::outbox;
use crate::uplink::{Answer, CloudMessage, Lost, Message, Ticket, Uplink};

use super::flow::Sync;

impl<U: Uplink, R: Rng + Send> Sync<U, R> {
    /// Submits an answer to the cloud. Nobody waits for what becomes of it. Short and rare, it does not wait for a budget,
    /// and is paid for.
    pub(super) fn say(&mut self, message: Message) -> Result<(), Lost> {
        let bytes = (message.topic.len() + message.payload.len()) as u64;
        self.pace.charge(Claim::Alarm, bytes, self.clock.since_boot());
        self.metrics.sent_bytes.inc_by(bytes);
        let asked = self.confirmations.depart_otherwise();
        self.uplink.submit(asked, message)
    }

    /// What was kept for this side while it was away, before anything is sent again for want of it.
    pub(super) async fn catch_up(&mut self, backoff: &mut Backoff) -> Result<(), outbox::Error> {
        while let Some(message) = self.cloud.as_mut().and_then(|cloud| cloud.try_recv().ok()) {
            self.hear(message, backoff).await?;
        }
        Ok(())
    }

    /// What the cloud says: a receipt, or something for others to answer.
    pub(super) async fn hear(&mut self, message: CloudMessage, backoff: &mut Backoff) -> Result<(), outbox::Error> {
        if message.topic != self.receipts {
            // Apart, so that neither kind waits for the other.
            let asking =
                if is_lease(&message.payload) && self.leasing.is_some() { &self.leasing } else { &self.asking };
            if asking.as_ref().is_none_or(|asking| asking.try_send(message).is_err()) {
                tracing::warn!("a request of the cloud is dropped: too many at once, or nobody answers them");
            }
            return Ok(());
        }
        let now = self.clock.since_boot();
        let heard = match Receipt::decode(&message.payload) {
            Ok(receipt) => self.confirmations.heard(receipt, now),
            // A receiver that knows the standard and not us gives the name of the message back.
            Err(_) => match message.correlation.as_deref().map(<[u8; 32]>::try_from) {
                Some(Ok(digest)) => self.confirmations.heard_name(&digest.into(), now),
                _ => Heard::Nothing,
            },
        };
        match heard {
            Heard::Kept(ticket) => {
                backoff.reset();
                self.metrics.receipts.inc();
                self.arrived(ticket).await?;
            }
            Heard::KeptBefore(span, rows) => {
                let (first, last) = (span.first, span.last);
                let key = self.queue.key_of(span);
                let arrived = key.and_then(|key| self.flights.arrived_before(&key, first, last, rows));
                match arrived {
                    Some(arrived) => {
                        self.metrics.receipts.inc();
                        self.metrics.batches.inc();
                        self.metrics.rows.inc_by(rows);
                        self.queue.delete(arrived).await?;
                    }
                    None => drop(self.metrics.strange_receipts.inc()),
                }
            }
            Heard::Refused(ticket, reason) => self.not_taken(ticket, Some(&format!("the receiver says: {reason}"))),
            Heard::Nothing => drop(self.metrics.strange_receipts.inc()),
        }
        Ok(())
    }

    pub(super) async fn settle(&mut self, asked: Ticket, answer: Answer) -> Result<(), outbox::Error> {
        let now = self.clock.since_boot();
        let after = self.submitted.remove(&asked).map(|at| now.saturating_sub(at));
        if let (Answer::Acknowledged, Some(after)) = (&answer, after) {
            self.judge.acknowledged(after, now);
        }
        let reason = match answer {
            Answer::Acknowledged => {
                if let Some(ticket) = self.confirmations.taken(asked, now) {
                    self.arrived(ticket).await?;
                }
                None
            }
            Answer::NoSubscriber => Some("nobody subscribes".to_owned()),
            Answer::Refused { reason } => Some(reason),
            // Found out between the look at the limit and the send; the next look is right.
            Answer::TooLarge { .. } => {
                if let Some(ticket) = self.confirmations.not_taken(asked) {
                    self.not_taken(ticket, None);
                }
                None
            }
        };
        if let Some(reason) = reason
            && let Some(ticket) = self.confirmations.not_taken(asked)
        {
            self.not_taken(ticket, Some(&reason));
        }
        Ok(())
    }

    /// The batch is safe where its acknowledgement came from.
    async fn arrived(&mut self, ticket: u64) -> Result<(), outbox::Error> {
        self.metrics.batches.inc();
        if let Some(arrived) = self.flights.acknowledge(ticket) {
            self.metrics.rows.inc_by(arrived.rows);
            self.holds.release(&arrived.key);
            self.queue.delete(arrived).await?;
        }
        Ok(())
    }

    /// The batch is fetched again, after a while if there is a reason.
    fn not_taken(&mut self, ticket: u64, reason: Option<&str>) {
        self.confirmations.close(ticket);
        let Some(key) = self.flights.refuse(ticket) else { return };
        if let Some(reason) = reason {
            self.metrics.failures.inc();
            let now = self.clock.since_boot();
            let wait = self.holds.hold(key, self.backoff(), now, &mut self.rng);
            tracing::warn!(reason, retry_ms = wait.as_millis(), "the cloud does not take a stream");
        }
    }

    /// Takes the answers that are still to come.
    pub(super) async fn drain(&mut self) {
        let mut backoff = self.backoff();
        while self.flights.len() > 0 {
            let settled = tokio::select! {
                answer = self.uplink.answer() => match answer {
                    Ok((ticket, answer)) => self.settle(ticket, answer).await,
                    Err(_) => return,
                },
                Some(message) = next(&mut self.cloud) => self.hear(message, &mut backoff).await,
            };
            if settled.is_err() {
                return;
            }
        }
    }
}

/// The next message; waits for ever where none can come.
pub(super) async fn next<T>(channel: &mut Option<mpsc::Receiver<T>>) -> Option<T> {
    match channel {
        Some(open) => match open.recv().await {
            Some(message) => Some(message),
            None => {
                *channel = None;
                std::future::pending().await
            }
        },
        None => std::future::pending().await,
    }
}
