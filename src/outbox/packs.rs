//! The table of blocks: finding them, reading their rows one after another, and taking rows out of them.
//!
//! A row of `outbox_pack` is a range of a block, from `first` to `last`. Both move inwards when rows leave at an end; what
//! was packed (`outbox_block`) never changes. Rows that leave from the middle make two ranges of one, of the same
//! block, which goes with the last of its ranges.

use rusqlite::{Connection, Row, Statement, params};

use super::block::{BlockRow, MAX_ROWS, Packed};
use super::pick::intact;
use super::queue::Stored;
use super::size::{RANGE_BYTES, Removed, block_bytes, integer, stored_bytes};
use super::state::Stream;
use crate::store::{Error, Tx};

const HEAD: &str = "SELECT last, first, boot_no, boot_ms, bytes, length(body), block_no, base, count, raw_bytes
    FROM outbox_pack";

/// What is known of a block without its body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) first: u64,
    pub(super) last: u64,
    /// Boot and time since boot of the first row, or of one that has left from before it.
    pub(super) age: (i64, i64),
    /// What it counts with: its block too, if it is the one of its ranges that does.
    pub(super) bytes: u64,
    /// `None` if it was written by a release that kept blocks in this table.
    block_no: Option<i64>,
    base: u64,
    count: u64,
    raw_bytes: u64,
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
            bytes: match number(4)? {
                Some(bytes) => bytes.cast_unsigned(),
                None => stored_bytes(number(5)?.unwrap_or(0).cast_unsigned()),
            },
            block_no: number(6)?,
            base: number(7)?.unwrap_or(0).cast_unsigned(),
            count: number(8)?.unwrap_or(0).cast_unsigned(),
            raw_bytes: number(9)?.unwrap_or(0).cast_unsigned(),
        })
    }

    /// Bytes of a body in it, on average and with its part of the columns.
    pub(super) fn mean_bytes(&self) -> usize {
        usize::try_from(self.raw_bytes / self.count.max(1)).unwrap_or(usize::MAX).max(1)
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
    Ok(load(&mut *tx.prepare_cached(LOAD)?, no, last)?.unwrap_or_default())
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

/// The statement for the ranges that end between two numbers, the newest first.
pub(super) fn newest_sql() -> String {
    format!("{HEAD} WHERE stream_no = ?1 AND last BETWEEN ?2 AND ?3 ORDER BY last DESC")
}

/// The ranges of [`newest_sql`], one after another.
pub(super) fn newest<'s>(
    statement: &'s mut Statement<'_>,
    no: i64,
    range: (u64, u64),
) -> Result<impl Iterator<Item = Result<Head, Error>> + 's, Error> {
    let found = statement.query_map(params![no, range.0.cast_signed(), range.1.cast_signed()], Head::of)?;
    Ok(found.map(|head| Ok(head?)))
}

/// What the blocks above a number count with.
pub(super) fn bytes_since(tx: &Tx<'_>, no: i64, counted: u64) -> Result<u64, Error> {
    let found = heads(&mut *tx.prepare_cached(&heads_sql())?, no, counted + 1, i64::MAX.cast_unsigned())?;
    Ok(found.iter().map(|head| head.bytes).sum())
}

