//! The whole custody against a model that remembers everything: queue, sync flow, a broker that loses, doubles, reorders
//! and forgets, and a receiver with the real inbox. Both ends are killed and restarted at any moment, the receiver also
//! between its commit and its receipt; receipts come late, twice, out of order or never; clocks jump; a disk spoils rows.
//! In the end each appended row took effect exactly once or is declared lost, and nothing left the queue before that.

mod ends;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use forebay::base::Clock as _;
use forebay::flows::AcknowledgedBy;
use forebay::outbox::Envelope;
use forebay::store::{Error, Tx};
use forebay::uplink::CloudMessage;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};

use ends::{CLASSES, Fault, Gateway, JumpingClock, Receiver, Shared, cloud, receipt};

/// Turns a run that would wait for ever into one that fails.
const WATCHDOG: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
enum Step {
    /// Rows for some streams in one transaction, which fails or not.
    Append {
        rows: Vec<u8>,
        fails: bool,
    },
    /// What the broker does with the next messages.
    Faults(Vec<Fault>),
    /// The line breaks.
    Cut,
    /// The broker forgets what it took.
    BrokerForgets,
    /// The broker brings its n-th message, and keeps it if it is to come again. The receiver may be killed after the commit.
    Deliver {
        which: usize,
        again: bool,
        killed: bool,
    },
    /// The n-th receipt arrives, and stays on its way if it is to come again.
    Receipt {
        which: usize,
        again: bool,
    },
    /// Somebody confirms what nobody sent.
    Forge,
    GatewayRestarts,
    GatewayIsKilled,
    /// The gateway's file is found corrupt, set aside and salvaged.
    FileIsSetAside,
    ReceiverRestarts,
    /// The gateway's wall clock, in ms.
    ClockJumps(i64),
    /// One bit of the n-th waiting row.
    DiskSpoils(usize),
    /// Time passes.
    Pause(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let append = (proptest::collection::vec(0_u8..3, 1..6), proptest::bool::weighted(0.15))
        .prop_map(|(rows, fails)| Step::Append { rows, fails });
    let fault = prop_oneof![
        4 => Just(Fault::Taken),
        1 => Just(Fault::TakenUnanswered),
        1 => Just(Fault::LostWithTheLine),
        1 => Just(Fault::NobodySubscribes),
        1 => Just(Fault::Refused),
    ];
    let deliver = (any::<usize>(), proptest::bool::weighted(0.2), proptest::bool::weighted(0.1))
        .prop_map(|(which, again, killed)| Step::Deliver { which, again, killed });
    let receipt =
        (any::<usize>(), proptest::bool::weighted(0.2)).prop_map(|(which, again)| Step::Receipt { which, again });
    let jump = prop_oneof![Just(-1_700_000_000_000_i64), Just(-315_360_000_000), Just(3_600_000)];
    prop_oneof![
        8 => append,
        2 => proptest::collection::vec(fault, 1..6).prop_map(Step::Faults),
        1 => Just(Step::Cut),
        1 => Just(Step::BrokerForgets),
        8 => deliver,
        8 => receipt,
        1 => Just(Step::Forge),
        1 => Just(Step::GatewayRestarts),
        1 => Just(Step::GatewayIsKilled),
        1 => Just(Step::FileIsSetAside),
        1 => Just(Step::ReceiverRestarts),
        1 => jump.prop_map(Step::ClockJumps),
        1 => any::<usize>().prop_map(Step::DiskSpoils),
        6 => (1_u8..6).prop_map(Step::Pause),
    ]
}

struct World {
    clock: Arc<JumpingClock>,
    broker: Shared,
    /// `None` while it is replaced.
    gateway: Option<Gateway>,
    receiver: Option<Receiver>,
    receipts: Vec<CloudMessage>,
    /// Bodies whose commit was acknowledged, by class.
    appended: BTreeMap<&'static str, BTreeSet<Vec<u8>>>,
    /// Bodies that the disk spoiled while they waited.
    spoiled: BTreeSet<Vec<u8>>,
    made: u64,
}

impl World {
    fn new(by: AcknowledgedBy) -> Self {
        let clock = Arc::new(JumpingClock { started: Instant::now(), offset_ms: AtomicI64::new(0) });
        let broker = Shared::default();
        let gateway = Some(Gateway::open(tempfile::tempdir().unwrap(), &clock, &broker, by));
        let receiver = Some(Receiver::open(tempfile::tempdir().unwrap(), &clock));
        let appended = CLASSES.iter().map(|class| (class.as_str(), BTreeSet::new())).collect();
        let (receipts, spoiled) = (Vec::new(), BTreeSet::new());
        Self { clock, broker, gateway, receiver, receipts, appended, spoiled, made: 0 }
    }

    fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().unwrap()
    }

    fn receiver(&self) -> &Receiver {
        self.receiver.as_ref().unwrap()
    }

    async fn append(&mut self, rows: Vec<u8>, fails: bool) {
        let (outbox, streams, stamp) =
            (self.gateway().outbox.clone(), self.gateway().streams.clone(), self.clock.stamp());
        let made: Vec<(usize, Vec<u8>)> = rows
            .into_iter()
            .map(|at| {
                self.made += 1;
                (usize::from(at), format!("row {}", self.made).into_bytes())
            })
            .collect();
        let bodies = made.clone();
        let work = move |tx: &Tx<'_>| {
            for (at, body) in bodies {
                outbox.append(tx, &streams[at], &Envelope { body, stamp })?;
            }
            if fails { Err(Error::Sql(rusqlite::Error::QueryReturnedNoRows)) } else { Ok(()) }
        };
        let outcome = self.gateway().store.writer().commit(10, work).await;
        assert_eq!(outcome.is_err(), fails);
        for (at, body) in made.into_iter().filter(|_| !fails) {
            self.appended.get_mut(CLASSES[at].as_str()).unwrap().insert(body);
        }
    }

    /// A turn for everybody else: the store's thread, the flow.
    async fn pause(&self) {
        self.gateway().store.reader().read(|_| Ok(())).await.unwrap();
        tokio::task::yield_now().await;
    }

    async fn deliver(&mut self, which: usize, again: bool, killed: bool) {
        let message = {
            let mut broker = self.broker.0.lock().unwrap();
            if broker.held.is_empty() {
                return;
            }
            let at = which % broker.held.len();
            if again || killed { broker.held[at].clone() } else { broker.held.remove(at) }
        };
        self.receiver().keep(&message).await;
        if killed {
            self.receiver = Some(self.receiver.take().unwrap().killed(&self.clock));
        } else {
            self.receipts.push(receipt(&message));
        }
    }

    fn hear(&mut self, which: usize, again: bool) {
        if self.receipts.is_empty() {
            return;
        }
        let at = which % self.receipts.len();
        let receipt = if again { self.receipts[at].clone() } else { self.receipts.remove(at) };
        let broker = self.broker.0.lock().unwrap();
        if let (Some(tell), false) = (&broker.to_gateway, broker.broken) {
            let _ = tell.try_send(receipt);
        }
    }

    async fn spoil(&mut self, which: usize) {
        let spoil = move |tx: &Tx<'_>| {
            let mut rows = tx.prepare_cached("SELECT stream_no, seq, body FROM outbox_row ORDER BY stream_no, seq")?;
            let rows: Vec<(i64, i64, Vec<u8>)> =
                rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect::<Result<_, _>>()?;
            if rows.is_empty() {
                return Ok(None);
            }
            let (stream, seq, body) = rows[which % rows.len()].clone();
            // A spoiled row may have been spoiled before: its body is no longer one of ours.
            let mut bad = body.clone();
            bad[0] ^= 1;
            tx.execute("UPDATE outbox_row SET body = ?3 WHERE stream_no = ?1 AND seq = ?2", (stream, seq, bad))?;
            Ok::<_, Error>(Some(body))
        };
        let body = self.gateway().store.writer().commit(10, spoil).await.unwrap();
        self.spoiled.extend(body);
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Append { rows, fails } => self.append(rows, fails).await,
            Step::Faults(faults) => self.broker.0.lock().unwrap().faults.extend(faults),
            Step::Cut => {
                self.broker.0.lock().unwrap().broken = true;
                self.broker.1.notify_one();
            }
            Step::BrokerForgets => self.broker.0.lock().unwrap().held.clear(),
            Step::Deliver { which, again, killed } => self.deliver(which, again, killed).await,
            Step::Receipt { which, again } => self.hear(which, again),
            Step::Forge => {
                let mut forged = self.receipts.last().map(|last| last.payload.to_vec()).unwrap_or_default();
                if let Some(byte) = forged.last_mut() {
                    *byte ^= 1;
                }
                self.receipts.push(cloud(forged));
            }
            Step::GatewayRestarts => self.replace_gateway(false).await,
            Step::GatewayIsKilled => self.replace_gateway(true).await,
            Step::FileIsSetAside => {
                let gateway = self.gateway.take().unwrap();
                self.gateway = Some(gateway.set_aside(&self.clock, &self.broker).await);
            }
            Step::ReceiverRestarts => {
                let Receiver { folder, store, .. } = self.receiver.take().unwrap();
                store.close();
                self.receiver = Some(Receiver::open(folder, &self.clock));
            }
            Step::ClockJumps(by_ms) => drop(self.clock.offset_ms.fetch_add(by_ms, Ordering::Relaxed)),
            Step::DiskSpoils(which) => self.spoil(which).await,
            Step::Pause(turns) => {
                for _ in 0..turns {
                    self.pause().await;
                }
            }
        }
    }

    async fn replace_gateway(&mut self, killed: bool) {
        let gateway = self.gateway.take().unwrap();
        let (clock, broker) = (&self.clock, &self.broker);
        let fresh = if killed { gateway.kill(clock, broker).await } else { gateway.restart(clock, broker).await };
        self.gateway = Some(fresh);
    }

    /// What left the queue is with the receiver, or the disk spoiled it.
    async fn left_too_early(&self) -> Option<String> {
        let waiting: Vec<_> = CLASSES.iter().map(|class| (class.as_str(), self.gateway().depth(*class))).collect();
        // Read after the depth: a commit in between can only add.
        let kept = self.receiver().bodies().await;
        for (class, waiting) in waiting {
            let appended = &self.appended[class];
            let safe = kept.get(class).map_or(0, Vec::len);
            let spoiled = appended.intersection(&self.spoiled).count();
            let gone = appended.len() - waiting.min(appended.len());
            if gone > safe + spoiled {
                return Some(format!("{class}: {gone} left, {safe} are kept, {spoiled} were spoiled"));
            }
        }
        None
    }

    /// Everybody works from here on.
    async fn drain(&mut self) {
        self.broker.0.lock().unwrap().faults.clear();
        let drained = async {
            loop {
                self.deliver(0, false, false).await;
                self.hear(0, false);
                self.pause().await;
                let idle = self.receipts.is_empty() && self.broker.0.lock().unwrap().held.is_empty();
                if idle && CLASSES.iter().all(|class| self.gateway().depth(*class) == 0) && self.is_settled().await {
                    return;
                }
            }
        };
        let stalled = tokio::time::timeout(WATCHDOG, drained).await.is_err();
        let depth = self.gateway().outbox.depth();
        assert!(!stalled, "it does not come to an end: {depth:?} {:?}", self.receiver().report().await);
    }

    /// Losses are told, too.
    async fn is_settled(&self) -> bool {
        let report = self.receiver().report().await;
        let kept: u64 = report.received();
        let appended: usize = self.appended.values().map(BTreeSet::len).sum();
        report.missing() == 0 && kept + report.readings_lost() >= appended as u64
    }
}

