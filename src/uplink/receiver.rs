//! The receiving side: a session that the broker keeps, and an acknowledgement that leaves only when told.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::base::Clock;

use super::config::{Config, Error};
use super::dial::{Dialled, Dialler, Role};
use super::link::{Answer, LinkState, Lost, StateKeeper};
use super::metrics::Metrics;
use super::session::{Client, EventLoop, Heard};

/// How long acknowledgements and a DISCONNECT may take to leave.
const GOODBYE: Duration = Duration::from_secs(2);

/// The receiver's settings beside those of the link.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReceiverConfig {
    /// What is subscribed to.
    pub filters: Vec<String>,
    /// How long the broker keeps messages for a receiver that is away. Longer absences lose nothing that the
    /// gateways have not yet sent, but what the broker had acknowledged and then drops is gone.
    pub session_expiry_s: u32,
    /// Messages that may be unacknowledged at once, 1 to 1024.
    pub receive_maximum: u16,
}

impl Default for ReceiverConfig {
    fn default() -> Self {
        Self { filters: vec!["fleet/v1/+/+/+/+".to_owned()], session_expiry_s: 30 * 86_400, receive_maximum: 32 }
    }
}

/// One message from the broker, to be acknowledged once its effect is safe.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Where it was published.
    pub topic: String,
    /// What it carries.
    pub payload: Bytes,
    /// Its sender named a topic for an answer (MQTT 5), so it keeps what is not confirmed there.
    pub answer_wanted: bool,
    /// Give it back to [`Receiver::acknowledge`].
    pub token: AckToken,
}

/// Names one delivery on one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckToken {
    connection: u64,
    packet_id: u16,
}

/// A subscriber whose session outlives its connections.
pub struct Receiver {
    dialler: Dialler,
    config: ReceiverConfig,
    connection: Option<Connection>,
    connections: u64,
    state: StateKeeper,
    metrics: Metrics,
}

struct Connection {
    client: Client,
    deliveries: mpsc::Receiver<Event>,
    _tasks: JoinSet<()>,
}

enum Event {
    Delivered { topic: String, payload: Bytes, answer_wanted: bool, packet_id: u16 },
    Ended(String),
}

impl Receiver {
    /// Checks the settings and reads the files they name; opens nothing yet. The client id names the session: two
    /// receivers with one id throw each other out. `client_id` counts where the settings give none.
    pub fn new(
        mut link: Config,
        config: ReceiverConfig,
        client_id: &str,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        if link.client_id.is_empty() {
            client_id.clone_into(&mut link.client_id);
        }
        let wrong = |setting, problem: &str| Err(Error::Setting { setting, problem: problem.to_owned() });
        if link.client_id.is_empty() {
            return wrong("client_id", "must be set: the broker keeps the session under it");
        }
        if config.filters.is_empty() || config.filters.iter().any(String::is_empty) {
            return wrong("filters", "must name at least one topic filter, for example fleet/v1/+/+/+/+");
        }
        if config.session_expiry_s == 0 || !(1..=1024).contains(&config.receive_maximum) {
            return wrong("session_expiry_s and receive_maximum", "must be 1 or more, receive_maximum at most 1024");
        }
        let role = Role { session_expiry_s: config.session_expiry_s, receive_maximum: Some(config.receive_maximum) };
        let dialler = Dialler::new(link, role, clock.clone())?;
        let metrics = Metrics::default();
        let state = StateKeeper::new(clock, metrics.clone());
        Ok(Self { dialler, config, connection: None, connections: 0, state, metrics })
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// How the link is; changes wake the receivers.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    fn lose(&mut self, reason: String) -> Lost {
        self.connection = None;
        self.metrics.losses.inc();
        self.state.lost(&reason);
        Lost { reason }
    }

