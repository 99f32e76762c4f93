//! Any packet that may be sent, for the round trips.

use std::num::NonZeroU32;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::select;

use super::{
    Ack, AckProperties, Auth, AuthProperties, ConnAck, ConnAckProperties, Connect, ConnectProperties, Delivery,
    Disconnect, DisconnectProperties, Packet, PacketId, PacketKind, Peer, ProtocolVersion, Publish, PublishProperties,
    QoS, ReasonCode, RetainHandling, SubAck, Subscribe, SubscribeProperties, SubscriptionId, SubscriptionRequest,
    UnsubAck, Unsubscribe, UserProperties, Will, WillProperties,
};

fn text() -> impl Strategy<Value = String> {
    "[a-c/+#é温𝄞\u{1}\u{feff}]{0,8}"
}

fn topic() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c/é$]{1,8}", "a{120,140}"]
}

fn filter() -> impl Strategy<Value = String> {
    select(vec!["#", "+", "a/b", "a/+/#", "/", "$share/g/a/+", "$SYS/#", "é/温"]).prop_map(str::to_owned)
}

fn data() -> impl Strategy<Value = Bytes> {
    prop_oneof![vec(any::<u8>(), 0..9), vec(any::<u8>(), 100..200)].prop_map(Bytes::from)
}

/// As [`text`], without control characters.
fn name() -> impl Strategy<Value = String> {
    "[a-c/+#é温𝄞\u{feff}]{0,8}"
}

fn secs() -> impl Strategy<Value = Option<u32>> {
    of(any::<u32>())
}

fn flag() -> impl Strategy<Value = Option<bool>> {
    of(any::<bool>())
}

fn user() -> impl Strategy<Value = UserProperties> {
    vec((text(), text()), 0..3)
}

pub(super) fn id() -> impl Strategy<Value = PacketId> {
    any::<PacketId>()
}

