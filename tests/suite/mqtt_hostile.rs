//! Clients that break the rules, and what the others notice of it: nothing.

use forebay::doors::mqtt;
use forebay::doors::mqtt::codec::{Connect, ConnectProperties, Packet, QoS, ReasonCode};

use crate::mqtt_fixture::{Client, Gateway, V5, V311, open_access, persistent, qos1};

async fn still_serves(gateway: &Gateway) {
    let mut to = gateway.client(V5, "witness").await;
    to.subscribe("w", QoS::AtLeastOnce).await;
    to.publish(qos1("w", 1, "x")).await;
    to.acked().await;
    to.message().await;
}

#[tokio::test]
async fn an_unsuback_from_a_client_ends_its_connection_and_it_may_come_back() {
    let gateway = Gateway::start().await;
    for _ in 0..3 {
        let mut client = gateway.connect(persistent(V5, "same")).await.0;
        client.send_bytes(&[0xb0, 0x04, 0x00, 0x01, 0x00, 0x11]).await;
        assert_eq!(client.closed().await, Some(ReasonCode::ProtocolError));
    }
    let mut client = gateway.connect(persistent(V5, "same")).await.0;
    client.hears_nothing().await;
    still_serves(&gateway).await;
}

#[tokio::test]
async fn packets_that_break_a_rule_end_only_their_own_connection() {
    let gateway = Gateway::start().await;
    let hostile: &[(&[u8], ReasonCode)] = &[
        (&[0x00, 0x00], ReasonCode::MalformedPacket),
        (&[0x10, 0x00], ReasonCode::ProtocolError),
        (&[0x20, 0x02, 0x00, 0x00], ReasonCode::ProtocolError),
        (&[0x36, 0x05, 0x00, 0x01, b't', 0x00, 0x01], ReasonCode::MalformedPacket),
        (&[0x30, 0xff, 0xff, 0xff, 0xff, 0x7f], ReasonCode::MalformedPacket),
        (&[0x30, 0xff, 0xff, 0xff, 0x7f], ReasonCode::PacketTooLarge),
        (&[0x30, 0x04, 0x00, 0x01, b'#', 0x00], ReasonCode::MalformedPacket),
        (&[0x32, 0x06, 0x00, 0x01, b't', 0x00, 0x00, 0x00], ReasonCode::ProtocolError),
        (&[0x82, 0x02, 0x00, 0x01], ReasonCode::MalformedPacket),
        (&[0x80, 0x07, 0x00, 0x01, 0x00, 0x00, 0x01, b't', 0x00], ReasonCode::MalformedPacket),
        (&[0xc0, 0x01, 0x00], ReasonCode::MalformedPacket),
        (&[0xf0, 0x00], ReasonCode::ProtocolError),
    ];
    for (at, (bytes, reason)) in hostile.iter().enumerate() {
        let mut client = gateway.client(V5, &format!("hostile-{at}")).await;
        client.send_bytes(bytes).await;
        assert_eq!(client.closed().await, Some(*reason), "{bytes:02x?}");
        let mut old = gateway.client(V311, &format!("hostile-{at}")).await;
        old.send_bytes(bytes).await;
        // Three of them are complete nonsense in both versions; none may hang.
        if at != 8 {
            assert_eq!(old.closed().await, None, "{bytes:02x?}");
        }
    }
    still_serves(&gateway).await;
}

#[tokio::test]
async fn noise_instead_of_connect_is_closed() {
    let gateway = Gateway::start().await;
    for noise in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[0x10, 0xff, 0xff, 0xff, 0x7f], &[0xc0, 0x00]] {
        let mut client = Client::tcp(gateway.address(), V311).await;
        client.send_bytes(noise).await;
        while client.next().await.is_some() {}
    }
    still_serves(&gateway).await;
}

#[tokio::test]
async fn a_client_that_never_connects_is_let_go() {
    let config = mqtt::Config { connect_timeout_ms: 50, ..mqtt::Config::default() };
    let gateway = Gateway::with(config, open_access()).await;
    let mut client = Client::tcp(gateway.address(), V311).await;
    client.send_bytes(&[0x10]).await;
    assert_eq!(client.next().await, None);
}

