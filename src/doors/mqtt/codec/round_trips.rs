//! What is written is read again, and no bytes make the decoder panic, loop or read beyond its packet.

use bytes::BytesMut;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};

use super::strategies::{id, packet, publish, qos, subscription_id};
use super::vectors::decoder;
use super::{
    Ack, AckProperties, ConnAckProperties, ConnectProperties, Decoder, Delivery, Disconnect, OutgoingPublish, Packet,
    PacketKind, PacketRef, Peer, ProtocolVersion, PublishProperties, QoS, ReasonCode, SharedDelivery, SharedPublish,
    SubAck, SubscribeProperties, SubscriptionRequest, UnsubAck, Unsubscribe, Will, WillProperties,
};
use ProtocolVersion::{V5, V311};

/// A decoder that expects this packet.
fn expecting(sender: Peer, version: ProtocolVersion, kind: PacketKind) -> Decoder {
    if kind == PacketKind::Connect { Decoder::from_client(1 << 20) } else { decoder(sender, version) }
}

fn encode(packet: &Packet, version: ProtocolVersion) -> BytesMut {
    let mut out = BytesMut::new();
    packet.encode(version, &mut out).unwrap();
    assert_eq!(packet.encoded_len(version), Ok(out.len()));
    out
}

/// The packet without what MQTT 3.1.1 cannot say, or `None` if nothing is left.
fn in_v311(packet: Packet) -> Option<Packet> {
    let plain = |ack: Ack| Ack::success(ack.packet_id);
    Some(match packet {
        Packet::Connect(mut c) => {
            c.version = V311;
            c.properties = ConnectProperties::default();
            c.password = c.password.filter(|_| c.user_name.is_some());
            c.will = c.will.map(|will| Will { properties: WillProperties::default(), ..will });
            Packet::Connect(c)
        }
        Packet::ConnAck(mut c) => {
            c.properties = ConnAckProperties::default();
            c.reason = match c.reason.byte() {
                0 | 0x84 | 0x85 | 0x86 | 0x87 => c.reason,
                0x8A | 0x8C => ReasonCode::NotAuthorized,
                _ => ReasonCode::ServerUnavailable,
            };
            Packet::ConnAck(c)
        }
        Packet::Publish(mut p) => {
            p.properties = PublishProperties::default();
            Packet::Publish(p)
        }
        Packet::PubAck(ack) => Packet::PubAck(plain(ack)),
        Packet::PubRec(ack) => Packet::PubRec(plain(ack)),
        Packet::PubRel(ack) => Packet::PubRel(plain(ack)),
        Packet::PubComp(ack) => Packet::PubComp(plain(ack)),
        Packet::Subscribe(mut s) => {
            s.properties = SubscribeProperties::default();
            for request in &mut s.subscriptions {
                *request = SubscriptionRequest::new(std::mem::take(&mut request.filter), request.qos);
            }
            Packet::Subscribe(s)
        }
        Packet::SubAck(s) => {
            let old = |code: ReasonCode| if code.is_error() { ReasonCode::UnspecifiedError } else { code };
            let reasons = s.reasons.into_iter().map(old).collect();
            Packet::SubAck(SubAck { reasons, properties: AckProperties::default(), ..s })
        }
        Packet::Unsubscribe(u) => Packet::Unsubscribe(Unsubscribe { user_properties: vec![], ..u }),
        Packet::UnsubAck(u) => {
            Packet::UnsubAck(UnsubAck { reasons: vec![], properties: AckProperties::default(), ..u })
        }
        Packet::Disconnect(_) => Packet::Disconnect(Disconnect::new(ReasonCode::Success).into()),
        Packet::Auth(_) => return None,
        ping => ping,
    })
}

/// Reads everything out of `bytes`; each packet is read again after writing it.
fn drain(mut decoder: Decoder, bytes: &[u8]) {
    let mut buffer = BytesMut::from(bytes);
    loop {
        let before = buffer.len();
        let fresh = decoder;
        let Ok(Some(packet)) = decoder.decode(&mut buffer) else { return };
        assert!(buffer.len() + 2 <= before, "a packet has at least two bytes");
        assert_eq!(&buffer[..], &bytes[bytes.len() - buffer.len()..], "nothing beyond the packet is touched");
        let version = decoder.version().unwrap();
        let mut again = encode(&packet, version);
        let mut fresh = fresh;
        assert_eq!(fresh.decode(&mut again), Ok(Some(packet)));
    }
}

