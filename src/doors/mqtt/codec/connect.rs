//! CONNECT.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;

use super::fault::{DecodeError, EncodeError, Fault};
use super::packet::{ProtocolVersion, QoS};
use super::property::{Property, PropertyReader, PropertySet, PropertyWriter, UserProperties, put_properties};
use super::topic::validate_topic_name;
use super::wire::{Reader, Sink, put_binary};

/// A client introduces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    /// The version that it speaks.
    pub version: ProtocolVersion,
    /// Clean session (3.1.1) or clean start (5.0).
    pub clean_start: bool,
    /// The longest silence that the client promises, in seconds; 0 is no promise.
    pub keep_alive_secs: u16,
    /// The properties; not written in MQTT 3.1.1.
    pub properties: ConnectProperties,
    /// The client identifier; whether it may be empty is the session's decision.
    pub client_id: String,
    /// What to publish when the connection is lost.
    pub will: Option<Will>,
    /// The user name.
    pub user_name: Option<String>,
    /// The password.
    pub password: Option<Bytes>,
}

/// The properties of CONNECT. `None` is the default that the specification gives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnectProperties {
    /// How long the session outlives the connection; `u32::MAX` is for ever, none is 0.
    pub session_expiry_interval_secs: Option<u32>,
    /// How many unacknowledged QoS 1 and 2 messages the client takes; none is 65,535.
    pub receive_maximum: Option<NonZeroU16>,
    /// The largest packet that the client takes; none is no limit.
    pub maximum_packet_size_bytes: Option<NonZeroU32>,
    /// The highest topic alias that the client takes; none is 0.
    pub topic_alias_maximum: Option<u16>,
    /// Whether CONNACK should hold response information; none is no.
    pub request_response_information: Option<bool>,
    /// Whether reason strings and user properties may come with any packet; none is yes.
    pub request_problem_information: Option<bool>,
    /// The method of an extended authentication.
    pub authentication_method: Option<String>,
    /// Its data; only with a method.
    pub authentication_data: Option<Bytes>,
    /// Names and values, in order.
    pub user_properties: UserProperties,
}

/// The message that a server publishes when it loses the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// Its quality of service.
    pub qos: QoS,
    /// Whether it is to be retained.
    pub retain: bool,
    /// The properties; not written in MQTT 3.1.1.
    pub properties: WillProperties,
    /// The topic name.
    pub topic: String,
    /// The application message.
    pub payload: Bytes,
}

/// The properties of a will.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WillProperties {
    /// How long to wait for the client to come back; none is 0.
    pub will_delay_interval_secs: Option<u32>,
    /// Whether the payload is UTF-8 text.
    pub payload_is_utf8: Option<bool>,
    /// Seconds after its publication when the message is of no use.
    pub message_expiry_interval_secs: Option<u32>,
    /// What the payload is, usually a media type.
    pub content_type: Option<String>,
    /// Where a response is expected; a topic name.
    pub response_topic: Option<String>,
    /// What the requester needs to match a response.
    pub correlation_data: Option<Bytes>,
    /// Names and values, in order.
    pub user_properties: UserProperties,
}

const USER_NAME: u8 = 0x80;
const PASSWORD: u8 = 0x40;
const WILL_RETAIN: u8 = 0x20;
const WILL_QOS: u8 = 0x18;
const WILL: u8 = 0x04;
const CLEAN_START: u8 = 0x02;
const RESERVED: u8 = 0x01;

/// Reads the protocol name and level, which decide how the rest is read.
pub(super) fn decode_version(body: &mut Reader<'_>) -> Result<ProtocolVersion, DecodeError> {
    let name = body.binary()?;
    // MQTT 3.1 calls itself MQIsdp. It gets the answer that it understands instead of a closed connection.
    if name != b"MQTT" && name != b"MQIsdp" {
        return Err(body.fault(Fault::ProtocolName));
    }
    match body.u8()? {
        4 if name == b"MQTT" => Ok(ProtocolVersion::V311),
        5 if name == b"MQTT" => Ok(ProtocolVersion::V5),
        level => Err(body.fault(Fault::UnsupportedProtocolVersion { level })),
    }
}

