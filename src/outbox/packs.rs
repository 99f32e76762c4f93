//! The table of blocks: finding them, reading their rows one after another, and taking rows out of them.
//!
//! A block stands for the numbers from its `first` to its `last`. Both move inwards when rows leave at an end; what was
//! packed (`base`, `count`, the body) never changes. Rows that leave from its middle make it single rows again.

use rusqlite::{Connection, Row, Statement, params};

use super::block::{BlockRow, Packed};
use super::pick::intact;
use super::queue::Stored;
use super::size::{Removed, integer, stored_bytes};
use super::state::Stream;
use crate::store::{Error, Tx};

const HEAD: &str = "SELECT last, first, boot_no, boot_ms, length(body) FROM outbox_pack";

/// What is known of a block without its body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) first: u64,
    pub(super) last: u64,
    /// Boot and time since boot of the first row, or of one that has left from before it.
    pub(super) age: (i64, i64),
    /// What it takes of the file.
    pub(super) bytes: u64,
}

impl Head {
    /// Damage can make a column anything: a block without a first number is one row long.
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        let number = |at| Ok::<_, rusqlite::Error>(integer(row.get_ref(at)?));
        let last = number(0)?.unwrap_or(0).cast_unsigned();
        Ok(Self {
            first: number(1)?.map_or(last, i64::cast_unsigned).min(last),
            last,
            age: (number(2)?.unwrap_or(0), number(3)?.unwrap_or(0)),
            bytes: stored_bytes(number(4)?.unwrap_or(0).cast_unsigned()),
        })
    }
}

