//! What can be wrong with a packet, and the reason code that tells the peer.

use super::packet::{PacketKind, ProtocolVersion};
use super::reason::ReasonCode;
use super::topic::TopicFault;

/// A packet that breaks a rule of the specification. The connection it came from must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("failed to decode {packet}: {fault}")]
pub struct DecodeError {
    /// The kind of packet, as far as its first byte told.
    pub packet: PacketKind,
    /// The rule that it breaks.
    pub fault: Fault,
}

/// The rule that a packet breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Packet type 0, or 15 (AUTH) in MQTT 3.1.1.
    #[error("packet type {0} does not exist in this protocol version")]
    UnknownPacketType(u8),
    /// Flags of the fixed header that differ from their fixed value.
    #[error("fixed header flags {0:#06b} are not allowed")]
    HeaderFlags(u8),
    /// A packet that only the other side may send.
    #[error("this side may not send it")]
    WrongSide,
    /// Anything but CONNECT on a fresh connection.
    #[error("the first packet must be CONNECT")]
    ConnectExpected,
    /// A second CONNECT.
    #[error("CONNECT may be sent only once")]
    ConnectRepeated,
    /// A protocol name other than `MQTT`.
    #[error("the protocol name is not MQTT")]
    ProtocolName,
    /// A protocol version other than 3.1.1 (4) and 5.0 (5), MQTT 3.1 among them.
    #[error("protocol level {level} is not supported, only 4 (3.1.1) and 5 (5.0)")]
    UnsupportedProtocolVersion {
        /// The protocol level that the client asked for.
        level: u8,
    },
    /// A variable byte integer of five or more bytes.
    #[error("a variable byte integer is longer than four bytes")]
    VariableByteInteger,
    /// A variable byte integer that does not use the fewest bytes `[MQTT-1.5.5-1]`.
    #[error("a variable byte integer does not use the fewest bytes")]
    OverlongVariableByteInteger,
    /// More bytes than the receiver accepts.
    #[error("{packet_bytes} bytes are more than the limit of {max_packet_bytes}")]
    TooLarge {
        /// Size of the whole packet, with its fixed header.
        packet_bytes: usize,
        /// The receiver's limit.
        max_packet_bytes: usize,
    },
    /// The body ends inside a field.
    #[error("the packet ends inside a field")]
    Truncated,
    /// Bytes after the last field.
    #[error("{0} bytes follow the last field")]
    TrailingBytes(usize),
    /// Not well-formed UTF-8 (surrogates included), or U+0000.
    #[error("a string is not UTF-8 or contains U+0000")]
    Utf8,
    /// A control character in a client identifier or user name, which a receiver may refuse (MQTT 5.0, 1.5.4).
    #[error("a name contains a control character")]
    ControlCharacter,
    /// Packet identifier 0.
    #[error("the packet identifier is 0")]
    PacketIdZero,
    /// QoS 3.
    #[error("QoS 3 does not exist")]
    Qos,
    /// DUP set on QoS 0 `[MQTT-3.3.1-2]`.
    #[error("DUP is set on QoS 0")]
    DupOnQos0,
    /// A topic name that is empty or holds a wildcard.
    #[error("topic name: {0}")]
    TopicName(TopicFault),
    /// A topic filter with a misplaced wildcard or a bad share name.
    #[error("topic filter: {0}")]
    TopicFilter(TopicFault),
    /// An empty topic name without a topic alias.
    #[error("there is neither a topic name nor a topic alias")]
    NoTopic,
    /// Reserved CONNECT flag, or will QoS and will retain without a will, or will QoS 3.
    #[error("connect flags {0:#010b} contradict each other")]
    ConnectFlags(u8),
    /// A password without a user name, which only MQTT 5.0 allows `[MQTT-3.1.2-22]`.
    #[error("there is a password without a user name")]
    PasswordWithoutUserName,
    /// CONNACK acknowledge flags other than session present, or session present on a refusal.
    #[error("acknowledge flags {0:#010b} are not allowed")]
    AcknowledgeFlags(u8),
    /// Reserved bits of the subscription options `[MQTT-3.8.3-5]`.
    #[error("reserved bits are set in the subscription options {0:#010b}")]
    SubscriptionOptions(u8),
    /// QoS 3, retain handling 3, or no-local on a shared subscription.
    #[error("subscription options {0:#010b} are not allowed")]
    SubscriptionOptionValue(u8),
    /// A SUBSCRIBE, UNSUBSCRIBE or SUBACK without entries.
    #[error("it has no entries")]
    Empty,
    /// A reason code that this packet cannot carry.
    #[error("reason code {0:#04x} is not allowed")]
    ReasonCode(u8),
    /// A property that the specification does not know, or not in this packet.
    #[error("property {0:#04x} is not allowed")]
    PropertyNotAllowed(u8),
    /// A property that only the other side may put into this packet.
    #[error("property {0:#04x} may not be sent by this side")]
    PropertyWrongSide(u8),
    /// A property that may appear only once.
    #[error("property {0:#04x} appears twice")]
    PropertyRepeated(u8),
    /// A property value out of its range: a flag other than 0 and 1, or a zero where zero is forbidden.
    #[error("the value of property {0:#04x} is out of range")]
    PropertyValue(u8),
    /// Authentication data without a method, or AUTH without one.
    #[error("the authentication method is missing")]
    AuthenticationMethodMissing,
}

