//! A message as the broker carries it, whatever protocol version brought it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

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
    /// The MQTT 5 properties that travel unchanged (payload format, content type, response topic, correlation data,
    /// user properties), as a door encoded and checked them; empty for none.
    pub properties: Bytes,
}

impl Message {
    /// A message without properties that does not expire.
    pub fn new(topic: &str, payload: impl Into<Bytes>, qos: Qos) -> Self {
        Self {
            topic: topic.into(),
            payload: payload.into(),
            qos,
            retain: false,
            expires_at: None,
            properties: Bytes::new(),
        }
    }

    /// The same, retained.
    #[must_use]
    pub fn retained(mut self) -> Self {
        self.retain = true;
        self
    }

    /// What it costs a queue.
    pub fn size_bytes(&self) -> usize {
        self.topic.len() + self.payload.len() + self.properties.len() + 64
    }

    pub(super) fn expired(&self, now: impl FnOnce() -> Duration) -> bool {
        self.expires_at.is_some_and(|at| at <= now())
    }
}
