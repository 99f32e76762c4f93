//! Queue to inbox through a real broker and lines that fail in every way: all rows, each once, nothing left behind.

use std::collections::BTreeMap;
use std::path::Path;

use forebay::outbox::Class;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::chaos::{Chaos, Fault};
use crate::fleet::{Collector, Gateway, brisk, clock, impatient, trusting};
use crate::mosquitto::Mosquitto;

const CLASSES: [Class; 3] = [Class::Alarm, Class::Verdict, Class::Raw];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_arrives_once_whatever_the_lines_do_and_whoever_is_killed() {
    let mut connections = 0;
    for seed in 0..3 {
        connections += one_bad_day(seed).await;
    }
    assert!(connections > 30, "the lines were too good to prove anything: {connections} connections");
}

/// 3,600 rows, both ends killed and reopened three times, both lines cut, held, reset, late and swallowing answers.
/// Gives the number of connections that it took.
async fn one_bad_day(seed: u64) -> usize {
    let mut rng = StdRng::seed_from_u64(seed);
    let broker = Mosquitto::start("");
    let (up, down) = (Chaos::before(broker.port()).await, Chaos::before(broker.port()).await);
    let (sender, receiver) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());

    // The broker has to know the receiver's session before anything is sent to it.
    let mut collector = Collector::open(receiver.path());
    let mut collect = collector.collect_from(broker.port());
    subscribed(&broker).await;

    up.plan((0..25).map(|_| Fault::any(&mut rng, 30_000)).collect::<Vec<_>>());
    down.plan((0..25).map(|_| Fault::any_loud(&mut rng, 300)).collect::<Vec<_>>());
    let mut sent: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for life in 0..4_u8 {
        let gateway = Gateway::open(sender.path(), "press-7");
        let sync = gateway.sync_to(up.port(), brisk());
        let streams = CLASSES.map(|class| (class, gateway.stream(class, "temperature")));
        for part in 0..10_u8 {
            for (class, stream) in streams {
                let rows: Vec<_> =
                    (0..30_u8).map(|row| [vec![life, part, row], vec![7; rng.random_range(0..200)]].concat()).collect();
                sent.entry(class.as_str().to_owned()).or_default().extend(rows.clone());
                gateway.append(stream, rows).await;
            }
        }
        collect.kill().await;
        collector.store.close();
        collector = Collector::open(receiver.path());
        collect = collector.collect_from(down.port());
        if life < 3 {
            // Neither the flow nor the queue gets to say goodbye: reserved numbers are burned.
            let some = collector.report().await.received() + u64::from(life) * 100;
            collector.received(some.min(900 * (u64::from(life) + 1))).await;
            sync.kill().await;
            gateway.store.close();
        } else {
            gateway.drained().await;
            let report = collector.received(3600).await;
            assert_eq!((report.received(), report.missing()), (3600, 0), "seed {seed}: {report:?}");
            assert!(report.series.iter().all(|series| series.readings_lost == 0), "seed {seed}: {report:?}");
            sync.stop().await;
        }
    }
    let mut arrived: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for (_, class, _, body) in collector.bodies().await {
        arrived.entry(class).or_default().push(body);
    }
    assert!(arrived == sent, "seed {seed}: the same rows in the same order, each once");
    collect.stop().await;
    up.connections() + down.connections()
}

