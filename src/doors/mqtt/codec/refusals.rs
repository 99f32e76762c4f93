//! Packets that break a rule, with the rule that they break. Each closes its own connection and nothing else.

use bytes::BytesMut;

use super::vectors::decoder;
use super::{Decoder, Fault, Peer, ProtocolVersion, ReasonCode, TopicFault};
use ProtocolVersion::{V5, V311};

#[track_caller]
fn refused(sender: Peer, version: ProtocolVersion, bytes: &[u8]) -> Fault {
    decoder(sender, version).decode(&mut BytesMut::from(bytes)).unwrap_err().fault
}

#[track_caller]
fn client(version: ProtocolVersion, bytes: &[u8]) -> Fault {
    refused(Peer::Client, version, bytes)
}

/// A CONNECT from its parts; lengths are filled in.
fn connect(name_and_level: &[u8], flags: u8, rest: &[u8]) -> Vec<u8> {
    let body = [name_and_level, &[flags, 0, 60], rest].concat();
    [&[0x10, u8::try_from(body.len()).unwrap()], &body[..]].concat()
}

#[track_caller]
fn refused_connect(bytes: &[u8]) -> Fault {
    Decoder::from_client(1000).decode(&mut BytesMut::from(bytes)).unwrap_err().fault
}

const NAME_V311: &[u8] = b"\x00\x04MQTT\x04";
const NAME_V5: &[u8] = b"\x00\x04MQTT\x05";

#[test]
fn a_fresh_connection_starts_with_connect_and_is_refused_at_its_first_byte() {
    for first in (0u8..=0xFF).filter(|first| first >> 4 != 1) {
        assert_eq!(refused_connect(&[first]), Fault::ConnectExpected);
    }
    assert_eq!(refused_connect(&[0x11]), Fault::HeaderFlags(1));
}

#[test]
fn connect_is_sent_once() {
    let again = connect(NAME_V311, 2, b"\x00\x01a");
    assert_eq!(client(V311, &again), Fault::ConnectRepeated);
    assert_eq!(client(V5, &again), Fault::ConnectRepeated);
}

#[test]
fn other_protocols_are_told_so() {
    let old = refused_connect(&connect(b"\x00\x06MQIsdp\x03", 2, b"\x00\x01a"));
    assert_eq!(old, Fault::UnsupportedProtocolVersion { level: 3 });
    let new = refused_connect(&connect(b"\x00\x04MQTT\x06", 2, b"\x00\x01a"));
    assert_eq!(new, Fault::UnsupportedProtocolVersion { level: 6 });
    // MQIsdp never had level 4, and level 3 never had the name MQTT.
    let mixed = refused_connect(&connect(b"\x00\x06MQIsdp\x04", 2, b"\x00\x01a"));
    assert_eq!(mixed, Fault::UnsupportedProtocolVersion { level: 4 });
    for name in [&b"\x00\x04mqtt\x04"[..], b"\x00\x03MQT\x04", b"\x00\x00\x04", b"\x00\x04AMQP\x04"] {
        assert_eq!(refused_connect(&connect(name, 2, b"\x00\x01a")), Fault::ProtocolName);
    }
}

#[test]
fn connect_flags_must_agree() {
    for flags in [0x03u8, 0x0A, 0x12, 0x22, 0x3A] {
        let fault = refused_connect(&connect(NAME_V311, flags, b"\x00\x01a\x00\x01w\x00\x00"));
        assert_eq!(fault, Fault::ConnectFlags(flags));
    }
    // will QoS 3
    assert_eq!(refused_connect(&connect(NAME_V5, 0x1E, b"\x00\x00\x01a")), Fault::ConnectFlags(0x1E));
    let password = refused_connect(&connect(NAME_V311, 0x42, b"\x00\x01a\x00\x01p"));
    assert_eq!(password, Fault::PasswordWithoutUserName);
}

