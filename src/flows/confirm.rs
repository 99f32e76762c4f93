//! Which messages wait for whose word: the broker's first, then the receiver's receipt. Pure, and the only place that
//! decides what counts as an acknowledgement and what is sent again without one.
//!
//! A message waits with its bytes, bounded in number and bytes, so that sending it again is the same message and a late
//! receipt still fits it. Receipts may come before the broker's answer, late, twice, in any order or for strangers.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use crate::base::Digest;
use crate::uplink::Message;

use super::receipt::{Receipt, Span, Verdict};
use super::sync_settings::{AcknowledgedBy, SyncConfig};

/// A time that does not come.
const NEVER: Duration = Duration::MAX;

/// One message without its last word.
#[derive(Debug)]
struct Open {
    digest: Digest,
    span: Span,
    /// Rows of it; its other numbers are in the ledger.
    rows: u64,
    /// To be sent again; `None` where nobody will.
    message: Option<Message>,
    /// The broker has it; it is sent again at this time, which is never while the broker is asked once more.
    again_at: Option<Duration>,
    sends: u32,
}

/// What a receipt means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// This batch is safe with its receiver.
    Kept(u64),
    /// The receiver will not have this batch.
    Refused(u64, String),
    /// These rows of a batch of an earlier connection are safe with their receiver.
    KeptBefore(Span, u64),
    /// Nothing that waits: a repeat, a late one, or a stranger's.
    Nothing,
}

/// Everything that was handed to one link and is not settled.
#[derive(Debug)]
pub(super) struct Confirmations {
    by: AcknowledgedBy,
    most: usize,
    most_bytes: usize,
    first_wait: Duration,
    longest_wait: Duration,
    /// By the batch's ticket: the order of their first sending.
    open: BTreeMap<u64, Open>,
    by_digest: HashMap<Digest, u64>,
    /// What was not settled when a link was lost: a receipt for it may have been kept for this side. Newest last.
    earlier: VecDeque<(Digest, Span, u64)>,
    bytes: usize,
    /// By the link's ticket: what it has not answered yet. A batch that was given up still holds its place; so does a
    /// message that is no batch.
    asked: HashMap<u64, Option<u64>>,
    next_ask: u64,
    /// Nobody has confirmed anything since then, though there was something to confirm.
    quiet_since: Option<Duration>,
}

impl Confirmations {
    pub(super) fn new(by: AcknowledgedBy, config: &SyncConfig) -> Self {
        Self {
            by,
            most: config.unconfirmed_batches.max(1),
            most_bytes: config.unconfirmed_bytes,
            first_wait: Duration::from_millis(config.receipt_timeout_ms.max(1)),
            longest_wait: Duration::from_millis(config.receipt_most_ms.max(config.receipt_timeout_ms).max(1)),
            open: BTreeMap::new(),
            by_digest: HashMap::new(),
            earlier: VecDeque::new(),
            bytes: 0,
            asked: HashMap::new(),
            next_ask: 1,
            quiet_since: None,
        }
    }

    /// Messages that the link has not answered.
    pub(super) fn asked(&self) -> usize {
        self.asked.len()
    }

    /// No further batch may be sent before one is settled, unless it holds alarms.
    pub(super) fn is_full(&self) -> bool {
        self.open.len() >= self.most || (self.bytes >= self.most_bytes && !self.open.is_empty())
    }

    /// Nor one with alarms: they have a little room of their own, so that a receiver that confirms other things slowly
    /// is told of them.
    pub(super) fn is_full_for_alarms(&self) -> bool {
        self.open.len() >= self.most + self.most.div_ceil(8)
    }

    /// A batch is handed to the link. Gives the ticket for the link.
    pub(super) fn depart(&mut self, ticket: u64, (span, rows): (Span, u64), message: &Message) -> u64 {
        let receipts = self.by == AcknowledgedBy::Receiver;
        let digest = if receipts { Digest::of(&message.payload) } else { Digest::from([0; 32]) };
        let message = receipts.then(|| message.clone());
        self.bytes += message.as_ref().map_or(0, |message| message.payload.len());
        if receipts {
            self.by_digest.insert(digest, ticket);
            self.earlier.retain(|(known, ..)| *known != digest);
        }
        self.open.insert(ticket, Open { digest, span, rows, message, again_at: None, sends: 1 });
        self.ask(Some(ticket))
    }

