//! Messages between clients over real sockets.

use std::time::Duration;

use forebay::doors::mqtt::codec::{
    Ack, Connect, Delivery, Packet, Publish, PublishProperties, QoS, ReasonCode, RetainHandling, SubscriptionId,
    SubscriptionRequest, Unsubscribe,
};

use crate::mqtt_fixture::{Client, Gateway, V5, V311, id, persistent, qos1, qos2};

#[tokio::test]
async fn each_version_reaches_each_version_at_every_qos() {
    let gateway = Gateway::start().await;
    for (from_version, to_version) in [(V311, V311), (V311, V5), (V5, V311), (V5, V5)] {
        let mut to = gateway.client(to_version, "to").await;
        assert_eq!(to.subscribe("t/#", QoS::ExactlyOnce).await, ReasonCode::GrantedQos2);
        let mut from = gateway.client(from_version, "from").await;
        from.publish(Publish::new("t/0", Delivery::AtMostOnce, "zero")).await;
        assert_eq!(to.message().await.payload, "zero");
        from.publish(qos1("t/1", 5, "one")).await;
        assert_eq!(from.acked().await, (5, ReasonCode::Success));
        let one = to.message().await;
        assert_eq!((one.payload.as_ref(), one.delivery.qos()), (&b"one"[..], QoS::AtLeastOnce));
        to.send(Packet::PubAck(Ack::success(one.delivery.packet_id().unwrap()))).await;
        from.publish(qos2("t/2", 6, "two")).await;
        assert_eq!(from.next().await, Some(Packet::PubRec(Ack::success(id(6)))));
        from.send(Packet::PubRel(Ack::success(id(6)))).await;
        assert_eq!(from.next().await, Some(Packet::PubComp(Ack::success(id(6)))));
        let two = to.message().await;
        let two_id = two.delivery.packet_id().unwrap();
        assert_eq!((two.payload.as_ref(), two.delivery.qos()), (&b"two"[..], QoS::ExactlyOnce));
        to.send(Packet::PubRec(Ack::success(two_id))).await;
        assert_eq!(to.next().await, Some(Packet::PubRel(Ack::success(two_id))));
        to.send(Packet::PubComp(Ack::success(two_id))).await;
        to.hears_nothing().await;
    }
}

#[tokio::test]
async fn properties_travel_unchanged_and_the_alias_does_not() {
    let gateway = Gateway::start().await;
    let mut to = gateway.client(V5, "to").await;
    to.subscribe_with(SubscriptionRequest::new("t", QoS::AtLeastOnce), Some(9)).await;
    let mut from = gateway.client(V5, "from").await;
    let properties = PublishProperties {
        topic_alias: Some(id(3)),
        message_expiry_interval_secs: Some(100),
        payload_is_utf8: Some(true),
        content_type: Some("text/plain".into()),
        response_topic: Some("answer".into()),
        correlation_data: Some("42".into()),
        user_properties: vec![("b".into(), "1".into()), ("a".into(), "2".into()), ("b".into(), "3".into())],
        ..PublishProperties::default()
    };
    from.publish(Publish { properties: properties.clone(), ..Publish::new("t", Delivery::AtMostOnce, "x") }).await;
    // The second time the alias alone stands for the topic.
    from.publish(Publish { properties: properties.clone(), ..Publish::new("", Delivery::AtMostOnce, "y") }).await;
    for payload in ["x", "y"] {
        let message = to.message().await;
        assert_eq!((message.topic.as_str(), message.payload.as_ref()), ("t", payload.as_bytes()));
        let left_s = message.properties.message_expiry_interval_secs.unwrap();
        assert!((90..=100).contains(&left_s), "{left_s}");
        let expected = PublishProperties {
            topic_alias: None,
            message_expiry_interval_secs: Some(left_s),
            subscription_ids: vec![SubscriptionId::new(9).unwrap()],
            ..properties.clone()
        };
        assert_eq!(message.properties, expected);
    }
    let properties = PublishProperties { topic_alias: Some(id(500)), ..PublishProperties::default() };
    from.publish(Publish { properties, ..Publish::new("t", Delivery::AtMostOnce, "z") }).await;
    assert_eq!(from.closed().await, Some(ReasonCode::TopicAliasInvalid));
}

#[tokio::test]
async fn no_more_than_the_clients_receive_maximum_is_in_flight() {
    let gateway = Gateway::start().await;
    let mut connect = Connect::new(V5, "to");
    connect.properties.receive_maximum = Some(id(2));
    let (mut to, _) = gateway.connect(connect).await;
    to.subscribe("t", QoS::ExactlyOnce).await;
    let mut from = gateway.client(V5, "from").await;
    for number in 1..=3 {
        from.publish(qos1("t", number, "x")).await;
        assert_eq!(from.acked().await.0, number);
    }
    let first = to.message().await;
    to.message().await;
    to.hears_nothing().await;
    to.send(Packet::PubAck(Ack::success(first.delivery.packet_id().unwrap()))).await;
    to.message().await;
}

