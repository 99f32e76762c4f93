//! Questions that the doors ask, answered from memory and history.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::Connection;
use tokio::sync::watch;

use super::board::{Alert, Board, Point, StreamBoard};
pub use super::models::ModelView;
use super::models::Models;
use super::record;
use super::sense::{About, Sense};
use super::summary::state_word;
use super::sync_settings::SyncMetrics;
pub use super::view::{
    CurvePoint, EngineView, FieldView, HealthView, LinkView, ModelMemory, QueueClass, QueueStream, QueueView,
    SessionLossView, StreamView, WindowField, WindowView,
};
use crate::broker;
use crate::history::{self, StreamNo};
use crate::outbox::{self, Outbox};
use crate::store::{self, Reader};
use crate::uplink::LinkState;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// No stream of that name is configured.
    #[error("no stream {0:?}; GET /api/v1/streams lists them")]
    NoStream(String),
    /// The store did not answer.
    #[error("failed to read the store")]
    Store(#[source] store::Error),
}

/// What the link counts, read when somebody asks.
pub struct LinkWatch {
    /// How it is.
    pub state: watch::Receiver<LinkState>,
    /// What went over it.
    pub metrics: SyncMetrics,
}

/// What answers are made of.
pub struct Parts {
    /// Live state.
    pub board: Arc<Board>,
    /// The streams.
    pub sense: Arc<Sense>,
    /// Models.
    pub models: Arc<Models>,
    /// History.
    pub reader: Reader,
    /// Whether commits reach the disk.
    pub disk: watch::Receiver<store::Health>,
    /// The queue.
    pub outbox: Outbox,
    /// The link, if one is configured.
    pub link: Option<LinkWatch>,
    /// Problems found at start.
    pub problems: Vec<String>,
    /// What became of files that were set aside.
    pub salvage: watch::Receiver<Vec<String>>,
    /// The database file.
    pub database: PathBuf,
}

/// Answers questions.
pub struct Query {
    parts: Parts,
    deepest_rows: AtomicU64,
}

impl Query {
    /// Over these parts.
    pub fn new(parts: Parts) -> Self {
        Self { parts, deepest_rows: AtomicU64::new(0) }
    }

    /// Every stream in configuration order.
    pub async fn streams(&self) -> Result<Vec<StreamView>, QueryError> {
        let numbers: Vec<_> = self.parts.sense.streams().map(|about| about.no).collect();
        let standing = self
            .read(move |conn| numbers.iter().map(|no| history::open_alert(conn, *no)).collect::<Result<Vec<_>, _>>())
            .await?;
        let views = self.parts.sense.streams().zip(self.parts.board.streams()).zip(standing);
        Ok(views.map(|((about, live), alert)| stream_view(about, live, alert.map(alert_view))).collect())
    }

    /// A stream's curve between two source times, in at most `points` buckets.
    pub async fn curve(
        &self,
        stream: &str,
        from_ms: Option<i64>,
        to_ms: Option<i64>,
        points: usize,
    ) -> Result<Vec<CurvePoint>, QueryError> {
        let no = self.number(stream)?;
        let buckets = self.read(move |conn| history::curve(conn, no, from_ms, to_ms, points)).await?;
        let point = |bucket: history::Bucket| CurvePoint {
            time_ms: bucket.time_ms,
            low: bucket.low,
            high: bucket.high,
            score: bucket.score,
            expected: bucket.expected,
        };
        Ok(buckets.into_iter().map(point).collect())
    }

    /// Readings after a position, or the newest ones, oldest first.
    pub async fn readings(&self, stream: &str, after_seq: Option<u64>, limit: usize) -> Result<Vec<Point>, QueryError> {
        let no = self.number(stream)?;
        let readings = self
            .read(move |conn| match after_seq {
                Some(after) => history::readings(conn, no, after, limit),
                None => history::tail(conn, no, limit),
            })
            .await?;
        let point = |reading: history::Reading| Point {
            seq: reading.seq,
            time_ms: reading.time_ms,
            values: record::finite(&reading.values),
            score: reading.score,
            expected: reading.expected,
            state: state_word(reading.state),
        };
        Ok(readings.into_iter().map(point).collect())
    }

