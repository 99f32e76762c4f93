//! One flipped bit in any page of the file: the process starts, a wrong row is never served, and if the file cannot be
//! used on, the next start begins a new epoch. The file has rows of every table of the queue and of the broker: rows and
//! blocks, the ledger, acknowledged ranges; sessions, subscriptions, waiting and retained messages, held packet ids.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use forebay::base::{Clock, Epoch, ManualClock, Name, Receipt, Seq};
use forebay::broker::{self, Broker, Hello, Link, Message, Options, Outgoing, Publication, Qos, Subscribe};
use forebay::outbox::{self, BatchId, BatchLimits, Class, Envelope, GapReason, Outbox, StreamKey};
use forebay::store::{self, Store, Tx};
use rand::{Rng, SeedableRng};

const ROWS: u64 = 60;
/// Acknowledged out of order: no rows any more.
const ACKED: (u64, u64) = (3, 7);
/// Given up: in the ledger.
const GIVEN_UP: [u64; 2] = [10, 12];
/// Messages that wait for a client.
const KEPT: u16 = 40;

fn open(folder: &Path) -> (Store, Option<Outbox>, Epoch, bool) {
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    let config = store::Config::at(folder);
    let schemas = [outbox::SCHEMA, broker::SCHEMA];
    let (store, opened) = Store::open(&config, &schemas, Arc::<ManualClock>::clone(&clock))
        .unwrap_or_else(|error| panic!("the store must open: {error:?}"));
    let pack = outbox::PackConfig { block_rows: 16, ..outbox::PackConfig::default() };
    let config = outbox::Config { pack, ..outbox::Config::default() };
    let outbox = Outbox::open(&config, &store, opened.epoch, clock);
    if let Err(error) = &outbox {
        assert!(error.is_corruption(), "{error:?}");
    }
    let outbox = outbox.ok();
    (store, outbox, opened.epoch, opened.quarantined.is_some())
}

fn body(class: Class, seq: u64) -> Vec<u8> {
    format!("{} {seq} ", class.as_str()).repeat(20).into_bytes()
}

async fn fill(folder: &Path) {
    let (store, outbox, _, _) = open(folder);
    let outbox = outbox.unwrap();
    let stamp = ManualClock::at(1_700_000_000_000).stamp();
    for class in [Class::Alarm, Class::Raw] {
        let stream = outbox.stream(StreamKey::new(Name::new("press").unwrap(), class)).unwrap();
        // Half of the rows in blocks, because they come together, and the rest single.
        for numbers in std::iter::once(1..=ROWS / 2).chain((ROWS / 2 + 1..=ROWS).map(|seq| seq..=seq)) {
            let outbox = outbox.clone();
            let work = move |tx: &Tx<'_>| {
                numbers.into_iter().try_for_each(|seq| {
                    let envelope = Envelope { body: body(class, seq), stamp };
                    outbox.append(tx, &stream, &envelope).map(|given| assert_eq!(given.0, seq))
                })
            };
            store.writer().commit(1, work).await.unwrap();
        }
    }
    let raw = outbox.stream(StreamKey::new(Name::new("press").unwrap(), Class::Raw)).unwrap();
    let acked = BatchId { stream: raw, first: Seq(ACKED.0), last: Seq(ACKED.1) };
    let deleting = outbox.clone();
    store.writer().commit(1, move |tx| deleting.delete(tx, &acked)).await.unwrap();
    for seq in GIVEN_UP {
        outbox.give_up(raw, Seq(seq), GapReason::Unsendable).await.unwrap();
    }
    fill_broker(&store).await;
    outbox.close().unwrap();
    store.close();
}

fn hello(client: &str) -> Hello {
    let (client, owner) = (client.into(), "anybody".into());
    Hello { client, owner, clean_start: false, expiry_s: u32::MAX, will: None, receive_maximum: 500 }
}

/// The broker with what runs beside it.
struct Running {
    broker: Broker,
    stop: tokio_util::sync::CancellationToken,
    tasks: tokio_util::task::TaskTracker,
}

async fn broker(store: &Store) -> Result<Running, broker::Error> {
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    let broker = Broker::open(broker::Config::default(), store, clock).await?;
    let (stop, tasks) = (tokio_util::sync::CancellationToken::new(), tokio_util::task::TaskTracker::new());
    tasks.spawn(broker.clone().run(stop.clone()));
    Ok(Running { broker, stop, tasks })
}

