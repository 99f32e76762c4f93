//! SUBSCRIBE and SUBACK.

use super::ack::{AckProperties, decode_reason};
use super::fault::{DecodeError, EncodeError, Fault};
use super::packet::{PacketId, Peer, ProtocolVersion, QoS};
use super::property::{
    Property, PropertyReader, PropertySet, PropertyWriter, SubscriptionId, UserProperties, put_properties,
};
use super::reason::ReasonCode;
use super::topic::{validate_filter, validate_plain_filter};
use super::wire::{Reader, Sink, put_binary};

/// A client wants messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// The packet identifier that SUBACK repeats.
    pub packet_id: PacketId,
    /// The properties; not written in MQTT 3.1.1.
    pub properties: SubscribeProperties,
    /// What it wants; at least one.
    pub subscriptions: Vec<SubscriptionRequest>,
}

/// The properties of SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SubscribeProperties {
    /// What comes back with each message that matches.
    pub subscription_id: Option<SubscriptionId>,
    /// Names and values, in order.
    pub user_properties: UserProperties,
}

/// One topic filter with its options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionRequest {
    /// A valid filter. In MQTT 5.0 `$share/...` was checked as a shared subscription, in 3.1.1 as ordinary text.
    pub filter: String,
    /// The highest QoS that the client wants.
    pub qos: QoS,
    /// Do not send the client its own messages.
    pub no_local: bool,
    /// Keep the RETAIN flag as it was published.
    pub retain_as_published: bool,
    /// What to do with retained messages.
    pub retain_handling: RetainHandling,
}

/// What a new subscription does with retained messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum RetainHandling {
    /// Send them, as MQTT 3.1.1 does.
    #[default]
    Send = 0,
    /// Send them if the subscription did not exist.
    SendIfNew = 1,
    /// Do not send them.
    DoNotSend = 2,
}

impl SubscriptionRequest {
    /// A filter with the options that MQTT 3.1.1 has.
    pub fn new(filter: impl Into<String>, qos: QoS) -> Self {
        Self {
            filter: filter.into(),
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        }
    }

    fn decode(body: &mut Reader<'_>, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let filter = body.string_with_nulls()?;
        let shared = match version {
            ProtocolVersion::V311 => validate_plain_filter(filter).map(|()| false),
            ProtocolVersion::V5 => validate_filter(filter).map(|f| f.share_name.is_some()),
        }
        .map_err(|fault| body.fault(Fault::TopicFilter(fault)))?;
        let options = body.u8()?;
        let bad_value = body.fault(Fault::SubscriptionOptionValue(options));
        let reserved = if version == ProtocolVersion::V5 { 0xC0 } else { 0xFC };
        if options & reserved != 0 {
            return Err(body.fault(Fault::SubscriptionOptions(options)));
        }
        let no_local = options & 0x04 != 0;
        // [MQTT-3.8.3-4]
        if shared && no_local {
            return Err(bad_value);
        }
        Ok(Self {
            filter: filter.to_owned(),
            qos: QoS::from_bits(options & 0x03).ok_or(bad_value)?,
            no_local,
            retain_as_published: options & 0x08 != 0,
            retain_handling: match options >> 4 & 0x03 {
                0 => RetainHandling::Send,
                1 => RetainHandling::SendIfNew,
                2 => RetainHandling::DoNotSend,
                _ => return Err(bad_value),
            },
        })
    }

    fn options(&self, version: ProtocolVersion) -> u8 {
        let qos = self.qos.bits();
        match version {
            ProtocolVersion::V311 => qos,
            ProtocolVersion::V5 => {
                qos | u8::from(self.no_local) << 2
                    | u8::from(self.retain_as_published) << 3
                    | (self.retain_handling as u8) << 4
            }
        }
    }
}

impl Subscribe {
    pub(super) fn decode(mut body: Reader<'_>, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let packet_id = body.packet_id()?;
        let mut properties = SubscribeProperties::default();
        if version == ProtocolVersion::V5 {
            properties = SubscribeProperties::decode(&mut body)?;
        }
        let mut subscriptions = Vec::new();
        while !body.is_empty() {
            subscriptions.push(SubscriptionRequest::decode(&mut body, version)?);
        }
        if subscriptions.is_empty() {
            return Err(body.fault(Fault::Empty));
        }
        Ok(Self { packet_id, properties, subscriptions })
    }

    pub(super) fn put_body(&self, version: ProtocolVersion, sink: &mut dyn Sink) -> Result<(), EncodeError> {
        sink.put(&self.packet_id.get().to_be_bytes());
        if version == ProtocolVersion::V5 {
            put_properties(sink, &|writer| self.properties.put(writer))?;
        }
        for subscription in &self.subscriptions {
            put_binary(sink, subscription.filter.as_bytes())?;
            sink.put(&[subscription.options(version)]);
        }
        Ok(())
    }
}

impl SubscribeProperties {
    fn decode(body: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut all = Self::default();
        let mut properties = PropertyReader::take(body, PropertySet::SUBSCRIBE)?;
        while let Some(property) = properties.next()? {
            match property {
                Property::SubscriptionIdentifier(id) => all.subscription_id = Some(id),
                Property::User(name, value) => {
                    all.user_properties.push((name.to_owned(), value.to_owned()));
                }
                _ => {}
            }
        }
        Ok(all)
    }

    fn put(&self, writer: &mut PropertyWriter<'_>) -> Result<(), EncodeError> {
        writer.put_some(self.subscription_id, Property::SubscriptionIdentifier)?;
        writer.put_user(&self.user_properties)
    }
}

/// The server's answer to SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubAck {
    /// The packet identifier of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// The properties; not written in MQTT 3.1.1.
    pub properties: AckProperties,
    /// One for each filter, in order; in MQTT 3.1.1 every error is written as 0x80.
    pub reasons: Vec<ReasonCode>,
}

impl SubAck {
    pub(super) fn decode(mut body: Reader<'_>, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let packet_id = body.packet_id()?;
        let mut properties = AckProperties::default();
        if version == ProtocolVersion::V5 {
            properties = AckProperties::decode(&mut body)?;
        }
        let mut reasons = Vec::with_capacity(body.len());
        while !body.is_empty() {
            let reason = decode_reason(&mut body, Peer::Server)?;
            if version == ProtocolVersion::V311 && reason > ReasonCode::UnspecifiedError {
                return Err(body.fault(Fault::ReasonCode(reason.byte())));
            }
            reasons.push(reason);
        }
        if reasons.is_empty() {
            return Err(body.fault(Fault::Empty));
        }
        Ok(Self { packet_id, properties, reasons })
    }

    pub(super) fn put_body(&self, version: ProtocolVersion, sink: &mut dyn Sink) -> Result<(), EncodeError> {
        sink.put(&self.packet_id.get().to_be_bytes());
        if version == ProtocolVersion::V5 {
            put_properties(sink, &|writer| self.properties.put(writer))?;
        }
        for reason in &self.reasons {
            let old = version == ProtocolVersion::V311 && reason.is_error();
            sink.put(&[if old { 0x80 } else { reason.byte() }]);
        }
        Ok(())
    }
}