    /// Summary windows, newest first.
    pub async fn windows(&self, stream: &str, limit: usize) -> Result<Vec<WindowView>, QueryError> {
        let no = self.number(stream)?;
        let windows = self.read(move |conn| history::windows(conn, no, limit)).await?;
        Ok(windows.iter().map(window_view).collect())
    }

    /// Alarms, newest first.
    pub async fn alerts(&self, stream: Option<&str>, limit: usize) -> Result<Vec<Alert>, QueryError> {
        let no = stream.map(|stream| self.number(stream)).transpose()?;
        let alerts = self.read(move |conn| history::alerts(conn, no, limit)).await?;
        Ok(alerts.into_iter().map(alert_view).collect())
    }

    /// What waits for the cloud.
    pub async fn queue(&self) -> Result<QueueView, QueryError> {
        let streams = self.parts.outbox.depth();
        let rows = streams.iter().map(|(_, rows)| rows).sum();
        self.deepest_rows.fetch_max(rows, Ordering::Relaxed);
        let view = |(key, rows): (outbox::StreamKey, u64)| QueueStream {
            name: key.name.to_string(),
            class: key.class.as_str(),
            rows,
        };
        Ok(QueueView {
            rows,
            deepest_rows: self.deepest_rows.load(Ordering::Relaxed),
            classes: self.parts.outbox.usage().into_iter().map(class_view).collect(),
            streams: streams.into_iter().map(view).collect(),
            file_bytes: self.file_bytes(),
            epoch: self.parts.outbox.epoch().0,
        })
    }

    /// What absent MQTT clients will not get because their sessions were full, newest first.
    pub async fn session_losses(&self, limit: usize) -> Result<Vec<SessionLossView>, QueryError> {
        let losses = self.read(move |conn| broker::losses(conn, limit)).await?;
        let view = |loss: broker::SessionLoss| SessionLossView {
            client: loss.client,
            messages: loss.messages,
            first_ms: loss.first_ms,
            last_ms: loss.last_ms,
        };
        Ok(losses.into_iter().map(view).collect())
    }

    /// The link to the cloud.
    pub fn link(&self) -> LinkView {
        let Some(link) = &self.parts.link else {
            return LinkView::off();
        };
        let (state, reason, since_ms) = match &*link.state.borrow() {
            LinkState::Up => ("up", None, None),
            LinkState::Metered => ("metered", None, None),
            LinkState::Degraded { reason } => ("degraded", Some(reason.clone()), None),
            LinkState::Down { since_ms, reason } => ("down", Some(reason.clone()), Some(*since_ms)),
        };
        LinkView {
            state,
            reason,
            since_ms,
            batches: link.metrics.batches.get(),
            rows: link.metrics.rows.get(),
            bytes: link.metrics.sent_bytes.get(),
            plain_bytes: link.metrics.bytes.get(),
            failures: link.metrics.failures.get(),
            answer_ms: link.metrics.answer_ms.get(),
            day_left_bytes: u64::try_from(link.metrics.day_left_bytes.get()).ok(),
        }
    }

    /// Live state and events.
    pub fn board(&self) -> &Arc<Board> {
        &self.parts.board
    }

    /// Whether the gateway serves.
    pub fn health(&self) -> HealthView {
        let mut problems = self.parts.problems.clone();
        problems.extend(self.parts.salvage.borrow().iter().cloned());
        let ready = match &*self.parts.disk.borrow() {
            store::Health::Good => true,
            failing @ store::Health::Failing { .. } => {
                problems.insert(0, format!("the disk does not take readings, nothing is acknowledged: {failing:?}"));
                false
            }
        };
        for usage in self.parts.outbox.usage() {
            if usage.is_blocking() {
                let (class, bytes) = (usage.class.as_str(), usage.limit_bytes);
                problems.push(format!(
                    "class {class} has used up its {bytes} bytes of the queue: what would add to it is not acknowledged"
                ));
            }
        }
        let condition = self.parts.models.condition();
        if !condition.reasons.is_empty() {
            let (level, reasons) = (condition.level, condition.reasons.join(", "));
            problems.push(format!("models serve less than usual ({level}): {reasons}"));
        }
        HealthView { alive: true, ready, problems }
    }

