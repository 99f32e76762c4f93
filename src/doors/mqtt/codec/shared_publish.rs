//! A message encoded once for many subscribers.

use bytes::{BufMut, Bytes, BytesMut};

use super::fault::EncodeError;
use super::packet::ProtocolVersion;
use super::property::SubscriptionId;
use super::publish::{Delivery, ForwardedProperties};
use super::publish_encode::{OutgoingPublish, PublishParts};
use super::wire::variable_byte_integer_len;

/// A QoS 0 frame in one reference-counted buffer. Its clone is what a QoS 0 subscriber gets; other subscribers get a
/// copy with their own packet identifier, flags and properties from [`SharedPublish::append`].
#[derive(Debug, Clone)]
pub struct SharedPublish {
    frame: Bytes,
    version: ProtocolVersion,
    message_expiry_interval_secs: Option<u32>,
    topic_start: usize,
    topic_end: usize,
    forwarded_start: usize,
    payload_start: usize,
}

/// What differs from one subscriber to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedDelivery<'a> {
    /// Quality of service and packet identifier.
    pub delivery: Delivery,
    /// Whether the packet was sent before; ignored on QoS 0.
    pub dup: bool,
    /// The retain flag.
    pub retain: bool,
    /// Seconds that are left.
    pub message_expiry_interval_secs: Option<u32>,
    /// Identifiers of all subscriptions of this client that the message matched.
    pub subscription_ids: &'a [SubscriptionId],
}

impl SharedPublish {
    /// Encodes `publish` as QoS 0. Its delivery, DUP, topic alias and subscription identifiers, which belong to one
    /// receiver, are left out; RETAIN and the expiry interval stay.
    pub fn encode(publish: &OutgoingPublish<'_>, version: ProtocolVersion) -> Result<Self, EncodeError> {
        let parts = PublishParts {
            delivery: Delivery::AtMostOnce,
            topic_alias: None,
            subscription_ids: &[],
            ..publish.parts()
        };
        let (properties_len, remaining) = parts.lengths(version);
        let header_len = 1 + variable_byte_integer_len(remaining);
        let mut frame = BytesMut::with_capacity(header_len + remaining);
        parts.encode(version, &mut frame)?;
        let payload_start = frame.len() - parts.payload.len();
        let forwarded_len = properties_len.min(parts.forwarded.len());
        Ok(Self {
            frame: frame.freeze(),
            version,
            message_expiry_interval_secs: parts.message_expiry_interval_secs,
            topic_start: header_len + 2,
            topic_end: header_len + 2 + parts.topic.len(),
            forwarded_start: payload_start - forwarded_len,
            payload_start,
        })
    }

    /// The whole QoS 0 frame, for subscribers of [`Self::version`] that need no change.
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// The version in which the frame is written.
    pub fn version(&self) -> ProtocolVersion {
        self.version
    }

    /// The expiry interval that stands in the frame.
    pub fn message_expiry_interval_secs(&self) -> Option<u32> {
        self.message_expiry_interval_secs
    }

    /// The topic name as UTF-8 bytes.
    pub fn topic_bytes(&self) -> &[u8] {
        &self.frame[self.topic_start..self.topic_end]
    }

    /// The application message, sharing the frame's memory.
    pub fn payload(&self) -> Bytes {
        self.frame.slice(self.payload_start..)
    }

    /// The size in bytes of what [`Self::append`] writes.
    pub fn appended_len(&self, to: &SharedDelivery<'_>, version: ProtocolVersion) -> usize {
        let (_, remaining) = self.parts(to).lengths(version);
        1 + variable_byte_integer_len(remaining) + remaining
    }

    /// Appends the message as one subscriber is to see it. A frame of MQTT 3.1.1 holds no properties, so encode for
    /// 5.0 if subscribers of both versions are served from it.
    pub fn append(
        &self,
        to: &SharedDelivery<'_>,
        version: ProtocolVersion,
        out: &mut impl BufMut,
    ) -> Result<(), EncodeError> {
        self.parts(to).encode(version, out)
    }

    fn parts<'a>(&'a self, to: &SharedDelivery<'a>) -> PublishParts<'a> {
        let forwarded = &self.frame[self.forwarded_start..self.payload_start];
        PublishParts {
            delivery: to.delivery,
            dup: to.dup,
            retain: to.retain,
            topic: self.topic_bytes(),
            topic_alias: None,
            message_expiry_interval_secs: to.message_expiry_interval_secs,
            subscription_ids: to.subscription_ids,
            forwarded: ForwardedProperties::written(forwarded),
            payload: &self.frame[self.payload_start..],
        }
    }
}
