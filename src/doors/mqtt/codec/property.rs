//! The properties of MQTT 5.0: one enum for reading and writing, and the table of who may carry what (2.2.2.2).

use std::num::{NonZeroU16, NonZeroU32};

use super::fault::{DecodeError, EncodeError, Fault};
#[cfg(test)]
use super::packet::PacketKind;
use super::packet::QoS;
use super::wire::{Counter, Reader, Sink, put_binary, put_variable_byte_integer, variable_byte_integer_len};

/// User properties, in the order in which they were sent.
pub type UserProperties = Vec<(String, String)>;

/// A subscription identifier: 1 to 268,435,455.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionId(NonZeroU32);

impl SubscriptionId {
    /// The identifier, unless `id` is 0 or above 268,435,455.
    pub fn new(id: u32) -> Option<Self> {
        if id > 268_435_455 { None } else { NonZeroU32::new(id).map(Self) }
    }

    /// The number.
    pub fn value(self) -> u32 {
        self.0.get()
    }

    pub(super) fn encoded_len(self) -> usize {
        1 + variable_byte_integer_len(self.value() as usize)
    }
}

/// One property, with its value checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Property<'a> {
    PayloadFormatIndicator(bool),
    MessageExpiryInterval(u32),
    ContentType(&'a str),
    ResponseTopic(&'a str),
    CorrelationData(&'a [u8]),
    SubscriptionIdentifier(SubscriptionId),
    SessionExpiryInterval(u32),
    AssignedClientIdentifier(&'a str),
    ServerKeepAlive(u16),
    AuthenticationMethod(&'a str),
    AuthenticationData(&'a [u8]),
    RequestProblemInformation(bool),
    WillDelayInterval(u32),
    RequestResponseInformation(bool),
    ResponseInformation(&'a str),
    ServerReference(&'a str),
    ReasonString(&'a str),
    ReceiveMaximum(NonZeroU16),
    TopicAliasMaximum(u16),
    TopicAlias(NonZeroU16),
    MaximumQoS(QoS),
    RetainAvailable(bool),
    User(&'a str, &'a str),
    MaximumPacketSize(NonZeroU32),
    WildcardSubscriptionAvailable(bool),
    SubscriptionIdentifierAvailable(bool),
    SharedSubscriptionAvailable(bool),
}

/// A set of property identifiers; all of them are below 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PropertySet(u64);

impl PropertySet {
    const fn of(ids: &[u8]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < ids.len() {
            bits |= 1 << ids[at];
            at += 1;
        }
        Self(bits)
    }

    const fn has(self, id: u8) -> bool {
        id < 64 && self.0 & (1 << id) != 0
    }

    pub(super) const CONNECT: Self = Self::of(&[0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27]);
    pub(super) const WILL: Self = Self::of(&[0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26]);
    pub(super) const CONNACK: Self = Self::of(&[
        0x11, 0x12, 0x13, 0x15, 0x16, 0x1A, 0x1C, 0x1F, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2A,
    ]);
    pub(super) const PUBLISH: Self = Self::of(&[0x01, 0x02, 0x03, 0x08, 0x09, 0x0B, 0x23, 0x26]);
    pub(super) const ACK: Self = Self::of(&[0x1F, 0x26]);
    pub(super) const SUBSCRIBE: Self = Self::of(&[0x0B, 0x26]);
    pub(super) const UNSUBSCRIBE: Self = Self::of(&[0x26]);
    pub(super) const DISCONNECT: Self = Self::of(&[0x11, 0x1C, 0x1F, 0x26]);
    pub(super) const AUTH: Self = Self::of(&[0x15, 0x16, 0x1F, 0x26]);
}

/// Reads the properties of one packet: allowed ones only, each once but for user properties and, in PUBLISH,
/// subscription identifiers.
#[derive(Debug, Clone)]
pub(super) struct PropertyReader<'a> {
    reader: Reader<'a>,
    allowed: PropertySet,
    seen: u64,
}

impl<'a> PropertyReader<'a> {
    /// Takes the property length and that many bytes from `body`.
    pub(super) fn take(body: &mut Reader<'a>, allowed: PropertySet) -> Result<Self, DecodeError> {
        let len = body.variable_byte_integer()?;
        let bytes = body.take(len as usize)?;
        Ok(Self { reader: Reader::new(body.packet(), bytes), allowed, seen: 0 })
    }

    /// Reads properties without their length in front.
    pub(super) fn over(reader: Reader<'a>, allowed: PropertySet) -> Self {
        Self { reader, allowed, seen: 0 }
    }

    /// How many bytes are left.
    pub(super) fn len(&self) -> usize {
        self.reader.len()
    }

    pub(super) fn bytes(&self) -> &'a [u8] {
        self.reader.clone().rest()
    }

    pub(super) fn fault(&self, fault: Fault) -> DecodeError {
        self.reader.fault(fault)
    }

    /// The next property, or `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Property<'a>>, DecodeError> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        // Identifiers are variable byte integers, but every defined one fits one byte.
        let id = self.reader.u8()?;
        if !self.allowed.has(id) {
            return Err(self.fault(Fault::PropertyNotAllowed(id)));
        }
        let may_repeat = id == 0x26 || (id == 0x0B && self.allowed == PropertySet::PUBLISH);
        if !may_repeat && self.seen & (1 << id) != 0 {
            return Err(self.fault(Fault::PropertyRepeated(id)));
        }
        self.seen |= 1 << id;
        self.value(id).map(Some)
    }

    fn value(&mut self, id: u8) -> Result<Property<'a>, DecodeError> {
        let out_of_range = self.fault(Fault::PropertyValue(id));
        let reader = &mut self.reader;
        Ok(match id {
            0x01 => Property::PayloadFormatIndicator(flag(reader, id)?),
            0x02 => Property::MessageExpiryInterval(reader.u32()?),
            0x03 => Property::ContentType(reader.string()?),
            0x08 => Property::ResponseTopic(reader.string()?),
            0x09 => Property::CorrelationData(reader.binary()?),
            0x0B => {
                let id = reader.variable_byte_integer()?;
                Property::SubscriptionIdentifier(SubscriptionId::new(id).ok_or(out_of_range)?)
            }
            0x11 => Property::SessionExpiryInterval(reader.u32()?),
            0x12 => Property::AssignedClientIdentifier(reader.string()?),
            0x13 => Property::ServerKeepAlive(reader.u16()?),
            0x15 => Property::AuthenticationMethod(reader.string()?),
            0x16 => Property::AuthenticationData(reader.binary()?),
            0x17 => Property::RequestProblemInformation(flag(reader, id)?),
            0x18 => Property::WillDelayInterval(reader.u32()?),
            0x19 => Property::RequestResponseInformation(flag(reader, id)?),
            0x1A => Property::ResponseInformation(reader.string()?),
            0x1C => Property::ServerReference(reader.string()?),
            0x1F => Property::ReasonString(reader.string()?),
            0x21 => Property::ReceiveMaximum(NonZeroU16::new(reader.u16()?).ok_or(out_of_range)?),
            0x22 => Property::TopicAliasMaximum(reader.u16()?),
            0x23 => Property::TopicAlias(NonZeroU16::new(reader.u16()?).ok_or(out_of_range)?),
            0x24 => Property::MaximumQoS(if flag(reader, id)? { QoS::AtLeastOnce } else { QoS::AtMostOnce }),
            0x25 => Property::RetainAvailable(flag(reader, id)?),
            0x26 => Property::User(reader.string()?, reader.string()?),
            0x27 => Property::MaximumPacketSize(NonZeroU32::new(reader.u32()?).ok_or(out_of_range)?),
            0x28 => Property::WildcardSubscriptionAvailable(flag(reader, id)?),
            0x29 => Property::SubscriptionIdentifierAvailable(flag(reader, id)?),
            0x2A => Property::SharedSubscriptionAvailable(flag(reader, id)?),
            _ => return Err(reader.fault(Fault::PropertyNotAllowed(id))),
        })
    }
}

fn flag(reader: &mut Reader<'_>, id: u8) -> Result<bool, DecodeError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(reader.fault(Fault::PropertyValue(id))),
    }
}

impl Property<'_> {
    fn put(&self, sink: &mut dyn Sink) -> Result<(), EncodeError> {
        use Property as P;
        match *self {
            P::PayloadFormatIndicator(flag) => put_flag(sink, 0x01, flag),
            P::MessageExpiryInterval(secs) => put_u32(sink, 0x02, secs),
            P::ContentType(text) => return put_field(sink, 0x03, text.as_bytes()),
            P::ResponseTopic(text) => return put_field(sink, 0x08, text.as_bytes()),
            P::CorrelationData(data) => return put_field(sink, 0x09, data),
            P::SubscriptionIdentifier(id) => {
                sink.put(&[0x0B]);
                put_variable_byte_integer(sink, id.value() as usize);
            }
            P::SessionExpiryInterval(secs) => put_u32(sink, 0x11, secs),
            P::AssignedClientIdentifier(text) => return put_field(sink, 0x12, text.as_bytes()),
            P::ServerKeepAlive(secs) => put_u16(sink, 0x13, secs),
            P::AuthenticationMethod(text) => return put_field(sink, 0x15, text.as_bytes()),
            P::AuthenticationData(data) => return put_field(sink, 0x16, data),
            P::RequestProblemInformation(flag) => put_flag(sink, 0x17, flag),
            P::WillDelayInterval(secs) => put_u32(sink, 0x18, secs),
            P::RequestResponseInformation(flag) => put_flag(sink, 0x19, flag),
            P::ResponseInformation(text) => return put_field(sink, 0x1A, text.as_bytes()),
            P::ServerReference(text) => return put_field(sink, 0x1C, text.as_bytes()),
            P::ReasonString(text) => return put_field(sink, 0x1F, text.as_bytes()),
            P::ReceiveMaximum(maximum) => put_u16(sink, 0x21, maximum.get()),
            P::TopicAliasMaximum(maximum) => put_u16(sink, 0x22, maximum),
            P::TopicAlias(alias) => put_u16(sink, 0x23, alias.get()),
            // QoS 2 is the default and has no value of its own.
            P::MaximumQoS(QoS::ExactlyOnce) => {}
            P::MaximumQoS(qos) => put_flag(sink, 0x24, qos == QoS::AtLeastOnce),
            P::RetainAvailable(flag) => put_flag(sink, 0x25, flag),
            P::User(name, value) => {
                put_field(sink, 0x26, name.as_bytes())?;
                return put_binary(sink, value.as_bytes());
            }
            P::MaximumPacketSize(bytes) => put_u32(sink, 0x27, bytes.get()),
            P::WildcardSubscriptionAvailable(flag) => put_flag(sink, 0x28, flag),
            P::SubscriptionIdentifierAvailable(flag) => put_flag(sink, 0x29, flag),
            P::SharedSubscriptionAvailable(flag) => put_flag(sink, 0x2A, flag),
        }
        Ok(())
    }
}

fn put_flag(sink: &mut dyn Sink, id: u8, flag: bool) {
    sink.put(&[id, u8::from(flag)]);
}

fn put_u16(sink: &mut dyn Sink, id: u8, value: u16) {
    sink.put(&[id]);
    sink.put(&value.to_be_bytes());
}

fn put_u32(sink: &mut dyn Sink, id: u8, value: u32) {
    sink.put(&[id]);
    sink.put(&value.to_be_bytes());
}

fn put_field(sink: &mut dyn Sink, id: u8, bytes: &[u8]) -> Result<(), EncodeError> {
    sink.put(&[id]);
    put_binary(sink, bytes)
}

/// Writes properties to a [`Sink`]; made by [`put_properties`].
pub(super) struct PropertyWriter<'s> {
    sink: &'s mut dyn Sink,
}

impl<'s> PropertyWriter<'s> {
    pub(super) fn new(sink: &'s mut dyn Sink) -> Self {
        Self { sink }
    }

    pub(super) fn put(&mut self, property: Property<'_>) -> Result<(), EncodeError> {
        property.put(self.sink)
    }

    /// Writes the property if there is a value.
    pub(super) fn put_some<T>(
        &mut self,
        value: Option<T>,
        property: impl FnOnce(T) -> Property<'static>,
    ) -> Result<(), EncodeError> {
        value.map_or(Ok(()), |value| self.put(property(value)))
    }

    pub(super) fn put_text<'p>(
        &mut self,
        value: Option<&'p String>,
        property: impl FnOnce(&'p str) -> Property<'p>,
    ) -> Result<(), EncodeError> {
        value.map_or(Ok(()), |value| self.put(property(value)))
    }

    pub(super) fn put_data<'p>(
        &mut self,
        value: Option<&'p bytes::Bytes>,
        property: impl FnOnce(&'p [u8]) -> Property<'p>,
    ) -> Result<(), EncodeError> {
        value.map_or(Ok(()), |value| self.put(property(value)))
    }

    pub(super) fn put_user(&mut self, properties: &UserProperties) -> Result<(), EncodeError> {
        properties.iter().try_for_each(|(name, value)| self.put(Property::User(name, value)))
    }
}

/// Writes the property length and what `write` puts; `write` runs twice, first to measure.
pub(super) fn put_properties(
    sink: &mut dyn Sink,
    write: &dyn Fn(&mut PropertyWriter<'_>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let mut counter = Counter::default();
    write(&mut PropertyWriter::new(&mut counter))?;
    put_variable_byte_integer(sink, counter.0);
    write(&mut PropertyWriter::new(sink))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], allowed: PropertySet) -> Result<Vec<Property<'_>>, Fault> {
        let mut reader = PropertyReader::over(Reader::new(PacketKind::Publish, bytes), allowed);
        let mut all = vec![];
        while let Some(property) = reader.next().map_err(|e| e.fault)? {
            all.push(property);
        }
        Ok(all)
    }

    #[test]
    fn zero_is_refused_where_the_specification_forbids_it() {
        let connect = PropertySet::CONNECT;
        assert_eq!(read(&[0x21, 0, 0], connect), Err(Fault::PropertyValue(0x21)));
        assert_eq!(read(&[0x27, 0, 0, 0, 0], connect), Err(Fault::PropertyValue(0x27)));
        assert_eq!(read(&[0x23, 0, 0], PropertySet::PUBLISH), Err(Fault::PropertyValue(0x23)));
        assert_eq!(read(&[0x0B, 0], PropertySet::SUBSCRIBE), Err(Fault::PropertyValue(0x0B)));
        assert_eq!(read(&[0x22, 0, 0], connect), Ok(vec![Property::TopicAliasMaximum(0)]));
    }

    #[test]
    fn flags_are_zero_or_one() {
        for id in [0x17, 0x19] {
            assert_eq!(read(&[id, 2], PropertySet::CONNECT), Err(Fault::PropertyValue(id)));
        }
        for id in [0x24, 0x25, 0x28, 0x29, 0x2A] {
            assert_eq!(read(&[id, 2], PropertySet::CONNACK), Err(Fault::PropertyValue(id)));
            assert!(read(&[id, 1], PropertySet::CONNACK).is_ok());
        }
        assert_eq!(read(&[0x01, 2], PropertySet::PUBLISH), Err(Fault::PropertyValue(0x01)));
    }

    #[test]
    fn only_user_properties_and_published_subscription_ids_repeat() {
        let user = [0x26, 0, 1, b'a', 0, 0, 0x26, 0, 1, b'a', 0, 0];
        assert_eq!(read(&user, PropertySet::ACK).unwrap().len(), 2);
        assert_eq!(read(&[0x0B, 1, 0x0B, 2], PropertySet::PUBLISH).unwrap().len(), 2);
        let twice = Err(Fault::PropertyRepeated(0x0B));
        assert_eq!(read(&[0x0B, 1, 0x0B, 2], PropertySet::SUBSCRIBE), twice);
        assert_eq!(read(&[0x01, 0, 0x01, 0], PropertySet::PUBLISH), Err(Fault::PropertyRepeated(1)));
    }

    #[test]
    fn unknown_and_foreign_properties_are_refused() {
        for id in [0x00, 0x04, 0x0A, 0x14, 0x2B, 0x3F, 0x40, 0x80, 0xFF] {
            let bytes = [id, 0, 0, 0, 0];
            assert_eq!(read(&bytes, PropertySet::PUBLISH), Err(Fault::PropertyNotAllowed(id)));
        }
        assert_eq!(read(&[0x24, 1], PropertySet::PUBLISH), Err(Fault::PropertyNotAllowed(0x24)));
    }
}
