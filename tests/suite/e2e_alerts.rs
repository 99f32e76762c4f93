//! An alarm from its raise to its clear, everywhere it must be seen: the local broker, the event stream, the queue for
//! the cloud, the list of alerts; and over a restart.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use forebay::doors::mqtt::codec::{Connect, Packet, QoS, ReasonCode};
use serde_json::Value;

use crate::gateway::{Gateway, PRESS};
use crate::mqtt_fixture::{Client, V5};

/// Raised by the second value above 100 in a row, cleared by the second at 90 or below.
const RULE: &str =
    "[stream.rule]\nraise = 100.0\nclear = 90.0\nraise_after = 2\nclear_after = 2\nseverity = \"critical\"\n";

struct Events(BufReader<TcpStream>);

impl Events {
    fn open(gateway: &Gateway) -> Self {
        let mut stream = TcpStream::connect(gateway.http).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let head = format!("GET /api/v1/events?stream=press HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.http);
        stream.write_all(head.as_bytes()).unwrap();
        let mut events = Self(BufReader::new(stream));
        assert!(events.line().starts_with("HTTP/1.1 200"));
        while !events.line().starts_with(": forebay") {}
        events
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.0.read_line(&mut line).unwrap() > 0, "the event stream ended");
        line.trim_end().to_owned()
    }

    /// The data of the next event of this name.
    fn next(&mut self, name: &str) -> Value {
        while self.line() != format!("event: {name}") {}
        let line = self.line();
        serde_json::from_str(line.strip_prefix("data: ").unwrap()).unwrap()
    }
}

async fn subscribed(gateway: &Gateway, name: &str, filter: &str) -> Client {
    let mut client = Client::tcp(gateway.mqtt, V5).await;
    assert_eq!(client.connect(Connect::new(V5, name)).await.reason, ReasonCode::Success);
    assert_eq!(client.subscribe(filter, QoS::AtMostOnce).await, ReasonCode::Success);
    client
}

/// The next message: topic, retain flag and JSON payload.
async fn heard(client: &mut Client) -> (String, bool, Value) {
    match client.next().await {
        Some(Packet::Publish(message)) => {
            (message.topic.clone(), message.retain, serde_json::from_slice(&message.payload).unwrap())
        }
        other => panic!("no message but {other:?}"),
    }
}

/// What a newcomer is told of the alarm's state.
async fn retained(gateway: &Gateway, name: &str) -> Value {
    let mut client = subscribed(gateway, name, "forebay/press/alert").await;
    let (_, retained, state) = heard(&mut client).await;
    assert!(retained);
    state
}

fn measure(gateway: &Gateway, number: u64, value: f64) {
    let reading = format!(r#"{{"n":{number},"value":{value}}}"#);
    let (status, answer) = gateway.post("/api/v1/streams/press/readings", &reading);
    assert_eq!(status, 202, "{answer}");
}

fn alarm_rows(gateway: &Gateway) -> u64 {
    let queue = gateway.get("/api/v1/queue");
    let streams = queue["streams"].as_array().unwrap();
    streams.iter().filter(|stream| stream["class"] == "alarm").map(|stream| stream["rows"].as_u64().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_is_seen_everywhere_when_it_rises_and_when_it_clears() {
    let gateway = Gateway::start(&format!("{PRESS}{RULE}"));
    let mut listener = subscribed(&gateway, "listener", "forebay/press/alert/event").await;
    let mut events = Events::open(&gateway);
    measure(&gateway, 1, 120.0);
    assert_eq!(gateway.get("/api/v1/alerts")["alerts"], Value::Array(Vec::new()), "one bad value is no alarm");
    assert_eq!(alarm_rows(&gateway), 0);
    measure(&gateway, 2, 130.0);

    let (topic, retained_flag, event) = heard(&mut listener).await;
    assert_eq!((topic.as_str(), retained_flag), ("forebay/press/alert/event", false));
    assert_eq!((&event["event"], &event["alert"]["severity"]), (&"raised".into(), &"critical".into()), "{event}");
    assert_eq!(events.next("alert")["alert"], event["alert"]);
    let alerts = gateway.get("/api/v1/alerts");
    assert_eq!(alerts["alerts"].as_array().unwrap().len(), 1, "{alerts}");
    assert_eq!(alerts["alerts"][0], event["alert"]);
    assert_eq!((&alerts["alerts"][0]["cleared_ms"], &alerts["alerts"][0]["peak_score"]), (&Value::Null, &130.0.into()));
    assert_eq!(gateway.get("/api/v1/streams/press")["alert"]["id"], event["alert"]["id"]);
    assert_eq!(alarm_rows(&gateway), 1);
    let state = retained(&gateway, "newcomer").await;
    assert_eq!((&state["state"], &state["alert"]), (&"alarm".into(), &event["alert"]));

    // Between the thresholds nothing changes; one good value is not enough.
    measure(&gateway, 3, 95.0);
    measure(&gateway, 4, 80.0);
    assert_eq!(alarm_rows(&gateway), 1);
    measure(&gateway, 5, 80.0);
    let (_, _, event) = heard(&mut listener).await;
    assert_eq!(event["event"], "cleared", "{event}");
    assert!(event["alert"]["cleared_ms"].is_i64(), "{event}");
    assert_eq!(events.next("alert")["alert"], event["alert"]);
    assert_eq!(gateway.get("/api/v1/alerts")["alerts"], Value::Array(vec![event["alert"].clone()]));
    assert_eq!(gateway.get("/api/v1/streams/press")["alert"], Value::Null);
    assert_eq!(alarm_rows(&gateway), 2);
    assert_eq!(retained(&gateway, "latecomer").await["state"], "normal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standing_alarm_and_a_half_risen_one_survive_a_kill() {
    let mut gateway = Gateway::start(&format!("{PRESS}{RULE}"));
    measure(&gateway, 1, 120.0);
    gateway.kill();
    gateway.restart();
    // The second bad value in a row, counted over the restart.
    measure(&gateway, 2, 140.0);
    assert_eq!(gateway.get("/api/v1/alerts")["alerts"].as_array().unwrap().len(), 1);
    gateway.kill();
    gateway.restart();
    let state = retained(&gateway, "newcomer").await;
    assert_eq!((&state["state"], &state["alert"]["peak_score"]), (&"alarm".into(), &140.0.into()));
    measure(&gateway, 3, 150.0);
    measure(&gateway, 4, 80.0);
    measure(&gateway, 5, 80.0);
    let alerts = gateway.get("/api/v1/alerts");
    let alerts = alerts["alerts"].as_array().unwrap();
    assert_eq!(alerts.len(), 1, "raised once: {alerts:?}");
    assert!(alerts[0]["cleared_ms"].is_i64());
    assert_eq!(alerts[0]["peak_score"], 150.0);
    assert_eq!(alarm_rows(&gateway), 2, "one raise and one clear for the cloud");
}

#[test]
fn the_worst_of_an_alarm_for_low_values_is_the_lowest() {
    let rule = "[stream.rule]\ndirection = \"below\"\nraise = 20.0\nclear = 25.0\n";
    let gateway = Gateway::start(&format!("{PRESS}{rule}"));
    for (n, value) in [(1, 15.0), (2, 11.0), (3, 19.0), (4, 30.0)] {
        measure(&gateway, n, value);
    }
    let alerts = gateway.get("/api/v1/alerts");
    assert_eq!(alerts["alerts"][0]["peak_score"], 11.0);
    assert!(alerts["alerts"][0]["cleared_ms"].is_i64());
}
