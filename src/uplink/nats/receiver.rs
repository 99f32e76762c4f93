//! The receiving side: one durable pull consumer that any number of replicas share.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer};
use async_nats::jetstream::message::{AckKind, Acker};
use async_nats::jetstream::{self, Context, stream};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use serde::Deserialize;
use tokio::sync::watch;

use crate::base::{Clock, Name};
use crate::uplink::config::{Config, Error};
use crate::uplink::link::{LinkState, Lost, StateKeeper};
use crate::uplink::metrics::Metrics;

use super::dial::{Dialled, Dialler, Word, Words};
use super::letters::Letters;
use super::post::Post;
use super::sender::RECEIPT;
use super::subject::{filter_of, topic_of};
use crate::uplink::nats_settings::NatsConfig;

/// How long acknowledgements may take to leave.
const GOODBYE: Duration = Duration::from_secs(2);

/// The receiver's settings beside those of the link.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StreamReceiverConfig {
    /// The consumer's name. Receivers with one name share the messages between them.
    pub consumer: Name,
    /// MQTT topic filter of what is received, `fleet/v1/{tenant}/+/+/+`.
    pub filter: String,
    /// A message that is not acknowledged for so long comes again, to any of the receivers.
    pub ack_wait_ms: u64,
    /// Messages that may be unacknowledged at once, over all receivers, 1 to 65536.
    pub max_ack_pending: u32,
    /// Messages that one receiver asks for at a time, 1 to 4096.
    pub batch_messages: u32,
    /// Make the stream if it does not exist.
    pub create_stream: Option<StreamSettings>,
}

impl Default for StreamReceiverConfig {
    fn default() -> Self {
        Self {
            consumer: Name::new("forebay-collect").expect("letters only"),
            filter: "fleet/v1/+/+/+/+".to_owned(),
            ack_wait_ms: 30_000,
            max_ack_pending: 4096,
            batch_messages: 256,
            create_stream: None,
        }
    }
}

/// A stream that loses nothing it answered for: on disk, kept until it is acknowledged, and full rather than forgetful.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StreamSettings {
    /// Servers that hold each message, 1 to 5.
    pub replicas: u8,
    /// Bytes it may hold; then it refuses, and the gateways keep what they have. 0: as much as the account may.
    pub max_bytes: u64,
    /// How long repeated messages are recognised by their id.
    pub duplicate_window_s: u64,
}

impl Default for StreamSettings {
    fn default() -> Self {
        Self { replicas: 1, max_bytes: 0, duplicate_window_s: 120 }
    }
}

/// One message of the stream, to be acknowledged once its effect is safe.
pub struct StreamDelivery {
    /// Where it was published, as an MQTT topic.
    pub topic: String,
    /// What it carries.
    pub payload: Bytes,
    /// Its sender keeps it until a receipt comes.
    pub answer_wanted: bool,
    /// Give it back to one of the receiver's answers.
    pub ack: StreamAck,
}

impl StreamDelivery {
    fn of(message: jetstream::Message) -> Self {
        let (message, acker) = message.split();
        let answer_wanted = message.headers.as_ref().is_some_and(|headers| headers.get(RECEIPT).is_some());
        let topic = topic_of(&message.subject);
        Self { topic, payload: message.payload, answer_wanted, ack: StreamAck(acker) }
    }
}

/// Names one delivery.
pub struct StreamAck(Acker);

/// A receiver of a shared consumer.
pub struct StreamReceiver {
    dialler: Dialler,
    config: StreamReceiverConfig,
    filter: String,
    connection: Option<Connection>,
    state: StateKeeper,
    metrics: Metrics,
}

struct Connection {
    client: Client,
    words: Words,
    messages: pull::Stream,
    post: Post,
}

impl StreamReceiver {
    /// Checks the settings and reads the files they name; opens nothing yet.
    pub fn new(
        mut link: Config,
        config: StreamReceiverConfig,
        client_name: &str,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        if link.client_id.is_empty() {
            client_name.clone_into(&mut link.client_id);
        }
        let wrong = |setting, problem: &str| Err(Error::Setting { setting, problem: problem.to_owned() });
        if config.consumer.as_str().contains('.') {
            return wrong("consumer", "must not hold a `.`");
        }
        if config.ack_wait_ms < 100
            || !(1..=65_536).contains(&config.max_ack_pending)
            || !(1..=4096).contains(&config.batch_messages)
        {
            return wrong(
                "ack_wait_ms, max_ack_pending and batch_messages",
                "must be 100 or more, 1 to 65536, and 1 to 4096",
            );
        }
        let Some(filter) = filter_of(&config.filter) else {
            return wrong("filter", "must be a topic filter such as fleet/v1/+/+/+/+");
        };
        let dialler = Dialler::new(link, clock.clone())?;
        let metrics = Metrics::default();
        let state = StateKeeper::new(clock, metrics.clone());
        Ok(Self { dialler, config, filter, connection: None, state, metrics })
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// How the link is; changes wake the receivers.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    fn far_side(&self) -> String {
        self.dialler.config().far_side()
    }

