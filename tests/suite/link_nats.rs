//! What only a link over JetStream has: streams that do not keep, who may publish where, certificates and keys, domains.

use forebay::base::Name;
use forebay::uplink::{Answer, Config, Ears, JetStreamUplink, Kind, LinkState, Message, NatsConfig, TlsConfig, Uplink};

use crate::fleet::clock;
use crate::link_mqtt::Authority;
use crate::nats_server::{NatsServer, Setup, fleet_stream, impatient, in_domain};

const SUBJECT: &str = "fleet/v1/acme/press-7/verdict/temperature";

fn uplink(link: Config) -> JetStreamUplink {
    JetStreamUplink::new(link, "forebay-press-7", clock()).unwrap()
}

async fn send_to(uplink: &mut JetStreamUplink, topic: &str, payload: &'static str) -> Answer {
    uplink.connect().await.unwrap();
    uplink.submit(1, Message { topic: topic.to_owned(), payload: payload.into() }).unwrap();
    uplink.answer().await.unwrap().1
}

async fn send(uplink: &mut JetStreamUplink, payload: &'static str) -> Answer {
    send_to(uplink, SUBJECT, payload).await
}

async fn messages(port: u16) -> u64 {
    let client = async_nats::connect(format!("127.0.0.1:{port}")).await.unwrap();
    let mut stream = async_nats::jetstream::new(client).get_stream("FLEET").await.unwrap();
    stream.info().await.unwrap().state.messages
}

#[tokio::test]
async fn a_repeated_message_is_in_the_stream_once_and_acknowledged_twice() {
    let server = NatsServer::start();
    server.stream().await;
    for _ in 0..2 {
        let mut uplink = uplink(server.link());
        assert_eq!(send(&mut uplink, "the same").await, Answer::Acknowledged);
        uplink.close().await;
    }
    assert_eq!(send(&mut uplink(server.link()), "another").await, Answer::Acknowledged);
    assert_eq!(messages(server.port()).await, 2);
}

#[tokio::test]
async fn a_stream_that_does_not_keep_is_refused_before_anything_is_sent() {
    let server = NatsServer::start();
    let lost = uplink(server.link()).connect().await.unwrap_err();
    assert!(lost.reason.contains("has no usable stream FLEET: it does not exist"), "{lost}");
    fleet_stream(
        server.port(),
        None,
        r#"{"name":"FLEET","subjects":["fleet.v1.>"],"retention":"limits","storage":"memory","num_replicas":1}"#,
    )
    .await;
    let mut forgetful = uplink(server.link());
    let lost = forgetful.connect().await.unwrap_err();
    assert!(lost.reason.contains("it keeps in memory"), "{lost}");
    assert!(matches!(&*forgetful.state().borrow(), LinkState::Down { reason, .. } if reason.contains("memory")));

    let without = NatsServer::with(Setup { plain: true, ..Setup::default() });
    let lost = uplink(without.link()).connect().await.unwrap_err();
    assert!(lost.reason.contains("has no usable stream FLEET: "), "{lost}");
}

