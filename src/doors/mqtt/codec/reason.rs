//! Reason codes, and which packet may carry which (MQTT 5.0, 2.4 and the table of each packet).

use super::packet::{PacketKind, Peer};

macro_rules! reason_codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)+) => {
        /// A reason code of MQTT 5.0. The return codes of MQTT 3.1.1 are mapped onto these.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum ReasonCode { $($(#[$doc])* $name = $value,)+ }

        impl ReasonCode {
            /// Every reason code, in rising order.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The code for a byte, or `None` if the specification does not define it.
            pub fn from_byte(byte: u8) -> Option<Self> {
                match byte { $($value => Some(Self::$name),)+ _ => None }
            }
        }
    };
}

reason_codes! {
    /// Success, granted QoS 0, or normal disconnection.
    Success = 0x00,
    /// Granted QoS 1.
    GrantedQos1 = 0x01,
    /// Granted QoS 2.
    GrantedQos2 = 0x02,
    /// Disconnect, and publish the will.
    DisconnectWithWill = 0x04,
    /// Accepted, but nobody subscribes.
    NoMatchingSubscribers = 0x10,
    /// There was nothing to unsubscribe.
    NoSubscriptionExisted = 0x11,
    /// Continue the authentication.
    ContinueAuthentication = 0x18,
    /// Start a re-authentication.
    Reauthenticate = 0x19,
    /// An error that the sender does not name.
    UnspecifiedError = 0x80,
    /// A packet that cannot be parsed.
    MalformedPacket = 0x81,
    /// A packet that is against the rules.
    ProtocolError = 0x82,
    /// Valid, but not accepted by this implementation.
    ImplementationSpecificError = 0x83,
    /// The protocol version is not supported.
    UnsupportedProtocolVersion = 0x84,
    /// The client identifier is not allowed.
    ClientIdentifierNotValid = 0x85,
    /// User name or password are wrong.
    BadUserNameOrPassword = 0x86,
    /// Not authorized.
    NotAuthorized = 0x87,
    /// The server is not available.
    ServerUnavailable = 0x88,
    /// The server is busy.
    ServerBusy = 0x89,
    /// The client is banned.
    Banned = 0x8A,
    /// The server is shutting down.
    ServerShuttingDown = 0x8B,
    /// The authentication method is not supported, or changed.
    BadAuthenticationMethod = 0x8C,
    /// Nothing was received for 1.5 times the keep alive.
    KeepAliveTimeout = 0x8D,
    /// Another connection uses the client identifier.
    SessionTakenOver = 0x8E,
    /// The topic filter is not accepted.
    TopicFilterInvalid = 0x8F,
    /// The topic name is not accepted.
    TopicNameInvalid = 0x90,
    /// The packet identifier is in use.
    PacketIdentifierInUse = 0x91,
    /// The packet identifier is not known.
    PacketIdentifierNotFound = 0x92,
    /// More messages in flight than the receiver allows.
    ReceiveMaximumExceeded = 0x93,
    /// The topic alias is out of range.
    TopicAliasInvalid = 0x94,
    /// The packet is larger than the receiver allows.
    PacketTooLarge = 0x95,
    /// The message rate is too high.
    MessageRateTooHigh = 0x96,
    /// A quota is used up.
    QuotaExceeded = 0x97,
    /// An operator closed the connection.
    AdministrativeAction = 0x98,
    /// The payload does not match its format indicator.
    PayloadFormatInvalid = 0x99,
    /// Retained messages are not supported.
    RetainNotSupported = 0x9A,
    /// The QoS is higher than the server's maximum.
    QosNotSupported = 0x9B,
    /// Use another server for now.
    UseAnotherServer = 0x9C,
    /// The server has moved.
    ServerMoved = 0x9D,
    /// Shared subscriptions are not supported.
    SharedSubscriptionsNotSupported = 0x9E,
    /// Connections arrive too fast.
    ConnectionRateExceeded = 0x9F,
    /// The longest allowed connection time is over.
    MaximumConnectTime = 0xA0,
    /// Subscription identifiers are not supported.
    SubscriptionIdentifiersNotSupported = 0xA1,
    /// Wildcard subscriptions are not supported.
    WildcardSubscriptionsNotSupported = 0xA2,
}

impl ReasonCode {
    /// The byte on the wire.
    pub fn byte(self) -> u8 {
        self as u8
    }

    /// Whether the code says that something failed (0x80 and above).
    pub fn is_error(self) -> bool {
        self.byte() >= 0x80
    }

    /// Whether `packet`, sent by `sender`, may carry this code.
    pub fn allowed_in(self, packet: PacketKind, sender: Peer) -> bool {
        let code = self.byte();
        match packet {
            PacketKind::ConnAck => matches!(code, 0x00 | 0x80..=0x8A | 0x8C | 0x90 | 0x95 | 0x97 | 0x99..=0x9D | 0x9F),
            PacketKind::PubAck | PacketKind::PubRec => {
                matches!(code, 0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
            }
            PacketKind::PubRel | PacketKind::PubComp => matches!(code, 0x00 | 0x92),
            PacketKind::SubAck => {
                matches!(code, 0x00..=0x02 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91 | 0x97 | 0x9E | 0xA1 | 0xA2)
            }
            PacketKind::UnsubAck => matches!(code, 0x00 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91),
            PacketKind::Disconnect => match sender {
                Peer::Client => matches!(code, 0x00 | 0x04 | 0x80..=0x83 | 0x90 | 0x93..=0x99),
                Peer::Server => matches!(
                    code,
                    0x00 | 0x80..=0x83 | 0x87 | 0x89 | 0x8B..=0x90 | 0x93..=0xA2
                ),
            },
            PacketKind::Auth => match sender {
                Peer::Client => matches!(code, 0x18 | 0x19),
                Peer::Server => matches!(code, 0x00 | 0x18),
            },
            _ => false,
        }
    }

    /// The CONNACK return code of MQTT 3.1.1 that says the same, or the nearest one.
    pub(super) fn connect_return_code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::UnsupportedProtocolVersion => 1,
            Self::ClientIdentifierNotValid => 2,
            Self::BadUserNameOrPassword => 4,
            Self::NotAuthorized | Self::Banned | Self::BadAuthenticationMethod => 5,
            _ => 3,
        }
    }

    /// The reason code for a CONNACK return code of MQTT 3.1.1.
    pub(super) fn from_connect_return_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Success,
            1 => Self::UnsupportedProtocolVersion,
            2 => Self::ClientIdentifierNotValid,
            3 => Self::ServerUnavailable,
            4 => Self::BadUserNameOrPassword,
            5 => Self::NotAuthorized,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_and_code_are_inverse() {
        for code in ReasonCode::ALL {
            assert_eq!(ReasonCode::from_byte(code.byte()), Some(*code));
        }
        assert_eq!(ReasonCode::from_byte(0x03), None);
        assert_eq!(ReasonCode::from_byte(0xA3), None);
    }

    #[test]
    fn only_a_client_asks_for_its_will_and_only_a_server_shuts_down() {
        let disconnect = PacketKind::Disconnect;
        assert!(ReasonCode::DisconnectWithWill.allowed_in(disconnect, Peer::Client));
        assert!(!ReasonCode::DisconnectWithWill.allowed_in(disconnect, Peer::Server));
        assert!(ReasonCode::ServerShuttingDown.allowed_in(disconnect, Peer::Server));
        assert!(!ReasonCode::ServerShuttingDown.allowed_in(disconnect, Peer::Client));
    }
}
