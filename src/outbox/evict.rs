//! Making room: the oldest rows of a class leave until it is below its limit, and the ledger says which.
//!
//! Everything here works on ranges of numbers. The order is that of time (boot, time since boot), across the streams
//! of a class.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::arrive;
use super::batch::GapReason;
use super::config::Policy;
use super::ledger;
use super::packs;
use super::queue::{Envelope, append};
use super::quota::Quota;
use super::size::{Removed, integer, remove};
use super::state::{Stream, Streams};
use super::stream::Class;
use super::summarise::Summarise;
use crate::base::Stamp;
use crate::store::{Error, Tx};

/// Rows of one stream that are looked at ahead: bounds memory at this many for every stream of a class.
const LOOK_AHEAD: u64 = 64;
/// Bytes that leave in one transaction beyond what came in it: a limit that was set much lower is reached in steps.
const STEP_BYTES: u64 = 4 << 20;

/// Telemetry, the first to go first.
const LEAST_URGENT_FIRST: [Class; 3] = [Class::Raw, Class::Verdict, Class::Summary];

/// Rows of one summary at most.
const SUMMARY_ROWS: usize = 1000;
/// Bytes of their bodies at most.
const SUMMARY_BYTES: usize = 256 << 10;
/// Rows that expire in one transaction at most.
const EXPIRE_ROWS: u64 = 4096;

/// When a row was made: boot, time since boot.
pub(super) type Age = (i64, i64);

/// What making room needs to know.
pub(super) struct Room<'a> {
    /// Now.
    pub(super) stamp: Stamp,
    pub(super) summarise: Option<&'a dyn Summarise>,
    /// Numbers reserved at a time.
    pub(super) reserve_rows: u64,
}

/// Neighbouring rows that leave together.
#[derive(Debug)]
struct Run {
    first: u64,
    last: u64,
    bytes: u64,
    /// Of the first of them.
    age: Age,
    /// They are a block.
    is_block: bool,
}

/// The oldest rows of one stream.
struct Cursor {
    at: usize,
    from: u64,
    ahead: VecDeque<Run>,
    /// What was chosen to leave.
    chosen: Vec<(u64, u64)>,
}

impl Cursor {
    fn new(at: usize, stream: &Stream) -> Self {
        let from = stream.settled_now() + 1;
        Self { at, from, ahead: VecDeque::new(), chosen: Vec::new() }
    }

    /// The oldest row that is not chosen yet.
    fn oldest(&mut self, tx: &Tx<'_>, stream: &Stream) -> Result<Option<Age>, Error> {
        if self.ahead.is_empty() {
            self.ahead = oldest_rows(tx, stream, self.from)?;
            self.from = self.ahead.back().map_or(self.from, |run| run.last + 1);
        }
        Ok(self.ahead.front().map(|run| run.age))
    }

    /// Chooses it; returns its bytes.
    fn choose(&mut self) -> u64 {
        let Some(run) = self.ahead.pop_front() else { return 0 };
        match self.chosen.last_mut() {
            Some((_, last)) if *last + 1 == run.first => *last = run.last,
            _ => self.chosen.push((run.first, run.last)),
        }
        run.bytes
    }
}

fn oldest_rows(tx: &Tx<'_>, stream: &Stream, from: u64) -> Result<VecDeque<Run>, Error> {
    let mut statement = tx.prepare_cached(
        "SELECT seq, boot_no, boot_ms, length(body) FROM outbox_row WHERE stream_no = ?1 AND seq >= ?2
         ORDER BY seq LIMIT ?3",
    )?;
    let mut rows = statement.query((stream.no, from.cast_signed(), LOOK_AHEAD.cast_signed()))?;
    let mut runs = VecDeque::new();
    while let Some(row) = rows.next()? {
        // A damaged row is as old as can be.
        let number = |at| Ok::<_, rusqlite::Error>(integer(row.get_ref(at)?).unwrap_or(0));
        let seq = row.get::<_, i64>(0)?.cast_unsigned();
        let bytes = stream.row_bytes(seq, number(3)?.cast_unsigned());
        runs.push_back(Run { first: seq, last: seq, bytes, age: (number(1)?, number(2)?), is_block: false });
    }
    let blocks = packs::heads(&mut *tx.prepare_cached(&packs::heads_sql())?, stream.no, from, LOOK_AHEAD)?;
    if !blocks.is_empty() {
        // A block leaves whole, with the age of its first row.
        runs.extend(blocks.iter().map(|block| Run {
            first: block.first.max(from),
            last: block.last,
            bytes: block.bytes,
            age: block.age,
            is_block: true,
        }));
        runs.make_contiguous().sort_by_key(|run| run.first);
        runs.truncate(usize::try_from(LOOK_AHEAD).unwrap_or(usize::MAX));
    }
    Ok(runs)
}

