//! Packets written by hand from the two specifications: these bytes are read as that packet, and written so again.

use bytes::BytesMut;

use super::{
    Ack, AckProperties, Auth, AuthProperties, ConnAck, ConnAckProperties, Connect, ConnectProperties, Decoder,
    Delivery, Disconnect, DisconnectProperties, OutgoingPublish, Packet, PacketId, PacketRef, Peer, ProtocolVersion,
    Publish, PublishProperties, QoS, ReasonCode, RetainHandling, SharedDelivery, SharedPublish, SubAck, Subscribe,
    SubscribeProperties, SubscriptionId, SubscriptionRequest, UnsubAck, Unsubscribe, Will, WillProperties,
};
use ProtocolVersion::{V5, V311};

/// A decoder that is past CONNECT.
pub(super) fn decoder(sender: Peer, version: ProtocolVersion) -> Decoder {
    if sender == Peer::Server {
        return Decoder::from_server(version, 1 << 20);
    }
    let mut decoder = Decoder::from_client(1 << 20);
    let mut hello = BytesMut::new();
    Packet::Connect(Connect::new(version, "a").into()).encode(version, &mut hello).unwrap();
    decoder.decode(&mut hello).unwrap().unwrap();
    decoder
}

fn id(id: u16) -> PacketId {
    PacketId::new(id).unwrap()
}

fn user() -> Vec<(String, String)> {
    vec![("k".into(), "v".into())]
}

#[track_caller]
fn check(mut decoder: Decoder, version: ProtocolVersion, bytes: &[u8], packet: &Packet) {
    let mut buffer = BytesMut::from(bytes);
    assert_eq!(decoder.decode(&mut buffer), Ok(Some(packet.clone())));
    assert!(buffer.is_empty());
    packet.encode(version, &mut buffer).unwrap();
    assert_eq!(&buffer[..], bytes);
    assert_eq!(packet.encoded_len(version), Ok(bytes.len()));
}

#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "packets are written in place")]
fn from_client(version: ProtocolVersion, bytes: &[u8], packet: Packet) {
    check(decoder(Peer::Client, version), version, bytes, &packet);
}

#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "packets are written in place")]
fn from_server(version: ProtocolVersion, bytes: &[u8], packet: Packet) {
    check(decoder(Peer::Server, version), version, bytes, &packet);
}

#[test]
fn connect() {
    let hello = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a";
    let mut packet = Connect::new(V311, "a");
    packet.keep_alive_secs = 60;
    check(Decoder::from_client(100), V311, hello, &Packet::Connect(packet.into()));

    let full = b"\x10\x25\x00\x04MQTT\x04\xee\x00\x00\x00\x02id\x00\x03w/t\x00\x04gone\x00\x04user\x00\x04pass";
    let packet = Connect {
        will: Some(Will {
            qos: QoS::AtLeastOnce,
            retain: true,
            properties: WillProperties::default(),
            topic: "w/t".into(),
            payload: "gone".into(),
        }),
        user_name: Some("user".into()),
        password: Some("pass".into()),
        ..Connect::new(V311, "id")
    };
    check(Decoder::from_client(100), V311, full, &Packet::Connect(packet.into()));
}

#[test]
fn connect_with_every_property_of_version_5() {
    let mut bytes = b"\x10\x00\x00\x04MQTT\x05\x76\x00\x0a".to_vec();
    bytes.extend(b"\x2d\x11\x00\x00\x00\x0a\x21\x00\x14\x27\x00\x00\x01\x00\x22\x00\x05\x19\x01\x17\x00");
    bytes.extend(b"\x15\x00\x01m\x16\x00\x02\x01\x02\x26\x00\x01k\x00\x01v");
    // 45 bytes of properties so far; the length byte above is corrected here, so that the sum stays visible.
    bytes[12] = u8::try_from(bytes.len() - 13).unwrap();
    bytes.extend(b"\x00\x00");
    let will_at = bytes.len();
    bytes.extend(b"\x00\x18\x00\x00\x00\x05\x01\x01\x02\x00\x00\x00\x09\x03\x00\x01c\x08\x00\x01r\x09\x00\x01\xff");
    bytes.extend(b"\x26\x00\x01k\x00\x01v");
    bytes[will_at] = u8::try_from(bytes.len() - will_at - 1).unwrap();
    bytes.extend(b"\x00\x01w\x00\x00\x00\x01\x00");
    bytes[1] = u8::try_from(bytes.len() - 2).unwrap();
    let packet = Connect {
        version: V5,
        clean_start: true,
        keep_alive_secs: 10,
        properties: ConnectProperties {
            session_expiry_interval_secs: Some(10),
            receive_maximum: Some(id(20)),
            maximum_packet_size_bytes: 256u32.try_into().ok(),
            topic_alias_maximum: Some(5),
            request_response_information: Some(true),
            request_problem_information: Some(false),
            authentication_method: Some("m".into()),
            authentication_data: Some(vec![1, 2].into()),
            user_properties: user(),
        },
        client_id: String::new(),
        will: Some(Will {
            qos: QoS::ExactlyOnce,
            retain: true,
            properties: WillProperties {
                will_delay_interval_secs: Some(5),
                payload_is_utf8: Some(true),
                message_expiry_interval_secs: Some(9),
                content_type: Some("c".into()),
                response_topic: Some("r".into()),
                correlation_data: Some(vec![0xff].into()),
                user_properties: user(),
            },
            topic: "w".into(),
            payload: vec![].into(),
        }),
        user_name: None,
        // A password without a user name is allowed in 5.0.
        password: Some(vec![0].into()),
    };
    // The flags byte: password, will retain, will QoS 2, will, clean start.
    bytes[9] = 0x40 | 0x20 | 0x10 | 0x04 | 0x02;
    check(Decoder::from_client(200), V5, &bytes, &Packet::Connect(packet.into()));
}

