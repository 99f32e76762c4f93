//! Publications into a stream, and the stream's answers.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, HeaderMap, StatusCode, Subscriber};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Sleep;

use crate::base::{Clock, Digest};
use crate::uplink::config::{Config, Error};
use crate::uplink::link::{
    Answer, CloudMessage, Ears, HEARD_MESSAGES, LinkState, Lost, Message, StateKeeper, Ticket, Uplink,
};
use crate::uplink::metrics::Metrics;

use super::answer::{self, StreamInfo};
use super::dial::{Dialled, Dialler, Word, Words};
use super::ears::{CaughtUp, Ears as Listening, Hearing};
use super::letters::{Letters, MESSAGE_ID};
use super::subject::{self, Line, subject_of};
use crate::uplink::nats_settings::NatsConfig;

/// The server refuses the message if another stream takes the subject.
const EXPECTED_STREAM: &str = "Nats-Expected-Stream";
/// The sender keeps the message until a receiver confirms it.
pub(super) const RECEIPT: &str = "Forebay-Receipt";
/// Bytes of a message's header beside the stream's name: the first line, three names, the id in hexadecimal, a digit, line
/// ends.
const HEADER_BYTES: usize =
    12 + MESSAGE_ID.len() + 2 + 32 + 2 + EXPECTED_STREAM.len() + 2 + 2 + RECEIPT.len() + 2 + 1 + 2 + 2;
/// Messages of a connection whose repetition is known: more than wait for receipts.
const KNOWN_IDS: usize = 512;
/// How long the last words may take to leave.
const GOODBYE: Duration = Duration::from_secs(1);

/// The link to a JetStream.
pub struct JetStreamUplink {
    dialler: Dialler,
    nats: NatsConfig,
    connection: Option<Connection>,
    state: StateKeeper,
    metrics: Metrics,
    ears: Option<Ears>,
    hear: mpsc::Sender<CloudMessage>,
    /// Until somebody takes it.
    heard: Option<mpsc::Receiver<CloudMessage>>,
}

struct Connection {
    client: Client,
    words: Words,
    /// Answers come back on `{inbox}.{ticket}`.
    inbox: String,
    answers: Subscriber,
    /// Topic and subject of messages without an answer.
    waiting: HashMap<Ticket, (String, String)>,
    /// Answers that were known without asking.
    known: VecDeque<(Ticket, Answer)>,
    /// Counts from the first message that waits, and anew from every answer.
    deadline: Pin<Box<Sleep>>,
    max_payload_bytes: usize,
    max_message_bytes: Option<usize>,
    /// Of the messages that were sent last.
    ids: VecDeque<String>,
    letters: Letters,
    /// Letters on their way to a letterbox.
    posts: JoinSet<(Ticket, Answer)>,
    /// What hears; ends with the connection.
    _tasks: JoinSet<()>,
}

impl JetStreamUplink {
    /// Checks the settings and reads the files they name; opens nothing yet. `client_name` counts where the settings
    /// give none; the server shows it in its monitoring.
    pub fn new(mut config: Config, client_name: &str, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        if config.client_id.is_empty() {
            client_name.clone_into(&mut config.client_id);
        }
        let dialler = Dialler::new(config, clock.clone())?;
        let (nats, metrics) = (dialler.nats(), Metrics::default());
        let state = StateKeeper::new(clock, metrics.clone());
        let (hear, heard) = mpsc::channel(HEARD_MESSAGES);
        Ok(Self { dialler, nats, connection: None, state, metrics, ears: None, hear, heard: Some(heard) })
    }

