//! History against a list in memory: wherever a reading is (just arrived, half moved, in a block, left by an older
//! release), questions are answered as if nothing had ever been moved; and history stays within its bytes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use forebay::base::ManualClock;
use forebay::history::{self, Config, History, Keeper, Reading, Since, StreamNo};
use forebay::store::{self, Disk, Schema, Store, Tx, Watch};
use proptest::prelude::{Just, ProptestConfig, Strategy, prop_oneof, proptest};

const NAMES: [&str; 4] = ["press", "pump", "mill", "oven"];
const OTHERS: Schema =
    Schema { room: "others", steps: &["CREATE TABLE other (no INTEGER PRIMARY KEY, body BLOB)"], read_at_start: &[] };

struct Bench {
    store: Store,
    history: History,
    keeper: Keeper,
    streams: Vec<StreamNo>,
}

impl Bench {
    fn open(folder: &Path, names: &[&str], config: &Config, limits: &store::Config) -> Self {
        let limits = store::Config { ride_ms: 0, state_dir: folder.to_owned(), ..limits.clone() };
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let (store, _) = Store::open(&limits, &[history::SCHEMA, OTHERS], clock).unwrap();
        let history = History::new(config.clone()).in_file_of(store.insert_bytes());
        let keeper = history.keeper(store.reader(), store.writer());
        let (register, names) = (history.clone(), names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        let register = move |tx: &Tx<'_>| names.iter().map(|name| register.stream(tx, name)).collect();
        let streams = store.writer().commit_blocking(register).unwrap();
        Self { store, history, keeper, streams }
    }

    /// One transaction. Returns the numbers of the readings.
    async fn append(&self, readings: Vec<(usize, Reading)>, fails: bool) -> Option<Vec<u64>> {
        let (history, streams) = (self.history.clone(), self.streams.clone());
        let work = move |tx: &Tx<'_>| {
            let append = |(at, reading): &(usize, Reading)| history.append(tx, streams[*at], reading);
            let numbers = readings.iter().map(append).collect::<Result<Vec<_>, _>>()?;
            if fails { tx.execute("INSERT INTO no_such_table VALUES (1)", []).map(|_| numbers) } else { Ok(numbers) }
        };
        self.store.writer().commit(1, work).await.ok()
    }

    async fn settle(&mut self) {
        while self.keeper.step().await.unwrap() {}
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&rusqlite::Connection) -> Result<T, store::Error> + Send + 'static,
    ) -> T {
        self.store.reader().read(read).await.unwrap()
    }

    async fn one(&self, sql: &'static str) -> u64 {
        self.read(move |conn| Ok(conn.query_row(sql, [], |row| row.get::<_, i64>(0))?.cast_unsigned())).await
    }
}

fn reading(n: u64) -> Reading {
    Reading {
        seq: 0,
        time_ms: 1_700_000_000_000 + 100 * n.cast_signed() - 700 * (n % 11 == 5) as i64,
        id: (!n.is_multiple_of(3)).then(|| n.to_string()),
        values: vec![n as f64 / 4.0, if n.is_multiple_of(7) { f64::NAN } else { (n as f64).sin() }],
        score: n.is_multiple_of(2).then_some(n as f64 / 3.0),
        expected: None,
        state: (n % 5) as u8,
        extra: n.is_multiple_of(13).then(|| vec![7; 5]),
    }
}

fn same(a: &[Reading], b: &[Reading]) -> bool {
    // NaN is not itself to `==`.
    format!("{a:?}") == format!("{b:?}")
}

#[derive(Debug, Clone)]
enum Step {
    Append { stream: usize, readings: u64, each_alone: bool },
    Fail,
    Keep(usize),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_usize, 1..120_u64, proptest::bool::ANY)
            .prop_map(|(stream, readings, each_alone)| Step::Append { stream, readings, each_alone }),
        1 => Just(Step::Fail),
        5 => (1..6_usize).prop_map(Step::Keep),
        2 => Just(Step::Restart),
    ]
}