    fn lose(&mut self, reason: String) -> Lost {
        self.connection = None;
        self.metrics.losses.inc();
        self.state.lost(&reason);
        Lost { reason }
    }

    /// Opens the connection if it is not open, makes the consumer if it does not exist, and asks for messages.
    pub async fn connect(&mut self) -> Result<(), Lost> {
        if self.connection.is_some() {
            return Ok(());
        }
        let Dialled { client, words } = match self.dialler.dial().await {
            Ok(dialled) => dialled,
            Err(lost) => return Err(self.lose(lost.reason)),
        };
        let limit = Duration::from_millis(self.dialler.config().connect_timeout_ms);
        let opened = tokio::time::timeout(limit, self.open(&client)).await;
        let (messages, post) = match opened.unwrap_or_else(|_| Err("did not answer in time".to_owned())) {
            Ok(opened) => opened,
            Err(reason) => return Err(self.lose(format!("{} {reason}", self.far_side()))),
        };
        self.connection = Some(Connection { client, words, messages, post });
        self.metrics.connections.inc();
        self.state.connected();
        Ok(())
    }

    async fn open(&self, client: &Client) -> Result<(pull::Stream, Post), String> {
        let settings = self.dialler.nats();
        let post = Post::open(client, Letters::new(client.clone(), &settings)).await?;
        let NatsConfig { stream: ref name, ref domain, .. } = settings;
        let context = match domain {
            None => jetstream::new(client.clone()),
            Some(domain) => jetstream::with_domain(client.clone(), domain.as_str()),
        };
        let stream =
            self.stream(&context, name).await.map_err(|error| format!("has no usable stream {name}: {error}"))?;
        self.letterboxes(&context, &settings).await;
        let wanted = pull::Config {
            durable_name: Some(self.config.consumer.to_string()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: Duration::from_millis(self.config.ack_wait_ms),
            max_ack_pending: i64::from(self.config.max_ack_pending),
            max_deliver: -1,
            filter_subject: self.filter.clone(),
            ..pull::Config::default()
        };
        let name = &self.config.consumer;
        let consumer: PullConsumer = stream
            .get_or_create_consumer(name.as_str(), wanted)
            .await
            .map_err(|error| format!("has no usable consumer {name}: {error}"))?;
        let actual = &consumer.cached_info().config;
        if actual.ack_policy != AckPolicy::Explicit || actual.max_deliver > 0 {
            return Err(format!(
                "has a consumer {name} that gives messages up: it needs explicit acknowledgements and no max_deliver"
            ));
        }
        if actual.filter_subject != self.filter {
            return Err(format!("has a consumer {name} of {:?} instead of {}", actual.filter_subject, self.filter));
        }
        let alive = Duration::from_secs(u64::from(self.dialler.config().keep_alive_s));
        let batch = usize::try_from(self.config.batch_messages).unwrap_or(usize::MAX);
        let asked = consumer.stream().max_messages_per_batch(batch).expires(alive * 2).heartbeat(alive / 2);
        let messages = asked.messages().await.map_err(|error| format!("gives no messages: {error}"))?;
        Ok((messages, post))
    }

    /// Makes the letterboxes' stream where the fleet's is made, too. Without one, receipts reach who listens.
    async fn letterboxes(&self, context: &Context, settings: &NatsConfig) {
        let Some(StreamSettings { replicas, .. }) = self.config.create_stream else { return };
        let wanted = Letters::stream(settings, usize::from(replicas));
        if let Err(error) = context.get_or_create_stream(wanted).await {
            let stream = settings.letters();
            tracing::warn!(stream, %error, "there are no letterboxes: what is said to a gateway that is away is not kept");
        }
    }

    async fn stream(&self, context: &Context, name: &Name) -> Result<stream::Stream, String> {
        let found = match &self.config.create_stream {
            None => context.get_stream(name.as_str()).await.map_err(|error| error.to_string())?,
            Some(settings) => context
                .get_or_create_stream(stream::Config {
                    name: name.to_string(),
                    subjects: vec!["fleet.v1.>".to_owned()],
                    retention: stream::RetentionPolicy::WorkQueue,
                    discard: stream::DiscardPolicy::New,
                    storage: stream::StorageType::File,
                    num_replicas: usize::from(settings.replicas),
                    max_bytes: i64::try_from(settings.max_bytes).ok().filter(|most| *most > 0).unwrap_or(-1),
                    duplicate_window: Duration::from_secs(settings.duplicate_window_s),
                    ..stream::Config::default()
                })
                .await
                .map_err(|error| error.to_string())?,
        };
        let config = &found.cached_info().config;
        if config.storage != stream::StorageType::File {
            return Err("it keeps in memory".to_owned());
        }
        let bounded = config.max_bytes > 0 || config.max_messages > 0 || config.max_messages_per_subject > 0;
        if bounded && config.discard == stream::DiscardPolicy::Old || !config.max_age.is_zero() {
            tracing::warn!(stream = %name, "the stream drops what nobody received: acknowledged rows can be lost in it");
        }
        Ok(found)
    }

    /// The next message. Cancel-safe. After an error the connection is closed, and what was not acknowledged comes
    /// again after the consumer's wait.
    pub async fn next(&mut self) -> Result<StreamDelivery, Lost> {
        let far_side = self.far_side();
        let Some(connection) = &mut self.connection else {
            return Err(self.lose(format!("{far_side} is not connected")));
        };
        let reason = loop {
            tokio::select! {
                biased;
                message = connection.messages.next() => match message {
                    Some(Ok(message)) => return Ok(StreamDelivery::of(message)),
                    Some(Err(error)) => break format!("gives no messages: {error}"),
                    None => break "gives no more messages".to_owned(),
                },
                () = connection.post.work() => {}
                word = connection.words.next() => match word {
                    Word::Ended(reason) => break reason,
                    // Rows are kept all the same; their gateways wait.
                    Word::MayNotPublish { subject } if connection.post.may_not(&subject) => {}
                    Word::MayNotPublish { subject } => break format!("does not let this user publish to {subject}"),
                    Word::MayNotListen { subject } => break format!("does not let this user listen to {subject}"),
                },
            }
        };
        Err(self.lose(format!("{far_side} {reason}")))
    }

    /// A message that is here already.
    pub fn ready(&mut self) -> Option<StreamDelivery> {
        let connection = self.connection.as_mut()?;
        // An error stays for `next`, which is polled again.
        match connection.messages.next().now_or_never()?? {
            Ok(message) => Some(StreamDelivery::of(message)),
            Err(error) => {
                let reason = format!("{} gives no messages: {error}", self.far_side());
                self.lose(reason);
                None
            }
        }
    }

    /// The message's effect is safe. On a connection that is gone it does nothing, and the message comes again.
    pub fn acknowledge(&mut self, ack: &StreamAck) {
        if self.answer(ack, AckKind::Ack) {
            self.metrics.acknowledged.inc();
        }
    }

    /// Says something to a gateway, before anything that is acknowledged after it. If the gateway does not listen it is
    /// kept for it, later and not waited for: whoever needs to hear it asks again. False if it cannot be said.
    pub fn say(&mut self, topic: &str, payload: &Bytes) -> bool {
        let said = self.connection.as_mut().is_some_and(|connection| connection.post.say(topic, payload));
        if said {
            self.metrics.sent.inc();
            self.metrics.sent_bytes.inc_by(payload.len() as u64);
        }
        said
    }

    /// The message was put aside: nobody is to bring it again.
    pub fn terminate(&mut self, ack: &StreamAck) {
        self.answer(ack, AckKind::Term);
    }

    /// The message had no effect here and now: bring it again after `wait`.
    pub fn postpone(&mut self, ack: &StreamAck, wait: Duration) {
        self.answer(ack, AckKind::Nak(Some(wait)));
    }

    fn answer(&self, ack: &StreamAck, kind: AckKind) -> bool {
        self.connection.is_some() && matches!(ack.0.ack_with(kind).now_or_never(), Some(Ok(())))
    }

    /// Ends the connection in good order: acknowledgements leave first.
    pub async fn close(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let _ = tokio::time::timeout(GOODBYE, connection.client.flush()).await;
        self.state.lost("closed");
    }

    /// Drops the connection, so that what is unacknowledged comes again.
    pub fn disconnect(&mut self, reason: &str) {
        self.connection = None;
        self.state.lost(reason);
    }
}
