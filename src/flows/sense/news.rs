//! Saying on the local broker what is on the disk: verdicts, alarm events, and the state of each alarm retained.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::sync::mpsc;

use crate::base::Receipt;
use crate::broker::{Broker, Message, Qos};
use crate::flows::board::{Alert, Point};

/// Verdicts that may wait for the broker; the newest beyond is dropped. Subscribers get them at QoS 0 in any case.
const MAX_VERDICTS: usize = 4096;
/// Alarm events that may wait; the oldest beyond is dropped. The state of each alarm is never dropped.
const MAX_EVENTS: usize = 1024;

/// A reading's verdict. It is on the disk.
#[derive(Debug)]
pub(super) struct News {
    pub stream: Arc<str>,
    pub id: Option<String>,
    pub point: Point,
}

/// What is dropped at the bounds.
#[derive(Debug, Clone, Default)]
pub struct NewsMetrics {
    dropped_verdicts: Counter,
    dropped_events: Counter,
}

impl NewsMetrics {
    /// Adds them to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        let (verdicts, events) = (self.dropped_verdicts.clone(), self.dropped_events.clone());
        registry.register("news_dropped_verdicts", "Verdicts not said on the local broker: it was behind", verdicts);
        registry.register("news_dropped_events", "Alarm events not said on the local broker: it was behind", events);
    }
}

#[derive(Default)]
struct Waiting {
    verdicts: VecDeque<News>,
    events: VecDeque<(Alert, &'static str)>,
    /// The newest state of each stream whose alarm changed: as many as there are streams.
    states: BTreeMap<String, Option<Alert>>,
}

/// Takes news from commits and never waits. The newscast ends when every desk is gone.
#[derive(Clone)]
pub(super) struct Desk {
    waiting: Arc<Mutex<Waiting>>,
    wake: mpsc::Sender<()>,
    metrics: NewsMetrics,
}

/// A desk and the newscast that reads from it.
pub(super) fn open(broker: Broker) -> (Desk, Newscast) {
    let (wake, woken) = mpsc::channel(1);
    let (waiting, metrics) = (Arc::default(), NewsMetrics::default());
    let desk = Desk { waiting: Arc::clone(&waiting), wake, metrics: metrics.clone() };
    (desk, Newscast { waiting, woken, metrics, broker })
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    /// A reading's verdict.
    pub(super) fn verdict(&self, news: News) {
        let mut waiting = lock(&self.waiting);
        if waiting.verdicts.len() >= MAX_VERDICTS {
            self.metrics.dropped_verdicts.inc();
            return;
        }
        waiting.verdicts.push_back(news);
        drop(waiting);
        // One wake-up is enough for all that waits.
        let _ = self.wake.try_send(());
    }

    /// An alarm was raised, escalated, released or cleared.
    pub(super) fn alert(&self, alert: Alert, kind: &'static str) {
        let mut waiting = lock(&self.waiting);
        let standing = alert.cleared_ms.is_none().then(|| alert.clone());
        waiting.states.insert(alert.stream.clone(), standing);
        if !alert.suppressed {
            if waiting.events.len() >= MAX_EVENTS {
                waiting.events.pop_front();
                self.metrics.dropped_events.inc();
            }
            waiting.events.push_back((alert, kind));
        }
        drop(waiting);
        let _ = self.wake.try_send(());
    }
}

/// Speaks what commits have to say. Topics, all JSON:
/// - `forebay/{stream}/verdict`: every reading with its verdict, QoS 0;
/// - `forebay/{stream}/alert/event`: an alarm raised, escalated, released or cleared, QoS 1;
/// - `forebay/{stream}/alert`: the state, retained, QoS 1.
///
/// An alarm raised in a quiet period changes the state and makes no event.
pub struct Newscast {
    waiting: Arc<Mutex<Waiting>>,
    woken: mpsc::Receiver<()>,
    metrics: NewsMetrics,
    broker: Broker,
}

impl Newscast {
    /// What is dropped at the bounds.
    pub fn metrics(&self) -> &NewsMetrics {
        &self.metrics
    }

    /// Says `standing`, the state that the disk holds at start, then everything that comes, until the streams end.
    pub async fn run(mut self, standing: Vec<(String, Option<Alert>)>) {
        for (stream, alert) in standing {
            self.say_state(&stream, alert.as_ref()).await;
        }
        while self.woken.recv().await.is_some() {
            while self.say_what_waits().await {}
        }
    }