#[test]
fn connack() {
    let accepted = |present| Packet::ConnAck(ConnAck::accepted(present).into());
    let refused = |reason| Packet::ConnAck(ConnAck::refused(reason).into());
    from_server(V311, b"\x20\x02\x00\x00", accepted(false));
    from_server(V311, b"\x20\x02\x01\x00", accepted(true));
    from_server(V311, b"\x20\x02\x00\x01", refused(ReasonCode::UnsupportedProtocolVersion));
    from_server(V311, b"\x20\x02\x00\x05", refused(ReasonCode::NotAuthorized));
    from_server(V5, b"\x20\x03\x01\x00\x00", accepted(true));
    from_server(V5, b"\x20\x03\x00\x84\x00", refused(ReasonCode::UnsupportedProtocolVersion));
    let mut packet = ConnAck::accepted(false);
    packet.properties = ConnAckProperties {
        maximum_qos: Some(QoS::AtLeastOnce),
        retain_available: Some(true),
        assigned_client_identifier: Some("x".into()),
        server_keep_alive_secs: Some(30),
        shared_subscription_available: Some(false),
        ..ConnAckProperties::default()
    };
    let bytes = b"\x20\x10\x00\x00\x0d\x24\x01\x25\x01\x12\x00\x01x\x2a\x00\x13\x00\x1e";
    from_server(V5, bytes, Packet::ConnAck(packet.into()));
}

#[test]
fn publish() {
    let packet = |delivery| Packet::Publish(Publish::new("a/b", delivery, "hi").into());
    from_client(V311, b"\x30\x07\x00\x03a/bhi", packet(Delivery::AtMostOnce));
    from_client(V311, b"\x32\x09\x00\x03a/b\x00\x0ahi", packet(Delivery::AtLeastOnce(id(10))));
    from_client(V5, b"\x34\x0a\x00\x03a/b\x12\x34\x00hi", packet(Delivery::ExactlyOnce(id(0x1234))));
    let mut again = Publish::new("a/b", Delivery::AtLeastOnce(id(1)), "");
    (again.dup, again.retain) = (true, true);
    from_server(V311, b"\x3b\x07\x00\x03a/b\x00\x01", Packet::Publish(again.into()));

    let mut full = Publish::new("a", Delivery::AtMostOnce, "x");
    full.properties = PublishProperties {
        message_expiry_interval_secs: Some(7),
        subscription_ids: vec![SubscriptionId::new(1).unwrap(), SubscriptionId::new(200).unwrap()],
        payload_is_utf8: Some(true),
        content_type: Some("t".into()),
        response_topic: Some("r".into()),
        correlation_data: Some(vec![9].into()),
        user_properties: user(),
        topic_alias: None,
    };
    let mut bytes = b"\x30\x25\x00\x01a\x20\x02\x00\x00\x00\x07\x0b\x01\x0b\xc8\x01\x01\x01\x03\x00\x01t".to_vec();
    bytes.extend(b"\x08\x00\x01r\x09\x00\x01\x09\x26\x00\x01k\x00\x01vx");
    bytes[1] = u8::try_from(bytes.len() - 2).unwrap();
    bytes[5] = u8::try_from(bytes.len() - 7).unwrap();
    from_server(V5, &bytes, Packet::Publish(full.into()));

    let mut alias = Publish::new("", Delivery::AtMostOnce, "x");
    alias.properties.topic_alias = Some(id(3));
    from_client(V5, b"\x30\x07\x00\x00\x03\x23\x00\x03x", Packet::Publish(alias.into()));
}