#[tokio::test]
async fn a_packet_larger_than_the_client_takes_is_left_out() {
    let gateway = Gateway::start().await;
    let mut connect = Connect::new(V5, "to");
    connect.properties.maximum_packet_size_bytes = std::num::NonZero::new(40);
    let (mut to, _) = gateway.connect(connect).await;
    to.subscribe("t", QoS::AtLeastOnce).await;
    let mut from = gateway.client(V5, "from").await;
    from.publish(qos1("t", 1, "012345678901234567890123456789012345678901234567890123456789")).await;
    from.publish(qos1("t", 2, "small")).await;
    assert_eq!(to.message().await.payload, "small");
}

#[tokio::test]
async fn nobody_there_is_said_in_version_5_only() {
    let gateway = Gateway::start().await;
    for (version, reason) in [(V5, ReasonCode::NoMatchingSubscribers), (V311, ReasonCode::Success)] {
        let mut from = gateway.client(version, "from").await;
        from.publish(qos1("nobody", 1, "x")).await;
        assert_eq!(from.acked().await, (1, reason));
    }
}

#[tokio::test]
async fn retained_messages_answer_a_subscription() {
    let gateway = Gateway::start().await;
    let mut from = gateway.client(V5, "from").await;
    from.publish(Publish { retain: true, ..qos1("a/b", 1, "kept") }).await;
    from.acked().await;
    let mut to = gateway.client(V311, "to").await;
    to.subscribe("a/+", QoS::AtLeastOnce).await;
    let message = to.message().await;
    assert!(message.retain);
    assert_eq!(message.payload, "kept");
    from.publish(Publish { retain: true, ..qos1("a/b", 2, "") }).await;
    from.acked().await;
    let mut late = gateway.client(V5, "late").await;
    late.subscribe("a/#", QoS::AtLeastOnce).await;
    late.hears_nothing().await;
    let request = SubscriptionRequest {
        retain_handling: RetainHandling::DoNotSend,
        ..SubscriptionRequest::new("#", QoS::AtMostOnce)
    };
    assert_eq!(late.subscribe_with(request, None).await, ReasonCode::Success);
}

#[tokio::test]
async fn a_shared_subscription_splits_the_work() {
    let gateway = Gateway::start().await;
    let mut workers = Vec::new();
    for name in ["a", "b"] {
        let mut worker = gateway.client(V5, name).await;
        worker.subscribe("$share/pool/job/+", QoS::AtLeastOnce).await;
        workers.push(worker);
    }
    let mut from = gateway.client(V5, "from").await;
    for number in 1..=4 {
        from.publish(qos1("job/x", number, "x")).await;
        from.acked().await;
    }
    for worker in &mut workers {
        worker.message().await;
        worker.message().await;
        worker.hears_nothing().await;
    }
}

#[tokio::test]
async fn an_unsubscribed_client_hears_no_more() {
    let gateway = Gateway::start().await;
    let mut to = gateway.client(V5, "to").await;
    to.subscribe("t", QoS::AtMostOnce).await;
    let filters = vec!["t".to_owned(), "never".to_owned()];
    to.send(Packet::Unsubscribe(Unsubscribe { packet_id: id(4), user_properties: Vec::new(), filters })).await;
    let Some(Packet::UnsubAck(ack)) = to.next().await else { panic!("no UNSUBACK") };
    assert_eq!(ack.reasons, [ReasonCode::Success, ReasonCode::NoSubscriptionExisted]);
    let mut from = gateway.client(V311, "from").await;
    from.publish(qos1("t", 1, "x")).await;
    from.acked().await;
    to.hears_nothing().await;
}

#[tokio::test]
async fn a_flood_reaches_a_reading_client_whole() {
    let gateway = Gateway::start().await;
    let mut to = gateway.client(V311, "to").await;
    to.subscribe("t", QoS::AtMostOnce).await;
    let mut from = gateway.client(V311, "from").await;
    let mut bytes = Vec::new();
    for _ in 0..20_000 {
        Packet::Publish(Publish::new("t", Delivery::AtMostOnce, "x").into()).encode(V311, &mut bytes).unwrap();
    }
    let (_, ()) = tokio::join!(from.send_bytes(&bytes), async {
        for _ in 0..20_000 {
            to.message().await;
        }
    });
    assert_eq!(gateway.broker.metrics().dropped_qos0.get(), 0);
}