impl Running {
    async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Returns when the message's rows are on the disk.
    async fn publish(&self, topic: &str, payload: String, retain: bool) -> bool {
        let (told, heard) = tokio::sync::oneshot::channel();
        let receipt = Receipt::new(move |outcome| {
            let _ = told.send(outcome.is_ok());
        });
        let message = Message::new(topic, payload, Qos::AtLeastOnce);
        let message = if retain { message.retained() } else { message };
        self.broker.publish(message, receipt).await;
        heard.await.unwrap_or(false)
    }
}

async fn subscribe(link: &mut Link) -> bool {
    let wanted = vec![Subscribe { filter: "plant/#".into(), options: Options::at(Qos::AtLeastOnce) }];
    link.subscribe(wanted).await.is_ok()
}

async fn fill_broker(store: &Store) {
    let running = broker(store).await.unwrap();
    for client in ["keeper", "other"] {
        let mut link = running.broker.connect(hello(client)).await.unwrap().link;
        assert!(subscribe(&mut link).await);
        // A packet id that is not released.
        let mut topic = link.topic("nobody").unwrap();
        let publication = Publication {
            waits: false,
            payload: b"x".to_vec().into(),
            qos: Qos::ExactlyOnce,
            retain: false,
            packet_id: 5,
            expiry_s: None,
            properties: Default::default(),
        };
        if let Some(waiting) = link.publish(&mut topic, publication) {
            waiting.await;
        }
        link.leave(broker::Leaving::Normal, None);
    }
    for n in 1..=KEPT {
        assert!(running.publish("plant/press", format!("keep {n}"), false).await);
    }
    for n in 1..=5 {
        assert!(running.publish(&format!("state/{n}"), format!("state {n}"), true).await);
    }
    running.end().await;
}

/// Everything the broker serves, checked. False if the file cannot be used on.
async fn serve(store: &Store, what: &str) -> bool {
    let running = match broker(store).await {
        Ok(running) => running,
        Err(broker::Error::Load(error)) => {
            assert!(error.is_corruption(), "{what}: {error:?}");
            return false;
        }
        Err(error) => panic!("{what}: {error:?}"),
    };
    let is_usable = serve_all(store, &running, what).await;
    running.end().await;
    is_usable
}

async fn serve_all(store: &Store, running: &Running, what: &str) -> bool {
    let mut served = 0;
    for client in ["keeper", "other"] {
        let Ok(welcome) = running.broker.connect(hello(client)).await else { return false };
        let mut link = welcome.link;
        // Who is told that its session is there need not subscribe.
        if !welcome.session_present && !subscribe(&mut link).await {
            return false;
        }
        let seen = link.subscribe(vec![Subscribe { filter: "state/+".into(), options: Options::at(Qos::AtMostOnce) }]);
        let Ok((_, replay)) = seen.await else { return false };
        link.replay(replay);
        if !running.publish("plant/end", format!("the end of {client}"), false).await {
            return false;
        }
        let Some(count) = receive(store, &mut link, client, what).await else { return false };
        served += count;
    }
    // What the broker had to say about it is behind this.
    if store.writer().commit(0, |_| Ok(())).await.is_err() || *store.health().borrow() != store::Health::Good {
        return false;
    }
    let read = |connection: &rusqlite::Connection| broker::losses(connection, 10);
    let Ok(losses) = store.reader().read(read).await else { return false };
    let lost: u64 = losses.iter().map(|loss| loss.messages).sum();
    assert!(served + lost >= 2 * u64::from(KEPT), "{what}: {served} served, {losses:?}");
    true
}

/// How many waited; None if the file turns out to be damaged.
async fn receive(store: &Store, link: &mut Link, client: &str, what: &str) -> Option<u64> {
    let mut health = store.health();
    if *health.borrow_and_update() != store::Health::Good {
        return None;
    }
    let (mut waited, mut ended) = (0, false);
    while !ended {
        let mut out = Vec::new();
        link.drain(1 << 20, &mut out);
        if out.is_empty() {
            tokio::select! {
                () = std::future::poll_fn(|context| link.poll_work(context)) => continue,
                _ = health.changed() => {
                    if matches!(*health.borrow_and_update(), store::Health::Failing { .. }) {
                        return None;
                    }
                    continue;
                }
            }
        }
        for packet in out {
            let Outgoing::Publish { message, packet_id, .. } = packet else { continue };
            let text = String::from_utf8(message.payload.to_vec()).unwrap_or_default();
            let is_good = match &*message.topic {
                "plant/press" => (1..=KEPT).any(|n| text == format!("keep {n}")),
                "plant/end" => text.starts_with("the end of"),
                topic => (1..=5).any(|n| (topic, &*text) == (&*format!("state/{n}"), &*format!("state {n}"))),
            };
            assert!(is_good, "{what}: {} {text:?} was never said", message.topic);
            waited += u64::from(&*message.topic == "plant/press");
            ended |= text == format!("the end of {client}");
            if packet_id > 0 {
                link.acknowledged(packet_id, broker::Acknowledgement::Puback);
                link.wake_others();
            }
        }
    }
    Some(waited)
}