fn gives(streams: &Streams, class: Class) -> bool {
    matches!(streams.quota.class(class).policy, Policy::DropOldest | Policy::Summarise)
}

/// True if a class that gives way has more than it may have.
pub(super) fn is_over(streams: &Streams) -> bool {
    let over = |class: Class| gives(streams, class) && streams.class_bytes(class) > streams.limit(class);
    Class::ALL.into_iter().any(over)
}

/// Brings every class below its limit, as its policy says. At the end of a transaction.
pub(super) fn enforce(tx: &Tx<'_>, streams: &mut Streams, room: &Room<'_>) -> Result<(), Error> {
    let appended: u64 = streams.all.iter().map(|stream| stream.staged.appended_bytes).sum();
    let queued = streams.bytes();
    streams.quota.file_holds(tx.used_bytes()?, queued);
    let mut budget = appended + STEP_BYTES;
    let mut take = |streams: &mut Streams, class, need: u64| {
        if need > 0 {
            budget -= evict(tx, streams, class, need.min(budget), room)?.min(budget);
        }
        Ok::<_, Error>(())
    };
    for class in LEAST_URGENT_FIRST {
        let (bytes, limit) = (streams.class_bytes(class), streams.limit(class));
        if bytes > limit && gives(streams, class) {
            take(streams, class, bytes - Quota::notch_below(limit))?;
        }
    }
    // What alarms have beyond their share comes from telemetry, whatever its policy.
    let claimed = streams.class_bytes(Class::Alarm).saturating_sub(streams.quota.share(Class::Alarm));
    for class in LEAST_URGENT_FIRST.into_iter().chain([Class::Alarm]) {
        let (whole, limit) = (streams.bytes(), streams.quota.whole());
        if whole <= limit {
            break;
        }
        let most = match class {
            _ if gives(streams, class) => u64::MAX,
            Class::Alarm => 0,
            _ => claimed,
        };
        take(streams, class, (whole - Quota::notch_below(limit)).min(most))?;
    }
    // Rows that became a summary just now made that class grow.
    let (bytes, limit) = (streams.class_bytes(Class::Summary), streams.limit(Class::Summary));
    if bytes > limit && gives(streams, Class::Summary) {
        take(streams, Class::Summary, bytes - Quota::notch_below(limit))?;
    }
    Ok(())
}

/// Takes at least `need` bytes off the oldest rows of `class`; less if it has no more. Returns the bytes.
fn evict(tx: &Tx<'_>, streams: &mut Streams, class: Class, need: u64, room: &Room<'_>) -> Result<u64, Error> {
    let mut cursors = Vec::new();
    let mut oldest = BinaryHeap::new();
    for (at, stream) in streams.all.iter().enumerate().filter(|(_, stream)| stream.key.class == class) {
        if stream.rows_now() == 0 {
            continue;
        }
        let mut cursor = Cursor::new(at, stream);
        if let Some(age) = cursor.oldest(tx, stream)? {
            oldest.push(Reverse((age, stream.no, cursors.len())));
            cursors.push(cursor);
        }
    }
    let mut chosen_bytes = 0;
    while chosen_bytes < need
        && let Some(Reverse((_, no, which))) = oldest.pop()
    {
        let cursor = &mut cursors[which];
        chosen_bytes += cursor.choose();
        if let Some(age) = cursor.oldest(tx, &streams.all[cursor.at])? {
            oldest.push(Reverse((age, no, which)));
        }
    }
    let summarise = room.summarise.filter(|_| streams.quota.class(class).policy == Policy::Summarise);
    let mut freed = 0;
    for cursor in &cursors {
        for &numbers in &cursor.chosen {
            freed += match summarise {
                Some(summarise) => sum_up(tx, streams, cursor.at, numbers, summarise, room)?,
                None => give_up(tx, streams.touch(cursor.at), numbers, GapReason::Evicted, room.stamp.wall_ms)?.bytes,
            };
        }
    }
    Ok(freed)
}

