//! Cutting packets out of a read buffer and reading them.

use bytes::BytesMut;

use super::ack::Ack;
use super::connack::ConnAck;
use super::connect::{Connect, decode_version};
use super::disconnect::{Auth, Disconnect};
use super::fault::{DecodeError, Fault};
use super::packet::{Packet, PacketKind, Peer, ProtocolVersion};
use super::publish::{Publish, PublishRef, decode_publish};
use super::subscribe::{SubAck, Subscribe};
use super::unsubscribe::{UnsubAck, Unsubscribe};
use super::wire::{Reader, variable_byte_integer};

/// What one side of a connection sends, as far as syntax goes. It holds a few bytes and no buffer.
#[derive(Debug, Clone, Copy)]
pub struct Decoder {
    sender: Peer,
    version: Option<ProtocolVersion>,
    max_packet_bytes: usize,
}

/// The bytes of one whole packet, still in the read buffer. Its kind, flags and size have been checked.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    kind: PacketKind,
    flags: u8,
    overlong: bool,
    body: &'a [u8],
    packet_bytes: usize,
}

/// A packet as it is read: PUBLISH borrows the read buffer, the others own their data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PacketRef<'a> {
    /// A message.
    Publish(PublishRef<'a>),
    /// Any other packet.
    Other(Packet),
}

/// Kind and extent of a packet whose fixed header is complete.
#[derive(Debug, Clone, Copy)]
struct Header {
    kind: PacketKind,
    flags: u8,
    overlong: bool,
    header_bytes: usize,
    packet_bytes: usize,
}

impl Frame<'_> {
    /// The kind of the packet.
    pub fn kind(&self) -> PacketKind {
        self.kind
    }

    /// The size of the packet with its fixed header: how far to advance the read buffer once it was handled.
    pub fn packet_bytes(&self) -> usize {
        self.packet_bytes
    }
}

impl Decoder {
    /// For the server side. The first packet must be CONNECT, which also tells the version.
    pub fn from_client(max_packet_bytes: usize) -> Self {
        Self { sender: Peer::Client, version: None, max_packet_bytes }
    }

    /// For the client side, which has chosen the version.
    pub fn from_server(version: ProtocolVersion, max_packet_bytes: usize) -> Self {
        Self { sender: Peer::Server, version: Some(version), max_packet_bytes }
    }

    /// The version, once it is known. It is known even if the rest of the CONNECT turned out malformed, so that the
    /// refusal can be written in it.
    pub fn version(&self) -> Option<ProtocolVersion> {
        self.version
    }

    /// Changes the limit on whole packets in bytes, for example after authentication.
    pub fn limit_packets_to(&mut self, max_packet_bytes: usize) {
        self.max_packet_bytes = max_packet_bytes;
    }

    /// The size in bytes of the first packet in `buffer`, as soon as its fixed header says it: what to reserve for it.
    ///
    /// # Errors
    /// A kind that may not come now, wrong flags, a malformed length, or a size above the limit.
    pub fn packet_bytes(&self, buffer: &[u8]) -> Result<Option<usize>, DecodeError> {
        Ok(self.header(buffer)?.map(|header| header.packet_bytes))
    }

