//! What was acknowledged is there: after SIGKILL under load, after SIGTERM under load, and with the same scores as if
//! nothing had happened.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use forebay::doors::mqtt::codec::{Connect, Delivery, Packet, Publish, ReasonCode};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinSet;

use crate::gateway::{Gateway, PRESS, press_reading};
use crate::mqtt_fixture::{Client, V5, V311, id};

/// Publishes that one publisher has under way.
const WINDOW: usize = 50;
const PUBLISHERS: u64 = 3;
/// Numbers of one publisher: its own million.
const SHARE: u64 = 1_000_000;

/// What one publisher knows across connections.
#[derive(Default)]
struct Memory {
    next: u64,
    /// Published and not acknowledged, oldest first.
    open: Vec<u64>,
    acknowledged: BTreeSet<u64>,
}

/// Publishes at full speed until the connection ends, what is open first; counts acknowledgements in `count`.
async fn publish_until_the_end(gateway: std::net::SocketAddr, who: u64, memory: &Mutex<Memory>, count: &AtomicU64) {
    let version = if who.is_multiple_of(2) { V5 } else { V311 };
    let mut client = Client::tcp(gateway, version).await;
    let ack = client.connect(Connect::new(version, format!("publisher-{who}"))).await;
    assert_eq!(ack.reason, ReasonCode::Success);
    let mut again = memory.lock().unwrap().open.clone().into_iter();
    let mut under_way = std::collections::HashMap::new();
    let mut packet_id = 0;
    loop {
        while under_way.len() < WINDOW {
            let number = again.next().unwrap_or_else(|| {
                let mut memory = memory.lock().unwrap();
                memory.next += 1;
                let number = who * SHARE + memory.next;
                memory.open.push(number);
                number
            });
            packet_id = packet_id % 60_000 + 1;
            under_way.insert(packet_id, number);
            client
                .publish(Publish::new("plant/press", Delivery::AtLeastOnce(id(packet_id)), press_reading(number)))
                .await;
        }
        match client.next().await {
            Some(Packet::PubAck(ack)) => {
                let number = under_way.remove(&ack.packet_id.get()).expect("an acknowledgement of something published");
                // A gateway that is going away refuses; that is no acknowledgement.
                if ack.reason.is_error() {
                    continue;
                }
                let mut memory = memory.lock().unwrap();
                memory.open.retain(|open| *open != number);
                memory.acknowledged.insert(number);
                count.fetch_add(1, Ordering::SeqCst);
            }
            Some(Packet::Disconnect(_)) | None => return,
            Some(other) => panic!("{other:?}"),
        }
    }
}

/// Starts the publishers and returns once `wanted` acknowledgements came.
async fn load(gateway: std::net::SocketAddr, memories: &[Arc<Mutex<Memory>>], wanted: u64) -> JoinSet<()> {
    let count = Arc::new(AtomicU64::new(0));
    let mut running = JoinSet::new();
    for (who, memory) in memories.iter().enumerate() {
        let (memory, count) = (Arc::clone(memory), Arc::clone(&count));
        running.spawn(async move { publish_until_the_end(gateway, who as u64, &memory, &count).await });
    }
    while count.load(Ordering::SeqCst) < wanted {
        assert_eq!(running.len(), memories.len());
        if let Some(ended) = running.try_join_next() {
            ended.unwrap();
            panic!("a publisher's connection ended under load");
        }
        tokio::task::yield_now().await;
    }
    running
}

async fn ended(mut running: JoinSet<()>) {
    while let Some(result) = running.join_next().await {
        result.unwrap();
    }
}

fn assert_kept(gateway: &Gateway, memories: &[Arc<Mutex<Memory>>]) -> usize {
    let found = gateway.numbers("press");
    let kept: BTreeSet<u64> = found.iter().copied().collect();
    assert_eq!(found.len(), kept.len(), "a reading is there twice");
    for memory in memories {
        let memory = memory.lock().unwrap();
        let missing: Vec<_> = memory.acknowledged.difference(&kept).collect();
        assert!(missing.is_empty(), "acknowledged and missing: {missing:?}");
    }
    found.len()
}