    /// A message that is no batch is handed to the link: whatever becomes of it, nothing waits for it.
    pub(super) fn depart_otherwise(&mut self) -> u64 {
        self.ask(None)
    }

    fn ask(&mut self, ticket: Option<u64>) -> u64 {
        let asked = self.next_ask;
        self.next_ask += 1;
        self.asked.insert(asked, ticket);
        asked
    }

    /// The broker took a message. Gives the batch if its word is the last one.
    pub(super) fn taken(&mut self, asked: u64, now: Duration) -> Option<u64> {
        let ticket = self.asked.remove(&asked)??;
        if self.by == AcknowledgedBy::Broker {
            self.close(ticket);
            return Some(ticket);
        }
        let open = self.open.get_mut(&ticket)?;
        let wait = self.first_wait.saturating_mul(1 << (open.sends - 1).min(16)).min(self.longest_wait);
        open.again_at = Some(now + wait);
        self.quiet_since.get_or_insert(now);
        None
    }

    /// The broker did not take a message. Gives the batch, if it still waits.
    pub(super) fn not_taken(&mut self, asked: u64) -> Option<u64> {
        let ticket = self.asked.remove(&asked)??;
        self.open.contains_key(&ticket).then_some(ticket)
    }

    /// A receiver spoke. Its word counts for the very message that was sent, and for the numbers that it carried.
    pub(super) fn heard(&mut self, receipt: Receipt, now: Duration) -> Heard {
        let Some(&ticket) = self.by_digest.get(&receipt.digest) else {
            return self.heard_before(&receipt).unwrap_or(Heard::Nothing);
        };
        let known = match receipt.verdict {
            Verdict::Kept(span) if self.open.get(&ticket).is_none_or(|open| open.span != span) => Heard::Nothing,
            Verdict::Kept(_) => Heard::Kept(ticket),
            Verdict::Refused { reason } => Heard::Refused(ticket, reason),
        };
        if known != Heard::Nothing {
            self.is_heard(ticket, now);
        }
        known
    }

    /// A receipt that was kept for this side, or was long under way.
    fn heard_before(&mut self, receipt: &Receipt) -> Option<Heard> {
        let Verdict::Kept(span) = &receipt.verdict else { return None };
        let known = |(digest, sent, _): &(Digest, Span, u64)| *digest == receipt.digest && sent == span;
        let at = self.earlier.iter().position(known)?;
        self.earlier.remove(at).map(|(_, span, rows)| Heard::KeptBefore(span, rows))
    }

    /// A receiver that only knows the standard's words named the message by its Correlation Data.
    pub(super) fn heard_name(&mut self, digest: &Digest, now: Duration) -> Heard {
        let Some(&ticket) = self.by_digest.get(digest) else { return Heard::Nothing };
        self.is_heard(ticket, now);
        Heard::Kept(ticket)
    }

    fn is_heard(&mut self, ticket: u64, now: Duration) {
        self.close(ticket);
        // Somebody is there again: what waited meanwhile gets the time to be confirmed before it is sent once more.
        let was_silent = self.quiet_since.is_some_and(|since| now.saturating_sub(since) >= self.first_wait);
        if was_silent {
            for again_at in self.open.values_mut().filter_map(|open| open.again_at.as_mut()) {
                *again_at = (*again_at).max(now + self.first_wait);
            }
        }
        self.quiet_since = self.open.values().any(|open| open.again_at.is_some()).then_some(now);
    }

    /// This batch is settled or given up.
    pub(super) fn close(&mut self, ticket: u64) {
        let Some(open) = self.open.remove(&ticket) else { return };
        self.bytes -= open.message.as_ref().map_or(0, |message| message.payload.len());
        if self.by_digest.get(&open.digest) == Some(&ticket) {
            self.by_digest.remove(&open.digest);
        }
        if !self.open.values().any(|open| open.again_at.is_some()) {
            self.quiet_since = None;
        }
    }

    /// Since when nobody has confirmed anything, if that is longer than a receipt takes.
    pub(super) fn silent_since(&self, now: Duration) -> Option<Duration> {
        self.quiet_since.filter(|since| now.saturating_sub(*since) >= self.first_wait)
    }

