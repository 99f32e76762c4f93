//! The link against a real broker, a bad line and brokers that say no.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use forebay::base::SystemClock;
use forebay::uplink::{
    Answer, Config, LinkState, Message, MqttUplink, Protocol, Receiver, ReceiverConfig, TlsConfig, Uplink,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::chaos::{Chaos, Fault};
use crate::mosquitto::Mosquitto;

const TOPIC: &str = "fleet/v1/acme/press-7/verdict/temperature";

fn config(port: u16) -> Config {
    Config { port, answer_timeout_ms: 400, connect_timeout_ms: 2_000, ..Config::default() }
}

fn uplink(config: Config) -> MqttUplink {
    MqttUplink::new(config, "forebay-press-7", Arc::new(SystemClock::new())).unwrap()
}

fn receiver(config: Config) -> Receiver {
    Receiver::new(config, ReceiverConfig::default(), "collect", Arc::new(SystemClock::new())).unwrap()
}

fn message(payload: impl Into<Bytes>) -> Message {
    Message { topic: TOPIC.to_owned(), payload: payload.into() }
}

/// Sends one message and waits for its answer.
async fn send(uplink: &mut MqttUplink, payload: impl Into<Bytes>) -> Answer {
    uplink.connect().await.unwrap();
    uplink.submit(1, message(payload)).unwrap();
    let (ticket, answer) = uplink.answer().await.unwrap();
    assert_eq!(ticket, 1);
    answer
}

#[tokio::test]
async fn messages_arrive_in_order_and_each_is_answered() {
    for protocol in [Protocol::V5, Protocol::V3] {
        let broker = Mosquitto::start("");
        let config = Config { protocol, ..config(broker.port()) };
        let mut receiver = receiver(config.clone());
        receiver.connect().await.unwrap();
        let mut uplink = uplink(config);
        uplink.connect().await.unwrap();
        for round in 0..50_u64 {
            for ticket in 0..4 {
                uplink.submit(ticket, message(format!("{round}.{ticket}"))).unwrap();
            }
            for _ in 0..4 {
                let (_, answer) = uplink.answer().await.unwrap();
                assert_eq!(answer, Answer::Acknowledged);
            }
            for ticket in 0..4 {
                let delivery = receiver.next().await.unwrap();
                assert_eq!(delivery.topic, TOPIC);
                assert_eq!(delivery.payload, format!("{round}.{ticket}"));
                receiver.acknowledge(delivery.token);
            }
        }
        assert_eq!(*uplink.state().borrow(), LinkState::Up);
        uplink.close().await;
        receiver.close().await;
    }
}

#[tokio::test]
async fn a_message_for_nobody_is_not_acknowledged_and_the_state_says_so() {
    let broker = Mosquitto::start("");
    let mut uplink = uplink(config(broker.port()));
    assert_eq!(send(&mut uplink, "x").await, Answer::NoSubscriber);
    let state = uplink.state();
    assert!(
        matches!(&*state.borrow(), LinkState::Degraded { reason } if reason.contains(TOPIC)),
        "{:?}",
        *state.borrow()
    );
    let mut receiver = receiver(config(broker.port()));
    receiver.connect().await.unwrap();
    assert_eq!(send(&mut uplink, "x").await, Answer::Acknowledged);
    assert_eq!(*state.borrow(), LinkState::Up);
}

#[tokio::test]
async fn a_broker_whose_rules_consume_messages_can_be_believed() {
    let broker = Mosquitto::start("");
    let mut uplink = uplink(Config { accept_no_subscriber: true, ..config(broker.port()) });
    assert_eq!(send(&mut uplink, "x").await, Answer::Acknowledged);
}

#[tokio::test]
async fn a_refusal_is_the_messages_answer_and_the_link_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("acl");
    std::fs::write(&rules, "topic readwrite allowed/#\n").unwrap();
    let broker = Mosquitto::start_in(folder, &format!("acl_file {}", rules.display()));
    let mut uplink = uplink(config(broker.port()));
    assert_eq!(send(&mut uplink, "x").await, Answer::Refused { reason: "not authorized".to_owned() });
    assert!(matches!(&*uplink.state().borrow(), LinkState::Degraded { .. }));
    assert!(matches!(send(&mut uplink, "y").await, Answer::Refused { .. }), "still connected");
    assert_eq!(uplink.metrics().connections.get(), 1);
}

#[tokio::test]
async fn a_message_over_the_brokers_limit_is_answered_without_losing_the_link() {
    let broker = Mosquitto::start("max_packet_size 5000");
    let mut receiver = receiver(config(broker.port()));
    receiver.connect().await.unwrap();
    let mut uplink = uplink(config(broker.port()));
    let Answer::TooLarge { max_payload_bytes } = send(&mut uplink, vec![0; 5000]).await else {
        panic!("a packet over the limit must be answered so")
    };
    assert_eq!(send(&mut uplink, vec![0; max_payload_bytes]).await, Answer::Acknowledged, "just fits");
    assert_eq!(uplink.metrics().connections.get(), 1);
}

