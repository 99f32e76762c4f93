//! A message comes in: retained, spread, kept, tapped, and answered when all of that is on disk.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Waiting;
use super::config::AtSessionBound;
use super::custody::Keep;
use super::hub::Hub;
use super::link::Link;
use super::message::{Message, Qos};
use super::replies::{Reply, ReplyKind, Ticket, Verdict};
use super::route::{Route, Spread, Topic};
use super::session::{Incoming, Session, Signal, Will};
use super::tap::{Tap, TapMessage, TapResult, Within};
use crate::base::{Outcome, Receipt, Refusal};

/// A PUBLISH of a client, without its topic.
#[derive(Debug)]
pub struct Publication {
    /// The body.
    pub payload: Bytes,
    /// QoS of the PUBLISH.
    pub qos: Qos,
    /// RETAIN flag.
    pub retain: bool,
    /// 0 for QoS 0.
    pub packet_id: u16,
    /// Message expiry.
    pub expiry_s: Option<u32>,
    /// See [`Message::properties`].
    pub properties: Bytes,
    /// The client's protocol has no word for "full" (MQTT 3.1.1): where others are refused, it is kept waiting.
    pub waits: bool,
}

/// Where a message comes from and what it takes along.
struct Origin<'a> {
    session: Option<&'a Arc<Session>>,
    client: &'a Arc<str>,
    tap: bool,
    waits: bool,
    incoming: Option<(i64, u16)>,
}

enum Accepted {
    /// Nobody has to keep it.
    Now(Verdict),
    /// The receipt will be answered, after the future, if any, got it to everybody.
    Later(Option<Waiting>),
}

fn verdict(outcome: Outcome) -> Verdict {
    outcome.map_or_else(Verdict::Refused, |()| Verdict::Kept)
}

impl Hub {
    fn accept(
        self: &Arc<Self>,
        origin: &Origin<'_>,
        route: &Route,
        message: &Arc<Message>,
        wakes: &mut Vec<Arc<Signal>>,
        pressed: &mut Option<Arc<Session>>,
        receipt: impl FnOnce() -> Receipt,
    ) -> Accepted {
        self.metrics.received.inc();
        let refuses = self.config.at_session_bound == AtSessionBound::Refuse && message.qos > Qos::AtMostOnce;
        // Before anybody has it, so that a repetition brings no duplicates.
        if refuses && self.has_full_session(route, message) {
            return Accepted::Now(Verdict::Refused(Refusal::Full));
        }
        let mut retained = false;
        if message.retain {
            self.salvaging.has_spoken(&message.topic);
            if self.retained.set(message) {
                retained = message.qos > Qos::AtMostOnce;
                if !retained {
                    self.retained.mark(message.topic.clone());
                    self.flush_retained();
                }
            } else if message.qos > Qos::AtMostOnce {
                return Accepted::Now(Verdict::Refused(Refusal::Full));
            }
        }
        let mut spread = self.spread(route, message, origin.session, wakes);
        *pressed = spread.pressed.take();
        let tap = self.tap.get().filter(|_| origin.tap && route.tapped);
        if message.qos == Qos::AtMostOnce {
            if let Some(tap) = tap {
                let message = tap_message(origin, message, Receipt::unwatched(), None);
                if let TapResult::Busy(_) = tap.take(message) {
                    self.metrics.dropped_tap.inc();
                }
            }
            return Accepted::Now(Verdict::Kept);
        }
        let kept_by_sessions = !spread.rows.is_empty() || !spread.lost.is_empty();
        let nothing_to_write = !kept_by_sessions && !retained && origin.incoming.is_none();
        let Some(tap) = tap else {
            if nothing_to_write {
                return Accepted::Now(if spread.anyone { Verdict::Kept } else { Verdict::NoSubscribers });
            }
            let keep = self.keep(origin, message, spread, retained);
            return Accepted::Later(keep.submit(receipt()));
        };
        let receipt = receipt();
        if nothing_to_write {
            return Accepted::Later(offer(tap, tap_message(origin, message, receipt, None), None));
        }
        let keep = self.keep(origin, message, spread, retained);
        if message.qos == Qos::ExactlyOnce {
            let work = Box::new(move |tx: &crate::store::Tx| {
                keep.write(tx)?;
                tx.after(move |kept| keep.finish(kept));
                Ok(())
            });
            let within = Within::new(receipt.share(), work);
            return Accepted::Later(offer(tap, tap_message(origin, message, receipt, Some(within)), None));
        }
        let stored = keep.submit(receipt.share());
        Accepted::Later(offer(tap, tap_message(origin, message, receipt, None), stored))
    }