impl Connect {
    /// A client without will, credentials and properties.
    pub fn new(version: ProtocolVersion, client_id: impl Into<String>) -> Self {
        Self {
            version,
            clean_start: true,
            keep_alive_secs: 0,
            properties: ConnectProperties::default(),
            client_id: client_id.into(),
            will: None,
            user_name: None,
            password: None,
        }
    }

    /// Reads what follows the protocol level.
    pub(super) fn decode(mut body: Reader<'_>, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let flags = body.u8()?;
        let has_will = flags & WILL != 0;
        let will_qos = QoS::from_bits((flags & WILL_QOS) >> 3);
        let (Some(will_qos), 0) = (will_qos, flags & RESERVED) else {
            return Err(body.fault(Fault::ConnectFlags(flags)));
        };
        if !has_will && flags & (WILL_QOS | WILL_RETAIN) != 0 {
            return Err(body.fault(Fault::ConnectFlags(flags)));
        }
        let v5 = version == ProtocolVersion::V5;
        if !v5 && flags & PASSWORD != 0 && flags & USER_NAME == 0 {
            return Err(body.fault(Fault::PasswordWithoutUserName));
        }
        let keep_alive_secs = body.u16()?;
        let properties = if v5 { ConnectProperties::decode(&mut body)? } else { ConnectProperties::default() };
        let client_id = body.name()?.to_owned();
        let will = if has_will { Some(Will::decode(&mut body, v5, will_qos, flags & WILL_RETAIN != 0)?) } else { None };
        let user_name = if flags & USER_NAME != 0 { Some(body.name()?.to_owned()) } else { None };
        let password = if flags & PASSWORD != 0 { Some(Bytes::copy_from_slice(body.binary()?)) } else { None };
        body.finish()?;
        let clean_start = flags & CLEAN_START != 0;
        Ok(Self { version, clean_start, keep_alive_secs, properties, client_id, will, user_name, password })
    }

    /// The packet names its own version, so a caller's `version` that differs is of no effect.
    pub(super) fn put_body(&self, _version: ProtocolVersion, sink: &mut dyn Sink) -> Result<(), EncodeError> {
        let v5 = self.version == ProtocolVersion::V5;
        put_binary(sink, b"MQTT")?;
        sink.put(&[if v5 { 5 } else { 4 }, self.flags()]);
        sink.put(&self.keep_alive_secs.to_be_bytes());
        if v5 {
            put_properties(sink, &|writer| self.properties.put(writer))?;
        }
        put_binary(sink, self.client_id.as_bytes())?;
        if let Some(will) = &self.will {
            if v5 {
                put_properties(sink, &|writer| will.properties.put(writer))?;
            }
            put_binary(sink, will.topic.as_bytes())?;
            put_binary(sink, &will.payload)?;
        }
        if let Some(name) = &self.user_name {
            put_binary(sink, name.as_bytes())?;
        }
        if let Some(password) = &self.password {
            put_binary(sink, password)?;
        }
        Ok(())
    }

    fn flags(&self) -> u8 {
        let bit = |set: bool, flag: u8| if set { flag } else { 0 };
        let will = self.will.as_ref().map_or(0, |will| WILL | will.qos.bits() << 3 | bit(will.retain, WILL_RETAIN));
        will | bit(self.clean_start, CLEAN_START)
            | bit(self.user_name.is_some(), USER_NAME)
            | bit(self.password.is_some(), PASSWORD)
    }
}

