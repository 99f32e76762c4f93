//! Rows and the set of received numbers, in one transaction.

use std::sync::Arc;

use rusqlite::OptionalExtension;

use super::batch::{IncomingBatch, VerifiedBatch};
use super::config::Config;
use super::metrics::Metrics;
use super::ranges::Ranges;
use crate::base::Name;
use crate::store::{Error, Schema, Tx};

/// Tables of this room. `inbox_received` holds ranges: one row in a healthy series, whose `last` is the high-water mark.
pub const SCHEMA: Schema = Schema {
    room: "inbox",
    steps: &["
        CREATE TABLE inbox_series (
            series_no INTEGER PRIMARY KEY,
            gateway TEXT NOT NULL,
            epoch INTEGER NOT NULL,
            class TEXT NOT NULL,
            stream TEXT NOT NULL,
            highest INTEGER NOT NULL,
            duplicates INTEGER NOT NULL,
            UNIQUE (gateway, epoch, class, stream)
        );
        CREATE TABLE inbox_received (
            series_no INTEGER NOT NULL,
            first INTEGER NOT NULL,
            last INTEGER NOT NULL,
            PRIMARY KEY (series_no, first)
        ) WITHOUT ROWID;
        CREATE TABLE inbox_lost (
            series_no INTEGER NOT NULL,
            first INTEGER NOT NULL,
            last INTEGER NOT NULL,
            count INTEGER NOT NULL,
            reason TEXT NOT NULL,
            wall_ms INTEGER NOT NULL,
            PRIMARY KEY (series_no, first, last)
        ) WITHOUT ROWID;
        CREATE TABLE inbox_row (
            series_no INTEGER NOT NULL,
            seq INTEGER NOT NULL,
            wall_ms INTEGER NOT NULL,
            boot_ms INTEGER NOT NULL,
            clock_state TEXT NOT NULL,
            body BLOB NOT NULL,
            PRIMARY KEY (series_no, seq)
        ) WITHOUT ROWID;
    "],
    read_at_start: &[],
};

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// Every row is in the file now; acknowledge after the commit.
    Stored {
        /// Rows that were not there before.
        new_rows: u64,
        /// Rows that were.
        duplicates: u64,
        /// Numbers newly declared lost.
        newly_lost: u64,
    },
    /// It would begin a series beyond the limit. Nothing was written; do not acknowledge.
    TooManySeries,
}

/// The receiver's state. A cheap clone.
#[derive(Debug, Clone)]
pub struct Inbox {
    pub(super) config: Arc<Config>,
    metrics: Metrics,
}

impl Inbox {
    /// The state lives in the file alone.
    pub fn new(config: Config) -> Self {
        Self { config: Arc::new(config), metrics: Metrics::default() }
    }