    /// Models of this box.
    pub fn models(&self) -> Vec<ModelView> {
        self.parts.models.views()
    }

    /// How much service the engines give, and who has their memory.
    pub fn engine(&self) -> EngineView {
        let condition = self.parts.models.condition();
        EngineView {
            level: condition.level.as_str(),
            reasons: condition.reasons,
            threads: condition.threads,
            threads_allowed: condition.threads_allowed,
            memory_limit_bytes: condition.memory_limit_bytes,
            memory_reserved_bytes: condition.memory_of.iter().map(|(_, bytes)| bytes).sum(),
            memory_of: condition.memory_of.into_iter().map(|(model, bytes)| ModelMemory { model, bytes }).collect(),
        }
    }

    fn number(&self, stream: &str) -> Result<StreamNo, QueryError> {
        self.parts.sense.stream(stream).map(|about| about.no).ok_or_else(|| QueryError::NoStream(stream.to_owned()))
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, store::Error> + Send + 'static,
    ) -> Result<T, QueryError> {
        self.parts.reader.read(read).await.map_err(QueryError::Store)
    }

    fn file_bytes(&self) -> u64 {
        let mut log = self.parts.database.clone().into_os_string();
        log.push("-wal");
        let size = |path: &std::path::Path| std::fs::metadata(path).map_or(0, |file| file.len());
        size(&self.parts.database) + size(std::path::Path::new(&log))
    }
}

fn class_view(usage: outbox::ClassUsage) -> QueueClass {
    QueueClass {
        class: usage.class.as_str(),
        rows: usage.rows,
        bytes: usage.bytes,
        limit_bytes: usage.limit_bytes,
        policy: usage.policy.as_str(),
    }
}

fn stream_view(about: &About, live: &StreamBoard, alert: Option<Alert>) -> StreamView {
    let field = |field: crate::signal::FieldConfig| FieldView {
        name: field.name,
        unit: field.unit,
        min: field.min,
        max: field.max,
    };
    StreamView {
        name: about.config.name.to_string(),
        topic: about.config.topic.to_string(),
        fields: about.config.signal.fields().into_iter().map(field).collect(),
        model: about.model.clone(),
        raise: about.raise,
        last: live.last(),
        tally: live.tally(),
        verdict_latency: live.verdict_latency(),
        commit_latency: live.commit_latency(),
        alert,
    }
}

/// An alarm as people see it.
pub fn alert_view(alert: history::Alert) -> Alert {
    Alert {
        id: alert.id,
        stream: alert.stream,
        severity: alert.severity,
        raised_ms: alert.raised_ms,
        cleared_ms: alert.cleared_ms,
        raised_seq: alert.raised_seq,
        peak_score: alert.peak_score,
        suppressed: alert.suppressed,
    }
}

fn window_view(window: &history::Window) -> WindowView {
    // A window without finite values has no numbers to show.
    let number = |number: Option<f64>| number.unwrap_or(f64::NAN);
    let field = |field: record::FieldRecord| WindowField {
        min: number(field.min),
        max: number(field.max),
        mean: number(field.mean),
        std: number(field.std),
    };
    let fields = record::decode_summary(&window.body).map(|summary| summary.fields);
    WindowView {
        first_seq: window.first_seq,
        last_seq: window.last_seq,
        start_ms: window.start_ms,
        end_ms: window.end_ms,
        count: window.count,
        fields: fields.unwrap_or_default().into_iter().map(field).collect(),
        peak_score: window.peak_score,
    }
}