#[tokio::test]
async fn a_half_open_line_is_noticed_by_a_waiting_message() {
    let broker = Mosquitto::start("");
    let chaos = Chaos::before(broker.port()).await;
    chaos.plan([Fault::HoldAfter(200)]);
    let mut receiver = receiver(config(broker.port()));
    receiver.connect().await.unwrap();
    let mut uplink = uplink(config(chaos.port()));
    uplink.connect().await.unwrap();
    // More than socket buffers take, so that the write itself stands still.
    for ticket in 0..4 {
        uplink.submit(ticket, message(vec![0; 120_000])).unwrap();
    }
    let lost = uplink.answer().await.unwrap_err();
    assert!(lost.reason.ends_with("acknowledged nothing for 400 ms"), "{lost}");
    assert!(matches!(&*uplink.state().borrow(), LinkState::Down { .. }));
    assert_eq!(send(&mut uplink, "again").await, Answer::Acknowledged);
}

#[tokio::test]
async fn a_broker_that_accepts_and_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = Config { connect_timeout_ms: 200, ..config(listener.local_addr().unwrap().port()) };
    let mut uplink = uplink(config);
    let lost = uplink.connect().await.unwrap_err();
    assert!(lost.reason.contains("gave no answer"), "{lost}");
}

#[tokio::test]
async fn nobody_there_is_said_in_plain_words() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let lost = uplink(config(free)).connect().await.unwrap_err();
    assert!(lost.reason.starts_with(&format!("127.0.0.1:{free} cannot be reached: ")), "{lost}");
}

#[tokio::test]
async fn answers_that_arrived_before_the_cut_still_count() {
    let broker = Mosquitto::start("");
    let chaos = Chaos::before(broker.port()).await;
    let mut receiver = receiver(config(broker.port()));
    receiver.connect().await.unwrap();
    let mut uplink = uplink(config(chaos.port()));
    assert_eq!(send(&mut uplink, "x").await, Answer::Acknowledged);
    chaos.cut();
    let lost = uplink.answer().await.unwrap_err();
    assert!(lost.reason.starts_with("127.0.0.1:"), "{lost}");
    assert_eq!(send(&mut uplink, "y").await, Answer::Acknowledged, "the next connection is a fresh one");
}

#[tokio::test]
async fn an_old_broker_that_refuses_5_gets_3_1_1() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let old_broker = async {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 1024];
            let read = socket.read(&mut bytes).await.unwrap();
            let level = bytes[..read].windows(5).find(|five| five.starts_with(b"MQTT")).unwrap()[4];
            if level == 5 {
                socket.write_all(&[0x20, 2, 0, 1]).await.unwrap();
                continue;
            }
            socket.write_all(&[0x20, 2, 0, 0]).await.unwrap();
            assert!(socket.read(&mut bytes).await.unwrap() > 0);
            socket.write_all(&[0x40, 2, 0, 1]).await.unwrap();
            return socket;
        }
    };
    let mut uplink = uplink(config(port));
    let (answer, _socket) = tokio::join!(send(&mut uplink, "x"), old_broker);
    assert_eq!(answer, Answer::Acknowledged);
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_also_after_the_broker_restarted() {
    for protocol in [Protocol::V5, Protocol::V3] {
        let mut broker = Mosquitto::start("");
        let config = Config { protocol, ..config(broker.port()) };
        let mut receiver = receiver(config.clone());
        receiver.connect().await.unwrap();
        let mut uplink = uplink(config);
        for payload in ["one", "two"] {
            assert_eq!(send(&mut uplink, payload).await, Answer::Acknowledged);
        }
        let one = receiver.next().await.unwrap();
        let two = receiver.next().await.unwrap();
        assert_eq!((&one.payload[..], &two.payload[..]), (&b"one"[..], &b"two"[..]));
        receiver.acknowledge(one.token);
        // The PUBACK is on its way before the connection closes, not necessarily read: "one" may come again.
        receiver.disconnect("killed between effect and acknowledgement");
        broker.restart();
        receiver.connect().await.unwrap();
        receiver.acknowledge(two.token);
        let again = loop {
            let again = receiver.next().await.unwrap();
            receiver.acknowledge(again.token);
            if again.payload != "one" {
                break again;
            }
        };
        assert_eq!(again.payload, "two", "a token of the old connection acknowledges nothing on the new one");
    }
}

