//! The story of a reading: decode, let in, window, score, judge, one transaction, acknowledge.
//!
//! Each stream is one task with a bounded mailbox; its readings keep their order. Commits are not waited for: the
//! next reading is judged while the last one is on its way to the disk. If a commit fails, everything that was computed
//! on top of it is refused, and the stream goes on from what the disk holds.

mod admission;
mod commit;
mod config;
mod judge;
mod news;
mod resume;
mod saved;
mod scorer;
mod stream;
mod summing;

pub use config::{CloudConfig, Config, Durability, MAX_SUMMARY_READINGS, ModelConfig, RuleOn, SummaryConfig};
pub use news::{NewsMetrics, Newscast};
pub use scorer::ScorerError;
pub use summing::SummaryNews;

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::board::{Board, StreamBoard};
use super::intake::IngestError;
use super::models::Models;
use super::summary::{Drops, Open, Scored};
use crate::access::Filter;
use crate::base::{Clock, Name};
use crate::broker::{Broker, Qos, Tap, TapMessage, TapResult};
use crate::history::{History, StreamNo};
use crate::outbox::{self, Class, Outbox, StreamKey};
use crate::rules::{self, Rule};
use crate::signal::{self, Decoder};
use crate::store::{self, Reader, Tx, Writer};
use commit::Committed;
use resume::read_back;
use scorer::Scorer;
pub(in crate::flows) use stream::Work;
use stream::{Flight, Stream};
use summing::{Order, SummingUp};

/// How long a publisher waits for room before it looks again by itself.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Orders to one stream that may wait.
const ORDERS: usize = 4;

/// Why the streams cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A stream's signal settings contradict each other.
    #[error("failed to set up stream {stream}")]
    Signal {
        /// The stream.
        stream: Name,
        /// Which setting, and what would be right.
        source: signal::Error,
    },
    /// A stream's rule contradicts itself.
    #[error("failed to set up the rule of stream {stream}")]
    Rule {
        /// The stream.
        stream: Name,
        /// Which setting, and what would be right.
        source: rules::Error,
    },
    /// The outbox refused a stream.
    #[error("failed to register stream {stream} in the outbox")]
    Outbox {
        /// The stream.
        stream: Name,
        /// Why.
        source: outbox::Error,
    },
    /// The store refused.
    #[error("failed to read what the streams remember")]
    Store(#[from] store::Error),
    /// Two streams of one name.
    #[error("two streams are called {0}; names must differ")]
    Twice(Name),
}

/// What the streams are made of.
pub struct Parts {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The way to the disk.
    pub writer: Writer,
    /// The way back.
    pub reader: Reader,
    /// Where readings stay.
    pub history: History,
    /// Where readings wait for the cloud.
    pub outbox: Outbox,
    /// What scores them.
    pub models: Arc<Models>,
    /// Where people look.
    pub board: Arc<Board>,
    /// Where news is said.
    pub broker: Broker,
    /// Counters.
    pub metrics: signal::Metrics,
}

/// What a door or a page may know of a stream.
#[derive(Debug, Clone)]
pub struct About {
    /// Its configuration.
    pub config: Config,
    /// Its number in history.
    pub no: StreamNo,
    /// `name/version` of the model that scores it.
    pub model: Option<String>,
    /// Score or value at which an alarm is raised.
    pub raise: Option<f64>,
}

struct Entry {
    about: About,
    mailbox: mpsc::Sender<Work>,
    board: Arc<StreamBoard>,
    /// Payloads wait for room in the queue to the cloud: whoever can wait is not read.
    parking: Arc<AtomicBool>,
    orders: mpsc::Sender<Order>,
}

/// Every stream's front: takes payloads, never blocks.
pub struct Sense {
    entries: Vec<Entry>,
    room: Arc<Notify>,
    clock: Arc<dyn Clock>,
}

impl Sense {
    /// Builds every stream from what the disk remembers and starts their tasks on `tasks`. Problems with models are
    /// returned, not fatal: such a stream goes on without scores.
    pub async fn start(
        configs: &[Config],
        parts: Parts,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<(Self, Newscast, Vec<String>), Error> {
        let (desk, newscast) = news::open(parts.broker.clone());
        let room = Arc::new(Notify::new());
        let (mut abouts, mut streams) = (Vec::with_capacity(configs.len()), Vec::with_capacity(configs.len()));
        let mut problems = Vec::new();
        for (config, no) in configs.iter().zip(numbers(configs, &parts).await?) {
            let (about, stream, problem) = build(config, no, &parts, desk.clone(), Arc::clone(&room)).await?;
            problems.extend(problem);
            abouts.push(about);
            streams.push(stream);
        }
        read_back(&parts.reader, &mut streams).await?;
        let mut entries: Vec<Entry> = Vec::with_capacity(configs.len());
        for (about, stream) in abouts.into_iter().zip(streams) {
            let (mailbox, works) = mpsc::channel(about.config.queue_payloads.max(1));
            let (orders, obeyed) = mpsc::channel(ORDERS);
            let (board, parking) = (Arc::clone(&stream.board), Arc::clone(&stream.parking));
            tasks.spawn(stream.run(works, obeyed, stop.clone()));
            entries.push(Entry { about, mailbox, board, parking, orders });
        }
        Ok((Self { entries, room, clock: parts.clock }, newscast, problems))
    }

    /// Every stream in configuration order.
    pub fn streams(&self) -> impl Iterator<Item = &About> {
        self.entries.iter().map(|entry| &entry.about)
    }

    /// One stream.
    pub fn stream(&self, name: &str) -> Option<&About> {
        self.streams().find(|about| about.config.name.as_str() == name)
    }

    fn entry(&self, topic: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.about.config.topic.matches(topic))
    }

