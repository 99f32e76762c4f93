//! The link over MQTT, QoS 1. A task of its own serves each connection, so that pings go out while the sender is busy,
//! and so that waiting for an answer can be interrupted without harm.

use std::collections::{HashMap, VecDeque};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Sleep;

use crate::base::Clock;

use super::config::{Config, Error};
use super::dial::{Dialled, Dialler, Role};
use super::link::{Answer, LinkState, Lost, Message, StateKeeper, Ticket, Uplink};
use super::metrics::Metrics;
use super::session::{Client, EventLoop, Heard};

/// Bytes of a PUBLISH beside topic and payload: type and length (5), topic length (2), packet id (2), properties (1).
const PUBLISH_OVERHEAD_BYTES: usize = 10;
/// How long a DISCONNECT may take to leave.
const GOODBYE: Duration = Duration::from_secs(1);

/// The link to an MQTT broker.
pub struct MqttUplink {
    dialler: Dialler,
    connection: Option<Connection>,
    state: StateKeeper,
    metrics: Metrics,
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
        Ok(Self { dialler, connection: None, state: StateKeeper::new(clock, metrics.clone()), metrics })
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
        self.state.answered(topic, &answer);
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
        packet.saturating_sub(topic.len() + PUBLISH_OVERHEAD_BYTES)
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
        let window = self.window();
        let (submissions, submitted) = mpsc::channel(window);
        // Every message gives one report at most, and the end gives one.
        let (report, reports) = mpsc::channel(window + 1);
        let service = Service {
            client,
            submitted: Some(submitted),
            report,
            far_side: self.config().far_side(),
            answer_timeout: Duration::from_millis(self.config().answer_timeout_ms),
            unsent: VecDeque::new(),
            unanswered: HashMap::new(),
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
        match connection.reports.recv().await {
            Some(Report::Answered(ticket, answer)) => {
                let topic = connection.waiting.remove(&ticket).unwrap_or_default();
                Ok(self.tell(ticket, &topic, answer))
            }
            Some(Report::Ended(reason)) => Err(self.lose(reason)),
            None => Err(self.lose(format!("the service of {} ended without a word", self.config().far_side()))),
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
                        if self.client.publish(&message.topic, &message.payload).is_err() {
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