    /// When the next message without a receipt has to be looked at.
    pub(super) fn due_at(&self, now: Duration) -> Option<Duration> {
        let mut waiting = self.open.values().filter_map(|open| open.again_at);
        let due_at = match self.silent_since(now) {
            // A silent receiver is asked by one message, not by all.
            Some(_) => waiting.next(),
            None => waiting.chain(self.quiet_since.map(|since| since + self.first_wait)).min(),
        };
        due_at.filter(|due_at| *due_at < NEVER)
    }

    fn late(&self, now: Duration) -> Option<u64> {
        let mut waiting = self.open.iter().filter(|(_, open)| open.again_at.is_some());
        let late = |open: &Open| open.again_at.is_some_and(|again_at| again_at <= now);
        let first = match self.silent_since(now) {
            Some(_) => waiting.next().filter(|(_, open)| late(open)),
            None => waiting.find(|(_, open)| late(open)),
        };
        first.map(|(ticket, _)| *ticket)
    }

    /// What the message that has waited too long costs, topic and payload.
    pub(super) fn late_bytes(&self, now: Duration) -> Option<u64> {
        let message = self.open.get(&self.late(now)?)?.message.as_ref()?;
        Some((message.topic.len() + message.payload.len()) as u64)
    }

    /// A message that has waited too long for its receipt, with a new ticket for the link.
    pub(super) fn again(&mut self, now: Duration) -> Option<(u64, Message)> {
        let ticket = self.late(now)?;
        let open = self.open.get_mut(&ticket)?;
        let message = open.message.clone()?;
        open.sends = open.sends.saturating_add(1);
        open.again_at = Some(NEVER);
        Some((self.ask(Some(ticket)), message))
    }

    /// The link is gone: nothing waits any more. A receipt that was given meanwhile still counts.
    pub(super) fn lose(&mut self) {
        if self.by == AcknowledgedBy::Receiver {
            let open = std::mem::take(&mut self.open).into_values();
            self.earlier.extend(open.map(|open| (open.digest, open.span, open.rows)));
            let most = 4 * self.most;
            self.earlier.drain(..self.earlier.len().saturating_sub(most));
        }
        self.open.clear();
        self.by_digest.clear();
        self.asked.clear();
        self.bytes = 0;
        self.quiet_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Epoch, Name, Seq};
    use crate::flows::flight::Flights;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const SECOND: Duration = Duration::from_secs(1);

    fn config() -> SyncConfig {
        SyncConfig { receipt_timeout_ms: 10_000, receipt_most_ms: 60_000, unconfirmed_batches: 8, ..Default::default() }
    }

    fn span(first: u64, last: u64) -> Span {
        let name = |text| Name::new(text).unwrap();
        Span { epoch: Epoch(1), class: name("raw"), stream: name("press"), first: Seq(first), last: Seq(last) }
    }

    fn sent(first: u64, last: u64) -> (Span, u64) {
        (span(first, last), last - first + 1)
    }

    fn message(first: u64, last: u64) -> Message {
        Message { topic: "t".to_owned(), payload: format!("{first}-{last}").into() }
    }

    fn receipt(first: u64, last: u64) -> Receipt {
        Receipt { digest: Digest::of(&message(first, last).payload), verdict: Verdict::Kept(span(first, last)) }
    }

    fn open(by: AcknowledgedBy) -> Confirmations {
        Confirmations::new(by, &config())
    }

    #[test]
    fn the_brokers_word_is_the_last_one_only_where_it_is_said_to_be() {
        let mut plain = open(AcknowledgedBy::Broker);
        let asked = plain.depart(7, sent(1, 2), &message(1, 2));
        assert_eq!(plain.taken(asked, SECOND), Some(7));
        let mut strict = open(AcknowledgedBy::Receiver);
        let asked = strict.depart(7, sent(1, 2), &message(1, 2));
        assert_eq!((strict.taken(asked, SECOND), strict.asked()), (None, 0));
        assert_eq!(strict.heard(receipt(1, 2), SECOND), Heard::Kept(7));
        assert_eq!(strict.heard(receipt(1, 2), SECOND), Heard::Nothing, "a repeat");
    }