    /// Listens to the cloud on every connection from now on.
    #[must_use]
    pub fn listening(mut self, ears: Ears) -> Self {
        self.ears = Some(ears);
        self
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn far_side(&self) -> String {
        self.dialler.config().far_side()
    }

    fn answer_timeout(&self) -> Duration {
        Duration::from_millis(self.dialler.config().answer_timeout_ms)
    }

    fn lose(&mut self, reason: String) -> Lost {
        self.connection = None;
        self.metrics.losses.inc();
        self.state.lost(&reason);
        Lost { reason }
    }

    fn header_bytes(&self) -> usize {
        HEADER_BYTES + self.nats.stream.as_str().len()
    }

    /// What the stream says about itself; nothing if this user may not ask.
    async fn look_at_stream(&self, client: &Client, words: &mut Words) -> Result<Option<usize>, String> {
        if !self.nats.check_stream {
            return Ok(None);
        }
        let stream = &self.nats.stream;
        let subject = format!("{}.STREAM.INFO.{stream}", self.nats.api());
        let described = tokio::select! {
            described = client.request(subject, bytes::Bytes::new()) => described,
            word = words.next() => return match word {
                Word::MayNotPublish { .. } | Word::MayNotListen { .. } => Ok(None),
                Word::Ended(reason) => Err(reason),
            },
        };
        let described = described.map_err(|error| match error.kind() {
            async_nats::RequestErrorKind::NoResponders => "there is no JetStream".to_owned(),
            _ => format!("it does not say what it is ({error})"),
        });
        let info = described.and_then(|message| {
            serde_json::from_slice::<StreamInfo>(&message.payload).map_err(|error| error.to_string())
        });
        info.and_then(|info| info.check()).map_err(|reason| format!("has no usable stream {stream}: {reason}"))
    }

    /// Listens, and takes what was kept while nobody listened. That it may not is said in the link's state; rows travel
    /// all the same.
    async fn open_ears(&mut self, client: &Client, words: &mut Words) -> Result<JoinSet<()>, String> {
        let mut tasks = JoinSet::new();
        let filters = self.ears.as_ref().map(|ears| ears.filters.clone()).filter(|filters| !filters.is_empty());
        let Some(filters) = filters else { return Ok(tasks) };
        let hearing = Hearing { hear: self.hear.clone(), metrics: self.metrics.clone() };
        let mut ears = Listening::open(client, Letters::new(client.clone(), &self.nats), &filters, hearing).await?;
        let CaughtUp { unread, deaf } = ears.catch_up(words, self.answer_timeout()).await?;
        self.state.complain("letterbox", unread.map(|reason| format!("the letterbox cannot be read: {reason}")));
        self.state.complain("subscription", None);
        if let Some(subject) = deaf {
            self.cannot_listen(&subject);
        }
        ears.listen(&mut tasks);
        Ok(tasks)
    }

    fn cannot_listen(&mut self, subject: &str) {
        let reason = format!("{} does not let this user listen to {subject}", self.far_side());
        tracing::warn!(reason, "the cloud cannot be heard");
        self.state.complain("subscription", Some(reason));
    }

    fn tell(&mut self, ticket: Ticket, answer: Answer) -> Option<(Ticket, Answer)> {
        let connection = self.connection.as_mut()?;
        let (topic, _) = connection.waiting.remove(&ticket)?;
        connection.deadline =
            Box::pin(tokio::time::sleep(Duration::from_millis(self.dialler.config().answer_timeout_ms)));
        if answer == Answer::Acknowledged {
            self.metrics.acknowledged.inc()
        } else {
            self.metrics.refused.inc()
        };
        self.state.answered(&topic, &answer);
        Some((ticket, answer))
    }
}

impl Uplink for JetStreamUplink {
    fn window(&self) -> usize {
        usize::from(self.dialler.config().window)
    }

    fn max_payload_bytes(&self, _topic: &str) -> usize {
        let configured = usize::try_from(self.dialler.config().max_packet_bytes).unwrap_or(usize::MAX);
        let server = self.connection.as_ref().map_or(configured, |connection| connection.max_payload_bytes);
        server.min(configured).saturating_sub(self.header_bytes())
    }