#[test]
fn connect_fields_are_checked() {
    let cases: [(&[u8], u8, &[u8], Fault); 12] = [
        (NAME_V311, 2, b"\x00\x02a", Fault::Truncated),
        (NAME_V311, 2, b"\x00\x01aX", Fault::TrailingBytes(1)),
        (NAME_V311, 2, b"\x00\x01\xff", Fault::Utf8),
        (NAME_V311, 2, b"\x00\x01\x00", Fault::Utf8),
        (NAME_V311, 2, b"\x00\x01\n", Fault::ControlCharacter),
        (NAME_V5, 0x82, b"\x00\x00\x01a\x00\x02\xc2\x9f", Fault::ControlCharacter),
        (NAME_V311, 6, b"\x00\x01a\x00\x01#\x00\x00", Fault::TopicName(TopicFault::Wildcard)),
        (NAME_V311, 6, b"\x00\x01a\x00\x00\x00\x00", Fault::TopicName(TopicFault::Empty)),
        (NAME_V5, 2, b"\x03\x21\x00\x00\x00\x00", Fault::PropertyValue(0x21)),
        (NAME_V5, 2, b"\x05\x27\x00\x00\x00\x00\x00\x00", Fault::PropertyValue(0x27)),
        (NAME_V5, 2, b"\x04\x16\x00\x01x\x00\x00", Fault::AuthenticationMethodMissing),
        (NAME_V5, 2, b"\x05\x18\x00\x00\x00\x00\x00\x00", Fault::PropertyNotAllowed(0x18)),
    ];
    for (name, flags, rest, fault) in cases {
        assert_eq!(refused_connect(&connect(name, flags, rest)), fault, "{rest:02x?}");
    }
}

#[test]
fn the_version_of_a_malformed_connect_is_known_for_its_refusal() {
    let mut decoder = Decoder::from_client(1000);
    let bad = connect(NAME_V5, 3, b"\x00\x00\x01a");
    let error = decoder.decode(&mut BytesMut::from(&bad[..])).unwrap_err();
    assert_eq!(error.reason_code(), ReasonCode::MalformedPacket);
    assert_eq!(decoder.version(), Some(V5));
}

#[test]
fn too_large_packets_are_refused_from_their_header() {
    let mut decoder = decoder(Peer::Client, V5);
    decoder.limit_packets_to(100);
    let error = decoder.frame(b"\x30\x63").unwrap_err();
    assert_eq!(error.fault, Fault::TooLarge { packet_bytes: 101, max_packet_bytes: 100 });
    assert_eq!(error.reason_code(), ReasonCode::PacketTooLarge);
    assert_eq!(decoder.packet_bytes(b"\x30\x62"), Ok(Some(100)));
    let huge = decoder.frame(b"\x30\xff\xff\xff\x7f").unwrap_err().fault;
    assert_eq!(huge, Fault::TooLarge { packet_bytes: 268_435_460, max_packet_bytes: 100 });
}

#[test]
fn remaining_length_has_at_most_four_bytes() {
    assert_eq!(client(V311, b"\x30\xff\xff\xff\xff"), Fault::VariableByteInteger);
    assert_eq!(client(V5, b"\x30\x80\x80\x80\x80\x01"), Fault::VariableByteInteger);
    // Padding is forbidden in 5.0 only.
    assert_eq!(client(V5, b"\xc0\x80\x00"), Fault::OverlongVariableByteInteger);
    let padded = decoder(Peer::Client, V311).decode(&mut BytesMut::from(&b"\xc0\x80\x00"[..]));
    assert!(padded.unwrap().is_some());
}

#[test]
fn header_flags_are_fixed_for_all_but_publish() {
    for version in [V311, V5] {
        for first in [0x41u8, 0x52, 0x60, 0x63, 0x71, 0x80, 0x83, 0xA0, 0xA6, 0xC1, 0xE8] {
            assert_eq!(client(version, &[first]), Fault::HeaderFlags(first & 0x0F), "{first:#x}");
        }
        for first in [0x21u8, 0x91, 0xB2, 0xD1] {
            assert_eq!(refused(Peer::Server, version, &[first]), Fault::HeaderFlags(first & 0x0F));
        }
    }
}