    /// The first packet of `buffer`, or `None` until all of it is there.
    ///
    /// # Errors
    /// As [`Self::packet_bytes`].
    #[inline]
    pub fn frame<'a>(&self, buffer: &'a [u8]) -> Result<Option<Frame<'a>>, DecodeError> {
        let Some(header) = self.header(buffer)? else { return Ok(None) };
        let Some(body) = buffer.get(header.header_bytes..header.packet_bytes) else {
            return Ok(None);
        };
        let Header { kind, flags, overlong, packet_bytes, .. } = header;
        Ok(Some(Frame { kind, flags, overlong, body, packet_bytes }))
    }

    /// Reads a packet without copying the topic and the payload of PUBLISH. After CONNECT the decoder knows the version.
    ///
    /// # Errors
    /// Any [`Fault`]; the connection must then be closed.
    #[inline]
    pub fn read<'a>(&mut self, frame: Frame<'a>) -> Result<PacketRef<'a>, DecodeError> {
        if frame.kind == PacketKind::Publish {
            return self.read_publish(frame).map(PacketRef::Publish);
        }
        self.read_other(frame).map(PacketRef::Other)
    }

    /// Cuts the first packet out of `buffer`, or returns `None` until all of it is there. A payload shares the
    /// buffer's memory, so prefer [`Self::frame`] and [`Self::read`] where messages are kept.
    ///
    /// # Errors
    /// Any [`Fault`]; the connection must then be closed.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Packet>, DecodeError> {
        let Some(frame) = self.frame(buffer)? else { return Ok(None) };
        let packet_bytes = frame.packet_bytes;
        let packet = match self.read(frame)? {
            PacketRef::Other(packet) => {
                bytes::Buf::advance(buffer, packet_bytes);
                packet
            }
            PacketRef::Publish(publish) => {
                let payload_start = packet_bytes - publish.payload.len();
                let mut owned = Publish::from_ref(&publish, bytes::Bytes::new());
                owned.payload = buffer.split_to(packet_bytes).freeze().split_off(payload_start);
                Packet::Publish(Box::new(owned))
            }
        };
        Ok(Some(packet))
    }

    /// Checks everything that the fixed header tells, before the body is waited for.
    #[inline]
    fn header(&self, buffer: &[u8]) -> Result<Option<Header>, DecodeError> {
        let Some((&first, rest)) = buffer.split_first() else { return Ok(None) };
        let kind = PacketKind::from_first_byte(first);
        let flags = first & 0x0F;
        let refuse = |fault| Err(DecodeError { packet: kind, fault });
        if let Some(fault) = self.unexpected(kind, first >> 4) {
            return refuse(fault);
        }
        if kind.fixed_flags().is_some_and(|fixed| fixed != flags) {
            return refuse(Fault::HeaderFlags(flags));
        }
        let length = match variable_byte_integer(rest) {
            Ok(Some(length)) => length,
            Ok(None) => return Ok(None),
            Err(fault) => return refuse(fault),
        };
        // MQTT 3.1.1 does not forbid padded lengths, and small clients write them.
        if length.overlong && self.version == Some(ProtocolVersion::V5) {
            return refuse(Fault::OverlongVariableByteInteger);
        }
        let header_bytes = 1 + length.len;
        let packet_bytes = header_bytes + length.value as usize;
        if packet_bytes > self.max_packet_bytes {
            let max_packet_bytes = self.max_packet_bytes;
            return refuse(Fault::TooLarge { packet_bytes, max_packet_bytes });
        }
        let overlong = length.overlong;
        Ok(Some(Header { kind, flags, overlong, header_bytes, packet_bytes }))
    }

    /// Why a packet of this kind may not come now.
    #[inline]
    fn unexpected(&self, kind: PacketKind, packet_type: u8) -> Option<Fault> {
        let Some(version) = self.version else {
            return (kind != PacketKind::Connect).then_some(Fault::ConnectExpected);
        };
        match kind {
            PacketKind::Publish => None,
            PacketKind::Connect if self.sender == Peer::Client => Some(Fault::ConnectRepeated),
            PacketKind::Unknown => Some(Fault::UnknownPacketType(packet_type)),
            PacketKind::Auth if version == ProtocolVersion::V311 => Some(Fault::UnknownPacketType(packet_type)),
            kind => (!kind.may_be_sent_by(self.sender, version)).then_some(Fault::WrongSide),
        }
    }

    #[inline]
    fn read_publish<'a>(&self, frame: Frame<'a>) -> Result<PublishRef<'a>, DecodeError> {
        let Some(version) = self.version else {
            return Err(DecodeError { packet: frame.kind, fault: Fault::ConnectExpected });
        };
        decode_publish(frame.flags, frame.body, version, self.sender)
    }

    fn read_other(&mut self, frame: Frame<'_>) -> Result<Packet, DecodeError> {
        let mut body = Reader::new(frame.kind, frame.body);
        let sender = self.sender;
        let Some(version) = self.version else {
            if frame.kind != PacketKind::Connect {
                return Err(body.fault(Fault::ConnectExpected));
            }
            let version = decode_version(&mut body)?;
            self.version = Some(version);
            if frame.overlong && version == ProtocolVersion::V5 {
                return Err(body.fault(Fault::OverlongVariableByteInteger));
            }
            return Connect::decode(body, version).map(|connect| Packet::Connect(connect.into()));
        };
        Ok(match frame.kind {
            // A frame of these kinds is made only while no version is known, or never.
            PacketKind::Connect => return Err(body.fault(Fault::ConnectRepeated)),
            PacketKind::Unknown | PacketKind::Publish => {
                return Err(body.fault(Fault::UnknownPacketType(frame.kind as u8)));
            }
            PacketKind::ConnAck => Packet::ConnAck(ConnAck::decode(body, version)?.into()),
            PacketKind::PubAck => Packet::PubAck(Ack::decode(body, version, sender)?),
            PacketKind::PubRec => Packet::PubRec(Ack::decode(body, version, sender)?),
            PacketKind::PubRel => Packet::PubRel(Ack::decode(body, version, sender)?),
            PacketKind::PubComp => Packet::PubComp(Ack::decode(body, version, sender)?),
            PacketKind::Subscribe => Packet::Subscribe(Subscribe::decode(body, version)?),
            PacketKind::SubAck => Packet::SubAck(SubAck::decode(body, version)?),
            PacketKind::Unsubscribe => Packet::Unsubscribe(Unsubscribe::decode(body, version)?),
            PacketKind::UnsubAck => Packet::UnsubAck(UnsubAck::decode(body, version)?),
            PacketKind::PingReq => body.finish().map(|()| Packet::PingReq)?,
            PacketKind::PingResp => body.finish().map(|()| Packet::PingResp)?,
            PacketKind::Disconnect => Packet::Disconnect(Disconnect::decode(body, version, sender)?.into()),
            PacketKind::Auth => Packet::Auth(Auth::decode(body, sender)?.into()),
        })
    }
}
