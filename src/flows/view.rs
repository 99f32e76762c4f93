//! Answers to the doors' questions: plain views, ready to be JSON.

use serde::Serialize;

use super::board::{Alert, Latency, Point, Tally};

/// One field of a stream.
#[derive(Debug, Clone, Serialize)]
pub struct FieldView {
    /// Name in the configuration.
    pub name: String,
    /// Unit, as configured.
    pub unit: Option<String>,
    /// Expected range.
    pub min: Option<f64>,
    /// Expected range.
    pub max: Option<f64>,
}

/// One stream.
#[derive(Debug, Clone, Serialize)]
pub struct StreamView {
    /// Name in the configuration.
    pub name: String,
    /// MQTT topic filter that feeds it.
    pub topic: String,
    /// Fields in order.
    pub fields: Vec<FieldView>,
    /// Model that scores it, `name/version`, if any.
    pub model: Option<String>,
    /// Score at which an alarm is raised, if it has a rule.
    pub raise: Option<f64>,
    /// Newest committed reading.
    pub last: Option<Point>,
    /// Counters since start.
    pub tally: Tally,
    /// Arrival to verdict.
    pub verdict_latency: Latency,
    /// Arrival to commit.
    pub commit_latency: Latency,
    /// The alarm that stands, if one does.
    pub alert: Option<Alert>,
}

/// One bucket of a curve: a reading, or the extremes of many when there are more than the picture has room for.
#[derive(Debug, Clone, Serialize)]
pub struct CurvePoint {
    /// Source time of the bucket's first reading, ms since 1970, UTC.
    pub time_ms: i64,
    /// Lowest value of the first field.
    pub low: f64,
    /// Highest value of the first field.
    pub high: f64,
    /// Highest score.
    pub score: Option<f64>,
    /// Expected value at the bucket's last reading.
    pub expected: Option<f64>,
}

/// A summary window.
#[derive(Debug, Clone, Serialize)]
pub struct WindowView {
    /// First reading.
    pub first_seq: u64,
    /// Last reading.
    pub last_seq: u64,
    /// Source time of the first reading, ms since 1970.
    pub start_ms: i64,
    /// Source time of the last reading, ms since 1970.
    pub end_ms: i64,
    /// Readings in it.
    pub count: u64,
    /// Per field, in order.
    pub fields: Vec<WindowField>,
    /// Highest score in it.
    pub peak_score: Option<f64>,
}

/// One field of a summary window, in the field's unit.
#[derive(Debug, Clone, Serialize)]
pub struct WindowField {
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// Mean.
    pub mean: f64,
    /// Population standard deviation.
    pub std: f64,
}

/// What waits for the cloud.
#[derive(Debug, Clone, Serialize)]
pub struct QueueView {
    /// Rows waiting, all classes.
    pub rows: u64,
    /// Deepest since the process started.
    pub deepest_rows: u64,
    /// Per class, most urgent first.
    pub classes: Vec<QueueClass>,
    /// Per stream and class.
    pub streams: Vec<QueueStream>,
    /// Database and write-ahead log on disk.
    pub file_bytes: u64,
    /// This life of the queue file.
    pub epoch: u64,
}

/// One class's part of the queue.
#[derive(Debug, Clone, Serialize)]
pub struct QueueClass {
    /// `alarm`, `verdict`, `summary` or `raw`.
    pub class: &'static str,
    /// Rows waiting.
    pub rows: u64,
    /// What they take of the file.
    pub bytes: u64,
    /// Most bytes the class may take now.
    pub limit_bytes: u64,
    /// What happens at the limit: `block`, `drop_oldest`, `drop_newest` or `summarise`.
    pub policy: &'static str,
}

/// One stream's part of the queue.
#[derive(Debug, Clone, Serialize)]
pub struct QueueStream {
    /// The stream.
    pub name: String,
    /// `alarm`, `verdict`, `summary` or `raw`.
    pub class: &'static str,
    /// Rows waiting.
    pub rows: u64,
}

/// The link to the cloud.
#[derive(Debug, Clone, Serialize)]
pub struct LinkView {
    /// `off` (none configured), `up`, `metered`, `degraded` or `down`, with hysteresis.
    pub state: &'static str,
    /// Why, when it is not up.
    pub reason: Option<String>,
    /// Since when it has been so, ms since 1970.
    pub since_ms: Option<i64>,
    /// Batches that the far side acknowledged, since start.
    pub batches: u64,
    /// Rows that the far side acknowledged, since start.
    pub rows: u64,
    /// Bytes handed to the link as they travel (topics and payloads, repeated ones too), since start.
    pub bytes: u64,
    /// What these bytes were before compression, without topics.
    pub plain_bytes: u64,
    /// Attempts that failed, since start.
    pub failures: u64,
    /// Smoothed time from handing over a batch to its answer.
    pub answer_ms: i64,
    /// What the day's budget has left, if one is set.
    pub day_left_bytes: Option<u64>,
}

impl LinkView {
    /// Without a cloud.
    pub(super) fn off() -> Self {
        Self {
            state: "off",
            reason: None,
            since_ms: None,
            batches: 0,
            rows: 0,
            bytes: 0,
            plain_bytes: 0,
            failures: 0,
            answer_ms: 0,
            day_left_bytes: None,
        }
    }
}

/// Whether the gateway serves.
#[derive(Debug, Clone, Serialize)]
pub struct HealthView {
    /// The process answers.
    pub alive: bool,
    /// It takes readings and keeps them.
    pub ready: bool,
    /// What is wrong, one sentence each; a model that does not serve is a problem and no reason not to be ready.
    pub problems: Vec<String>,
}

/// Messages that an absent MQTT client will not get, because its session was full.
#[derive(Debug, Clone, Serialize)]
pub struct SessionLossView {
    /// Its client id.
    pub client: String,
    /// QoS 1 and 2 messages.
    pub messages: u64,
    /// When the first of them came, ms since 1970, UTC.
    pub first_ms: i64,
    /// When the last of them came, ms since 1970, UTC.
    pub last_ms: i64,
}

/// How much service the engines give.
#[derive(Debug, Clone, Serialize)]
pub struct EngineView {
    /// `normal`, `reduced` or `minimal`.
    pub level: &'static str,
    /// Why it is not normal.
    pub reasons: Vec<String>,
    /// Threads that compute.
    pub threads: usize,
    /// Of them, how many may now.
    pub threads_allowed: usize,
    /// Bytes that models may reserve together; 0 is no bound.
    pub memory_limit_bytes: u64,
    /// What they have reserved.
    pub memory_reserved_bytes: u64,
    /// Each with its share. A model is there twice while it is being replaced.
    pub memory_of: Vec<ModelMemory>,
}

/// A loaded model's share of the memory.
#[derive(Debug, Clone, Serialize)]
pub struct ModelMemory {
    /// `name/version`.
    pub model: String,
    /// Bytes.
    pub bytes: u64,
}