#[test]
fn nobody_sends_what_only_the_other_side_may() {
    // The UNSUBACK with which a client brought a well-known broker down.
    assert_eq!(client(V5, b"\xb0\x04\x00\x01\x00\x11"), Fault::WrongSide);
    for version in [V311, V5] {
        for first in [0x20u8, 0x90, 0xB0, 0xD0] {
            assert_eq!(client(version, &[first, 0]), Fault::WrongSide);
        }
        for first in [0x10u8, 0x82, 0xA2, 0xC0] {
            assert_eq!(refused(Peer::Server, version, &[first, 0]), Fault::WrongSide);
        }
        assert_eq!(client(version, &[0x00, 0]), Fault::UnknownPacketType(0));
    }
    assert_eq!(client(V311, &[0xF0, 0]), Fault::UnknownPacketType(15));
    assert_eq!(refused(Peer::Server, V311, &[0xE0, 0]), Fault::WrongSide);
}

#[test]
fn publish_is_checked() {
    let cases: [(ProtocolVersion, &[u8], Fault); 20] = [
        (V311, b"\x36\x05\x00\x01a\x00\x01", Fault::Qos),
        (V311, b"\x38\x03\x00\x01a", Fault::DupOnQos0),
        (V311, b"\x32\x05\x00\x01a\x00\x00", Fault::PacketIdZero),
        (V5, b"\x34\x06\x00\x01a\x00\x00\x00", Fault::PacketIdZero),
        (V311, b"\x32\x04\x00\x01a\x00", Fault::Truncated),
        (V311, b"\x30\x01\x00", Fault::Truncated),
        (V311, b"\x30\x00", Fault::Truncated),
        (V311, b"\x30\x03\x00\x02a", Fault::Truncated),
        (V311, b"\x30\x02\x00\x00", Fault::TopicName(TopicFault::Empty)),
        (V311, b"\x30\x03\x00\x01+", Fault::TopicName(TopicFault::Wildcard)),
        (V5, b"\x30\x05\x00\x02a#\x00", Fault::TopicName(TopicFault::Wildcard)),
        (V311, b"\x30\x03\x00\x01\x00", Fault::TopicName(TopicFault::Null)),
        (V311, b"\x30\x05\x00\x03\xed\xa0\x80", Fault::Utf8),
        (V5, b"\x30\x03\x00\x00\x00", Fault::NoTopic),
        (V5, b"\x30\x03\x00\x01a", Fault::Truncated),
        (V5, b"\x30\x04\x00\x01a\x05", Fault::Truncated),
        (V5, b"\x30\x07\x00\x01a\x03\x23\x00\x00", Fault::PropertyValue(0x23)),
        (V5, b"\x30\x06\x00\x01a\x02\x0b\x01", Fault::PropertyWrongSide(0x0b)),
        (V5, b"\x30\x08\x00\x01a\x04\x08\x00\x01#", Fault::TopicName(TopicFault::Wildcard)),
        (V5, b"\x30\x06\x00\x01a\x02\x24\x01", Fault::PropertyNotAllowed(0x24)),
    ];
    for (version, bytes, fault) in cases {
        assert_eq!(client(version, bytes), fault, "{bytes:02x?}");
    }
    // A property value must not reach beyond the property length, even where bytes follow.
    assert_eq!(client(V5, b"\x30\x09\x00\x01a\x02\x02\x00\x00\x00\x01"), Fault::Truncated);
}