    #[test]
    fn a_receipt_may_overtake_the_brokers_answer() {
        let mut strict = open(AcknowledgedBy::Receiver);
        let asked = strict.depart(7, sent(1, 2), &message(1, 2));
        assert_eq!(strict.heard(receipt(1, 2), SECOND), Heard::Kept(7));
        assert_eq!(strict.asked(), 1, "the link's window still holds it");
        assert_eq!((strict.taken(asked, SECOND), strict.asked()), (None, 0));
        assert_eq!(strict.due_at(SECOND), None);
    }

    #[test]
    fn a_receipt_for_other_bytes_or_other_numbers_counts_for_nothing() {
        let mut strict = open(AcknowledgedBy::Receiver);
        let asked = strict.depart(7, sent(1, 2), &message(1, 2));
        strict.taken(asked, SECOND);
        let other_bytes = Receipt { digest: Digest::of(b"other"), ..receipt(1, 2) };
        let other_numbers = Receipt { verdict: Verdict::Kept(span(1, 200)), ..receipt(1, 2) };
        for strange in [other_bytes, other_numbers, receipt(3, 4)] {
            assert_eq!(strict.heard(strange, SECOND), Heard::Nothing);
        }
        assert_eq!(strict.heard_name(&Digest::of(b"other"), SECOND), Heard::Nothing);
        assert_eq!(strict.heard_name(&receipt(1, 2).digest, SECOND), Heard::Kept(7));
    }

    #[test]
    fn a_silent_receiver_is_asked_by_one_message_less_and_less_often() {
        let mut strict = open(AcknowledgedBy::Receiver);
        for ticket in 1..4 {
            let asked = strict.depart(ticket, sent(ticket, ticket), &message(ticket, ticket));
            strict.taken(asked, SECOND);
        }
        assert_eq!(strict.due_at(SECOND), Some(11 * SECOND));
        assert_eq!(strict.again(10 * SECOND), None);
        let mut now = 11 * SECOND;
        for wait in [20, 40, 60, 60] {
            assert_eq!(strict.silent_since(now), Some(SECOND));
            let (asked, again) = strict.again(now).unwrap();
            assert_eq!(again, message(1, 1), "the same bytes");
            assert_eq!((strict.again(now), strict.due_at(now)), (None, None), "one at a time");
            strict.taken(asked, now);
            now += wait * SECOND;
            assert_eq!(strict.due_at(now), Some(now));
        }
        // Somebody is back: the others get the time to be confirmed.
        assert_eq!(strict.heard(receipt(1, 1), now), Heard::Kept(1));
        assert_eq!((strict.silent_since(now), strict.again(now)), (None, None));
        assert_eq!(strict.due_at(now), Some(now + 10 * SECOND));
        assert!(strict.again(now + 10 * SECOND).is_some());
    }

    #[test]
    fn a_message_that_only_the_broker_lost_is_sent_again_while_others_are_confirmed() {
        let mut strict = open(AcknowledgedBy::Receiver);
        for ticket in 1..5 {
            let asked = strict.depart(ticket, sent(ticket, ticket), &message(ticket, ticket));
            strict.taken(asked, SECOND);
        }
        assert_eq!(strict.heard(receipt(3, 3), 8 * SECOND), Heard::Kept(3));
        let again: Vec<_> = std::iter::from_fn(|| strict.again(11 * SECOND)).map(|(_, message)| message).collect();
        assert_eq!(again, [message(1, 1), message(2, 2), message(4, 4)]);
    }

    #[test]
    fn what_waits_is_bounded_in_number_and_bytes() {
        let mut strict = open(AcknowledgedBy::Receiver);
        for ticket in 1..9 {
            assert!(!strict.is_full());
            strict.depart(ticket, sent(ticket, ticket), &message(ticket, ticket));
        }
        assert!(strict.is_full() && !strict.is_full_for_alarms());
        strict.depart(9, sent(9, 9), &message(9, 9));
        assert!(strict.is_full_for_alarms());
        strict.close(9);
        strict.close(1);
        assert!(!strict.is_full());
        let small = SyncConfig { unconfirmed_bytes: 2, ..config() };
        let mut strict = Confirmations::new(AcknowledgedBy::Receiver, &small);
        assert!(!strict.is_full());
        strict.depart(1, sent(1, 1), &message(1, 1));
        assert!(strict.is_full());
    }

