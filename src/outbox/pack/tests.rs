//! Rows become blocks, beside a database file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};

use super::*;
use crate::base::{Clock as _, ManualClock, Name, Seq};
use crate::outbox::{
    Batch, BatchId, BatchLimits, Class, ClassConfig, Config, Envelope, GapReason, Policy, SCHEMA, StreamHandle,
    StreamKey,
};
use crate::store::Store;

struct Bench {
    store: Store,
    outbox: Outbox,
    stream: StreamHandle,
    clock: Arc<ManualClock>,
}

/// Blocks of 8 rows, more than 4 are packed, none on arrival, and nobody waits for an insert to ride with.
fn config() -> Config {
    Config {
        reserve_rows: 8,
        pack: PackConfig { after_s: 600, keep_rows: 4, block_rows: 8, commit_rows: 1000 },
        verdict: ClassConfig { policy: Some(Policy::DropOldest), ..ClassConfig::default() },
        ..Config::default()
    }
}

fn open(folder: &Path, config: &Config) -> Bench {
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    let limits = store::Config { ride_ms: 0, ..store::Config::at(folder) };
    let (store, opened) = Store::open(&limits, &[SCHEMA], Arc::<ManualClock>::clone(&clock)).unwrap();
    let outbox = Outbox::open(config, &store, opened.epoch, Arc::<ManualClock>::clone(&clock)).unwrap();
    let stream = outbox.stream(StreamKey::new(Name::new("press").unwrap(), Class::Verdict)).unwrap();
    Bench { store, outbox, stream, clock }
}

fn body(seq: u64) -> Vec<u8> {
    format!("reading {seq} of the press is {}", seq * 7919 % 1000).into_bytes()
}

impl Bench {
    /// Appends so many rows; returns their numbers.
    async fn append(&self, rows: usize) -> Vec<u64> {
        let (outbox, stream, clock) = (self.outbox.clone(), self.stream, Arc::clone(&self.clock));
        let work = move |tx: &Tx<'_>| {
            let mut numbers = Vec::new();
            for _ in 0..rows {
                clock.advance(Duration::from_millis(100));
                // The body says its number, so that a row in a wrong place shows.
                let next = outbox.state.lock().all[0].next;
                let envelope = Envelope { body: body(next), stamp: clock.stamp() };
                numbers.push(outbox.append(tx, &stream, &envelope)?.0);
            }
            Ok(numbers)
        };
        self.store.writer().commit(100, work).await.unwrap()
    }

    async fn pack(&self) -> u64 {
        let mut rows = 0;
        loop {
            match self.outbox.pack_cold().await.unwrap() {
                0 => return rows,
                packed => rows += packed,
            }
        }
    }

    async fn next(&self, rows: usize, in_flight: &[BatchId]) -> Option<Batch> {
        let batch = self.outbox.next_batch(&BatchLimits { rows, bytes: 1 << 20 }, in_flight).await.unwrap()?;
        for row in &batch.rows {
            assert_eq!(row.body, body(row.seq.0), "row {}", row.seq.0);
        }
        Some(batch)
    }

    async fn delete(&self, id: BatchId) {
        let outbox = self.outbox.clone();
        self.store.writer().commit(0, move |tx| outbox.delete(tx, &id)).await.unwrap();
    }

    async fn one(&self, sql: &'static str) -> i64 {
        let read = move |connection: &Connection| Ok(connection.query_row(sql, [], |row| row.get(0))?);
        self.store.reader().read(read).await.unwrap()
    }

    async fn spoil(&self, sql: &'static str) {
        self.store.writer().commit(0, move |tx| tx.execute(sql, []).map(drop)).await.unwrap();
    }

    fn rows(&self) -> u64 {
        self.outbox.depth()[0].1
    }

    fn restart(self, folder: &Path, config: &Config) -> Self {
        let Self { store, outbox, .. } = self;
        outbox.close().unwrap();
        store.close();
        open(folder, config)
    }
}

fn gaps(batch: &Batch) -> Vec<(u64, u64, u64, GapReason)> {
    batch.gaps.iter().map(|gap| (gap.first.0, gap.last.0, gap.count, gap.reason)).collect()
}

