//! A gateway whose database was damaged serves at once, says so, and sends what was in the damaged file.

use crate::gateway::{Gateway, Setup, poll, press_readings};

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
