//! The link over MQTT, QoS 1. A task of its own serves each connection, so that pings go out while the sender is busy,
//! and so that waiting for an answer can be interrupted without harm.

use std::collections::{HashMap, VecDeque};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Sleep;

use crate::base::{Clock, Digest};

use super::config::{Config, Error};
use super::dial::{Dialled, Dialler, Role};
use super::link::{
    Answer, CloudMessage, Ears, HEARD_BYTES, HEARD_MESSAGES, LinkState, Lost, Message, StateKeeper, Ticket, Uplink,
};
use super::metrics::Metrics;
use super::session::{Client, EventLoop, Heard};

/// Bytes of a PUBLISH beside topic and payload: type and length (5), topic length (2), packet id (2), properties (1).
const PUBLISH_OVERHEAD_BYTES: usize = 10;
/// What asking for an answer adds beside the topic: identifiers and lengths of two properties, a digest, and a longer
/// length of all properties.
const ANSWER_OVERHEAD_BYTES: usize = 3 + 3 + 32 + 1;
/// How long a DISCONNECT may take to leave.
const GOODBYE: Duration = Duration::from_secs(1);

/// The link to an MQTT broker.
pub struct MqttUplink {
    dialler: Dialler,
    connection: Option<Connection>,
    state: StateKeeper,
    metrics: Metrics,
    ears: Option<Ears>,
    hear: mpsc::Sender<CloudMessage>,
    /// Until somebody takes it.
    heard: Option<mpsc::Receiver<CloudMessage>>,
}

struct Connection {
    submissions: mpsc::Sender<(Ticket, Message)>,
    reports: mpsc::Receiver<Report>,
    /// Topics of messages without an answer, for the state.
    waiting: HashMap<Ticket, String>,
    /// Answers that were known without asking.
    known: VecDeque<(Ticket, Answer)>,
    max_packet_bytes: usize,
    /// Ends with the connection.
    tasks: JoinSet<()>,
}

enum Report {
    Answered(Ticket, Answer),
    /// The broker does not let us listen; everything else goes on.
    Deaf(String),
    Ended(String),
}

impl MqttUplink {
    /// Checks the settings and reads the files they name; opens nothing yet. `client_id` counts where the
    /// settings give none.
    pub fn new(mut config: Config, client_id: &str, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        if config.client_id.is_empty() {
            client_id.clone_into(&mut config.client_id);
        }
        let role = Role { session_expiry_s: 0, receive_maximum: None };
        let dialler = Dialler::new(config, role, clock.clone())?;
        let metrics = Metrics::default();
        let state = StateKeeper::new(clock, metrics.clone());
        let (hear, heard) = mpsc::channel(HEARD_MESSAGES);
        Ok(Self { dialler, connection: None, state, metrics, ears: None, hear, heard: Some(heard) })
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

    fn config(&self) -> &Config {
        self.dialler.config()
    }

    fn lose(&mut self, reason: String) -> Lost {
        self.connection = None;
        self.metrics.losses.inc();
        self.state.lost(&reason);
        Lost { reason }
    }

    fn tell(&mut self, ticket: Ticket, topic: &str, answer: Answer) -> (Ticket, Answer) {
        let answer = match answer {
            Answer::NoSubscriber if self.config().accept_no_subscriber => Answer::Acknowledged,
            other => other,
        };
        if answer == Answer::Acknowledged {
            self.metrics.acknowledged.inc()
        } else {
            self.metrics.refused.inc()
        };
        let asked_for = self.ears.as_ref().and_then(|ears| ears.answers.as_deref()) == Some(topic);
        if !asked_for || answer != Answer::NoSubscriber {
            self.state.answered(topic, &answer);
        }
        (ticket, answer)
    }
}

impl Uplink for MqttUplink {
    fn window(&self) -> usize {
        usize::from(self.config().window)
    }

    fn max_payload_bytes(&self, topic: &str) -> usize {
        let configured = usize::try_from(self.config().max_packet_bytes).unwrap_or(usize::MAX);
        let packet = self.connection.as_ref().map_or(configured, |connection| connection.max_packet_bytes);
        let answer = self.ears.as_ref().and_then(|ears| ears.response_topic.as_ref());
        let answer = answer.map_or(0, |response_topic| response_topic.len() + ANSWER_OVERHEAD_BYTES);
        packet.saturating_sub(topic.len() + PUBLISH_OVERHEAD_BYTES + answer)
    }

