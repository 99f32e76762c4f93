//! Which batches are on their way, per stream: what may be fetched next, what may be deleted, what must be sent again.
//! Pure, and the only place that decides it.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use crate::base::Seq;

/// One batch between submission and acknowledgement, whoever gives that: the broker or the receiver.
#[derive(Debug)]
struct Flight {
    ticket: u64,
    first: Seq,
    last: Seq,
    rows: u64,
    acknowledged: bool,
}

#[derive(Debug, Default)]
struct Stream {
    /// Everything up to here was acknowledged, without a hole.
    acknowledged: Option<Seq>,
    /// Everything up to here was submitted at some time; beyond it nothing was.
    highest: Option<Seq>,
    /// Ascending by `last`.
    flights: VecDeque<Flight>,
    /// Rows that were acknowledged and are still in the queue.
    leaving: u64,
}

/// A stream's numbers from `first` to `last` are acknowledged, and so is everything before them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arrived<K> {
    pub(super) key: K,
    pub(super) first: Seq,
    pub(super) last: Seq,
    /// Rows that this adds to what may be deleted.
    pub(super) rows: u64,
}

/// The batches that are on their way over one link.
#[derive(Debug)]
pub(super) struct Flights<K> {
    streams: HashMap<K, Stream>,
    tickets: HashMap<u64, K>,
    next_ticket: u64,
}

impl<K: Clone + Eq + Hash> Flights<K> {
    pub(super) fn new() -> Self {
        Self { streams: HashMap::new(), tickets: HashMap::new(), next_ticket: 1 }
    }

    /// Batches without an acknowledgement.
    pub(super) fn len(&self) -> usize {
        self.tickets.len()
    }

    /// Batches that are remembered: those without an acknowledgement, and those that wait for one before them.
    pub(super) fn remembered(&self) -> usize {
        self.streams.values().map(|stream| stream.flights.len()).sum()
    }

    /// Where fetching goes on: rows up to here are on their way, or acknowledged and being deleted.
    pub(super) fn cursor(&self, key: &K) -> Option<Seq> {
        let stream = self.streams.get(key)?;
        stream.flights.back().map(|flight| flight.last).max(stream.acknowledged)
    }