pub(super) fn qos() -> impl Strategy<Value = QoS> {
    select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

pub(super) fn subscription_id() -> impl Strategy<Value = SubscriptionId> {
    (1u32..=268_435_455).prop_map(|id| SubscriptionId::new(id).unwrap())
}

fn reason(kind: PacketKind, sender: Peer) -> impl Strategy<Value = ReasonCode> {
    let all = ReasonCode::ALL.iter().copied();
    select(all.filter(|code| code.allowed_in(kind, sender)).collect::<Vec<_>>())
}

fn ack_properties() -> impl Strategy<Value = AckProperties> {
    (of(text()), user()).prop_map(|(reason_string, user_properties)| AckProperties { reason_string, user_properties })
}

fn ack(kind: PacketKind) -> impl Strategy<Value = Ack> {
    (id(), reason(kind, Peer::Client), ack_properties()).prop_map(|(packet_id, reason, properties)| Ack {
        packet_id,
        reason,
        properties,
    })
}

fn will() -> impl Strategy<Value = Will> {
    let properties =
        (secs(), flag(), secs(), of(text()), of(topic()), of(data()), user()).prop_map(|p| WillProperties {
            will_delay_interval_secs: p.0,
            payload_is_utf8: p.1,
            message_expiry_interval_secs: p.2,
            content_type: p.3,
            response_topic: p.4,
            correlation_data: p.5,
            user_properties: p.6,
        });
    (qos(), any::<bool>(), properties, topic(), data()).prop_map(|(qos, retain, properties, topic, payload)| Will {
        qos,
        retain,
        properties,
        topic,
        payload,
    })
}

fn connect() -> impl Strategy<Value = Connect> {
    let auth = of((text(), of(data())));
    let properties = (secs(), of(id()), of(any::<NonZeroU32>()), of(any::<u16>()), flag(), flag(), auth, user())
        .prop_map(|p| ConnectProperties {
            session_expiry_interval_secs: p.0,
            receive_maximum: p.1,
            maximum_packet_size_bytes: p.2,
            topic_alias_maximum: p.3,
            request_response_information: p.4,
            request_problem_information: p.5,
            authentication_data: p.6.clone().and_then(|auth| auth.1),
            authentication_method: p.6.map(|auth| auth.0),
            user_properties: p.7,
        });
    (any::<bool>(), any::<u16>(), properties, name(), of(will()), of(name()), of(data())).prop_map(|c| Connect {
        version: ProtocolVersion::V5,
        clean_start: c.0,
        keep_alive_secs: c.1,
        properties: c.2,
        client_id: c.3,
        will: c.4,
        user_name: c.5,
        password: c.6,
    })
}

fn connack() -> impl Strategy<Value = ConnAck> {
    let first =
        (secs(), of(id()), of(select(vec![QoS::AtMostOnce, QoS::AtLeastOnce])), flag(), of(any::<NonZeroU32>()));
    let second = (of(text()), of(any::<u16>()), of(text()), flag(), flag(), flag(), of(any::<u16>()));
    let third = (of(text()), of(text()), of((text(), of(data()))), user());
    let properties = (first, second, third).prop_map(|(a, b, c)| ConnAckProperties {
        session_expiry_interval_secs: a.0,
        receive_maximum: a.1,
        maximum_qos: a.2,
        retain_available: a.3,
        maximum_packet_size_bytes: a.4,
        assigned_client_identifier: b.0,
        topic_alias_maximum: b.1,
        reason_string: b.2,
        wildcard_subscription_available: b.3,
        subscription_identifiers_available: b.4,
        shared_subscription_available: b.5,
        server_keep_alive_secs: b.6,
        response_information: c.0,
        server_reference: c.1,
        authentication_data: c.2.clone().and_then(|auth| auth.1),
        authentication_method: c.2.map(|auth| auth.0),
        user_properties: c.3,
    });
    (any::<bool>(), reason(PacketKind::ConnAck, Peer::Server), properties).prop_map(|(present, reason, properties)| {
        ConnAck { session_present: present && reason == ReasonCode::Success, reason, properties }
    })
}

pub(super) fn publish(sender: Peer) -> impl Strategy<Value = Publish> {
    let delivery = prop_oneof![
        Just(Delivery::AtMostOnce),
        id().prop_map(Delivery::AtLeastOnce),
        id().prop_map(Delivery::ExactlyOnce)
    ];
    let ids = if sender == Peer::Server { 0..4 } else { 0..1 };
    let properties =
        (secs(), of(id()), vec(subscription_id(), ids), flag(), of(text()), of(topic()), of(data()), user()).prop_map(
            |p| PublishProperties {
                message_expiry_interval_secs: p.0,
                topic_alias: p.1,
                subscription_ids: p.2,
                payload_is_utf8: p.3,
                content_type: p.4,
                response_topic: p.5,
                correlation_data: p.6,
                user_properties: p.7,
            },
        );
    (delivery, any::<bool>(), any::<bool>(), topic(), properties, data()).prop_map(
        |(delivery, dup, retain, topic, properties, payload)| Publish {
            delivery,
            dup: dup && delivery.qos() != QoS::AtMostOnce,
            retain,
            topic,
            properties,
            payload,
        },
    )
}

fn subscribe() -> impl Strategy<Value = Subscribe> {
    let handling = select(vec![RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend]);
    let request = (filter(), qos(), any::<bool>(), any::<bool>(), handling).prop_map(|r| SubscriptionRequest {
        no_local: r.2 && !r.0.starts_with("$share/"),
        filter: r.0,
        qos: r.1,
        retain_as_published: r.3,
        retain_handling: r.4,
    });
    (id(), of(subscription_id()), user(), vec(request, 1..5)).prop_map(|s| Subscribe {
        packet_id: s.0,
        properties: SubscribeProperties { subscription_id: s.1, user_properties: s.2 },
        subscriptions: s.3,
    })
}

fn from_client() -> impl Strategy<Value = Packet> {
    let unsubscribe = (id(), user(), vec(filter(), 1..5)).prop_map(|(packet_id, user_properties, filters)| {
        Packet::Unsubscribe(Unsubscribe { packet_id, user_properties, filters })
    });
    let disconnect = (reason(PacketKind::Disconnect, Peer::Client), secs(), of(text()), user()).prop_map(|d| {
        let properties = DisconnectProperties {
            session_expiry_interval_secs: d.1,
            reason_string: d.2,
            server_reference: None,
            user_properties: d.3,
        };
        Packet::Disconnect(Disconnect { reason: d.0, properties }.into())
    });
    let auth = (reason(PacketKind::Auth, Peer::Client), text(), of(data()), of(text()), user()).prop_map(|a| {
        let properties = AuthProperties {
            authentication_method: Some(a.1),
            authentication_data: a.2,
            reason_string: a.3,
            user_properties: a.4,
        };
        Packet::Auth(Auth { reason: a.0, properties }.into())
    });
    prop_oneof![
        connect().prop_map(|connect| Packet::Connect(connect.into())),
        publish(Peer::Client).prop_map(|publish| Packet::Publish(publish.into())),
        ack(PacketKind::PubAck).prop_map(Packet::PubAck),
        ack(PacketKind::PubRec).prop_map(Packet::PubRec),
        ack(PacketKind::PubRel).prop_map(Packet::PubRel),
        ack(PacketKind::PubComp).prop_map(Packet::PubComp),
        subscribe().prop_map(Packet::Subscribe),
        unsubscribe,
        Just(Packet::PingReq),
        disconnect,
        auth,
    ]
}

fn from_server() -> impl Strategy<Value = Packet> {
    let suback = (id(), ack_properties(), vec(reason(PacketKind::SubAck, Peer::Server), 1..5))
        .prop_map(|(packet_id, properties, reasons)| Packet::SubAck(SubAck { packet_id, properties, reasons }));
    let unsuback = (id(), ack_properties(), vec(reason(PacketKind::UnsubAck, Peer::Server), 1..5))
        .prop_map(|(packet_id, properties, reasons)| Packet::UnsubAck(UnsubAck { packet_id, properties, reasons }));
    prop_oneof![
        connack().prop_map(|connack| Packet::ConnAck(connack.into())),
        publish(Peer::Server).prop_map(|publish| Packet::Publish(publish.into())),
        suback,
        unsuback,
        Just(Packet::PingResp),
    ]
}

/// A packet with the side that sends it.
pub(super) fn packet() -> impl Strategy<Value = (Peer, Packet)> {
    prop_oneof![from_client().prop_map(|p| (Peer::Client, p)), from_server().prop_map(|p| (Peer::Server, p))]
}
