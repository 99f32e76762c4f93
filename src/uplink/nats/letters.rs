//! Letterboxes: what the cloud says to a gateway that may be away, kept until the gateway has taken it.
//!
//! One stream holds all of them, and each gateway that ever had a letter has a consumer there, which whoever writes the first
//! letter makes and which is gone when nobody has used it for a while. A gateway needs to ask that one consumer and
//! nothing else. A letter is a copy: nothing is lost with it that is not said again.

use std::time::Duration;

use async_nats::jetstream::stream;
use async_nats::{Client, HeaderMap, StatusCode};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use crate::base::Digest;
use crate::uplink::nats_settings::NatsConfig;

use super::answer::Refusal;
use super::subject::{Line, Word};

/// Repetitions of a message within the stream's window carry the same one.
pub(super) const MESSAGE_ID: &str = "Nats-Msg-Id";
/// On a message to a gateway that listens: it is in its letterbox, too, and to be taken from there.
pub(super) const LETTER: &str = "Forebay-Letter";
/// Letters of one kind for one gateway; then the oldest goes.
const MOST: i64 = 128;
/// How long a letter is kept.
const KEPT_FOR: Duration = Duration::from_secs(7 * 86_400);
/// A letterbox that nobody has used for so long is gone.
const UNUSED_FOR: Duration = Duration::from_secs(8 * 86_400);
/// A letter that was handed out and not taken is handed out again after this.
pub(super) const HANDED_OUT_FOR: Duration = Duration::from_secs(30);
/// Longest letter with its headers; the gateways take 4096 bytes.
const LETTER_BYTES: i32 = 8192;
/// The API's word for what does not exist.
const NOT_FOUND: u32 = 404;

/// The letterboxes of one server.
#[derive(Debug, Clone)]
pub(super) struct Letters {
    client: Client,
    api: String,
    stream: String,
}

/// What the API says to a request, as far as it matters.
#[derive(Debug, Deserialize)]
struct Told {
    error: Option<Refusal>,
    #[serde(default)]
    num_pending: u64,
    #[serde(default)]
    num_ack_pending: u64,
    #[serde(default)]
    seq: u64,
    /// The stream has, or had, the same letter.
    #[serde(default)]
    duplicate: bool,
}

impl Letters {
    pub(super) fn new(client: Client, settings: &NatsConfig) -> Self {
        Self { client, api: settings.letters_api(), stream: settings.letters() }
    }

    /// The stream as it is made: on disk, each letter until it is taken, the oldest giving way.
    pub(super) fn stream(settings: &NatsConfig, replicas: usize) -> stream::Config {
        stream::Config {
            name: settings.letters(),
            subjects: vec!["letters.v1.*.*.*".to_owned()],
            retention: stream::RetentionPolicy::WorkQueue,
            discard: stream::DiscardPolicy::Old,
            storage: stream::StorageType::File,
            num_replicas: replicas,
            max_messages_per_subject: MOST,
            max_message_size: LETTER_BYTES,
            max_age: KEPT_FOR,
            ..stream::Config::default()
        }
    }

    /// Keeps a letter. `has_letterbox` if it is known that the gateway has one. False if the same letter was written a while
    /// ago: it is in the box, or was taken from it.
    pub(super) async fn keep(&self, line: &Line, payload: Bytes, has_letterbox: bool) -> Result<bool, String> {
        if !has_letterbox {
            let wanted = json!({ "stream_name": self.stream, "config": {
                "durable_name": line.letterbox(),
                "filter_subject": line.all_kept(),
                "ack_policy": "explicit",
                "ack_wait": nanos(HANDED_OUT_FOR),
                "inactive_threshold": nanos(UNUSED_FOR),
                "deliver_policy": "all",
                "replay_policy": "instant",
                "max_deliver": -1,
            } });
            let subject = format!("{}.CONSUMER.DURABLE.CREATE.{}.{}", self.api, self.stream, line.letterbox());
            self.ask(subject, HeaderMap::new(), wanted.to_string().into()).await?;
        }
        let mut headers = HeaderMap::new();
        // Whoever asks every few seconds writes one letter.
        headers.insert(MESSAGE_ID, hex::encode(&Digest::of(&payload).as_bytes()[..16]));
        headers.insert("Nats-Expected-Stream", self.stream.as_str());
        let told = self.ask(line.kept(), headers, payload).await?;
        if told.seq > 0 {
            Ok(!told.duplicate)
        } else {
            Err(format!("the stream {} did not take the letter", self.stream))
        }
    }

    /// Keeps a request and tells the gateway, if it listens, to look for it. Without letterboxes it only hears it.
    pub(super) async fn ask_gateway(&self, line: &Line, payload: Bytes) -> Result<(), String> {
        let kept = self.keep(line, payload.clone(), false).await;
        let mut headers = HeaderMap::new();
        // Only what is in the box for sure has to be looked for there.
        if kept == Ok(true) {
            headers.insert(LETTER, "1");
        }
        let said = self.client.publish_with_headers(line.live(), headers, payload).await;
        said.map_err(|error| error.to_string())?;
        kept.map(drop)
    }

    async fn ask(&self, subject: String, headers: HeaderMap, payload: Bytes) -> Result<Told, String> {
        let reply = self.client.request_with_headers(subject, headers, payload).await;
        let reply = reply.map_err(|error| format!("{} does not answer: {error}", self.stream))?;
        let told: Told = serde_json::from_slice(&reply.payload).map_err(|error| error.to_string())?;
        match told.error {
            Some(Refusal { code: NOT_FOUND, .. }) => {
                Err(format!("there is no stream {}: `forebay collect --create-stream` makes it", self.stream))
            }
            Some(Refusal { description, .. }) => Err(format!("{}: {description}", self.stream)),
            None => Ok(told),
        }
    }

    /// True if letters wait in the gateway's box; false if there is none.
    pub(super) async fn wait_for(&self, line: &Line) -> Result<bool, String> {
        let subject = format!("{}.CONSUMER.INFO.{}.{}", self.api, self.stream, line.letterbox());
        let reply = self.client.request(subject, Bytes::new()).await.map_err(|error| error.to_string())?;
        let told: Told = serde_json::from_slice(&reply.payload).map_err(|error| error.to_string())?;
        match told.error {
            Some(Refusal { code: NOT_FOUND, .. }) => Ok(false),
            Some(Refusal { description, .. }) => Err(description),
            None => Ok(told.num_pending + told.num_ack_pending > 0),
        }
    }

    /// Has the letters brought to `inbox`, and then a word that these were all.
    pub(super) async fn fetch(&self, line: &Line, inbox: &str) -> Result<(), String> {
        let subject = format!("{}.CONSUMER.MSG.NEXT.{}.{}", self.api, self.stream, line.letterbox());
        let wanted = json!({ "batch": 2 * MOST, "no_wait": true }).to_string();
        self.client
            .publish_with_reply(subject, inbox.to_owned(), wanted.into())
            .await
            .map_err(|error| error.to_string())
    }
}

/// True if the letter says that there are no more.
pub(super) fn is_the_end(status: Option<StatusCode>) -> bool {
    status.is_some()
}

/// The words that are kept for a gateway, not those for whoever asks it.
pub(super) fn is_kept(line: &Line) -> bool {
    line.word() != Word::Response
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
