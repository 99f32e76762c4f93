//! Other people's clients against the whole gateway: what each of them publishes is in the readings exactly once. The
//! stream keeps no memory of identities, so a reading that was taken twice would be there twice.

use std::io::Write as _;
use std::ops::RangeInclusive;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::gateway::{Gateway, forebay_says, free_port, poll, press_reading, said};

const STREAM: &str = "[[stream]]\nname = \"press\"\ntopic = \"plant/press\"\n";

/// Waits until so many readings are there, and compares them with what was published.
fn assert_each_once(gateway: &Gateway, numbers: RangeInclusive<u64>) {
    let wanted: Vec<u64> = numbers.collect();
    let mut found =
        poll("every reading is kept", || Some(gateway.numbers("press")).filter(|found| found.len() >= wanted.len()));
    found.sort_unstable();
    assert_eq!(found, wanted);
    let tally = &gateway.get("/api/v1/streams/press")["tally"];
    assert_eq!([&tally["rejected"], &tally["dropped"], &tally["overflowed"]], [0, 0, 0], "{tally}");
}

#[test]
fn mosquitto_pub_gets_every_reading_in_once_in_both_versions_and_every_quality() {
    let gateway = Gateway::start(STREAM);
    let mut last = 0;
    for version in ["mqttv311", "mqttv5"] {
        for qos in ["0", "1", "2"] {
            let mut child = Command::new("mosquitto_pub")
                .args(["-h", "127.0.0.1", "-p", &gateway.mqtt.port().to_string(), "-t", "plant/press"])
                .args(["-V", version, "-q", qos, "-l"])
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("mosquitto_pub is not installed: apt install mosquitto-clients");
            let mut lines = child.stdin.take().unwrap();
            for _ in 0..20 {
                last += 1;
                writeln!(lines, "{}", press_reading(last)).unwrap();
            }
            drop(lines);
            let (code, _, stderr) = said(child.wait_with_output().unwrap());
            assert_eq!(code, Some(0), "{version} QoS {qos}: {stderr}");
        }
    }
    assert_each_once(&gateway, 1..=last);
}

/// Publishes 20 readings in each version, quality and transport, counting on from 1; prints the last number.
const PAHO: &str = r#"
import json, sys
try:
    import paho.mqtt.client as mqtt
except ImportError:
    sys.exit("paho-mqtt cannot be imported: python3 -m pip install paho-mqtt==2.1.0, and name the interpreter in FOREBAY_PYTHON")
ports = {"tcp": int(sys.argv[1]), "websockets": int(sys.argv[2])}
n = 0
for transport in ports:
    for version in (mqtt.MQTTv311, mqtt.MQTTv5):
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, f"paho-{transport}-{version}", protocol=version, transport=transport)
        client.connect("127.0.0.1", ports[transport])
        client.loop_start()
        for qos in (0, 1, 2):
            sent = []
            for _ in range(20):
                n += 1
                sent.append(client.publish("plant/press", json.dumps({"n": n, "value": n}), qos))
            for message in sent:
                message.wait_for_publish(30)
                assert message.is_published(), (transport, version, qos)
        client.disconnect()
        client.loop_stop()
print(n)
"#;

#[test]
fn paho_gets_every_reading_in_once_over_tcp_and_websocket_in_both_versions_and_every_quality() {
    let websocket = free_port();
    let listener = format!("[[mqtt.listener]]\naddress = \"127.0.0.1:{websocket}\"\nkind = \"ws\"\n{STREAM}");
    let gateway = Gateway::start(&listener);
    let python = std::env::var("FOREBAY_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let output = Command::new(&python)
        .args(["-c", PAHO, &gateway.mqtt.port().to_string(), &websocket.to_string()])
        .output()
        .unwrap_or_else(|error| panic!("{python}: {error}; name a Python 3 in FOREBAY_PYTHON"));
    let (code, stdout, stderr) = said(output);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(stdout.trim(), "240");
    assert_each_once(&gateway, 1..=240);
}

#[tokio::test(flavor = "multi_thread")]
async fn rumqttc_gets_every_reading_in_once_in_both_versions_and_every_quality() {
    let gateway = Gateway::start(STREAM);
    let port = gateway.mqtt.port();
    let patience = Duration::from_secs(30);
    {
        use rumqttc::{AsyncClient, Event, MqttOptions, Outgoing, Packet, QoS};
        let (client, mut events) = AsyncClient::new(MqttOptions::new("rumqttc-4", "127.0.0.1", port), 100);
        for n in 1..=60 {
            let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][n % 3];
            client.publish("plant/press", qos, false, press_reading(n as u64)).await.unwrap();
        }
        let (mut sent, mut acknowledged) = (0, 0);
        while sent < 60 || acknowledged < 40 {
            match tokio::time::timeout(patience, events.poll()).await.unwrap().unwrap() {
                Event::Outgoing(Outgoing::Publish(_)) => sent += 1,
                Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_)) => acknowledged += 1,
                _ => {}
            }
        }
    }
    {
        use rumqttc::Outgoing;
        use rumqttc::v5::mqttbytes::QoS;
        use rumqttc::v5::mqttbytes::v5::Packet;
        use rumqttc::v5::{AsyncClient, Event, MqttOptions};
        let (client, mut events) = AsyncClient::new(MqttOptions::new("rumqttc-5", "127.0.0.1", port), 100);
        for n in 61..=120 {
            let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][n % 3];
            client.publish("plant/press", qos, false, press_reading(n as u64)).await.unwrap();
        }
        let (mut sent, mut acknowledged) = (0, 0);
        while sent < 60 || acknowledged < 40 {
            match tokio::time::timeout(patience, events.poll()).await.unwrap().unwrap() {
                Event::Outgoing(Outgoing::Publish(_)) => sent += 1,
                Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_)) => acknowledged += 1,
                _ => {}
            }
        }
    }
    tokio::task::block_in_place(|| assert_each_once(&gateway, 1..=120));
}

#[test]
fn replay_publishes_a_recording_until_every_reading_is_acknowledged() {
    let gateway = Gateway::start(STREAM);
    let file = gateway.folder.path().join("recording.csv");
    let lines: Vec<_> = (1..=500).map(|n| format!("2013-12-02 21:15:00,{n}")).collect();
    std::fs::write(&file, format!("timestamp,value\n{}\n", lines.join("\n"))).unwrap();
    let broker = gateway.mqtt.to_string();
    let (code, stdout, stderr) =
        forebay_says(&["replay", file.to_str().unwrap(), "--broker", &broker, "--topic", "plant/press"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.starts_with("500 readings acknowledged"), "{stdout}");
    assert_each_once(&gateway, 1..=500);
}