#[tokio::test]
async fn a_full_stream_refuses_and_the_link_goes_on() {
    let server = NatsServer::start();
    fleet_stream(server.port(), None, r#"{"name":"FLEET","subjects":["fleet.v1.>"],"retention":"workqueue","discard":"new","max_msgs":2,"max_msg_size":900,"storage":"file","num_replicas":1}"#).await;
    let mut uplink = uplink(server.link());
    assert_eq!(send(&mut uplink, "1").await, Answer::Acknowledged);
    assert_eq!(send(&mut uplink, "2").await, Answer::Acknowledged);
    let Answer::Refused { reason } = send(&mut uplink, "3").await else { panic!("it was full") };
    assert!(reason.contains("maximum messages exceeded"), "{reason}");
    assert!(uplink.max_payload_bytes(SUBJECT) < 900, "the stream's own limit counts");
    assert_eq!(uplink.metrics().connections.get(), 1);
}

#[tokio::test]
async fn an_answer_of_another_stream_does_not_count() {
    let server = NatsServer::start();
    server.stream().await;
    let nats = NatsConfig { stream: Name::new("OTHER").unwrap(), check_stream: false, ..NatsConfig::default() };
    let mut mistaken = uplink(Config { nats: Some(nats), ..server.link() });
    assert!(matches!(send(&mut mistaken, "x").await, Answer::Refused { .. }));
    assert_eq!(messages(server.port()).await, 0, "the server compares before it keeps");
}

#[tokio::test]
async fn a_gateway_may_publish_only_for_itself_and_a_refusal_is_the_messages_answer() {
    let server = NatsServer::with(Setup {
        more: r#"authorization { users: [
            { user: cloud, password: sesame }
            { user: "press-7", password: sesame, permissions: {
                publish: "fleet.v1.acme.press-7.>", subscribe: "_INBOX.press-7.>" } }
        ] }"#,
        ..Setup::default()
    });
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "sesame\n").unwrap();
    let client = async_nats::ConnectOptions::with_user_and_password("cloud".to_owned(), "sesame".to_owned());
    let client = client.connect(format!("127.0.0.1:{}", server.port())).await.unwrap();
    let config = async_nats::jetstream::stream::Config {
        name: "FLEET".to_owned(),
        subjects: vec!["fleet.v1.>".to_owned()],
        ..Default::default()
    };
    async_nats::jetstream::new(client).create_stream(config).await.unwrap();

    let nats = NatsConfig { inbox_prefix: "_INBOX.press-7".to_owned(), ..NatsConfig::default() };
    let mut gateway = uplink(Config {
        username: Some("press-7".to_owned()),
        password_file: Some(secret.path().to_owned()),
        nats: Some(nats),
        ..server.link()
    });
    assert_eq!(send(&mut gateway, "x").await, Answer::Acknowledged, "it may not ask for the stream, and goes on");
    let theirs = send_to(&mut gateway, "fleet/v1/acme/press-8/verdict/temperature", "x").await;
    assert_eq!(theirs, Answer::Refused { reason: "permissions violation".to_owned() });
    assert_eq!(send(&mut gateway, "y").await, Answer::Acknowledged, "still connected");
    assert_eq!(gateway.metrics().connections.get(), 1);

    let lost = uplink(server.link()).connect().await.unwrap_err();
    assert!(lost.reason.contains("authorization violation"), "{lost}");
}

#[tokio::test]
async fn a_gateway_that_may_not_hear_the_cloud_sends_all_the_same_and_its_state_says_so() {
    let server = NatsServer::with(Setup {
        more: r#"authorization { users: [
            { user: cloud, password: sesame }
            { user: "press-7", password: sesame, permissions: {
                publish: "fleet.v1.acme.press-7.>", subscribe: "_INBOX.press-7.>" } }
        ] }"#,
        ..Setup::default()
    });
    let client = async_nats::ConnectOptions::with_user_and_password("cloud".to_owned(), "sesame".to_owned());
    let client = client.connect(format!("127.0.0.1:{}", server.port())).await.unwrap();
    let config = async_nats::jetstream::stream::Config {
        name: "FLEET".to_owned(),
        subjects: vec!["fleet.v1.>".to_owned()],
        ..Default::default()
    };
    async_nats::jetstream::new(client).create_stream(config).await.unwrap();
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "sesame\n").unwrap();
    let nats = NatsConfig { inbox_prefix: "_INBOX.press-7".to_owned(), ..NatsConfig::default() };
    let link = Config {
        username: Some("press-7".to_owned()),
        password_file: Some(secret.path().to_owned()),
        nats: Some(nats),
        ..server.link()
    };
    let receipts = "fleet/v1/acme/press-7/receipt".to_owned();
    let ears = Ears { filters: vec![receipts.clone()], response_topic: Some(receipts), answers: None };
    let mut gateway = uplink(link).listening(ears);
    assert_eq!(send(&mut gateway, "x").await, Answer::Acknowledged);
    let state = gateway.state();
    let said = |state: &LinkState| match state {
        LinkState::Degraded { reason } => reason.clone(),
        other => panic!("{other:?}"),
    };
    let reason = said(&state.borrow());
    assert!(reason.contains("CONSUMER.INFO.FLEET-LETTERS.acme=press-7"), "{reason}");
    gateway.complain("letterbox", None);
    let reason = said(&state.borrow());
    assert!(reason.contains("does not let this user listen to cloud.v1.acme.press-7.receipt"), "{reason}");
}

