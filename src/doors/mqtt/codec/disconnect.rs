//! DISCONNECT and AUTH.

use bytes::Bytes;

use super::ack::decode_reason;
use super::fault::{DecodeError, EncodeError, Fault};
use super::packet::{PacketKind, Peer, ProtocolVersion};
use super::property::{Property, PropertyReader, PropertySet, PropertyWriter, UserProperties, put_properties};
use super::reason::ReasonCode;
use super::wire::{Reader, Sink};

/// The last packet of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disconnect {
    /// Why; always success in MQTT 3.1.1.
    pub reason: ReasonCode,
    /// The properties; not written in MQTT 3.1.1.
    pub properties: DisconnectProperties,
}

/// The properties of DISCONNECT.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DisconnectProperties {
    /// A new session expiry; only a client sends it.
    pub session_expiry_interval_secs: Option<u32>,
    /// A diagnostic text for people.
    pub reason_string: Option<String>,
    /// Another server to use; only a server sends it.
    pub server_reference: Option<String>,
    /// Names and values, in order.
    pub user_properties: UserProperties,
}

impl Disconnect {
    /// A reason without properties.
    pub fn new(reason: ReasonCode) -> Self {
        Self { reason, properties: DisconnectProperties::default() }
    }

    pub(super) fn decode(mut body: Reader<'_>, version: ProtocolVersion, sender: Peer) -> Result<Self, DecodeError> {
        let mut disconnect = Self::new(ReasonCode::Success);
        if version == ProtocolVersion::V5 && !body.is_empty() {
            disconnect.reason = decode_reason(&mut body, sender)?;
            if !body.is_empty() {
                disconnect.properties = DisconnectProperties::decode(&mut body, sender)?;
            }
        }
        body.finish()?;
        Ok(disconnect)
    }

    pub(super) fn put_body(&self, version: ProtocolVersion, sink: &mut dyn Sink) -> Result<(), EncodeError> {
        let plain = self.properties == DisconnectProperties::default();
        if version == ProtocolVersion::V311 || (plain && self.reason == ReasonCode::Success) {
            return Ok(());
        }
        sink.put(&[self.reason.byte()]);
        if plain {
            return Ok(());
        }
        put_properties(sink, &|writer| self.properties.put(writer))
    }
}

impl DisconnectProperties {
    fn decode(body: &mut Reader<'_>, sender: Peer) -> Result<Self, DecodeError> {
        let mut all = Self::default();
        let mut properties = PropertyReader::take(body, PropertySet::DISCONNECT)?;
        while let Some(property) = properties.next()? {
            match property {
                Property::SessionExpiryInterval(secs) => {
                    if sender == Peer::Server {
                        return Err(properties.fault(Fault::PropertyWrongSide(0x11)));
                    }
                    all.session_expiry_interval_secs = Some(secs);
                }
                Property::ReasonString(text) => all.reason_string = Some(text.to_owned()),
                Property::ServerReference(text) => {
                    if sender == Peer::Client {
                        return Err(properties.fault(Fault::PropertyWrongSide(0x1C)));
                    }
                    all.server_reference = Some(text.to_owned());
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
        writer.put_some(self.session_expiry_interval_secs, Property::SessionExpiryInterval)?;
        writer.put_text(self.reason_string.as_ref(), Property::ReasonString)?;
        writer.put_text(self.server_reference.as_ref(), Property::ServerReference)?;
        writer.put_user(&self.user_properties)
    }
}

/// One step of an extended authentication (MQTT 5.0).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// Success, continue, or re-authenticate.
    pub reason: ReasonCode,
    /// The properties.
    pub properties: AuthProperties,
}

/// The properties of AUTH. The method may be missing only on a success without any property.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuthProperties {
    /// The method.
    pub authentication_method: Option<String>,
    /// Its data.
    pub authentication_data: Option<Bytes>,
    /// A diagnostic text for people.
    pub reason_string: Option<String>,
    /// Names and values, in order.
    pub user_properties: UserProperties,
}

impl Auth {
    pub(super) fn decode(mut body: Reader<'_>, sender: Peer) -> Result<Self, DecodeError> {
        if body.is_empty() {
            let reason = ReasonCode::Success;
            if !reason.allowed_in(PacketKind::Auth, sender) {
                return Err(body.fault(Fault::ReasonCode(reason.byte())));
            }
            return Ok(Self { reason, properties: AuthProperties::default() });
        }
        let reason = decode_reason(&mut body, sender)?;
        let properties = AuthProperties::decode(&mut body)?;
        body.finish()?;
        Ok(Self { reason, properties })
    }

    pub(super) fn put_body(&self, version: ProtocolVersion, sink: &mut dyn Sink) -> Result<(), EncodeError> {
        if version == ProtocolVersion::V311 {
            return Err(EncodeError::NotInVersion(PacketKind::Auth));
        }
        if self.reason == ReasonCode::Success && self.properties == AuthProperties::default() {
            return Ok(());
        }
        sink.put(&[self.reason.byte()]);
        put_properties(sink, &|writer| self.properties.put(writer))
    }
}

impl AuthProperties {
    fn decode(body: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut all = Self::default();
        let mut properties = PropertyReader::take(body, PropertySet::AUTH)?;
        while let Some(property) = properties.next()? {
            match property {
                Property::AuthenticationMethod(method) => {
                    all.authentication_method = Some(method.to_owned());
                }
                Property::AuthenticationData(data) => {
                    all.authentication_data = Some(Bytes::copy_from_slice(data));
                }
                Property::ReasonString(text) => all.reason_string = Some(text.to_owned()),
                Property::User(name, value) => {
                    all.user_properties.push((name.to_owned(), value.to_owned()));
                }
                _ => {}
            }
        }
        if all.authentication_method.is_none() {
            return Err(body.fault(Fault::AuthenticationMethodMissing));
        }
        Ok(all)
    }

    fn put(&self, writer: &mut PropertyWriter<'_>) -> Result<(), EncodeError> {
        writer.put_text(self.authentication_method.as_ref(), Property::AuthenticationMethod)?;
        writer.put_data(self.authentication_data.as_ref(), Property::AuthenticationData)?;
        writer.put_text(self.reason_string.as_ref(), Property::ReasonString)?;
        writer.put_user(&self.user_properties)
    }
}
