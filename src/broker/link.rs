//! A connection's handle on its session: what comes in, what goes out, how it ends.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::hub::Hub;
use super::message::Qos;
use super::outgoing::{Acknowledgement, Outgoing, Settled};
use super::publish::wake;
use super::replies::{ReplyKind, Ticket, Verdict};
use super::route::Topic;
use super::rows;
use super::session::{Closing, Incoming, Session, Signal};
use crate::base::{Receipt, Refusal};

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// DISCONNECT: no will.
    Normal,
    /// DISCONNECT that asks for the will, or a lost or broken connection.
    WithWill,
}

/// What an acknowledgement of the client met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledged {
    /// The message it is for.
    Taken,
    /// Nothing under this packet id: a repetition, or something from before a reconnect.
    Unknown,
    /// A message of another QoS or at another stage: the client breaks the protocol.
    Wrong,
}

/// One connection's hold on its session. Dropping it is a lost connection.
pub struct Link {
    pub(super) hub: Arc<Hub>,
    pub(super) session: Arc<Session>,
    pub(super) signal: Arc<Signal>,
    pub(super) wakes: Vec<Arc<Signal>>,
    pub(super) left: bool,
    pub(super) expired: Vec<Option<u64>>,
    /// Rows that the client has acknowledged since the last batch.
    pub(super) forgotten: Vec<u64>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("client", &self.session.client).finish_non_exhaustive()
    }
}

impl Link {
    /// The client id.
    pub fn client(&self) -> &str {
        &self.session.client
    }

    /// Checks a topic name and finds its subscribers; None if it is malformed.
    pub fn topic(&self, name: &str) -> Option<Topic> {
        if !self.hub.topic_limits.name(name) {
            return None;
        }
        Some(Topic { name: name.into(), route: Arc::new(self.hub.route(name)) })
    }