/// Everything the queue serves, checked. False if the file cannot be used on.
async fn drain(store: &Store, outbox: &Outbox, what: &str) -> bool {
    let mut accounted: BTreeMap<Class, BTreeSet<u64>> = BTreeMap::new();
    for _ in 0..2 * ROWS {
        let batch = match outbox.next_batch(&BatchLimits { rows: 10, bytes: 1 << 20 }, &[]).await {
            Ok(Some(batch)) => batch,
            Ok(None) => {
                for (class, numbers) in accounted {
                    let is_acked = |seq: &u64| class == Class::Raw && (ACKED.0..=ACKED.1).contains(seq);
                    let missing: Vec<u64> = (1..=ROWS).filter(|seq| !numbers.contains(seq) && !is_acked(seq)).collect();
                    assert_eq!(missing, [0; 0], "{what}: {} has numbers that nobody accounts for", class.as_str());
                }
                return true;
            }
            Err(error) => {
                assert!(error.is_corruption(), "{what}: {error:?}");
                return false;
            }
        };
        for row in &batch.rows {
            assert_eq!(row.body, body(batch.stream.class, row.seq.0), "{what}: a wrong row was served");
        }
        for gap in &batch.gaps {
            assert!(gap.reason != GapReason::Rollback, "{what}: nothing failed");
        }
        let numbers = accounted.entry(batch.stream.class).or_default();
        numbers.extend(batch.rows.iter().map(|row| row.seq.0));
        numbers.extend(batch.gaps.iter().flat_map(|gap| gap.first.0..=gap.last.0));
        let outbox = outbox.clone();
        if store.writer().commit(1, move |tx| outbox.delete(tx, &batch.id)).await.is_err() {
            return false;
        }
    }
    panic!("{what}: the queue never ends");
}

#[tokio::test]
async fn a_flipped_bit_anywhere_is_never_served_and_never_stops_the_process() {
    let original = tempfile::tempdir().unwrap();
    fill(original.path()).await;
    let bytes = std::fs::read(original.path().join("forebay.db")).unwrap();
    let mut rng = rand::rngs::StdRng::seed_from_u64(7);
    let (mut used_on, mut began_anew) = (0, 0);
    for page in 0..bytes.len() / 4096 {
        // A page's first bytes hold its structure, where a flip hurts most; a page of a small table is mostly empty, so
        // some flips are among what it holds.
        let held: Vec<usize> = (0..4096).filter(|at| bytes[page * 4096 + at] != 0).collect();
        for reach in [12, 12, 4096, 0, 0, 0] {
            let folder = tempfile::tempdir().unwrap();
            let within = match reach {
                0 if held.is_empty() => continue,
                0 => held[rng.random_range(0..held.len())],
                reach => rng.random_range(0..reach),
            };
            let (at, bit) = (page * 4096 + within, rng.random_range(0..8));
            let what = format!("bit {bit} of byte {at}");
            let mut spoiled = bytes.clone();
            spoiled[at] ^= 1 << bit;
            std::fs::write(folder.path().join("forebay.db"), spoiled).unwrap();
            std::fs::copy(original.path().join("epoch"), folder.path().join("epoch")).unwrap();
            let (store, outbox, epoch, quarantined) = open(folder.path());
            let usable = match &outbox {
                Some(outbox) => drain(&store, outbox, &what).await && (quarantined || serve(&store, &what).await),
                None => false,
            };
            drop(outbox);
            store.close();
            if usable && !quarantined {
                used_on += 1;
                continue;
            }
            began_anew += 1;
            let (store, outbox, next, _) = open(folder.path());
            assert!(quarantined || next > epoch, "{what}: a file that cannot be used on must be set aside");
            let outbox = outbox.unwrap_or_else(|| panic!("{what}: the second start must work"));
            assert!(drain(&store, &outbox, &what).await, "{what}: after the second start");
        }
    }
    assert!(used_on > 20 && began_anew > 5, "{used_on} used on, {began_anew} began anew: the flips hit nothing");
}
