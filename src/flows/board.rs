//! What the gateway is doing right now, for whoever looks: the page, the JSON doors, the event stream.
//!
//! Flows write, doors read. Everything here can be lost: what must survive is in the store.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::broadcast;

use crate::base::Name;

/// Events that a slow watcher may fall behind by before it misses some and is told so.
const EVENT_BACKLOG: usize = 1024;
/// Latencies kept for percentiles, newest first out last.
const LATENCY_SAMPLES: usize = 4096;

/// One reading with its verdict, as people see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// Position in the stream, from 1.
    pub seq: u64,
    /// When it was measured (source time, or arrival when the payload has none): ms since 1970, UTC.
    pub time_ms: i64,
    /// One value a configured field, in order; `null` where it was not a number.
    pub values: Vec<Option<f64>>,
    /// The model's score; absent until the first window is full or while no model serves.
    pub score: Option<f64>,
    /// What the model expected in the place of the first field, in its unit.
    pub expected: Option<f64>,
    /// `normal`, `pending`, `alarm`, `clearing` or `unscored`.
    pub state: &'static str,
}

/// One alarm from raise to clear.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Alert {
    /// Number on this box, from 1.
    pub id: i64,
    /// The stream it was raised on.
    pub stream: String,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// Source time of the raise, ms since 1970, UTC.
    pub raised_ms: i64,
    /// Source time of the clear; absent while it stands.
    pub cleared_ms: Option<i64>,
    /// The reading that raised it.
    pub raised_seq: u64,
    /// The worst score, or value where the rule looks at values, since the raise.
    pub peak_score: f64,
    /// True inside a quiet period: recorded, not announced.
    pub suppressed: bool,
}

/// Something happened.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A reading was committed with its verdict.
    Point {
        /// The stream.
        stream: Name,
        /// The reading.
        point: Point,
    },
    /// An alarm was raised, escalated or cleared, and is on disk.
    Alert {
        /// The alarm as it now stands.
        alert: Alert,
    },
}

/// Counters of one stream since the process started.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Tally {
    /// Readings committed.
    pub committed: u64,
    /// Readings that repeated one already committed: acknowledged, not stored again.
    pub duplicates: u64,
    /// Readings dropped by a policy (late, non-finite, out of range, missing field).
    pub dropped: u64,
    /// Readings kept but flagged or repaired by a policy.
    pub flagged: u64,
    /// Payloads that could not be decoded; each is kept in the list of rejected payloads.
    pub rejected: u64,
    /// QoS 0 payloads lost because the stream's mailbox or its share of the queue to the cloud was full.
    pub overflowed: u64,
    /// Readings of a stream with `durability = "memory"` that were acknowledged and then could not be written.
    pub unkept: u64,
    /// Readings that the expected rate says never came.
    pub missing: u64,
    /// Readings without a score although the stream has a model.
    pub unscored: u64,
    /// Alarms raised.
    pub alerts: u64,
}

/// Percentiles of the newest latencies, in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Latency {
    /// How many are behind these figures.
    pub count: usize,
    /// Median.
    pub p50_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
}

#[derive(Debug, Default)]
struct Live {
    tally: Tally,
    last: Option<Point>,
    to_verdict_us: VecDeque<u32>,
    to_commit_us: VecDeque<u32>,
}

/// The live side of one stream.
#[derive(Debug)]
pub struct StreamBoard {
    name: Name,
    live: Mutex<Live>,
}

impl StreamBoard {
    /// The stream's name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Changes the counters.
    pub fn count(&self, change: impl FnOnce(&mut Tally)) {
        change(&mut self.lock().tally);
    }

    /// Counters since the process started.
    pub fn tally(&self) -> Tally {
        self.lock().tally.clone()
    }

    /// The newest committed reading.
    pub fn last(&self) -> Option<Point> {
        self.lock().last.clone()
    }

    /// From arrival at the door to the verdict.
    pub fn verdict_latency(&self) -> Latency {
        percentiles(&self.lock().to_verdict_us)
    }

