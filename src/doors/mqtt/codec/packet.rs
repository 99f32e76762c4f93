//! The packets, and writing them.

use std::fmt;
use std::num::NonZeroU16;

use bytes::BufMut;

use super::ack::Ack;
use super::connack::ConnAck;
use super::connect::Connect;
use super::disconnect::{Auth, Disconnect};
use super::fault::EncodeError;
use super::publish::Publish;
use super::subscribe::{SubAck, Subscribe};
use super::unsubscribe::{UnsubAck, Unsubscribe};
use super::wire::{
    Appender, Counter, MAX_REMAINING_LENGTH, Sink, put_variable_byte_integer, variable_byte_integer_len,
};

/// A packet identifier; never 0 `[MQTT-2.2.1-3]`.
pub type PacketId = NonZeroU16;

/// The protocol versions that are spoken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProtocolVersion {
    /// MQTT 3.1.1, protocol level 4.
    V311,
    /// MQTT 5.0, protocol level 5.
    V5,
}

/// Who sends a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// The side that opened the connection.
    Client,
    /// The broker.
    Server,
}

/// Quality of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum QoS {
    /// QoS 0.
    #[default]
    AtMostOnce = 0,
    /// QoS 1.
    AtLeastOnce = 1,
    /// QoS 2.
    ExactlyOnce = 2,
}

impl QoS {
    /// The quality of service for its number, or `None` for 3 and above.
    pub fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }

    /// The number: 0, 1 or 2.
    pub fn bits(self) -> u8 {
        self as u8
    }
}

/// The kind of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PacketKind {
    /// A type that is not defined: 0, or 15 in MQTT 3.1.1.
    Unknown = 0,
    /// A client introduces itself.
    Connect = 1,
    /// The server's answer to CONNECT.
    ConnAck = 2,
    /// A message.
    Publish = 3,
    /// QoS 1: the message was received.
    PubAck = 4,
    /// QoS 2: the message was received.
    PubRec = 5,
    /// QoS 2: its identifier may be released.
    PubRel = 6,
    /// QoS 2: its identifier was released.
    PubComp = 7,
    /// A client wants messages.
    Subscribe = 8,
    /// The server's answer to SUBSCRIBE.
    SubAck = 9,
    /// A client no longer wants messages.
    Unsubscribe = 10,
    /// The server's answer to UNSUBSCRIBE.
    UnsubAck = 11,
    /// Are you there?
    PingReq = 12,
    /// Yes.
    PingResp = 13,
    /// The last packet of a connection.
    Disconnect = 14,
    /// Extended authentication (MQTT 5.0).
    Auth = 15,
}

impl PacketKind {
    /// The kind that the first byte of a packet says.
    #[inline]
    pub fn from_first_byte(byte: u8) -> Self {
        const KINDS: [PacketKind; 16] = [
            PacketKind::Unknown,
            PacketKind::Connect,
            PacketKind::ConnAck,
            PacketKind::Publish,
            PacketKind::PubAck,
            PacketKind::PubRec,
            PacketKind::PubRel,
            PacketKind::PubComp,
            PacketKind::Subscribe,
            PacketKind::SubAck,
            PacketKind::Unsubscribe,
            PacketKind::UnsubAck,
            PacketKind::PingReq,
            PacketKind::PingResp,
            PacketKind::Disconnect,
            PacketKind::Auth,
        ];
        KINDS[usize::from(byte >> 4)]
    }

    /// Whether `sender` may send this kind in `version` (MQTT 5.0, table 2-1; in 3.1.1 a server sends no DISCONNECT).
    pub fn may_be_sent_by(self, sender: Peer, version: ProtocolVersion) -> bool {
        match self {
            Self::Unknown => false,
            Self::Connect | Self::Subscribe | Self::Unsubscribe | Self::PingReq => sender == Peer::Client,
            Self::ConnAck | Self::SubAck | Self::UnsubAck | Self::PingResp => sender == Peer::Server,
            Self::Disconnect => sender == Peer::Client || version == ProtocolVersion::V5,
            Self::Auth => version == ProtocolVersion::V5,
            Self::Publish | Self::PubAck | Self::PubRec | Self::PubRel | Self::PubComp => true,
        }
    }

    /// The flags that the fixed header must have; `None` for PUBLISH, whose flags say something.
    #[inline]
    pub(super) fn fixed_flags(self) -> Option<u8> {
        match self {
            Self::Publish => None,
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => Some(0b0010),
            _ => Some(0),
        }
    }

    fn first_byte(self) -> u8 {
        (self as u8) << 4 | self.fixed_flags().unwrap_or(0)
    }
}

impl fmt::Display for PacketKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "a packet",
            Self::Connect => "CONNECT",
            Self::ConnAck => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::PubAck => "PUBACK",
            Self::PubRec => "PUBREC",
            Self::PubRel => "PUBREL",
            Self::PubComp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::SubAck => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::UnsubAck => "UNSUBACK",
            Self::PingReq => "PINGREQ",
            Self::PingResp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
            Self::Auth => "AUTH",
        })
    }
}