#[test]
fn acknowledgements() {
    for (first, packet) in [
        (0x40u8, Packet::PubAck as fn(Ack) -> Packet),
        (0x50, Packet::PubRec),
        (0x62, Packet::PubRel),
        (0x70, Packet::PubComp),
    ] {
        from_client(V311, &[first, 2, 0, 7], packet(Ack::success(id(7))));
        from_server(V5, &[first, 2, 0, 7], packet(Ack::success(id(7))));
    }
    let quota = Ack::new(id(7), ReasonCode::QuotaExceeded);
    from_server(V5, b"\x40\x03\x00\x07\x97", Packet::PubAck(quota));
    let mut unknown = Ack::new(id(7), ReasonCode::PacketIdentifierNotFound);
    unknown.properties = AckProperties { reason_string: Some("?".into()), user_properties: user() };
    let bytes = b"\x70\x0f\x00\x07\x92\x0b\x1f\x00\x01?\x26\x00\x01k\x00\x01v";
    from_server(V5, bytes, Packet::PubComp(unknown));
    // A success may be spelled out, with or without an empty property list.
    for long in [&b"\x40\x03\x00\x07\x00"[..], b"\x40\x04\x00\x07\x00\x00"] {
        let packet = decoder(Peer::Client, V5).decode(&mut BytesMut::from(long));
        assert_eq!(packet, Ok(Some(Packet::PubAck(Ack::success(id(7))))));
    }
}

#[test]
fn subscribe_and_suback() {
    let mut packet = Subscribe {
        packet_id: id(10),
        properties: SubscribeProperties::default(),
        subscriptions: vec![
            SubscriptionRequest::new("a/b", QoS::AtLeastOnce),
            SubscriptionRequest::new("c/+", QoS::ExactlyOnce),
        ],
    };
    let bytes = b"\x82\x0e\x00\x0a\x00\x03a/b\x01\x00\x03c/+\x02";
    from_client(V311, bytes, Packet::Subscribe(packet.clone()));
    packet.properties.subscription_id = SubscriptionId::new(5);
    packet.properties.user_properties = user();
    packet.subscriptions[0].no_local = true;
    packet.subscriptions[0].retain_as_published = true;
    packet.subscriptions[1].retain_handling = RetainHandling::DoNotSend;
    let bytes = b"\x82\x18\x00\x0a\x09\x0b\x05\x26\x00\x01k\x00\x01v\x00\x03a/b\x0d\x00\x03c/+\x22";
    from_client(V5, bytes, Packet::Subscribe(packet));

    let mut packet = SubAck {
        packet_id: id(10),
        properties: AckProperties::default(),
        reasons: vec![ReasonCode::Success, ReasonCode::GrantedQos2, ReasonCode::UnspecifiedError],
    };
    from_server(V311, b"\x90\x05\x00\x0a\x00\x02\x80", Packet::SubAck(packet.clone()));
    packet.reasons[2] = ReasonCode::NotAuthorized;
    from_server(V5, b"\x90\x06\x00\x0a\x00\x00\x02\x87", Packet::SubAck(packet.clone()));
    let mut old = BytesMut::new();
    Packet::SubAck(packet).encode(V311, &mut old).unwrap();
    assert_eq!(&old[..], b"\x90\x05\x00\x0a\x00\x02\x80");
}

#[test]
fn shared_filters_are_subscriptions_in_both_versions() {
    for (version, bytes) in
        [(V5, &b"\x82\x10\x00\x01\x00\x00\x0a$share/g/a\x00"[..]), (V311, b"\x82\x0f\x00\x01\x00\x0a$share/g/a\x00")]
    {
        let packet = Subscribe {
            packet_id: id(1),
            properties: SubscribeProperties::default(),
            subscriptions: vec![SubscriptionRequest::new("$share/g/a", QoS::AtMostOnce)],
        };
        from_client(version, bytes, Packet::Subscribe(packet));
    }
}

#[test]
fn unsubscribe_and_unsuback() {
    let filters = vec!["a".to_owned(), "b/#".to_owned()];
    let packet = |user_properties| {
        Packet::Unsubscribe(Unsubscribe { packet_id: id(2), user_properties, filters: filters.clone() })
    };
    from_client(V311, b"\xa2\x0a\x00\x02\x00\x01a\x00\x03b/#", packet(vec![]));
    let bytes = b"\xa2\x12\x00\x02\x07\x26\x00\x01k\x00\x01v\x00\x01a\x00\x03b/#";
    from_client(V5, bytes, packet(user()));

    let packet =
        |reasons| Packet::UnsubAck(UnsubAck { packet_id: id(2), properties: AckProperties::default(), reasons });
    from_server(V311, b"\xb0\x02\x00\x02", packet(vec![]));
    let reasons = vec![ReasonCode::Success, ReasonCode::NoSubscriptionExisted];
    from_server(V5, b"\xb0\x05\x00\x02\x00\x00\x11", packet(reasons));
}

