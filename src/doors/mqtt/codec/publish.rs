//! PUBLISH as it is read: borrowed from the read buffer, or owned.

use std::num::NonZeroU16;

use bytes::{BufMut, Bytes};

use super::fault::{DecodeError, EncodeError, Fault};
use super::packet::{PacketId, PacketKind, Peer, ProtocolVersion, QoS};
use super::property::{Property, PropertyReader, PropertySet, PropertyWriter, SubscriptionId, UserProperties};
use super::publish_encode::OutgoingPublish;
use super::topic::validate_topic_name;
use super::wire::{Reader, Sink};

/// Quality of service with the packet identifier that QoS 1 and 2 need and QoS 0 must not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// QoS 0.
    AtMostOnce,
    /// QoS 1.
    AtLeastOnce(PacketId),
    /// QoS 2.
    ExactlyOnce(PacketId),
}

impl Delivery {
    /// The quality of service.
    pub fn qos(self) -> QoS {
        match self {
            Self::AtMostOnce => QoS::AtMostOnce,
            Self::AtLeastOnce(_) => QoS::AtLeastOnce,
            Self::ExactlyOnce(_) => QoS::ExactlyOnce,
        }
    }

    /// The packet identifier of QoS 1 and 2.
    pub fn packet_id(self) -> Option<PacketId> {
        match self {
            Self::AtMostOnce => None,
            Self::AtLeastOnce(id) | Self::ExactlyOnce(id) => Some(id),
        }
    }
}

/// A PUBLISH that borrows the read buffer: nothing is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishRef<'a> {
    /// Quality of service and packet identifier.
    pub delivery: Delivery,
    /// Whether the sender says that it has sent the packet before; never on QoS 0.
    pub dup: bool,
    /// Whether the message is to be retained (from a client) or was retained (from a server).
    pub retain: bool,
    /// The topic name; empty if and only if [`PublishPropertiesRef::topic_alias`] stands for it.
    pub topic: &'a str,
    /// The properties; empty in MQTT 3.1.1.
    pub properties: PublishPropertiesRef<'a>,
    /// The application message.
    pub payload: &'a [u8],
}

/// The properties of a [`PublishRef`]: validated, and kept as the bytes they came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PublishPropertiesRef<'a> {
    /// Seconds after which the message is of no use.
    pub message_expiry_interval_secs: Option<u32>,
    /// The number that stands for the topic name on this connection.
    pub topic_alias: Option<NonZeroU16>,
    forwarded: ForwardedProperties<'a>,
}

/// The properties that a server must pass on unaltered and in order (payload format, content type, response topic,
/// correlation data, user properties), as validated bytes. Expiry, alias and subscription identifiers are not among
/// them: they belong to one connection or change with time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ForwardedProperties<'a> {
    /// May hold properties that are not forwarded; then `len` is smaller than its length.
    raw: &'a [u8],
    len: usize,
}

impl<'a> ForwardedProperties<'a> {
    /// Takes bytes that [`Self::put`] has written earlier, for example from a stored message, and checks them again.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let body = Reader::new(PacketKind::Publish, bytes);
        read_properties(&mut PropertyReader::over(body, PropertySet::PUBLISH)).map(|properties| properties.forwarded)
    }

    /// Bytes that this module has just written itself.
    #[inline]
    pub(super) fn written(bytes: &'a [u8]) -> Self {
        Self { raw: bytes, len: bytes.len() }
    }

    /// How many bytes [`Self::put`] appends.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing to forward.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends the properties as they were sent, without a length in front.
    #[inline]
    pub fn put(&self, out: &mut impl BufMut) {
        if self.len == self.raw.len() {
            out.put_slice(self.raw);
        } else if self.len > 0 {
            self.each_raw(|bytes| out.put_slice(bytes));
        }
    }

    fn each_raw(&self, mut emit: impl FnMut(&'a [u8])) {
        let mut reader = self.reader();
        let mut before = reader.bytes();
        while let Some(property) = reader.next().ok().flatten() {
            if is_forwarded(&property) {
                emit(&before[..before.len() - reader.len()]);
            }
            before = reader.bytes();
        }
    }

    fn reader(&self) -> PropertyReader<'a> {
        PropertyReader::over(Reader::new(PacketKind::Publish, self.raw), PropertySet::PUBLISH)
    }

    fn all(&self) -> impl Iterator<Item = Property<'a>> + use<'a> {
        let mut reader = self.reader();
        // The bytes were validated when this value was made, so there is no error to lose.
        std::iter::from_fn(move || reader.next().ok().flatten())
    }
}