/// Replaces consecutive rows by ledger entries and, unless the far side gets one anyway, a summary of them. Returns the
/// bytes of the rows.
fn sum_up(
    tx: &Tx<'_>,
    streams: &mut Streams,
    at: usize,
    numbers: (u64, u64),
    summarise: &dyn Summarise,
    room: &Room<'_>,
) -> Result<u64, Error> {
    let key = streams.all[at].key.clone();
    // Numbers of an old epoch mean nothing beside those of this one, so what was salvaged just goes.
    let beside = |stream: &Stream| {
        let other = &stream.key;
        key.epoch.is_none() && other.epoch.is_none() && other.class == Class::Summary && other.name == key.name
    };
    let Some(summaries) = streams.all.iter().position(beside) else {
        return Ok(give_up(tx, streams.touch(at), numbers, GapReason::Evicted, room.stamp.wall_ms)?.bytes);
    };
    let (no, is_wanted) = (streams.all[at].no, summarise.is_wanted(&key));
    let mut freed = 0;
    let mut first = numbers.0;
    while first <= numbers.1 {
        let (bodies, last) = if is_wanted { bodies_until(tx, no, first, numbers.1)? } else { (Vec::new(), numbers.1) };
        let body = if bodies.is_empty() { None } else { summarise.summarise(&key, &bodies) };
        freed += give_up(tx, streams.touch(at), (first, last), GapReason::Summarised, room.stamp.wall_ms)?.bytes;
        if let Some(body) = body {
            streams.touch(summaries);
            let envelope = Envelope { body, stamp: room.stamp };
            append(tx, streams, summaries, &envelope, room.reserve_rows, room.stamp.wall_ms)?;
            let together = streams.together;
            arrive::write(tx, &mut streams.all[summaries], together)?;
        }
        first = last + 1;
    }
    Ok(freed)
}

/// Bodies for one summary, and the last row that they come from. Damaged rows are no part of a summary.
fn bodies_until(tx: &Tx<'_>, stream_no: i64, first: u64, last: u64) -> Result<(Vec<Vec<u8>>, u64), Error> {
    let (mut bodies, mut bytes, mut until): (Vec<Vec<u8>>, usize, u64) = (Vec::new(), 0, last);
    packs::walk(tx, stream_no, (first, last), &mut |stored, body| {
        bytes += body.len();
        if bodies.len() >= SUMMARY_ROWS || (bytes > SUMMARY_BYTES && !bodies.is_empty()) {
            until = stored.seq.cast_unsigned() - 1;
            return false;
        }
        bodies.push(body);
        true
    })?;
    Ok((bodies, until))
}

/// Lets rows of the streams at `due` go that have waited longer than their class allows. True if some are left.
pub(super) fn expire(tx: &Tx<'_>, streams: &mut Streams, due: &[usize], stamp: &Stamp) -> Result<bool, Error> {
    let now_ms = streams.uptime.now_ms(stamp.boot_ms);
    let mut left = EXPIRE_ROWS;
    for &at in due {
        let stream = &streams.all[at];
        let Some(ttl) = streams.quota.class(stream.key.class).ttl else { continue };
        let mut cursor = Cursor::new(at, stream);
        while let Some(age) = cursor.oldest(tx, stream)?
            && streams.uptime.is_over(age, ttl, now_ms)
        {
            if left == 0 {
                break;
            }
            let Some(run) = cursor.ahead.front_mut().filter(|run| run.is_block) else {
                left -= 1;
                cursor.choose();
                continue;
            };
            // The rows of a block may be of very different ages.
            let no = stream.no;
            let young = packs::rows(tx, no, run.last)?.into_iter().find(|row| {
                let age = (row.stored.boot_no, row.stored.boot_ms);
                row.stored.seq.cast_unsigned() >= run.first && !streams.uptime.is_over(age, ttl, now_ms)
            });
            left = left.saturating_sub(run.last - run.first + 1);
            let Some(young) = young.map(|row| row.stored) else {
                cursor.choose();
                continue;
            };
            packs::set_age(tx, no, run.last, (young.boot_no, young.boot_ms))?;
            run.last = young.seq.cast_unsigned() - 1;
            if run.first <= run.last {
                cursor.choose();
            }
            break;
        }
        for numbers in cursor.chosen {
            give_up(tx, streams.touch(at), numbers, GapReason::Expired, stamp.wall_ms)?;
        }
    }
    Ok(left == 0)
}

