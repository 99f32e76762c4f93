//! What waits for one client: QoS 0 in a ring, QoS 1 and 2 in order with their packet ids and stages.
//!
//! A packet id is given when a message is queued, not when it is sent, so that a persistent session can write
//! it into the row before the client ever sees it: after a crash the same message goes out under the same id,
//! and a QoS 2 receiver recognises it. Numbers count upwards without end; the packet id is the number modulo
//! 65,535 plus one, and the span of live numbers is kept below 65,535, so no id is given twice.
//!
//! The end of a persistent session's queue may be on the disk only ([`Tail`]): what waits for an absent client costs no
//! memory, and comes back in pages when the client does.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::message::{Message, Qos};
use super::tail::{AtStart, Page, PageOf, Tail};

pub(super) const PACKET_IDS: u64 = 65_535;
/// With fewer rows than this ready to be sent, the next page is read.
const READY_ROWS: usize = 64;

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

/// A row of a persistent session as read from the disk.
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
    tail: Tail,
    /// Nobody is connected: what comes stays on the disk.
    asleep: bool,
}

fn packet_id(number: u64) -> u16 {
    u16::try_from(number % PACKET_IDS + 1).expect("a remainder of 65,535 plus one fits")
}

impl Queue {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_full(&self, limits: QueueLimits, more: usize) -> bool {
        self.messages() >= limits.messages || self.bytes + more > limits.bytes && self.bytes > 0
    }

    fn messages(&self) -> usize {
        self.once.len() + self.kept.len() + self.tail.messages()
    }

    #[cfg(test)]
    pub(super) fn rows_in_memory(&self) -> usize {
        self.kept.len()
    }

    /// True if nothing of it is on the disk only.
    pub(super) fn is_in_memory(&self) -> bool {
        self.tail.is_empty()
    }

    /// True if publishers should wait for this client.
    pub(super) fn is_above_half(&self, limits: QueueLimits) -> bool {
        self.messages() > limits.messages / 2 || self.bytes > limits.bytes / 2
    }

    /// True if waiting publishers may go on.
    pub(super) fn is_below_quarter(&self, limits: QueueLimits) -> bool {
        self.messages() <= limits.messages / 4 && self.bytes <= limits.bytes / 4
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
        let oldest = self.kept.front().map(|entry| entry.number).or_else(|| self.tail.first_number());
        if oldest.is_some_and(|oldest| number - oldest >= PACKET_IDS) {
            return None;
        }
        self.next_number += 1;
        self.bytes += delivery.message.size_bytes();
        if let Some(place) = place
            && (self.asleep || !self.tail.is_empty())
        {
            self.tail.push(number, place);
            return Some(Slot { number, packet_id: packet_id(number) });
        }
        let stage = if place.is_some() { Stage::Committing } else { Stage::Waiting };
        self.kept.push_back(Entry { number, place, stage, dup: false, delivery });
        Some(Slot { number, packet_id: packet_id(number) })
    }

    /// Puts rows of an earlier process back at start, oldest first.
    pub(super) fn restore(&mut self, rows: Vec<Restored>) {
        for row in rows {
            self.bytes += row.delivery.message.size_bytes();
            self.next_number = self.follow(row, self.next_number, true);
        }
    }

    /// Takes a row behind the last one; returns the number after its own.
    fn follow(&mut self, row: Restored, next: u64, dup: bool) -> u64 {
        let wanted = u64::from(row.packet_id.max(1) - 1);
        let number = next + (wanted + PACKET_IDS - next % PACKET_IDS) % PACKET_IDS;
        let stage = if row.released { Stage::Released } else { Stage::Waiting };
        self.kept.push_back(Entry { number, place: Some(row.place), stage, dup, delivery: row.delivery });
        number + 1
    }

    /// The session has further rows from an earlier process, which are not read yet.
    pub(super) fn rests_on_disk(&mut self, rows: &AtStart) {
        self.tail = Tail::at_start(rows, self.next_number);
        self.next_number = self.tail.first_number().unwrap_or(self.next_number) + rows.span();
        self.bytes += self.tail.guessed_bytes();
    }

    /// Which rows to read next, if it is time for them. [`loaded`](Self::loaded) or
    /// [`not_loaded`](Self::not_loaded) must follow.
    pub(super) fn page_due(&mut self) -> Option<PageOf> {
        if self.asleep || self.kept.len() - self.cursor >= READY_ROWS { None } else { self.tail.begin_page() }
    }

    /// The rows that were asked for.
    pub(super) fn loaded(&mut self, of: &PageOf, mut page: Page) {
        let behind = self.kept.back().map_or(0, |entry| entry.number + 1);
        let first = behind.max(self.tail.first_number().unwrap_or(0));
        // Numbers first: the tail needs the rows once more.
        let next = page.rows.iter().fold(first, |next, row| {
            next + (u64::from(row.packet_id.max(1) - 1) + PACKET_IDS - next % PACKET_IDS) % PACKET_IDS + 1
        });
        let change = self.tail.end_page(of, &page, next);
        self.bytes = self.bytes.saturating_add_signed(change);
        let mut next = first;
        for row in page.rows.drain(..) {
            let dup = self.tail.is_repeated(row.place);
            next = self.follow(row, next, dup);
        }
    }

    /// The read failed; it will be due again.
    pub(super) fn not_loaded(&mut self) {
        self.tail.give_up_page();
    }

    fn index(&self, number: u64) -> Option<usize> {
        self.kept.binary_search_by_key(&number, |entry| entry.number).ok()
    }

    fn number_of(&self, packet_id: u16) -> Option<u64> {
        let oldest = self.kept.front()?.number;
        let wanted = u64::from(packet_id.checked_sub(1)?);
        Some(oldest + (wanted + PACKET_IDS - oldest % PACKET_IDS) % PACKET_IDS)
    }

    /// The commit of the row at `place` returned (true) or failed.
    pub(super) fn committed(&mut self, slot: Slot, place: u64, size_bytes: usize, kept: bool) {
        if self.tail.committed(place, kept) {
            if !kept {
                self.bytes -= size_bytes.min(self.bytes);
            }
            return;
        }
        let Some(at) = self.index(slot.number) else { return };
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
        self.asleep = false;
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

    /// Places of rows in memory that an older release wrote, which a session's range does not cover.
    pub(super) fn places_below(&self, limit: u64) -> Vec<u64> {
        self.kept.iter().filter_map(|entry| entry.place).filter(|place| *place < limit).collect()
    }

    /// Forgets QoS 0 messages and spare memory: nobody is connected. What was never sent and is on the disk is not
    /// needed here.
    pub(super) fn disconnected(&mut self) {
        self.asleep = true;
        while !self.tail.is_loading()
            && let Some(Entry { number, place: Some(place), stage: Stage::Waiting, dup: false, .. }) = self.kept.back()
        {
            self.tail.push_front(*number, *place);
            self.kept.pop_back();
        }
        self.cursor = self.cursor.min(self.kept.len());
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
mod tests;
