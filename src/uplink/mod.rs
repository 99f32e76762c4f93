//! The link to the cloud: messages out with an answer for each, messages in with an acknowledgement for each.
//!
//! The link remembers nothing. After every error it is opened afresh, and whoever sends has to send again what was
//! not answered; so a message may arrive twice and is never lost here. An answer says what the far side said:
//! [`Answer::Acknowledged`] means that a broker took the message *for somebody*; a broker that has no subscriber
//! for it says so under MQTT 5 ([`Answer::NoSubscriber`]), and under 3.1.1 nobody can tell.
//!
//! A link may also hear: topics of the cloud's on which it answers a receipt or asks for something ([`CloudMessage`]).
//!
//! It never reads the queue, never decides when to try again and never deletes. Limits: a window of unanswered
//! messages, a packet size each way, a time for connecting and for every answer (a half-open link ends by it).

mod any;
mod config;
mod dial;
mod fake;
mod judge;
mod link;
mod metrics;
mod mqtt;
#[cfg(feature = "nats")]
mod nats;
mod nats_settings;
mod probe;
mod receiver;
mod session;
mod tls;

pub use any::AnyUplink;
pub use config::{Config, Error, Kind, Protocol, TlsConfig};
pub use fake::{FailingUplink, FakeUplink, Fault};
pub use judge::{LinkJudge, LinkLimits};
pub use link::{Answer, CloudMessage, Done, Ears, LinkState, Lost, Message, Ticket, Uplink};
pub use metrics::Metrics;
pub use mqtt::MqttUplink;
#[cfg(feature = "nats")]
pub use nats::{JetStreamUplink, StreamAck, StreamDelivery, StreamReceiver, StreamReceiverConfig, StreamSettings};
pub use nats_settings::NatsConfig;
pub use receiver::{AckToken, Delivery, Receiver, ReceiverConfig};
pub use tls::load as client_tls;
