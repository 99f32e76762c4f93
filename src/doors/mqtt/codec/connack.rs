//! CONNACK.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;

use super::ack::decode_reason;
use super::fault::{DecodeError, EncodeError, Fault};
use super::packet::{Peer, ProtocolVersion, QoS};
use super::property::{Property, PropertyReader, PropertySet, PropertyWriter, UserProperties, put_properties};
use super::reason::ReasonCode;
use super::wire::{Reader, Sink};

/// The server's answer to CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnAck {
    /// Whether the server has kept a session; never on a refusal.
    pub session_present: bool,
    /// Success, or why the client is refused; in MQTT 3.1.1 the nearest return code is written.
    pub reason: ReasonCode,
    /// The properties; not written in MQTT 3.1.1.
    pub properties: ConnAckProperties,
}

/// The properties of CONNACK. `None` is the default that the specification gives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnAckProperties {
    /// The expiry that the server uses; none is what the client asked for.
    pub session_expiry_interval_secs: Option<u32>,
    /// How many unacknowledged QoS 1 and 2 messages the server takes; none is 65,535.
    pub receive_maximum: Option<NonZeroU16>,
    /// The highest QoS that the server takes; none is QoS 2, which is never written.
    pub maximum_qos: Option<QoS>,
    /// Whether the server retains messages; none is yes.
    pub retain_available: Option<bool>,
    /// The largest packet that the server takes; none is no limit.
    pub maximum_packet_size_bytes: Option<NonZeroU32>,
    /// The identifier of a client that sent none.
    pub assigned_client_identifier: Option<String>,
    /// The highest topic alias that the server takes; none is 0.
    pub topic_alias_maximum: Option<u16>,
    /// A diagnostic text for people.
    pub reason_string: Option<String>,
    /// Whether filters may hold wildcards; none is yes.
    pub wildcard_subscription_available: Option<bool>,
    /// Whether subscriptions may have identifiers; none is yes.
    pub subscription_identifiers_available: Option<bool>,
    /// Whether subscriptions may be shared; none is yes.
    pub shared_subscription_available: Option<bool>,
    /// The keep alive that the client has to use instead of its own.
    pub server_keep_alive_secs: Option<u16>,
    /// From what the client may build response topics.
    pub response_information: Option<String>,
    /// Another server to use.
    pub server_reference: Option<String>,
    /// The method of an extended authentication.
    pub authentication_method: Option<String>,
    /// Its data; only with a method.
    pub authentication_data: Option<Bytes>,
    /// Names and values, in order.
    pub user_properties: UserProperties,
}

impl ConnAck {
    /// An acceptance.
    pub fn accepted(session_present: bool) -> Self {
        Self { session_present, reason: ReasonCode::Success, properties: ConnAckProperties::default() }
    }

    /// A refusal.
    pub fn refused(reason: ReasonCode) -> Self {
        Self { session_present: false, reason, properties: ConnAckProperties::default() }
    }

    pub(super) fn decode(mut body: Reader<'_>, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let flags = body.u8()?;
        let (reason, properties) = if version == ProtocolVersion::V5 {
            let reason = decode_reason(&mut body, Peer::Server)?;
            (reason, ConnAckProperties::decode(&mut body)?)
        } else {
            let code = body.u8()?;
            let reason = ReasonCode::from_connect_return_code(code).ok_or(body.fault(Fault::ReasonCode(code)))?;
            (reason, ConnAckProperties::default())
        };
        // Session present goes with success only [MQTT-3.2.2-6].
        if flags > 1 || (flags == 1 && reason != ReasonCode::Success) {
            return Err(body.fault(Fault::AcknowledgeFlags(flags)));
        }
        body.finish()?;
        Ok(Self { session_present: flags == 1, reason, properties })
    }

    pub(super) fn put_body(&self, version: ProtocolVersion, sink: &mut dyn Sink) -> Result<(), EncodeError> {
        let success = self.reason == ReasonCode::Success;
        let flags = u8::from(self.session_present && success);
        if version == ProtocolVersion::V311 {
            sink.put(&[flags, self.reason.connect_return_code()]);
            return Ok(());
        }
        sink.put(&[flags, self.reason.byte()]);
        put_properties(sink, &|writer| self.properties.put(writer))
    }
}

impl ConnAckProperties {
    fn decode(body: &mut Reader<'_>) -> Result<Self, DecodeError> {
        use Property as P;
        let mut all = Self::default();
        let mut properties = PropertyReader::take(body, PropertySet::CONNACK)?;
        while let Some(property) = properties.next()? {
            match property {
                P::SessionExpiryInterval(secs) => all.session_expiry_interval_secs = Some(secs),
                P::ReceiveMaximum(maximum) => all.receive_maximum = Some(maximum),
                P::MaximumQoS(qos) => all.maximum_qos = Some(qos),
                P::RetainAvailable(flag) => all.retain_available = Some(flag),
                P::MaximumPacketSize(bytes) => all.maximum_packet_size_bytes = Some(bytes),
                P::AssignedClientIdentifier(id) => {
                    all.assigned_client_identifier = Some(id.to_owned());
                }
                P::TopicAliasMaximum(maximum) => all.topic_alias_maximum = Some(maximum),
                P::ReasonString(text) => all.reason_string = Some(text.to_owned()),
                P::WildcardSubscriptionAvailable(flag) => {
                    all.wildcard_subscription_available = Some(flag);
                }
                P::SubscriptionIdentifierAvailable(flag) => {
                    all.subscription_identifiers_available = Some(flag);
                }
                P::SharedSubscriptionAvailable(flag) => {
                    all.shared_subscription_available = Some(flag);
                }
                P::ServerKeepAlive(secs) => all.server_keep_alive_secs = Some(secs),
                P::ResponseInformation(text) => all.response_information = Some(text.to_owned()),
                P::ServerReference(text) => all.server_reference = Some(text.to_owned()),
                P::AuthenticationMethod(method) => {
                    all.authentication_method = Some(method.to_owned());
                }
                P::AuthenticationData(data) => {
                    all.authentication_data = Some(Bytes::copy_from_slice(data));
                }
                P::User(name, value) => {
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
        writer.put_some(self.maximum_qos, P::MaximumQoS)?;
        writer.put_some(self.retain_available, P::RetainAvailable)?;
        writer.put_some(self.maximum_packet_size_bytes, P::MaximumPacketSize)?;
        writer.put_text(self.assigned_client_identifier.as_ref(), P::AssignedClientIdentifier)?;
        writer.put_some(self.topic_alias_maximum, P::TopicAliasMaximum)?;
        writer.put_text(self.reason_string.as_ref(), P::ReasonString)?;
        writer.put_some(self.wildcard_subscription_available, P::WildcardSubscriptionAvailable)?;
        writer.put_some(self.subscription_identifiers_available, P::SubscriptionIdentifierAvailable)?;
        writer.put_some(self.shared_subscription_available, P::SharedSubscriptionAvailable)?;
        writer.put_some(self.server_keep_alive_secs, P::ServerKeepAlive)?;
        writer.put_text(self.response_information.as_ref(), P::ResponseInformation)?;
        writer.put_text(self.server_reference.as_ref(), P::ServerReference)?;
        writer.put_text(self.authentication_method.as_ref(), P::AuthenticationMethod)?;
        writer.put_data(self.authentication_data.as_ref(), P::AuthenticationData)?;
        writer.put_user(&self.user_properties)
    }
}
