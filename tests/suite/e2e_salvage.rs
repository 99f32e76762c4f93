//! A gateway whose database was damaged serves at once, says so, and sends what was in the damaged file.

use forebay::doors::mqtt::codec::{Connect, Delivery, Publish, QoS, ReasonCode};

use crate::gateway::{Gateway, PRESS as PLAIN_PRESS, Setup, poll, press_readings};
use crate::mqtt_fixture::{Client, V5, id, persistent};

const READINGS: u64 = 300;

/// The stream with a row for the cloud for each reading.
const PRESS: &str = r#"
[[stream]]
name = "press"
topic = "plant/press"
[stream.signal.decoder]
id = "n"
[stream.cloud]
verdicts = true
"#;

fn salvaged_rows(gateway: &Gateway) -> u64 {
    let (_, metrics) = gateway.ask("/metrics");
    let text = metrics.as_str().unwrap().to_owned();
    let value = text.lines().find_map(|line| line.strip_prefix("forebay_outbox_salvaged_rows_total "));
    value.unwrap_or_else(|| panic!("no such counter:\n{text}")).parse().unwrap()
}

#[test]
fn a_gateway_with_a_damaged_file_serves_at_once_and_brings_its_queue_back() {
    let mut gateway = Gateway::with(&Setup { more: PRESS, ..Setup::default() });
    let (status, answer) = gateway.post("/api/v1/streams/press/readings", &press_readings(1..=READINGS));
    assert_eq!(status, 202, "{answer}");
    let before = gateway.get("/api/v1/queue");
    let (epoch, waiting) = (before["epoch"].as_u64().unwrap(), before["rows"].as_u64().unwrap());
    assert!(waiting >= READINGS, "{before}");
    assert_eq!(gateway.stop(), Some(0));
    // The header and the schema: no SQLite opens this.
    let path = gateway.folder.path().join("state/forebay.db");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[..4096].fill(0);
    std::fs::write(&path, bytes).unwrap();

    gateway.restart();
    let (status, answer) = gateway.post("/api/v1/streams/press/readings", &press_readings([READINGS + 1]));
    assert_eq!(status, 202, "it serves while it salvages: {answer}");
    poll("the old queue comes back", || (salvaged_rows(&gateway) == waiting).then_some(()));
    let after = gateway.wait_for("/api/v1/queue", |queue| queue["rows"].as_u64() > Some(waiting));
    assert!(after["epoch"].as_u64() > Some(epoch), "{after}");
    let health = gateway.get("/healthz");
    assert!(health["problems"].to_string().contains("set aside"), "{health}");
    // Once more: what was salvaged is a queue like any other.
    gateway.kill();
    gateway.restart();
    // The kill may have met the last step of the salvage, which then goes on in the background.
    gateway.wait_for("/api/v1/queue", |queue| queue["rows"] == after["rows"]);
}

fn measure(gateway: &Gateway, number: u64, value: f64) {
    let reading = format!(r#"{{"n":{number},"value":{value}}}"#);
    let (status, answer) = gateway.post("/api/v1/streams/press/readings", &reading);
    assert_eq!(status, 202, "{answer}");
}

/// Messages that wait for the client that is away.
const WAITING: u16 = 40;

/// A client with a session goes away, and messages come for it.
async fn wait_for_an_absent_client(gateway: &Gateway) {
    let mut shelf = Client::tcp(gateway.mqtt, V5).await;
    assert_eq!(shelf.connect(persistent(V5, "shelf")).await.reason, ReasonCode::Success);
    assert_eq!(shelf.subscribe("parts/#", QoS::AtLeastOnce).await, ReasonCode::GrantedQos1);
    drop(shelf);
    let mut sender = Client::tcp(gateway.mqtt, V5).await;
    assert_eq!(sender.connect(Connect::new(V5, "sender")).await.reason, ReasonCode::Success);
    for number in 1..=WAITING {
        sender.publish(Publish::new("parts/a", Delivery::AtLeastOnce(id(number)), format!("part {number}"))).await;
        assert_eq!(sender.acked().await.0, number);
    }
    let state = Publish::new("line/state", Delivery::AtLeastOnce(id(99)), "on");
    sender.publish(Publish { retain: true, ..state }).await;
    assert_eq!(sender.acked().await.0, 99);
}

async fn it_comes_back(gateway: &Gateway) {
    poll("messages come back", || {
        let (_, metrics) = gateway.ask("/metrics");
        let text = metrics.as_str().unwrap().to_owned();
        let value = text.lines().find_map(|line| line.strip_prefix("forebay_broker_salvaged_messages_total "));
        (value.unwrap().parse::<u64>().unwrap() > u64::from(WAITING)).then_some(())
    });
    poll("the session is back", || {
        let (_, metrics) = gateway.ask("/metrics");
        metrics.as_str().unwrap().lines().any(|line| line == "forebay_broker_sessions 1").then_some(())
    });
    let mut shelf = Client::tcp(gateway.mqtt, V5).await;
    shelf.connect(persistent(V5, "shelf")).await;
    for number in 1..=WAITING {
        assert_eq!(shelf.message().await.payload, format!("part {number}").as_bytes());
    }
    assert_eq!(shelf.subscribe("line/#", QoS::AtMostOnce).await, ReasonCode::Success);
    assert_eq!(&shelf.message().await.payload[..], b"on");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_for_an_absent_client_comes_out_of_a_damaged_file() {
    let mut gateway = Gateway::with(&Setup { more: PRESS, ..Setup::default() });
    wait_for_an_absent_client(&gateway).await;
    gateway.kill();
    // No SQLite opens this: what is left is found in the pages.
    let path = gateway.folder.path().join("state/forebay.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let end = bytes.len().min(100);
    bytes[..end].fill(0);
    std::fs::write(&path, bytes).unwrap();
    std::fs::write(path.with_file_name("forebay.db.corrupt"), b"").unwrap();
    gateway.restart();
    it_comes_back(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_that_stands_outlives_its_file_and_is_cleared_once() {
    const RULE: &str = "[stream.rule]\nraise = 100.0\nclear = 90.0\nraise_after = 2\nclear_after = 2\n";
    let mut gateway = Gateway::start(&format!("{PLAIN_PRESS}{RULE}"));
    measure(&gateway, 1, 120.0);
    measure(&gateway, 2, 140.0);
    let raised = gateway.get("/api/v1/alerts")["alerts"][0].clone();
    wait_for_an_absent_client(&gateway).await;
    gateway.kill();
    std::fs::write(gateway.folder.path().join("state/forebay.db.corrupt"), b"").unwrap();
    gateway.restart();
    assert_eq!(gateway.get("/api/v1/alerts")["alerts"][0], raised, "it stands from the first moment on");
    measure(&gateway, 3, 80.0);
    assert_eq!(gateway.get("/api/v1/streams/press")["alert"]["id"], raised["id"]);
    measure(&gateway, 4, 80.0);
    let alerts = gateway.get("/api/v1/alerts");
    assert_eq!(alerts["alerts"].as_array().unwrap().len(), 1, "{alerts}");
    assert!(alerts["alerts"][0]["cleared_ms"].is_i64(), "{alerts}");
    it_comes_back(&gateway).await;
    // Nothing of the file is lost, so nothing of it is kept.
    poll("the file that was set aside goes away", || {
        let mut entries = std::fs::read_dir(gateway.folder.path().join("state")).unwrap();
        (!entries.any(|entry| entry.unwrap().file_name().to_string_lossy().contains("quarantine"))).then_some(())
    });
}