    fn keep(self: &Arc<Self>, origin: &Origin<'_>, message: &Arc<Message>, spread: Spread, retained: bool) -> Keep {
        let mut keep = Keep::new(self, message, spread.rows);
        keep.lost = spread.lost;
        keep.retained = retained;
        keep.incoming = origin.incoming;
        keep
    }

    /// Publishes from inside the process. Not tapped, so a flow cannot feed itself.
    pub(super) fn publish_inside(self: &Arc<Self>, message: Message, receipt: Receipt) -> Option<Waiting> {
        let route = self.route(&message.topic);
        let client: Arc<str> = "".into();
        let origin = Origin { session: None, client: &client, tap: false, waits: false, incoming: None };
        let (mut wakes, mut pressed) = (Vec::new(), None);
        let mut receipt = Some(receipt);
        let share = || receipt.take().expect("asked for once");
        let accepted = self.accept(&origin, &route, &Arc::new(message), &mut wakes, &mut pressed, share);
        wake(&mut wakes);
        match accepted {
            Accepted::Later(waiting) => waiting,
            Accepted::Now(verdict) => {
                if let Some(receipt) = receipt {
                    receipt.answer(match verdict {
                        Verdict::Refused(refusal) => Err(refusal),
                        _ => Ok(()),
                    });
                }
                None
            }
        }
    }

    /// Publishes a will as its client would have.
    pub(super) fn publish_will(self: &Arc<Self>, session: &Arc<Session>, will: &Will) {
        let mut message = Message::clone(&will.message);
        message.expires_at = will.expiry_s.map(|expiry_s| self.after_s(expiry_s));
        let route = self.route(&message.topic);
        let origin = Origin { session: None, client: &session.client, tap: true, waits: false, incoming: None };
        let (mut wakes, mut pressed) = (Vec::new(), None);
        let accepted = self.accept(&origin, &route, &Arc::new(message), &mut wakes, &mut pressed, Receipt::unwatched);
        wake(&mut wakes);
        if let Accepted::Later(waiting) = accepted {
            self.chore(waiting);
        }
    }

    pub(super) fn after_s(&self, seconds: u32) -> Duration {
        self.clock.since_boot() + Duration::from_secs(seconds.into())
    }

    /// Waits until `session` has room again, at most as long as the configuration says.
    fn relief(self: &Arc<Self>, session: Arc<Session>) -> Option<Waiting> {
        let now = self.clock.since_boot();
        if session.state().impatient_until > now {
            return None;
        }
        let hub = self.clone();
        Some(Box::pin(async move {
            let mut room = std::pin::pin!(session.room.notified());
            room.as_mut().enable();
            if !session.state().pressed {
                return;
            }
            let patience = Duration::from_millis(hub.config.pressure_ms);
            if tokio::time::timeout(patience, room).await.is_err() {
                let pause = Duration::from_millis(hub.config.pressure_pause_ms);
                session.state().impatient_until = hub.clock.since_boot() + pause;
            }
        }))
    }
}

fn tap_message(origin: &Origin<'_>, message: &Arc<Message>, receipt: Receipt, within: Option<Within>) -> TapMessage {
    TapMessage {
        topic: message.topic.clone(),
        payload: message.payload.clone(),
        qos: message.qos,
        receipt,
        client: origin.client.clone(),
        waits: origin.waits,
        within,
    }
}

/// Gives `message` to the tap; what could not be done at once is in the future.
fn offer(tap: &Arc<dyn Tap>, message: TapMessage, stored: Option<Waiting>) -> Option<Waiting> {
    let busy = match tap.take(message) {
        TapResult::Taken => None,
        TapResult::Busy(message) => Some(message),
    };
    if busy.is_none() {
        return stored;
    }
    let tap = tap.clone();
    Some(Box::pin(async move {
        if let Some(stored) = stored {
            stored.await;
        }
        let mut busy = busy;
        while let Some(message) = busy.take() {
            tap.room().await;
            if let TapResult::Busy(message) = tap.take(message) {
                busy = Some(message);
            }
        }
    }))
}

pub(super) fn wake(wakes: &mut Vec<Arc<Signal>>) {
    for signal in wakes.drain(..) {
        signal.wake();
    }
}

fn both(first: Option<Waiting>, second: Option<Waiting>) -> Option<Waiting> {
    match (first, second) {
        (Some(first), Some(second)) => Some(Box::pin(async move {
            first.await;
            second.await;
        })),
        (first, second) => first.or(second),
    }
}

