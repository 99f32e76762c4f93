//! The receiver's own acknowledgement with real processes: what the broker forgets, what the receiver commits and cannot
//! say, what a stranger says.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use forebay::uplink::{Message, MqttUplink, Uplink};

use crate::chaos::{Chaos, Fault};
use crate::collecting::{Collecting, publish, received, report, until_sent};
use crate::fleet::{clock, impatient};
use crate::gateway::{Gateway, PRESS, VERDICTS, http, loopback, poll};
use crate::mosquitto::Mosquitto;

/// A gateway that sends soon and waits two seconds for a receipt.
fn link(port: u16, more: &str) -> String {
    format!(
        "[cloud]\nport = {port}\nconnect_timeout_ms = 500\nanswer_timeout_ms = 1000\n\
         [sync]\ntenant = \"plant\"\nbatch_rows = 50\nlinger_ms = 10\nretry_first_ms = 10\nretry_most_ms = 100\n\
         receipt_timeout_ms = 2000\n{more}\n{PRESS}{VERDICTS}"
    )
}

fn counter(gateway: &Gateway, name: &str) -> u64 {
    let (status, text) = http(gateway.http, "GET", "/metrics", "", "").unwrap();
    assert_eq!(status, 200, "{text}");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

fn queued(gateway: &Gateway) -> u64 {
    gateway.get("/api/v1/queue")["rows"].as_u64().unwrap()
}

/// The broker's answers so far.
fn taken(gateway: &Gateway) -> u64 {
    counter(gateway, "forebay_uplink_acknowledged_messages_total")
}

/// A broker with its defaults for the disk: what it holds is gone with it.
fn forgetful() -> Mosquitto {
    Mosquitto::start("persistence false")
}

/// Gives how many of 200 readings the receiver has after a broker was killed that had acknowledged them all and handed
/// none of them on.
fn after_a_killed_broker(acknowledged_by: &str) -> (Mosquitto, Gateway, Vec<u64>, (Option<i32>, String)) {
    let mut broker = forgetful();
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(&link(broker.port(), &format!("acknowledged_by = \"{acknowledged_by}\"")));
    let mut collecting = Collecting::start(broker.address(), folder.path());
    publish(&gateway, 1..21);
    until_sent(&gateway);
    poll("the receiver has the first", || (received(folder.path()).len() == 20).then_some(()));
    // Its session stays, and gathers.
    collecting.kill();
    let before = taken(&gateway);
    publish(&gateway, 21..201);
    // In batches of 50: the last one tells that the broker took all.
    poll("the broker has everything", || (taken(&gateway) >= before + 4).then_some(()));
    if acknowledged_by == "broker" {
        until_sent(&gateway);
    } else {
        assert!(queued(&gateway) >= 180, "nothing leaves the queue on the broker's word");
    }
    broker.kill_and_restart();
    collecting.restart();
    if acknowledged_by == "broker" {
        publish(&gateway, 201..202);
    }
    until_sent(&gateway);
    poll("the receiver has what was sent", || {
        let has = received(folder.path());
        (has.len() >= 200 || has.last() == Some(&201)).then_some(())
    });
    (broker, gateway, received(folder.path()), report(folder.path()))
}

#[test]
fn what_a_killed_broker_forgot_is_sent_again_and_nothing_is_missing() {
    let (_broker, gateway, received, (code, report)) = after_a_killed_broker("receiver");
    assert_eq!(received, (1..201).collect::<Vec<_>>());
    assert_eq!(code, Some(0), "{report}");
    assert!(report.contains(": every number is accounted for"), "{report}");
    gateway.wait_for("/api/v1/link", |link| link["state"] == "up");
}

/// The negative control: the test above sees a loss where there is one, and so does the report.
#[test]
fn on_the_brokers_word_a_killed_broker_loses_rows_and_the_report_says_so() {
    let (_broker, _gateway, received, (code, report)) = after_a_killed_broker("broker");
    assert!(received.len() < 201, "nothing was lost");
    assert_eq!(code, Some(1), "{report}");
    assert!(report.contains("MISSING, and nobody says why: "), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_receiver_killed_between_its_commit_and_its_receipt_repeats_the_receipt() {
    let broker = forgetful();
    let folder = tempfile::tempdir().unwrap();
    // CONNACK and SUBACK are short; from the first batch on nothing passes from the receiver.
    let line = Chaos::before(broker.port()).await;
    line.plan([Fault::MuteOnceTold(60)]);
    let mut collecting = Collecting::start(loopback(line.port()), folder.path());
    let gateway = Gateway::start(&link(broker.port(), ""));
    poll("the receiver listens", || {
        (line.connections() > 0 && folder.path().join("forebay.db").exists()).then_some(())
    });
    publish(&gateway, 1..101);
    poll("everything is committed", || (received(folder.path()).len() == 100).then_some(()));
    assert!(queued(&gateway) >= 100, "committed is not confirmed");
    collecting.kill();
    collecting.restart_from(broker.address());
    until_sent(&gateway);
    let (code, stdout) = report(folder.path());
    assert_eq!((code, received(folder.path()).len()), (Some(0), 100), "{stdout}");
    let press = stdout.lines().find(|line| line.contains("verdict/press")).unwrap();
    assert!(!press.ends_with(" 0 repeated"), "nothing came twice: {stdout}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn lines_that_fall_silent_lose_receipts_and_no_row() {
    let broker = forgetful();
    let folder = tempfile::tempdir().unwrap();
    let (up, down) = (Chaos::before(broker.port()).await, Chaos::before(broker.port()).await);
    up.plan([
        Fault::SwallowAnswers { after: 3_000, more: 9_000 },
        Fault::HoldAfter(5_000),
        Fault::HalfOpen,
        Fault::MuteOnceTold(300),
        Fault::CutAfter { bytes: 9_000, reset: true },
    ]);
    down.plan([Fault::CutAfter { bytes: 600, reset: true }, Fault::CutAfter { bytes: 900, reset: false }]);
    let collecting = Collecting::start(loopback(down.port()), folder.path());
    // The faults come after so many bytes.
    let gateway = Gateway::start(&link(up.port(), "compress = false"));
    publish(&gateway, 1..1001);
    until_sent(&gateway);
    // On a fast day everything has left before the last faults come.
    let mut next = 1001;
    while up.connections() < 5 || down.connections() < 3 {
        assert!(next < 3000, "the lines were too good to prove anything");
        publish(&gateway, next..next + 20);
        until_sent(&gateway);
        next += 20;
    }
    assert_eq!(received(folder.path()), (1..next).collect::<Vec<_>>(), "what left the queue is with the receiver");
    assert_eq!(report(folder.path()).0, Some(0));
    drop(collecting);
}

/// Takes everything and says nothing, as a consumer that knows no receipts.
fn silent_consumer(broker: &Mosquitto) -> Consumer {
    let child = Command::new("mosquitto_sub")
        .args(["-h", "127.0.0.1", "-p", &broker.port().to_string(), "-q", "1", "-t", "fleet/v1/+/+/+/+"])
        .stdout(Stdio::null())
        .spawn()
        .expect("mosquitto_sub is not installed: apt install mosquitto-clients");
    Consumer(child)
}

struct Consumer(Child);

impl Drop for Consumer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_receipts_rows_stay_whatever_a_stranger_says_and_the_link_says_since_when() {
    let broker = forgetful();
    let consumer = silent_consumer(&broker);
    let gateway = Gateway::start(&link(broker.port(), ""));
    publish(&gateway, 1..41);
    let says = |link: &serde_json::Value| {
        link["reason"].as_str().is_some_and(|reason| reason.contains("no receiver has confirmed"))
    };
    let link = gateway.wait_for("/api/v1/link", says);
    assert_eq!(link["state"], "degraded", "{link}");
    let since = link["reason"].as_str().unwrap().split_once(" since ").unwrap().1.split_once(';').unwrap().0.to_owned();
    since.parse::<jiff::Timestamp>().unwrap();

    // Receipts of every kind that was never due.
    let mut stranger = MqttUplink::new(impatient(broker.port()), "stranger", clock()).unwrap();
    stranger.connect().await.unwrap();
    let before = counter(&gateway, "forebay_sync_strange_receipts_total");
    let topic = "fleet/v1/plant/test-box/receipt";
    let forged = forged_receipt();
    for (ticket, payload) in [(1, forged), (2, b"all of it".to_vec()), (3, Vec::new())] {
        stranger.submit(ticket, Message { topic: topic.to_owned(), payload: payload.into() }).unwrap();
        stranger.answer().await.unwrap();
    }
    poll("the gateway heard them", || {
        (counter(&gateway, "forebay_sync_strange_receipts_total") == before + 3).then_some(())
    });
    assert!(queued(&gateway) >= 40);

    // A receiver that answers ends it.
    drop(consumer);
    let folder = tempfile::tempdir().unwrap();
    let collecting = Collecting::start(broker.address(), folder.path());
    until_sent(&gateway);
    gateway.wait_for("/api/v1/link", |link| link["state"] == "up");
    assert_eq!(received(folder.path()), (1..41).collect::<Vec<_>>());
    drop(collecting);
}

/// Well made, for the right stream and everything in it, and for bytes that nobody sent.
fn forged_receipt() -> Vec<u8> {
    use forebay::base::{Digest, Epoch, Seq};
    use forebay::flows::{Receipt, Span, Verdict};
    let name = crate::fleet::name;
    let span = Span { epoch: Epoch(1), class: name("verdict"), stream: name("press"), first: Seq(1), last: Seq(40) };
    Receipt { digest: Digest::of(b"a guess"), verdict: Verdict::Kept(span) }.encode()
}

/// A consumer that knows MQTT 5 and nothing of this gateway: it gives Correlation Data back to the Response Topic.
const STANDARD: &str = r#"
import sys
try:
    import paho.mqtt.client as mqtt
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties
except ImportError:
    sys.exit("paho-mqtt cannot be imported: python3 -m pip install paho-mqtt==2.1.0, and name the interpreter in FOREBAY_PYTHON")
def on_message(client, _, message):
    answer = Properties(PacketTypes.PUBLISH)
    answer.CorrelationData = message.properties.CorrelationData
    client.publish(message.properties.ResponseTopic, b"", 1, properties=answer)
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "standard", protocol=mqtt.MQTTv5)
client.on_message = on_message
client.on_subscribe = lambda *_: print("listening", flush=True)
client.connect("127.0.0.1", int(sys.argv[1]))
client.subscribe("fleet/v1/+/+/+/+", 1)
client.loop_forever()
"#;

#[test]
fn a_consumer_confirms_with_the_standards_own_words() {
    let broker = forgetful();
    let python = std::env::var("FOREBAY_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let child = Command::new(python).args(["-c", STANDARD, &broker.port().to_string()]).stdout(Stdio::piped()).spawn();
    let mut consumer = Consumer(child.unwrap());
    let mut said = std::io::BufReader::new(consumer.0.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    assert_eq!(line, "listening\n");
    let gateway = Gateway::start(&link(broker.port(), ""));
    publish(&gateway, 1..201);
    until_sent(&gateway);
    assert!(counter(&gateway, "forebay_sync_receipts_total") >= 4);
}

/// The broker's address as a client without MQTT 5 sees it.
#[test]
fn under_3_1_1_receipts_work_by_topic_and_digest() {
    let broker = forgetful();
    let folder = tempfile::tempdir().unwrap();
    let old = format!("[cloud]\nprotocol = \"3.1.1\"\nport = {}\n", broker.port());
    let config = link(broker.port(), "").replace(&format!("[cloud]\nport = {}\n", broker.port()), &old);
    let gateway = Gateway::start(&config);
    // Nobody subscribes, which 3.1.1 cannot say: on the broker's word this would be gone.
    publish(&gateway, 1..41);
    poll("the broker has everything", || (taken(&gateway) >= 1).then_some(()));
    assert!(queued(&gateway) >= 40);
    let address: SocketAddr = broker.address();
    let collecting = Collecting::start(address, folder.path());
    until_sent(&gateway);
    assert_eq!(received(folder.path()), (1..41).collect::<Vec<_>>());
    drop(collecting);
}