    async fn connect(&mut self) -> Result<(), Lost> {
        if self.connection.is_some() {
            return Ok(());
        }
        let Dialled { client, mut words } = match self.dialler.dial().await {
            Ok(dialled) => dialled,
            Err(lost) => return Err(self.lose(lost.reason)),
        };
        let max_message_bytes = match self.look_at_stream(&client, &mut words).await {
            Ok(most) => most,
            Err(reason) => return Err(self.lose(format!("{} {reason}", self.far_side()))),
        };
        let inbox = client.new_inbox();
        let answers = match client.subscribe(format!("{inbox}.*")).await {
            Ok(answers) => answers,
            Err(error) => return Err(self.lose(format!("{} cannot be asked for answers: {error}", self.far_side()))),
        };
        let max_payload_bytes = client.server_info().max_payload.min(max_message_bytes.unwrap_or(usize::MAX));
        let tasks = match self.open_ears(&client, &mut words).await {
            Ok(tasks) => tasks,
            Err(reason) => return Err(self.lose(format!("{} {reason}", self.far_side()))),
        };
        let letters = Letters::new(client.clone(), &self.nats);
        self.connection = Some(Connection {
            client,
            words,
            inbox,
            answers,
            ids: VecDeque::new(),
            letters,
            posts: JoinSet::new(),
            _tasks: tasks,
            waiting: HashMap::new(),
            known: VecDeque::new(),
            deadline: Box::pin(tokio::time::sleep(self.answer_timeout())),
            max_payload_bytes,
            max_message_bytes,
        });
        self.metrics.connections.inc();
        self.state.connected();
        Ok(())
    }

    fn submit(&mut self, ticket: Ticket, message: Message) -> Result<(), Lost> {
        let (window, max_payload_bytes) = (self.window(), self.max_payload_bytes(&message.topic));
        let (far_side, answer_timeout) = (self.far_side(), self.answer_timeout());
        let wants_receipt = self.ears.as_ref().is_some_and(|ears| ears.response_topic.is_some());
        let Some(connection) = &mut self.connection else {
            return Err(self.lose(format!("{far_side} is not connected")));
        };
        let Message { topic, payload } = message;
        if payload.len() > max_payload_bytes {
            connection.known.push_back((ticket, Answer::TooLarge { max_payload_bytes }));
            return Ok(());
        }
        let Some(subject) = subject_of(&topic) else {
            let reason = format!("{topic:?} has no subject");
            connection.known.push_back((ticket, Answer::Refused { reason }));
            return Ok(());
        };
        if connection.waiting.len() >= window {
            return Err(self.lose(format!("more than {window} messages were submitted at once")));
        }
        let payload_bytes = payload.len() as u64;
        if let Some(line) = Line::of(&topic) {
            if line.word() == subject::Word::Request && self.nats.keep_requests {
                let letters = connection.letters.clone();
                connection.waiting.insert(ticket, (topic, line.live()));
                connection.posts.spawn(async move {
                    let asked = letters.ask_gateway(&line, payload).await;
                    (ticket, asked.map_or_else(|reason| Answer::Refused { reason }, |()| Answer::Acknowledged))
                });
            } else {
                // Nobody answers it, and whoever misses it asks again.
                let handed = connection.client.publish(line.live(), payload).now_or_never();
                if !matches!(handed, Some(Ok(()))) {
                    return Err(self.lose(format!("{far_side} takes no more messages")));
                }
                connection.known.push_back((ticket, Answer::Acknowledged));
            }
            self.metrics.sent.inc();
            self.metrics.sent_bytes.inc_by(payload_bytes);
            return Ok(());
        }
        let mut headers = HeaderMap::new();
        let id = identity(&subject, &payload);
        // What a receiver has not confirmed is sent again to be confirmed: the stream must not swallow it as known.
        if !wants_receipt || !connection.ids.contains(&id) {
            headers.insert(MESSAGE_ID, id.as_str());
            if wants_receipt {
                connection.ids.push_back(id);
                if connection.ids.len() > KNOWN_IDS {
                    connection.ids.pop_front();
                }
            }
        }
        headers.insert(EXPECTED_STREAM, self.nats.stream.as_str());
        if wants_receipt {
            headers.insert(RECEIPT, "1");
        }
        let reply = format!("{}.{ticket}", connection.inbox);
        // The channel behind it holds more than a window: what does not go at once never will.
        let handed =
            connection.client.publish_with_reply_and_headers(subject.clone(), reply, headers, payload).now_or_never();
        match handed {
            Some(Ok(())) => {}
            Some(Err(error)) => return Err(self.lose(format!("{far_side} takes no more messages: {error}"))),
            None => return Err(self.lose(format!("{far_side} takes no more messages"))),
        }
        if connection.waiting.is_empty() {
            connection.deadline = Box::pin(tokio::time::sleep(answer_timeout));
        }
        connection.waiting.insert(ticket, (topic, subject));
        self.metrics.sent.inc();
        self.metrics.sent_bytes.inc_by(payload_bytes);
        Ok(())
    }

