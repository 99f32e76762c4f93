//! What waits for one client: QoS 0 in a ring, QoS 1 and 2 in order with their packet ids and stages.
//!
//! A packet id is given when a message is queued, not when it is sent, so that a persistent session can write
//! it into the row before the client ever sees it: after a crash the same message goes out under the same id,
//! and a QoS 2 receiver recognises it. Numbers count upwards without end; the packet id is the number modulo
//! 65,535 plus one, and the span of live numbers is kept below 65,535, so no id is given twice.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::message::{Message, Qos};

const PACKET_IDS: u64 = 65_535;

/// Subscription identifiers of a delivery; None for none.
pub type Ids = Option<Arc<[u32]>>;

/// A message on its way to one client.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    pub(super) message: Arc<Message>,
    pub(super) qos: Qos,
    pub(super) retain: bool,
    pub(super) ids: Ids,
}

/// A packet for the client.
#[derive(Debug)]
pub enum Outgoing {
    /// PUBLISH.
    Publish {
        /// The message.
        message: Arc<Message>,
        /// QoS of this delivery.
        qos: Qos,
        /// 0 for QoS 0.
        packet_id: u16,
        /// It may have been sent before.
        dup: bool,
        /// RETAIN flag of this delivery.
        retain: bool,
        /// Subscription identifiers.
        ids: Ids,
    },
    /// PUBREL.
    Pubrel {
        /// Which message.
        packet_id: u16,
    },
    /// Answer to a packet of the client.
    Reply(super::replies::Reply),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its row is on the way to the disk; it and what follows must wait.
    Committing,
    /// May be sent.
    Waiting,
    /// Sent on this connection, not acknowledged.
    Sent,
    /// PUBREC came; the row that says so is on the way to the disk.
    Releasing,
    /// PUBREL may be sent (again).
    Released,
    /// Finished; leaves when everything before it has.
    Done,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    /// Row of a persistent session.
    place: Option<u64>,
    stage: Stage,
    dup: bool,
    delivery: Delivery,
}

/// Bounds of one queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueueLimits {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

/// A queued QoS 1 or 2 message: the number names it, the packet id goes to the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) number: u64,
    pub(super) packet_id: u16,
}

/// What an acknowledgement of the client did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// Nothing waits under this packet id.
    Unknown,
    /// Something does, but this packet cannot answer it.
    Wrong,
    /// Finished; the row, if any, can go.
    Done { place: Option<u64> },
    /// PUBREL must go out; for a row only after [`Queue::released`].
    Release { number: u64, place: Option<u64> },
}

/// A row of a persistent session as read at start.
#[derive(Debug)]
pub(super) struct Restored {
    pub(super) packet_id: u16,
    pub(super) place: u64,
    pub(super) released: bool,
    pub(super) delivery: Delivery,
}

/// The queue towards one client.
#[derive(Debug, Default)]
pub(super) struct Queue {
    once: VecDeque<Delivery>,
    kept: VecDeque<Entry>,
    /// PUBRELs that became possible since the last drain.
    pubrels: VecDeque<u16>,
    /// Index in `kept` of the next one to send on this connection.
    cursor: usize,
    /// Sent on this connection and unfinished.
    in_flight: usize,
    next_number: u64,
    bytes: usize,
}

fn packet_id(number: u64) -> u16 {
    u16::try_from(number % PACKET_IDS + 1).expect("a remainder of 65,535 plus one fits")
}

impl Queue {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_full(&self, limits: QueueLimits, more: usize) -> bool {
        self.once.len() + self.kept.len() >= limits.messages || self.bytes + more > limits.bytes && self.bytes > 0
    }

    /// True if publishers should wait for this client.
    pub(super) fn is_above_half(&self, limits: QueueLimits) -> bool {
        self.once.len() + self.kept.len() > limits.messages / 2 || self.bytes > limits.bytes / 2
    }

