//! Queue to cloud over a bad line.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay::base::{Clock, Name, Seq, SystemClock};
use forebay::flows::queue::{Key, Queue};
use forebay::flows::{Batch, Limits, Row, Sync, SyncConfig};
use forebay::uplink::{Config, MqttUplink, Receiver, ReceiverConfig};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_util::sync::CancellationToken;

use crate::chaos::{Chaos, Fault};
use crate::mosquitto::Mosquitto;

#[tokio::test]
async fn stub_faults() {
    for seed in 0..6 {
        one(seed).await;
    }
}

async fn one(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let broker = Mosquitto::start("");
    let chaos = Chaos::before(broker.port()).await;
    let queue = Queue::new();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let keys: Vec<Key> = ["a", "b", "alarm"]
        .iter()
        .map(|n| Key { class: Name::new("raw").unwrap(), stream: Name::new(n).unwrap(), urgent: *n == "alarm" })
        .collect();
    for i in 1..=3000_u64 {
        for key in &keys {
            queue.append(
                key,
                Row { seq: Seq(i), stamp: clock.stamp(), body: Bytes::from(vec![7; rng.random_range(10..200)]) },
            );
        }
    }
    chaos.plan((0..30).map(|_| Fault::any(&mut rng, 60_000)).collect::<Vec<_>>());
    let link = Config { port: chaos.port(), answer_timeout_ms: 150, connect_timeout_ms: 300, ..Config::default() };
    let mut receiver = Receiver::new(
        Config { port: broker.port(), ..Config::default() },
        ReceiverConfig::default(),
        "collect",
        clock.clone(),
    )
    .unwrap();
    receiver.connect().await.unwrap();
    let uplink = MqttUplink::new(link, "press", clock.clone()).unwrap();
    let config = SyncConfig {
        retry_first_ms: 5,
        retry_most_ms: 20,
        batch_rows: 100,
        batch_bytes: 8000,
        ..SyncConfig::default()
    };
    let sync =
        Sync::new(queue.clone(), uplink, Name::new("press").unwrap(), clock.clone(), config, StdRng::seed_from_u64(1));
    let metrics = sync.metrics().clone();
    let stop = CancellationToken::new();
    let running = tokio::spawn(sync.run(stop.clone()));
    let mut got: BTreeMap<String, BTreeMap<u64, usize>> = BTreeMap::new();
    let mut total = 0;
    while got.values().map(BTreeMap::len).sum::<usize>() < 9000 {
        let d = tokio::time::timeout(Duration::from_secs(20), receiver.next()).await.expect("stalled").unwrap();
        receiver.acknowledge(d.token);
        let (batch, _) = Batch::decode(&d.payload, &Limits::default()).unwrap();
        for row in batch.rows {
            *got.entry(batch.stream.to_string()).or_default().entry(row.seq.0).or_default() += 1;
            total += 1;
        }
    }
    let mut deletions = queue.deletions.subscribe();
    while queue.rows.lock().unwrap().values().any(|r| !r.is_empty()) {
        tokio::time::timeout(Duration::from_secs(20), deletions.changed()).await.expect("not drained").unwrap();
    }
    stop.cancel();
    running.await.unwrap();
    println!(
        "seed {seed}: rows 9000, deliveries {total}, connections {}, resent {} failures {}",
        chaos.connections(),
        metrics.resent.get(),
        metrics.failures.get()
    );
}
