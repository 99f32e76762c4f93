//! A message as the broker carries it, whatever protocol version brought it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Quality of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Qos {
    /// QoS 0: no promise.
    AtMostOnce = 0,
    /// QoS 1: acknowledged, may arrive twice.
    AtLeastOnce = 1,
    /// QoS 2: acknowledged, arrives once.
    ExactlyOnce = 2,
}

impl Qos {
    /// From the two bits of the wire; 3 is none.
    pub fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// The properties of MQTT 5 that travel with a message unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Properties {
    /// The publisher says that the payload is UTF-8.
    pub utf8_payload: Option<bool>,
    /// Content type.
    pub content_type: Option<Box<str>>,
    /// Where an answer is expected.
    pub response_topic: Option<Box<str>>,
    /// Correlation data.
    pub correlation: Option<Vec<u8>>,
    /// User properties, in order.
    pub user: Vec<(Box<str>, Box<str>)>,
}

impl Properties {
    /// True if there is nothing to carry.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn size_bytes(&self) -> usize {
        let text = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
        let user: usize = self.user.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
        text(&self.content_type) + text(&self.response_topic) + self.correlation.as_ref().map_or(0, Vec::len) + user
    }
}

/// One application message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Topic name, checked.
    pub topic: Arc<str>,
    /// The body.
    pub payload: Bytes,
    /// As published; a delivery may be lower.
    pub qos: Qos,
    /// As published.
    pub retain: bool,
    /// Moment since boot after which nobody new should get it.
    pub expires_at: Option<Duration>,
    /// MQTT 5 properties, if any.
    pub properties: Option<Box<Properties>>,
}

impl Message {
    /// A message without properties that does not expire.
    pub fn new(topic: &str, payload: impl Into<Bytes>, qos: Qos) -> Self {
        Self { topic: topic.into(), payload: payload.into(), qos, retain: false, expires_at: None, properties: None }
    }

    /// The same, retained.
    #[must_use]
    pub fn retained(mut self) -> Self {
        self.retain = true;
        self
    }

    /// What it costs a queue.
    pub fn size_bytes(&self) -> usize {
        self.topic.len() + self.payload.len() + 64 + self.properties.as_ref().map_or(0, |p| p.size_bytes())
    }

    pub(super) fn expired(&self, now: impl FnOnce() -> Duration) -> bool {
        self.expires_at.is_some_and(|at| at <= now())
    }
}