    /// Puts work for the stream called `name` into its mailbox; `Err` gives it back when there is no room.
    pub(super) fn offer(&self, name: &str, work: Work) -> Result<(), mpsc::error::TrySendError<Work>> {
        match self.entries.iter().find(|entry| entry.about.config.name.as_str() == name) {
            Some(entry) => entry.mailbox.try_send(work),
            None => Err(mpsc::error::TrySendError::Closed(work)),
        }
    }

    /// Ends the open summary of a stream now and says what is in it once it is on the disk; `None` if it is empty.
    pub async fn summarise(&self, name: &str) -> Result<Option<SummaryNews>, IngestError> {
        let entry = self.entries.iter().find(|entry| entry.about.config.name.as_str() == name);
        let entry = entry.ok_or_else(|| IngestError::NoStream(name.to_owned()))?;
        let (reply, answer) = oneshot::channel();
        entry.orders.try_send(Order::Summarise(reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => IngestError::Full,
            mpsc::error::TrySendError::Closed(_) => IngestError::Closing,
        })?;
        answer.await.unwrap_or(Err(IngestError::Closing))
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.since_boot()
    }
}

impl Tap for Sense {
    fn wants(&self, topic: &str) -> bool {
        self.entry(topic).is_some()
    }

    fn take(&self, message: TapMessage) -> TapResult {
        let Some(entry) = self.entry(&message.topic) else { return TapResult::Busy(message) };
        if message.waits && message.qos != Qos::AtMostOnce && entry.parking.load(Ordering::Acquire) {
            return TapResult::Busy(message);
        }
        match entry.mailbox.try_reserve() {
            Ok(place) => {
                let TapMessage { payload, receipt, within, waits, qos, .. } = message;
                let waits = waits && qos != Qos::AtMostOnce;
                place.send(Work { payload, arrived: self.clock.since_boot(), receipt, within, waits, reply: None });
                TapResult::Taken
            }
            Err(_full_or_closed) => {
                if message.qos == Qos::AtMostOnce {
                    entry.board.count(|tally| tally.overflowed += 1);
                }
                TapResult::Busy(message)
            }
        }
    }

    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            // A wake-up between the failed try and here would be missed: look again by and by.
            let _ = tokio::time::timeout(LOOK_AGAIN, self.room.notified()).await;
        })
    }
}

/// What the rule is, with a model's thresholds where the configuration names none.
fn rule_of(
    config: &Config,
    thresholds: Option<crate::catalog::Thresholds>,
) -> Result<Option<(Rule, RuleOn, f64)>, Error> {
    let on = config.rule_on.unwrap_or(if config.model.is_some() { RuleOn::Score } else { RuleOn::Value });
    let mut rule = config.rule.clone().unwrap_or_default();
    if let (None, Some(thresholds), RuleOn::Score) = (rule.raise, thresholds, on) {
        rule.raise = Some(thresholds.raise);
        rule.clear = rule.clear.or(Some(thresholds.clear));
        rule.raise_after = rule.raise_after.max(thresholds.raise_after);
        rule.clear_after = rule.clear_after.max(thresholds.clear_after);
    }
    let Some(raise) = rule.raise else { return Ok(None) };
    let rule = Rule::new(rule).map_err(|source| Error::Rule { stream: config.name.clone(), source })?;
    Ok(Some((rule, on, raise)))
}

/// The numbers of the streams in history, in one commit.
async fn numbers(configs: &[Config], parts: &Parts) -> Result<Vec<StreamNo>, Error> {
    let mut names = BTreeSet::new();
    if let Some(twice) = configs.iter().find(|config| !names.insert(&config.name)) {
        return Err(Error::Twice(twice.name.clone()));
    }
    let (names, history): (Vec<_>, _) =
        (configs.iter().map(|config| config.name.clone()).collect(), parts.history.clone());
    // A full file opens, too.
    let numbered = move |tx: &Tx<'_>| names.iter().map(|name| history.stream(tx, name.as_str())).collect();
    Ok(parts.writer.commit_from_reserve(numbered).await?)
}