#[tokio::test]
async fn single_rows_are_packed_all_together_and_sent_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let bench = open(folder.path(), &config());
    bench.append(4).await;
    assert_eq!(bench.pack().await, 0, "not more than may wait singly");
    bench.append(26).await;
    let before = bench.next(100, &[]).await.unwrap();
    assert_eq!(bench.pack().await, 30);
    assert_eq!(bench.one("SELECT count(*) FROM outbox_pack").await, 4);
    assert_eq!(bench.one("SELECT count(*) FROM outbox_row").await, 0);
    assert_eq!(bench.rows(), 30, "a packed row waits like any other");
    let after = bench.next(100, &[]).await.unwrap();
    assert_eq!(after, before, "numbers, stamps, bodies");
    bench.delete(after.id).await;
    assert_eq!(bench.one("SELECT count(*) FROM outbox_pack").await, 0);
    assert_eq!(bench.one("SELECT count(*) FROM outbox_block").await, 0);
    assert_eq!((bench.rows(), bench.next(100, &[]).await), (0, None));
}

#[tokio::test]
async fn beside_many_rows_that_are_no_block_the_cold_ones_are_packed_and_the_newest_stay() {
    let folder = tempfile::tempdir().unwrap();
    let bench = open(folder.path(), &config());
    let alarms = bench.outbox.stream(StreamKey::new(Name::new("press").unwrap(), Class::Alarm)).unwrap();
    let (outbox, stamp) = (bench.outbox.clone(), bench.clock.stamp());
    let large = move |tx: &Tx<'_>| {
        let body = vec![b'x'; MAX_BLOCK_BODY_BYTES + 1];
        (0..8).try_for_each(|_| outbox.append(tx, &alarms, &Envelope { body: body.clone(), stamp }).map(drop))
    };
    bench.store.writer().commit(100, large).await.unwrap();
    bench.append(30).await;
    assert_eq!(bench.pack().await, 24);
    assert_eq!(bench.one("SELECT count(*) FROM outbox_pack").await, 3);
    assert_eq!(bench.one("SELECT count(*) FROM outbox_row").await, 8 + 6);
}

#[tokio::test]
async fn rows_that_came_or_left_while_others_were_packed_are_where_they_should_be() {
    let folder = tempfile::tempdir().unwrap();
    let bench = open(folder.path(), &config());
    bench.append(40).await;
    let candidates = bench.outbox.cold_candidates();
    let plan = move |connection: &Connection| {
        let cold = Cold { this_boot: None, old_ms: 0 };
        pack_all::plan(connection, &candidates, &config().pack, &cold, 0)
    };
    let Plan::Parts(parts) = bench.store.reader().read(plan).await.unwrap() else { panic!("it is due") };
    assert_eq!(parts.len(), 5);
    bench.append(2).await;
    bench.delete(bench.next(3, &[]).await.unwrap().id).await;
    assert_eq!(bench.outbox.write_all(parts).await.unwrap(), 32, "the first block is not whole any more");
    assert_eq!(bench.one("SELECT count(*) FROM outbox_row").await, 5 + 2);
    assert_eq!(bench.rows(), 39);
    let batch = bench.next(100, &[]).await.unwrap();
    assert_eq!(batch.rows.iter().map(|row| row.seq.0).collect::<Vec<_>>(), (4..=42).collect::<Vec<_>>());
    assert_eq!(gaps(&batch), []);
    bench.delete(batch.id).await;
    assert_eq!((bench.rows(), bench.outbox.state.lock().all[0].bytes), (0, 0));
}

#[tokio::test]
async fn rows_that_have_waited_long_are_packed_however_few_come_after_them() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { pack: PackConfig { keep_rows: 1000, ..config().pack }, ..config() };
    let bench = open(folder.path(), &config);
    bench.append(8).await;
    assert_eq!(bench.pack().await, 0);
    bench.clock.advance(Duration::from_secs(601));
    assert_eq!(bench.pack().await, 8);
}

