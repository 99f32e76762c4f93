//! The queue against a model that remembers everything: whatever is appended, failed, sent, acknowledged out of order,
//! restarted or killed, each acknowledged row is delivered as it was, and every other number is in the ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use forebay::base::{Clock, ManualClock, Name};
use forebay::outbox::{self, Batch, BatchId, BatchLimits, Class, Envelope, GapReason, Outbox, StreamHandle, StreamKey};
use forebay::store::{self, Error, Store, Tx};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};

/// Numbers that are reserved at a time.
const RESERVED: u64 = 4;

#[derive(Debug, Clone)]
enum Step {
    /// Rows for some streams in one transaction, which fails or not.
    Append {
        rows: Vec<u8>,
        fails: bool,
    },
    Send {
        rows: usize,
    },
    /// From the other end of the queue.
    SendNewest {
        rows: usize,
    },
    Acknowledge {
        which: usize,
    },
    Pack,
    Restart,
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    let append = (proptest::collection::vec(0_u8..3, 1..6), proptest::bool::weighted(0.2))
        .prop_map(|(rows, fails)| Step::Append { rows, fails });
    prop_oneof![
        4 => append,
        3 => (1_usize..5).prop_map(|rows| Step::Send { rows }),
        2 => (1_usize..5).prop_map(|rows| Step::SendNewest { rows }),
        4 => any::<usize>().prop_map(|which| Step::Acknowledge { which }),
        2 => Just(Step::Pack),
        1 => Just(Step::Restart),
        1 => Just(Step::Kill),
    ]
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
    store: Store,
    outbox: Outbox,
    streams: Vec<StreamHandle>,
}

impl Bench {
    fn open(folder: tempfile::TempDir, clock: Arc<ManualClock>) -> Self {
        let config = store::Config { ride_ms: 0, ..store::Config::at(folder.path()) };
        let (store, opened) = Store::open(&config, &[outbox::SCHEMA], Arc::<ManualClock>::clone(&clock)).unwrap();
        let config = outbox::Config {
            reserve_rows: RESERVED,
            pack: outbox::PackConfig { keep_rows: 2, block_rows: 4, commit_rows: 3, ..outbox::PackConfig::default() },
            ..outbox::Config::default()
        };
        let outbox = Outbox::open(&config, &store, opened.epoch, Arc::<ManualClock>::clone(&clock)).unwrap();
        let classes = [Class::Alarm, Class::Verdict, Class::Raw];
        let streams = classes
            .into_iter()
            .map(|class| outbox.stream(StreamKey::new(Name::new("press").unwrap(), class)).unwrap())
            .collect();
        Self { folder, clock, store, outbox, streams }
    }

    fn restart(self) -> Self {
        let Self { folder, clock, store, outbox, .. } = self;
        outbox.close().unwrap();
        store.close();
        Self::open(folder, clock)
    }

    fn kill(self) -> Self {
        let copy = copy_as_a_kill_leaves_it(self.folder.path());
        let clock = Arc::clone(&self.clock);
        drop(self);
        Self::open(copy, clock)
    }
}

#[derive(Default)]
struct Model {
    /// Every number ever issued, also in commits that failed, but for those that [`Model::kill`] leaves out.
    issued: BTreeSet<(usize, u64)>,
    /// Of these the ones of commits that failed.
    failed: BTreeSet<(usize, u64)>,
    acknowledged_rows: BTreeMap<(usize, u64), Vec<u8>>,
    delivered: BTreeMap<(usize, u64), Vec<u8>>,
    lost: BTreeSet<(usize, u64)>,
    deleted: usize,
}

impl Model {
    /// A kill in the middle of commits that fail. Each commit that holds keeps a block of numbers reserved beyond its own;
    /// what was issued above that was on no disk, nobody has seen it, and it may be issued again.
    fn kill(&mut self) {
        for &(at, seq) in &self.failed {
            let last =
                self.acknowledged_rows.range((at, 0)..=(at, u64::MAX)).next_back().map_or(0, |((_, seq), _)| *seq);
            if seq > last + RESERVED && !self.lost.contains(&(at, seq)) {
                self.issued.remove(&(at, seq));
            }
        }
        self.failed.clear();
    }

    fn take(&mut self, bench: &Bench, batch: &Batch) {
        let at = bench.streams.iter().position(|stream| *stream == batch.id.stream).unwrap();
        let mut covered: Vec<u64> = batch.rows.iter().map(|row| row.seq.0).collect();
        for gap in &batch.gaps {
            assert_ne!(gap.reason, GapReason::Corrupt, "nothing was spoiled");
            covered.extend(gap.first.0..=gap.last.0);
            self.lost.extend((gap.first.0..=gap.last.0).map(|seq| (at, seq)));
        }
        covered.sort_unstable();
        assert_eq!(covered, (batch.first.0..=batch.last.0).collect::<Vec<_>>(), "each number is a row or a gap");
        for row in &batch.rows {
            let delivered = self.delivered.entry((at, row.seq.0)).or_insert_with(|| row.body.clone());
            assert_eq!(*delivered, row.body, "a redelivery is the same row");
        }
    }
}

