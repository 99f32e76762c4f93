//! A file that an older release left behind, with its queue full, is used on: `tests/fixtures/old/make.py` says what is in
//! it and how it was made.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use forebay::base::{Clock, Epoch, ManualClock, Name};
use forebay::broker::{self, Acknowledgement, Broker, Hello, Leaving, Options, Outgoing, Qos, Subscribe};
use forebay::flows::record::{self, VerdictRecord};
use forebay::history;
use forebay::outbox::{self, Batch, BatchLimits, Class, ClassConfig, GapReason, Outbox, Policy, StreamKey};
use forebay::store::{self, Schema, Store, Tx};
use rusqlite::OptionalExtension as _;

const SCHEMAS: [Schema; 3] = [history::SCHEMA, outbox::SCHEMA, broker::SCHEMA];

/// Every batch in order, each deleted after it was looked at.
async fn drain(store: &Store, outbox: &Outbox) -> BTreeMap<(Class, String), Vec<Batch>> {
    let mut heard: BTreeMap<(Class, String), Vec<Batch>> = BTreeMap::new();
    while let Some(batch) = outbox.next_batch(&BatchLimits { rows: 50, bytes: 1 << 20 }, &[]).await.unwrap() {
        let (again, id) = (outbox.clone(), batch.id);
        store.writer().commit_from_reserve(move |tx: &Tx<'_>| again.delete(tx, &id)).await.unwrap();
        heard.entry((batch.stream.class, batch.stream.name.to_string())).or_default().push(batch);
    }
    heard
}

fn check_press(batches: &[Batch], epoch: Epoch) {
    let mut rows = Vec::new();
    let mut gaps = Vec::new();
    for batch in batches {
        assert_eq!(batch.epoch, epoch, "a new release is no new epoch");
        for row in &batch.rows {
            let record: VerdictRecord = record::decode("verdict", &row.body).unwrap();
            // The number jumped over what a kill had reserved.
            let n = if row.seq.0 <= 600 { row.seq.0 } else { row.seq.0 - 2048 + 600 };
            assert_eq!((record.id.as_deref(), &record.values[..]), (Some(&*n.to_string()), &[Some(n as f64)][..]));
            rows.push(row.seq.0);
        }
        gaps.extend(batch.gaps.iter().map(|gap| (gap.first.0, gap.last.0, gap.count, gap.reason)));
    }
    let wanted: Vec<u64> = (101..=150).chain(201..=600).chain(2049..=2248).collect();
    assert_eq!(rows, wanted, "what the cloud has is not sent again, everything else is");
    assert!(gaps.contains(&(601, 2048, 0, GapReason::Restart)), "{gaps:?}");
}

async fn check_broker(store: &Store, clock: &Arc<ManualClock>) {
    let broker = Broker::open(broker::Config::default(), store, Arc::<ManualClock>::clone(clock)).await.unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let running = tokio_util::task::TaskTracker::new();
    running.spawn(broker.clone().run(stop.clone()));
    let hello = Hello {
        client: "keeper".into(),
        owner: "anonymous".into(),
        clean_start: false,
        expiry_s: u32::MAX,
        will: None,
        receive_maximum: 10,
    };
    let welcome = match broker.connect(hello.clone()).await {
        Err(broker::Error::Owner { .. }) => panic!("the session belongs to somebody else"),
        welcome => welcome.unwrap(),
    };
    assert!(welcome.session_present);
    let mut link = welcome.link;
    let mut seen = Vec::new();
    while seen.len() < 40 {
        let mut out = Vec::new();
        link.drain(1 << 20, &mut out);
        if out.is_empty() {
            std::future::poll_fn(|context| link.poll_work(context)).await;
        }
        for packet in out {
            let Outgoing::Publish { message, packet_id, .. } = packet else { panic!("{packet:?}") };
            seen.push(String::from_utf8(message.payload.to_vec()).unwrap());
            link.acknowledged(packet_id, Acknowledgement::Puback);
            link.wake_others();
        }
    }
    assert_eq!(seen, (1..=40).map(|n| format!("keep {n}")).collect::<Vec<_>>());
    let options = Options::at(Qos::AtLeastOnce);
    let (_, replay) = link.subscribe(vec![Subscribe { filter: "state/#".into(), options }]).await.unwrap();
    link.replay(replay);
    let mut out = Vec::new();
    // Its row is on the disk before it is sent.
    while out.is_empty() {
        std::future::poll_fn(|context| link.poll_work(context)).await;
        link.drain(1 << 20, &mut out);
    }
    assert!(
        matches!(&out[..], [Outgoing::Publish { message, retain: true, .. }] if &*message.payload == b"running"),
        "{out:?}"
    );
    link.leave(Leaving::Normal, None);
    stop.cancel();
    running.close();
    running.wait().await;
}

/// A body that does not get smaller.
fn noise() -> Vec<u8> {
    let byte = |n: u64| (n * n).wrapping_mul(6_364_136_223_846_793_005).to_be_bytes()[0];
    (1..=20_000).map(byte).collect()
}

/// Everything in `folder`, looked at by this release.
async fn use_on(folder: &Path, config: &store::Config, is_full: bool) {
    std::fs::create_dir_all(folder).unwrap();
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/old/0.1.0.db.zst");
    let file = zstd::decode_all(std::fs::File::open(packed).unwrap()).unwrap();
    std::fs::write(folder.join("forebay.db"), file).unwrap();
    let clock = Arc::new(ManualClock::at(1_795_300_000_000));
    for start in 0..2 {
        let (store, opened) = Store::open(config, &SCHEMAS, Arc::<ManualClock>::clone(&clock)).unwrap();
        assert!(!opened.created && opened.quarantined.is_none());
        if start == 0 {
            assert_eq!(opened.epoch, Epoch(1_795_229_839_685), "the file's own");
        }
        // Nothing makes room but the cloud.
        let block = ClassConfig { policy: Some(Policy::Block), ..ClassConfig::default() };
        let limits = outbox::Config { verdict: block, summary: block, raw: block, ..outbox::Config::default() };
        let outbox = Outbox::open(&limits, &store, opened.epoch, Arc::<ManualClock>::clone(&clock));
        let outbox = outbox.unwrap();
        let press = StreamKey::new(Name::new("press").unwrap(), Class::Verdict);
        let stream = outbox.stream(press.clone()).unwrap();
        if start == 0 {
            let waiting: BTreeMap<_, _> = outbox.depth().into_iter().collect();
            assert_eq!(waiting[&press], 650);
            let envelope = outbox::Envelope { body: noise(), stamp: clock.stamp() };
            let append = {
                let outbox = outbox.clone();
                move |tx: &Tx<'_>| outbox.append(tx, &stream, &envelope)
            };
            assert_eq!(
                store.writer().commit(20_000, append).await.is_err(),
                is_full,
                "nothing new fits into a full file"
            );
            let reads = |c: &rusqlite::Connection| {
                let no =
                    |name: &str| c.query_row("SELECT no FROM history_stream WHERE name = ?1", [name], |row| row.get(0));
                let (press, coolant) = (history::StreamNo(no("press")?), history::StreamNo(no("coolant")?));
                let values: Vec<f64> = history::tail(c, press, 1000)?.iter().map(|reading| reading.values[0]).collect();
                let standing = history::open_alert(c, coolant)?;
                let summaries = history::windows(c, coolant, 100)?.len();
                let memory: Option<Vec<u8>> = history::memory(c, press)?;
                let gone = c.query_row("SELECT 1 FROM history_rejected", [], |_| Ok(())).optional()?;
                Ok((values, standing, summaries, memory.is_some(), gone))
            };
            let (values, standing, summaries, remembers, rejected) = store.reader().read(reads).await.unwrap();
            assert_eq!(values, (1..=800).map(f64::from).collect::<Vec<_>>());
            let standing = standing.expect("the alarm stands");
            assert_eq!((standing.severity.as_str(), standing.cleared_ms), ("warning", None));
            assert_eq!((summaries, remembers, rejected), (5, true, None));
            check_broker(&store, &clock).await;
            let heard = drain(&store, &outbox).await;
            let mut press = heard[&(Class::Verdict, "press".to_owned())].clone();
            if !is_full {
                // The row that was just appended is behind all others.
                let last = press.last_mut().unwrap();
                assert_eq!(last.rows.pop().unwrap().body, noise());
            }
            check_press(&press, opened.epoch);
            let rows = |class, name: &str| {
                let batches = heard.get(&(class, name.to_owned()));
                batches.map_or(0, |batches| batches.iter().map(|batch| batch.rows.len()).sum::<usize>())
            };
            assert_eq!((rows(Class::Verdict, "coolant"), rows(Class::Alarm, "coolant")), (65, 1));
            assert_eq!(rows(Class::Summary, "press") + rows(Class::Summary, "coolant"), 18);
        } else {
            assert!(drain(&store, &outbox).await.values().flatten().all(|batch| batch.rows.is_empty()));
        }
        // There is room again, and the numbers go on.
        let envelope = outbox::Envelope { body: b"new".to_vec(), stamp: clock.stamp() };
        let append = {
            let outbox = outbox.clone();
            move |tx: &Tx<'_>| outbox.append(tx, &stream, &envelope).map(drop)
        };
        store.writer().commit(10, append).await.unwrap();
        let heard = drain(&store, &outbox).await;
        let last = heard[&(Class::Verdict, "press".to_owned())].last().unwrap();
        assert!(last.last.0 > 2248 && last.rows.last().unwrap().body == b"new");
        outbox.close().unwrap();
        store.close();
    }
}

#[tokio::test]
async fn an_old_release_s_file_upgrades_in_place() {
    let folder = tempfile::tempdir().unwrap();
    use_on(&folder.path().join("roomy"), &store::Config::at(folder.path().join("roomy")), false).await;
    // As large as the limit allows, the reserve aside.
    let state_dir = folder.path().join("full");
    let config = store::Config {
        // 320 KiB, and the first pages of four tables that later releases added.
        max_bytes: 356 << 10,
        reserve_bytes: 64 << 10,
        restart_bytes: 64 << 10,
        checkpoint_bytes: 32 << 10,
        ..store::Config::at(state_dir.clone())
    };
    use_on(&state_dir, &config, true).await;
}
