//! What sensors see when the queue to the cloud is full, and what the cloud hears about what was lost, with the real
//! binary on both sides.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use forebay::doors::mqtt::codec::{Connect, Delivery, Packet, Publish, ReasonCode};
use serde_json::Value;

use crate::gateway::{
    Gateway, PRESS, VERDICTS, forebay, forebay_says, http, poll, press_reading, press_readings, said,
};
use crate::mqtt_fixture::{Client, V5, V311, id};

/// Small enough to be full at once, with 40 % for verdicts.
fn full_soon(cloud: u16, policy: &str) -> String {
    format!(
        "[cloud]\nport = {cloud}\nconnect_timeout_ms = 500\nanswer_timeout_ms = 1000\n\
         [sync]\ntenant = \"plant\"\nbatch_rows = 50\nlinger_ms = 10\nretry_first_ms = 10\nretry_most_ms = 100\n\
         [outbox]\nmax_bytes = 100000\n[outbox.verdict]\npolicy = \"{policy}\"\n{PRESS}{VERDICTS}"
    )
}

struct Cloud {
    gateway: Gateway,
    folder: tempfile::TempDir,
    collecting: Option<Child>,
}

impl Cloud {
    /// A broker and a receiver behind it. The broker is killed, so that nothing leaves the gateways yet.
    fn away() -> Self {
        let mut gateway = Gateway::start("");
        gateway.kill();
        Self { gateway, folder: tempfile::tempdir().unwrap(), collecting: None }
    }

    fn port(&self) -> u16 {
        self.gateway.mqtt.port()
    }

    fn state(&self) -> &Path {
        self.folder.path()
    }