impl DecodeError {
    /// The MQTT 5.0 reason code for the CONNACK or DISCONNECT that answers this fault.
    pub fn reason_code(self) -> ReasonCode {
        match self.fault {
            Fault::TooLarge { .. } => ReasonCode::PacketTooLarge,
            Fault::ProtocolName | Fault::UnsupportedProtocolVersion { .. } => ReasonCode::UnsupportedProtocolVersion,
            Fault::WrongSide
            | Fault::ConnectExpected
            | Fault::ConnectRepeated
            | Fault::NoTopic
            | Fault::Empty
            | Fault::SubscriptionOptionValue(_)
            | Fault::ReasonCode(_)
            | Fault::PropertyWrongSide(_)
            | Fault::PropertyRepeated(_)
            | Fault::PropertyValue(_)
            | Fault::PacketIdZero
            | Fault::AuthenticationMethodMissing => ReasonCode::ProtocolError,
            Fault::UnknownPacketType(_)
            | Fault::HeaderFlags(_)
            | Fault::VariableByteInteger
            | Fault::OverlongVariableByteInteger
            | Fault::Truncated
            | Fault::TrailingBytes(_)
            | Fault::Utf8
            | Fault::ControlCharacter
            | Fault::Qos
            | Fault::DupOnQos0
            | Fault::TopicName(_)
            | Fault::TopicFilter(_)
            | Fault::ConnectFlags(_)
            | Fault::PasswordWithoutUserName
            | Fault::AcknowledgeFlags(_)
            | Fault::SubscriptionOptions(_)
            | Fault::PropertyNotAllowed(_) => ReasonCode::MalformedPacket,
        }
    }

    /// In which version to write the CONNACK that refuses an unsupported protocol version: the layout of 3.1.1 with
    /// return code 1 for older clients, the layout of 5.0 with 0x84 for newer ones. `None` for every other fault.
    pub fn refusal_version(self) -> Option<ProtocolVersion> {
        match self.fault {
            Fault::UnsupportedProtocolVersion { level } if level > 5 && level < 0x80 => Some(ProtocolVersion::V5),
            Fault::UnsupportedProtocolVersion { .. } => Some(ProtocolVersion::V311),
            _ => None,
        }
    }
}

/// A packet that cannot be written. The output buffer is left as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A string or binary field over 65,535 bytes.
    #[error("failed to encode a field of {0} bytes: the limit is 65535")]
    FieldTooLong(usize),
    /// A packet over the format's 268,435,455 bytes of remaining length.
    #[error("failed to encode a packet of {0} bytes: the limit is 268435455")]
    PacketTooLong(usize),
    /// AUTH in MQTT 3.1.1.
    #[error("failed to encode {0}: MQTT 3.1.1 does not have it")]
    NotInVersion(PacketKind),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_reads_as_one_sentence() {
        let error = DecodeError {
            packet: PacketKind::Publish,
            fault: Fault::TooLarge { packet_bytes: 300, max_packet_bytes: 256 },
        };
        assert_eq!(error.to_string(), "failed to decode PUBLISH: 300 bytes are more than the limit of 256");
        assert_eq!(error.reason_code(), ReasonCode::PacketTooLarge);
    }

    #[test]
    fn old_and_new_clients_are_refused_in_a_layout_they_can_read() {
        let refusal = |level| {
            DecodeError { packet: PacketKind::Connect, fault: Fault::UnsupportedProtocolVersion { level } }
                .refusal_version()
        };
        assert_eq!(refusal(3), Some(ProtocolVersion::V311));
        assert_eq!(refusal(6), Some(ProtocolVersion::V5));
        // A bridge sets the highest bit of the level of 3.1.1 and falls back when it is refused.
        assert_eq!(refusal(0x84), Some(ProtocolVersion::V311));
    }
}