    /// True if waiting publishers may go on.
    pub(super) fn is_below_quarter(&self, limits: QueueLimits) -> bool {
        self.once.len() + self.kept.len() <= limits.messages / 4 && self.bytes <= limits.bytes / 4
    }

    /// Queues a QoS 0 message.
    pub(super) fn push_once(&mut self, delivery: Delivery) {
        self.bytes += delivery.message.size_bytes();
        self.once.push_back(delivery);
    }

    /// Queues a QoS 1 or 2 message; None if all packet ids are out. With a `place` it waits for
    /// [`committed`](Self::committed).
    pub(super) fn push_kept(&mut self, delivery: Delivery, place: Option<u64>) -> Option<Slot> {
        let number = self.next_number;
        if self.kept.front().is_some_and(|oldest| number - oldest.number >= PACKET_IDS) {
            return None;
        }
        self.next_number += 1;
        self.bytes += delivery.message.size_bytes();
        let stage = if place.is_some() { Stage::Committing } else { Stage::Waiting };
        self.kept.push_back(Entry { number, place, stage, dup: false, delivery });
        Some(Slot { number, packet_id: packet_id(number) })
    }

    /// Puts a row back at start, oldest first.
    pub(super) fn restore(&mut self, row: Restored) {
        let wanted = u64::from(row.packet_id.max(1) - 1);
        let ahead = (wanted + PACKET_IDS - self.next_number % PACKET_IDS) % PACKET_IDS;
        let number = self.next_number + ahead;
        self.next_number = number + 1;
        self.bytes += row.delivery.message.size_bytes();
        let stage = if row.released { Stage::Released } else { Stage::Waiting };
        self.kept.push_back(Entry { number, place: Some(row.place), stage, dup: true, delivery: row.delivery });
    }

    fn index(&self, number: u64) -> Option<usize> {
        self.kept.binary_search_by_key(&number, |entry| entry.number).ok()
    }

    fn number_of(&self, packet_id: u16) -> Option<u64> {
        let oldest = self.kept.front()?.number;
        let wanted = u64::from(packet_id.checked_sub(1)?);
        Some(oldest + (wanted + PACKET_IDS - oldest % PACKET_IDS) % PACKET_IDS)
    }

    /// The row's commit returned (true) or failed.
    pub(super) fn committed(&mut self, number: u64, kept: bool) {
        let Some(at) = self.index(number) else { return };
        if self.kept[at].stage == Stage::Committing {
            if kept {
                self.kept[at].stage = Stage::Waiting;
            } else {
                self.finish(at);
            }
        }
    }

    fn finish(&mut self, at: usize) {
        let entry = &mut self.kept[at];
        entry.stage = Stage::Done;
        self.bytes -= entry.delivery.message.size_bytes();
        while self.kept.front().is_some_and(|entry| entry.stage == Stage::Done) {
            self.kept.pop_front();
            self.cursor = self.cursor.saturating_sub(1);
        }
    }

    /// PUBACK, or a PUBREC that refuses, or PUBCOMP: the client is done with it.
    pub(super) fn acknowledged(&mut self, packet_id: u16, how: Acknowledgement) -> Settled {
        let Some(at) = self.number_of(packet_id).and_then(|number| self.index(number)) else {
            return Settled::Unknown;
        };
        let entry = &mut self.kept[at];
        match (how, entry.stage, entry.delivery.qos) {
            (Acknowledgement::Puback, Stage::Sent, Qos::AtLeastOnce)
            | (Acknowledgement::PubrecRefused, Stage::Sent, Qos::ExactlyOnce)
            | (Acknowledgement::Pubcomp, Stage::Released | Stage::Releasing, Qos::ExactlyOnce) => {
                let place = entry.place;
                // One that waits to be repeated on this connection is not in flight.
                if at < self.cursor {
                    self.in_flight -= 1;
                }
                self.finish(at);
                Settled::Done { place }
            }
            (Acknowledgement::Pubrec, Stage::Sent, Qos::ExactlyOnce) => {
                entry.stage = Stage::Releasing;
                let (number, place) = (entry.number, entry.place);
                if place.is_none() {
                    self.released(number);
                }
                Settled::Release { number, place }
            }
            (Acknowledgement::Pubrec, Stage::Released, Qos::ExactlyOnce) => {
                self.pubrels.push_back(packet_id);
                Settled::Release { number: entry.number, place: None }
            }
            (Acknowledgement::Pubrec, Stage::Releasing, _)
            | (_, Stage::Committing | Stage::Waiting | Stage::Done, _) => Settled::Unknown,
            _ => Settled::Wrong,
        }
    }