/// What all streams together need from three places on, beside what each has.
async fn compare_since(bench: &Bench) {
    let mut all = Vec::new();
    for stream in bench.streams.iter().copied() {
        all.push((stream, bench.read(move |conn| history::readings(conn, stream, 0, usize::MAX)).await));
    }
    for (first, before, count) in [(0, 1, 0), (3, 2, 9), (3, 1, 500), (1, 2, 2), (4, 4, 7)] {
        let number = |readings: &[Reading], fourths: usize| match fourths {
            4 => u64::MAX,
            _ => readings.get(readings.len() * fourths / 4).map_or(1, |reading| reading.seq),
        };
        let since = |(stream, readings): &(StreamNo, Vec<Reading>)| Since {
            stream: *stream,
            first: number(readings, first),
            before: number(readings, before),
            count,
        };
        let wanted: Vec<Since> = all.iter().map(since).collect();
        let asked = wanted.clone();
        let found = bench.read(move |conn| history::since(conn, &asked)).await;
        for (((_, readings), since), found) in all.iter().zip(&wanted).zip(&found) {
            let of_first = readings.partition_point(|reading| reading.seq < since.first);
            let of_count = readings.partition_point(|reading| reading.seq < since.before).saturating_sub(count);
            let expected = if count == 0 { of_first } else { of_first.min(of_count) };
            assert!(same(found, &readings[expected..]), "{since:?}: {} of {}", found.len(), readings.len());
        }
    }
}

/// Every question about every stream, beside the list.
async fn compare(bench: &Bench, model: &[Vec<Reading>], kept: usize) {
    compare_since(bench).await;
    for (stream, all) in bench.streams.iter().copied().zip(model) {
        let found = bench.read(move |conn| history::readings(conn, stream, 0, usize::MAX)).await;
        let (given, forgotten) = (found.len(), all.len() - found.len());
        assert!(given >= kept.min(all.len()), "{given} of {}", all.len());
        assert!(same(&found, &all[forgotten..]), "in order, once, as they came, without a hole");
        for count in [0, 1, 7, given, given + 9] {
            let tail = bench.read(move |conn| history::tail(conn, stream, count)).await;
            assert!(same(&tail, &found[given - count.min(given)..]), "the last {count}");
        }
        let Some(oldest) = found.first() else { continue };
        let told = bench.read(move |conn| history::oldest(conn, stream)).await;
        assert_eq!(told, Some((oldest.seq, oldest.time_ms)));
        for at in [0, given / 3, given / 2, given - 1] {
            let seq = found[at].seq;
            let after = bench.read(move |conn| history::readings(conn, stream, seq, 5)).await;
            assert!(same(&after, &found[at + 1..(at + 6).min(given)]), "after the {at}th");
            let (before, from) = bench.read(move |conn| history::numbers_around(conn, stream, seq, 6, 3)).await;
            let numbers = |range: &[Reading]| range.iter().map(|reading| reading.seq).collect::<Vec<_>>();
            assert_eq!(before, numbers(&found[at.saturating_sub(6)..at]));
            assert_eq!(from, numbers(&found[at..(at + 3).min(given)]));
            let (first, last) = (oldest.seq, found[given - 1].seq);
            let there = bench.read(move |conn| history::number_at(conn, stream, first, last, at as u64 + 1)).await;
            assert_eq!(there, Some(seq));
            let (from_ms, to_ms) = (found[at].time_ms, found[(at + 40).min(given - 1)].time_ms);
            let between = bench.read(move |conn| history::numbers_between(conn, stream, from_ms, to_ms)).await;
            let mut inside = found.iter().filter(|reading| (from_ms..=to_ms).contains(&reading.time_ms));
            let first = inside.next().map(|reading| reading.seq);
            let wanted = first.map(|first| (first, inside.next_back().map_or(first, |reading| reading.seq)));
            assert_eq!(between, wanted);
        }
        let buckets = bench.read(move |conn| history::curve(conn, stream, None, None, usize::MAX)).await;
        let values: Vec<f64> = buckets.iter().map(|bucket| bucket.low).collect();
        assert_eq!(values, found.iter().map(|reading| reading.values[0]).collect::<Vec<_>>());
    }
}