/// The first `most` blocks of a stream that reach `from` or lie above it.
pub(super) fn heads(connection: &mut Statement<'_>, no: i64, from: u64, most: u64) -> Result<Vec<Head>, Error> {
    let found = connection.query_map(params![no, from.cast_signed(), most.cast_signed()], Head::of)?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// The statement for [`heads`].
pub(super) fn heads_sql() -> String {
    format!("{HEAD} WHERE stream_no = ?1 AND last >= ?2 ORDER BY last LIMIT ?3")
}

/// The rows of the block that ends with `last`, those that have left included; none if it is damaged.
pub(super) fn rows(tx: &Tx<'_>, no: i64, last: u64) -> Result<Vec<BlockRow>, Error> {
    Ok(load(&mut *tx.prepare_cached(LOAD)?, no, last)?.map_or_else(Vec::new, |(_, rows)| rows))
}

/// Calls `each` for the intact rows of a range of numbers in order, single or in blocks, until it says false.
pub(super) fn walk(
    tx: &Tx<'_>,
    no: i64,
    (first, last): (u64, u64),
    each: &mut dyn FnMut(&Stored, Vec<u8>) -> bool,
) -> Result<(), Error> {
    let mut from = first;
    while from <= last {
        let block = heads(&mut *tx.prepare_cached(&heads_sql())?, no, from, 1)?.first().copied();
        let block = block.filter(|block| block.first <= last);
        let singles = (from, block.map_or(last, |block| block.first.saturating_sub(1)));
        if !walk_singles(tx, no, singles, each)? {
            return Ok(());
        }
        let Some(block) = block else { return Ok(()) };
        let range = block.first.max(first)..=block.last.min(last);
        for row in rows(tx, no, block.last)? {
            let wanted = range.contains(&row.stored.seq.cast_unsigned()) && row.is_intact();
            if wanted && !each(&row.stored, row.body) {
                return Ok(());
            }
        }
        from = block.last + 1;
    }
    Ok(())
}

/// False if `each` said so.
fn walk_singles(
    tx: &Tx<'_>,
    no: i64,
    range: (u64, u64),
    each: &mut dyn FnMut(&Stored, Vec<u8>) -> bool,
) -> Result<bool, Error> {
    let mut statement = tx.prepare_cached(
        "SELECT seq, wall_ms, boot_ms, boot_no, clock_state, checksum, body FROM outbox_row
         WHERE stream_no = ?1 AND seq BETWEEN ?2 AND ?3 ORDER BY seq",
    )?;
    let mut rows = statement.query((no, range.0.cast_signed(), range.1.cast_signed()))?;
    while let Some(row) = rows.next()? {
        if let Some((stored, body)) = intact(no, row)?
            && !each(&stored, body)
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Rows have left the block's beginning: how old the first of the rest is.
pub(super) fn set_age(tx: &Tx<'_>, no: i64, last: u64, age: (i64, i64)) -> Result<(), Error> {
    let sql = "UPDATE outbox_pack SET boot_no = ?3, boot_ms = ?4 WHERE stream_no = ?1 AND last = ?2";
    tx.execute(sql, (no, last.cast_signed(), age.0, age.1)).map(drop)
}

/// First number that a batch of at most `rows` rows has if it is taken from the last block between two numbers; `None` if
/// there is no block.
pub(super) fn newest(connection: &Connection, no: i64, range: (u64, u64), rows: usize) -> Result<Option<u64>, Error> {
    let sql = format!("{HEAD} WHERE stream_no = ?1 AND last BETWEEN ?2 AND ?3 ORDER BY last DESC LIMIT 1");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = statement.query_map(params![no, range.0.cast_signed(), range.1.cast_signed()], Head::of)?;
    let Some(head) = found.next().transpose()? else { return Ok(None) };
    Ok(Some(head.first.max(range.0).max((head.last + 1).saturating_sub(rows as u64))))
}

/// The block that ends with `last`. `None` if it is not as it was packed.
fn load(statement: &mut Statement<'_>, no: i64, last: u64) -> Result<Option<(Head, Vec<BlockRow>)>, Error> {
    let mut rows = statement.query(params![no, last.cast_signed()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let head = Head::of(row)?;
    let mut numbers = [0_u64; 4];
    for (number, at) in numbers.iter_mut().zip(5..) {
        let Some(value) = integer(row.get_ref(at)?) else { return Ok(None) };
        *number = value.cast_unsigned();
    }
    let [base, count, raw_bytes, checksum] = numbers;
    let (Ok(body), Ok(checksum)) = (row.get_ref(9)?.as_blob(), u32::try_from(checksum)) else { return Ok(None) };
    let packed = Packed { stream_no: no, base, count, raw_bytes, checksum, body: body.to_vec() };
    let within = base <= head.first && base.checked_add(count).is_some_and(|end| head.last < end);
    Ok(packed.unpack().filter(|_| within).map(|rows| (head, rows)))
}

const LOAD: &str = "SELECT last, first, boot_no, boot_ms, length(body), base, count, raw_bytes, checksum, body
    FROM outbox_pack WHERE stream_no = ?1 AND last = ?2";

/// What stands for a number.
pub(super) enum Found<'a> {
    Row(&'a BlockRow),
    /// A block that is damaged from this number to `until`.
    Bad {
        until: u64,
    },
    /// No block; the next one begins with this number.
    Nothing {
        next: u64,
    },
}

/// Blocks of one stream in ascending order, one of them unpacked at a time.
pub(super) struct Reading<'c> {
    connection: &'c Connection,
    no: i64,
    /// The block that reaches the number asked for last or lies above it.
    head: Option<Head>,
    /// Nothing lies above.
    ended: bool,
    /// Its rows, once asked for.
    rows: Option<Vec<BlockRow>>,
}

impl<'c> Reading<'c> {
    pub(super) fn new(connection: &'c Connection, no: i64) -> Self {
        Self { connection, no, head: None, ended: false, rows: None }
    }

    /// What stands for `seq`. Numbers are asked for in ascending order.
    pub(super) fn at(&mut self, seq: u64) -> Result<Found<'_>, Error> {
        if !self.ended && self.head.is_none_or(|head| head.last < seq) {
            let mut statement = self.connection.prepare_cached(&heads_sql())?;
            self.head = heads(&mut statement, self.no, seq, 1)?.first().copied();
            self.ended = self.head.is_none();
            self.rows = None;
        }
        let Some(head) = self.head else { return Ok(Found::Nothing { next: u64::MAX }) };
        if seq < head.first {
            return Ok(Found::Nothing { next: head.first });
        }
        if self.rows.is_none() {
            let loaded = load(&mut *self.connection.prepare_cached(LOAD)?, self.no, head.last)?;
            self.rows = Some(loaded.map_or_else(Vec::new, |(_, rows)| rows));
        }
        let rows = self.rows.as_deref().unwrap_or_default();
        let Some(base) = rows.first().map(|row| row.stored.seq.cast_unsigned()) else {
            return Ok(Found::Bad { until: head.last });
        };
        let row = seq.checked_sub(base).and_then(|at| rows.get(usize::try_from(at).ok()?));
        Ok(match row {
            Some(row) if row.is_intact() => Found::Row(row),
            _ => Found::Bad { until: seq },
        })
    }
}

/// Puts a block in the place of the single rows that it holds. False, and nothing is changed, if some of them have left
/// since they were read.
pub(super) fn replace_rows(tx: &Tx<'_>, stream: &mut Stream, packed: &Packed, age: (i64, i64)) -> Result<bool, Error> {
    let last = packed.base + packed.count - 1;
    let range = (stream.no, packed.base.cast_signed(), last.cast_signed());
    let mut freed = 0;
    {
        let mut statement = tx.prepare_cached(
            "SELECT seq, length(body) FROM outbox_row WHERE stream_no = ?1 AND seq BETWEEN ?2 AND ?3",
        )?;
        let (mut rows, mut count) = (statement.query(range)?, 0);
        while let Some(row) = rows.next()? {
            let number = |at| Ok::<_, rusqlite::Error>(integer(row.get_ref(at)?).unwrap_or(0).cast_unsigned());
            freed += stream.row_bytes(number(0)?, number(1)?);
            count += 1;
        }
        if count != packed.count {
            return Ok(false);
        }
    }
    tx.execute("DELETE FROM outbox_row WHERE stream_no = ?1 AND seq BETWEEN ?2 AND ?3", range)?;
    tx.execute(
        "INSERT INTO outbox_pack (stream_no, last, first, boot_no, boot_ms, base, count, raw_bytes, checksum, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?3, ?6, ?7, ?8, ?9)",
        params![
            stream.no,
            last.cast_signed(),
            packed.base.cast_signed(),
            age.0,
            age.1,
            packed.count.cast_signed(),
            packed.raw_bytes.cast_signed(),
            packed.checksum,
            packed.body,
        ],
    )?;
    stream.staged.freed_bytes += freed;
    stream.staged.packed_bytes += stored_bytes(packed.body.len() as u64);
    stream.staged.packed += packed.count;
    Ok(true)
}

/// Takes the numbers from `first` to `last` out of the blocks of a stream. A block counts with its bytes until its last
/// row has left.
pub(super) fn remove(tx: &Tx<'_>, stream: &mut Stream, first: u64, last: u64) -> Result<Removed, Error> {
    let mut removed = Removed::default();
    let (no, mut from) = (stream.no, first);
    loop {
        let found = heads(&mut *tx.prepare_cached(&heads_sql())?, no, from, 1)?;
        let Some(head) = found.first().copied().filter(|head| head.first <= last) else { break };
        let (low, high) = (head.first.max(first), head.last.min(last));
        removed.rows += high - low + 1;
        let key = (no, head.last.cast_signed());
        if low == head.first && high == head.last {
            tx.execute("DELETE FROM outbox_pack WHERE stream_no = ?1 AND last = ?2", key)?;
            removed.bytes += head.bytes;
        } else if low == head.first {
            tx.execute(
                "UPDATE outbox_pack SET first = ?3 WHERE stream_no = ?1 AND last = ?2",
                (key.0, key.1, (high + 1).cast_signed()),
            )?;
        } else if high == head.last {
            tx.execute(
                "UPDATE outbox_pack SET last = ?3 WHERE stream_no = ?1 AND last = ?2",
                (key.0, key.1, (low - 1).cast_signed()),
            )?;
        } else {
            let kept = [(head.first, low - 1), (high + 1, head.last)];
            open(tx, stream, head, kept)?;
            removed.bytes += head.bytes;
        }
        if head.last >= last {
            break;
        }
        from = head.last + 1;
    }
    Ok(removed)
}

/// Makes a block single rows again, those in `kept`. Rows that cannot be read are gone: whoever sends the stream finds
/// nothing in their place and enters them into the ledger.
fn open(tx: &Tx<'_>, stream: &mut Stream, head: Head, kept: [(u64, u64); 2]) -> Result<(), Error> {
    let loaded = load(&mut *tx.prepare_cached(LOAD)?, stream.no, head.last)?;
    tx.execute("DELETE FROM outbox_pack WHERE stream_no = ?1 AND last = ?2", (stream.no, head.last.cast_signed()))?;
    for BlockRow { stored, checksum, body } in loaded.map_or_else(Vec::new, |(_, rows)| rows) {
        let seq = stored.seq.cast_unsigned();
        if kept.iter().any(|(first, last)| (*first..=*last).contains(&seq)) {
            stream.staged.packed_bytes += stream.row_bytes(seq, body.len() as u64);
            tx.execute(
                "INSERT INTO outbox_row VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    stored.stream_no,
                    stored.seq,
                    stored.wall_ms,
                    stored.boot_ms,
                    stored.boot_no,
                    stored.clock_state,
                    checksum,
                    body
                ],
            )?;
        }
    }
    Ok(())
}