#[tokio::test]
async fn a_flipped_bit_of_a_block_loses_that_block_and_the_ledger_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let bench = open(folder.path(), &config());
    bench.append(30).await;
    bench.pack().await;
    bench.spoil("UPDATE outbox_block SET body = x'00' || substr(body, 2) WHERE base = 9").await;
    let batch = bench.next(100, &[]).await.unwrap();
    assert_eq!(gaps(&batch), [(9, 16, 8, GapReason::Corrupt)]);
    assert_eq!((batch.first.0, batch.last.0, batch.rows.len()), (1, 30, 22));
    assert_eq!(bench.rows(), 22);
    bench.delete(batch.id).await;
    assert_eq!(bench.rows(), 0);
}

#[tokio::test]
async fn columns_of_a_block_that_lie_never_serve_a_wrong_row() {
    for spoil in [
        "UPDATE outbox_block SET base = 2 WHERE base = 1",
        "UPDATE outbox_block SET stream_no = 7 WHERE base = 1",
        "UPDATE outbox_block SET count = 'eight' WHERE base = 1",
        "UPDATE outbox_block SET raw_bytes = 900000000 WHERE base = 1",
        "DELETE FROM outbox_block WHERE base = 1",
        "UPDATE outbox_pack SET block_no = block_no + 1 WHERE last = 8",
        "UPDATE outbox_pack SET block_no = NULL WHERE last = 8",
        "UPDATE outbox_pack SET bytes = 'many' WHERE last = 8",
        "UPDATE outbox_pack SET base = 2 WHERE last = 8",
        "UPDATE outbox_pack SET first = 4 WHERE last = 8",
        "UPDATE outbox_pack SET first = -4 WHERE last = 8",
        "UPDATE outbox_pack SET last = 7 WHERE last = 8",
        "UPDATE outbox_pack SET last = 9 WHERE last = 8",
        "UPDATE outbox_pack SET count = 'eight' WHERE last = 8",
        "UPDATE outbox_pack SET raw_bytes = 900000000 WHERE last = 8",
        "DELETE FROM outbox_pack WHERE last = 8",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let bench = open(folder.path(), &config());
        bench.append(30).await;
        bench.pack().await;
        bench.spoil(spoil).await;
        let mut accounted = Vec::new();
        // `next` compares each body with its number.
        while let Some(batch) = bench.next(5, &[]).await {
            accounted.extend(batch.rows.iter().map(|row| row.seq.0));
            for gap in &batch.gaps {
                assert_eq!(gap.reason, GapReason::Corrupt, "{spoil}");
                accounted.extend(gap.first.0..=gap.last.0);
            }
            bench.delete(batch.id).await;
        }
        accounted.sort_unstable();
        assert_eq!(accounted, (1..=30).collect::<Vec<_>>(), "{spoil}");
        assert_eq!(bench.rows(), 0, "{spoil}");
    }
}

#[tokio::test]
async fn a_row_in_the_middle_of_a_block_can_be_given_up_alone() {
    let folder = tempfile::tempdir().unwrap();
    let bench = open(folder.path(), &config());
    bench.append(20).await;
    bench.pack().await;
    bench.outbox.give_up(bench.stream, Seq(5), GapReason::Unsendable).await.unwrap();
    let batch = bench.next(100, &[]).await.unwrap();
    assert_eq!(gaps(&batch), [(5, 5, 1, GapReason::Unsendable)]);
    assert_eq!((batch.rows.len(), bench.rows()), (19, 19));
}

#[tokio::test]
async fn packing_makes_room_and_the_account_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let bench = open(folder.path(), &config());
    bench.append(200).await;
    let account = |bench: &Bench| bench.outbox.state.lock().all[0].bytes;
    let single = account(&bench);
    bench.pack().await;
    let packed = account(&bench);
    assert!(packed < single, "{single} became {packed}");
    let bench = bench.restart(folder.path(), &config());
    assert_eq!((bench.rows(), account(&bench)), (200, packed));
    while let Some(batch) = bench.next(7, &[]).await {
        bench.delete(batch.id).await;
    }
    assert_eq!((bench.rows(), account(&bench)), (0, 0));
}

