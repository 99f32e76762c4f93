//! What an acknowledgement means, over real sockets.

use std::sync::Arc;

use forebay::base::Refusal;
use forebay::broker::{Tap, TapMessage, TapResult};
use forebay::doors::mqtt;
use forebay::doors::mqtt::codec::{Ack, Connect, Packet, QoS, ReasonCode, Will, WillProperties};
use tokio::sync::mpsc;

use crate::mqtt_fixture::{Client, Gateway, V5, V311, id, open_access, persistent, qos1, qos2};

/// Hands every reading to the test.
struct Handed(mpsc::UnboundedSender<TapMessage>);

impl Tap for Handed {
    fn wants(&self, topic: &str) -> bool {
        topic.starts_with("read/")
    }

    fn take(&self, message: TapMessage) -> TapResult {
        self.0.send(message).unwrap();
        TapResult::Taken
    }

    fn room(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }
}

async fn tapped() -> (Gateway, mpsc::UnboundedReceiver<TapMessage>) {
    let gateway = Gateway::start().await;
    let (tell, told) = mpsc::unbounded_channel();
    gateway.broker.attach(Arc::new(Handed(tell)));
    (gateway, told)
}

#[tokio::test]
async fn puback_comes_after_the_stream_has_kept_it_and_in_order() {
    let (gateway, mut readings) = tapped().await;
    for version in [V311, V5] {
        let mut from = gateway.client(version, "from").await;
        for number in 1..=3 {
            from.publish(qos1("read/a", number, "x")).await;
        }
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(readings.recv().await.unwrap());
        }
        from.hears_nothing().await;
        // Kept in the opposite order: the answers still leave in the order of the publishes.
        for message in held.into_iter().rev() {
            message.receipt.kept();
        }
        for number in 1..=3 {
            assert_eq!(from.acked().await, (number, ReasonCode::Success));
        }
    }
}

#[tokio::test]
async fn a_refused_reading_is_never_acknowledged() {
    let (gateway, mut readings) = tapped().await;
    let refusals = [
        (Refusal::Full, ReasonCode::QuotaExceeded),
        (Refusal::Disk, ReasonCode::ImplementationSpecificError),
        (Refusal::Payload, ReasonCode::PayloadFormatInvalid),
    ];
    for (refusal, reason) in refusals {
        let mut from = gateway.client(V5, "from").await;
        from.publish(qos1("read/a", 1, "x")).await;
        readings.recv().await.unwrap().receipt.refuse(refusal);
        assert_eq!(from.acked().await, (1, reason));
        let mut old = gateway.client(V311, "old").await;
        old.publish(qos1("read/a", 1, "x")).await;
        readings.recv().await.unwrap().receipt.refuse(refusal);
        // MQTT 3.1.1 cannot refuse: the connection ends, but for what would come again for ever.
        if refusal == Refusal::Payload {
            assert_eq!(old.acked().await, (1, ReasonCode::Success));
        } else {
            assert_eq!(old.next().await, None);
        }
    }
}

#[tokio::test]
async fn an_acknowledged_message_is_in_the_queue_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let start = || Gateway::on(folder.path(), mqtt::Config::default(), open_access());
    let gateway = start().await;
    let mut to = gateway.connect(persistent(V311, "to")).await.0;
    to.subscribe("t", QoS::ExactlyOnce).await;
    drop(to);
    let mut from = gateway.connect(persistent(V5, "from")).await.0;
    from.publish(qos1("t", 1, "one")).await;
    assert_eq!(from.acked().await, (1, ReasonCode::Success));
    from.publish(qos2("t", 2, "two")).await;
    assert_eq!(from.next().await, Some(Packet::PubRec(Ack::success(id(2)))));
    gateway.stop().await;
    assert_eq!(from.closed().await, Some(ReasonCode::ServerShuttingDown));

    let gateway = start().await;
    let (mut from, ack) = gateway.connect(persistent(V5, "from")).await;
    assert!(ack.session_present);
    // The publisher cannot know that PUBREC was sent, so it repeats; the packet id tells.
    from.publish(qos2("t", 2, "two")).await;
    assert_eq!(from.next().await, Some(Packet::PubRec(Ack::success(id(2)))));
    from.send(Packet::PubRel(Ack::success(id(2)))).await;
    assert_eq!(from.next().await, Some(Packet::PubComp(Ack::success(id(2)))));
    let (mut to, ack) = gateway.connect(persistent(V311, "to")).await;
    assert!(ack.session_present);
    assert_eq!(to.message().await.payload, "one");
    let two = to.message().await;
    assert_eq!(two.payload, "two");
    let packet_id = two.delivery.packet_id().unwrap();
    to.send(Packet::PubRec(Ack::success(packet_id))).await;
    assert_eq!(to.next().await, Some(Packet::PubRel(Ack::success(packet_id))));
    gateway.stop().await;

    let gateway = start().await;
    let (mut to, _) = gateway.connect(persistent(V311, "to")).await;
    assert_eq!(to.message().await.payload, "one");
    // The QoS 2 message was received and must not come again; only its release does.
    assert_eq!(to.next().await, Some(Packet::PubRel(Ack::success(packet_id))));
    to.send(Packet::PubComp(Ack::success(packet_id))).await;
    to.hears_nothing().await;
}