    /// From arrival at the door to the commit that the acknowledgement waits for.
    pub fn commit_latency(&self) -> Latency {
        percentiles(&self.lock().to_commit_us)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All streams and the event feed.
#[derive(Debug)]
pub struct Board {
    streams: Vec<Arc<StreamBoard>>,
    events: broadcast::Sender<Event>,
}

impl Board {
    /// A board for these streams, in configuration order.
    pub fn new(names: impl IntoIterator<Item = Name>) -> Self {
        let stream = |name| Arc::new(StreamBoard { name, live: Mutex::default() });
        Self { streams: names.into_iter().map(stream).collect(), events: broadcast::Sender::new(EVENT_BACKLOG) }
    }

    /// Every stream in configuration order.
    pub fn streams(&self) -> &[Arc<StreamBoard>] {
        &self.streams
    }

    /// One stream.
    pub fn stream(&self, name: &str) -> Option<&Arc<StreamBoard>> {
        self.streams.iter().find(|stream| stream.name.as_str() == name)
    }

    /// Everything from now on. A watcher that falls behind is told how many events it missed.
    pub fn watch(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// A reading is on disk. `verdict_us` and `commit_us` count from its arrival.
    pub fn committed(&self, stream: &StreamBoard, point: Point, verdict_us: u32, commit_us: u32) {
        {
            let mut live = stream.lock();
            live.tally.committed += 1;
            remember(&mut live.to_verdict_us, verdict_us);
            remember(&mut live.to_commit_us, commit_us);
            live.last = Some(point.clone());
        }
        if self.events.receiver_count() > 0 {
            let _ = self.events.send(Event::Point { stream: stream.name.clone(), point });
        }
    }

    /// An alarm changed and is on disk.
    pub fn alert(&self, alert: Alert) {
        let _ = self.events.send(Event::Alert { alert });
    }
}

fn remember(latencies: &mut VecDeque<u32>, latency_us: u32) {
    if latencies.len() == LATENCY_SAMPLES {
        latencies.pop_front();
    }
    latencies.push_back(latency_us);
}

fn percentiles(latencies: &VecDeque<u32>) -> Latency {
    if latencies.is_empty() {
        return Latency::default();
    }
    let mut sorted: Vec<_> = latencies.iter().copied().collect();
    sorted.sort_unstable();
    let at = |share: f64| u64::from(sorted[((sorted.len() - 1) as f64 * share).round() as usize]);
    Latency { count: sorted.len(), p50_us: at(0.5), p99_us: at(0.99) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(seq: u64) -> Point {
        Point { seq, time_ms: 0, values: vec![Some(1.0)], score: None, expected: None, state: "normal" }
    }

    #[test]
    fn percentiles_come_from_the_newest_latencies_only() {
        let board = Board::new([Name::new("s").unwrap()]);
        let stream = board.streams()[0].clone();
        for seq in 0..LATENCY_SAMPLES as u64 {
            board.committed(&stream, point(seq), 1_000_000, 1);
        }
        for seq in 0..LATENCY_SAMPLES as u64 {
            board.committed(&stream, point(seq), 10, 20);
        }
        let latency = stream.verdict_latency();
        assert_eq!((latency.count, latency.p50_us, latency.p99_us), (LATENCY_SAMPLES, 10, 10));
        assert_eq!(stream.commit_latency().p50_us, 20);
    }

    #[test]
    fn a_watcher_that_falls_behind_is_told_how_much_it_missed() {
        let board = Board::new([Name::new("s").unwrap()]);
        let mut watcher = board.watch();
        let stream = board.streams()[0].clone();
        for seq in 0..EVENT_BACKLOG as u64 + 5 {
            board.committed(&stream, point(seq), 1, 1);
        }
        assert!(matches!(watcher.try_recv(), Err(broadcast::error::TryRecvError::Lagged(5))));
    }
}