    async fn answer(&mut self) -> Result<(Ticket, Answer), Lost> {
        let far_side = self.far_side();
        loop {
            let Some(connection) = &mut self.connection else {
                return Err(self.lose(format!("{far_side} is not connected")));
            };
            if let Some(known) = connection.known.pop_front() {
                match known.1 {
                    Answer::Acknowledged => self.metrics.acknowledged.inc(),
                    _ => self.metrics.refused.inc(),
                };
                return Ok(known);
            }
            let waits = !connection.waiting.is_empty();
            let told = tokio::select! {
                biased;
                reply = connection.answers.next() => match reply {
                    Some(reply) => {
                        let ticket = reply.subject.rsplit('.').next().and_then(|ticket| ticket.parse().ok());
                        let answer = match reply.status {
                            Some(StatusCode::NO_RESPONDERS) => Answer::NoSubscriber,
                            Some(status) => Answer::Refused { reason: format!("status {status}") },
                            None => answer::read(&reply.payload, &self.nats, connection.max_message_bytes),
                        };
                        ticket.and_then(|ticket| self.tell(ticket, answer))
                    }
                    None => return Err(self.lose(format!("{far_side} closed the connection"))),
                },
                Some(posted) = connection.posts.join_next(), if !connection.posts.is_empty() => match posted {
                    Ok((ticket, answer)) => self.tell(ticket, answer),
                    Err(_) => None,
                },
                word = connection.words.next() => match word {
                    Word::Ended(reason) => return Err(self.lose(format!("{far_side} {reason}"))),
                    Word::MayNotPublish { subject } => {
                        let is_theirs = |topic: &str, other: &str| {
                            other == subject || (subject.starts_with('$') && Line::of(topic).is_some())
                        };
                        let theirs = connection.waiting.iter().filter(|(_, (topic, other))| is_theirs(topic, other));
                        let oldest = theirs.map(|(ticket, _)| *ticket).min();
                        let reason = "permissions violation".to_owned();
                        oldest.and_then(|ticket| self.tell(ticket, Answer::Refused { reason }))
                    }
                    Word::MayNotListen { subject } => {
                        self.cannot_listen(&subject);
                        None
                    }
                },
                () = connection.deadline.as_mut(), if waits => {
                    let waited_ms = self.dialler.config().answer_timeout_ms;
                    return Err(self.lose(format!("{far_side} acknowledged nothing for {waited_ms} ms")));
                }
            };
            if let Some(told) = told {
                return Ok(told);
            }
        }
    }

    async fn close(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let _ = tokio::time::timeout(GOODBYE, connection.client.flush()).await;
        self.state.lost("closed");
    }

    fn state(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    fn cloud_messages(&mut self) -> Option<mpsc::Receiver<CloudMessage>> {
        self.ears.as_ref().filter(|ears| !ears.filters.is_empty()).and(self.heard.take())
    }

    fn complain(&mut self, about: &'static str, complaint: Option<String>) {
        self.state.complain(about, complaint);
    }
}

/// The same for the same bytes on the same subject, and as good as different otherwise: 128 bits of SHA-256.
fn identity(subject: &str, payload: &[u8]) -> String {
    let both = [Digest::of(subject.as_bytes()), Digest::of(payload)];
    let digest = Digest::of(&[*both[0].as_bytes(), *both[1].as_bytes()].concat());
    hex::encode(&digest.as_bytes()[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repetition_has_the_same_identity_and_nothing_else_has() {
        assert_eq!(identity("a.b", b"rows"), identity("a.b", b"rows"));
        assert_ne!(identity("a.b", b"rows"), identity("a.c", b"rows"));
        assert_ne!(identity("a.b", b"rows"), identity("a.b", b"rowz"));
    }
}