/// Both sides, both versions, and a connection that has not said its version.
fn drain_everywhere(bytes: &[u8]) {
    drain(Decoder::from_client(1 << 20), bytes);
    for version in [V311, V5] {
        drain(decoder(Peer::Client, version), bytes);
        drain(decoder(Peer::Server, version), bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_in_version_5_is_read_again((sender, packet) in packet()) {
        let mut bytes = encode(&packet, V5);
        let read = expecting(sender, V5, packet.kind()).decode(&mut bytes);
        prop_assert_eq!(read, Ok(Some(packet)));
        prop_assert!(bytes.is_empty());
    }

    #[test]
    fn what_is_written_in_version_3_1_1_is_read_again_without_what_it_cannot_say((sender, packet) in packet()) {
        // A server sends no DISCONNECT in 3.1.1; the strategies make it for clients only.
        if let Some(expected) = in_v311(packet.clone()) {
            // CONNECT alone carries its version inside.
            let written = if packet.kind() == PacketKind::Connect { &expected } else { &packet };
            let mut bytes = encode(written, V311);
            let read = expecting(sender, V311, packet.kind()).decode(&mut bytes);
            prop_assert_eq!(read, Ok(Some(expected)));
        } else {
            prop_assert!(packet.encode(V311, &mut BytesMut::new()).is_err());
        }
    }

    #[test]
    fn a_packet_that_is_cut_short_is_waited_for((sender, packet) in packet()) {
        let bytes = encode(&packet, V5);
        for end in 0..bytes.len() {
            let mut part = BytesMut::from(&bytes[..end]);
            prop_assert_eq!(expecting(sender, V5, packet.kind()).decode(&mut part), Ok(None));
            prop_assert_eq!(part.len(), end);
        }
    }

    #[test]
    fn a_packet_that_claims_to_end_early_is_handled((sender, packet) in packet(), keep in 0usize..128) {
        // The same body with a shorter remaining length: every field is cut somewhere.
        let bytes = encode(&packet, V5);
        let start = bytes[1..].iter().position(|byte| byte & 0x80 == 0).unwrap() + 2;
        let keep = keep.min(bytes.len() - start);
        let cut = [&[bytes[0], u8::try_from(keep).unwrap()], &bytes[start..start + keep]].concat();
        drain(expecting(sender, V5, packet.kind()), &cut);
    }

    #[test]
    fn random_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..200)) {
        drain_everywhere(&bytes);
    }

    #[test]
    fn damaged_packets_are_read_or_refused(
        (_, packet) in packet(),
        old in any::<bool>(),
        damage in vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let version = if old { V311 } else { V5 };
        let mut bytes = BytesMut::new();
        if packet.encode(version, &mut bytes).is_ok() {
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            drain_everywhere(&bytes);
        }
    }

    #[test]
    fn a_shared_frame_is_the_same_as_one_written_for_its_subscriber(
        publish in publish(Peer::Client),
        to in (any::<bool>(), any::<bool>(), of(any::<u32>()), vec(subscription_id(), 0..3), id(), qos()),
        old in any::<bool>(),
    ) {
        let bytes = encode(&Packet::Publish(publish.into()), V5);
        let mut decoder = decoder(Peer::Client, V5);
        let frame = decoder.frame(&bytes).unwrap().unwrap();
        let PacketRef::Publish(publish) = decoder.read(frame).unwrap() else { panic!("not a PUBLISH") };
        let delivery = match to.5 {
            QoS::AtMostOnce => Delivery::AtMostOnce,
            QoS::AtLeastOnce => Delivery::AtLeastOnce(to.4),
            QoS::ExactlyOnce => Delivery::ExactlyOnce(to.4),
        };
        let shared = SharedPublish::encode(&OutgoingPublish::forward(&publish, publish.topic, delivery), V5).unwrap();
        prop_assert_eq!(shared.topic_bytes(), publish.topic.as_bytes());
        prop_assert_eq!(&shared.payload()[..], publish.payload);
        let version = if old { V311 } else { V5 };
        let outgoing = OutgoingPublish {
            dup: to.0,
            retain: to.1,
            message_expiry_interval_secs: to.2,
            subscription_ids: &to.3,
            ..OutgoingPublish::forward(&publish, publish.topic, delivery)
        };
        let to = SharedDelivery {
            delivery,
            dup: to.0,
            retain: to.1,
            message_expiry_interval_secs: to.2,
            subscription_ids: &to.3,
        };
        let (mut direct, mut appended) = (BytesMut::new(), BytesMut::new());
        outgoing.encode(version, &mut direct).unwrap();
        shared.append(&to, version, &mut appended).unwrap();
        prop_assert_eq!(outgoing.encoded_len(version), direct.len());
        prop_assert_eq!(shared.appended_len(&to, version), appended.len());
        prop_assert_eq!(direct, appended);
    }
}