#[tokio::test]
async fn more_connections_than_allowed_are_closed_at_once() {
    let config = mqtt::Config { connections: 1, ..mqtt::Config::default() };
    let gateway = Gateway::with(config, open_access()).await;
    let mut first = gateway.client(V5, "first").await;
    let mut second = Client::tcp(gateway.address(), V5).await;
    assert_eq!(second.next().await, None);
    first.hears_nothing().await;
}

#[tokio::test]
async fn extended_authentication_is_refused_by_its_code() {
    let gateway = Gateway::start().await;
    let mut client = Client::tcp(gateway.address(), V5).await;
    let properties =
        ConnectProperties { authentication_method: Some("SCRAM-SHA-256".into()), ..ConnectProperties::default() };
    let ack = client.connect(Connect { properties, ..Connect::new(V5, "a") }).await;
    assert_eq!(ack.reason, ReasonCode::BadAuthenticationMethod);
}

#[tokio::test]
async fn a_silent_client_is_disconnected_and_keep_alive_0_is_not() {
    let gateway = Gateway::start().await;
    let mut endless = gateway.client(V5, "endless").await;
    let mut connect = Connect::new(V5, "silent");
    connect.keep_alive_secs = 1;
    let (mut silent, _) = gateway.connect(connect).await;
    assert_eq!(silent.closed().await, Some(ReasonCode::KeepAliveTimeout));
    endless.hears_nothing().await;
}

#[tokio::test]
async fn a_taken_port_names_its_holder_and_the_setting() {
    let gateway = Gateway::start().await;
    let mut config = mqtt::Config::default();
    config.listener[0].address = gateway.address();
    let clock = std::sync::Arc::new(forebay::base::SystemClock::new());
    let access = std::sync::Arc::new(open_access());
    let error = mqtt::Door::bind(config, gateway.broker.clone(), access, clock).await.unwrap_err().to_string();
    assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
    assert!(error.contains("[[mqtt.listener]]"), "{error}");
}

#[tokio::test]
async fn an_empty_client_id_is_replaced_where_that_is_allowed() {
    let gateway = Gateway::start().await;
    let (_client, ack) = gateway.connect(Connect::new(V5, "")).await;
    assert!(ack.properties.assigned_client_identifier.is_some());
    gateway.client(V311, "").await.hears_nothing().await;
    let mut client = Client::tcp(gateway.address(), V311).await;
    let ack = client.connect(Connect { clean_start: false, ..Connect::new(V311, "") }).await;
    assert_eq!(ack.reason, ReasonCode::ClientIdentifierNotValid);
}

#[tokio::test]
async fn packets_cut_at_every_byte_are_put_together_again() {
    let gateway = Gateway::start().await;
    let mut to = gateway.client(V5, "to").await;
    to.subscribe("t", QoS::AtMostOnce).await;
    let mut from = gateway.client(V5, "from").await;
    let mut bytes = Vec::new();
    for number in 1..=5 {
        Packet::Publish(qos1("t", number, "abc").into()).encode(V5, &mut bytes).unwrap();
    }
    for byte in bytes {
        from.send_bytes(&[byte]).await;
    }
    for number in 1..=5 {
        assert_eq!(from.acked().await.0, number);
        to.message().await;
    }
}

#[tokio::test]
async fn a_wrong_kind_of_acknowledgement_ends_the_connection() {
    use forebay::doors::mqtt::codec::Ack;
    let gateway = Gateway::start().await;
    let mut from = gateway.client(V5, "from").await;
    for (name, wrong) in [("a", Packet::PubRec as fn(Ack) -> Packet), ("b", Packet::PubComp)] {
        let mut to = gateway.client(V5, name).await;
        to.subscribe("t", QoS::AtLeastOnce).await;
        from.publish(qos1("t", 1, "x")).await;
        from.acked().await;
        let packet_id = to.message().await.delivery.packet_id().unwrap();
        to.send(wrong(Ack::success(packet_id))).await;
        assert_eq!(to.closed().await, Some(ReasonCode::ProtocolError));
    }
    still_serves(&gateway).await;
}