async fn build(
    config: &Config,
    no: StreamNo,
    parts: &Parts,
    news: news::Desk,
    room: Arc<Notify>,
) -> Result<(About, Stream, Option<String>), Error> {
    let wrong = |source| Error::Signal { stream: config.name.clone(), source };
    let decoder = Decoder::new(&config.signal).map_err(wrong)?;
    let features = signal::Features::new(&config.signal).map_err(wrong)?.names().len();
    let (mut scorer, mut problem, mut thresholds, mut scored) = (None, None, None, None);
    if let Some(wanted) = &config.model {
        match scorer::find(wanted, &parts.models).await {
            Ok(loaded) => {
                thresholds = loaded.manifest.thresholds;
                match Scorer::bind(wanted, &loaded, features, Arc::clone(&parts.clock)) {
                    Ok(bound) => {
                        parts.models.keep_for(config.name.as_str(), &loaded);
                        scored = Some(scored_by(&loaded, bound.title(), config.signal.fields().len()));
                        scorer = Some(bound);
                    }
                    Err(error) => problem = Some(super::models::chain(&error)),
                }
            }
            Err(reason) => problem = Some(reason),
        }
    }
    if let Some(problem) = &mut problem {
        *problem = format!("stream {} goes on without scores: {problem}", config.name);
        tracing::error!(stream = %config.name, "{problem}");
    }
    let rule = rule_of(config, thresholds)?;
    let outbox = parts.outbox.clone();
    let key = |class| StreamKey::new(config.name.clone(), class);
    let mut keys = vec![key(Class::Summary), key(Class::Alarm)];
    keys.extend(config.cloud.verdicts.then(|| key(Class::Verdict)));
    let registered = tokio::task::spawn_blocking(move || {
        keys.into_iter().map(|key| outbox.stream(key)).collect::<Result<Vec<_>, _>>()
    });
    let handles = registered
        .await
        .expect("registering does not panic")
        .map_err(|source| Error::Outbox { stream: config.name.clone(), source })?;
    let &[summaries, alarms, ..] = handles.as_slice() else { unreachable!("each key gives a handle") };
    let verdicts = handles.get(2).copied();
    let board = parts.board.stream(config.name.as_str()).expect("the board has every configured stream");
    let model = scorer.as_ref().map(|scorer| scorer.title().to_owned());
    let raise = rule.as_ref().map(|(.., raise)| *raise);
    let rule = rule.map(|(rule, on, _)| (rule, on));
    let committed = Arc::new(Committed {
        name: config.name.as_str().into(),
        config: config.clone(),
        rule,
        model: model.clone(),
        scored: scored.clone(),
        no,
        history: parts.history.clone(),
        outbox: parts.outbox.clone(),
        verdicts,
        summaries,
        alarms,
        board: Arc::clone(&parts.board),
        stream: Arc::clone(board),
        news,
    });
    let judge = judge::Judge::new(config, None, RuleOn::Value).map_err(wrong)?;
    let summing = SummingUp {
        open: Open::new(config.summary.sketches(), scored),
        // What history no longer has could not be summed again after a restart.
        readings: config.summary.readings.min(MAX_SUMMARY_READINGS).min(parts.history.readings_kept()),
        max_age: (config.summary.max_age_s > 0).then(|| Duration::from_secs(config.summary.max_age_s)),
        due: None,
    };
    let stream = Stream {
        decoder,
        judge,
        scorer,
        durability: config.durability,
        no,
        board: Arc::clone(board),
        metrics: parts.metrics.clone(),
        clock: Arc::clone(&parts.clock),
        history: parts.history.clone(),
        writer: parts.writer.clone(),
        reader: parts.reader.clone(),
        committed,
        committing: Arc::new(Mutex::default()),
        flight: Arc::new(Flight::default()),
        since_save: 0,
        summing,
        drops: Drops::default(),
        room,
        parking: Arc::default(),
    };
    Ok((About { config: config.clone(), no, model, raise }, stream, problem))
}

/// What summaries say of a model. Training statistics of one series are the first field's; those of as many as there are
/// fields are theirs; others are of features and say nothing of fields.
fn scored_by(loaded: &super::models::Loaded, title: &str, fields: usize) -> Scored {
    let training = loaded.manifest.training.as_ref();
    let trained = training.and_then(|training| Some((training.min.as_ref()?, training.max.as_ref()?)));
    let trained = trained.map_or_else(Vec::new, |(min, max)| match (min.as_slice(), max.as_slice()) {
        (&[min], &[max]) => vec![Some((min, max))],
        (min, max) if min.len() == fields && max.len() == fields => {
            min.iter().zip(max).map(|(min, max)| Some((*min, *max))).collect()
        }
        _ => Vec::new(),
    });
    Scored { name: title.to_owned(), digest: loaded.manifest.model.sha256.as_bytes().to_vec(), trained }
}

/// The topic that publishing to a stream over HTTP is checked against: its own if it has no wildcard.
pub(super) fn ingest_topic(name: &Name, filter: &Filter) -> String {
    let text = filter.to_string();
    if text.contains(['+', '#']) { format!("forebay/{name}/readings") } else { text }
}
