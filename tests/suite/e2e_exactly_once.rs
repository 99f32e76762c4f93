//! QoS 2 over restarts: the packet id is on the disk with the reading, so a client that repeats after a SIGKILL, as the
//! protocol tells it to, finds each of its readings there once. The stream itself recognises no repeat here.

use std::collections::{BTreeMap, BTreeSet};

use forebay::doors::mqtt::codec::{Ack, Connect, Delivery, Packet, ProtocolVersion, Publish, ReasonCode};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::gateway::Gateway;
use crate::mqtt_fixture::{Client, V5, V311, id, persistent};

/// A stream that takes whatever the broker gives it.
const PLAIN: &str = r#"
[[stream]]
name = "press"
topic = "plant/press"
"#;

/// Exchanges that one publisher has under way.
const WINDOW: usize = 20;

/// How far an exchange is, as a client's own store has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// PUBLISH may have been received; PUBREC did not come.
    Published,
    /// PUBREC came; PUBREL may have been received.
    Received,
}

struct Publisher {
    version: ProtocolVersion,
    name: &'static str,
    next: u64,
    open: BTreeMap<u16, (u64, Stage)>,
    complete: BTreeSet<u64>,
    repeated: usize,
}

impl Publisher {
    fn publish(packet_id: u16, number: u64, dup: bool) -> Publish {
        let body = format!(r#"{{"value":{number}}}"#);
        let mut publish = Publish::new("plant/press", Delivery::ExactlyOnce(id(packet_id)), body);
        publish.dup = dup;
        publish
    }

    /// One connection: repeats what is open, then goes on until `enough` exchanges are complete or the gateway is gone.
    async fn serve(&mut self, gateway: std::net::SocketAddr, enough: usize) {
        let mut client = Client::tcp(gateway, self.version).await;
        let connect: Connect = persistent(self.version, self.name);
        let ack = client.connect(connect).await;
        assert_eq!(ack.reason, ReasonCode::Success);
        assert_eq!(ack.session_present, self.next > 0, "the session outlives a SIGKILL");
        for (packet_id, (number, stage)) in self.open.clone() {
            self.repeated += 1;
            match stage {
                Stage::Published => client.publish(Self::publish(packet_id, number, true)).await,
                Stage::Received => client.send(Packet::PubRel(Ack::new(id(packet_id), ReasonCode::Success))).await,
            }
        }
        let mut completed = 0;
        while completed < enough {
            while self.open.len() < WINDOW {
                self.next += 1;
                let packet_id = (1..).find(|packet_id| !self.open.contains_key(packet_id)).unwrap();
                self.open.insert(packet_id, (self.next, Stage::Published));
                client.publish(Self::publish(packet_id, self.next, false)).await;
            }
            match client.next().await {
                Some(Packet::PubRec(ack)) => {
                    assert!(!ack.reason.is_error(), "{ack:?}");
                    self.open.get_mut(&ack.packet_id.get()).expect("an exchange of ours").1 = Stage::Received;
                    client.send(Packet::PubRel(Ack::new(ack.packet_id, ReasonCode::Success))).await;
                }
                Some(Packet::PubComp(ack)) => {
                    let (number, stage) = self.open.remove(&ack.packet_id.get()).expect("an exchange of ours");
                    assert_eq!(stage, Stage::Received);
                    self.complete.insert(number);
                    completed += 1;
                }
                None => return,
                Some(other) => panic!("{other:?}"),
            }
        }
    }
}

async fn each_reading_is_there_once(version: ProtocolVersion, name: &'static str) {
    let seed: u64 = StdRng::from_os_rng().random();
    eprintln!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut gateway = Gateway::start(PLAIN);
    let mut publisher =
        Publisher { version, name, next: 0, open: BTreeMap::new(), complete: BTreeSet::new(), repeated: 0 };
    for _ in 0..6 {
        publisher.serve(gateway.mqtt, rng.random_range(1..150)).await;
        gateway.kill();
        gateway.restart();
        let found = gateway.numbers("press");
        let kept: BTreeSet<u64> = found.iter().copied().collect();
        assert_eq!(found.len(), kept.len(), "a reading is there twice");
        let received = publisher.open.values().filter(|(_, stage)| *stage == Stage::Received).map(|(number, _)| number);
        let missing: Vec<_> =
            publisher.complete.iter().chain(received).filter(|number| !kept.contains(number)).collect();
        assert!(missing.is_empty(), "PUBREC came and the reading is missing: {missing:?}");
    }
    assert!(publisher.repeated >= WINDOW, "every kill met an idle client");
    // The last connection brings everything to its end.
    let left = publisher.open.len();
    publisher.serve(gateway.mqtt, left + 50).await;
    let found = gateway.numbers("press");
    let kept: BTreeSet<u64> = found.iter().copied().collect();
    assert_eq!(found.len(), kept.len(), "a reading is there twice");
    assert!(publisher.complete.is_subset(&kept));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_qos_2_reading_of_an_mqtt_5_client_is_there_once_however_often_the_gateway_is_killed() {
    each_reading_is_there_once(V5, "press-5").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_qos_2_reading_of_an_mqtt_3_client_is_there_once_however_often_the_gateway_is_killed() {
    each_reading_is_there_once(V311, "press-3").await;
}