async fn run(steps: Vec<Step>, old: u64) {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { readings: 200, ..Config::default() };
    let limits = store::Config::default();
    let mut model = vec![Vec::new(); 3];
    let bench = Bench::open(folder.path(), &NAMES[..3], &config, &limits);
    let mut n = 0;
    // What an older release kept, in its own table.
    let streams = bench.streams.clone();
    let fill = move |tx: &Tx<'_>| {
        for (stream, seq) in streams[..2].iter().flat_map(|stream| (1..=old).map(move |seq| (stream, seq))) {
            tx.execute(
                "INSERT INTO history_reading (stream_no, seq, time_ms, value, state) VALUES (?1, ?2, ?2, ?2, 1)",
                (stream.0, seq.cast_signed()),
            )?;
        }
        tx.execute(
            "UPDATE history_stream SET reserved = ?1, crc = row_crc('history_stream', no, name, ?1, opened_ms)",
            [old.cast_signed()],
        )
        .map(drop)
    };
    bench.store.writer().commit(1, fill).await.unwrap();
    let mut bench = {
        bench.store.close();
        Bench::open(folder.path(), &NAMES[..3], &config, &limits)
    };
    for list in &mut model[..2] {
        list.extend((1..=old).map(|seq| Reading {
            seq,
            time_ms: seq.cast_signed(),
            id: None,
            values: vec![seq as f64],
            score: None,
            expected: None,
            state: 1,
            extra: None,
        }));
    }
    for step in steps {
        match step {
            Step::Append { stream, readings, each_alone } => {
                let now: Vec<(usize, Reading)> = (0..readings)
                    .map(|_| {
                        n += 1;
                        // Some of another stream between them.
                        (if n % 10 == 0 { 2 } else { stream }, reading(n))
                    })
                    .collect();
                for part in now.chunks(if each_alone { 1 } else { now.len() }) {
                    let numbers = bench.append(part.to_vec(), false).await.unwrap();
                    for ((at, reading), seq) in part.iter().zip(numbers) {
                        model[*at].push(Reading { seq, ..reading.clone() });
                    }
                }
            }
            Step::Fail => assert!(bench.append(vec![(0, reading(1)), (1, reading(2))], true).await.is_none()),
            Step::Keep(steps) => {
                for _ in 0..steps {
                    bench.keeper.step().await.unwrap();
                }
            }
            // As after a kill: what was half moved is moved again.
            Step::Restart => {
                bench.store.close();
                bench = Bench::open(folder.path(), &NAMES[..3], &config, &limits);
            }
        }
        compare(&bench, &model, 200).await;
    }
    bench.settle().await;
    assert_eq!(bench.one("SELECT count(*) FROM history_reading").await, 0, "everything old was moved");
    compare(&bench, &model, 200).await;
    // A stream keeps 200, and what arrives or leaves together: the readings of two tables and a block.
    for (stream, all) in bench.streams.iter().copied().zip(&model) {
        let found = bench.read(move |conn| history::readings(conn, stream, 0, usize::MAX)).await.len();
        assert!(found <= 200 + 2 * 350 + 2 * 50, "{found} of {}", all.len());
    }
    let accounted = bench.one("SELECT coalesce(sum(bytes), 0) FROM history_block").await;
    assert!(accounted <= bench.history.bytes());
}

#[test]
fn a_small_block_that_is_made_anew_counts_once_among_what_is_kept() {
    let append = |stream, readings, each_alone| Step::Append { stream, readings, each_alone };
    let steps = vec![
        append(0, 15, false),
        append(1, 77, false),
        append(0, 90, false),
        append(0, 94, true),
        append(0, 98, false),
        // Leaves a block of 11 behind two of 50.
        Step::Keep(4),
        append(0, 26, false),
        append(1, 1, false),
        append(1, 1, false),
    ];
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(steps, 0));
}