fn memories() -> Vec<Arc<Mutex<Memory>>> {
    (0..PUBLISHERS).map(|_| Arc::default()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigkill_under_load_loses_nothing_acknowledged_and_doubles_nothing_in_six_rounds() {
    let seed: u64 = StdRng::from_os_rng().random();
    eprintln!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut gateway = Gateway::start(PRESS);
    let memories = memories();
    let mut open_at_kill = 0;
    for _ in 0..6 {
        let running = load(gateway.mqtt, &memories, rng.random_range(50..1500)).await;
        gateway.kill();
        ended(running).await;
        open_at_kill += memories.iter().map(|memory| memory.lock().unwrap().open.len()).sum::<usize>();
        gateway.restart();
        assert_kept(&gateway, &memories);
    }
    assert!(open_at_kill > 0, "every kill met an idle gateway");
    // Whatever is still open is taken now, once.
    let running = load(gateway.mqtt, &memories, 500).await;
    assert_eq!(gateway.stop(), Some(0));
    ended(running).await;
    gateway.restart();
    assert!(assert_kept(&gateway, &memories) > 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_ends_with_zero_loses_nothing_acknowledged_and_leaves_no_hole_in_the_numbers() {
    let mut gateway = Gateway::start(PRESS);
    let memories = memories();
    for _ in 0..2 {
        let running = load(gateway.mqtt, &memories, 300).await;
        assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
        ended(running).await;
        gateway.restart();
        assert_kept(&gateway, &memories);
    }
    let gaps: i64 = gateway.database().query_row("SELECT count(*) FROM outbox_gap", [], |row| row.get(0)).unwrap();
    assert_eq!(gaps, 0, "a clean stop gives the unused numbers back");
    let numbers: Vec<_> = gateway.readings("press").iter().map(|reading| reading["seq"].as_u64().unwrap()).collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "numbered on without a hole");
    // The same look finds the hole that a kill leaves.
    let running = load(gateway.mqtt, &memories, 100).await;
    gateway.kill();
    ended(running).await;
    gateway.restart();
    let restarts = "SELECT count(*) FROM outbox_gap WHERE reason = 'restart'";
    let gaps: i64 = gateway.database().query_row(restarts, [], |row| row.get(0)).unwrap();
    assert!(gaps > 0, "a kill leaves a hole that the ledger explains");
}

#[cfg(feature = "tract")]
#[test]
fn scores_and_states_after_kills_are_those_of_an_uninterrupted_run() {
    use crate::gateway::{MACHINE, forebay, poll, said};
    use std::process::Stdio;

    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/machine_temperature_system_failure.csv");
    let data: Vec<_> = std::fs::read_to_string(data).unwrap().lines().take(301).map(str::to_owned).collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("first.csv");
    std::fs::write(&file, data.join("\n")).unwrap();
    // So low that the alarm is raised and cleared on the way.
    let config = format!("{MACHINE}[stream.rule]\nraise = 0.02\nclear = 0.01\nraise_after = 3\nclear_after = 3\n");
    let replay = |gateway: &Gateway| {
        let mut command = forebay();
        command.arg("replay").arg(&file).args([
            "--broker",
            &gateway.mqtt.to_string(),
            "--topic",
            "plant/machine/temperature",
        ]);
        command.args(["--window", "20", "--rate", "400"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let what = |gateway: &Gateway| {
        let mut readings = gateway.readings("machine");
        for reading in &mut readings {
            // Numbers jump at a kill; the hole is in the ledger.
            reading.as_object_mut().unwrap().remove("seq");
        }
        readings
    };
    let alerts = |gateway: &Gateway| {
        let answer = gateway.get("/api/v1/alerts");
        let times = |alert: &serde_json::Value| {
            [&alert["raised_ms"], &alert["cleared_ms"], &alert["peak_score"]].map(ToString::to_string)
        };
        answer["alerts"].as_array().unwrap().iter().map(times).collect::<Vec<_>>()
    };

    let calm = Gateway::start(&config);
    let (code, stdout, stderr) = said(replay(&calm).wait_with_output().unwrap());
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let wanted = what(&calm);
    assert_eq!(wanted.len(), 300);
    assert_eq!(wanted.iter().filter(|reading| reading["score"].is_number()).count(), 300 - 143);

    let mut troubled = Gateway::start(&config);
    let replaying = replay(&troubled);
    for at in [60, 150, 155, 250] {
        poll("the replay goes on", || {
            let tail = troubled.get("/api/v1/streams/machine/readings?limit=10000");
            (tail["readings"].as_array().unwrap().len() >= at).then_some(())
        });
        troubled.kill();
        troubled.restart();
    }
    let (code, stdout, stderr) = said(replaying.wait_with_output().unwrap());
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let broke: u32 = stdout.split(", ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(broke >= 2, "the kills came too late: {stdout}");
    let found = what(&troubled);
    assert_eq!(found.len(), 300, "{stdout}");
    for (n, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
        assert_eq!(found, wanted, "reading {}", n + 1);
    }
    assert!(!alerts(&calm).is_empty());
    assert_eq!(alerts(&troubled), alerts(&calm));
}
