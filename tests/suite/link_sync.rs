//! The sync flow on a real queue, with links that do as told.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use forebay::flows::{Batch, Limits, SyncConfig};
use forebay::outbox::Class;
use forebay::uplink::{Answer, FailingUplink, FakeUplink, Fault, Message};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::fleet::{Gateway, brisk};

fn decoded(taken: &Arc<Mutex<Vec<Message>>>) -> Vec<Batch> {
    let taken = taken.lock().unwrap();
    taken.iter().map(|message| Batch::decode(&message.payload, &Limits::default()).unwrap().batch).collect()
}

fn bodies(batches: &[Batch]) -> Vec<Vec<u8>> {
    batches.iter().flat_map(|batch| batch.rows.iter().map(|row| row.body.to_vec())).collect()
}

fn numbered(count: u32) -> impl Iterator<Item = Vec<u8>> {
    (0..count).map(|number| number.to_be_bytes().to_vec())
}

#[tokio::test]
async fn a_queue_leaves_in_order_in_full_batches_and_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::open(folder.path(), "press-7");
    let stream = gateway.stream(Class::Raw, "temperature");
    gateway.append(stream, numbered(1000)).await;
    let uplink = FakeUplink::new(4, 100_000);
    let taken = uplink.taken();
    let sync = gateway.sync(uplink, SyncConfig { batch_rows: 100, ..brisk() });
    gateway.drained().await;
    assert_eq!(sync.metrics.rows.get(), 1000);
    sync.stop().await;
    let batches = decoded(&taken);
    assert_eq!(batches.len(), 10);
    assert_eq!(bodies(&batches), numbered(1000).collect::<Vec<_>>());
    assert_eq!(taken.lock().unwrap()[0].topic, "fleet/v1/acme/press-7/raw/temperature");
}

#[tokio::test]
async fn rows_wait_for_company_and_alarms_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::open(folder.path(), "press-7");
    let (raw, alarm) = (gateway.stream(Class::Raw, "temperature"), gateway.stream(Class::Alarm, "temperature"));
    let uplink = FakeUplink::new(4, 100_000);
    let taken = uplink.taken();
    let hour = 3_600_000;
    let sync = gateway.sync(uplink, SyncConfig { linger_ms: hour, batch_rows: 100, ..brisk() });
    // The first look at a queue does not wait; an alarm shows that it is over.
    gateway.append(alarm, numbered(1)).await;
    gateway.drained().await;
    gateway.append(raw, numbered(99)).await;
    gateway.append(alarm, numbered(1)).await;
    while sync.metrics.batches.get() < 2 {
        tokio::task::yield_now().await;
    }
    let urgent = decoded(&taken);
    assert!(urgent.iter().all(|batch| batch.class.as_str() == "alarm"), "{urgent:?}");
    gateway.append(raw, numbered(1)).await;
    gateway.drained().await;
    assert_eq!(decoded(&taken).last().unwrap().rows.len(), 100, "a full batch goes at once");
    sync.stop().await;
}

#[tokio::test]
async fn a_refused_stream_waits_and_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::open(folder.path(), "press-7");
    let (raw, alarm) = (gateway.stream(Class::Raw, "temperature"), gateway.stream(Class::Alarm, "temperature"));
    gateway.append(alarm, numbered(10)).await;
    gateway.append(raw, numbered(10)).await;
    let refusals = [Answer::NoSubscriber, Answer::Refused { reason: "quota exceeded".to_owned() }].map(Fault::Answer);
    let uplink =
        FailingUplink::new(1, 0, [refusals[0].clone(), Fault::Answer(Answer::Acknowledged), refusals[1].clone()]);
    let taken = uplink.taken();
    let sync = gateway.sync(uplink, brisk());
    gateway.drained().await;
    sync.stop().await;
    let classes: Vec<_> = decoded(&taken).iter().map(|batch| batch.class.to_string()).collect();
    assert_eq!(classes, ["raw", "alarm"], "the alarms were refused twice, and are not lost");
}

