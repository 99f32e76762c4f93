//! Which batches are on their way, per stream: what must not be fetched again, what may be deleted, what must be sent
//! again. Pure, and the only place that decides it.
//!
//! Batches of a stream leave in two orders at once (oldest rows first, and the newest ones while a backlog drains), so
//! what is known of a stream is ranges of numbers, not a prefix. Each acknowledged batch may be deleted by itself: the
//! queue copes with holes.

use std::collections::HashMap;
use std::hash::Hash;

use crate::base::Seq;

/// Most ranges per stream of which is remembered that they were sent before; only a counter depends on them.
const MAX_RETURNED: usize = 64;

/// One batch between submission and answer, or between its acknowledgement and its deletion.
#[derive(Debug)]
struct Flight {
    ticket: u64,
    first: Seq,
    last: Seq,
    rows: u64,
}

#[derive(Debug, Default)]
struct Stream {
    /// On their way.
    flights: Vec<Flight>,
    /// Acknowledged, and still in the queue.
    leaving: Vec<Flight>,
    /// Everything beyond it came since the link is up and was not submitted.
    highest: Option<Seq>,
    /// Submitted at some time and not acknowledged.
    returned: Vec<(Seq, Seq)>,
}

impl Stream {
    fn take_back(&mut self, flight: &Flight) {
        if self.returned.len() < MAX_RETURNED {
            self.returned.push((flight.first, flight.last));
        }
    }
}