    /// The limits, for [`IncomingBatch::verify`].
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What this room counts.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Stores what is new in `batch` and enters it into the set of received numbers, in this transaction. Fails only
    /// for the disk's reasons.
    pub fn apply(&self, tx: &Tx<'_>, gateway: &Name, batch: &VerifiedBatch) -> Result<Applied, Error> {
        let batch = &batch.0;
        let Some(no) = self.series(tx, gateway, batch)? else {
            self.metrics.refused.inc();
            return Ok(Applied::TooManySeries);
        };
        let numbers = (batch.first.0, batch.last.0);
        let before = overlapping(tx, "inbox_received", no, numbers)?;
        let mut received = before.clone();
        let mut new_rows = 0;
        {
            let mut insert = tx.prepare_cached("INSERT INTO inbox_row VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
            for row in batch.rows.iter().filter(|row| !before.contains(row.seq.0)) {
                let (seq, boot_ms) = (row.seq.0.cast_signed(), row.boot_ms.cast_signed());
                insert.execute((no, seq, row.wall_ms, boot_ms, row.clock_state, &row.body))?;
                received.insert(row.seq.0, row.seq.0);
                new_rows += 1;
            }
        }
        if received != before {
            replace(tx, no, &before, &received)?;
        }
        let newly_lost = declare_lost(tx, no, batch, &received)?;
        let duplicates = batch.rows.len() as u64 - new_rows;
        tx.execute(
            "UPDATE inbox_series SET highest = max(highest, ?2), duplicates = duplicates + ?3 WHERE series_no = ?1",
            (no, batch.complete_to().cast_signed(), duplicates.cast_signed()),
        )?;
        let metrics = self.metrics.clone();
        tx.after(move |committed| {
            if committed {
                metrics.rows.inc_by(new_rows);
                metrics.duplicates.inc_by(duplicates);
                metrics.declared_lost.inc_by(newly_lost);
            }
        });
        Ok(Applied::Stored { new_rows, duplicates, newly_lost })
    }

    fn series(&self, tx: &Tx<'_>, gateway: &Name, batch: &IncomingBatch) -> Result<Option<i64>, Error> {
        let key = (gateway.as_str(), batch.epoch.0.cast_signed(), &batch.class, batch.stream.as_str());
        let known = tx
            .prepare_cached(
                "SELECT series_no FROM inbox_series WHERE gateway = ?1 AND epoch = ?2 AND class = ?3 AND stream = ?4",
            )?
            .query_row(key, |row| row.get(0))
            .optional()?;
        if known.is_some() {
            return Ok(known);
        }
        // Series are never deleted, so the newest number is their count.
        let count: i64 = tx.query_row("SELECT coalesce(max(series_no), 0) FROM inbox_series", [], |row| row.get(0))?;
        if usize::try_from(count).unwrap_or(usize::MAX) >= self.config.max_series {
            return Ok(None);
        }
        tx.execute(
            "INSERT INTO inbox_series (gateway, epoch, class, stream, highest, duplicates) VALUES (?1, ?2, ?3, ?4, 0, 0)",
            key,
        )?;
        Ok(Some(count + 1))
    }
}

/// The stored ranges that overlap or touch `numbers`.
fn overlapping(tx: &Tx<'_>, table: &'static str, no: i64, numbers: (u64, u64)) -> Result<Ranges, Error> {
    let (first, last) = (numbers.0.cast_signed(), numbers.1.cast_signed());
    // Ranges are disjoint, so only the last one that begins before `first` can reach it: the tree is not scanned.
    let before: Option<i64> = tx.query_row(
        &format!("SELECT max(first) FROM {table} WHERE series_no = ?1 AND first < ?2"),
        (no, first),
        |row| row.get(0),
    )?;
    let mut statement = tx.prepare_cached(&format!(
        "SELECT first, last FROM {table} WHERE series_no = ?1 AND first BETWEEN ?2 AND ?3 AND last >= ?4 - 1 ORDER BY first"
    ))?;
    let mut rows = statement.query((no, before.unwrap_or(first), last.saturating_add(1), first))?;
    let mut pairs = Vec::new();
    while let Some(row) = rows.next()? {
        pairs.push((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned()));
    }
    Ok(Ranges::from_sorted(pairs))
}

fn replace(tx: &Tx<'_>, no: i64, before: &Ranges, after: &Ranges) -> Result<(), Error> {
    for (first, last) in before.pairs().iter().filter(|pair| !after.pairs().iter().any(|new| new.0 == pair.0)) {
        debug_assert!(after.contains(*last));
        tx.execute("DELETE FROM inbox_received WHERE series_no = ?1 AND first = ?2", (no, first.cast_signed()))?;
    }
    for (first, last) in after.pairs().iter().filter(|pair| !before.pairs().contains(pair)) {
        tx.execute(
            "INSERT INTO inbox_received VALUES (?1, ?2, ?3)
             ON CONFLICT (series_no, first) DO UPDATE SET last = excluded.last",
            (no, first.cast_signed(), last.cast_signed()),
        )?;
    }
    Ok(())
}

/// Enters the sender's ledger. Entries may grow, repeat and overlap; a row that did arrive is not lost, which the
/// report settles. Returns the numbers that nobody had declared and nobody had received.
fn declare_lost(tx: &Tx<'_>, no: i64, batch: &IncomingBatch, received: &Ranges) -> Result<u64, Error> {
    let mut newly_lost = 0;
    for gap in &batch.gaps {
        let (first, last) = (gap.first.0.cast_signed(), gap.last.0.cast_signed());
        let known = declared(tx, no, (gap.first.0, gap.last.0))?;
        for (from, to) in known.absent(gap.first.0, gap.last.0) {
            newly_lost += received.absent(from, to).iter().map(|(a, b)| b - a + 1).sum::<u64>();
        }
        tx.execute(
            "INSERT INTO inbox_lost VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
            (no, first, last, gap.count.cast_signed(), &gap.reason, gap.wall_ms),
        )?;
    }
    Ok(newly_lost)
}

/// Declared ranges that meet `numbers`. Entries may overlap, so their ends are not in order; they are few.
fn declared(tx: &Tx<'_>, no: i64, numbers: (u64, u64)) -> Result<Ranges, Error> {
    let mut statement =
        tx.prepare_cached("SELECT first, last FROM inbox_lost WHERE series_no = ?1 AND first <= ?3 AND last >= ?2")?;
    let mut rows = statement.query((no, numbers.0.cast_signed(), numbers.1.cast_signed()))?;
    let mut known = Ranges::default();
    while let Some(row) = rows.next()? {
        known.insert(row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned());
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Digest, Epoch, ManualClock, Seq};
    use crate::inbox::{IncomingGap, IncomingRow, Report};
    use crate::store::{self, Store};
    use proptest::prelude::{ProptestConfig, Strategy, proptest};
    use std::collections::BTreeSet;

    /// Numbers of one batch: rows, gaps and absentees.
    #[derive(Debug, Clone)]
    struct Sent {
        first: u64,
        last: u64,
        rows: BTreeSet<u64>,
        gaps: Vec<(u64, u64)>,
    }

    fn sent() -> impl Strategy<Value = Sent> {
        (1_u64..50, proptest::collection::vec(0_u8..4, 1..12)).prop_map(|(first, kinds)| {
            let last = first + kinds.len() as u64 - 1;
            let numbered = || (first..).zip(&kinds);
            let rows = numbered().filter(|(_, kind)| **kind < 2).map(|(seq, _)| seq).collect();
            let mut gaps: Vec<(u64, u64)> = Vec::new();
            for (seq, _) in numbered().filter(|(_, kind)| **kind == 2) {
                match gaps.last_mut() {
                    Some(gap) if gap.1 + 1 == seq => gap.1 = seq,
                    _ => gaps.push((seq, seq)),
                }
            }
            Sent { first, last, rows, gaps }
        })
    }

    fn open(folder: &tempfile::TempDir) -> Store {
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        Store::open(&store::Config::at(folder.path()), &[SCHEMA], clock).unwrap().0
    }

    fn verified(inbox: &Inbox, epoch: u64, sent: &Sent) -> VerifiedBatch {
        let row = |seq: &u64| IncomingRow {
            seq: Seq(*seq),
            wall_ms: 1,
            boot_ms: 2,
            clock_state: "ntp",
            body: format!("row {seq}").into_bytes(),
        };
        let gap = |(first, last): &(u64, u64)| IncomingGap {
            first: Seq(*first),
            last: Seq(*last),
            count: 0,
            reason: "restart".into(),
            wall_ms: 3,
        };
        let batch = IncomingBatch {
            epoch: Epoch(epoch),
            class: "raw".into(),
            stream: Name::new("press").unwrap(),
            first: Seq(sent.first),
            last: Seq(sent.last),
            rows: sent.rows.iter().map(row).collect(),
            gaps: sent.gaps.iter().map(gap).collect(),
            ahead: None,
            digest: Digest::of(b"encoded"),
        };
        batch.verify(b"encoded", inbox.config()).unwrap()
    }

    async fn apply(store: &Store, inbox: &Inbox, gateway: &str, batch: VerifiedBatch) -> Applied {
        let (inbox, gateway) = (inbox.clone(), Name::new(gateway).unwrap());
        store.writer().commit(100, move |tx| inbox.apply(tx, &gateway, &batch)).await.unwrap()
    }

    async fn report(store: &Store, inbox: &Inbox) -> Report {
        let inbox = inbox.clone();
        store.reader().read(move |connection| inbox.report(connection)).await.unwrap()
    }

    async fn any_order_and_repetition(batches: Vec<Sent>, reopen_at: usize) {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, inbox) = (open(&folder), Inbox::new(Config::default()));
        let (mut received, mut lost) = (BTreeSet::new(), BTreeSet::new());
        let (mut highest, mut repeated) = (0, 0);
        for (at, sent) in batches.iter().enumerate() {
            if at == reopen_at {
                store.close();
                store = open(&folder);
            }
            let new_rows = sent.rows.difference(&received).count() as u64;
            let duplicates = sent.rows.len() as u64 - new_rows;
            received.extend(&sent.rows);
            let declared: BTreeSet<u64> = sent.gaps.iter().flat_map(|gap| gap.0..=gap.1).collect();
            let newly_lost =
                declared.iter().filter(|seq| !lost.contains(*seq) && !received.contains(seq)).count() as u64;
            lost.extend(declared);
            highest = highest.max(sent.last);
            repeated += duplicates;
            let applied = apply(&store, &inbox, "gw", verified(&inbox, 1, sent)).await;
            assert_eq!(applied, Applied::Stored { new_rows, duplicates, newly_lost });
        }
        let report = report(&store, &inbox).await;
        let series = &report.series[0];
        let missing: Vec<u64> = series.missing_ranges.iter().flat_map(|range| range.0.0..=range.1.0).collect();
        let expected: Vec<u64> = (1..=highest).filter(|seq| !received.contains(seq) && !lost.contains(seq)).collect();
        assert_eq!(missing, expected);
        assert_eq!(series.missing, expected.len() as u64);
        assert_eq!(series.received, received.len() as u64);
        assert_eq!(series.declared_lost, lost.difference(&received).count() as u64);
        assert_eq!((series.highest.0, series.duplicates), (highest, repeated));
        let rows = |connection: &rusqlite::Connection| {
            let mut statement = connection.prepare("SELECT seq, body FROM inbox_row ORDER BY seq")?;
            let rows = statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        };
        let stored = store.reader().read(rows).await.unwrap();
        let expected: Vec<_> =
            received.iter().map(|seq| (seq.cast_signed(), format!("row {seq}").into_bytes())).collect();
        assert_eq!(stored, expected, "each row once, as it was sent");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_order_and_repetition_of_partial_batches_takes_effect_exactly_once(
            batches in proptest::collection::vec(sent(), 1..20),
            reopen_at in 0_usize..20,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(any_order_and_repetition(batches, reopen_at));
        }
    }