    /// Ready once after there was something new to [`drain`](Self::drain) or a reason to close.
    pub fn poll_work(&self, context: &Context<'_>) -> Poll<()> {
        if self.signal.lower(context.waker()) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Registers for [`closing`](Self::closing) only: for a client whose socket is full, so that its subscriptions
    /// do not wake it for every message.
    pub fn listen(&self, context: &Context<'_>) {
        self.signal.listen(context.waker());
    }

    /// Why the broker wants this connection closed, if it does.
    pub fn closing(&self) -> Option<Closing> {
        self.signal.closing()
    }

    /// Wakes the connections that this one's messages went to, and lets acknowledged rows go. Call it once after
    /// each batch of input.
    pub fn wake_others(&mut self) {
        wake(&mut self.wakes);
        if !self.forgotten.is_empty() {
            let places = std::mem::take(&mut self.forgotten);
            self.forget(places);
        }
    }

    /// Answers that are still owed to this client's publishes.
    pub fn unanswered(&self) -> usize {
        self.signal.replies().unanswered()
    }

    /// QoS 2 packet ids of this client that are not released.
    pub fn held(&self) -> usize {
        self.session.state().incoming.len()
    }

    /// Moves out what can be sent now, about `budget_bytes` of it. Call it until nothing comes: only what is new after
    /// the last [`poll_work`](Self::poll_work) wakes the task.
    pub fn drain(&mut self, budget_bytes: usize, into: &mut Vec<Outgoing>) {
        {
            let mut replies = self.signal.replies();
            while let Some(reply) = replies.next() {
                into.push(Outgoing::Reply(reply));
            }
            replies.rest();
        }
        let hub = &self.hub;
        let mut state = self.session.state();
        if !state.signal.as_ref().is_some_and(|signal| Arc::ptr_eq(signal, &self.signal)) {
            return;
        }
        // Behind what is on the disk, or its numbers would not be in order.
        while !state.replay.is_empty() && state.queue.is_in_memory() && !state.queue.is_above_half(hub.queue_limits) {
            let Some(delivery) = state.replay.pop_front() else { break };
            if delivery.qos == Qos::AtMostOnce {
                state.queue.push_once(delivery);
            } else {
                state.queue.push_kept(delivery, None);
            }
        }
        let (window, sent) = (state.window, into.len());
        let clock = || hub.clock.since_boot();
        state.queue.drain(window, budget_bytes, clock, into, &mut self.expired);
        state.queue.rest();
        let page = state.queue.page_due();
        state.account(self.session.row.is_some(), &hub.persistent_bytes);
        if state.pressed && state.queue.is_below_quarter(hub.queue_limits) {
            state.pressed = false;
            self.session.room.notify_waiters();
        }
        drop(state);
        if let Some(page) = page {
            hub.load(&self.session, page);
        }
        hub.metrics.delivered.inc_by((into.len() - sent) as u64);
        if !self.expired.is_empty() {
            hub.metrics.expired.inc_by(self.expired.len() as u64);
            self.forget(self.expired.iter().flatten().copied().collect());
            self.expired.clear();
        }
    }

    /// Deletes rows that are done with; nobody waits for it.
    fn forget(&self, places: Vec<u64>) {
        if !places.is_empty() {
            self.hub.ride_later(16 * places.len(), move |tx| rows::delete_queued(tx, &places));
        }
    }

    /// Takes PUBACK, PUBREC or PUBCOMP.
    pub fn acknowledged(&mut self, packet_id: u16, how: Acknowledgement) -> Acknowledged {
        let settled = {
            let mut state = self.session.state();
            let settled = state.queue.acknowledged(packet_id, how);
            state.account(self.session.row.is_some(), &self.hub.persistent_bytes);
            settled
        };
        match settled {
            Settled::Unknown => return Acknowledged::Unknown,
            Settled::Wrong => return Acknowledged::Wrong,
            Settled::Done { place } => self.forgotten.extend(place),
            Settled::Release { number, place } => {
                if let Some(place) = place {
                    // PUBREL only after this is on disk: the client may forget the packet id on PUBREL.
                    let session = self.session.clone();
                    let done = move |result: Result<(), _>| {
                        if result.is_ok() {
                            let mut state = session.state();
                            state.queue.released(number);
                            if let Some(signal) = state.raise() {
                                signal.wake();
                            }
                        }
                    };
                    self.hub.write_then(64, move |tx| rows::mark_released(tx, place, packet_id), done);
                }
            }
        }
        Acknowledged::Taken
    }

    /// The client cannot take this delivery (it is larger than its Maximum Packet Size): treated as done.
    pub fn undeliverable(&mut self, packet_id: u16, qos: Qos) {
        let how = match qos {
            Qos::AtMostOnce => return,
            Qos::AtLeastOnce => Acknowledgement::Puback,
            Qos::ExactlyOnce => Acknowledgement::PubrecRefused,
        };
        self.acknowledged(packet_id, how);
    }

    /// Takes PUBREL. PUBCOMP comes out of [`drain`](Self::drain) when the id's removal is on disk.
    pub fn pubrel(&mut self, packet_id: u16) {
        let held = matches!(self.session.state().incoming.get(&packet_id), Some(Incoming::Held));
        if !held {
            self.reply(ReplyKind::Pubcomp, packet_id, Verdict::UnknownId);
            return;
        }
        let Some(row) = self.session.row else {
            self.session.state().incoming.remove(&packet_id);
            self.reply(ReplyKind::Pubcomp, packet_id, Verdict::Kept);
            return;
        };
        let ticket: Ticket = self.signal.replies().open(ReplyKind::Pubcomp, packet_id);
        let (session, signal) = (self.session.clone(), self.signal.clone());
        let receipt = Receipt::new(move |outcome| {
            if outcome.is_ok() {
                session.state().incoming.remove(&packet_id);
            }
            signal.settle(ticket, outcome.map_or_else(Verdict::Refused, |()| Verdict::Kept));
        });
        let done = move |result: Result<(), crate::store::CommitError>| receipt.answer(result.map_err(Refusal::from));
        self.hub.write_then(32, move |tx| rows::release_incoming(tx, row, packet_id), done);
    }

    /// Ends the connection. `expiry_s` is the new session expiry of an MQTT 5 DISCONNECT.
    pub fn leave(mut self, how: Leaving, expiry_s: Option<u32>) {
        self.wake_others();
        self.left = true;
        self.hub.left(&self.session, &self.signal, how, expiry_s);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if !self.left {
            self.wake_others();
            self.hub.left(&self.session, &self.signal, Leaving::WithWill, None);
        }
    }
}
