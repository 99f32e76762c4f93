//! What every handler may use.

use std::sync::{Arc, Mutex};

use prometheus_client::registry::Registry;
use tokio::sync::{OnceCell, Semaphore};
use tokio_rustls::TlsAcceptor;

use super::config::Config;
use super::llm::Llm;
use super::metrics::Metrics;
use super::problem::Problem;
use super::pulse::Pulse;
use crate::access::{Access, Principal};
use crate::base::Clock;
use crate::doors::shared_memory::Regions;
use crate::flows::inference::Inference;
use crate::flows::intake::Intake;
use crate::flows::logging::Logging;
use crate::flows::predict::Predict;
use crate::flows::query::{Query, StreamView};
use crate::flows::raw::Raw;
use crate::flows::repository::Repository;

/// What the door is made of.
pub struct Parts {
    /// Answers.
    pub query: Arc<Query>,
    /// Takes readings.
    pub intake: Arc<Intake>,
    /// Sends readings to the cloud on demand.
    pub raw: Arc<Raw>,
    /// Runs models.
    pub inference: Arc<Inference>,
    /// Runs them on pictures, sounds, texts and records.
    pub predict: Arc<Predict>,
    /// Loads models and takes them away.
    pub repository: Arc<Repository>,
    /// Knows callers.
    pub access: Arc<Access>,
    /// Tensors in memory that callers share.
    pub regions: Arc<Regions>,
    /// How much the log says.
    pub logging: Arc<Logging>,
    /// Asks language models; none where no route names any.
    pub llm: Option<Arc<Llm>>,
    /// [`acceptor`](super::acceptor); None where the door speaks plainly.
    pub tls: Option<TlsAcceptor>,
    /// Everything on `/metrics`, the door's own metrics included.
    pub registry: Arc<Mutex<Registry>>,
    /// This door's metrics.
    pub metrics: Metrics,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Makes an `x-request-id` where the client sent none: 1 to 64 visible ASCII characters.
    pub request_id: Box<dyn Fn() -> String + Send + Sync>,
}

/// The door: its parts and its bounds.
pub struct Door {
    pub(super) config: Config,
    pub(super) parts: Parts,
    pub(super) pulse: Pulse,
    pub(super) requests: Semaphore,
    pub(super) watchers: Arc<Semaphore>,
    /// Topic of each stream, read once: streams are configuration and do not change while the process lives.
    topics: OnceCell<Vec<(String, String)>>,
}

impl Door {
    /// Puts the parts together. Nothing runs before [`serve`](super::serve).
    pub fn new(config: Config, parts: Parts) -> Self {
        let pulse = Pulse::new(parts.query.board().streams().len());
        let requests = Semaphore::new(config.requests_max);
        let watchers = Arc::new(Semaphore::new(config.watchers_max));
        Self { config, parts, pulse, requests, watchers, topics: OnceCell::new() }
    }

    /// Whether clients shake hands first.
    pub fn speaks_tls(&self) -> bool {
        self.parts.tls.is_some()
    }

    /// Names of the streams that `who` may read: those whose topic it may subscribe to.
    pub(super) async fn readable(&self, who: &Principal) -> Result<Vec<String>, Problem> {
        let topics = self.topics().await?;
        Ok(topics.iter().filter(|(_, topic)| who.may_subscribe(topic)).map(|(name, _)| name.clone()).collect())
    }

    /// Whether `who` may read `stream`. Where not, the stream does not exist for it.
    pub(super) async fn check_readable(&self, who: &Principal, stream: &str) -> Result<(), Problem> {
        let topics = self.topics().await?;
        let readable = topics.iter().any(|(name, topic)| name == stream && who.may_subscribe(topic));
        if readable { Ok(()) } else { Err(Problem::no_stream(stream)) }
    }

    /// The streams that `who` may read.
    pub(super) async fn streams(&self, who: &Principal) -> Result<Vec<StreamView>, Problem> {
        let mut streams = self.parts.query.streams().await?;
        streams.retain(|stream| who.may_subscribe(&stream.topic));
        Ok(streams)
    }

    async fn topics(&self) -> Result<&Vec<(String, String)>, Problem> {
        self.topics
            .get_or_try_init(async || {
                let streams = self.parts.query.streams().await?;
                Ok(streams.into_iter().map(|stream| (stream.name, stream.topic)).collect())
            })
            .await
    }
}