#[test]
fn what_came_together_and_is_more_than_is_kept_leaves_no_hole_before_it() {
    let append = |readings| Step::Append { stream: 0, readings, each_alone: false };
    // 252 of one stream in one table, over 100 that an older release kept.
    let steps = vec![append(280), append(1), Step::Keep(5)];
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(steps, 100));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn wherever_readings_are_they_are_read_once_in_order_and_as_they_came(
        steps in proptest::collection::vec(step(), 1..30),
        old in prop_oneof![Just(0_u64), 1..260_u64],
    ) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(steps, old));
    }
}

/// Values that nothing compresses.
fn noise(n: u64) -> Reading {
    let value = |field: u64| {
        let mixed = (n * 64 + field).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        f64::from_bits((mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 2)
    };
    Reading { values: (0..32).map(value).collect(), ..reading(n) }
}

async fn pages(bench: &Bench) -> u64 {
    bench
        .one(
            "SELECT coalesce(sum(pgsize), 0) FROM dbstat WHERE name LIKE 'history_block%' OR name LIKE 'history_arrival%'",
        )
        .await
}

#[tokio::test]
async fn history_stays_within_its_share_of_the_file_and_its_oldest_go_first() {
    let folder = tempfile::tempdir().unwrap();
    let limits = store::Config { max_bytes: 32 << 20, ..store::Config::default() };
    let mut bench = Bench::open(folder.path(), &NAMES, &Config { share_percent: 10, ..Config::default() }, &limits);
    let share = bench.store.insert_bytes() / 100 * 10;
    let mut appended = BTreeMap::<usize, u64>::new();
    for n in 0..400 {
        // The last stream is slow.
        let readings: Vec<_> =
            (0..40).map(|at| (if n == 5 && at == 0 { 3 } else { at % 3 }, noise(n * 40 + at as u64))).collect();
        for (stream, _) in &readings {
            *appended.entry(*stream).or_default() += 1;
        }
        bench.append(readings, false).await.unwrap();
        while bench.keeper.step().await.unwrap() {
            assert!(bench.history.bytes() <= share + (40 << 10), "a transaction beyond it at most");
        }
    }
    let total = bench.history.bytes();
    assert!(total <= share, "{total} of {share}");
    let on_disk = pages(&bench).await;
    assert!(on_disk <= share + share / 10, "{on_disk} bytes of pages for {total} accounted");
    assert!(total * 2 > share, "it uses what it may: {total} of {share}");
    let (mut kept, mut sum) = (Vec::new(), 0);
    for (at, stream) in bench.streams.clone().into_iter().enumerate() {
        let found = bench.read(move |conn| history::readings(conn, stream, 0, usize::MAX)).await;
        assert!(found.is_empty() || found.last().unwrap().seq == appended[&at], "the newest stay");
        sum += found.len() as u64;
        kept.push(found.len());
    }
    assert_eq!(kept[3], 0, "an old reading of a slow stream is as old as any other");
    assert!(kept[..3].iter().all(|kept| *kept > 100), "{kept:?}");
    assert_eq!(appended.values().sum::<u64>() - sum, bench.history.metrics().yielded_readings(), "each is counted");
}

#[tokio::test]
async fn history_gives_way_to_whatever_else_needs_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let limits = store::Config { max_bytes: 32 << 20, ..store::Config::default() };
    let mut bench = Bench::open(folder.path(), &NAMES, &Config { share_percent: 50, ..Config::default() }, &limits);
    for n in 0..600 {
        bench.append((0..40).map(|at| (at % 3, noise(n * 40 + at as u64))).collect(), false).await.unwrap();
        while bench.keeper.step().await.unwrap() {}
    }
    let before = bench.history.bytes();
    let mut others = 0;
    loop {
        let insert = |tx: &Tx<'_>| tx.execute("INSERT INTO other (body) VALUES (zeroblob(40000))", []).map(drop);
        if bench.store.writer().commit(40_000, insert).await.is_err() {
            break;
        }
        others += 40_000;
        while bench.keeper.step().await.unwrap() {}
    }
    assert!(before > 4 << 20, "{before}");
    // An eighth of the share is for what has just arrived.
    let (room, newest) = (bench.store.insert_bytes(), bench.store.insert_bytes() / 16);
    assert!(bench.history.bytes() <= newest, "{} of {before}", bench.history.bytes());
    assert!(others > room - newest - room / 20, "{others} of {room} bytes are there for others");
}

