//! UNSUBSCRIBE and UNSUBACK.

use super::ack::{AckProperties, decode_reason};
use super::fault::{DecodeError, EncodeError, Fault};
use super::packet::{PacketId, Peer, ProtocolVersion};
use super::property::{Property, PropertyReader, PropertySet, UserProperties, put_properties};
use super::reason::ReasonCode;
use super::topic::{validate_filter, validate_plain_filter};
use super::wire::{Reader, Sink, put_binary};

/// A client no longer wants messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe {
    /// The packet identifier that UNSUBACK repeats.
    pub packet_id: PacketId,
    /// Names and values, in order; not written in MQTT 3.1.1.
    pub user_properties: UserProperties,
    /// Valid filters; at least one.
    pub filters: Vec<String>,
}

impl Unsubscribe {
    pub(super) fn decode(mut body: Reader<'_>, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let packet_id = body.packet_id()?;
        let mut user_properties = UserProperties::new();
        if version == ProtocolVersion::V5 {
            let mut properties = PropertyReader::take(&mut body, PropertySet::UNSUBSCRIBE)?;
            while let Some(property) = properties.next()? {
                if let Property::User(name, value) = property {
                    user_properties.push((name.to_owned(), value.to_owned()));
                }
            }
        }
        let mut filters = Vec::new();
        while !body.is_empty() {
            let filter = body.string_with_nulls()?;
            match version {
                ProtocolVersion::V311 => validate_plain_filter(filter),
                ProtocolVersion::V5 => validate_filter(filter).map(|_| ()),
            }
            .map_err(|fault| body.fault(Fault::TopicFilter(fault)))?;
            filters.push(filter.to_owned());
        }
        if filters.is_empty() {
            return Err(body.fault(Fault::Empty));
        }
        Ok(Self { packet_id, user_properties, filters })
    }

    pub(super) fn put_body(&self, version: ProtocolVersion, sink: &mut dyn Sink) -> Result<(), EncodeError> {
        sink.put(&self.packet_id.get().to_be_bytes());
        if version == ProtocolVersion::V5 {
            put_properties(sink, &|writer| writer.put_user(&self.user_properties))?;
        }
        self.filters.iter().try_for_each(|filter| put_binary(sink, filter.as_bytes()))
    }
}

/// The server's answer to UNSUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsubAck {
    /// The packet identifier of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// The properties; not written in MQTT 3.1.1.
    pub properties: AckProperties,
    /// One for each filter, in order; MQTT 3.1.1 has none.
    pub reasons: Vec<ReasonCode>,
}

impl UnsubAck {
    pub(super) fn decode(mut body: Reader<'_>, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let packet_id = body.packet_id()?;
        let mut properties = AckProperties::default();
        let mut reasons = Vec::new();
        if version == ProtocolVersion::V5 {
            properties = AckProperties::decode(&mut body)?;
            while !body.is_empty() {
                reasons.push(decode_reason(&mut body, Peer::Server)?);
            }
            if reasons.is_empty() {
                return Err(body.fault(Fault::Empty));
            }
        }
        body.finish()?;
        Ok(Self { packet_id, properties, reasons })
    }

    pub(super) fn put_body(&self, version: ProtocolVersion, sink: &mut dyn Sink) -> Result<(), EncodeError> {
        sink.put(&self.packet_id.get().to_be_bytes());
        if version == ProtocolVersion::V5 {
            put_properties(sink, &|writer| self.properties.put(writer))?;
            for reason in &self.reasons {
                sink.put(&[reason.byte()]);
            }
        }
        Ok(())
    }
}