    #[tokio::test]
    async fn a_new_epoch_of_the_same_gateway_is_a_new_series() {
        let folder = tempfile::tempdir().unwrap();
        let (store, inbox) = (open(&folder), Inbox::new(Config { max_series: 3, ..Config::default() }));
        let sent = Sent { first: 1, last: 2, rows: [1, 2].into(), gaps: vec![] };
        let stored = Applied::Stored { new_rows: 2, duplicates: 0, newly_lost: 0 };
        assert_eq!(apply(&store, &inbox, "gw", verified(&inbox, 1, &sent)).await, stored);
        assert_eq!(apply(&store, &inbox, "gw", verified(&inbox, 2, &sent)).await, stored);
        assert_eq!(apply(&store, &inbox, "other", verified(&inbox, 1, &sent)).await, stored);
        let refused = apply(&store, &inbox, "stranger", verified(&inbox, 1, &sent)).await;
        assert_eq!(refused, Applied::TooManySeries);
        let report = report(&store, &inbox).await;
        let seen: Vec<_> = report.series.iter().map(|s| (s.gateway.as_str(), s.epoch.0, s.received)).collect();
        assert_eq!(seen, [("gw", 1, 2), ("gw", 2, 2), ("other", 1, 2)]);
        assert_eq!((report.received(), report.missing(), report.duplicates()), (6, 0, 0));
    }

    #[tokio::test]
    async fn a_healthy_series_is_one_range_however_long() {
        let folder = tempfile::tempdir().unwrap();
        let (store, inbox) = (open(&folder), Inbox::new(Config::default()));
        for at in 0..30 {
            let first = at * 10 + 1;
            let sent = Sent { first, last: first + 9, rows: (first..first + 10).collect(), gaps: vec![] };
            apply(&store, &inbox, "gw", verified(&inbox, 1, &sent)).await;
        }
        let ranges = |connection: &rusqlite::Connection| {
            let read =
                |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
            Ok(connection.query_row("SELECT count(*), min(first), max(last) FROM inbox_received", [], read)?)
        };
        assert_eq!(store.reader().read(ranges).await.unwrap(), (1, 1, 300));
    }
}