    /// The row that says "released" is on disk (or there is none): PUBREL may go.
    pub(super) fn released(&mut self, number: u64) {
        let Some(at) = self.index(number) else { return };
        if self.kept[at].stage == Stage::Releasing {
            self.kept[at].stage = Stage::Released;
            if at < self.cursor {
                self.pubrels.push_back(packet_id(number));
            }
        }
    }

    /// A new connection: everything unfinished goes out again, in order.
    pub(super) fn reconnected(&mut self) {
        self.cursor = 0;
        self.in_flight = 0;
        self.pubrels.clear();
        for entry in &mut self.kept {
            if entry.stage == Stage::Sent {
                entry.stage = Stage::Waiting;
                entry.dup = true;
            }
        }
    }

    /// Moves what may be sent now into `into`, about `budget` bytes of it. Rows of messages that expired
    /// meanwhile are named in `expired`, one item a message.
    pub(super) fn drain(
        &mut self,
        window: usize,
        mut budget: usize,
        now: impl Fn() -> Duration,
        into: &mut Vec<Outgoing>,
        expired: &mut Vec<Option<u64>>,
    ) {
        while let Some(packet_id) = self.pubrels.pop_front() {
            into.push(Outgoing::Pubrel { packet_id });
        }
        while self.cursor < self.kept.len() && self.in_flight < window && budget > 0 {
            let at = self.cursor;
            let entry = &mut self.kept[at];
            match entry.stage {
                Stage::Committing => break,
                Stage::Waiting if !entry.dup && entry.delivery.message.expired(&now) => {
                    expired.push(entry.place);
                    self.cursor += 1;
                    self.finish(at);
                    continue;
                }
                Stage::Waiting => {
                    entry.stage = Stage::Sent;
                    let Delivery { message, qos, retain, ids } = entry.delivery.clone();
                    budget = budget.saturating_sub(message.size_bytes());
                    let (packet_id, dup) = (packet_id(entry.number), entry.dup);
                    into.push(Outgoing::Publish { message, qos, packet_id, dup, retain, ids });
                    self.in_flight += 1;
                }
                Stage::Released => {
                    into.push(Outgoing::Pubrel { packet_id: packet_id(entry.number) });
                    self.in_flight += 1;
                }
                // Its PUBREL follows when the row is on disk.
                Stage::Releasing => self.in_flight += 1,
                Stage::Sent | Stage::Done => {}
            }
            self.cursor += 1;
        }
        while budget > 0 {
            let Some(Delivery { message, qos, retain, ids }) = self.once.pop_front() else { break };
            let size = message.size_bytes();
            self.bytes -= size;
            if message.expired(&now) {
                expired.push(None);
                continue;
            }
            budget = budget.saturating_sub(size);
            into.push(Outgoing::Publish { message, qos, packet_id: 0, dup: false, retain, ids });
        }
    }

    /// Rows of everything queued, for a session that ends.
    pub(super) fn places(&self) -> Vec<u64> {
        self.kept.iter().filter_map(|entry| entry.place).collect()
    }

