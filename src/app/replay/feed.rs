//! Publishing with QoS 1 until every reading is acknowledged, over as many connections as it takes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rumqttc::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, Outgoing, Packet, QoS};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::base::{Backoff, Clock};

/// Events between the connection and the feed; the window bounds what can be under way.
const EVENT_BACKLOG: usize = 1024;
/// A connection with readings under way that is silent for this long is dead.
const SILENCE: Duration = Duration::from_secs(20);

/// Where and how fast to publish.
#[derive(Debug, Clone)]
pub struct Feed {
    /// Broker's host.
    pub host: String,
    /// Broker's port.
    pub port: u16,
    /// Topic of every reading.
    pub topic: String,
    /// Client id; a second feed with the same id takes over the first.
    pub client_id: String,
    /// User name and password (or key).
    pub login: Option<(String, String)>,
    /// Readings a second; `None` is as fast as the acknowledgements come.
    pub rate_per_s: Option<f64>,
    /// Readings under way without an acknowledgement.
    pub window: u16,
    /// Give up when nothing was acknowledged for this long.
    pub patience: Duration,
}

/// How far it is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Readings acknowledged so far.
    pub acknowledged: usize,
    /// Readings in all.
    pub total: usize,
    /// Connections that broke so far.
    pub reconnects: u32,
}

/// What it came to.
#[derive(Debug, Clone)]
pub struct Report {
    /// Readings acknowledged: all of them.
    pub acknowledged: usize,
    /// Times a reading was handed to a connection, repeats included.
    pub sent: usize,
    /// Connections that broke on the way.
    pub reconnects: u32,
    /// From publish to PUBACK, sorted, in microseconds. Readings whose connection broke are not in it.
    pub latencies_us: Vec<u32>,
    /// When each reading was first handed to a connection, time since boot.
    pub published: Vec<Duration>,
    /// From the first publish to the last acknowledgement.
    pub took: Duration,
}

impl Report {
    /// The latency that `share` (0 to 1) of the readings did not exceed, in microseconds.
    pub fn percentile_us(&self, share: f64) -> u32 {
        let last = self.latencies_us.len().saturating_sub(1);
        self.latencies_us.get((last as f64 * share).round() as usize).copied().unwrap_or(0)
    }
}

/// Why a feed gave up.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// Nothing was acknowledged for as long as the feed was told to wait.
    #[error(
        "failed to get an acknowledgement from {host}:{port} for {waited_s} s, with {acknowledged} of {total} acknowledged; is the broker running there?"
    )]
    NoProgress {
        /// Broker's host.
        host: String,
        /// Broker's port.
        port: u16,
        /// How long it waited.
        waited_s: u64,
        /// What it had by then.
        acknowledged: usize,
        /// What it wanted.
        total: usize,
        /// The newest connection error, if there was one.
        source: Option<ConnectionError>,
    },
    /// The broker answered, and the answer is no.
    #[error("failed to log in to {host}:{port} as {client_id}")]
    Refused {
        /// Broker's host.
        host: String,
        /// Broker's port.
        port: u16,
        /// Client id.
        client_id: String,
        /// The broker's answer.
        source: ConnectionError,
    },
}

/// What is still to do, over all connections.
struct Ledger<'a> {
    payloads: &'a [Vec<u8>],
    acknowledged: Vec<bool>,
    done: usize,
    sent: usize,
    latencies_us: Vec<u32>,
    published: Vec<Duration>,
}

impl Ledger<'_> {
    fn acknowledge(&mut self, index: usize, latency: Duration) {
        if !std::mem::replace(&mut self.acknowledged[index], true) {
            self.done += 1;
            self.latencies_us.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
        }
    }

    fn is_done(&self) -> bool {
        self.done == self.payloads.len()
    }
}

/// Publishes every payload in order and returns when all are acknowledged. After a broken connection
/// everything without an acknowledgement is published again, in order.
pub async fn publish_all(
    feed: &Feed,
    payloads: &[Vec<u8>],
    clock: &Arc<dyn Clock>,
    mut on_progress: impl FnMut(Progress),
) -> Result<Report, FeedError> {
    let total = payloads.len();
    let mut ledger = Ledger {
        payloads,
        acknowledged: vec![false; total],
        done: 0,
        sent: 0,
        latencies_us: Vec::with_capacity(total),
        published: Vec::with_capacity(total),
    };
    let mut pace = Pace::new(feed.rate_per_s, clock.since_boot());
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
    let mut rng = StdRng::seed_from_u64(total as u64);
    let mut reconnects = 0;
    let started = clock.since_boot();
    let mut progressed = started;
    while !ledger.is_done() {
        let before = ledger.done;
        let ended = one_connection(feed, clock.as_ref(), &mut ledger, &mut pace, |acknowledged| {
            on_progress(Progress { acknowledged, total, reconnects });
        })
        .await;
        if ledger.is_done() {
            break;
        }
        let source = ended.err();
        if let Some(source @ ConnectionError::ConnectionRefused(_)) = source {
            let Feed { host, client_id, port, .. } = feed.clone();
            return Err(FeedError::Refused { host, port, client_id, source });
        }
        reconnects += 1;
        if ledger.done > before {
            progressed = clock.since_boot();
            backoff.reset();
        }
        let waited = clock.since_boot().saturating_sub(progressed);
        if waited > feed.patience {
            let (host, port) = (feed.host.clone(), feed.port);
            let (waited_s, acknowledged) = (waited.as_secs(), ledger.done);
            return Err(FeedError::NoProgress { host, port, waited_s, acknowledged, total, source });
        }
        tokio::time::sleep(backoff.next_wait(&mut rng)).await;
    }
    let took = clock.since_boot().saturating_sub(started);
    ledger.latencies_us.sort_unstable();
    let Ledger { done, sent, latencies_us, published, .. } = ledger;
    Ok(Report { acknowledged: done, sent, reconnects, latencies_us, published, took })
}