impl ConnectProperties {
    fn decode(body: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut all = Self::default();
        let mut properties = PropertyReader::take(body, PropertySet::CONNECT)?;
        while let Some(property) = properties.next()? {
            match property {
                Property::SessionExpiryInterval(secs) => {
                    all.session_expiry_interval_secs = Some(secs);
                }
                Property::ReceiveMaximum(maximum) => all.receive_maximum = Some(maximum),
                Property::MaximumPacketSize(bytes) => all.maximum_packet_size_bytes = Some(bytes),
                Property::TopicAliasMaximum(maximum) => all.topic_alias_maximum = Some(maximum),
                Property::RequestResponseInformation(flag) => {
                    all.request_response_information = Some(flag);
                }
                Property::RequestProblemInformation(flag) => {
                    all.request_problem_information = Some(flag);
                }
                Property::AuthenticationMethod(method) => {
                    all.authentication_method = Some(method.to_owned());
                }
                Property::AuthenticationData(data) => {
                    all.authentication_data = Some(Bytes::copy_from_slice(data));
                }
                Property::User(name, value) => {
                    all.user_properties.push((name.to_owned(), value.to_owned()));
                }
                _ => {}
            }
        }
        if all.authentication_data.is_some() && all.authentication_method.is_none() {
            return Err(body.fault(Fault::AuthenticationMethodMissing));
        }
        Ok(all)
    }

    fn put(&self, writer: &mut PropertyWriter<'_>) -> Result<(), EncodeError> {
        use Property as P;
        writer.put_some(self.session_expiry_interval_secs, P::SessionExpiryInterval)?;
        writer.put_some(self.receive_maximum, P::ReceiveMaximum)?;
        writer.put_some(self.maximum_packet_size_bytes, P::MaximumPacketSize)?;
        writer.put_some(self.topic_alias_maximum, P::TopicAliasMaximum)?;
        writer.put_some(self.request_response_information, P::RequestResponseInformation)?;
        writer.put_some(self.request_problem_information, P::RequestProblemInformation)?;
        writer.put_text(self.authentication_method.as_ref(), P::AuthenticationMethod)?;
        writer.put_data(self.authentication_data.as_ref(), P::AuthenticationData)?;
        writer.put_user(&self.user_properties)
    }
}

impl Will {
    fn decode(body: &mut Reader<'_>, v5: bool, qos: QoS, retain: bool) -> Result<Self, DecodeError> {
        let properties = if v5 { WillProperties::decode(body)? } else { WillProperties::default() };
        let topic = body.string()?;
        validate_topic_name(topic).map_err(|fault| body.fault(Fault::TopicName(fault)))?;
        let payload = Bytes::copy_from_slice(body.binary()?);
        Ok(Self { qos, retain, properties, topic: topic.to_owned(), payload })
    }
}

impl WillProperties {
    fn decode(body: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut all = Self::default();
        let mut properties = PropertyReader::take(body, PropertySet::WILL)?;
        while let Some(property) = properties.next()? {
            match property {
                Property::WillDelayInterval(secs) => all.will_delay_interval_secs = Some(secs),
                Property::PayloadFormatIndicator(utf8) => all.payload_is_utf8 = Some(utf8),
                Property::MessageExpiryInterval(secs) => {
                    all.message_expiry_interval_secs = Some(secs);
                }
                Property::ContentType(text) => all.content_type = Some(text.to_owned()),
                Property::ResponseTopic(topic) => {
                    validate_topic_name(topic).map_err(|fault| properties.fault(Fault::TopicName(fault)))?;
                    all.response_topic = Some(topic.to_owned());
                }
                Property::CorrelationData(data) => {
                    all.correlation_data = Some(Bytes::copy_from_slice(data));
                }
                Property::User(name, value) => {
                    all.user_properties.push((name.to_owned(), value.to_owned()));
                }
                _ => {}
            }
        }
        Ok(all)
    }

    fn put(&self, writer: &mut PropertyWriter<'_>) -> Result<(), EncodeError> {
        use Property as P;
        writer.put_some(self.will_delay_interval_secs, P::WillDelayInterval)?;
        writer.put_some(self.payload_is_utf8, P::PayloadFormatIndicator)?;
        writer.put_some(self.message_expiry_interval_secs, P::MessageExpiryInterval)?;
        writer.put_text(self.content_type.as_ref(), P::ContentType)?;
        writer.put_text(self.response_topic.as_ref(), P::ResponseTopic)?;
        writer.put_data(self.correlation_data.as_ref(), P::CorrelationData)?;
        writer.put_user(&self.user_properties)
    }
}