#[tokio::test]
async fn a_client_that_never_reads_does_not_stop_the_others() {
    let gateway = Gateway::start().await;
    let mut stuck = gateway.client(V311, "stuck").await;
    let mut awake = gateway.client(V311, "awake").await;
    for client in [&mut stuck, &mut awake] {
        client.subscribe("t", QoS::AtMostOnce).await;
    }
    let mut from = gateway.client(V311, "from").await;
    let payload = vec![b'x'; 60_000];
    let mut seen = 0;
    // Far more than sockets and queues hold: the stuck client's part is dropped, the other's arrives.
    for round in 0..400 {
        from.publish(Publish::new("t", Delivery::AtMostOnce, payload.clone())).await;
        from.publish(qos1("mark", round % 100 + 1, "")).await;
        assert_eq!(from.acked().await.0, round % 100 + 1);
        awake.message().await;
        seen += 1;
    }
    assert_eq!(seen, 400);
    assert!(gateway.broker.metrics().dropped_qos0.get() > 0);
}

#[tokio::test]
async fn large_payloads_pass_whole() {
    let gateway = Gateway::start().await;
    let mut to = gateway.client(V5, "to").await;
    to.subscribe("t", QoS::AtLeastOnce).await;
    let mut from = gateway.client(V5, "from").await;
    for (number, size) in [(1, 15_000), (2, 70_000), (3, 1_000_000)] {
        let payload: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        from.publish(Publish { payload: payload.clone().into(), ..qos1("t", number, "") }).await;
        from.publish(qos1("nobody", number + 10, "tail")).await;
        assert_eq!(from.acked().await.0, number);
        assert_eq!(from.acked().await.0, number + 10);
        assert_eq!(to.message().await.payload, payload);
    }
}

#[tokio::test]
async fn rumqttc_publishes_subscribes_and_resumes() {
    use rumqttc::{AsyncClient, Event, MqttOptions, Packet as Seen, QoS as Q};
    let gateway = Gateway::start().await;
    let mut options = MqttOptions::new("rumqttc", gateway.address().ip().to_string(), gateway.address().port());
    options.set_clean_session(false).set_keep_alive(Duration::from_secs(5));
    let (client, mut events) = AsyncClient::new(options, 10);
    client.subscribe("t/#", Q::ExactlyOnce).await.unwrap();
    let mut acked = 0;
    let mut messages = Vec::new();
    let mut subscribed = false;
    while acked < 3 || messages.len() < 3 {
        match events.poll().await.unwrap() {
            Event::Incoming(Seen::SubAck(_)) => {
                subscribed = true;
                for (topic, qos) in [("t/0", Q::AtMostOnce), ("t/1", Q::AtLeastOnce), ("t/2", Q::ExactlyOnce)] {
                    client.publish(topic, qos, false, "x").await.unwrap();
                }
                acked += 1;
            }
            Event::Incoming(Seen::PubAck(_) | Seen::PubComp(_)) => acked += 1,
            Event::Incoming(Seen::Publish(publish)) => messages.push(publish.topic),
            _ => {}
        }
    }
    assert!(subscribed);
    messages.sort();
    assert_eq!(messages, ["t/0", "t/1", "t/2"]);
}

#[tokio::test]
async fn an_offline_queue_arrives_in_order_on_return() {
    let gateway = Gateway::start().await;
    let (mut to, ack) = gateway.connect(persistent(V5, "to")).await;
    assert!(!ack.session_present);
    to.subscribe("t", QoS::AtLeastOnce).await;
    drop(to);
    let mut from: Client = gateway.client(V5, "from").await;
    for number in 1..=50 {
        from.publish(qos1("t", number, "x")).await;
    }
    for number in 1..=50 {
        assert_eq!(from.acked().await, (number, ReasonCode::Success));
    }
    let (mut to, ack) = gateway.connect(persistent(V5, "to")).await;
    assert!(ack.session_present);
    for number in 1..=50 {
        assert_eq!(to.message().await.delivery.packet_id(), Some(id(number)));
    }
}

#[tokio::test]
async fn a_client_that_takes_aliases_reads_each_topic_once() {
    let gateway = Gateway::start().await;
    let mut connect = Connect::new(V5, "to");
    connect.properties.topic_alias_maximum = Some(1);
    let (mut to, _) = gateway.connect(connect).await;
    to.subscribe("#", QoS::AtMostOnce).await;
    let mut from = gateway.client(V311, "from").await;
    for topic in ["a", "a", "b", "a"] {
        from.publish(Publish::new(topic, Delivery::AtMostOnce, "x")).await;
    }
    for expected in [("a", Some(id(1))), ("", Some(id(1))), ("b", None), ("", Some(id(1)))] {
        let message = to.message().await;
        assert_eq!((message.topic.as_str(), message.properties.topic_alias), expected);
    }
}