#[tokio::test]
async fn a_second_connection_takes_over_and_the_first_is_told() {
    let gateway = Gateway::start().await;
    let mut first = gateway.connect(persistent(V5, "same")).await.0;
    first.subscribe("t", QoS::AtLeastOnce).await;
    let (mut second, ack) = gateway.connect(persistent(V5, "same")).await;
    assert!(ack.session_present);
    assert_eq!(first.closed().await, Some(ReasonCode::SessionTakenOver));
    let mut from = gateway.client(V311, "from").await;
    from.publish(qos1("t", 1, "x")).await;
    assert_eq!(second.message().await.payload, "x");
}

#[tokio::test]
async fn a_lost_client_leaves_its_will() {
    let gateway = Gateway::start().await;
    let mut watcher = gateway.client(V5, "watcher").await;
    watcher.subscribe("will/#", QoS::AtLeastOnce).await;
    for version in [V311, V5] {
        let mut connect = Connect::new(version, "mortal");
        connect.will = Some(Will {
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: WillProperties {
                content_type: (version == V5).then(|| "text/plain".to_owned()),
                ..Default::default()
            },
            topic: "will/x".into(),
            payload: "gone".into(),
        });
        drop(gateway.connect(connect).await);
        let will = watcher.message().await;
        assert_eq!(will.payload, "gone");
        assert_eq!(will.properties.content_type.is_some(), version == V5);
    }
}

#[tokio::test]
async fn topic_rules_hold_for_publish_subscribe_and_will() {
    let config: forebay::access::Config = toml::from_str(&format!(
        "[[identity]]\nname = \"press-7\"\nkey_sha256 = \"{}\"\npublish = [\"plant/%u/+\"]\nsubscribe = [\"plant/%u/#\"]\n",
        forebay::base::Digest::of(b"secret")
    ))
    .unwrap();
    let access = forebay::access::Access::new(&config).unwrap();
    let gateway = Gateway::with(mqtt::Config::default(), access).await;
    let with_key = |version, key: &'static str| {
        let mut connect = Connect::new(version, "c");
        connect.user_name = Some("press-7".into());
        connect.password = Some(key.into());
        connect
    };
    let mut stranger = Client::tcp(gateway.address(), V5).await;
    assert_eq!(stranger.connect(Connect::new(V5, "c")).await.reason, ReasonCode::NotAuthorized);
    let mut wrong = Client::tcp(gateway.address(), V5).await;
    assert_eq!(wrong.connect(with_key(V5, "guess")).await.reason, ReasonCode::BadUserNameOrPassword);
    for (version, denied) in [(V5, ReasonCode::NotAuthorized), (V311, ReasonCode::Success)] {
        let (mut press, _) = gateway.connect(with_key(version, "secret")).await;
        assert_eq!(press.subscribe("plant/press-7/#", QoS::AtLeastOnce).await, ReasonCode::GrantedQos1);
        assert!(press.subscribe("plant/#", QoS::AtLeastOnce).await.is_error());
        press.publish(qos1("plant/press-8/a", 1, "x")).await;
        assert_eq!(press.acked().await, (1, denied));
        press.publish(qos1("plant/press-7/a", 2, "x")).await;
        assert_eq!(press.acked().await, (2, ReasonCode::Success));
        assert_eq!(press.message().await.topic, "plant/press-7/a");
    }
}