    /// Takes note of a batch and gives its ticket. True if rows of it were submitted before.
    pub(super) fn depart(&mut self, key: &K, first: Seq, last: Seq, rows: u64) -> (u64, bool) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let stream = self.streams.entry(key.clone()).or_default();
        debug_assert!(stream.flights.back().is_none_or(|flight| flight.last <= last));
        let again = stream.highest.is_some_and(|highest| first <= highest);
        stream.highest = stream.highest.max(Some(last));
        stream.flights.push_back(Flight { ticket, first, last, rows, acknowledged: false });
        self.tickets.insert(ticket, key.clone());
        (ticket, again)
    }

    /// Rows of the stream that are in the queue and need no fetching: on their way, or acknowledged and not yet deleted.
    pub(super) fn rows(&self, key: &K) -> u64 {
        let Some(stream) = self.streams.get(key) else { return 0 };
        stream.leaving + stream.flights.iter().map(|flight| flight.rows).sum::<u64>()
    }

    /// So many acknowledged rows of the stream are deleted.
    pub(super) fn left(&mut self, key: &K, rows: u64) {
        if let Some(stream) = self.streams.get_mut(key) {
            stream.leaving = stream.leaving.saturating_sub(rows);
        }
    }

    /// The batch is acknowledged. Gives what may now be deleted, if that grew.
    pub(super) fn acknowledge(&mut self, ticket: u64) -> Option<Arrived<K>> {
        let key = self.tickets.remove(&ticket)?;
        let stream = self.streams.get_mut(&key)?;
        let flight = stream.flights.iter_mut().find(|flight| flight.ticket == ticket)?;
        flight.acknowledged = true;
        let first = stream.flights.front()?.first;
        let before = (stream.acknowledged, stream.leaving);
        while stream.flights.front().is_some_and(|flight| flight.acknowledged) {
            let flight = stream.flights.pop_front().expect("just seen");
            stream.acknowledged = stream.acknowledged.max(Some(flight.last));
            stream.leaving += flight.rows;
        }
        let last = stream.acknowledged.filter(|_| stream.acknowledged != before.0)?;
        Some(Arrived { key, first, last, rows: stream.leaving - before.1 })
    }

    /// The batch was not taken. It and everything of its stream behind it will be fetched again; what is still said
    /// about those changes nothing any more. Gives the stream and the tickets that ended, unless this one had before.
    pub(super) fn refuse(&mut self, ticket: u64) -> Option<(K, Vec<u64>)> {
        let key = self.tickets.get(&ticket)?.clone();
        let stream = self.streams.get_mut(&key)?;
        let at = stream.flights.iter().position(|flight| flight.ticket == ticket)?;
        let ended: Vec<u64> = stream.flights.drain(at..).map(|flight| flight.ticket).collect();
        for ticket in &ended {
            self.tickets.remove(ticket);
        }
        Some((key, ended))
    }

    /// The link is gone: nothing is on its way any more.
    pub(super) fn lose(&mut self) {
        self.tickets.clear();
        for stream in self.streams.values_mut() {
            stream.flights.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_an_unbroken_prefix_may_be_deleted() {
        let mut flights = Flights::new();
        let (one, _) = flights.depart(&"a", Seq(1), Seq(10), 10);
        let (two, _) = flights.depart(&"a", Seq(11), Seq(20), 10);
        let (other, _) = flights.depart(&"b", Seq(1), Seq(5), 5);
        assert_eq!(flights.acknowledge(two), None);
        assert_eq!(flights.acknowledge(other), Some(Arrived { key: "b", first: Seq(1), last: Seq(5), rows: 5 }));
        assert_eq!(flights.acknowledge(one), Some(Arrived { key: "a", first: Seq(1), last: Seq(20), rows: 20 }));
        assert_eq!(flights.len(), 0);
    }

    #[test]
    fn a_refused_batch_takes_the_later_ones_of_its_stream_back() {
        let mut flights = Flights::new();
        let (one, _) = flights.depart(&"a", Seq(1), Seq(10), 10);
        let (two, _) = flights.depart(&"a", Seq(11), Seq(20), 10);
        let (three, _) = flights.depart(&"a", Seq(21), Seq(30), 10);
        assert_eq!(flights.refuse(two), Some(("a", vec![two, three])));
        assert_eq!((flights.len(), flights.remembered()), (1, 1));
        assert_eq!(flights.acknowledge(three), None, "what is said about the third changes nothing any more");
        assert_eq!(flights.cursor(&"a"), Some(Seq(10)));
        assert_eq!(flights.acknowledge(one), Some(Arrived { key: "a", first: Seq(1), last: Seq(10), rows: 10 }));
        assert!(flights.depart(&"a", Seq(11), Seq(30), 20).1, "sent before");
        assert!(!flights.depart(&"a", Seq(31), Seq(31), 1).1);
    }

    #[test]
    fn after_a_loss_fetching_starts_behind_what_was_acknowledged() {
        let mut flights = Flights::new();
        let (one, _) = flights.depart(&"a", Seq(1), Seq(10), 10);
        flights.depart(&"a", Seq(11), Seq(20), 10);
        flights.depart(&"b", Seq(1), Seq(5), 5);
        flights.acknowledge(one);
        flights.lose();
        assert_eq!(flights.cursor(&"a"), Some(Seq(10)));
        assert_eq!(flights.cursor(&"b"), None);
        assert_eq!(flights.len(), 0);
    }

    #[test]
    fn rows_that_leave_are_counted_until_they_are_gone() {
        let mut flights = Flights::new();
        let (one, _) = flights.depart(&"a", Seq(1), Seq(10), 9);
        flights.depart(&"a", Seq(11), Seq(20), 10);
        flights.acknowledge(one);
        assert_eq!(flights.rows(&"a"), 19);
        flights.lose();
        assert_eq!(flights.rows(&"a"), 9);
        flights.left(&"a", 9);
        assert_eq!(flights.rows(&"a"), 0);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Depart(u64),
        Acknowledge(usize),
        Refuse(usize),
        Lose,
    }

    proptest! {
        /// Against a far side that is a set: what may be deleted was taken, and nothing is skipped.
        #[test]
        fn nothing_is_deleted_that_was_not_acknowledged(steps in proptest::collection::vec(prop_oneof![
            4 => (1_u64..5).prop_map(Step::Depart),
            4 => (0_usize..4).prop_map(Step::Acknowledge),
            1 => (0_usize..4).prop_map(Step::Refuse),
            1 => Just(Step::Lose),
        ], 0..200)) {
            let mut flights = Flights::new();
            let mut open: Vec<(u64, u64, u64)> = Vec::new();
            let mut gone = 0;
            let mut taken = std::collections::BTreeSet::new();
            for step in steps {
                match step {
                    Step::Depart(rows) => {
                        let first = flights.cursor(&()).map_or(1, |seq| seq.0 + 1);
                        let last = first + rows - 1;
                        open.push((flights.depart(&(), Seq(first), Seq(last), rows).0, first, last));
                    }
                    Step::Acknowledge(at) if at < open.len() => {
                        let (ticket, first, last) = open.remove(at);
                        taken.extend(first..=last);
                        if let Some(arrived) = flights.acknowledge(ticket) {
                            prop_assert_eq!(arrived.first.0, gone + 1);
                            gone = arrived.last.0;
                            prop_assert!((1..=gone).all(|seq| taken.contains(&seq)));
                        }
                    }
                    Step::Refuse(at) if at < open.len() => {
                        flights.refuse(open.remove(at).0);
                    }
                    Step::Lose => {
                        flights.lose();
                        open.clear();
                    }
                    Step::Acknowledge(_) | Step::Refuse(_) => {}
                }
            }
        }
    }
}