async fn run(steps: Vec<Step>) {
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    let mut bench = Bench::open(tempfile::tempdir().unwrap(), clock);
    let mut model = Model::default();
    let mut in_flight: Vec<(BatchId, usize)> = Vec::new();
    let mut made = 0_u64;
    for step in steps {
        match step {
            Step::Append { rows, fails } => {
                let issued = Arc::new(Mutex::new(Vec::new()));
                let (seen, outbox, streams) = (Arc::clone(&issued), bench.outbox.clone(), bench.streams.clone());
                let stamp = bench.clock.stamp();
                let before = made;
                made += rows.len() as u64;
                let work = move |tx: &Tx<'_>| {
                    for (n, at) in (before..).zip(rows) {
                        // So long that a block of two is smaller.
                        let body = format!("row {n:0>150}").into_bytes();
                        let envelope = Envelope { body: body.clone(), stamp };
                        let seq = outbox.append(tx, &streams[usize::from(at)], &envelope)?;
                        seen.lock().unwrap().push((usize::from(at), seq.0, body));
                    }
                    if fails { Err(Error::Sql(some_error())) } else { Ok(()) }
                };
                let outcome = bench.store.writer().commit(10, work).await;
                assert_eq!(outcome.is_err(), fails);
                for (at, seq, body) in issued.lock().unwrap().drain(..) {
                    assert!(model.issued.insert((at, seq)), "number {seq} of stream {at} was issued twice");
                    if fails {
                        model.failed.insert((at, seq));
                    } else {
                        model.acknowledged_rows.insert((at, seq), body);
                    }
                }
            }
            Step::Send { rows } | Step::SendNewest { rows } => {
                let flying: Vec<BatchId> = in_flight.iter().map(|(id, _)| *id).collect();
                let limits = BatchLimits { rows, bytes: 1 << 20 };
                let batch = match step {
                    Step::SendNewest { .. } => bench.outbox.newest_batch(&limits, &flying).await.unwrap(),
                    _ => bench.outbox.next_batch(&limits, &flying).await.unwrap(),
                };
                if let Some(batch) = batch {
                    let overlaps = |id: &&BatchId| {
                        id.stream == batch.id.stream && id.first <= batch.last && batch.first <= id.last
                    };
                    assert_eq!(flying.iter().find(overlaps), None, "what is in flight is passed over");
                    model.take(&bench, &batch);
                    in_flight.push((batch.id, batch.rows.len()));
                }
            }
            Step::Acknowledge { which } => {
                if !in_flight.is_empty() {
                    let (id, rows) = in_flight.swap_remove(which % in_flight.len());
                    let outbox = bench.outbox.clone();
                    bench.store.writer().commit(10, move |tx| outbox.delete(tx, &id)).await.unwrap();
                    model.deleted += rows;
                }
            }
            Step::Pack => while bench.outbox.pack_cold().await.unwrap() > 0 {},
            Step::Restart => {
                in_flight.clear();
                bench = bench.restart();
            }
            Step::Kill => {
                in_flight.clear();
                bench = bench.kill();
                model.kill();
            }
        }
        let waiting: u64 = bench.outbox.depth().iter().map(|(_, rows)| rows).sum();
        assert_eq!(waiting as usize, model.acknowledged_rows.len() - model.deleted, "depth is exact");
    }
    let limits = BatchLimits { rows: 3, bytes: 1 << 20 };
    bench = bench.restart();
    while let Some(batch) = bench.outbox.next_batch(&limits, &[]).await.unwrap() {
        model.take(&bench, &batch);
        let outbox = bench.outbox.clone();
        bench.store.writer().commit(10, move |tx| outbox.delete(tx, &batch.id)).await.unwrap();
    }
    assert_eq!(model.delivered, model.acknowledged_rows);
    assert!(bench.outbox.depth().iter().all(|(_, rows)| *rows == 0));
    for at in 0..bench.streams.len() {
        let delivered = model.delivered.keys().filter(|(stream, _)| *stream == at).map(|(_, seq)| *seq);
        let lost = model.lost.iter().filter(|(stream, _)| *stream == at).map(|(_, seq)| *seq);
        let mut all: Vec<u64> = delivered.chain(lost).collect();
        all.sort_unstable();
        assert_eq!(all, (1..=all.len() as u64).collect::<Vec<_>>(), "received and lost make 1 to the highest");
    }
}

/// Any error fails the commit.
fn some_error() -> rusqlite::Error {
    rusqlite::Error::QueryReturnedNoRows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_acknowledged_row_is_delivered_and_every_other_number_is_in_the_ledger(
        steps in proptest::collection::vec(step(), 1..40)
    ) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(steps));
    }
}