    async fn connect(&mut self) -> Result<(), Lost> {
        if self.connection.is_some() {
            return Ok(());
        }
        let dialled = match self.dialler.dial().await {
            Ok(dialled) => dialled,
            Err(lost) => return Err(self.lose(lost.reason)),
        };
        let Dialled { client, eventloop, max_packet_bytes } = dialled;
        self.state.complain("subscription", None);
        // Before the first message on this connection, so that no answer to it is missed.
        if let Some(ears) = self.ears.as_ref().filter(|ears| !ears.filters.is_empty())
            && client.subscribe(&ears.filters).is_err()
        {
            return Err(self.lose(format!("{} takes no more requests", self.config().far_side())));
        }
        let window = self.window();
        let (submissions, submitted) = mpsc::channel(window);
        // Every message gives one report at most, the subscription gives one, and so does the end.
        let (report, reports) = mpsc::channel(window + 2);
        let service = Service {
            client,
            submitted: Some(submitted),
            report,
            far_side: self.config().far_side(),
            answer_timeout: Duration::from_millis(self.config().answer_timeout_ms),
            unsent: VecDeque::new(),
            unanswered: HashMap::new(),
            response_topic: self.ears.as_ref().and_then(|ears| ears.response_topic.clone()),
            hear: self.hear.clone(),
            metrics: self.metrics.clone(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(service.run(eventloop));
        self.connection = Some(Connection {
            submissions,
            reports,
            waiting: HashMap::new(),
            known: VecDeque::new(),
            max_packet_bytes: usize::try_from(max_packet_bytes).unwrap_or(usize::MAX),
            tasks,
        });
        self.metrics.connections.inc();
        self.state.connected();
        Ok(())
    }

    fn submit(&mut self, ticket: Ticket, message: Message) -> Result<(), Lost> {
        let window = self.window();
        let max_payload_bytes = self.max_payload_bytes(&message.topic);
        let Some(connection) = &mut self.connection else {
            return Err(self.lose(format!("{} is not connected", self.config().far_side())));
        };
        if message.payload.len() > max_payload_bytes {
            connection.known.push_back((ticket, Answer::TooLarge { max_payload_bytes }));
            return Ok(());
        }
        if connection.waiting.len() >= window {
            return Err(self.lose(format!("more than {window} messages were submitted at once")));
        }
        connection.waiting.insert(ticket, message.topic.clone());
        let payload_bytes = message.payload.len() as u64;
        // A full channel means a service that ended: the answer says why.
        let _ = connection.submissions.try_send((ticket, message));
        self.metrics.sent.inc();
        self.metrics.sent_bytes.inc_by(payload_bytes);
        Ok(())
    }

    async fn answer(&mut self) -> Result<(Ticket, Answer), Lost> {
        let Some(connection) = &mut self.connection else {
            return Err(self.lose(format!("{} is not connected", self.config().far_side())));
        };
        if let Some(known) = connection.known.pop_front() {
            self.metrics.refused.inc();
            return Ok(known);
        }
        loop {
            match connection.reports.recv().await {
                Some(Report::Answered(ticket, answer)) => {
                    let topic = connection.waiting.remove(&ticket).unwrap_or_default();
                    return Ok(self.tell(ticket, &topic, answer));
                }
                Some(Report::Deaf(reason)) => {
                    tracing::warn!(reason, "the cloud cannot be heard");
                    self.state.complain("subscription", Some(reason));
                }
                Some(Report::Ended(reason)) => return Err(self.lose(reason)),
                None => {
                    let far_side = self.config().far_side();
                    return Err(self.lose(format!("the service of {far_side} ended without a word")));
                }
            }
        }
    }

    async fn close(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        drop(connection.submissions);
        // The service says goodbye within its own limit; a broken one is aborted with the set.
        let _ = tokio::time::timeout(GOODBYE + GOODBYE, connection.tasks.join_next()).await;
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

/// What serves one connection until its first error.
struct Service {
    client: Client,
    /// `None` once the sender has gone.
    submitted: Option<mpsc::Receiver<(Ticket, Message)>>,
    report: mpsc::Sender<Report>,
    far_side: String,
    answer_timeout: Duration,
    /// Handed to the client, not yet seen leaving; they leave in this order.
    unsent: VecDeque<Ticket>,
    unanswered: HashMap<u16, Ticket>,
    response_topic: Option<String>,
    hear: mpsc::Sender<CloudMessage>,
    metrics: Metrics,
}

enum Wake {
    Heard(Heard),
    Ended(String),
    Late,
}

impl Service {
    async fn run(mut self, mut eventloop: EventLoop) {
        // Counts from the first message that waits, and anew from every answer.
        let mut deadline = pin!(tokio::time::sleep(self.answer_timeout));
        let reason = loop {
            match self.wake(&mut eventloop, deadline.as_mut()).await {
                Wake::Heard(Heard::Disconnected) => break "closed".to_owned(),
                Wake::Heard(heard) => {
                    if self.hear(heard).await {
                        deadline.set(tokio::time::sleep(self.answer_timeout));
                    }
                }
                Wake::Ended(reason) => break format!("{} {reason}", self.far_side),
                Wake::Late if self.submitted.is_none() => break "closed".to_owned(),
                Wake::Late => {
                    let waited_ms = self.answer_timeout.as_millis();
                    break format!("{} acknowledged nothing for {waited_ms} ms", self.far_side);
                }
            }
        };
        for heard in eventloop.rest() {
            self.hear(heard).await;
        }
        let _ = self.report.send(Report::Ended(reason)).await;
    }

    /// Polls once to the end (a poll must not be dropped half-way), taking submissions meanwhile.
    async fn wake(&mut self, eventloop: &mut EventLoop, mut deadline: Pin<&mut Sleep>) -> Wake {
        let mut poll = pin!(eventloop.poll());
        loop {
            let waits = self.submitted.is_none() || !self.unsent.is_empty() || !self.unanswered.is_empty();
            tokio::select! {
                heard = &mut poll => {
                    return match heard {
                        Ok(heard) => Wake::Heard(heard),
                        Err(ended) => Wake::Ended(ended.reason()),
                    };
                }
                () = deadline.as_mut(), if waits => return Wake::Late,
                submission = next(&mut self.submitted) => match submission {
                    Some((ticket, message)) => {
                        if !waits {
                            deadline.set(tokio::time::sleep(self.answer_timeout));
                        }
                        let correlation = || Bytes::copy_from_slice(Digest::of(&message.payload).as_bytes());
                        let answer = self.response_topic.as_deref().map(|topic| (topic, correlation()));
                        if self.client.publish(&message.topic, &message.payload, answer).is_err() {
                            return Wake::Ended("takes no more requests".to_owned());
                        }
                        self.unsent.push_back(ticket);
                    }
                    None => {
                        self.submitted = None;
                        deadline.set(tokio::time::sleep(GOODBYE));
                        if self.client.disconnect().is_err() {
                            return Wake::Ended("takes no more requests".to_owned());
                        }
                    }
                },
            }
        }
    }

    /// True if it was an answer.
    async fn hear(&mut self, heard: Heard) -> bool {
        match heard {
            Heard::Sent(packet_id) => {
                if let Some(ticket) = self.unsent.pop_front() {
                    self.unanswered.insert(packet_id, ticket);
                }
                false
            }
            Heard::Answered(packet_id, answer) => {
                if let Some(ticket) = self.unanswered.remove(&packet_id) {
                    // The channel has room for one report of each message.
                    let _ = self.report.send(Report::Answered(ticket, answer)).await;
                }
                true
            }
            Heard::Delivered { topic, payload, correlation, packet_id, .. } => {
                // Acknowledged at once: what is said here is said again by whoever needs an effect.
                let _ = self.client.acknowledge(packet_id);
                // A copy, so that a short message does not hold the buffer that it was read into.
                let short = (payload.len() <= HEARD_BYTES).then(|| Bytes::copy_from_slice(&payload));
                let message = short.map(|payload| CloudMessage { topic, payload, correlation, done: None });
                let heard = message.is_some_and(|message| self.hear.try_send(message).is_ok());
                if heard {
                    self.metrics.heard.inc()
                } else {
                    self.metrics.unheard.inc()
                };
                false
            }
            Heard::Subscribed(Err(refused)) => {
                let reason = format!("{} refuses the subscription to the cloud's words: {refused}", self.far_side);
                // The channel has room for one.
                let _ = self.report.send(Report::Deaf(reason)).await;
                false
            }
            _ => false,
        }
    }
}

async fn next(submitted: &mut Option<mpsc::Receiver<(Ticket, Message)>>) -> Option<(Ticket, Message)> {
    match submitted {
        Some(submitted) => submitted.recv().await,
        None => std::future::pending().await,
    }
}