    /// Forgets QoS 0 messages and spare memory: nobody is connected.
    pub(super) fn disconnected(&mut self) {
        for delivery in self.once.drain(..) {
            self.bytes -= delivery.message.size_bytes();
        }
        self.once.shrink_to(0);
        self.pubrels.clear();
    }

    /// Gives memory back when nothing waits.
    pub(super) fn rest(&mut self) {
        if self.once.is_empty() && self.once.capacity() > 64 {
            self.once.shrink_to(0);
        }
        if self.kept.is_empty() && self.kept.capacity() > 64 {
            self.kept.shrink_to(0);
        }
    }
}

/// Packets by which a client acknowledges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledgement {
    /// PUBACK.
    Puback,
    /// PUBREC below 0x80.
    Pubrec,
    /// PUBREC of 0x80 or above.
    PubrecRefused,
    /// PUBCOMP.
    Pubcomp,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(qos: Qos) -> Delivery {
        Delivery { message: Arc::new(Message::new("t", "x", qos)), qos, retain: false, ids: None }
    }

    fn drained(queue: &mut Queue, window: usize) -> Vec<String> {
        let (mut out, mut expired) = (Vec::new(), Vec::new());
        queue.drain(window, 10_000, || Duration::from_secs(5), &mut out, &mut expired);
        out.iter()
            .map(|packet| match packet {
                Outgoing::Publish { qos, packet_id, dup, .. } => {
                    format!("publish{} {packet_id}{}", *qos as u8, if *dup { " dup" } else { "" })
                }
                Outgoing::Pubrel { packet_id } => format!("pubrel {packet_id}"),
                Outgoing::Reply(_) => "reply".to_owned(),
            })
            .collect()
    }

    #[test]
    fn nothing_goes_out_before_its_row_or_past_an_uncommitted_one() {
        let mut queue = Queue::default();
        let first = queue.push_kept(delivery(Qos::AtLeastOnce), Some(1)).unwrap();
        let second = queue.push_kept(delivery(Qos::AtLeastOnce), Some(2)).unwrap();
        queue.committed(second.number, true);
        assert_eq!(drained(&mut queue, 10), [""; 0]);
        queue.committed(first.number, true);
        assert_eq!(drained(&mut queue, 10), ["publish1 1", "publish1 2"]);
    }

    #[test]
    fn a_failed_row_is_never_sent_and_never_blocks() {
        let mut queue = Queue::default();
        let first = queue.push_kept(delivery(Qos::AtLeastOnce), Some(1)).unwrap();
        queue.push_kept(delivery(Qos::AtLeastOnce), None).unwrap();
        queue.committed(first.number, false);
        assert_eq!(drained(&mut queue, 10), ["publish1 2"]);
    }

    #[test]
    fn the_window_bounds_what_is_in_flight() {
        let mut queue = Queue::default();
        for _ in 0..3 {
            queue.push_kept(delivery(Qos::AtLeastOnce), None).unwrap();
        }
        assert_eq!(drained(&mut queue, 2), ["publish1 1", "publish1 2"]);
        assert_eq!(queue.acknowledged(2, Acknowledgement::Puback), Settled::Done { place: None });
        assert_eq!(drained(&mut queue, 2), ["publish1 3"]);
    }

    #[test]
    fn a_reconnect_repeats_the_unfinished_in_order_under_their_ids() {
        let mut queue = Queue::default();
        for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce, Qos::ExactlyOnce, Qos::AtLeastOnce] {
            queue.push_kept(delivery(qos), None).unwrap();
        }
        assert_eq!(drained(&mut queue, 3), ["publish1 1", "publish2 2", "publish2 3"]);
        queue.acknowledged(2, Acknowledgement::Pubrec);
        queue.reconnected();
        assert_eq!(drained(&mut queue, 9), ["publish1 1 dup", "pubrel 2", "publish2 3 dup", "publish1 4"]);
    }

    #[test]
    fn pubrel_waits_for_the_row_that_says_released() {
        let mut queue = Queue::default();
        let slot = queue.push_kept(delivery(Qos::ExactlyOnce), Some(7)).unwrap();
        queue.committed(slot.number, true);
        assert_eq!(drained(&mut queue, 9), ["publish2 1"]);
        let release = queue.acknowledged(1, Acknowledgement::Pubrec);
        assert_eq!(release, Settled::Release { number: slot.number, place: Some(7) });
        assert_eq!(drained(&mut queue, 9), [""; 0]);
        queue.released(slot.number);
        assert_eq!(drained(&mut queue, 9), ["pubrel 1"]);
        assert_eq!(queue.acknowledged(1, Acknowledgement::Pubcomp), Settled::Done { place: Some(7) });
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn no_packet_id_is_given_twice_while_one_is_out() {
        let mut queue = Queue::default();
        queue.push_kept(delivery(Qos::AtLeastOnce), None).unwrap();
        for _ in 1..PACKET_IDS {
            let slot = queue.push_kept(delivery(Qos::AtLeastOnce), None).unwrap();
            assert_ne!(slot.packet_id, 1);
            drained(&mut queue, 9);
            queue.acknowledged(slot.packet_id, Acknowledgement::Puback);
        }
        assert_eq!(queue.push_kept(delivery(Qos::AtLeastOnce), None), None);
        queue.acknowledged(1, Acknowledgement::Puback);
        assert_eq!(queue.push_kept(delivery(Qos::AtLeastOnce), None).unwrap().packet_id, 1);
    }

    #[test]
    fn restored_rows_keep_their_packet_ids_and_are_marked_as_repeats() {
        let mut queue = Queue::default();
        for (packet_id, released) in [(65_534, true), (65_535, false), (3, false)] {
            let place = u64::from(packet_id);
            queue.restore(Restored { packet_id, place, released, delivery: delivery(Qos::ExactlyOnce) });
        }
        let slot = queue.push_kept(delivery(Qos::ExactlyOnce), None).unwrap();
        assert_eq!(slot.packet_id, 4);
        assert_eq!(drained(&mut queue, 9), ["pubrel 65534", "publish2 65535 dup", "publish2 3 dup", "publish2 4"]);
    }

    #[test]
    fn an_expired_message_is_skipped_and_its_row_named() {
        let mut queue = Queue::default();
        let mut old = Message::new("t", "x", Qos::AtLeastOnce);
        old.expires_at = Some(Duration::from_secs(4));
        let old = Delivery { message: Arc::new(old), qos: Qos::AtLeastOnce, retain: false, ids: None };
        let slot = queue.push_kept(old, Some(9)).unwrap();
        queue.committed(slot.number, true);
        let (mut out, mut expired) = (Vec::new(), Vec::new());
        queue.drain(9, 10_000, || Duration::from_secs(5), &mut out, &mut expired);
        assert!(out.is_empty());
        assert_eq!((expired, queue.bytes()), (vec![Some(9)], 0));
    }

    #[test]
    fn acknowledgements_of_nothing_are_harmless() {
        let mut queue = Queue::default();
        for how in [Acknowledgement::Puback, Acknowledgement::Pubrec, Acknowledgement::Pubcomp] {
            for packet_id in [0, 1, 65_535] {
                assert_eq!(queue.acknowledged(packet_id, how), Settled::Unknown);
            }
        }
        queue.push_kept(delivery(Qos::ExactlyOnce), None).unwrap();
        drained(&mut queue, 9);
        assert_eq!(queue.acknowledged(1, Acknowledgement::Puback), Settled::Wrong);
        assert_eq!(queue.acknowledged(1, Acknowledgement::Pubcomp), Settled::Wrong);
        queue.acknowledged(1, Acknowledgement::Pubrec);
        assert_eq!(queue.acknowledged(1, Acknowledgement::Puback), Settled::Wrong);
    }
}