#[test]
fn pings_and_disconnect() {
    for version in [V311, V5] {
        from_client(version, b"\xc0\x00", Packet::PingReq);
        from_server(version, b"\xd0\x00", Packet::PingResp);
        from_client(version, b"\xe0\x00", Packet::Disconnect(Disconnect::new(ReasonCode::Success).into()));
    }
    let will = Disconnect::new(ReasonCode::DisconnectWithWill);
    from_client(V5, b"\xe0\x01\x04", Packet::Disconnect(will.into()));
    let mut expiry = Disconnect::new(ReasonCode::Success);
    expiry.properties.session_expiry_interval_secs = Some(0);
    from_client(V5, b"\xe0\x07\x00\x05\x11\x00\x00\x00\x00", Packet::Disconnect(expiry.into()));
    let moved = Disconnect {
        reason: ReasonCode::ServerMoved,
        properties: DisconnectProperties { server_reference: Some("b".into()), ..Default::default() },
    };
    from_server(V5, b"\xe0\x06\x9d\x04\x1c\x00\x01b", Packet::Disconnect(moved.into()));
}

#[test]
fn auth() {
    let step = Auth {
        reason: ReasonCode::ContinueAuthentication,
        properties: AuthProperties {
            authentication_method: Some("m".into()),
            authentication_data: Some(vec![1].into()),
            ..Default::default()
        },
    };
    from_client(V5, b"\xf0\x0a\x18\x08\x15\x00\x01m\x16\x00\x01\x01", Packet::Auth(step.into()));
    let done = Auth { reason: ReasonCode::Success, properties: AuthProperties::default() };
    from_server(V5, b"\xf0\x00", Packet::Auth(done.clone().into()));
    assert!(Packet::Auth(done.into()).encode(V311, &mut BytesMut::new()).is_err());
}

#[test]
fn forwarding_keeps_foreign_properties_byte_for_byte_and_drops_what_belongs_to_the_connection() {
    // user property, expiry 60, content type, alias 5, user property again, payload format
    let bytes = b"\x32\x29\x00\x01t\x00\x09\x21\x26\x00\x01b\x00\x01x\x02\x00\x00\x00\x3c\x03\x00\x02tt\x23\x00\x05\x26\x00\x01a\x00\x01y\x01\x00PAYLOAD";
    let mut decoder = decoder(Peer::Client, V5);
    let mut bytes = bytes.to_vec();
    bytes[7] = u8::try_from(bytes.len() - 8 - 7).unwrap();
    bytes[1] = u8::try_from(bytes.len() - 2).unwrap();
    let frame = decoder.frame(&bytes).unwrap().unwrap();
    let PacketRef::Publish(publish) = decoder.read(frame).unwrap() else { panic!("not a PUBLISH") };
    assert_eq!(publish.properties.topic_alias, Some(id(5)));
    assert_eq!(publish.properties.content_type(), Some("tt"));
    let users: Vec<_> = publish.properties.user_properties().collect();
    assert_eq!(users, [("b", "x"), ("a", "y")]);

    let ids = [SubscriptionId::new(1).unwrap(), SubscriptionId::new(300).unwrap()];
    let mut outgoing = OutgoingPublish::forward(&publish, publish.topic, Delivery::AtMostOnce);
    outgoing.message_expiry_interval_secs = Some(59);
    outgoing.subscription_ids = &ids;
    let mut out = BytesMut::new();
    outgoing.encode(V5, &mut out).unwrap();
    let mut expected = b"\x30\x00\x00\x01t\x00\x02\x00\x00\x00\x3b\x0b\x01\x0b\xac\x02\x26\x00\x01b\x00\x01x".to_vec();
    expected.extend(b"\x03\x00\x02tt\x26\x00\x01a\x00\x01y\x01\x00PAYLOAD");
    expected[5] = u8::try_from(expected.len() - 6 - 7).unwrap();
    expected[1] = u8::try_from(expected.len() - 2).unwrap();
    assert_eq!(&out[..], &expected[..]);

    // The same through a shared frame, and without properties for a subscriber of the old version.
    let shared = SharedPublish::encode(&outgoing, V5).unwrap();
    let mut to = SharedDelivery {
        delivery: Delivery::AtMostOnce,
        dup: false,
        retain: false,
        message_expiry_interval_secs: Some(59),
        subscription_ids: &ids,
    };
    out.clear();
    shared.append(&to, V5, &mut out).unwrap();
    assert_eq!(&out[..], &expected[..]);
    out.clear();
    (to.delivery, to.dup, to.retain) = (Delivery::AtLeastOnce(id(9)), true, true);
    shared.append(&to, V311, &mut out).unwrap();
    assert_eq!(&out[..], b"\x3b\x0c\x00\x01t\x00\x09PAYLOAD");
}