#[test]
fn subscriptions_are_checked() {
    let cases: [(ProtocolVersion, &[u8], Fault); 13] = [
        (V311, b"\x82\x02\x00\x01", Fault::Empty),
        (V5, b"\x82\x03\x00\x01\x00", Fault::Empty),
        (V311, b"\x82\x06\x00\x00\x00\x01a\x00", Fault::PacketIdZero),
        (V311, b"\x82\x05\x00\x01\x00\x01a", Fault::Truncated),
        (V311, b"\x82\x06\x00\x01\x00\x01a\x03", Fault::SubscriptionOptionValue(3)),
        (V311, b"\x82\x06\x00\x01\x00\x01a\x04", Fault::SubscriptionOptions(4)),
        (V5, b"\x82\x07\x00\x01\x00\x00\x01a\x03", Fault::SubscriptionOptionValue(3)),
        (V5, b"\x82\x07\x00\x01\x00\x00\x01a\x40", Fault::SubscriptionOptions(0x40)),
        (V5, b"\x82\x07\x00\x01\x00\x00\x01a\x30", Fault::SubscriptionOptionValue(0x30)),
        (V5, b"\x82\x10\x00\x01\x00\x00\x0a$share/g/a\x04", Fault::SubscriptionOptionValue(4)),
        (V5, b"\x82\x09\x00\x01\x02\x0b\x00\x00\x01a\x00", Fault::PropertyValue(0x0b)),
        (V311, b"\x82\x07\x00\x01\x00\x02a#\x00", Fault::TopicFilter(TopicFault::MultiLevel)),
        (V5, b"\x82\x0e\x00\x01\x00\x00\x08$share/g\x00", Fault::TopicFilter(TopicFault::ShareName)),
    ];
    for (version, bytes, fault) in cases {
        assert_eq!(client(version, bytes), fault, "{bytes:02x?}");
    }
    assert_eq!(client(V311, b"\xa2\x02\x00\x01"), Fault::Empty);
    assert_eq!(client(V5, b"\xa2\x03\x00\x01\x00"), Fault::Empty);
    assert_eq!(client(V5, b"\xa2\x06\x00\x01\x00\x00\x01\x00"), Fault::TopicFilter(TopicFault::Null));
}

#[test]
fn the_other_packets_are_checked() {
    let cases: [(Peer, ProtocolVersion, &[u8], Fault); 18] = [
        (Peer::Client, V311, b"\x40\x03\x00\x01\x00", Fault::TrailingBytes(1)),
        (Peer::Client, V311, b"\x40\x01\x00", Fault::Truncated),
        (Peer::Client, V5, b"\x62\x02\x00\x00", Fault::PacketIdZero),
        (Peer::Client, V5, b"\x40\x03\x00\x01\x92", Fault::ReasonCode(0x92)),
        (Peer::Client, V5, b"\x62\x03\x00\x01\x10", Fault::ReasonCode(0x10)),
        (Peer::Client, V5, b"\x40\x06\x00\x01\x00\x02\x01\x00", Fault::PropertyNotAllowed(0x01)),
        (Peer::Client, V5, b"\x40\x05\x00\x01\x00\x00\x00", Fault::TrailingBytes(1)),
        (Peer::Client, V5, b"\xc0\x01\x00", Fault::TrailingBytes(1)),
        (Peer::Client, V311, b"\xe0\x01\x00", Fault::TrailingBytes(1)),
        (Peer::Client, V5, b"\xe0\x01\x8b", Fault::ReasonCode(0x8b)),
        (Peer::Client, V5, b"\xe0\x05\x00\x03\x1c\x00\x00", Fault::PropertyWrongSide(0x1c)),
        (Peer::Server, V5, b"\xe0\x07\x00\x05\x11\x00\x00\x00\x00", Fault::PropertyWrongSide(0x11)),
        (Peer::Client, V5, b"\xf0\x00", Fault::ReasonCode(0)),
        (Peer::Client, V5, b"\xf0\x02\x18\x00", Fault::AuthenticationMethodMissing),
        (Peer::Server, V311, b"\x20\x02\x02\x00", Fault::AcknowledgeFlags(2)),
        (Peer::Server, V311, b"\x20\x02\x01\x05", Fault::AcknowledgeFlags(1)),
        (Peer::Server, V311, b"\x20\x02\x00\x06", Fault::ReasonCode(6)),
        (Peer::Server, V311, b"\x90\x03\x00\x01\x87", Fault::ReasonCode(0x87)),
    ];
    for (sender, version, bytes, fault) in cases {
        assert_eq!(refused(sender, version, bytes), fault, "{bytes:02x?}");
    }
    assert_eq!(refused(Peer::Server, V5, b"\xb0\x03\x00\x01\x00"), Fault::Empty);
    assert_eq!(refused(Peer::Server, V5, b"\x90\x03\x00\x01\x00"), Fault::Empty);
}
