//! The queue's limits against a model that remembers everything: whatever is appended, refused, evicted, expired, sent,
//! acknowledged late, restarted or killed, each number ends as received or declared lost, and no class has more than its
//! share.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay::base::{Clock, ManualClock, Name};
use forebay::outbox::{
    self, Batch, BatchId, BatchLimits, Class, ClassConfig, Config, Envelope, Outbox, PackConfig, Policy, StreamHandle,
    StreamKey, Summarise, Wanted,
};
use forebay::store::{self, Error, Store, Tx};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};

/// Bytes of all classes: about 200 rows.
const MAX_BYTES: u64 = 60_000;
/// A body with its row counts at most this much.
const ROW_BYTES: u64 = 300;
const LIMITS: BatchLimits = BatchLimits { rows: 20, bytes: 1 << 20 };

#[derive(Debug, Clone)]
enum Step {
    /// Rows for some streams in one transaction, which fails or not.
    Append {
        rows: Vec<u8>,
        fails: bool,
    },
    /// A flood into one stream.
    Flood {
        stream: u8,
        rows: usize,
    },
    Send {
        losses: bool,
    },
    Acknowledge {
        which: usize,
    },
    Lose,
    Pack,
    Wait {
        seconds: u64,
    },
    Sweep,
    Restart,
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (proptest::collection::vec(0_u8..STREAMS.len() as u8, 1..8), proptest::bool::weighted(0.15))
            .prop_map(|(rows, fails)| Step::Append { rows, fails }),
        4 => (0_u8..STREAMS.len() as u8, 20_usize..120).prop_map(|(stream, rows)| Step::Flood { stream, rows }),
        4 => any::<bool>().prop_map(|losses| Step::Send { losses }),
        4 => any::<usize>().prop_map(|which| Step::Acknowledge { which }),
        1 => Just(Step::Lose),
        3 => Just(Step::Pack),
        2 => (1_u64..400).prop_map(|seconds| Step::Wait { seconds }),
        2 => Just(Step::Sweep),
        1 => Just(Step::Restart),
        1 => Just(Step::Kill),
    ]
}

const STREAMS: [(&str, Class); 7] = [
    ("press", Class::Alarm),
    ("lathe", Class::Alarm),
    ("press", Class::Verdict),
    ("lathe", Class::Verdict),
    ("press", Class::Summary),
    ("press", Class::Raw),
    ("lathe", Class::Raw),
];

fn policy() -> impl Strategy<Value = Policy> {
    prop_oneof![Just(Policy::Block), Just(Policy::DropOldest), Just(Policy::DropNewest), Just(Policy::Summarise)]
}

/// Small blocks: on arrival, when some rows wait, or when rows have waited long.
fn pack() -> impl Strategy<Value = PackConfig> {
    let commit_rows = prop_oneof![Just(3), Just(1000)];
    (commit_rows, prop_oneof![Just(0), Just(20), Just(1000)], prop_oneof![Just(8), Just(24)]).prop_map(
        |(commit_rows, keep_rows, block_rows)| PackConfig { after_s: 100, keep_rows, block_rows, commit_rows },
    )
}

fn plan() -> impl Strategy<Value = Config> {
    (policy(), policy(), policy(), any::<bool>(), 2_u64..20, pack()).prop_map(
        |(verdict, summary, raw, mortal, ledger_entries, pack)| {
            let summary = if summary == Policy::Summarise { Policy::DropOldest } else { summary };
            let class = |share_percent, policy, ttl_s| ClassConfig {
                share_percent: Some(share_percent),
                policy: Some(policy),
                ttl_s: Some(ttl_s),
            };
            Config {
                reserve_rows: 4,
                max_bytes: Some(MAX_BYTES),
                ledger_entries,
                pack,
                alarm: class(10, Policy::Block, 0),
                verdict: class(40, verdict, 0),
                summary: class(30, summary, 0),
                raw: class(20, raw, if mortal { 300 } else { 0 }),
                ..Config::default()
            }
        },
    )
}

/// Half of it compresses well.
fn body(n: u64) -> Vec<u8> {
    let length = 40 + (n * 37) % 150;
    let mut body = format!("row {n:0>width$}", width = usize::try_from(length / 2).unwrap()).into_bytes();
    let noise = |at: u64| b' ' + u8::try_from((n * 191 + at).wrapping_mul(6_364_136_223_846_793_005) >> 58).unwrap();
    body.extend((0..length / 2).map(noise));
    body
}

struct Tens;

impl Summarise for Tens {
    fn is_wanted(&self, stream: &StreamKey) -> bool {
        stream.name.as_str() == "press"
    }

    fn summarise(&self, _: &StreamKey, bodies: &[Vec<u8>]) -> Option<Vec<u8>> {
        Some(format!("a summary of {}", bodies.len()).into_bytes())
    }
}