async fn run(steps: Vec<Step>) {
    let mut world = World::new(AcknowledgedBy::Receiver);
    for step in steps {
        world.step(step).await;
        assert_eq!(world.left_too_early().await, None);
    }
    account(world).await;
}

/// In the end.
async fn account(mut world: World) {
    world.drain().await;
    let report = world.receiver().report().await;
    assert_eq!(report.missing(), 0, "{report:?}");
    let kept = world.receiver().bodies().await;
    for (class, appended) in &world.appended {
        let kept = kept.get(*class).cloned().unwrap_or_default();
        let once: BTreeSet<_> = kept.iter().cloned().collect();
        assert_eq!(once.len(), kept.len(), "{class}: a row took effect twice");
        assert!(once.is_subset(appended), "{class}: a row that nobody appended");
        let gone: BTreeSet<_> = appended.difference(&once).cloned().collect();
        assert!(gone.is_subset(&world.spoiled), "{class}: lost without a reason: {gone:?}");
        let declared: u64 =
            report.series.iter().filter(|series| series.class == *class).map(|series| series.readings_lost).sum();
        assert_eq!(declared, gone.len() as u64, "{class}: what is lost is declared: {report:?}");
    }
    world.gateway().sync.abort();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_row_takes_effect_once_or_is_declared_lost_and_none_leaves_before(
        steps in proptest::collection::vec(step(), 1..70)
    ) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(steps));
    }
}

