//! PUBLISH as it is written: appended to a write buffer in one pass, without allocation.

use std::num::NonZeroU16;

use bytes::BufMut;

use super::fault::EncodeError;
use super::packet::{ProtocolVersion, QoS};
use super::property::SubscriptionId;
use super::publish::{Delivery, ForwardedProperties, PublishRef};
use super::wire::{MAX_REMAINING_LENGTH, field_len, variable_byte_integer_len, write_variable_byte_integer};

/// A PUBLISH about to be written. Everything is borrowed, so the payload is copied once, into the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutgoingPublish<'a> {
    /// Quality of service and packet identifier.
    pub delivery: Delivery,
    /// Whether the packet was sent before; ignored on QoS 0, where it must be 0.
    pub dup: bool,
    /// The retain flag.
    pub retain: bool,
    /// The topic name; may be empty if `topic_alias` stands for it.
    pub topic: &'a str,
    /// The number that stands for the topic name on this connection.
    pub topic_alias: Option<NonZeroU16>,
    /// Seconds that are left: the interval as received minus the time that the message waited.
    pub message_expiry_interval_secs: Option<u32>,
    /// Identifiers of all subscriptions of this client that the message matched.
    pub subscription_ids: &'a [SubscriptionId],
    /// The properties that are passed on unaltered.
    pub forwarded: ForwardedProperties<'a>,
    /// The application message.
    pub payload: &'a [u8],
}

impl<'a> OutgoingPublish<'a> {
    /// A message without properties.
    pub fn new(topic: &'a str, delivery: Delivery, payload: &'a [u8]) -> Self {
        Self {
            delivery,
            dup: false,
            retain: false,
            topic,
            topic_alias: None,
            message_expiry_interval_secs: None,
            subscription_ids: &[],
            forwarded: ForwardedProperties::default(),
            payload,
        }
    }

    /// What a server passes on of `publish`, whose topic is `topic` (its alias resolved), before it knows the
    /// subscriber: not the alias, not DUP, not RETAIN.
    pub fn forward(publish: &PublishRef<'a>, topic: &'a str, delivery: Delivery) -> Self {
        Self {
            message_expiry_interval_secs: publish.properties.message_expiry_interval_secs,
            forwarded: publish.properties.forwarded(),
            ..Self::new(topic, delivery, publish.payload)
        }
    }

    /// The size of the whole packet in bytes, to be held against the receiver's Maximum Packet Size.
    pub fn encoded_len(&self, version: ProtocolVersion) -> usize {
        let (_, remaining) = self.parts().lengths(version);
        1 + variable_byte_integer_len(remaining) + remaining
    }

    /// Appends the packet. MQTT 3.1.1 has no properties, so there they are left out.
    #[inline]
    pub fn encode(&self, version: ProtocolVersion, out: &mut impl BufMut) -> Result<(), EncodeError> {
        self.parts().encode(version, out)
    }

    #[inline]
    pub(super) fn parts(&self) -> PublishParts<'a> {
        PublishParts {
            delivery: self.delivery,
            dup: self.dup,
            retain: self.retain,
            topic: self.topic.as_bytes(),
            topic_alias: self.topic_alias,
            message_expiry_interval_secs: self.message_expiry_interval_secs,
            subscription_ids: self.subscription_ids,
            forwarded: self.forwarded,
            payload: self.payload,
        }
    }
}

/// [`OutgoingPublish`] with the topic as bytes, which a stored frame has at hand.
#[derive(Debug, Clone, Copy)]
pub(super) struct PublishParts<'a> {
    pub(super) delivery: Delivery,
    pub(super) dup: bool,
    pub(super) retain: bool,
    pub(super) topic: &'a [u8],
    pub(super) topic_alias: Option<NonZeroU16>,
    pub(super) message_expiry_interval_secs: Option<u32>,
    pub(super) subscription_ids: &'a [SubscriptionId],
    pub(super) forwarded: ForwardedProperties<'a>,
    pub(super) payload: &'a [u8],
}

impl PublishParts<'_> {
    /// Property length (0 in MQTT 3.1.1) and remaining length.
    #[inline]
    pub(super) fn lengths(&self, version: ProtocolVersion) -> (usize, usize) {
        let packet_id = if self.delivery.qos() == QoS::AtMostOnce { 0 } else { 2 };
        let fixed = 2 + self.topic.len() + packet_id + self.payload.len();
        if version == ProtocolVersion::V311 {
            return (0, fixed);
        }
        let properties = self.own_properties_len() + self.forwarded.len();
        (properties, fixed + variable_byte_integer_len(properties) + properties)
    }

    #[inline]
    fn own_properties_len(&self) -> usize {
        let expiry = if self.message_expiry_interval_secs.is_some() { 5 } else { 0 };
        let alias = if self.topic_alias.is_some() { 3 } else { 0 };
        let ids: usize = self.subscription_ids.iter().map(|id| id.encoded_len()).sum();
        expiry + alias + ids
    }

    #[inline]
    pub(super) fn encode(&self, version: ProtocolVersion, out: &mut impl BufMut) -> Result<(), EncodeError> {
        let topic_len = field_len(self.topic)?;
        let (properties_len, remaining) = self.lengths(version);
        if remaining > MAX_REMAINING_LENGTH {
            return Err(EncodeError::PacketTooLong(remaining));
        }
        // Small fields are gathered on the stack, because every append to the buffer checks its capacity.
        let mut head = [0u8; 7];
        head[0] = self.first_byte();
        let mut length = [0; 4];
        let length_len = write_variable_byte_integer(&mut length, remaining);
        head[1..5].copy_from_slice(&length);
        head[1 + length_len..3 + length_len].copy_from_slice(&topic_len.to_be_bytes());
        out.put_slice(&head[..3 + length_len]);
        out.put_slice(self.topic);

        if let Some(id) = self.delivery.packet_id() {
            out.put_slice(&id.get().to_be_bytes());
        }
        if version == ProtocolVersion::V5 {
            let mut length = [0; 4];
            let length_len = write_variable_byte_integer(&mut length, properties_len);
            out.put_slice(&length[..length_len]);
            if properties_len > 0 {
                self.put_properties(out);
            }
        }
        out.put_slice(self.payload);
        Ok(())
    }

    fn first_byte(&self) -> u8 {
        let qos = self.delivery.qos();
        let dup = self.dup && qos != QoS::AtMostOnce;
        0x30 | u8::from(dup) << 3 | qos.bits() << 1 | u8::from(self.retain)
    }

    fn put_properties(&self, out: &mut impl BufMut) {
        if let Some(secs) = self.message_expiry_interval_secs {
            out.put_u8(0x02);
            out.put_u32(secs);
        }
        if let Some(alias) = self.topic_alias {
            out.put_u8(0x23);
            out.put_u16(alias.get());
        }
        for id in self.subscription_ids {
            let mut bytes = [0; 4];
            let len = write_variable_byte_integer(&mut bytes, id.value() as usize);
            out.put_u8(0x0B);
            out.put_slice(&bytes[..len]);
        }
        self.forwarded.put(out);
    }
}