/// What a SIGKILL leaves: the file and its log as they are now, without the index in memory.
fn copy_as_a_kill_leaves_it(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if !path.to_string_lossy().ends_with("-shm") {
            std::fs::copy(&path, to.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    to
}

struct Bench {
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
    config: Config,
    store: Store,
    outbox: Outbox,
    streams: Vec<StreamHandle>,
}

impl Bench {
    fn open(folder: tempfile::TempDir, clock: Arc<ManualClock>, config: Config) -> Self {
        let limits = store::Config { ride_ms: 0, ..store::Config::at(folder.path()) };
        let (store, opened) = Store::open(&limits, &[outbox::SCHEMA], Arc::<ManualClock>::clone(&clock)).unwrap();
        let outbox = Outbox::open(&config, &store, opened.epoch, Arc::<ManualClock>::clone(&clock)).unwrap();
        outbox.summarise_with(Arc::new(Tens));
        let stream = |(name, class)| outbox.stream(StreamKey::new(Name::new(name).unwrap(), class)).unwrap();
        let streams = STREAMS.into_iter().map(stream).collect();
        Self { folder, clock, config, store, outbox, streams }
    }

    /// What single rows and ranges of blocks count with, all of them read.
    async fn stored_bytes(&self) -> u64 {
        let sum = |connection: &rusqlite::Connection| {
            let sql = "SELECT (SELECT coalesce(sum(45 + length(body) + length(body) / 10), 0) FROM outbox_row)
                       + (SELECT coalesce(sum(bytes), 0) FROM outbox_pack)";
            Ok(connection.query_row(sql, [], |row| row.get::<_, i64>(0))?)
        };
        self.store.reader().read(sum).await.unwrap().cast_unsigned()
    }

    fn restart(self) -> Self {
        let Self { folder, clock, config, store, outbox, .. } = self;
        outbox.close().unwrap();
        store.close();
        Self::open(folder, clock, config)
    }

    fn kill(self) -> Self {
        let copy = copy_as_a_kill_leaves_it(self.folder.path());
        let (clock, config) = (Arc::clone(&self.clock), self.config.clone());
        drop(self);
        Self::open(copy, clock, config)
    }

    /// What the door does: asks for room, appends in one transaction. False if a class said no or the commit failed.
    async fn append(&self, rows: &[u8], fails: bool, made: &mut u64) -> Vec<(usize, u64, Vec<u8>)> {
        let mut wanted: BTreeMap<usize, usize> = BTreeMap::new();
        for row in rows {
            *wanted.entry(STREAMS[usize::from(*row)].1 as usize).or_default() += 1;
        }
        let wanted: Vec<Wanted> = wanted
            .iter()
            .map(|(class, rows)| Wanted { class: Class::ALL[*class], rows: *rows, body_bytes: 200 })
            .collect();
        let Ok(admission) = self.outbox.admit(&wanted) else { return Vec::new() };
        let written = Arc::new(Mutex::new(Vec::new()));
        let (seen, outbox, streams, stamp) =
            (Arc::clone(&written), self.outbox.clone(), self.streams.clone(), self.clock.stamp());
        let (from, rows) = (*made, rows.to_vec());
        *made += rows.len() as u64;
        let work = move |tx: &Tx<'_>| {
            for (n, at) in (from..).zip(rows) {
                let body = body(n);
                let envelope = Envelope { body: body.clone(), stamp };
                let seq = outbox.append(tx, &streams[usize::from(at)], &envelope)?;
                seen.lock().unwrap().push((usize::from(at), seq.0, body));
            }
            if fails { Err(Error::Sql(rusqlite::Error::QueryReturnedNoRows)) } else { Ok(()) }
        };
        let outcome = self.store.writer().commit(10, work).await;
        assert_eq!(outcome.is_err(), fails);
        drop(admission);
        if fails { Vec::new() } else { std::mem::take(&mut written.lock().unwrap()) }
    }
}

#[derive(Default)]
struct Model {
    /// Rows of acknowledged readings.
    acknowledged: BTreeMap<(usize, u64), Vec<u8>>,
    received: BTreeMap<(usize, u64), Vec<u8>>,
    /// Numbers declared lost, with the reason.
    lost: BTreeMap<(usize, u64), String>,
}

impl Model {
    /// The far side takes a batch.
    fn take(&mut self, bench: &Bench, batch: &Batch) {
        let at = bench.streams.iter().position(|stream| *stream == batch.id.stream).unwrap();
        let mut covered: Vec<u64> = batch.rows.iter().map(|row| row.seq.0).collect();
        for gap in &batch.gaps {
            covered.extend(gap.first.0..=gap.last.0);
            let reason = gap.reason.as_str();
            assert!(gap.count == 0 || gap.count == gap.last.0 - gap.first.0 + 1 || reason == "evicted", "{gap:?}");
            for seq in gap.first.0..=gap.last.0 {
                self.lost.insert((at, seq), reason.to_owned());
            }
        }
        covered.sort_unstable();
        assert_eq!(covered, (batch.first.0..=batch.last.0).collect::<Vec<_>>(), "each number is a row or a gap");
        for row in &batch.rows {
            let received = self.received.entry((at, row.seq.0)).or_insert_with(|| row.body.clone());
            assert_eq!(*received, row.body, "a redelivery is the same row");
        }
    }

    async fn check(&self, bench: &Bench) {
        let usage = bench.outbox.usage();
        let whole: u64 = usage.iter().map(|class| class.bytes).sum();
        assert_eq!(whole, bench.stored_bytes().await, "the account is that of the tables: {usage:?}");
        // A payload larger than what alarms leave passes alone.
        assert!(whole <= MAX_BYTES + 8 * ROW_BYTES, "{usage:?}");
        for class in usage {
            let slack = if class.policy == Policy::Block { 8 * ROW_BYTES } else { 0 };
            assert!(class.bytes <= class.limit_bytes + slack, "{class:?}");
            assert_eq!(class.rows == 0, class.bytes == 0, "{class:?}");
        }
    }
}

async fn run(config: Config, steps: Vec<Step>) {
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    let mut bench = Bench::open(tempfile::tempdir().unwrap(), clock, config.clone());
    let mut model = Model::default();
    let mut in_flight: Vec<BatchId> = Vec::new();
    let mut made = 0;
    for step in steps {
        bench.clock.advance(Duration::from_millis(7));
        match step {
            Step::Append { rows, fails } => {
                for (at, seq, body) in bench.append(&rows, fails, &mut made).await {
                    assert!(model.acknowledged.insert((at, seq), body).is_none(), "number {seq} was issued twice");
                }
            }
            Step::Flood { stream, rows } => {
                for _ in 0..rows / 4 {
                    for (at, seq, body) in bench.append(&[stream; 4], false, &mut made).await {
                        model.acknowledged.insert((at, seq), body);
                    }
                    model.check(&bench).await;
                }
            }
            Step::Send { losses } => {
                let batch = if losses {
                    bench.outbox.next_declaration(&in_flight).await.unwrap()
                } else {
                    bench.outbox.next_batch(&LIMITS, &in_flight).await.unwrap()
                };
                if let Some(batch) = batch {
                    model.take(&bench, &batch);
                    in_flight.push(batch.id);
                }
            }
            Step::Acknowledge { which } => {
                if !in_flight.is_empty() {
                    let id = in_flight.swap_remove(which % in_flight.len());
                    let outbox = bench.outbox.clone();
                    bench.store.writer().commit(10, move |tx| outbox.delete(tx, &id)).await.unwrap();
                }
            }
            Step::Lose => in_flight.clear(),
            Step::Pack => while bench.outbox.pack_cold().await.unwrap() > 0 {},
            Step::Wait { seconds } => bench.clock.advance(Duration::from_secs(seconds)),
            Step::Sweep => bench.outbox.sweep().await.unwrap(),
            Step::Restart => {
                in_flight.clear();
                bench = bench.restart();
            }
            Step::Kill => {
                in_flight.clear();
                bench = bench.kill();
            }
        }
        model.check(&bench).await;
    }
    bench = bench.restart();
    while let Some(batch) = bench.outbox.next_batch(&LIMITS, &[]).await.unwrap() {
        model.take(&bench, &batch);
        let outbox = bench.outbox.clone();
        bench.store.writer().commit(10, move |tx| outbox.delete(tx, &batch.id)).await.unwrap();
    }
    assert!(bench.outbox.usage().iter().all(|class| class.rows == 0 && class.bytes == 0));
    for (number, body) in &model.acknowledged {
        let (name, class) = STREAMS[number.0];
        match (model.received.get(number), model.lost.get(number)) {
            (Some(received), _) => assert_eq!(received, body, "{name} {number:?}"),
            (None, Some(reason)) => {
                assert!(["evicted", "refused_newest", "expired", "summarised"].contains(&&**reason), "{name} {reason}");
                assert!(class != Class::Alarm, "an alarm was lost to {reason}");
                assert!(reason != "expired" || class == Class::Raw, "{name} expired without a time to live");
            }
            (None, None) => panic!("{name} {number:?} is neither received nor declared lost"),
        }
    }
    for at in 0..STREAMS.len() {
        let received = model.received.keys().filter(|(stream, _)| *stream == at).map(|(_, seq)| *seq);
        let lost = model.lost.keys().filter(|(stream, _)| *stream == at).map(|(_, seq)| *seq);
        let mut all: Vec<u64> = received.chain(lost).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all, (1..=all.len() as u64).collect::<Vec<_>>(), "received and lost make 1 to the highest");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn received_and_declared_lost_are_everything_and_no_class_has_more_than_its_share(
        config in plan(), steps in proptest::collection::vec(step(), 1..50)
    ) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(config, steps));
    }
}