#[tokio::test]
async fn whatever_the_link_does_every_row_is_taken_and_none_is_deleted_before() {
    for seed in 0..20 {
        let mut rng = StdRng::seed_from_u64(seed);
        let script: Vec<Fault> = (0..60)
            .map(|_| match rng.random_range(0..8) {
                0 => Fault::LoseAfterTaking,
                1 => Fault::LoseBeforeTaking,
                2 => Fault::Answer(Answer::NoSubscriber),
                3 => Fault::Answer(Answer::Refused { reason: "quota exceeded".to_owned() }),
                _ => Fault::Answer(Answer::Acknowledged),
            })
            .collect();
        let folder = tempfile::tempdir().unwrap();
        let gateway = Gateway::open(folder.path(), "press-7");
        let streams = [Class::Alarm, Class::Verdict, Class::Raw].map(|class| gateway.stream(class, "temperature"));
        let uplink = FailingUplink::new(rng.random_range(1..5), 2, script);
        let taken = uplink.taken();
        let config = SyncConfig { batch_rows: 7, retry_first_ms: 1, retry_most_ms: 2, linger_ms: 1, ..brisk() };
        let sync = gateway.sync(uplink, config);
        for part in 0..10_u8 {
            for (stream, at) in streams.iter().zip(0..) {
                gateway.append(*stream, (0..10).map(|row| vec![at, part, row])).await;
            }
        }
        gateway.drained().await;
        sync.stop().await;
        let different: BTreeSet<_> = bodies(&decoded(&taken)).into_iter().collect();
        assert_eq!(different.len(), 300, "seed {seed}");
        gateway.store.close();
    }
}

#[tokio::test]
async fn a_row_too_large_for_the_far_side_is_declared_lost_and_the_stream_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::open(folder.path(), "press-7");
    let stream = gateway.stream(Class::Raw, "temperature");
    gateway.append(stream, numbered(3)).await;
    gateway.append(stream, [vec![0; 10_000]]).await;
    gateway.append(stream, numbered(3)).await;
    gateway.append(stream, [vec![0; 10_000]]).await;
    let uplink = FakeUplink::new(4, 4096);
    let taken = uplink.taken();
    let sync = gateway.sync(uplink, SyncConfig { compress: false, ..brisk() });
    gateway.drained().await;
    // The last entry of the ledger has no row behind it, and is sent all the same.
    let gaps = || decoded(&taken).into_iter().flat_map(|batch| batch.gaps).collect::<Vec<_>>();
    while gaps().len() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(sync.metrics.unsendable.get(), 2);
    sync.stop().await;
    let told: Vec<_> = gaps().iter().map(|gap| (gap.first.0, gap.last.0, gap.count, gap.reason.clone())).collect();
    assert_eq!(told, [(4, 4, 1, "unsendable".to_owned()), (8, 8, 1, "unsendable".to_owned())]);
    assert_eq!(bodies(&decoded(&taken)).len(), 6);
}

#[tokio::test]
async fn a_far_side_with_small_messages_gets_small_batches() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::open(folder.path(), "press-7");
    let stream = gateway.stream(Class::Raw, "temperature");
    gateway.append(stream, numbered(500)).await;
    let uplink = FakeUplink::new(4, 1000);
    let taken = uplink.taken();
    let sync = gateway.sync(uplink, SyncConfig { batch_rows: 500, batch_bytes: 65_536, ..brisk() });
    gateway.drained().await;
    sync.stop().await;
    assert_eq!(bodies(&decoded(&taken)), numbered(500).collect::<Vec<_>>());
    assert!(taken.lock().unwrap().iter().all(|message| message.payload.len() <= 1000));
}

#[tokio::test]
async fn readings_travel_compressed_and_arrive_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::open(folder.path(), "press-7");
    let stream = gateway.stream(Class::Raw, "temperature");
    let reading =
        |n: u32| format!("{{\"time\":\"2026-11-21T03:{:02}:{:02}Z\",\"value\":{}.5}}", n / 60, n % 60, 70 + n % 7);
    let readings: Vec<Vec<u8>> = (0..500).map(|n| reading(n).into_bytes()).collect();
    gateway.append(stream, readings.clone()).await;
    let uplink = FakeUplink::new(4, 100_000);
    let taken = uplink.taken();
    let sync = gateway.sync(uplink, SyncConfig { batch_rows: 500, batch_bytes: 65_536, ..brisk() });
    gateway.drained().await;
    let (plain, sent) = (sync.metrics.bytes.get(), sync.metrics.sent_bytes.get());
    sync.stop().await;
    assert_eq!(bodies(&decoded(&taken)), readings);
    eprintln!("{plain} bytes travel as {sent}");
    assert!(sent * 4 < plain, "{plain} bytes travel as {sent}");
}