impl<'a> PublishPropertiesRef<'a> {
    /// The properties that a server passes on.
    pub fn forwarded(&self) -> ForwardedProperties<'a> {
        self.forwarded
    }

    /// Whether the payload is said to be UTF-8 text.
    pub fn payload_is_utf8(&self) -> Option<bool> {
        self.forwarded.all().find_map(|property| match property {
            Property::PayloadFormatIndicator(is_utf8) => Some(is_utf8),
            _ => None,
        })
    }

    /// What the payload is, usually a media type.
    pub fn content_type(&self) -> Option<&'a str> {
        self.forwarded.all().find_map(|property| match property {
            Property::ContentType(text) => Some(text),
            _ => None,
        })
    }

    /// Where a response is expected.
    pub fn response_topic(&self) -> Option<&'a str> {
        self.forwarded.all().find_map(|property| match property {
            Property::ResponseTopic(topic) => Some(topic),
            _ => None,
        })
    }

    /// What the requester needs to match a response.
    pub fn correlation_data(&self) -> Option<&'a [u8]> {
        self.forwarded.all().find_map(|property| match property {
            Property::CorrelationData(data) => Some(data),
            _ => None,
        })
    }

    /// Names and values, in the order in which they were sent.
    pub fn user_properties(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.forwarded.all().filter_map(|property| match property {
            Property::User(name, value) => Some((name, value)),
            _ => None,
        })
    }

    /// The subscriptions that the message matched; only a server sends them.
    pub fn subscription_ids(&self) -> impl Iterator<Item = SubscriptionId> + use<'a> {
        self.forwarded.all().filter_map(|property| match property {
            Property::SubscriptionIdentifier(id) => Some(id),
            _ => None,
        })
    }
}

/// A PUBLISH that owns its data. The payload may share the read buffer, so keep it only briefly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Quality of service and packet identifier.
    pub delivery: Delivery,
    /// Whether the packet was sent before.
    pub dup: bool,
    /// The retain flag.
    pub retain: bool,
    /// The topic name; empty if a topic alias stands for it.
    pub topic: String,
    /// The properties; not written in MQTT 3.1.1.
    pub properties: PublishProperties,
    /// The application message.
    pub payload: Bytes,
}

/// The properties of a [`Publish`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PublishProperties {
    /// Seconds after which the message is of no use.
    pub message_expiry_interval_secs: Option<u32>,
    /// The number that stands for the topic name on this connection.
    pub topic_alias: Option<NonZeroU16>,
    /// The subscriptions that the message matched; only a server sends them.
    pub subscription_ids: Vec<SubscriptionId>,
    /// Whether the payload is UTF-8 text.
    pub payload_is_utf8: Option<bool>,
    /// What the payload is, usually a media type.
    pub content_type: Option<String>,
    /// Where a response is expected; a topic name.
    pub response_topic: Option<String>,
    /// What the requester needs to match a response.
    pub correlation_data: Option<Bytes>,
    /// Names and values, in order.
    pub user_properties: UserProperties,
}

impl Publish {
    /// A message without properties.
    pub fn new(topic: impl Into<String>, delivery: Delivery, payload: impl Into<Bytes>) -> Self {
        Self {
            delivery,
            dup: false,
            retain: false,
            topic: topic.into(),
            properties: PublishProperties::default(),
            payload: payload.into(),
        }
    }

    /// Copies what `publish` borrows; `payload` is the same payload, shared or copied as the caller likes.
    pub(super) fn from_ref(publish: &PublishRef<'_>, payload: Bytes) -> Self {
        let properties = &publish.properties;
        Self {
            delivery: publish.delivery,
            dup: publish.dup,
            retain: publish.retain,
            topic: publish.topic.to_owned(),
            properties: PublishProperties {
                message_expiry_interval_secs: properties.message_expiry_interval_secs,
                topic_alias: properties.topic_alias,
                subscription_ids: properties.subscription_ids().collect(),
                payload_is_utf8: properties.payload_is_utf8(),
                content_type: properties.content_type().map(str::to_owned),
                response_topic: properties.response_topic().map(str::to_owned),
                correlation_data: properties.correlation_data().map(Bytes::copy_from_slice),
                user_properties: properties
                    .user_properties()
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect(),
            },
            payload,
        }
    }

    pub(super) fn encoded_len(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        let forwarded = self.properties.forwarded(version)?;
        Ok(self.outgoing(&forwarded).encoded_len(version))
    }

    pub(super) fn encode(&self, version: ProtocolVersion, out: &mut impl BufMut) -> Result<(), EncodeError> {
        let forwarded = self.properties.forwarded(version)?;
        self.outgoing(&forwarded).encode(version, out)
    }

