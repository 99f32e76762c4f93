//! What happens, as it happens: Server-Sent Events.
//!
//! Events: `point`, `alert`, `queue`, `link`, and `missed` with a count when the watcher was too slow. A watcher that
//! only draws asks for `throttle_ms`: of each stream it then gets the newest reading at most that often.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, RawQuery, State};
use axum::http::StatusCode;
use axum::response::sse::{Event as Frame, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, broadcast, watch};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;

use super::door::Door;
use super::metrics::Metrics;
use super::problem::Problem;
use super::pulse::Vitals;
use super::streams::parameters;
use crate::access::Principal;
use crate::flows::board::Event;
use crate::flows::query::QueueView;

const THROTTLE_MAX_MS: u64 = 60_000;
/// A browser that lost the stream waits so long before it asks again.
const RETRY: Duration = Duration::from_secs(2);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    stream: Option<String>,
    #[serde(default)]
    throttle_ms: u64,
}

pub(super) fn routes(stop: CancellationToken) -> Router<Arc<Door>> {
    Router::new().route("/api/v1/events", get(watch)).layer(Extension(Closing(stop)))
}

#[derive(Clone)]
struct Closing(CancellationToken);

async fn watch(
    State(door): State<Arc<Door>>,
    Extension(who): Extension<Principal>,
    Extension(Closing(stop)): Extension<Closing>,
    raw: RawQuery,
) -> Result<Response, Problem> {
    let asked: Parameters = parameters(&raw, "stream and throttle_ms")?;
    if asked.throttle_ms > THROTTLE_MAX_MS {
        let message = format!("throttle_ms={} is out of range", asked.throttle_ms);
        return Err(Problem::parameter(message, format!("use 0 to {THROTTLE_MAX_MS}")));
    }
    let streams = match asked.stream {
        Some(stream) => {
            door.check_readable(&who, &stream).await?;
            vec![stream]
        }
        None => door.readable(&who).await?,
    };
    let Ok(place) = Arc::clone(&door.watchers).try_acquire_owned() else {
        door.parts.metrics.overloaded.inc();
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "watchers", "too many event streams are open")
            .hint("close a page, or raise `watchers_max` in [http]")
            .retry_after(10));
    };
    let mut vitals = door.pulse.vitals();
    vitals.mark_changed();
    let watcher = Watcher {
        events: door.parts.query.board().watch(),
        vitals,
        streams,
        throttle: Duration::from_millis(asked.throttle_ms),
        ready: VecDeque::from([Frame::default().retry(RETRY).comment("forebay")]),
        newest: BTreeMap::new(),
        due: None,
        sent: (String::new(), String::new()),
        stop,
        _seat: Seat::take(&door.parts.metrics, place),
        metrics: door.parts.metrics.clone(),
    };
    let frames = stream::unfold(watcher, async |mut watcher| {
        watcher.next().await.map(|frame| (Ok::<_, Infallible>(frame), watcher))
    });
    let keep_alive = KeepAlive::new().interval(Duration::from_millis(door.config.keep_alive_ms)).text("still here");
    Ok((
        // Proxies that buffer would hold events back.
        [("x-accel-buffering", "no")],
        Sse::new(frames).keep_alive(keep_alive),
    )
        .into_response())
}

/// A watcher's place, given back when its connection ends.
struct Seat {
    metrics: Metrics,
    _place: OwnedSemaphorePermit,
}

impl Seat {
    fn take(metrics: &Metrics, place: OwnedSemaphorePermit) -> Self {
        metrics.watchers.inc();
        Self { metrics: metrics.clone(), _place: place }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.metrics.watchers.dec();
    }
}

struct Watcher {
    events: broadcast::Receiver<Event>,
    vitals: watch::Receiver<Vitals>,
    streams: Vec<String>,
    throttle: Duration,
    /// Frames that go out before anything else is awaited. At most one a stream, and two for the vitals.
    ready: VecDeque<Frame>,
    /// With a throttle: the newest reading of each stream since the last flush.
    newest: BTreeMap<String, Event>,
    due: Option<Pin<Box<Sleep>>>,
    /// Link and queue as last sent, so that what did not change is not sent again.
    sent: (String, String),
    stop: CancellationToken,
    metrics: Metrics,
    _seat: Seat,
}

impl Watcher {
    /// The next frame; `None` when the gateway closes.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(frame);
            }
            tokio::select! {
                () = self.stop.cancelled() => return None,
                event = self.events.recv() => match event {
                    Ok(event) => self.take(event),
                    Err(RecvError::Lagged(missed)) => {
                        self.metrics.missed.inc_by(missed);
                        // What a throttled watcher skips it did not want to see.
                        if self.throttle.is_zero() {
                            self.push("missed", &serde_json::json!({ "missed": missed }));
                        }
                    }
                    Err(RecvError::Closed) => return None,
                },
                changed = self.vitals.changed() => {
                    changed.ok()?;
                    self.vitals_changed();
                }
                () = elapsed(&mut self.due) => {
                    self.due = None;
                    for (_, event) in std::mem::take(&mut self.newest) {
                        self.push("point", &event);
                    }
                }
            }
        }
    }

    fn take(&mut self, event: Event) {
        match &event {
            Event::Point { stream, .. } if !self.wants(stream.as_str()) => {}
            Event::Point { .. } if self.throttle.is_zero() => self.push("point", &event),
            Event::Point { stream, .. } => {
                self.newest.insert(stream.to_string(), event);
                let throttle = self.throttle;
                self.due.get_or_insert_with(|| Box::pin(sleep(throttle)));
            }
            Event::Alert { alert } if self.wants(&alert.stream) => self.push("alert", &event),
            Event::Alert { .. } => {}
        }
    }

    fn wants(&self, stream: &str) -> bool {
        self.streams.iter().any(|wanted| wanted == stream)
    }

    fn vitals_changed(&mut self) {
        let vitals = self.vitals.borrow_and_update().clone();
        let link = vitals.link.and_then(|link| serde_json::to_string(&*link).ok()).unwrap_or_default();
        let queue = vitals.queue.map(|queue| {
            let streams = queue.streams.iter().filter(|stream| self.wants(&stream.name)).cloned().collect();
            QueueView { streams, ..QueueView::clone(&queue) }
        });
        let queue = queue.and_then(|queue| serde_json::to_string(&queue).ok()).unwrap_or_default();
        if !link.is_empty() && self.sent.0 != link {
            self.ready.push_back(Frame::default().event("link").data(&link));
            self.sent.0 = link;
        }
        if !queue.is_empty() && self.sent.1 != queue {
            self.ready.push_back(Frame::default().event("queue").data(&queue));
            self.sent.1 = queue;
        }
    }

    fn push(&mut self, name: &str, what: &impl Serialize) {
        if let Ok(frame) = Frame::default().event(name).json_data(what) {
            self.ready.push_back(frame);
        }
    }
}

async fn elapsed(due: &mut Option<Pin<Box<Sleep>>>) {
    match due {
        Some(due) => due.as_mut().await,
        None => std::future::pending().await,
    }
}