/// Publishes what is missing over one connection, until it breaks or nothing is missing.
async fn one_connection(
    feed: &Feed,
    clock: &dyn Clock,
    ledger: &mut Ledger<'_>,
    pace: &mut Pace,
    mut on_progress: impl FnMut(usize),
) -> Result<(), ConnectionError> {
    let mut options = MqttOptions::new(&feed.client_id, &feed.host, feed.port);
    options.set_keep_alive(Duration::from_secs(5)).set_inflight(feed.window).set_clean_session(true);
    if let Some((user, password)) = &feed.login {
        options.set_credentials(user, password);
    }
    let (client, mut connection) = AsyncClient::new(options, usize::from(feed.window));
    let mut network = connection.network_options();
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(5);
    connection.set_network_options(network);
    let (tell, mut events) = mpsc::channel(EVENT_BACKLOG);
    let mut tasks = JoinSet::new();
    tasks.spawn(forward(connection, tell));

    let missing: Vec<usize> = (0..ledger.payloads.len()).filter(|&at| !ledger.acknowledged[at]).collect();
    let mut missing = missing.into_iter().peekable();
    let mut handed_over: VecDeque<(usize, Duration)> = VecDeque::new();
    let mut under_way: HashMap<u16, (usize, Duration)> = HashMap::new();
    loop {
        let now = clock.since_boot();
        while handed_over.len() + under_way.len() < usize::from(feed.window) && pace.due(now) {
            let Some(&index) = missing.peek() else { break };
            if client.try_publish(&feed.topic, QoS::AtLeastOnce, false, ledger.payloads[index].as_slice()).is_err() {
                break;
            }
            missing.next();
            pace.took_one();
            ledger.sent += 1;
            if index == ledger.published.len() {
                ledger.published.push(now);
            }
            handed_over.push_back((index, now));
        }
        let window_full = handed_over.len() + under_way.len() >= usize::from(feed.window);
        let waits_for_pace = !window_full && missing.peek().is_some();
        let wait = if waits_for_pace { pace.wait(clock.since_boot()) } else { SILENCE };
        let event = match tokio::time::timeout(wait, events.recv()).await {
            Err(_elapsed) if waits_for_pace => continue,
            Err(_elapsed) => return Err(ConnectionError::NetworkTimeout),
            Ok(None) => return Ok(()),
            Ok(Some(event)) => event?,
        };
        match event {
            Event::Outgoing(Outgoing::Publish(packet_id)) => {
                if let Some(publish) = handed_over.pop_front() {
                    under_way.insert(packet_id, publish);
                }
            }
            Event::Incoming(Packet::PubAck(ack)) => {
                if let Some((index, published)) = under_way.remove(&ack.pkid) {
                    ledger.acknowledge(index, clock.since_boot().saturating_sub(published));
                    on_progress(ledger.done);
                }
                if ledger.is_done() {
                    let _ = client.try_disconnect();
                    return Ok(());
                }
            }
            _ => {}
        }
    }
}

async fn forward(mut connection: EventLoop, tell: mpsc::Sender<Result<Event, ConnectionError>>) {
    loop {
        let event = connection.poll().await;
        let broken = event.is_err();
        if tell.send(event).await.is_err() || broken {
            return;
        }
    }
}

/// Spreads readings evenly over time; time lost to a broken connection is not made up for in a burst.
struct Pace {
    interval: Option<Duration>,
    next: Duration,
}

impl Pace {
    fn new(rate_per_s: Option<f64>, now: Duration) -> Self {
        let interval = rate_per_s.filter(|rate| *rate > 0.0).map(|rate| Duration::from_secs_f64(1.0 / rate));
        Self { interval, next: now }
    }

    fn due(&mut self, now: Duration) -> bool {
        let Some(interval) = self.interval else { return true };
        // At most a tenth of a second of arrears.
        let behind = Duration::from_millis(100).max(interval);
        self.next = self.next.max(now.saturating_sub(behind));
        self.next <= now
    }

    fn took_one(&mut self) {
        self.next += self.interval.unwrap_or_default();
    }

    /// How long until the next reading is due, at least a millisecond.
    fn wait(&self, now: Duration) -> Duration {
        self.next.saturating_sub(now).max(Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_does_not_make_up_for_lost_minutes() {
        let second = Duration::from_secs(1);
        let mut pace = Pace::new(Some(100.0), Duration::ZERO);
        let mut burst = 0;
        while pace.due(60 * second) {
            pace.took_one();
            burst += 1;
        }
        assert!(burst <= 11, "{burst} readings at once after a minute's pause");
    }
}