    fn outgoing<'a>(&'a self, forwarded: &'a [u8]) -> OutgoingPublish<'a> {
        OutgoingPublish {
            delivery: self.delivery,
            dup: self.dup,
            retain: self.retain,
            topic: &self.topic,
            topic_alias: self.properties.topic_alias,
            message_expiry_interval_secs: self.properties.message_expiry_interval_secs,
            subscription_ids: &self.properties.subscription_ids,
            forwarded: ForwardedProperties::written(forwarded),
            payload: &self.payload,
        }
    }
}

impl PublishProperties {
    fn forwarded(&self, version: ProtocolVersion) -> Result<Vec<u8>, EncodeError> {
        let mut out = Collector(Vec::new());
        if version == ProtocolVersion::V5 {
            self.put_forwarded(&mut PropertyWriter::new(&mut out))?;
        }
        Ok(out.0)
    }

    fn put_forwarded(&self, writer: &mut PropertyWriter<'_>) -> Result<(), EncodeError> {
        writer.put_some(self.payload_is_utf8, Property::PayloadFormatIndicator)?;
        writer.put_text(self.content_type.as_ref(), Property::ContentType)?;
        writer.put_text(self.response_topic.as_ref(), Property::ResponseTopic)?;
        writer.put_data(self.correlation_data.as_ref(), Property::CorrelationData)?;
        writer.put_user(&self.user_properties)
    }
}

struct Collector(Vec<u8>);

impl Sink for Collector {
    fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

/// Reads the body of a PUBLISH; `flags` are the low four bits of its first byte.
#[inline]
pub(super) fn decode_publish(
    flags: u8,
    body: &[u8],
    version: ProtocolVersion,
    sender: Peer,
) -> Result<PublishRef<'_>, DecodeError> {
    let mut reader = Reader::new(PacketKind::Publish, body);
    let dup = flags & 0b1000 != 0;
    let topic = reader.string_with_nulls()?;
    let delivery = match flags >> 1 & 0b11 {
        0 if dup => return Err(reader.fault(Fault::DupOnQos0)),
        0 => Delivery::AtMostOnce,
        1 => Delivery::AtLeastOnce(reader.packet_id()?),
        2 => Delivery::ExactlyOnce(reader.packet_id()?),
        _ => return Err(reader.fault(Fault::Qos)),
    };
    let mut properties = PublishPropertiesRef::default();
    if version == ProtocolVersion::V5 {
        let mut property_reader = PropertyReader::take(&mut reader, PropertySet::PUBLISH)?;
        if property_reader.len() > 0 {
            properties = read_properties(&mut property_reader)?;
            if sender == Peer::Client && properties.subscription_ids().next().is_some() {
                return Err(reader.fault(Fault::PropertyWrongSide(0x0B)));
            }
        }
    }
    if !topic.is_empty() || version == ProtocolVersion::V311 {
        validate_topic_name(topic).map_err(|fault| reader.fault(Fault::TopicName(fault)))?;
    } else if properties.topic_alias.is_none() {
        return Err(reader.fault(Fault::NoTopic));
    }
    let retain = flags & 1 != 0;
    Ok(PublishRef { delivery, dup, retain, topic, properties, payload: reader.rest() })
}

/// Validates all properties and takes the two that a server acts on.
fn read_properties<'a>(reader: &mut PropertyReader<'a>) -> Result<PublishPropertiesRef<'a>, DecodeError> {
    let mut properties = PublishPropertiesRef::default();
    let raw = reader.bytes();
    let mut forwarded_len = raw.len();
    let mut before = reader.len();
    while let Some(property) = reader.next()? {
        match property {
            Property::MessageExpiryInterval(secs) => {
                properties.message_expiry_interval_secs = Some(secs);
            }
            Property::TopicAlias(alias) => properties.topic_alias = Some(alias),
            Property::ResponseTopic(topic) => {
                validate_topic_name(topic).map_err(|fault| reader.fault(Fault::TopicName(fault)))?
            }
            _ => {}
        }
        if !is_forwarded(&property) {
            forwarded_len -= before - reader.len();
        }
        before = reader.len();
    }
    properties.forwarded = ForwardedProperties { raw, len: forwarded_len };
    Ok(properties)
}

fn is_forwarded(property: &Property<'_>) -> bool {
    !matches!(
        property,
        Property::MessageExpiryInterval(_) | Property::TopicAlias(_) | Property::SubscriptionIdentifier(_)
    )
}
