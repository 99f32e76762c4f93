//! What a row costs on the disk, and how rows leave: the one place that deletes them, so that the count stays right.

use rusqlite::types::ValueRef;

use super::arrive::{self, Together};
use super::packs;
use super::state::Stream;
use crate::store::{Error, Tx};

/// Columns, cell header and page header of one row, measured.
const FIXED_BYTES: u64 = 45;
/// Longest body that stays in the row's own page.
pub(super) const INLINE_BYTES: u64 = 962;
/// What stays in the row's page of a longer body, its columns included, with the page's usual slack.
const STUB_BYTES: u64 = 592;
/// Body bytes among those.
const STUB_BODY_BYTES: u64 = 457;
const PAGE_BYTES: u64 = 4096;
/// Rows read at either end of a stream whose bytes nobody counted.
const SAMPLE_ROWS: i64 = 64;
/// Body bytes of an overflow page.
const OVERFLOW_BYTES: u64 = PAGE_BYTES - 4;

/// Bytes of the file that a row with a body of this length takes. Within 12 % of what SQLite's pages show
/// between 40 and 30,000 bytes, and the same for the same length always, so that what was added can be taken away again.
pub(super) fn stored_bytes(body_bytes: u64) -> u64 {
    if body_bytes <= INLINE_BYTES {
        // The tenth is the part of a page that rows of this size leave empty.
        return FIXED_BYTES + body_bytes + body_bytes / 10;
    }
    STUB_BYTES + PAGE_BYTES * (body_bytes - STUB_BODY_BYTES).div_ceil(OVERFLOW_BYTES)
}

/// A range of a block: its columns and their part of a page.
pub(super) const RANGE_BYTES: u64 = 60;
/// Columns and cell of a block beside its body.
const BLOCK_FIXED_BYTES: u64 = 26;
/// Longest record that stays whole in a page of `outbox_block`.
const BLOCK_LOCAL_BYTES: u64 = PAGE_BYTES - 35;
/// What stays there at least of a longer one.
const BLOCK_STUB_BYTES: u64 = 489;
/// What a page has for cells.
const CELL_BYTES: u64 = PAGE_BYTES - 8;

/// Bytes of the file that a block with a packed body of this length takes, and the first range of it. The overflow pages
/// are full; what is left shares a page with as many of its size as fit there.
pub(super) fn block_bytes(body_bytes: u64) -> u64 {
    let record = body_bytes + BLOCK_FIXED_BYTES;
    let local = if record <= BLOCK_LOCAL_BYTES {
        record
    } else {
        let left = BLOCK_STUB_BYTES + (record - BLOCK_STUB_BYTES) % OVERFLOW_BYTES;
        if left <= BLOCK_LOCAL_BYTES { left } else { BLOCK_STUB_BYTES }
    };
    let pages = (record - local).div_ceil(OVERFLOW_BYTES);
    RANGE_BYTES + pages * PAGE_BYTES + PAGE_BYTES / (CELL_BYTES / local).max(1)
}

/// What [`remove`] took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Removed {
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

impl Stream {
    /// What this row counts with.
    pub(super) fn row_bytes(&self, seq: u64, body_bytes: u64) -> u64 {
        if seq <= self.flat_until { self.flat_bytes } else { stored_bytes(body_bytes) }
    }
}

/// Deletes the rows of a stream from `first` to `last` and takes them out of its account.
pub(super) fn remove(tx: &Tx<'_>, stream: &mut Stream, first: u64, last: u64) -> Result<Removed, Error> {
    if stream.staged.pending.first().is_some_and(|row| row.stored.seq.cast_unsigned() <= last) {
        arrive::write(tx, stream, Together::NEVER)?;
    }
    let range = (stream.no, first.cast_signed(), last.cast_signed());
    let mut removed = Removed::default();
    {
        let mut statement = tx.prepare_cached(
            "SELECT seq, length(body) FROM outbox_row WHERE stream_no = ?1 AND seq BETWEEN ?2 AND ?3",
        )?;
        let mut rows = statement.query(range)?;
        while let Some(row) = rows.next()? {
            removed.rows += 1;
            removed.bytes += bytes_of(stream, row)?;
        }
    }
    if removed.rows > 0 {
        tx.execute("DELETE FROM outbox_row WHERE stream_no = ?1 AND seq BETWEEN ?2 AND ?3", range)?;
    }
    let packed = packs::remove(tx, stream, first, last)?;
    removed.rows += packed.rows;
    removed.bytes += packed.bytes;
    stream.staged.removed += removed.rows;
    stream.staged.freed_bytes += removed.bytes;
    Ok(removed)
}

/// Bytes of the rows and blocks above `counted`: at most one block of reserved numbers, whatever the queue's length.
pub(super) fn bytes_since(tx: &Tx<'_>, stream: &Stream, counted: u64) -> Result<u64, Error> {
    let mut statement =
        tx.prepare_cached("SELECT seq, length(body) FROM outbox_row WHERE stream_no = ?1 AND seq > ?2")?;
    let mut rows = statement.query((stream.no, counted.cast_signed()))?;
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        bytes += bytes_of(stream, row)?;
    }
    Ok(bytes + packs::bytes_since(tx, stream.no, counted)?)
}