/// A packet that owns its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// A client introduces itself.
    Connect(Box<Connect>),
    /// The server's answer to CONNECT.
    ConnAck(Box<ConnAck>),
    /// A message.
    Publish(Box<Publish>),
    /// QoS 1: the message was received.
    PubAck(Ack),
    /// QoS 2: the message was received.
    PubRec(Ack),
    /// QoS 2: its identifier may be released.
    PubRel(Ack),
    /// QoS 2: its identifier was released.
    PubComp(Ack),
    /// A client wants messages.
    Subscribe(Subscribe),
    /// The server's answer to SUBSCRIBE.
    SubAck(SubAck),
    /// A client no longer wants messages.
    Unsubscribe(Unsubscribe),
    /// The server's answer to UNSUBSCRIBE.
    UnsubAck(UnsubAck),
    /// Are you there?
    PingReq,
    /// Yes.
    PingResp,
    /// The last packet of a connection.
    Disconnect(Box<Disconnect>),
    /// Extended authentication (MQTT 5.0).
    Auth(Box<Auth>),
}

impl Packet {
    /// The kind of the packet.
    pub fn kind(&self) -> PacketKind {
        match self {
            Self::Connect(_) => PacketKind::Connect,
            Self::ConnAck(_) => PacketKind::ConnAck,
            Self::Publish(_) => PacketKind::Publish,
            Self::PubAck(_) => PacketKind::PubAck,
            Self::PubRec(_) => PacketKind::PubRec,
            Self::PubRel(_) => PacketKind::PubRel,
            Self::PubComp(_) => PacketKind::PubComp,
            Self::Subscribe(_) => PacketKind::Subscribe,
            Self::SubAck(_) => PacketKind::SubAck,
            Self::Unsubscribe(_) => PacketKind::Unsubscribe,
            Self::UnsubAck(_) => PacketKind::UnsubAck,
            Self::PingReq => PacketKind::PingReq,
            Self::PingResp => PacketKind::PingResp,
            Self::Disconnect(_) => PacketKind::Disconnect,
            Self::Auth(_) => PacketKind::Auth,
        }
    }

    /// The size of the whole packet in bytes, to be held against the receiver's Maximum Packet Size.
    pub fn encoded_len(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        if let Self::Publish(publish) = self {
            return publish.encoded_len(version);
        }
        let remaining = self.remaining_length(version)?;
        Ok(1 + variable_byte_integer_len(remaining) + remaining)
    }

    /// Appends the packet. What MQTT 3.1.1 cannot say (properties, most reason codes) is left out there; on an error
    /// nothing is appended.
    pub fn encode(&self, version: ProtocolVersion, out: &mut impl BufMut) -> Result<(), EncodeError> {
        if let Self::Publish(publish) = self {
            return publish.encode(version, out);
        }
        if let Some(short) = self.short_ack() {
            out.put_slice(&short);
            return Ok(());
        }
        let remaining = self.remaining_length(version)?;
        let sink = &mut Appender(out);
        sink.put(&[self.kind().first_byte()]);
        put_variable_byte_integer(sink, remaining);
        self.put_body(version, sink)
    }

    /// A successful acknowledgement without properties is the same four bytes in both versions.
    fn short_ack(&self) -> Option<[u8; 4]> {
        match self {
            Self::PubAck(ack) | Self::PubRec(ack) | Self::PubRel(ack) | Self::PubComp(ack)
                if ack.is_plain_success() =>
            {
                Some(ack.short_frame(self.kind().first_byte()))
            }
            _ => None,
        }
    }

    fn remaining_length(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        let mut counter = Counter::default();
        self.put_body(version, &mut counter)?;
        if counter.0 > MAX_REMAINING_LENGTH {
            return Err(EncodeError::PacketTooLong(counter.0));
        }
        Ok(counter.0)
    }

    fn put_body(&self, version: ProtocolVersion, sink: &mut dyn Sink) -> Result<(), EncodeError> {
        match self {
            Self::Connect(connect) => connect.put_body(version, sink),
            Self::ConnAck(connack) => connack.put_body(version, sink),
            Self::PubAck(ack) | Self::PubRec(ack) | Self::PubRel(ack) | Self::PubComp(ack) => {
                ack.put_body(version, sink)
            }
            Self::Subscribe(subscribe) => subscribe.put_body(version, sink),
            Self::SubAck(suback) => suback.put_body(version, sink),
            Self::Unsubscribe(unsubscribe) => unsubscribe.put_body(version, sink),
            Self::UnsubAck(unsuback) => unsuback.put_body(version, sink),
            // PUBLISH is written by its own one-pass encoder before this is reached.
            Self::Publish(_) | Self::PingReq | Self::PingResp => Ok(()),
            Self::Disconnect(disconnect) => disconnect.put_body(version, sink),
            Self::Auth(auth) => auth.put_body(version, sink),
        }
    }
}
