//! Rows that arrive together: what one transaction appended to a stream is written when all of it is known, as blocks
//! where it is much, row by row where it is little.
//!
//! A block that is written once costs a quarter of single rows that are written, deleted and packed. An outage's backlog,
//! raw windows around an alarm and fast streams of verdicts come like that.

use super::block::{BlockRow, MAX_BODY_BYTES, MAX_ROWS, Packed};
use super::config::PackConfig;
use super::packs;
use super::size::{INLINE_BYTES, block_bytes, stored_bytes};
use super::state::Stream;
use crate::store::{Error, Tx};

/// Longest body in a block: one row must not fill it.
pub(super) const MAX_BLOCK_BODY_BYTES: usize = MAX_BODY_BYTES / 8;
/// So many bytes of bodies are a block however few rows they are: as single rows they would dirty more pages.
const ENOUGH_BYTES: usize = 2048;

/// When rows of one transaction are a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Together {
    /// From so many rows on; `None` for never.
    least_rows: Option<usize>,
    block_rows: usize,
}

impl Together {
    pub(super) const NEVER: Self = Self { least_rows: None, block_rows: MAX_ROWS };

    pub(super) fn of(config: &PackConfig) -> Self {
        let least_rows = (config.after_s > 0).then_some(config.commit_rows.max(1));
        Self { least_rows, block_rows: config.block_rows.clamp(1, MAX_ROWS) }
    }

    /// How many of `rows` may be one block: at least one.
    fn part(&self, rows: &[BlockRow]) -> usize {
        let mut bytes = 0;
        let fits = |(at, row): &(usize, &BlockRow)| {
            bytes += row.body.len();
            let follows = *at == 0 || rows[at - 1].stored.seq + 1 == row.stored.seq;
            follows && row.body.len() <= MAX_BLOCK_BODY_BYTES && bytes <= MAX_BODY_BYTES
        };
        rows.iter().take(self.block_rows).enumerate().take_while(fits).count().max(1)
    }

    /// The block that `rows` are, if they are enough and it takes less of the file than they would: what it takes, and
    /// what they do.
    fn block(&self, rows: &[BlockRow]) -> Option<(Packed, u64, u64)> {
        let bytes: usize = rows.iter().map(|row| row.body.len()).sum();
        let overflows = rows.iter().any(|row| row.body.len() as u64 > INLINE_BYTES);
        let is_enough = rows.len() >= self.least_rows? || bytes >= ENOUGH_BYTES || overflows;
        if !is_enough || rows.iter().any(|row| row.body.len() > MAX_BLOCK_BODY_BYTES) {
            return None;
        }
        let packed = Packed::of(rows)?;
        let single: u64 = rows.iter().map(|row| stored_bytes(row.body.len() as u64)).sum();
        let together = block_bytes(packed.body.len() as u64);
        (together < single).then_some((packed, together, single))
    }
}

/// Writes what the transaction has appended to `stream` and not written yet.
pub(super) fn write(tx: &Tx<'_>, stream: &mut Stream, together: Together) -> Result<(), Error> {
    let pending = std::mem::take(&mut stream.staged.pending);
    let mut rest = pending.as_slice();
    while !rest.is_empty() {
        let (rows, behind) = rest.split_at(together.part(rest));
        rest = behind;
        if let Some((packed, takes, instead_of)) = together.block(rows) {
            let age = (rows[0].stored.boot_no, rows[0].stored.boot_ms);
            packs::insert(tx, &packed, age)?;
            // The rows were counted one by one when they were appended.
            stream.staged.appended_bytes = stream.staged.appended_bytes + takes - instead_of;
            stream.staged.together += packed.count;
        } else {
            rows.iter().try_for_each(|row| write_row(tx, row))?;
        }
    }
    Ok(())
}