/// Accounts for a stream of a release that did not count bytes, without reading it: its first and last rows stand for
/// all. Each of its rows counts their mean until it has left.
pub(super) fn estimate(tx: &Tx<'_>, stream: &mut Stream) -> Result<(), Error> {
    let (mut rows, mut bytes) = (0, 0);
    for sql in [
        "SELECT seq, length(body) FROM outbox_row WHERE stream_no = ?1 ORDER BY seq LIMIT ?2",
        "SELECT seq, length(body) FROM outbox_row WHERE stream_no = ?1 ORDER BY seq DESC LIMIT ?2",
    ] {
        let mut statement = tx.prepare_cached(sql)?;
        let mut found = statement.query((stream.no, SAMPLE_ROWS))?;
        while let Some(row) = found.next()? {
            rows += 1;
            bytes += bytes_of(stream, row)?;
        }
    }
    stream.flat_until = stream.last;
    stream.flat_bytes = bytes / rows.max(1);
    stream.bytes = stream.rows * stream.flat_bytes;
    Ok(())
}

fn bytes_of(stream: &Stream, row: &rusqlite::Row<'_>) -> Result<u64, Error> {
    // A damaged length must not stop anything: the stream's account is right again when it is empty.
    let number = |at| Ok::<_, rusqlite::Error>(integer(row.get_ref(at)?).unwrap_or(0).cast_unsigned());
    Ok(stream.row_bytes(number(0)?, number(1)?))
}

/// The column's value if it is an integer; damage can make it anything.
pub(super) fn integer(value: ValueRef<'_>) -> Option<i64> {
    if let ValueRef::Integer(value) = value { Some(value) } else { None }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the file's own pages are what is measured")]
mod tests {
    use super::*;

    /// Pages of a table filled as the queue fills it, by rows of this size.
    fn measured(body_bytes: usize, streams: i64) -> f64 {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        connection.execute_batch(crate::outbox::SCHEMA.steps[0]).unwrap();
        let pages = || connection.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0)).unwrap();
        let (before, rows) = (pages(), 2000);
        for n in 0..rows {
            let row = (
                n % streams + 1,
                100_000 + n / streams,
                1_763_690_000_000 + n,
                864_000_000 + n,
                vec![7_u8; body_bytes],
            );
            let sql = "INSERT INTO outbox_row VALUES (?1, ?2, ?3, ?4, 3, 2, 3000000000, ?5)";
            connection.prepare_cached(sql).unwrap().execute(row).unwrap();
        }
        ((pages() - before) * 4096) as f64 / rows as f64
    }

    #[test]
    fn the_account_says_what_the_pages_say() {
        for streams in [1, 8] {
            for body_bytes in [40, 60, 100, 200, 400, 700, 950, 980, 1200, 4000, 8000, 30_000] {
                let (said, is) = (stored_bytes(body_bytes as u64) as f64, measured(body_bytes, streams));
                assert!(
                    (0.88..1.12).contains(&(said / is)),
                    "{body_bytes} B, {streams} streams: {said} said, {is} measured"
                );
            }
        }
    }

    /// Pages of a queue of blocks of this size.
    fn measured_blocks(body_bytes: usize, streams: i64) -> f64 {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        // The tables' own; later steps only sign what is there.
        for step in &crate::outbox::SCHEMA.steps[..5] {
            connection.execute_batch(step).unwrap();
        }
        let pages = || connection.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0)).unwrap();
        let (before, blocks) = (pages(), 2000);
        for n in 0..blocks {
            let (stream_no, base) = (n % streams + 1, 100_000 + 256 * n / streams);
            let sql = "INSERT INTO outbox_block VALUES (?1, ?2, ?3, 256, 20000, 3000000000, ?4)";
            connection.prepare_cached(sql).unwrap().execute((n + 1, stream_no, base, vec![7_u8; body_bytes])).unwrap();
            let sql =
                "INSERT INTO outbox_pack VALUES (?1, ?2 + 255, ?2, 3, 864000000, ?2, 256, 20000, 0, x'', ?3, 5000)";
            connection.prepare_cached(sql).unwrap().execute((stream_no, base, n + 1)).unwrap();
        }
        ((pages() - before) * 4096) as f64 / blocks as f64
    }

    #[test]
    fn the_account_says_what_the_pages_of_blocks_say() {
        for streams in [1, 8] {
            for body_bytes in [60, 120, 400, 700, 1200, 1900, 3000, 4100, 5500, 9000, 40_000] {
                let (said, is) = (block_bytes(body_bytes as u64) as f64, measured_blocks(body_bytes, streams));
                assert!(
                    (0.85..1.15).contains(&(said / is)),
                    "{body_bytes} B, {streams} streams: {said} said, {is} measured"
                );
            }
        }
    }
}