    /// Alarms first. False if nothing waited.
    async fn say_what_waits(&self) -> bool {
        let Waiting { verdicts, events, states } = std::mem::take(&mut *lock(&self.waiting));
        if verdicts.is_empty() && events.is_empty() && states.is_empty() {
            return false;
        }
        for (stream, alert) in states {
            self.say_state(&stream, alert.as_ref()).await;
        }
        for (alert, kind) in events {
            let topic = format!("forebay/{}/alert/event", alert.stream);
            let payload = json!({ "event": kind, "alert": alert });
            self.publish_kept(Message::new(&topic, payload.to_string(), Qos::AtLeastOnce)).await;
        }
        for News { stream, id, point } in verdicts {
            let payload = json!({
                "id": id, "seq": point.seq, "time_ms": point.time_ms, "values": point.values,
                "score": point.score, "expected": point.expected, "state": point.state,
            });
            let topic = format!("forebay/{stream}/verdict");
            let message = Message::new(&topic, payload.to_string(), Qos::AtMostOnce);
            self.broker.publish(message, Receipt::unwatched()).await;
        }
        true
    }

    async fn say_state(&self, stream: &str, alert: Option<&Alert>) {
        let state = if alert.is_some() { "alarm" } else { "normal" };
        let payload = json!({ "state": state, "alert": alert });
        let topic = format!("forebay/{stream}/alert");
        self.publish_kept(Message::new(&topic, payload.to_string(), Qos::AtLeastOnce).retained()).await;
    }

    /// The alarm itself is in the outbox and in history; a broker that cannot keep the message says so in the log.
    async fn publish_kept(&self, message: Message) {
        let topic = message.topic.to_string();
        let receipt = Receipt::new(move |outcome| {
            if let Err(refusal) = outcome {
                tracing::error!(topic, ?refusal, "an alarm could not be kept for absent subscribers");
            }
        });
        self.broker.publish(message, receipt).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ManualClock;
    use crate::broker;
    use crate::store::{self, Store};

    fn point(seq: u64) -> Point {
        Point { seq, time_ms: 0, values: Vec::new(), score: None, expected: None, state: "normal" }
    }

    fn alert(stream: usize, id: i64) -> Alert {
        Alert {
            id,
            stream: format!("s{stream}"),
            severity: "warning".to_owned(),
            raised_ms: 0,
            cleared_ms: None,
            raised_seq: 1,
            peak_score: 1.0,
            suppressed: false,
        }
    }

    #[tokio::test]
    async fn a_broker_that_is_behind_costs_verdicts_and_never_the_state_of_an_alarm() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let (store, _) = Store::open(&store::Config::at(folder.path()), &[broker::SCHEMA], clock.clone()).unwrap();
        let broker = Broker::open(broker::Config::default(), &store, clock).await.unwrap();
        let (desk, newscast) = open(broker.clone());
        for seq in 0..MAX_VERDICTS as u64 + 7 {
            desk.verdict(News { stream: "s0".into(), id: None, point: point(seq) });
        }
        for id in 0..MAX_EVENTS as i64 + 3 {
            desk.alert(alert(id as usize % 2, id), "raised");
        }
        let metrics = newscast.metrics().clone();
        assert_eq!((metrics.dropped_verdicts.get(), metrics.dropped_events.get()), (7, 3));
        drop(desk);
        newscast.run(Vec::new()).await;
        let retained = |connection: &rusqlite::Connection| {
            let mut statement = connection.prepare("SELECT payload FROM broker_retained ORDER BY topic")?;
            let payloads = statement.query_map([], |row| row.get::<_, Vec<u8>>(0))?;
            Ok(payloads.collect::<Result<Vec<_>, _>>()?)
        };
        store.writer().commit(0, |_| Ok(())).await.unwrap();
        let states = store.reader().read(retained).await.unwrap();
        let ids: Vec<i64> = states
            .iter()
            .map(|payload| {
                serde_json::from_slice::<serde_json::Value>(payload).unwrap()["alert"]["id"].as_i64().unwrap()
            })
            .collect();
        assert_eq!(ids, [MAX_EVENTS as i64 + 2, MAX_EVENTS as i64 + 1], "the newest state of each stream");
    }
}
