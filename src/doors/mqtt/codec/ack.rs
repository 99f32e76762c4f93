//! PUBACK, PUBREC, PUBREL and PUBCOMP, which share one layout.

use super::fault::{DecodeError, EncodeError, Fault};
use super::packet::{PacketId, Peer, ProtocolVersion};
use super::property::{Property, PropertyReader, PropertySet, PropertyWriter, UserProperties, put_properties};
use super::reason::ReasonCode;
use super::wire::{Reader, Sink};

/// The content of PUBACK, PUBREC, PUBREL and PUBCOMP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// The packet identifier of the PUBLISH.
    pub packet_id: PacketId,
    /// What became of it; always success in MQTT 3.1.1.
    pub reason: ReasonCode,
    /// The properties; not written in MQTT 3.1.1.
    pub properties: AckProperties,
}

/// The properties of PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AckProperties {
    /// A diagnostic text for people.
    pub reason_string: Option<String>,
    /// Names and values, in order.
    pub user_properties: UserProperties,
}

impl AckProperties {
    pub(super) fn is_empty(&self) -> bool {
        self.reason_string.is_none() && self.user_properties.is_empty()
    }

    pub(super) fn decode(body: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut all = Self::default();
        let mut properties = PropertyReader::take(body, PropertySet::ACK)?;
        while let Some(property) = properties.next()? {
            match property {
                Property::ReasonString(text) => all.reason_string = Some(text.to_owned()),
                Property::User(name, value) => {
                    all.user_properties.push((name.to_owned(), value.to_owned()));
                }
                _ => {}
            }
        }
        Ok(all)
    }

    pub(super) fn put(&self, writer: &mut PropertyWriter<'_>) -> Result<(), EncodeError> {
        writer.put_text(self.reason_string.as_ref(), Property::ReasonString)?;
        writer.put_user(&self.user_properties)
    }
}

impl Ack {
    /// An acknowledgement without properties.
    pub fn new(packet_id: PacketId, reason: ReasonCode) -> Self {
        Self { packet_id, reason, properties: AckProperties::default() }
    }

    /// A successful acknowledgement.
    pub fn success(packet_id: PacketId) -> Self {
        Self::new(packet_id, ReasonCode::Success)
    }

    pub(super) fn is_plain_success(&self) -> bool {
        self.reason == ReasonCode::Success && self.properties.is_empty()
    }

    pub(super) fn short_frame(&self, first_byte: u8) -> [u8; 4] {
        let [high, low] = self.packet_id.get().to_be_bytes();
        [first_byte, 2, high, low]
    }

    pub(super) fn decode(mut body: Reader<'_>, version: ProtocolVersion, sender: Peer) -> Result<Self, DecodeError> {
        let mut ack = Self::success(body.packet_id()?);
        if version == ProtocolVersion::V5 && !body.is_empty() {
            ack.reason = decode_reason(&mut body, sender)?;
            if !body.is_empty() {
                ack.properties = AckProperties::decode(&mut body)?;
            }
        }
        body.finish()?;
        Ok(ack)
    }

    pub(super) fn put_body(&self, version: ProtocolVersion, sink: &mut dyn Sink) -> Result<(), EncodeError> {
        sink.put(&self.packet_id.get().to_be_bytes());
        if version == ProtocolVersion::V311 || self.is_plain_success() {
            return Ok(());
        }
        sink.put(&[self.reason.byte()]);
        if self.properties.is_empty() {
            return Ok(());
        }
        put_properties(sink, &|writer| self.properties.put(writer))
    }
}

/// A reason code that the packet may carry.
pub(super) fn decode_reason(body: &mut Reader<'_>, sender: Peer) -> Result<ReasonCode, DecodeError> {
    let byte = body.u8()?;
    ReasonCode::from_byte(byte)
        .filter(|reason| reason.allowed_in(body.packet(), sender))
        .ok_or(body.fault(Fault::ReasonCode(byte)))
}
