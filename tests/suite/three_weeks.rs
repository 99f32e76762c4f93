//! Three weeks without a link at 100 messages a second against a file of 1 GiB, in scaled time: rate and limit are both
//! divided by the same number. A child process lives through them, so that its memory is nobody else's.
//! `FOREBAY_THREE_WEEKS=1 cargo test --profile bench --test suite three_weeks` is the full size: 181 million rows.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use forebay::base::{Clock, ManualClock, Name};
use forebay::outbox::{
    self, BatchLimits, Class, ClassConfig, ClassUsage, Config, Envelope, Outbox, Policy, StreamHandle, StreamKey,
};
use forebay::store::{self, Store, Tx};
use serde_json::{Value, json};

const FOLDER: &str = "FOREBAY_THREE_WEEKS_FOLDER";
const SCALE: &str = "FOREBAY_THREE_WEEKS";
const SECONDS: u64 = 21 * 24 * 3600;
const PER_SECOND: u64 = 100;
/// Rows of one commit.
const COMMIT: u64 = 256;
/// One row in so many is an alarm, one a raw row; the others are verdicts.
const ALARM_EVERY: u64 = 10_000;
const RAW_EVERY: u64 = 20;
const BODY_BYTES: usize = 100;

struct Gateway {
    store: Store,
    outbox: Outbox,
    streams: [StreamHandle; 3],
}

fn scale() -> u64 {
    std::env::var(SCALE).ok().and_then(|scale| scale.parse().ok()).unwrap_or(1000)
}

fn open(folder: &Path, clock: &Arc<ManualClock>) -> Gateway {
    let drops = ClassConfig { policy: Some(Policy::DropOldest), ..ClassConfig::default() };
    let max_bytes = Some((1 << 30) / 10 * 7 / scale());
    let config = Config { reserve_rows: 64, max_bytes, verdict: drops, raw: drops, ..Config::default() };
    let (store, opened) =
        Store::open(&store::Config::at(folder), &[outbox::SCHEMA], Arc::<ManualClock>::clone(clock)).unwrap();
    let outbox = Outbox::open(&config, &store, opened.epoch, Arc::<ManualClock>::clone(clock)).unwrap();
    let stream = |class| outbox.stream(StreamKey::new(Name::new("press").unwrap(), class)).unwrap();
    let streams = [stream(Class::Alarm), stream(Class::Verdict), stream(Class::Raw)];
    Gateway { store, outbox, streams }
}

fn of_proc(file: &str, key: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/self/{file}")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn resident_kib() -> u64 {
    of_proc("status", "VmRSS:")
}

/// Opens, and says how many bytes that read.
fn measured_open(folder: &Path, clock: &Arc<ManualClock>) -> (Gateway, u64) {
    let before = of_proc("io", "rchar:");
    let opened = open(folder, clock);
    (opened, of_proc("io", "rchar:") - before)
}

fn usage(opened: &Gateway, class: Class) -> ClassUsage {
    opened.outbox.usage()[class as usize]
}

/// The child's life. Without its folder (an ordinary run of the suite) it has nothing to do.
#[test]
fn child_that_lives_three_weeks() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    let rows = SECONDS * PER_SECOND / scale();
    let mut opened = open(folder, &clock);
    let (mut made, mut appended) = (0, [0_u64; 3]);
    let (mut resident_full, mut read_short, mut file_most) = (0, None, 0);
    while made < rows {
        clock.advance(Duration::from_millis(1000 * COMMIT / PER_SECOND * scale()));
        let mut kinds = Vec::new();
        for n in made..rows.min(made + COMMIT) {
            let kind = if n % ALARM_EVERY == 7 {
                0
            } else if n % RAW_EVERY == 3 {
                2
            } else {
                1
            };
            appended[kind] += 1;
            kinds.push(kind);
        }
        let kinds_made = kinds.len() as u64;
        made += kinds_made;
        let (outbox, streams, stamp) = (opened.outbox.clone(), opened.streams, clock.stamp());
        let work = move |tx: &Tx<'_>| {
            let mut append = |kind: &usize| {
                outbox.append(tx, &streams[*kind], &Envelope { body: vec![7; BODY_BYTES], stamp }).map(drop)
            };
            kinds.iter().try_for_each(&mut append)
        };
        opened.store.writer().commit_blocking(work).unwrap();
        let verdicts = usage(&opened, Class::Verdict);
        assert!(verdicts.bytes <= verdicts.limit_bytes, "{verdicts:?}");
        if read_short.is_none() && verdicts.bytes > verdicts.limit_bytes / 4 {
            // A kill: nothing is closed.
            drop(opened);
            let (again, read) = measured_open(folder, &clock);
            (opened, read_short) = (again, Some(read));
        }
        if resident_full == 0 && made > rows / 4 {
            resident_full = resident_kib();
        }
        if made % (COMMIT * 64) == 0 {
            let file = |name: &str| std::fs::metadata(folder.join(name)).map_or(0, |file| file.len());
            file_most = file_most.max(file("forebay.db"));
        }
        let day = |made: u64| made * scale() / (PER_SECOND * 24 * 3600);
        if day(made) > day(made - kinds_made) {
            eprintln!("day {} of 21", day(made));
        }
    }
    let resident_end = resident_kib();
    let before = opened.outbox.usage().map(|class| (class.rows, class.bytes));
    drop(opened);
    let (opened, read_full) = measured_open(folder, &clock);
    assert_eq!(opened.outbox.usage().map(|class| (class.rows, class.bytes)), before, "a start knows the account");
    let result = json!({
        "appended": appended,
        "verdict_bytes": before[1].1,
        "verdict_limit_bytes": usage(&opened, Class::Verdict).limit_bytes,
        "resident_full_kib": resident_full,
        "resident_end_kib": resident_end,
        "read_short": read_short,
        "read_full": read_full,
        "file_most": file_most,
    });
    std::fs::write(folder.join("result"), result.to_string()).unwrap();
}