/// Returns once the broker keeps messages for the collector.
async fn subscribed(broker: &Mosquitto) {
    use forebay::uplink::{Answer, Message, MqttUplink, Uplink};
    let mut probe = MqttUplink::new(impatient(broker.port()), "probe", clock()).unwrap();
    probe.connect().await.unwrap();
    loop {
        let topic = "fleet/v1/acme/probe/raw/probe".to_owned();
        probe.submit(1, Message { topic, payload: "not a batch".into() }).unwrap();
        if probe.answer().await.unwrap().1 == Answer::Acknowledged {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_effect_and_acknowledgement_the_effect_is_once() {
    let broker = Mosquitto::start("");
    let (sender, receiver) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut collector = Collector::open(receiver.path());
    let mut collect = collector.collect_from(broker.port());
    subscribed(&broker).await;
    collect.stop().await;

    let gateway = Gateway::open(sender.path(), "press-7");
    let stream = gateway.stream(Class::Raw, "temperature");
    gateway.append(stream, (0..200_u8).map(|row| vec![row])).await;
    let sync = gateway.sync_to(broker.port(), trusting());
    gateway.drained().await;
    sync.stop().await;

    // CONNACK and SUBACK are short; from the first batch on the client's side is mute, so that no PUBACK arrives.
    let chaos = Chaos::before(broker.port()).await;
    chaos.plan([Fault::MuteOnceTold(100); 3]);
    for _ in 0..3 {
        collect = collector.collect_from(chaos.port());
        // The effect of every batch is committed, and its acknowledgement is on a line that carries none.
        while collect.metrics.batches.get() < 4 {
            tokio::task::yield_now().await;
        }
        collect.kill().await;
        collector.store.close();
        collector = Collector::open(receiver.path());
    }
    let report = collector.report().await;
    assert_eq!((report.received(), report.missing(), report.duplicates()), (200, 0, 400));
    assert_eq!(collector.bodies().await.len(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_committed_is_not_acknowledged() {
    let broker = Mosquitto::start("");
    let (sender, receiver) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let collector = Collector::open(receiver.path());
    let collect = collector.collect_from(broker.port());
    subscribed(&broker).await;
    while collect.metrics.rejected.get() == 0 {
        tokio::task::yield_now().await;
    }
    let before = collect.metrics.messages.get();
    // The disk takes for ever: everything behind this waits.
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let stuck = move |_: &forebay::store::Tx<'_>| {
        let _ = wait.recv();
        Ok(())
    };
    collector.store.writer().submit(0, stuck, |_| ()).await.unwrap();
    let gateway = Gateway::open(sender.path(), "press-7");
    let stream = gateway.stream(Class::Raw, "temperature");
    let sync = gateway.sync_to(broker.port(), trusting());
    for part in 0..8_u8 {
        // Each message gives an acknowledgement of the one before it the time of a round trip to leave.
        gateway.append(stream, (0..25).map(|row| vec![part, row])).await;
        gateway.drained().await;
        while collect.metrics.messages.get() <= before + u64::from(part) {
            tokio::task::yield_now().await;
        }
    }
    sync.stop().await;
    assert_eq!(collect.metrics.batches.get(), 0);
    collect.kill().await;
    let killed = as_a_kill_leaves_it(receiver.path());
    go_on.send(()).unwrap();

    let collector = Collector::open(killed.path());
    assert_eq!(collector.report().await.received(), 0);
    let collect = collector.collect_from(broker.port());
    let report = collector.received(200).await;
    assert_eq!((report.received(), report.missing()), (200, 0));
    collect.stop().await;
}

/// The files as they are now, without the index that lives in memory.
fn as_a_kill_leaves_it(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if !path.to_string_lossy().ends_with("-shm") {
            std::fs::copy(&path, to.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    to
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_gateways_are_kept_apart() {
    let broker = Mosquitto::start("");
    let receiver = tempfile::tempdir().unwrap();
    let collector = Collector::open(receiver.path());
    let collect = collector.collect_from(broker.port());
    for gateway in ["press-7", "press-8", "lathe-1"] {
        let folder = tempfile::tempdir().unwrap();
        let gateway = Gateway::open(folder.path(), gateway);
        let stream = gateway.stream(Class::Verdict, "temperature");
        gateway.append(stream, (0..100_u8).map(|row| vec![row])).await;
        let sync = gateway.sync_to(broker.port(), brisk());
        gateway.drained().await;
        sync.stop().await;
    }
    let report = collector.received(300).await;
    let series: Vec<_> = report.series.iter().map(|series| (series.gateway.as_str(), series.received)).collect();
    assert_eq!(series, [("lathe-1", 100), ("press-7", 100), ("press-8", 100)]);
    collect.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_put_aside_and_does_not_come_again() {
    use forebay::uplink::{Answer, Message, MqttUplink, Uplink};
    let broker = Mosquitto::start("");
    let receiver = tempfile::tempdir().unwrap();
    let collector = Collector::open(receiver.path());
    let collect = collector.collect_from(broker.port());
    subscribed(&broker).await;
    // A batch that says of itself that another gateway made it.
    let stranger = tempfile::tempdir().unwrap();
    let gateway = Gateway::open(stranger.path(), "press-7");
    gateway.append(gateway.stream(Class::Raw, "temperature"), [vec![1]]).await;
    let fake = forebay::uplink::FakeUplink::new(1, 100_000);
    let taken = fake.taken();
    let sync = gateway.sync(fake, brisk());
    gateway.drained().await;
    sync.stop().await;
    let payload = taken.lock().unwrap()[0].payload.clone();
    let mut liar = MqttUplink::new(impatient(broker.port()), "liar", clock()).unwrap();
    liar.connect().await.unwrap();
    liar.submit(1, Message { topic: "fleet/v1/acme/press-8/raw/temperature".to_owned(), payload }).unwrap();
    assert_eq!(liar.answer().await.unwrap().1, Answer::Acknowledged);
    while collect.metrics.rejected.get() < 2 {
        tokio::task::yield_now().await;
    }
    collect.stop().await;
    let rejected = |connection: &rusqlite::Connection| {
        let mut statement = connection.prepare("SELECT DISTINCT reason FROM collect_rejected ORDER BY id")?;
        let reasons = statement.query_map([], |row| row.get::<_, String>(0))?;
        Ok(reasons.collect::<Result<Vec<_>, _>>()?)
    };
    let reasons = collector.store.reader().read(rejected).await.unwrap();
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert!(reasons[0].starts_with("failed to read the batch: "), "{reasons:?}");
    assert_eq!(reasons[1], "the batch is of another gateway or stream than its topic");
    assert_eq!(collector.report().await.received(), 0);

    let again = collector.collect_from(broker.port());
    let gateway = Gateway::open(stranger.path(), "press-7");
    gateway.append(gateway.stream(Class::Raw, "temperature"), [vec![2]]).await;
    let sync = gateway.sync_to(broker.port(), brisk());
    collector.received(1).await;
    assert_eq!(again.metrics.rejected.get(), 0);
    sync.stop().await;
    again.stop().await;
}