/// The block of the range that ends with `last`. `None` if it is not as it was packed.
fn load(statement: &mut Statement<'_>, no: i64, last: u64) -> Result<Option<Vec<BlockRow>>, Error> {
    let mut rows = statement.query(params![no, last.cast_signed()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let head = Head::of(row)?;
    // The block's own columns, or the range's if it holds the block itself.
    let own = if head.block_no.is_some() { 10 } else { 16 };
    let mut numbers = [0_i64; 5];
    for (number, at) in numbers.iter_mut().zip(own..) {
        let Some(value) = integer(row.get_ref(at)?) else { return Ok(None) };
        *number = value;
    }
    let [stream_no, base, count, raw_bytes, checksum] = numbers;
    let [base, count, raw_bytes] = [base, count, raw_bytes].map(i64::cast_unsigned);
    let (Ok(body), Ok(checksum)) = (row.get_ref(own + 5)?.as_blob(), u32::try_from(checksum)) else { return Ok(None) };
    let packed = Packed { stream_no, base, count, raw_bytes, checksum, body: body.to_vec() };
    let within = stream_no == no && base <= head.first && base.checked_add(count).is_some_and(|end| head.last < end);
    Ok(packed.unpack().filter(|_| within))
}

const LOAD: &str = "SELECT last, first, boot_no, boot_ms, bytes, length(own.body), own.block_no, own.base, own.count,
        own.raw_bytes, block.stream_no, block.base, block.count, block.raw_bytes, block.checksum, block.body,
        own.stream_no, own.base, own.count, own.raw_bytes, own.checksum, own.body
    FROM outbox_pack own LEFT JOIN outbox_block block ON block.block_no = own.block_no
    WHERE own.stream_no = ?1 AND own.last = ?2";

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
            self.rows = Some(loaded.unwrap_or_default());
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
    insert(tx, packed, age)?;
    stream.staged.freed_bytes += freed;
    stream.staged.packed_bytes += block_bytes(packed.body.len() as u64);
    stream.staged.packed += packed.count;
    Ok(true)
}

/// Writes a block and the range that all of it is.
pub(super) fn insert(tx: &Tx<'_>, packed: &Packed, age: (i64, i64)) -> Result<(), Error> {
    let (base, count) = (packed.base.cast_signed(), packed.count.cast_signed());
    let raw_bytes = packed.raw_bytes.cast_signed();
    let block_no: i64 = tx.query_row(
        "INSERT INTO outbox_block (stream_no, base, count, raw_bytes, checksum, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) RETURNING block_no",
        params![packed.stream_no, base, count, raw_bytes, packed.checksum, packed.body],
        |row| row.get(0),
    )?;
    let bytes = block_bytes(packed.body.len() as u64).cast_signed();
    tx.execute(
        INSERT_RANGE,
        params![packed.stream_no, base + count - 1, base, age.0, age.1, base, count, raw_bytes, block_no, bytes],
    )
    .map(drop)
}

const INSERT_RANGE: &str = "INSERT INTO outbox_pack (stream_no, last, first, boot_no, boot_ms, base, count, raw_bytes,
        checksum, body, block_no, bytes)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, x'', ?9, ?10)";

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
            removed.bytes += remove_range(tx, no, &head)?;
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
            split(tx, stream, head, (low, high))?;
        }
        if head.last >= last {
            break;
        }
        from = head.last + 1;
    }
    Ok(removed)
}

/// Removes a range, and with the last of its ranges its block. Returns the bytes that nothing counts with any more.
fn remove_range(tx: &Tx<'_>, no: i64, head: &Head) -> Result<u64, Error> {
    tx.execute("DELETE FROM outbox_pack WHERE stream_no = ?1 AND last = ?2", (no, head.last.cast_signed()))?;
    let Some(block_no) = head.block_no else { return Ok(head.bytes) };
    // A block has at most so many numbers, so its ranges lie near each other.
    let end = head.base.saturating_add(MAX_ROWS as u64).cast_signed();
    let handed = head.bytes.saturating_sub(RANGE_BYTES);
    let others = tx.execute(
        "UPDATE outbox_pack SET bytes = bytes + ?5 WHERE stream_no = ?1 AND last =
         (SELECT last FROM outbox_pack
          WHERE stream_no = ?1 AND last >= ?2 AND last < ?3 AND block_no = ?4 AND base = ?2 LIMIT 1)",
        (no, head.base.cast_signed(), end, block_no, handed.cast_signed()),
    )?;
    if others > 0 {
        return Ok(head.bytes - handed);
    }
    // A damaged number must not take another range's block away.
    let sql = "DELETE FROM outbox_block WHERE block_no = ?1 AND stream_no = ?2 AND base = ?3";
    tx.execute(sql, (block_no, no, head.base.cast_signed()))?;
    Ok(head.bytes)
}

/// Rows leave from the middle of a range: two ranges of the same block are left.
fn split(tx: &Tx<'_>, stream: &mut Stream, head: Head, (low, high): (u64, u64)) -> Result<(), Error> {
    let key = (stream.no, head.last.cast_signed());
    let block_no = match head.block_no {
        Some(block_no) => block_no,
        None => {
            let block_no: i64 = tx.query_row(
                "INSERT INTO outbox_block (stream_no, base, count, raw_bytes, checksum, body)
                 SELECT stream_no, base, count, raw_bytes, checksum, body FROM outbox_pack
                 WHERE stream_no = ?1 AND last = ?2 RETURNING block_no",
                key,
                |row| row.get(0),
            )?;
            // It goes on counting what it counted.
            tx.execute(
                "UPDATE outbox_pack SET block_no = ?3, bytes = ?4, body = x'' WHERE stream_no = ?1 AND last = ?2",
                (key.0, key.1, block_no, head.bytes.cast_signed()),
            )?;
            block_no
        }
    };
    tx.execute(
        "UPDATE outbox_pack SET first = ?3 WHERE stream_no = ?1 AND last = ?2",
        (key.0, key.1, (high + 1).cast_signed()),
    )?;
    let numbers = [head.base, head.count, head.raw_bytes].map(u64::cast_signed);
    tx.execute(
        INSERT_RANGE,
        params![
            stream.no,
            (low - 1).cast_signed(),
            head.first.cast_signed(),
            head.age.0,
            head.age.1,
            numbers[0],
            numbers[1],
            numbers[2],
            block_no,
            RANGE_BYTES.cast_signed()
        ],
    )?;
    stream.staged.packed_bytes += RANGE_BYTES;
    Ok(())
}