    #[test]
    fn a_receipt_of_an_earlier_connection_counts_once_for_its_bytes_and_numbers() {
        let mut strict = open(AcknowledgedBy::Receiver);
        for (ticket, first) in [(1, 1), (2, 3), (3, 5)] {
            strict.depart(ticket, sent(first, first + 1), &message(first, first + 1));
        }
        strict.lose();
        let forged = Receipt { digest: receipt(1, 2).digest, verdict: Verdict::Kept(span(1, 6)) };
        assert_eq!(strict.heard(forged, SECOND), Heard::Nothing, "other numbers");
        assert_eq!(strict.heard(receipt(1, 2), SECOND), Heard::KeptBefore(span(1, 2), 2));
        assert_eq!(strict.heard(receipt(1, 2), SECOND), Heard::Nothing, "only once");
        strict.depart(4, sent(3, 4), &message(3, 4));
        assert_eq!(strict.heard(receipt(3, 4), SECOND), Heard::Kept(4), "the same bytes were sent again");
        assert_eq!(strict.heard(receipt(3, 4), SECOND), Heard::Nothing);
        let refused = Receipt { verdict: Verdict::Refused { reason: String::new() }, ..receipt(5, 6) };
        assert_eq!(strict.heard(refused, SECOND), Heard::Nothing, "it is sent again anyway");
        for first in (100..200).step_by(2) {
            strict.depart(first, sent(first, first + 1), &message(first, first + 1));
            strict.lose();
        }
        assert_eq!(strict.earlier.len(), 4 * config().unconfirmed_batches, "bounded");
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        /// So many rows leave.
        Depart(u64),
        /// The broker answers the n-th message that waits for it: takes it, or does not.
        Broker(usize, bool),
        /// The broker forgets what it took.
        BrokerForgets,
        /// The receiver commits the n-th message that the broker has, and says so; the broker may bring it again.
        Commit(usize, bool),
        /// The n-th receipt arrives; it may stay under way, to arrive again.
        Receipt(usize, bool),
        /// Somebody says that everything up to here is safe.
        Forge(u64),
        /// So many seconds pass.
        Wait(u64),
        /// The queue drops its oldest rows: receipts for them may still come.
        Lose,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            5 => (1_u64..4).prop_map(Step::Depart),
            5 => (0_usize..9, proptest::bool::weighted(0.9)).prop_map(|(at, takes)| Step::Broker(at, takes)),
            1 => Just(Step::BrokerForgets),
            5 => (0_usize..9, proptest::bool::weighted(0.2)).prop_map(|(at, again)| Step::Commit(at, again)),
            5 => (0_usize..9, proptest::bool::weighted(0.2)).prop_map(|(at, again)| Step::Receipt(at, again)),
            1 => (1_u64..99).prop_map(Step::Forge),
            3 => (0_u64..40).prop_map(Step::Wait),
            1 => Just(Step::Lose),
        ]
    }

    /// The first numbers that are neither on their way nor deleted, as the outbox gives them.
    fn free(flights: &Flights<()>, deleted: &BTreeSet<u64>, rows: u64) -> (u64, u64) {
        let covered: Vec<_> = flights.covered(&()).collect();
        let taken = |n: u64| deleted.contains(&n) || covered.iter().any(|(from, to)| (from.0..=to.0).contains(&n));
        let first = (1..).find(|n| !taken(*n)).unwrap();
        (first, (first..first + rows).take_while(|n| !taken(*n)).last().unwrap())
    }

    /// A queue, a broker that forgets and a receiver, as sets.
    #[derive(Default)]
    struct World {
        now: Duration,
        asked: Vec<(u64, Message)>,
        /// What the broker holds for the receiver.
        broker: Vec<Message>,
        receipts: Vec<Message>,
        committed: BTreeSet<u64>,
        deleted: BTreeSet<u64>,
        /// Of all that ever departed.
        highest: u64,
    }

    fn numbers(message: &Message) -> (u64, u64) {
        let text = std::str::from_utf8(&message.payload).unwrap();
        let (first, last) = text.split_once('-').unwrap();
        (first.parse().unwrap(), last.parse().unwrap())
    }

    fn take(list_len: usize, at: usize) -> Option<usize> {
        (list_len > 0).then(|| at % list_len)
    }

    impl World {
        fn step(&mut self, step: Step, flights: &mut Flights<()>, strict: &mut Confirmations) {
            match step {
                Step::Depart(rows) => {
                    if strict.is_full() {
                        return;
                    }
                    let (first, last) = free(flights, &self.deleted, rows);
                    let (ticket, _) = flights.depart(&(), Seq(first), Seq(last), last - first + 1);
                    self.highest = self.highest.max(last);
                    let message = message(first, last);
                    self.asked.push((strict.depart(ticket, sent(first, last), &message), message));
                }
                Step::Broker(at, takes) => {
                    let Some(at) = take(self.asked.len(), at) else { return };
                    let (asked, message) = self.asked.remove(at);
                    if takes {
                        assert_eq!(strict.taken(asked, self.now), None, "the broker's word is not enough");
                        self.broker.push(message);
                    } else if let Some(ticket) = strict.not_taken(asked) {
                        strict.close(ticket);
                        flights.refuse(ticket);
                    }
                }
                Step::BrokerForgets => self.broker.clear(),
                Step::Commit(at, again) => {
                    let Some(at) = take(self.broker.len(), at) else { return };
                    let message = if again { self.broker[at].clone() } else { self.broker.remove(at) };
                    let (first, last) = numbers(&message);
                    self.committed.extend(first..=last);
                    self.receipts.push(message);
                }
                Step::Receipt(at, again) => {
                    let Some(at) = take(self.receipts.len(), at) else { return };
                    let message = if again { self.receipts[at].clone() } else { self.receipts.remove(at) };
                    let (first, last) = numbers(&message);
                    let arrived = match strict.heard(receipt(first, last), self.now) {
                        Heard::Kept(ticket) => flights.acknowledge(ticket),
                        Heard::KeptBefore(span, rows) => flights.arrived_before(&(), span.first, span.last, rows),
                        Heard::Refused(..) | Heard::Nothing => None,
                    };
                    if let Some(arrived) = arrived {
                        self.deleted.extend(arrived.first.0..=arrived.last.0);
                        flights.left(&arrived);
                        assert!(self.deleted.is_subset(&self.committed), "deleted too early");
                    }
                }
                Step::Forge(last) => {
                    let forged = Receipt { digest: Digest::of(b"a guess"), verdict: Verdict::Kept(span(1, last)) };
                    assert_eq!(strict.heard(forged, self.now), Heard::Nothing);
                }
                Step::Wait(seconds) => {
                    self.now += u32::try_from(seconds).unwrap() * SECOND;
                    while let Some(again) = strict.again(self.now) {
                        self.asked.push(again);
                    }
                }
                Step::Lose => {
                    flights.lose();
                    strict.lose();
                    self.asked.clear();
                }
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_is_deleted_before_the_receivers_commit_and_everything_is_in_the_end(
            steps in proptest::collection::vec(step(), 0..300)
        ) {
            let (mut flights, mut strict) = (Flights::new(), open(AcknowledgedBy::Receiver));
            let mut world = World::default();
            for step in steps {
                world.step(step, &mut flights, &mut strict);
            }
            // From here on nobody forgets, and time passes; what was refused departs again.
            for _ in 0..1000 {
                if free(&flights, &world.deleted, 1).0 <= world.highest {
                    world.step(Step::Depart(1), &mut flights, &mut strict);
                }
                for step in [Step::Broker(0, true), Step::Commit(0, false), Step::Receipt(0, false), Step::Wait(30)] {
                    world.step(step, &mut flights, &mut strict);
                }
            }
            prop_assert_eq!((flights.len(), strict.asked()), (0, 0));
            prop_assert_eq!(world.deleted, (1..=world.highest).collect::<BTreeSet<_>>());
            prop_assert_eq!((strict.bytes, strict.open.len(), strict.by_digest.len()), (0, 0, 0));
            prop_assert_eq!(strict.quiet_since, None);
        }
    }
}