    /// Opens the connection if it is not open, and subscribes. Returns once the broker granted the filters or brings
    /// what it kept.
    pub async fn connect(&mut self) -> Result<(), Lost> {
        if self.connection.is_some() {
            return Ok(());
        }
        let far_side = self.dialler.config().far_side();
        let dialled = match self.dialler.dial().await {
            Ok(dialled) => dialled,
            Err(lost) => return Err(self.lose(lost.reason)),
        };
        let Dialled { client, eventloop, .. } = dialled;
        if client.subscribe(&self.config.filters).is_err() {
            return Err(self.lose(format!("{far_side} takes no more requests")));
        }
        let (deliver, deliveries) = mpsc::channel(usize::from(self.config.receive_maximum));
        let (granted, mut grant) = mpsc::channel(1);
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(eventloop, deliver, granted, (far_side.clone(), self.metrics.clone())));
        let limit = Duration::from_millis(self.dialler.config().connect_timeout_ms);
        match tokio::time::timeout(limit, grant.recv()).await {
            Ok(Some(Ok(()))) => {}
            Ok(Some(Err(reason))) => return Err(self.lose(reason)),
            Ok(None) | Err(_) => return Err(self.lose(format!("{far_side} did not answer the subscription"))),
        }
        self.connections += 1;
        self.connection = Some(Connection { client, deliveries, _tasks: tasks });
        self.metrics.connections.inc();
        self.state.connected();
        Ok(())
    }

    /// The next message. Cancel-safe. After an error the connection is closed and the broker will bring again what
    /// was not acknowledged.
    pub async fn next(&mut self) -> Result<Delivery, Lost> {
        let Some(connection) = &mut self.connection else {
            return Err(self.lose(format!("{} is not connected", self.dialler.config().far_side())));
        };
        match connection.deliveries.recv().await {
            Some(Event::Delivered { topic, payload, answer_wanted, packet_id }) => {
                let token = AckToken { connection: self.connections, packet_id };
                Ok(Delivery { topic, payload, answer_wanted, token })
            }
            Some(Event::Ended(reason)) => Err(self.lose(reason)),
            None => Err(self.lose(format!("the service of {} ended without a word", self.dialler.config().far_side()))),
        }
    }

    /// Tells the broker that the message's effect is safe. On another connection than the message's it does nothing:
    /// the broker brings the message again there.
    pub fn acknowledge(&mut self, token: AckToken) {
        let Some(connection) = &self.connection else { return };
        if token.connection == self.connections && connection.client.acknowledge(token.packet_id).is_ok() {
            self.metrics.acknowledged.inc();
        }
    }

    /// Says something to a gateway, QoS 1, after everything that was acknowledged or said before. Not waited for:
    /// whoever needs to hear it asks again. False if there is no connection to say it on.
    pub fn say(&mut self, topic: &str, payload: &Bytes) -> bool {
        let said = self.connection.as_ref().is_some_and(|link| link.client.publish(topic, payload, None).is_ok());
        if said {
            self.metrics.sent.inc();
            self.metrics.sent_bytes.inc_by(payload.len() as u64);
        }
        said
    }

    /// Ends the connection in good order: acknowledgements leave first. The session stays at the broker.
    pub async fn close(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        if connection.client.disconnect().is_ok() {
            let goodbye = async { while connection.deliveries.recv().await.is_some() {} };
            let _ = tokio::time::timeout(GOODBYE, goodbye).await;
        }
        self.state.lost("closed");
    }

    /// Drops the connection, so that what is unacknowledged comes again on the next one.
    pub fn disconnect(&mut self, reason: &str) {
        self.connection = None;
        self.state.lost(reason);
    }
}

/// Serves one connection until its first error. While nobody takes deliveries it does not read, and the broker's
/// own window and TCP hold the rest back.
async fn serve(
    mut eventloop: EventLoop,
    deliver: mpsc::Sender<Event>,
    granted: mpsc::Sender<Result<(), String>>,
    (far_side, metrics): (String, Metrics),
) {
    let mut told = false;
    loop {
        let event = match pin!(eventloop.poll()).await {
            Ok(Heard::Delivered { topic, payload, answer_wanted, packet_id, .. }) => {
                // What a kept session brings may come before the SUBACK; it shows that the session is subscribed, and
                // waiting with it could fill the channel.
                let _ = granted.try_send(Ok(()));
                Event::Delivered { topic, payload, answer_wanted, packet_id }
            }
            Ok(Heard::Subscribed(Err(refused))) => {
                let reason = format!("{far_side} refused the subscription: {refused}");
                let _ = granted.try_send(Err(reason.clone()));
                Event::Ended(reason)
            }
            Ok(Heard::Subscribed(Ok(()))) => {
                let _ = granted.try_send(Ok(()));
                continue;
            }
            // Nobody there to hear it is no fault: a gateway that is away asks again.
            Ok(Heard::Answered(_, Answer::Refused { reason })) => {
                metrics.refused.inc();
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(reason, "the broker does not let this receiver answer the gateways");
                }
                continue;
            }
            Ok(Heard::Disconnected) => return,
            Ok(_) => continue,
            Err(ended) => {
                let reason = format!("{far_side} {}", ended.reason());
                let _ = granted.try_send(Err(reason.clone()));
                Event::Ended(reason)
            }
        };
        let ended = matches!(event, Event::Ended(_));
        if deliver.send(event).await.is_err() || ended {
            return;
        }
    }
}