/// Replaces consecutive rows by a ledger entry.
pub(super) fn give_up(
    tx: &Tx<'_>,
    stream: &mut Stream,
    (first, last): (u64, u64),
    reason: GapReason,
    wall_ms: i64,
) -> Result<Removed, Error> {
    let removed = remove(tx, stream, first, last)?;
    if removed.rows > 0 {
        stream.lose(tx, (first, last), removed.rows, reason, wall_ms)?;
    }
    Ok(removed)
}

/// The ledger of a stream is beyond its bound: the rows between its two oldest entries are given up, and the two become
/// one. False if there are not two.
pub(super) fn shorten_ledger(tx: &Tx<'_>, stream: &mut Stream, wall_ms: i64) -> Result<bool, Error> {
    let Some([(first, before, lost_before), (after, last, lost_after)]) = ledger::two_oldest(tx, stream.no)? else {
        return Ok(false);
    };
    let between = remove(tx, stream, before + 1, after - 1)?;
    stream.count_lost(GapReason::Evicted, between.rows);
    stream.staged.entries += ledger::withdraw(tx, stream.no, first, last)?;
    let count = lost_before + between.rows + lost_after;
    stream.staged.entries += ledger::enter(tx, stream.no, (first, last), count, GapReason::Evicted, wall_ms)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use crate::outbox::fixture::{Bench, bodies, gaps, key, open_with};
    use crate::outbox::{Batch, Class, ClassConfig, Config, Policy, StreamKey, Summarise};
    use crate::store::Tx;
    use std::sync::Arc;
    use std::time::Duration;

    /// A body that counts 1000 bytes with its row.
    const KILO: usize = 869;

    fn kilo(n: usize) -> String {
        format!("{n:0KILO$}")
    }

    fn class(share_percent: u8, policy: Policy) -> ClassConfig {
        ClassConfig { share_percent: Some(share_percent), policy: Some(policy), ttl_s: None }
    }

    /// 100 rows in all: 10 alarms, 40 verdicts, 30 summaries, 20 raw.
    fn hundred(policy: Policy) -> Config {
        Config {
            max_bytes: Some(100_000),
            verdict: class(40, policy),
            raw: class(20, Policy::DropOldest),
            ..Config::default()
        }
    }

    async fn append(bench: &Bench, stream: crate::outbox::StreamHandle, numbers: std::ops::Range<usize>) {
        for n in numbers {
            bench.clock.advance(Duration::from_millis(1));
            bench.append(stream, &[&kilo(n)]).await;
        }
    }

    fn numbers(batch: &Batch) -> Vec<usize> {
        bodies(batch).into_iter().map(|body| body.parse().unwrap()).collect()
    }

    fn rows(bench: &Bench, class: Class) -> u64 {
        bench.outbox.depth().iter().filter(|(key, _)| key.class == class).map(|(_, rows)| rows).sum()
    }

    #[test]
    fn a_kilo_is_a_kilo() {
        assert_eq!(crate::outbox::size::stored_bytes(KILO as u64), 1000);
    }

    #[tokio::test]
    async fn at_its_share_the_oldest_rows_of_a_class_go_and_one_ledger_entry_says_which() {
        let folder = tempfile::tempdir().unwrap();
        let bench = open_with(&folder, &hundred(Policy::DropOldest));
        let verdicts = bench.stream("press", Class::Verdict);
        append(&bench, verdicts, 1..41).await;
        assert_eq!(gaps(&bench.next().await.unwrap()), [], "forty fit");
        append(&bench, verdicts, 41..101).await;
        let batch = bench.next().await.unwrap();
        assert_eq!(gaps(&batch), [(1, 60, 60, "evicted")]);
        assert_eq!(numbers(&batch), (61..101).collect::<Vec<_>>());
        assert_eq!(rows(&bench, Class::Verdict), 40);
    }

    #[tokio::test]
    async fn the_oldest_row_of_the_class_goes_first_whichever_stream_it_is_in() {
        let folder = tempfile::tempdir().unwrap();
        let bench = open_with(&folder, &hundred(Policy::DropOldest));
        let (press, lathe) = (bench.stream("press", Class::Verdict), bench.stream("lathe", Class::Verdict));
        for n in 1..41 {
            append(&bench, if n % 4 == 0 { lathe } else { press }, n..n + 1).await;
        }
        bench.clock.set_wall_ms(5);
        append(&bench, lathe, 41..49).await;
        let (mut left, mut lost) = (Vec::new(), 0);
        while let Some(batch) = bench.next().await {
            left.extend(numbers(&batch));
            lost += batch.gaps.iter().map(|gap| gap.count).sum::<u64>();
            assert!(batch.gaps.len() <= 1);
            bench.delete(&batch).await;
        }
        left.sort_unstable();
        assert_eq!((left, lost), ((9..49).collect::<Vec<_>>(), 8), "1 to 8 were the oldest");
    }

    #[tokio::test]
    async fn drop_newest_keeps_the_old_and_the_ledger_names_the_new() {
        let folder = tempfile::tempdir().unwrap();
        let bench = open_with(&folder, &hundred(Policy::DropNewest));
        let verdicts = bench.stream("press", Class::Verdict);
        append(&bench, verdicts, 1..51).await;
        let batch = bench.next().await.unwrap();
        assert_eq!(numbers(&batch), (1..41).collect::<Vec<_>>());
        assert_eq!(gaps(&batch), [(41, 50, 10, "refused_newest")]);
        bench.delete(&batch).await;
        append(&bench, verdicts, 51..53).await;
        assert_eq!(numbers(&bench.next().await.unwrap()), [51, 52]);
    }

    #[tokio::test]
    async fn alarms_make_telemetry_give_way_and_never_the_reverse() {
        let folder = tempfile::tempdir().unwrap();
        let bench = open_with(&folder, &hundred(Policy::Block));
        let alarms = bench.stream("press", Class::Alarm);
        let others = [Class::Verdict, Class::Summary, Class::Raw].map(|class| bench.stream("press", class));
        for stream in others {
            append(&bench, stream, 1..51).await;
        }
        let counts = || [Class::Alarm, Class::Verdict, Class::Summary, Class::Raw].map(|class| rows(&bench, class));
        assert_eq!(counts(), [0, 50, 30, 20], "a class that blocks is kept below its share by admission, not here");
        append(&bench, alarms, 1..31).await;
        let [kept, verdicts, summaries, raw] = counts();
        assert_eq!((kept, summaries, raw), (30, 30, 0), "raw rows go first, then verdicts, although they block");
        assert!((38..=40).contains(&verdicts), "{verdicts}");
        append(&bench, alarms, 31..96).await;
        assert_eq!(counts()[0], 95, "every alarm is there");
        assert!(counts()[1..].iter().sum::<u64>() <= 5, "{:?}", counts());
        append(&bench, others[1], 51..150).await;
        append(&bench, others[2], 51..150).await;
        assert_eq!(counts()[0], 95);
    }

    #[tokio::test]
    async fn a_late_acknowledgement_of_evicted_rows_takes_back_only_what_it_covers() {
        let folder = tempfile::tempdir().unwrap();
        let bench = open_with(&folder, &hundred(Policy::DropOldest));
        let verdicts = bench.stream("press", Class::Verdict);
        append(&bench, verdicts, 1..11).await;
        let sent = bench.next().await.unwrap();
        append(&bench, verdicts, 11..61).await;
        assert_eq!(gaps(&bench.next().await.unwrap()), [(1, 20, 20, "evicted")]);
        bench.delete(&sent).await;
        let batch = bench.next().await.unwrap();
        assert_eq!(gaps(&batch), [(11, 20, 10, "evicted")], "1 to 10 were received, so they are not lost");
        assert_eq!(numbers(&batch), (21..61).collect::<Vec<_>>());
        append(&bench, verdicts, 61..63).await;
        bench.delete(&batch).await;
        assert_eq!(numbers(&bench.next().await.unwrap()), [61, 62]);
    }

    #[tokio::test]
    async fn the_account_survives_a_clean_end_and_a_kill() {
        let folder = tempfile::tempdir().unwrap();
        let config = hundred(Policy::DropOldest);
        for clean in [true, false, true] {
            let bench = open_with(&folder, &config);
            let verdicts = bench.stream("press", Class::Verdict);
            append(&bench, verdicts, 1..8).await;
            let usage = bench.outbox.usage();
            assert_eq!(usage[1].bytes, usage[1].rows * 1000);
            if clean {
                bench.outbox.close().unwrap();
            }
        }
        let bench = open_with(&folder, &config);
        assert_eq!((bench.outbox.usage()[1].rows, bench.outbox.usage()[1].bytes), (21, 21_000));
        while let Some(batch) = bench.next().await {
            bench.delete(&batch).await;
        }
        assert_eq!((bench.outbox.usage()[1].rows, bench.outbox.usage()[1].bytes), (0, 0));
    }

    #[tokio::test]
    async fn a_queue_of_a_release_that_counted_nothing_is_accounted_for_without_reading_it() {
        let folder = tempfile::tempdir().unwrap();
        let config = hundred(Policy::DropOldest);
        let bench = open_with(&folder, &config);
        let verdicts = bench.stream("press", Class::Verdict);
        append(&bench, verdicts, 1..31).await;
        bench.outbox.close().unwrap();
        let forget = |tx: &Tx<'_>| {
            tx.execute(
                "UPDATE outbox_stream SET bytes = 0, counted = NULL, crc = row_crc('outbox_stream', stream_no, class, name,
                 reserved, settled, 0, NULL, flat_until, flat_bytes, epoch, salvage)",
                [],
            )
        };
        bench.store.writer().commit(0, forget).await.unwrap();
        bench.store.close();
        let bench = open_with(&folder, &config);
        assert_eq!(bench.outbox.usage()[1].bytes, 30_000);
        let verdicts = bench.stream("press", Class::Verdict);
        append(&bench, verdicts, 31..51).await;
        let batch = bench.next().await.unwrap();
        assert_eq!(gaps(&batch), [(1, 10, 10, "evicted")]);
        bench.delete(&batch).await;
        assert_eq!(bench.outbox.usage()[1].bytes, 0);
        assert_eq!(bench.outbox.depth(), [(key("press", Class::Verdict), 0)]);
    }

    #[tokio::test]
    async fn at_its_bound_the_ledger_gives_up_rows_rather_than_grow() {
        let folder = tempfile::tempdir().unwrap();
        let bench = open_with(&folder, &Config { ledger_entries: 3, ..hundred(Policy::DropOldest) });
        let verdicts = bench.stream("press", Class::Verdict);
        append(&bench, verdicts, 1..21).await;
        for seq in [2, 4, 6, 8, 10] {
            bench.outbox.give_up(verdicts, crate::base::Seq(seq), crate::outbox::GapReason::Unsendable).await.unwrap();
        }
        let batch = bench.next().await.unwrap();
        assert_eq!(gaps(&batch), [(2, 6, 5, "evicted"), (8, 8, 1, "unsendable"), (10, 10, 1, "unsendable")]);
        assert_eq!(batch.rows.len(), 13);
    }

    struct Count {
        is_wanted: bool,
    }

    impl Summarise for Count {
        fn is_wanted(&self, _: &StreamKey) -> bool {
            self.is_wanted
        }

        fn summarise(&self, _: &StreamKey, bodies: &[Vec<u8>]) -> Option<Vec<u8>> {
            let number = |body: &Vec<u8>| String::from_utf8_lossy(body).parse::<u64>().unwrap();
            Some(format!("{} from {}", bodies.len(), number(&bodies[0])).into_bytes())
        }
    }

    #[tokio::test]
    async fn summarise_replaces_the_oldest_rows_by_a_summary_and_a_ledger_entry() {
        for is_wanted in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let bench = open_with(&folder, &hundred(Policy::Summarise));
            bench.outbox.summarise_with(Arc::new(Count { is_wanted }));
            let verdicts = bench.stream("press", Class::Verdict);
            bench.stream("press", Class::Summary);
            append(&bench, verdicts, 1..47).await;
            let (mut left, mut lost, mut summaries) = (Vec::new(), Vec::new(), Vec::new());
            while let Some(batch) = bench.next().await {
                if batch.stream.class == Class::Summary {
                    summaries.extend(bodies(&batch).into_iter().map(str::to_owned));
                } else {
                    left.extend(numbers(&batch));
                    lost.extend(gaps(&batch));
                }
                bench.delete(&batch).await;
            }
            assert_eq!((left, lost), ((7..47).collect::<Vec<_>>(), vec![(1, 6, 6, "summarised")]));
            let all = ["2 from 1", "2 from 3", "2 from 5"];
            assert_eq!(summaries, if is_wanted { all.to_vec() } else { vec![] });
        }
    }

    #[tokio::test]
    async fn without_a_place_for_summaries_the_oldest_rows_just_go() {
        let folder = tempfile::tempdir().unwrap();
        let bench = open_with(&folder, &hundred(Policy::Summarise));
        bench.outbox.summarise_with(Arc::new(Count { is_wanted: true }));
        let verdicts = bench.stream("press", Class::Verdict);
        append(&bench, verdicts, 1..42).await;
        assert_eq!(gaps(&bench.next().await.unwrap()), [(1, 2, 2, "evicted")]);
    }
}