/// A new file counts from 1 again, so rows of both have the same numbers.
#[tokio::test]
async fn a_late_receipt_for_rows_of_a_file_that_was_set_aside_takes_none_of_the_new_file_away() {
    let mut world = World::new(AcknowledgedBy::Receiver);
    world.step(Step::Faults(vec![Fault::LostWithTheLine; 1000])).await;
    world.step(Step::Append { rows: vec![0, 0, 0], fails: false }).await;
    world.step(Step::FileIsSetAside).await;
    world.broker.0.lock().unwrap().faults.clear();
    let sent = async {
        while world.broker.0.lock().unwrap().held.is_empty() {
            world.pause().await;
        }
    };
    tokio::time::timeout(WATCHDOG, sent).await.unwrap();
    let salvaged = world.broker.0.lock().unwrap().held.remove(0);
    world.receiver().keep(&salvaged).await;
    world.step(Step::Faults(vec![Fault::LostWithTheLine; 1000])).await;
    world.step(Step::Append { rows: vec![0, 0, 0], fails: false }).await;
    // The receipt is there when the line breaks, and heard over the next one.
    {
        let mut broker = world.broker.0.lock().unwrap();
        broker.to_gateway.as_ref().unwrap().try_send(receipt(&salvaged)).unwrap();
        broker.broken = true;
    }
    world.broker.1.notify_one();
    let of_salvaged = |world: &World| {
        world.gateway().outbox.depth().iter().filter(|(key, _)| key.epoch.is_some()).map(|(_, rows)| rows).sum::<u64>()
    };
    let heard = async {
        while of_salvaged(&world) > 0 {
            world.pause().await;
        }
    };
    let heard = tokio::time::timeout(WATCHDOG, heard).await;
    assert!(heard.is_ok(), "the receipt counts for the rows that it is about: {:?}", world.gateway().outbox.depth());
    assert_eq!(world.gateway().depth(CLASSES[0]), 3, "the new file's rows wait");
    account(world).await;
}

/// The negative control: where the broker's word is enough, the same model sees rows leave before a receiver has them.
#[tokio::test]
async fn on_the_brokers_word_the_model_sees_rows_leave_too_early() {
    let mut world = World::new(AcknowledgedBy::Broker);
    world.step(Step::Append { rows: vec![0, 1, 2], fails: false }).await;
    let seen = async {
        while world.left_too_early().await.is_none() {
            world.pause().await;
        }
    };
    tokio::time::timeout(WATCHDOG, seen).await.unwrap();
}