impl Link {
    /// Takes a PUBLISH. Its answer, if it has one, comes out of [`drain`](Self::drain) when every holder has it
    /// on disk. If a future comes back, nothing more may be read from this connection until it is done.
    pub fn publish(&mut self, topic: &mut Topic, publication: Publication) -> Option<Waiting> {
        let hub = self.hub.clone();
        if topic.route.generation != hub.generation.load(std::sync::atomic::Ordering::Acquire) {
            topic.route = Arc::new(hub.route(&topic.name));
        }
        let Publication { payload, qos, retain, packet_id, expiry_s, properties, waits } = publication;
        let expires_at = expiry_s.map(|seconds| hub.after_s(seconds));
        let message = Message { topic: topic.name.clone(), payload, qos, retain, expires_at, properties };
        let message = Arc::new(message);
        let session = self.session.clone();
        let mut origin = Origin { session: Some(&session), client: &session.client, tap: true, waits, incoming: None };
        let mut pressed = None;
        let waiting = match qos {
            Qos::AtMostOnce => {
                let wakes = &mut self.wakes;
                hub.accept(&origin, &topic.route, &message, wakes, &mut pressed, Receipt::unwatched);
                None
            }
            Qos::AtLeastOnce => {
                let signal = self.signal.clone();
                let receipt = || {
                    let ticket = signal.replies().open(ReplyKind::Puback, packet_id);
                    let signal = signal.clone();
                    Receipt::new(move |outcome| signal.settle(ticket, verdict(outcome)))
                };
                match hub.accept(&origin, &topic.route, &message, &mut self.wakes, &mut pressed, receipt) {
                    Accepted::Now(verdict) => {
                        self.reply(ReplyKind::Puback, packet_id, verdict);
                        None
                    }
                    Accepted::Later(waiting) => waiting,
                }
            }
            Qos::ExactlyOnce => {
                if self.repeats(packet_id) {
                    return None;
                }
                origin.incoming = session.row.map(|row| (row, packet_id));
                let (session, signal) = (session.clone(), self.signal.clone());
                let receipt = || {
                    let ticket = signal.replies().open(ReplyKind::Pubrec, packet_id);
                    let pending = Incoming::Pending(vec![(signal.clone(), ticket)]);
                    session.state().incoming.insert(packet_id, pending);
                    let session = session.clone();
                    Receipt::new(move |outcome| answer_incoming(&session, packet_id, outcome))
                };
                match hub.accept(&origin, &topic.route, &message, &mut self.wakes, &mut pressed, receipt) {
                    Accepted::Now(verdict) => {
                        if !matches!(verdict, Verdict::Refused(_)) {
                            self.session.state().incoming.insert(packet_id, Incoming::Held);
                        }
                        self.reply(ReplyKind::Pubrec, packet_id, verdict);
                        None
                    }
                    Accepted::Later(waiting) => waiting,
                }
            }
        };
        match pressed {
            None => waiting,
            Some(session) => both(waiting, hub.relief(session)),
        }
    }

    /// True if a QoS 2 PUBLISH under this packet id is held already: it is answered, not passed on.
    fn repeats(&self, packet_id: u16) -> bool {
        let mut state = self.session.state();
        match state.incoming.get_mut(&packet_id) {
            None => false,
            Some(Incoming::Held) => {
                drop(state);
                self.reply(ReplyKind::Pubrec, packet_id, Verdict::Kept);
                true
            }
            Some(Incoming::Pending(waiters)) => {
                // Once per connection is enough.
                if !waiters.iter().any(|(signal, _)| Arc::ptr_eq(signal, &self.signal)) {
                    let ticket: Ticket = self.signal.replies().open(ReplyKind::Pubrec, packet_id);
                    waiters.push((self.signal.clone(), ticket));
                }
                true
            }
        }
    }

    /// Answers a publish that never reached the broker (the identity may not, the topic is malformed).
    pub fn reply(&self, kind: ReplyKind, packet_id: u16, verdict: Verdict) {
        if matches!(verdict, Verdict::Refused(_)) {
            self.hub.metrics.refused.inc();
        }
        self.signal.replies().answer(Reply { kind, packet_id, verdict });
    }
}

fn answer_incoming(session: &Session, packet_id: u16, outcome: Outcome) {
    let held = {
        let mut state = session.state();
        let now = outcome.is_ok().then_some(Incoming::Held);
        match now {
            Some(now) if !state.ended => state.incoming.insert(packet_id, now),
            _ => state.incoming.remove(&packet_id),
        }
    };
    if let Some(Incoming::Pending(waiters)) = held {
        for (signal, ticket) in waiters {
            signal.settle(ticket, verdict(outcome));
        }
    }
}
