//! What of the queue is due: alarms, fresh rows, a backlog. Pure.

use std::collections::HashMap;
use std::time::Duration;

use rand::Rng;

use crate::base::Backoff;
use crate::outbox::{Class, Position, StreamKey};

use super::flight::Flights;

/// A stream is behind when more new rows wait than so many batches take.
const BATCHES_BEHIND: u64 = 4;

/// Streams whose batches were refused wait, while the others go on.
#[derive(Debug, Default)]
pub(super) struct Holds {
    /// Until when, since boot.
    streams: HashMap<StreamKey, (Backoff, Duration)>,
}

impl Holds {
    pub(super) fn is_held(&self, key: &StreamKey, now: Duration) -> bool {
        self.until(key, now).is_some()
    }

    fn until(&self, key: &StreamKey, now: Duration) -> Option<Duration> {
        self.streams.get(key).map(|(_, until)| *until).filter(|until| *until > now)
    }

    /// The stream waits, longer each time. Gives how long.
    pub(super) fn hold(&mut self, key: StreamKey, fresh: Backoff, now: Duration, rng: &mut impl Rng) -> Duration {
        let (backoff, until) = self.streams.entry(key).or_insert((fresh, now));
        let wait = backoff.next_wait(rng);
        *until = now + wait;
        wait
    }

    pub(super) fn release(&mut self, key: &StreamKey) {
        self.streams.remove(key);
    }
}

/// How many rows wait of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    pub(super) alarms: u64,
    /// Came since the link is up, and no stream is far behind with them.
    pub(super) fresh: u64,
    /// Waited when the link came up, or could not leave as fast as it came.
    pub(super) backlog: u64,
    /// There are entries of the ledger that no row takes along.
    pub(super) losses: bool,
    /// When the first held stream may try again, since boot.
    pub(super) held_until: Option<Duration>,
}

/// Counts what is not on its way. Streams of a class that is not `allowed` count as empty. Without `live` all but
/// alarms is one queue, the oldest first.
pub(super) fn tally(
    positions: &[Position],
    flights: &Flights<StreamKey>,
    holds: &Holds,
    allowed: impl Fn(Class) -> bool,
    (batch_rows, live): (u64, bool),
    now: Duration,
) -> Tally {
    let mut tally = Tally::default();
    for Position { key, settled, last, rows, losses, .. } in positions {
        let waiting = rows.saturating_sub(flights.rows(key));
        // An entry of the ledger without rows to travel with goes by itself, unless it is on its way.
        let alone = waiting == 0 && *losses > 0 && flights.covered(key).next().is_none();
        if (waiting == 0 && !alone) || !allowed(key.class) {
            continue;
        }
        if let Some(until) = holds.until(key, now) {
            tally.held_until = Some(tally.held_until.map_or(until, |earlier| earlier.min(until)));
            continue;
        }
        if key.class == Class::Alarm {
            tally.alarms += waiting.max(1);
            continue;
        }
        tally.losses |= alone;
        let begin = flights.highest(key).map_or(settled.0, |highest| highest.0.max(settled.0));
        let new = waiting.min(last.0.saturating_sub(begin));
        let fresh = match new {
            _ if !live => new,
            new if new > batch_rows * BATCHES_BEHIND => batch_rows,
            new => new,
        };
        tally.fresh += fresh;
        tally.backlog += waiting - fresh;
    }
    tally
}

/// Rows wait for company: until a batch is full, or the first of them has waited long enough.
#[derive(Debug)]
pub(super) struct Company {
    batch_rows: u64,
    linger: Duration,
    /// Since boot.
    until: Option<Duration>,
}

impl Company {
    pub(super) fn new(batch_rows: u64, linger: Duration) -> Self {
        Self { batch_rows, linger, until: None }
    }

    /// How long rows have to wait now; zero is not at all, None that there are none.
    pub(super) fn wait(&mut self, rows: u64, now: Duration) -> Option<Duration> {
        if rows == 0 {
            self.until = None;
            return None;
        }
        let until = *self.until.get_or_insert(now + self.linger);
        Some(if rows >= self.batch_rows { Duration::ZERO } else { until.saturating_sub(now) })
    }

    /// What waited has left, or was not there.
    pub(super) fn again(&mut self) {
        self.until = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Name, Seq};
    use crate::outbox::StreamHandle;

    fn position(class: Class, settled: u64, last: u64) -> Position {
        let key = StreamKey::new(Name::new("press").unwrap(), class);
        Position {
            key,
            stream: StreamHandle::default(),
            settled: Seq(settled),
            last: Seq(last),
            rows: last.saturating_sub(settled),
            losses: 0,
        }
    }

    fn count(positions: &[Position], flights: &Flights<StreamKey>, live: bool) -> (u64, u64, u64) {
        let Tally { alarms, fresh, backlog, .. } =
            tally(positions, flights, &Holds::default(), |class| class != Class::Raw, (100, live), Duration::ZERO);
        (alarms, fresh, backlog)
    }

    #[test]
    fn what_waited_when_the_link_came_up_is_backlog_and_what_comes_is_fresh() {
        let mut flights = Flights::new();
        let streams =
            |last| [position(Class::Alarm, 0, 7), position(Class::Verdict, 1000, last), position(Class::Raw, 0, 9)];
        flights.begin(&streams(0)[1].key, Seq(6000));
        assert_eq!(count(&streams(6000), &flights, true), (7, 0, 5000), "raw rows are not allowed");
        assert_eq!(count(&streams(6030), &flights, true), (7, 30, 5000));
        flights.depart(&streams(0)[1].key, Seq(6001), Seq(6030), 30);
        assert_eq!(count(&streams(6030), &flights, true), (7, 0, 5000));
    }

    #[test]
    fn a_loss_without_rows_is_due_until_it_is_on_its_way() {
        let mut flights = Flights::new();
        let emptied = Position { rows: 0, losses: 1, ..position(Class::Summary, 0, 9) };
        let losses = |flights: &_| {
            let all = |_| true;
            tally(std::slice::from_ref(&emptied), flights, &Holds::default(), all, (100, true), Duration::ZERO).losses
        };
        assert!(losses(&flights));
        let (ticket, _) = flights.depart(&emptied.key, Seq(1), Seq(9), 0);
        assert!(!losses(&flights));
        flights.refuse(ticket);
        assert!(losses(&flights));
    }

    #[test]
    fn a_stream_that_falls_behind_has_a_backlog_but_not_for_a_batch_or_two() {
        let mut flights = Flights::new();
        let key = position(Class::Verdict, 0, 0).key;
        flights.begin(&key, Seq(0));
        assert_eq!(count(&[position(Class::Verdict, 0, 400)], &flights, true), (0, 400, 0));
        assert_eq!(count(&[position(Class::Verdict, 0, 401)], &flights, true), (0, 100, 301));
        assert_eq!(count(&[position(Class::Verdict, 0, 401)], &flights, false), (0, 401, 0));
    }

    #[test]
    fn rows_wait_for_company_and_a_full_batch_does_not() {
        let mut company = Company::new(10, Duration::from_secs(1));
        let at = Duration::from_millis;
        assert_eq!(company.wait(0, at(0)), None);
        assert_eq!(company.wait(1, at(100)), Some(at(1000)));
        assert_eq!(company.wait(2, at(600)), Some(at(500)));
        assert_eq!(company.wait(10, at(600)), Some(at(0)));
        company.again();
        assert_eq!(company.wait(1, at(600)), Some(at(1000)));
    }
}