fn write_row(tx: &Tx<'_>, BlockRow { stored, checksum, body }: &BlockRow) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO outbox_row VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        (
            stored.stream_no,
            stored.seq,
            stored.wall_ms,
            stored.boot_ms,
            stored.boot_no,
            stored.clock_state,
            checksum,
            body,
        ),
    )
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::fixture::{Bench, bodies, open, open_with};
    use crate::outbox::{BatchId, BatchLimits, Class, Config, GapReason};

    fn body(n: usize) -> String {
        format!("the press weighs {} and turns {} times", n * 7919 % 1000, n * 104_729 % 977)
    }

    async fn append(bench: &Bench, stream: crate::outbox::StreamHandle, numbers: std::ops::Range<usize>) {
        let texts: Vec<String> = numbers.map(body).collect();
        bench.append(stream, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }

    async fn count(bench: &Bench, table: &'static str) -> i64 {
        let read = move |c: &rusqlite::Connection| {
            Ok(c.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?)
        };
        bench.store.reader().read(read).await.unwrap()
    }

    #[tokio::test]
    async fn rows_of_one_commit_are_blocks_if_they_are_many_and_rows_if_they_are_few() {
        let folder = tempfile::tempdir().unwrap();
        let bench = open(&folder);
        let stream = bench.stream("press", Class::Verdict);
        append(&bench, stream, 0..5).await;
        append(&bench, stream, 5..305).await;
        append(&bench, stream, 305..308).await;
        assert_eq!((count(&bench, "outbox_pack").await, count(&bench, "outbox_row").await), (2, 8));
        assert_eq!(bench.outbox.depth()[0].1, 308);
        let limits = BatchLimits { rows: 1000, bytes: 1 << 20 };
        let batch = bench.outbox.next_batch(&limits, &[]).await.unwrap().unwrap();
        assert_eq!(bodies(&batch), (0..308).map(body).collect::<Vec<_>>(), "in their order, whatever holds them");
        bench.delete(&batch).await;
        assert_eq!((count(&bench, "outbox_pack").await, count(&bench, "outbox_block").await), (0, 0));
        assert_eq!(bench.outbox.usage()[1].bytes, 0);
    }

    #[tokio::test]
    async fn with_packing_off_every_row_is_single() {
        let folder = tempfile::tempdir().unwrap();
        let pack = PackConfig { after_s: 0, ..PackConfig::default() };
        let bench = open_with(&folder, &Config { pack, ..Config::default() });
        let stream = bench.stream("press", Class::Verdict);
        append(&bench, stream, 0..300).await;
        assert_eq!((count(&bench, "outbox_pack").await, count(&bench, "outbox_row").await), (0, 300));
    }

    #[tokio::test]
    async fn a_summary_that_would_take_an_overflow_page_takes_none() {
        let folder = tempfile::tempdir().unwrap();
        let bench = open(&folder);
        let stream = bench.stream("press", Class::Summary);
        let text: String = (0..30).map(body).collect();
        bench.append(stream, &[&text]).await;
        assert_eq!((count(&bench, "outbox_block").await, count(&bench, "outbox_row").await), (1, 0));
        assert!(bench.outbox.usage()[2].bytes < 1200, "{:?}", bench.outbox.usage()[2]);
        assert_eq!(bodies(&bench.next().await.unwrap()), [text]);
    }

    #[tokio::test]
    async fn noise_that_does_not_get_smaller_stays_rows() {
        let folder = tempfile::tempdir().unwrap();
        let bench = open(&folder);
        let stream = bench.stream("press", Class::Raw);
        let (outbox, stamp) = (bench.outbox.clone(), crate::base::Clock::stamp(&*bench.clock));
        let mut state = 1_u64;
        let mut noise = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        let work = move |tx: &Tx<'_>| {
            let body: Vec<u8> = (0..2100).map(|_| noise()).collect();
            outbox.append(tx, &stream, &crate::outbox::Envelope { body, stamp }).map(drop)
        };
        bench.store.writer().commit(100, work).await.unwrap();
        let bytes = bench.outbox.usage()[3].bytes;
        assert!(bytes <= stored_bytes(2100), "a block counts no more than its rows would: {bytes}");
    }

    #[tokio::test]
    async fn a_commit_that_fails_leaves_no_row_and_the_next_one_only_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let bench = open(&folder);
        let stream = bench.stream("press", Class::Raw);
        let (outbox, stamp) = (bench.outbox.clone(), crate::base::Clock::stamp(&*bench.clock));
        let work = move |tx: &Tx<'_>| {
            let envelope = crate::outbox::Envelope { body: b"never".to_vec(), stamp };
            (0..40).try_for_each(|_| outbox.append(tx, &stream, &envelope).map(drop))?;
            tx.execute("INSERT INTO no_such_table VALUES (1)", []).map(drop)
        };
        bench.store.writer().commit(0, work).await.unwrap_err();
        append(&bench, stream, 0..20).await;
        let batch = bench.next().await.unwrap();
        assert_eq!(bodies(&batch), (0..20).map(body).collect::<Vec<_>>());
        assert_eq!((batch.rows[0].seq.0, batch.gaps[0].reason), (41, GapReason::Rollback));
    }

    #[tokio::test]
    async fn the_account_of_blocks_survives_a_kill() {
        let folder = tempfile::tempdir().unwrap();
        let bench = open(&folder);
        let stream = bench.stream("press", Class::Verdict);
        append(&bench, stream, 0..100).await;
        append(&bench, stream, 100..103).await;
        let (rows, bytes) = (bench.outbox.usage()[1].rows, bench.outbox.usage()[1].bytes);
        drop(bench);
        let bench = open(&folder);
        assert_eq!((bench.outbox.usage()[1].rows, bench.outbox.usage()[1].bytes), (rows, bytes));
    }

    #[tokio::test]
    async fn rows_that_leave_from_the_middle_split_the_range_and_the_block_goes_with_its_last_row() {
        let folder = tempfile::tempdir().unwrap();
        let bench = open(&folder);
        let stream = bench.stream("press", Class::Verdict);
        append(&bench, stream, 0..50).await;
        let whole = bench.outbox.usage()[1].bytes;
        let leave = async |first: u64, last: u64| {
            let id = BatchId { stream, first: crate::base::Seq(first), last: crate::base::Seq(last) };
            let outbox = bench.outbox.clone();
            bench.store.writer().commit(0, move |tx| outbox.delete(tx, &id)).await.unwrap();
        };
        leave(11, 20).await;
        leave(31, 40).await;
        assert_eq!((count(&bench, "outbox_pack").await, count(&bench, "outbox_row").await), (3, 0));
        let left: Vec<String> = (0..10).chain(20..30).chain(40..50).map(body).collect();
        let mut found = Vec::new();
        let mut in_flight = Vec::new();
        while let Some(batch) =
            bench.outbox.next_batch(&BatchLimits { rows: 7, bytes: 1 << 20 }, &in_flight).await.unwrap()
        {
            found.extend(bodies(&batch).into_iter().map(str::to_owned));
            in_flight.push(batch.id);
        }
        assert_eq!(found, left);
        for (first, last, ranges) in [(41, 50, 2), (1, 10, 1)] {
            leave(first, last).await;
            assert_eq!((count(&bench, "outbox_pack").await, count(&bench, "outbox_block").await), (ranges, 1));
            assert!(bench.outbox.usage()[1].bytes >= whole, "it takes its room until its last row has left");
        }
        leave(21, 30).await;
        assert_eq!((count(&bench, "outbox_pack").await, count(&bench, "outbox_block").await), (0, 0));
        assert_eq!((bench.outbox.usage()[1].rows, bench.outbox.usage()[1].bytes), (0, 0));
    }

    #[tokio::test]
    async fn blocks_of_an_earlier_release_are_sent_split_and_accounted_for_where_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let bench = open(&folder);
        let stream = bench.stream("press", Class::Verdict);
        append(&bench, stream, 0..50).await;
        let as_before = |tx: &Tx<'_>| {
            for sql in [
                "UPDATE outbox_pack SET (raw_bytes, checksum, body) = (SELECT raw_bytes, checksum, body
                 FROM outbox_block WHERE outbox_block.block_no = outbox_pack.block_no)",
                "UPDATE outbox_pack SET block_no = NULL, bytes = NULL",
                "DELETE FROM outbox_block",
            ] {
                tx.execute(sql, [])?;
            }
            let bytes: i64 = tx.query_row("SELECT length(body) FROM outbox_pack", [], |row| row.get(0))?;
            let bytes = stored_bytes(bytes.cast_unsigned()).cast_signed();
            tx.execute(
                "UPDATE outbox_stream SET bytes = ?1, counted = 50, crc = row_crc('outbox_stream', stream_no, class, name,
                 reserved, settled, ?1, 50, flat_until, flat_bytes, epoch, salvage)",
                [bytes],
            )
        };
        bench.store.writer().commit(0, as_before).await.unwrap();
        drop(bench);
        let bench = open(&folder);
        assert_eq!(bodies(&bench.next().await.unwrap()), (0..50).map(body).collect::<Vec<_>>());
        bench.outbox.give_up(stream, crate::base::Seq(25), GapReason::Unsendable).await.unwrap();
        assert_eq!((count(&bench, "outbox_pack").await, count(&bench, "outbox_block").await), (2, 1));
        let batch = bench.next().await.unwrap();
        assert_eq!(bodies(&batch), (0..50).filter(|n| *n != 24).map(body).collect::<Vec<_>>());
        bench.delete(&batch).await;
        assert_eq!((count(&bench, "outbox_pack").await, count(&bench, "outbox_block").await), (0, 0));
        assert_eq!(bench.outbox.usage()[1].bytes, 0);
    }
}