#[tokio::test]
async fn of_a_block_only_the_rows_that_waited_too_long_expire() {
    let folder = tempfile::tempdir().unwrap();
    let verdict = ClassConfig { ttl_s: Some(60), ..config().verdict };
    let bench = open(folder.path(), &Config { verdict, ..config() });
    for _ in 0..20 {
        bench.append(1).await;
        bench.clock.advance(Duration::from_secs(10));
    }
    assert_eq!(bench.pack().await, 20);
    bench.outbox.sweep().await.unwrap();
    let batch = bench.next(100, &[]).await.unwrap();
    assert_eq!(gaps(&batch), [(1, 15, 15, GapReason::Expired)], "the 15th has waited 60.5 s");
    assert_eq!((batch.rows.len(), bench.rows()), (5, 5));
}

#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    Pack,
    Send(usize),
    Acknowledge(usize),
    GiveUp(u64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (1_usize..40).prop_map(Step::Append),
        4 => Just(Step::Pack),
        4 => (1_usize..20).prop_map(Step::Send),
        4 => any::<usize>().prop_map(Step::Acknowledge),
        1 => any::<u64>().prop_map(Step::GiveUp),
        1 => Just(Step::Restart),
    ]
}

/// Each row that was appended is delivered as it was or is in the ledger, whatever was packed, evicted or restarted.
async fn run(steps: Vec<Step>, max_bytes: u64) {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { max_bytes: Some(max_bytes), ..config() };
    let mut bench = open(folder.path(), &config);
    let mut appended = BTreeSet::new();
    let mut accounted: BTreeMap<u64, bool> = BTreeMap::new();
    let take = |accounted: &mut BTreeMap<u64, bool>, batch: &Batch| {
        accounted.extend(batch.rows.iter().map(|row| (row.seq.0, true)));
        for gap in &batch.gaps {
            assert!([GapReason::Evicted, GapReason::Unsendable].contains(&gap.reason), "{gap:?}");
            assert_eq!(gap.count, gap.last.0 - gap.first.0 + 1, "each of these numbers was a row");
            for seq in gap.first.0..=gap.last.0 {
                accounted.entry(seq).or_insert(false);
            }
        }
    };
    let mut in_flight: Vec<BatchId> = Vec::new();
    for step in steps {
        match step {
            Step::Append(rows) => appended.extend(bench.append(rows).await),
            Step::Pack => drop(bench.pack().await),
            Step::Send(rows) => {
                if let Some(batch) = bench.next(rows, &in_flight).await {
                    take(&mut accounted, &batch);
                    in_flight.push(batch.id);
                }
            }
            Step::Acknowledge(which) => {
                if !in_flight.is_empty() {
                    let id = in_flight.swap_remove(which % in_flight.len());
                    bench.delete(id).await;
                }
            }
            Step::GiveUp(which) => {
                if let Some(last) = appended.last() {
                    let seq = Seq(which % last + 1);
                    bench.outbox.give_up(bench.stream, seq, GapReason::Unsendable).await.unwrap();
                }
            }
            Step::Restart => {
                in_flight.clear();
                bench = bench.restart(folder.path(), &config);
            }
        }
        let stored = bench
            .one(
                "SELECT (SELECT count(*) FROM outbox_row)
            + (SELECT coalesce(sum(last - first + 1), 0) FROM outbox_pack)",
            )
            .await;
        assert_eq!(stored.cast_unsigned(), bench.rows(), "depth is exact");
    }
    bench = bench.restart(folder.path(), &config);
    while let Some(batch) = bench.next(9, &[]).await {
        take(&mut accounted, &batch);
        bench.delete(batch.id).await;
    }
    assert_eq!(accounted.keys().copied().collect::<BTreeSet<_>>(), appended);
    assert_eq!(bench.rows(), 0);
    assert_eq!(bench.outbox.state.lock().all[0].bytes, 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn packed_or_not_each_row_is_delivered_as_it_was_or_is_in_the_ledger(
        steps in proptest::collection::vec(step(), 1..40),
        max_bytes in prop_oneof![Just(1 << 20), 12_000_u64..60_000]
    ) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(steps, max_bytes));
    }
}