#[tokio::test]
async fn three_weeks_without_a_link_leave_memory_flat_the_policy_and_the_ledger_exact_and_a_start_as_short_as_ever() {
    let folder = tempfile::tempdir().unwrap();
    // A life at full size takes long, and says how far it is.
    let said = if scale() < 100 { Stdio::inherit() } else { Stdio::piped() };
    let child = Command::new(std::env::current_exe().unwrap())
        .stderr(said)
        .args(["--exact", "three_weeks::child_that_lives_three_weeks", "--nocapture"])
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stderr);
    let result = std::fs::read_to_string(folder.path().join("result"))
        .unwrap_or_else(|error| panic!("{error}: the child said {said}"));
    let result: Value = serde_json::from_str(&result).unwrap();
    let number = |key: &str| result[key].as_u64().unwrap_or_else(|| panic!("{key}: {result}"));
    let appended: Vec<u64> = result["appended"].as_array().unwrap().iter().map(|rows| rows.as_u64().unwrap()).collect();
    assert_eq!(appended.iter().sum::<u64>(), SECONDS * PER_SECOND / scale());

    // Memory: no more at the end than when the queue was full for the first time.
    let (full, end) = (number("resident_full_kib"), number("resident_end_kib"));
    assert!(end < full + 2048, "{full} KiB grew to {end}");
    // The file stays below the limit, with what trees leave empty.
    let limit = number("verdict_limit_bytes");
    assert!(number("file_most") < limit / 2 * 5 + (1 << 20), "{result}");
    // The policy gives up no more than it must.
    assert!(number("verdict_bytes") > limit - limit / 100 - 1000 && number("verdict_bytes") <= limit, "{result}");
    // A start reads the same whether a quarter of the share is used up or all of it.
    assert!(number("read_full") < number("read_short") * 3 / 2 + 65_536, "{result}");

    // Everything is in the queue or in the ledger, once.
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    let opened = open(folder.path(), &clock);
    let (mut rows, mut lost, mut entries, mut next) = ([0_u64; 3], [0_u64; 3], [0_u64; 3], [1_u64; 3]);
    let limits = BatchLimits { rows: 1000, bytes: 1 << 20 };
    while let Some(batch) = opened.outbox.next_batch(&limits, &[]).await.unwrap() {
        let at = opened.streams.iter().position(|stream| *stream == batch.id.stream).unwrap();
        assert_eq!(batch.first.0, next[at]);
        next[at] = batch.last.0 + 1;
        rows[at] += batch.rows.len() as u64;
        lost[at] += batch.gaps.iter().map(|gap| gap.count).sum::<u64>();
        entries[at] += batch.gaps.iter().filter(|gap| gap.count > 0).count() as u64;
        let outbox = opened.outbox.clone();
        opened.store.writer().commit(0, move |tx| outbox.delete(tx, &batch.id)).await.unwrap();
    }
    for at in 0..3 {
        assert_eq!(rows[at] + lost[at], appended[at], "stream {at}: {result}");
    }
    assert_eq!(lost[0], 0, "no alarm");
    // One entry before the kill's burnt numbers and one behind them.
    assert!(entries[1] <= 2 && entries[2] <= 2, "{entries:?}");
}