#[tokio::test]
async fn an_nkey_opens_the_door_and_a_wrong_file_is_named() {
    // A pair from the server's own documentation.
    let seed = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
    let server = NatsServer::with(Setup {
        more: "authorization { users: [ { nkey: UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4 } ] }",
        ..Setup::default()
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("seed");
    std::fs::write(&file, format!("{seed}\n")).unwrap();
    let nats = NatsConfig { nkey_file: Some(file.clone()), ..NatsConfig::default() };
    let link = Config { nats: Some(nats), ..server.link() };
    let lost = uplink(link.clone()).connect().await.unwrap_err();
    assert!(lost.reason.contains("it does not exist"), "let in, and there is no stream yet: {lost}");
    std::fs::write(&file, "not a seed").unwrap();
    let error = JetStreamUplink::new(link, "x", clock()).err().unwrap().to_string();
    assert!(error.contains("nats.nkey_file") && error.contains("begins with SU"), "{error}");
    let missing = NatsConfig { credentials_file: Some("/nowhere/user.creds".into()), ..NatsConfig::default() };
    let error = JetStreamUplink::new(Config { nats: Some(missing), ..server.link() }, "x", clock()).err().unwrap();
    assert!(error.to_string().contains("/nowhere/user.creds"), "{error}");
}

#[tokio::test]
async fn tls_with_a_client_certificate_carries_messages_and_strangers_are_turned_away() {
    let authority = Authority::new();
    authority.sign("server", &["cloud.example", "127.0.0.1"]);
    authority.sign("press-7", &["press-7.example"]);
    let path = |file: &str| authority.path(file).display().to_string();
    let tls = format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: true }}",
        path("server.pem"),
        path("server.key"),
        path("ca.pem")
    );
    let server = NatsServer::with(Setup { more: &tls, ..Setup::default() });
    let secure = Config { tls: Some(authority.client("press-7")), ..server.link() };
    let mut gateway = uplink(secure.clone());
    let lost = gateway.connect().await.unwrap_err();
    assert!(lost.reason.contains("it does not exist"), "through TLS, to no stream: {lost}");

    let without = TlsConfig { certificate_file: None, key_file: None, ..authority.client("press-7") };
    uplink(Config { tls: Some(without), ..secure.clone() }).connect().await.unwrap_err();
    let stranger = Authority::new();
    let mistrusting = TlsConfig { ca_file: stranger.path("ca.pem"), ..authority.client("press-7") };
    let lost = uplink(Config { tls: Some(mistrusting), ..secure.clone() }).connect().await.unwrap_err();
    assert!(lost.reason.contains("certificate"), "{lost}");
    let elsewhere = TlsConfig { server_name: Some("elsewhere.example".to_owned()), ..authority.client("press-7") };
    uplink(Config { tls: Some(elsewhere), ..secure.clone() }).connect().await.unwrap_err();
    let named = TlsConfig { server_name: Some("cloud.example".to_owned()), ..authority.client("press-7") };
    let lost = uplink(Config { tls: Some(named), ..secure }).connect().await.unwrap_err();
    assert!(lost.reason.contains("it does not exist"), "{lost}");
}