#[tokio::test]
async fn what_arrives_stays_bounded_when_nobody_moves_it() {
    let folder = tempfile::tempdir().unwrap();
    let limits = store::Config { max_bytes: 32 << 20, ..store::Config::default() };
    let bench = Bench::open(folder.path(), &NAMES, &Config { share_percent: 10, ..Config::default() }, &limits);
    let share = bench.store.insert_bytes() / 100 * 10;
    for n in 0..400 {
        bench.append((0..40).map(|at| (at % 3, noise(n * 40 + at as u64))).collect(), false).await.unwrap();
        assert!(bench.history.bytes() <= share, "{} of {share}", bench.history.bytes());
    }
    let on_disk = pages(&bench).await;
    assert!(on_disk <= share, "{on_disk} bytes of pages");
    let stream = bench.streams[0];
    assert!(bench.read(move |conn| history::tail(conn, stream, 50)).await.len() == 50, "the newest are there");
}

/// 60-byte payloads as the benches make them: `{"t":…,"n":…,"v0":…}`.
fn small(n: u64) -> Reading {
    let noise = (n.wrapping_mul(6_364_136_223_846_793_005) >> 33) % 100;
    let value = 50.0 + 20.0 * (n as f64 / 500.0).sin() + noise as f64 / 100.0;
    Reading {
        id: Some((10_000_000 + n).to_string()),
        values: vec![(value * 1e4).round() / 1e4],
        score: None,
        extra: None,
        ..reading(n)
    }
}

#[tokio::test]
async fn a_reading_of_60_bytes_is_written_to_the_disk_at_most_five_times_over_for_any_number_of_streams() {
    const COMMITS: u64 = 1200;
    for streams in [1, 10, 100, 1000] {
        let folder = tempfile::tempdir().unwrap();
        let watch = Arc::new(Watch::default());
        let limits = store::Config { disk: Disk::watched(&watch).unwrap(), ..store::Config::default() };
        let names: Vec<String> = (0..streams).map(|at| format!("s{at}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut bench = Bench::open(folder.path(), &names, &Config::default(), &limits);
        bench.settle().await;
        let before = watch.written_bytes();
        for commit in 0..COMMITS {
            let at = |at: u64| ((commit * 250 + at) % streams) as usize;
            bench.append((0..250).map(|n| (at(n), small(commit * 250 + n))).collect(), false).await.unwrap();
            if bench.history.is_moving() {
                bench.settle().await;
            }
        }
        bench.store.close();
        let factor = (watch.written_bytes() - before) as f64 / (COMMITS * 250 * 60) as f64;
        eprintln!("{streams} streams: {factor:.2} bytes written per payload byte");
        assert!(factor < 5.0, "{streams} streams: {factor:.2} bytes written per payload byte");
    }
}

#[tokio::test]
async fn what_is_forgotten_is_the_oldest_also_while_an_older_release_s_readings_wait_to_be_moved() {
    let append = |stream, readings| Step::Append { stream, readings, each_alone: false };
    let first = vec![append(0, 1), Step::Restart, append(1, 100), append(1, 62), Step::Keep(4), Step::Restart];
    run(first.into_iter().chain([Step::Keep(4), append(1, 115), Step::Restart]).collect(), 1).await;
}
