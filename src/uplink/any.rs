//! The link of whatever kind the settings name.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::base::Clock;

use super::config::{Config, Error, Kind};
use super::link::{Answer, CloudMessage, Ears, LinkState, Lost, Message, Ticket, Uplink};
use super::metrics::Metrics;
use super::mqtt::MqttUplink;
#[cfg(feature = "nats")]
use super::nats::JetStreamUplink;

/// A link to one of the kinds of servers.
pub enum AnyUplink {
    /// MQTT.
    Mqtt(Box<MqttUplink>),
    /// NATS JetStream.
    #[cfg(feature = "nats")]
    JetStream(Box<JetStreamUplink>),
}

/// The same for each kind.
macro_rules! each {
    ($any:expr, $link:ident => $what:expr) => {
        match $any {
            AnyUplink::Mqtt($link) => $what,
            #[cfg(feature = "nats")]
            AnyUplink::JetStream($link) => $what,
        }
    };
}

impl AnyUplink {
    /// Checks the settings and reads the files they name; opens nothing yet. `client_id` counts where the settings
    /// give none.
    pub fn new(config: Config, client_id: &str, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        match config.kind {
            Kind::Mqtt => Ok(Self::Mqtt(Box::new(MqttUplink::new(config, client_id, clock)?))),
            #[cfg(feature = "nats")]
            Kind::Nats => Ok(Self::JetStream(Box::new(JetStreamUplink::new(config, client_id, clock)?))),
            #[cfg(not(feature = "nats"))]
            Kind::Nats => {
                let problem = "is \"nats\", and this build has no NATS in it".to_owned();
                Err(Error::Setting { setting: "kind", problem })
            }
        }
    }

    /// Listens to the cloud on every connection from now on.
    #[must_use]
    pub fn listening(self, ears: Ears) -> Self {
        match self {
            Self::Mqtt(link) => Self::Mqtt(Box::new(link.listening(ears))),
            #[cfg(feature = "nats")]
            Self::JetStream(link) => Self::JetStream(Box::new(link.listening(ears))),
        }
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        each!(self, link => link.metrics())
    }
}

impl Uplink for AnyUplink {
    fn window(&self) -> usize {
        each!(self, link => link.window())
    }

    fn max_payload_bytes(&self, topic: &str) -> usize {
        each!(self, link => link.max_payload_bytes(topic))
    }

    async fn connect(&mut self) -> Result<(), Lost> {
        each!(self, link => link.connect().await)
    }

    fn submit(&mut self, ticket: Ticket, message: Message) -> Result<(), Lost> {
        each!(self, link => link.submit(ticket, message))
    }

    async fn answer(&mut self) -> Result<(Ticket, Answer), Lost> {
        each!(self, link => link.answer().await)
    }

    async fn close(&mut self) {
        each!(self, link => link.close().await);
    }

    fn state(&self) -> watch::Receiver<LinkState> {
        each!(self, link => link.state())
    }

    fn cloud_messages(&mut self) -> Option<mpsc::Receiver<CloudMessage>> {
        each!(self, link => link.cloud_messages())
    }

    fn complain(&mut self, about: &'static str, complaint: Option<String>) {
        each!(self, link => link.complain(about, complaint));
    }
}