/// The rows of one acknowledged batch: they may be deleted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arrived<K> {
    pub(super) key: K,
    pub(super) first: Seq,
    pub(super) last: Seq,
    /// Rows of it; the other numbers are in the ledger.
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

    /// Batches without an answer.
    pub(super) fn len(&self) -> usize {
        self.tickets.len()
    }

    /// Numbers that need no fetching: on their way, or acknowledged and being deleted.
    pub(super) fn covered(&self, key: &K) -> impl Iterator<Item = (Seq, Seq)> {
        let stream = self.streams.get(key);
        stream
            .into_iter()
            .flat_map(|stream| stream.flights.iter().chain(&stream.leaving).map(|flight| (flight.first, flight.last)))
    }

    /// The link came up when `last` was the stream's last number: what is beyond it is fresh.
    pub(super) fn begin(&mut self, key: &K, last: Seq) {
        let stream = self.streams.entry(key.clone()).or_default();
        stream.highest = stream.highest.max(Some(last));
    }

    /// Beyond this number all rows came since the link is up, and none was submitted.
    pub(super) fn highest(&self, key: &K) -> Option<Seq> {
        self.streams.get(key)?.highest
    }

    /// Takes note of a batch and gives its ticket. True if rows of it were submitted before.
    pub(super) fn depart(&mut self, key: &K, first: Seq, last: Seq, rows: u64) -> (u64, bool) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let stream = self.streams.entry(key.clone()).or_default();
        let before = stream.returned.len();
        stream.returned.retain(|&(from, to)| to < first || last < from);
        let again = stream.returned.len() < before;
        stream.highest = stream.highest.max(Some(last));
        stream.flights.push(Flight { ticket, first, last, rows });
        self.tickets.insert(ticket, key.clone());
        (ticket, again)
    }

    /// Rows of the stream that are in the queue and need no fetching: on their way, or acknowledged and not yet deleted.
    pub(super) fn rows(&self, key: &K) -> u64 {
        let Some(stream) = self.streams.get(key) else { return 0 };
        stream.flights.iter().chain(&stream.leaving).map(|flight| flight.rows).sum()
    }

    /// The rows of an acknowledged batch are deleted.
    pub(super) fn left(&mut self, gone: &Arrived<K>) {
        if let Some(stream) = self.streams.get_mut(&gone.key) {
            stream.leaving.retain(|flight| (flight.first, flight.last) != (gone.first, gone.last));
        }
    }

    /// The batch is acknowledged. Gives what may now be deleted, unless nothing is known of it any more.
    pub(super) fn acknowledge(&mut self, ticket: u64) -> Option<Arrived<K>> {
        let (key, flight) = self.land(ticket)?;
        let (first, last, rows) = (flight.first, flight.last, flight.rows);
        self.streams.get_mut(&key)?.leaving.push(flight);
        Some(Arrived { key, first, last, rows })
    }

    /// A batch of an earlier connection turns out to have arrived. Gives what may now be deleted, unless some of its rows
    /// are on their way again: then they will be answered for themselves.
    pub(super) fn arrived_before(&mut self, key: &K, first: Seq, last: Seq, rows: u64) -> Option<Arrived<K>> {
        if self.covered(key).any(|(from, to)| from <= last && first <= to) {
            return None;
        }
        self.streams.entry(key.clone()).or_default().leaving.push(Flight { ticket: 0, first, last, rows });
        Some(Arrived { key: key.clone(), first, last, rows })
    }

    /// The batch was not taken and will be fetched again. Gives its stream.
    pub(super) fn refuse(&mut self, ticket: u64) -> Option<K> {
        let (key, flight) = self.land(ticket)?;
        self.streams.get_mut(&key)?.take_back(&flight);
        Some(key)
    }

    /// The batch was never handed over.
    pub(super) fn cancel(&mut self, ticket: u64) {
        self.land(ticket);
    }

    fn land(&mut self, ticket: u64) -> Option<(K, Flight)> {
        let key = self.tickets.remove(&ticket)?;
        let stream = self.streams.get_mut(&key)?;
        let at = stream.flights.iter().position(|flight| flight.ticket == ticket)?;
        Some((key, stream.flights.swap_remove(at)))
    }

    /// The link is gone: nothing is on its way any more. Gives the batches that were.
    pub(super) fn lose(&mut self) -> usize {
        for stream in self.streams.values_mut() {
            for flight in std::mem::take(&mut stream.flights) {
                stream.take_back(&flight);
            }
            stream.highest = None;
        }
        let lost = self.tickets.len();
        self.tickets.clear();
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn arrived(key: &'static str, first: u64, last: u64, rows: u64) -> Arrived<&'static str> {
        Arrived { key, first: Seq(first), last: Seq(last), rows }
    }

    #[test]
    fn what_arrived_over_an_earlier_link_may_be_deleted_unless_it_is_on_its_way_again() {
        let mut flights = Flights::new();
        let (again, _) = flights.depart(&"a", Seq(4), Seq(6), 3);
        assert_eq!(flights.arrived_before(&"a", Seq(1), Seq(4), 4), None);
        assert_eq!(flights.arrived_before(&"a", Seq(1), Seq(3), 3), Some(arrived("a", 1, 3, 3)));
        assert_eq!(flights.arrived_before(&"a", Seq(1), Seq(3), 3), None, "it is being deleted");
        assert_eq!(flights.rows(&"a"), 6, "none of it needs fetching");
        flights.left(&arrived("a", 1, 3, 3));
        assert_eq!((flights.rows(&"a"), flights.len()), (3, 1));
        assert_eq!(flights.acknowledge(again), Some(arrived("a", 4, 6, 3)));
    }

    #[test]
    fn each_acknowledged_batch_may_be_deleted_and_no_other() {
        let mut flights = Flights::new();
        let (one, _) = flights.depart(&"a", Seq(1), Seq(10), 10);
        let (two, _) = flights.depart(&"a", Seq(11), Seq(20), 10);
        let (newest, _) = flights.depart(&"a", Seq(90), Seq(99), 9);
        assert_eq!(flights.acknowledge(two), Some(arrived("a", 11, 20, 10)));
        assert_eq!(flights.acknowledge(newest), Some(arrived("a", 90, 99, 9)));
        assert_eq!(flights.acknowledge(one), Some(arrived("a", 1, 10, 10)));
        assert_eq!(flights.acknowledge(one), None);
        assert_eq!(flights.len(), 0);
    }

    #[test]
    fn a_refused_batch_is_fetched_again_and_the_others_go_on() {
        let mut flights = Flights::new();
        let (one, _) = flights.depart(&"a", Seq(1), Seq(10), 10);
        let (two, _) = flights.depart(&"a", Seq(11), Seq(20), 10);
        assert_eq!(flights.refuse(one), Some("a"));
        assert_eq!(flights.covered(&"a").collect::<Vec<_>>(), [(Seq(11), Seq(20))]);
        assert_eq!(flights.acknowledge(two), Some(arrived("a", 11, 20, 10)));
        assert!(flights.depart(&"a", Seq(1), Seq(5), 5).1, "sent before");
        assert!(!flights.depart(&"a", Seq(21), Seq(21), 1).1);
    }

    #[test]
    fn after_a_loss_only_what_was_acknowledged_stays_covered() {
        let mut flights = Flights::new();
        let (one, _) = flights.depart(&"a", Seq(1), Seq(10), 10);
        flights.depart(&"a", Seq(11), Seq(20), 10);
        flights.depart(&"b", Seq(1), Seq(5), 5);
        flights.acknowledge(one);
        assert_eq!(flights.lose(), 2);
        assert_eq!(flights.covered(&"a").collect::<Vec<_>>(), [(Seq(1), Seq(10))]);
        assert_eq!((flights.highest(&"a"), flights.covered(&"b").count(), flights.len()), (None, 0, 0));
    }

    #[test]
    fn rows_that_leave_are_counted_until_they_are_gone() {
        let mut flights = Flights::new();
        let (one, _) = flights.depart(&"a", Seq(1), Seq(10), 9);
        flights.depart(&"a", Seq(11), Seq(20), 10);
        let gone = flights.acknowledge(one).unwrap();
        assert_eq!(flights.rows(&"a"), 19);
        flights.lose();
        assert_eq!(flights.rows(&"a"), 9);
        flights.left(&gone);
        assert_eq!(flights.rows(&"a"), 0);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Oldest(u64),
        Newest(u64),
        Acknowledge(usize),
        Refuse(usize),
        Delete,
        Lose,
    }

    /// The first free numbers from below, or the last ones, at most `rows`, as the outbox gives them.
    fn free(flights: &Flights<()>, deleted: &BTreeSet<u64>, newest: bool, rows: u64, end: u64) -> Option<(u64, u64)> {
        let covered: Vec<_> = flights.covered(&()).collect();
        let taken = |n: u64| deleted.contains(&n) || covered.iter().any(|(from, to)| (from.0..=to.0).contains(&n));
        if newest {
            let above =
                flights.highest(&()).map_or(0, |seq| seq.0).max(covered.iter().map(|c| c.1.0).max().unwrap_or(0));
            let first = (above + 1).max((end + 1).saturating_sub(rows));
            return (first <= end && !(first..=end).any(taken)).then_some((first, end));
        }
        let first = (1..=end).find(|n| !taken(*n))?;
        let last = (first..=end).take_while(|n| !taken(*n)).take(usize::try_from(rows).unwrap()).last()?;
        Some((first, last))
    }

    proptest! {
        /// Against a far side that is a set: what may be deleted was taken, nothing is on its way twice, and in the end
        /// nothing is left over, whatever order the two ends of the queue leave in.
        #[test]
        fn nothing_is_deleted_that_was_not_acknowledged_and_nothing_is_skipped(steps in proptest::collection::vec(prop_oneof![
            4 => (1_u64..5).prop_map(Step::Oldest),
            3 => (1_u64..5).prop_map(Step::Newest),
            5 => (0_usize..6).prop_map(Step::Acknowledge),
            1 => (0_usize..6).prop_map(Step::Refuse),
            2 => Just(Step::Delete),
            1 => Just(Step::Lose),
        ], 0..200)) {
            let mut flights = Flights::new();
            let mut open: Vec<(u64, u64, u64)> = Vec::new();
            let (mut taken, mut deleted) = (BTreeSet::new(), BTreeSet::new());
            let mut leaving: Vec<Arrived<()>> = Vec::new();
            let mut end = 20;
            let drain = std::iter::repeat_n([Step::Oldest(4), Step::Acknowledge(0), Step::Delete], 400).flatten();
            for step in steps.into_iter().chain([Step::Lose]).chain(drain) {
                match step {
                    Step::Oldest(rows) | Step::Newest(rows) => {
                        let newest = matches!(step, Step::Newest(_));
                        if newest {
                            end += rows;
                        }
                        let Some((first, last)) = free(&flights, &deleted, newest, rows, end) else { continue };
                        prop_assert!(open.iter().all(|(_, from, to)| *to < first || last < *from), "on its way twice");
                        open.push((flights.depart(&(), Seq(first), Seq(last), last - first + 1).0, first, last));
                    }
                    Step::Acknowledge(at) if at < open.len() => {
                        let (ticket, first, last) = open.remove(at);
                        taken.extend(first..=last);
                        let arrived = flights.acknowledge(ticket).unwrap();
                        prop_assert!((arrived.first.0..=arrived.last.0).all(|seq| taken.contains(&seq)));
                        leaving.push(arrived);
                    }
                    Step::Refuse(at) if at < open.len() => {
                        flights.refuse(open.remove(at).0);
                    }
                    Step::Delete => for gone in leaving.drain(..) {
                        deleted.extend(gone.first.0..=gone.last.0);
                        flights.left(&gone);
                    },
                    Step::Lose => {
                        flights.lose();
                        open.clear();
                    }
                    Step::Acknowledge(_) | Step::Refuse(_) => {}
                }
            }
            prop_assert_eq!(deleted, (1..=end).collect::<BTreeSet<_>>());
            prop_assert_eq!(flights.rows(&()), 0);
        }
    }
}