    fn comes_back(&mut self) {
        self.gateway.restart();
        let mut collect = forebay();
        collect.args(["collect", "--broker", &self.gateway.mqtt.to_string(), "--tenant", "plant", "--state"]);
        let log = std::fs::File::create(self.state().join("log")).unwrap();
        self.collecting = Some(collect.arg(self.state()).stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    /// The report, once it says that nothing is unexplained and `done` of its text.
    fn report(&self, done: impl Fn(&str) -> bool) -> String {
        poll("the receiver has an account of everything", || {
            let (code, text, _) = forebay_says(&["collect", "--report", "--state", self.state().to_str().unwrap()]);
            (code == Some(0) && done(&text)).then_some(text)
        })
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        if let Some(mut child) = self.collecting.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

async fn connected(gateway: &Gateway, version: forebay::doors::mqtt::codec::ProtocolVersion, name: &str) -> Client {
    let mut client = Client::tcp(gateway.mqtt, version).await;
    assert_eq!(client.connect(Connect::new(version, name)).await.reason, ReasonCode::Success);
    client
}

async fn publish(client: &mut Client, payload: String) -> ReasonCode {
    client.publish(Publish::new("plant/press", Delivery::AtLeastOnce(id(1)), payload)).await;
    client.acked().await.1
}

fn class(gateway: &Gateway, name: &str) -> Value {
    let queue = gateway.get("/api/v1/queue");
    queue["classes"].as_array().unwrap().iter().find(|class| class["class"] == name).unwrap().clone()
}

fn metric(gateway: &Gateway, line: &str) -> u64 {
    let (_, text) = http(gateway.http, "GET", "/metrics", "", "").unwrap();
    let found =
        text.lines().find_map(|found| found.strip_prefix(line)).unwrap_or_else(|| panic!("no {line} in {text}"));
    found.trim().parse().unwrap()
}

/// Publishes until the class is full; returns the first number that was not acknowledged.
async fn fill(client: &mut Client) -> u64 {
    for n in 1..5000 {
        match publish(client, press_reading(n)).await {
            ReasonCode::Success => {}
            ReasonCode::QuotaExceeded => return n,
            other => panic!("{other:?}"),
        }
    }
    panic!("the share is never used up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_class_that_blocks_acknowledges_nothing_when_full_and_every_client_hears_it_in_its_own_protocol() {
    let mut cloud = Cloud::away();
    let gateway = Gateway::start(&full_soon(cloud.port(), "block"));
    let mut five = connected(&gateway, V5, "five").await;
    let next = fill(&mut five).await;
    assert!(next > 50, "{next}");
    let full = class(&gateway, "verdict");
    assert!(full["bytes"].as_u64() <= full["limit_bytes"].as_u64(), "{full}");

    // MQTT 5, QoS 2: refused before anything is held, so the packet id is free again.
    for _ in 0..2 {
        five.publish(Publish::new("plant/press", Delivery::ExactlyOnce(id(9)), press_reading(next))).await;
        let Some(Packet::PubRec(answer)) = five.next().await else { panic!() };
        assert_eq!(answer.reason, ReasonCode::QuotaExceeded);
    }
    // HTTP.
    let (status, answer) = gateway.post("/api/v1/streams/press/readings", &press_reading(next));
    assert_eq!((status, answer["error"]["code"].as_str()), (507, Some("quota")), "{answer}");
    assert!(answer["error"]["hint"].as_str().unwrap().contains("/api/v1/queue"), "{answer}");
    // QoS 0: dropped and counted.
    five.publish(Publish::new("plant/press", Delivery::AtMostOnce, press_reading(next))).await;
    gateway.wait_for("/api/v1/streams/press", |stream| stream["tally"]["overflowed"] == 1);
    // MQTT 3.1.1 has no word for it: the client is not read, and its connection stays.
    let mut old = connected(&gateway, V311, "old").await;
    for (at, n) in (next..next + 5).enumerate() {
        let delivery = Delivery::AtLeastOnce(id(at as u16 + 1));
        old.publish(Publish::new("plant/press", delivery, press_reading(n))).await;
    }
    // Somebody else's connection is served meanwhile.
    let (status, health) = gateway.ask("/readyz");
    assert_eq!(status, 200, "{health}");
    assert!(health["problems"][0].as_str().unwrap().contains("class verdict has used up"), "{health}");
    assert!(metric(&gateway, "forebay_outbox_blocked_payloads_total{class=\"verdict\"}") >= 4);
    let kept: Vec<u64> = (1..next).collect();
    assert!(gateway.numbers("press") == kept, "exactly what was acknowledged");

    cloud.comes_back();
    for at in 1..=5 {
        assert_eq!(old.acked().await, (at, ReasonCode::Success), "it waited, and nothing had to be sent again");
    }
    assert_eq!(publish(&mut five, press_reading(next + 5)).await, ReasonCode::Success);
    assert!(gateway.numbers("press") == (1..next + 6).collect::<Vec<_>>());
    let all = format!(" verdict/press: {} received of ", next + 5);
    let report = cloud.report(|report| report.contains(&all));
    assert!(!report.contains("MISSING"), "{report}");
    gateway.wait_for("/readyz", |health| health["problems"].as_array().unwrap().is_empty());
}

/// Publishes one reading with QoS 1 in MQTT 5 and prints the reason.
const PAHO: &str = r#"
import sys
try:
    import paho.mqtt.client as mqtt
except ImportError:
    sys.exit("paho-mqtt cannot be imported: python3 -m pip install paho-mqtt==2.1.0, and name the interpreter in FOREBAY_PYTHON")
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "paho-full", protocol=mqtt.MQTTv5)
def on_publish(client, userdata, mid, reason_code, properties):
    print(reason_code)
client.on_publish = on_publish
client.connect("127.0.0.1", int(sys.argv[1]))
client.loop_start()
client.publish("plant/press", sys.argv[2], 1).wait_for_publish(30)
client.disconnect()
client.loop_stop()
"#;

fn mosquitto_pub(gateway: &Gateway, version: &str) -> Child {
    Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &gateway.mqtt.port().to_string(), "-t", "plant/press"])
        .args(["-V", version, "-q", "1", "-l"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mosquitto_pub is not installed: apt install mosquitto-clients")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn other_peoples_clients_understand_a_full_queue() {
    let mut cloud = Cloud::away();
    let gateway = Gateway::start(&full_soon(cloud.port(), "block"));
    let next = fill(&mut connected(&gateway, V5, "five").await).await;

    let mut five = mosquitto_pub(&gateway, "mqttv5");
    writeln!(five.stdin.take().unwrap(), "{}", press_reading(next)).unwrap();
    let (_, stdout, stderr) = said(five.wait_with_output().unwrap());
    assert!(format!("{stdout}{stderr}").contains("Quota exceeded"), "{stdout}{stderr}");

    let python = std::env::var("FOREBAY_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let arguments = ["-c", PAHO, &gateway.mqtt.port().to_string(), &press_reading(next)];
    let (code, stdout, stderr) = said(Command::new(&python).args(arguments).output().unwrap());
    assert_eq!((code, stdout.trim()), (Some(0), "Quota exceeded"), "{stderr}");

    let url = format!("http://{}/api/v1/streams/press/readings", gateway.http);
    let curl = ["-sS", "-o", "-", "-w", " %{http_code} %header{retry-after}", "-H", "content-type: application/json"];
    let output = Command::new("curl").args(curl).args(["-d", &press_reading(next), &url]).output().unwrap();
    let (_, stdout, stderr) = said(output);
    assert!(stdout.ends_with(" 507 5") && stdout.contains("until the cloud takes rows"), "{stdout}{stderr}");

    // Waits, then goes on by itself.
    let mut old = mosquitto_pub(&gateway, "mqttv311");
    let mut lines = old.stdin.take().unwrap();
    for n in next..next + 20 {
        writeln!(lines, "{}", press_reading(n)).unwrap();
    }
    drop(lines);
    gateway.wait_for("/api/v1/link", |link| link["state"] == "down");
    assert_eq!(old.try_wait().unwrap(), None, "still waiting");
    assert_eq!(gateway.numbers("press").len() as u64, next - 1);
    cloud.comes_back();
    let (code, _, stderr) = said(old.wait_with_output().unwrap());
    assert_eq!(code, Some(0), "{stderr}");
    assert!(gateway.numbers("press") == (1..next + 20).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_policy_gives_up_is_acknowledged_and_the_cloud_is_told_which_numbers_and_why() {
    for (policy, reason) in [("drop_oldest", "evicted"), ("drop_newest", "refused_newest"), ("summarise", "summarised")]
    {
        let mut cloud = Cloud::away();
        let mut gateway = Gateway::start(&full_soon(cloud.port(), policy));
        // So few at a time that they do not become blocks, of which the class has room for twice as many rows.
        for first in (1..=2000).step_by(10) {
            let (status, answer) = gateway.post("/api/v1/streams/press/readings", &press_readings(first..first + 10));
            assert_eq!(status, 202, "{policy}: {answer}");
        }
        let full = class(&gateway, "verdict");
        assert!(full["bytes"].as_u64() <= full["limit_bytes"].as_u64(), "{full}");
        let kept = full["rows"].as_u64().unwrap();
        assert!((100..1000).contains(&kept), "{policy}: {kept} rows in 40,000 bytes");
        let counter = match policy {
            "drop_oldest" => "evicted",
            "drop_newest" => "refused",
            _ => "summarised",
        };
        let lost = metric(&gateway, &format!("forebay_outbox_{counter}_rows_total{{class=\"verdict\"}}"));
        assert_eq!(kept + lost, 2000, "{policy}");
        // The ledger is on the disk.
        gateway.kill();
        gateway.restart();
        assert_eq!(class(&gateway, "verdict")["rows"], kept);

        cloud.comes_back();
        let all = format!(" verdict/press: {kept} received of ");
        let report = cloud.report(|report| report.contains(&all) && report.contains(&format!("({lost} readings)")));
        assert!(report.contains(reason), "{report}");
        assert!(!report.contains("MISSING"), "{report}");
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let database = rusqlite::Connection::open_with_flags(cloud.state().join("forebay.db"), flags).unwrap();
        let sql = "SELECT sum(count) FROM inbox_lost WHERE reason = ?1";
        assert_eq!(
            database.query_row(sql, [reason], |row| row.get::<_, i64>(0)).unwrap().cast_unsigned(),
            lost,
            "{policy}"
        );
        // It is the one that the policy says.
        let sql = "SELECT min(seq) FROM inbox_row JOIN inbox_series USING (series_no) WHERE class = 'verdict'";
        let first: i64 = database.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(first == 1, policy == "drop_newest", "{policy} {first}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_kept_in_memory_answers_before_the_disk_and_says_so() {
    let gateway = Gateway::start(&PRESS.replace("topic = ", "durability = \"memory\"\ntopic = "));
    let (status, answer) = gateway.post("/api/v1/streams/press/readings", &press_reading(1));
    assert_eq!((status, &answer["durable"]), (202, &Value::Bool(false)), "{answer}");
    let mut client = connected(&gateway, V5, "five").await;
    assert_eq!(publish(&mut client, press_reading(2)).await, ReasonCode::Success);
    poll("both are kept", || (gateway.numbers("press") == [1, 2]).then_some(()));
}