#[tokio::test]
async fn the_domain_says_whose_stream_has_to_answer() {
    let hub = NatsServer::with(Setup { domain: Some("hub"), ..Setup::default() });
    let leaf = NatsServer::with(Setup { domain: Some("leaf"), leaf_of: Some(hub.leaf_port()), ..Setup::default() });
    let local = r#"{"name":"FLEET","subjects":["fleet.v1.>"],"retention":"workqueue","discard":"new","storage":"file","num_replicas":1}"#;
    fleet_stream(leaf.port(), Some("leaf"), local).await;
    assert_eq!(send(&mut uplink(in_domain("leaf", leaf.link())), "x").await, Answer::Acknowledged);
    let mut nats = in_domain("hub", leaf.link());
    nats.nats.as_mut().unwrap().check_stream = false;
    let answer = send(&mut uplink(nats), "y").await;
    assert_eq!(answer, Answer::Refused { reason: "domain \"leaf\" took it instead of hub".to_owned() });
}

#[tokio::test]
async fn a_leaf_node_without_a_stream_passes_on_to_the_hub_and_keeps_nothing_itself() {
    let mut hub = NatsServer::with(Setup { domain: Some("hub"), ..Setup::default() });
    let leaf = NatsServer::with(Setup { plain: true, leaf_of: Some(hub.leaf_port()), ..Setup::default() });
    let all = r#"{"name":"FLEET","subjects":["fleet.v1.>"],"retention":"workqueue","discard":"new","storage":"file","num_replicas":1}"#;
    fleet_stream(hub.port(), Some("hub"), all).await;
    let mut link = in_domain("hub", leaf.link());
    link.nats.as_mut().unwrap().check_stream = false;
    let mut gateway = uplink(link);
    let kept = async |gateway: &mut JetStreamUplink, payload| {
        for _ in 0..100 {
            // The leaf's link to its hub takes a moment, and a second after each loss.
            if gateway.connect().await.is_ok() {
                gateway
                    .submit(1, Message { topic: SUBJECT.to_owned(), payload: bytes::Bytes::from_static(payload) })
                    .unwrap();
                if let Ok((1, Answer::Acknowledged)) = gateway.answer().await {
                    return;
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("the hub's stream never answered");
    };
    kept(&mut gateway, b"x").await;
    hub.kill();
    // The leaf stays, and nobody answers or there is nobody: never an acknowledgement.
    gateway.connect().await.unwrap();
    gateway.submit(1, Message { topic: SUBJECT.to_owned(), payload: "y".into() }).unwrap();
    assert!(!matches!(gateway.answer().await, Ok((_, Answer::Acknowledged))));
    hub.restart();
    kept(&mut gateway, b"y").await;
}

#[test]
fn settings_of_one_kind_beside_the_other_are_contradictions() {
    let nats = impatient(4222);
    nats.check().unwrap();
    let stream = |stream: &str| Some(NatsConfig { stream: Name::new(stream).unwrap(), ..NatsConfig::default() });
    let both = NatsConfig { credentials_file: Some("a".into()), nkey_file: Some("b".into()), ..NatsConfig::default() };
    let prefix = NatsConfig { inbox_prefix: "a.*".to_owned(), ..NatsConfig::default() };
    let cases = [
        (Config { kind: Kind::Mqtt, ..nats.clone() }, "nats "),
        (Config { port: 1883, ..nats.clone() }, "port "),
        (Config { accept_no_subscriber: true, ..nats.clone() }, "accept_no_subscriber "),
        (Config { nats: stream("a.b"), ..nats.clone() }, "nats.stream "),
        (Config { nats: Some(both), ..nats.clone() }, "nats.credentials_file "),
        (Config { nats: Some(prefix), ..nats }, "nats.inbox_prefix "),
    ];
    for (config, setting) in cases {
        let error = config.check().unwrap_err().to_string();
        assert!(error.starts_with(&format!("failed to set up the link: {setting}")), "{error}");
    }
}