#[tokio::test]
async fn an_idle_receiver_may_wait_for_long_before_a_commit_without_more_than_its_window() {
    let broker = Mosquitto::start("");
    let link = config(broker.port());
    let settings = ReceiverConfig { receive_maximum: 2, ..ReceiverConfig::default() };
    let mut receiver = Receiver::new(link.clone(), settings, "collect", Arc::new(SystemClock::new())).unwrap();
    receiver.connect().await.unwrap();
    let mut uplink = uplink(link);
    for payload in ["1", "2", "3", "4", "5"] {
        assert_eq!(send(&mut uplink, payload).await, Answer::Acknowledged);
    }
    for payload in ["1", "2", "3", "4", "5"] {
        let delivery = receiver.next().await.unwrap();
        assert_eq!(delivery.payload, payload);
        receiver.acknowledge(delivery.token);
    }
}

/// An authority, and what it signed.
pub(crate) struct Authority {
    folder: tempfile::TempDir,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "Test authority");
        std::fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { folder, issuer: rcgen::Issuer::new(params, key) }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// Writes `{common_name}.pem` and `{common_name}.key`.
    pub(crate) fn sign(&self, common_name: &str, names: &[&str]) {
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{common_name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{common_name}.key")), key.serialize_pem()).unwrap();
    }

    fn broker(&self, certificate: &str) -> Mosquitto {
        let path = |file: &str| Path::new(self.folder.path()).join(file).display().to_string();
        Mosquitto::start(&format!(
            "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\nuse_identity_as_username true\n",
            path("ca.pem"),
            path(&format!("{certificate}.pem")),
            path(&format!("{certificate}.key")),
        ))
    }

    pub(crate) fn client(&self, certificate: &str) -> TlsConfig {
        TlsConfig {
            ca_file: self.path("ca.pem"),
            certificate_file: Some(self.path(&format!("{certificate}.pem"))),
            key_file: Some(self.path(&format!("{certificate}.key"))),
            server_name: None,
        }
    }
}

#[tokio::test]
async fn tls_with_a_client_certificate_carries_messages() {
    let authority = Authority::new();
    authority.sign("broker", &["cloud.example", "127.0.0.1"]);
    authority.sign("press-7", &["press-7.example"]);
    let broker = authority.broker("broker");
    let secure = Config { tls: Some(authority.client("press-7")), ..config(broker.port()) };
    for protocol in [Protocol::V5, Protocol::V3] {
        let secure = Config { protocol, ..secure.clone() };
        let mut receiver = receiver(secure.clone());
        receiver.connect().await.unwrap();
        let mut uplink = uplink(secure);
        assert_eq!(send(&mut uplink, "x").await, Answer::Acknowledged);
        assert_eq!(receiver.next().await.unwrap().payload, "x");
    }

    let without = TlsConfig { certificate_file: None, key_file: None, ..authority.client("press-7") };
    let mut refused = uplink(Config { tls: Some(without), ..secure.clone() });
    refused.connect().await.unwrap_err();

    let stranger = Authority::new();
    let mistrusting = TlsConfig { ca_file: stranger.path("ca.pem"), ..authority.client("press-7") };
    let lost = uplink(Config { tls: Some(mistrusting), ..secure.clone() }).connect().await.unwrap_err();
    assert!(lost.reason.contains("tls.ca_file is not of the authority"), "{lost}");
}

#[tokio::test]
async fn the_brokers_certificate_may_be_for_a_configured_name_and_no_other() {
    let authority = Authority::new();
    authority.sign("broker", &["cloud.example"]);
    authority.sign("press-7", &["press-7.example"]);
    let broker = authority.broker("broker");
    let named = |name: Option<&str>| {
        let tls = TlsConfig { server_name: name.map(str::to_owned), ..authority.client("press-7") };
        uplink(Config { tls: Some(tls), ..config(broker.port()) })
    };
    named(Some("cloud.example")).connect().await.unwrap();
    for wrong in [None, Some("elsewhere.example")] {
        let lost = named(wrong).connect().await.unwrap_err();
        assert!(lost.reason.contains("see tls.server_name"), "{lost}");
    }
}

#[tokio::test]
async fn renewed_certificates_are_taken_up_and_broken_ones_are_not() {
    let authority = Authority::new();
    authority.sign("broker", &["127.0.0.1"]);
    authority.sign("press-7", &["press-7.example"]);
    let broker = authority.broker("broker");
    let mut uplink = uplink(Config { tls: Some(authority.client("press-7")), ..config(broker.port()) });
    uplink.connect().await.unwrap();
    uplink.close().await;
    std::fs::write(authority.path("press-7.key"), "half a fi").unwrap();
    uplink.connect().await.unwrap();
    uplink.close().await;
    authority.sign("press-7", &["press-7.example"]);
    uplink.connect().await.unwrap();
}

#[test]
fn a_missing_file_is_named_with_what_to_do() {
    let tls = TlsConfig { ca_file: "/nowhere/ca.pem".into(), ..TlsConfig::default() };
    let config = Config { tls: Some(tls), ..Config::default() };
    let error = MqttUplink::new(config, "x", Arc::new(SystemClock::new())).err().unwrap().to_string();
    assert!(error.contains("/nowhere/ca.pem") && error.contains("copy the PEM certificate"), "{error}");
}
