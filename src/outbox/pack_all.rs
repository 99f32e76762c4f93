//! Packing everything that waits singly, once it is much: the table of single rows is emptied as a whole.
//!
//! In WAL mode a page out of which rows are deleted is written again, to the log and to the file, even if nothing is left
//! on it. Emptying a whole table writes none of its pages. So all of it is read and packed beside the writer, whose part
//! is to read the few rows that are in no block, empty the table, and write the blocks and those rows.

use std::collections::HashMap;

use rusqlite::Connection;
use rusqlite::types::Value;

use super::block::{BlockRow, MAX_BODY_BYTES, MAX_ROWS, Packed};
use super::config::PackConfig;
use super::pack::{Candidate, Cold, ENOUGH};
use super::packs;
use super::pick::intact;
use super::size::{block_bytes, stored_bytes};
use super::state::Streams;
use crate::store::{self, Tx};

/// Rows read at most; of a longer table only what is cold is packed, row by row.
const MOST_ROWS: i64 = 32_768;
/// Bytes of their bodies at most.
const MOST_BYTES: i64 = 8 << 20;
/// So many bytes of bodies are enough, however few the rows are.
const ENOUGH_BYTES: i64 = 1 << 20;
/// Of the rows so many must go into blocks for each one that is written again as it was.
const PACKED_A_KEPT: usize = 4;
/// Fewer rows than this part of a block are not worth one.
const LEAST: usize = 16;

/// A block of all rows between two numbers.
pub(super) struct Part {
    at: usize,
    packed: Packed,
    age: (i64, i64),
    /// Lengths of the bodies.
    lengths: Vec<u64>,
}

impl Part {
    pub(super) fn rows(&self) -> u64 {
        self.packed.count
    }

    pub(super) fn body_bytes(&self) -> usize {
        self.packed.body.len()
    }

    fn first(&self) -> (i64, i64) {
        (self.packed.stream_no, self.packed.base.cast_signed())
    }

    fn last(&self) -> (i64, i64) {
        (self.packed.stream_no, (self.packed.base + self.packed.count - 1).cast_signed())
    }
}

/// What a look at the table found.
pub(super) enum Plan {
    /// Too little, or too much.
    Nothing,
    /// So many rows that most of them are no block.
    Scattered { rows: u64 },
    /// The blocks that it would be, in its order.
    Parts(Vec<Part>),
}

/// What the table of single rows would be as blocks. `scattered`: rows of which most were no block at the last look; as
/// long as there are about as many, they are not read again.
pub(super) fn plan(
    connection: &Connection,
    candidates: &[Candidate],
    config: &PackConfig,
    cold: &Cold,
    scattered: u64,
) -> Result<Plan, store::Error> {
    let (rows, bytes, old): (i64, i64, i64) = connection
        .prepare_cached(
            "SELECT count(*), coalesce(sum(size), 0), coalesce(sum(old), 0) FROM (SELECT length(body) AS size,
                (boot_no IS NOT ?2 OR boot_ms < ?3) AS old FROM outbox_row LIMIT ?1)",
        )?
        .query_row((MOST_ROWS + 1, cold.this_boot, cold.old_ms), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let block_rows = config.block_rows.clamp(1, MAX_ROWS);
    let is_much = rows.cast_unsigned() > config.keep_rows || bytes > ENOUGH_BYTES;
    let is_due = is_much || old.cast_unsigned() >= (block_rows / ENOUGH).max(1) as u64;
    let rows_now = rows.cast_unsigned();
    let is_known = rows_now >= scattered / 2 && rows_now <= scattered + scattered / 4;
    if rows == 0 || rows > MOST_ROWS || bytes > MOST_BYTES || !is_due || is_known {
        return Ok(Plan::Nothing);
    }
    let known: HashMap<i64, &Candidate> = candidates.iter().map(|candidate| (candidate.no, candidate)).collect();
    let mut planning = Planning { known, block_rows, ..Planning::default() };
    let mut statement = connection.prepare_cached(
        "SELECT seq, wall_ms, boot_ms, boot_no, clock_state, checksum, body, stream_no FROM outbox_row
         ORDER BY stream_no, seq",
    )?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let no = row.get(7)?;
        // A damaged row stays where it is: whoever sends it finds it.
        let Some((stored, body)) = intact(no, row)? else {
            planning.kept += 1;
            continue;
        };
        planning.add(BlockRow { checksum: stored.checksum(&body), stored, body });
    }
    planning.end_run();
    let packed: usize = planning.parts.iter().map(|part| part.lengths.len()).sum();
    if planning.kept * PACKED_A_KEPT > packed {
        return Ok(Plan::Scattered { rows: rows_now });
    }
    Ok(Plan::Parts(planning.parts))
}

#[derive(Default)]
struct Planning<'a> {
    known: HashMap<i64, &'a Candidate>,
    block_rows: usize,
    parts: Vec<Part>,
    /// Rows that are in none.
    kept: usize,
    run: Vec<BlockRow>,
    run_bytes: usize,
}

impl Planning<'_> {
    fn add(&mut self, row: BlockRow) {
        let follows = self.run.last().is_some_and(|before| {
            (before.stored.stream_no, before.stored.seq + 1) == (row.stored.stream_no, row.stored.seq)
        });
        let is_full = self.run.len() == self.block_rows || self.run_bytes + row.body.len() > MAX_BODY_BYTES;
        if !follows || is_full {
            self.end_run();
        }
        // Nothing of a stream that is being salvaged, and nothing that is acknowledged.
        let seq = row.stored.seq.cast_unsigned();
        let is_waiting = self.known.get(&row.stored.stream_no).is_some_and(|known| seq > known.settled);
        if !is_waiting || row.body.len() > super::arrive::MAX_BLOCK_BODY_BYTES {
            self.kept += 1;
            return;
        }
        self.run_bytes += row.body.len();
        self.run.push(row);
    }

    fn end_run(&mut self) {
        let rows = std::mem::take(&mut self.run);
        self.run_bytes = 0;
        let Some(first) = rows.first() else { return };
        let at = self.known.get(&first.stored.stream_no).map(|known| known.at);
        let lengths: Vec<u64> = rows.iter().map(|row| row.body.len() as u64).collect();
        let single: u64 = lengths.iter().map(|length| stored_bytes(*length)).sum();
        let packed = if rows.len() >= self.block_rows / LEAST { Packed::of(&rows) } else { None };
        match (at, packed) {
            (Some(at), Some(packed)) if block_bytes(packed.body.len() as u64) < single => {
                let age = (first.stored.boot_no, first.stored.boot_ms);
                self.parts.push(Part { at, packed, age, lengths });
            }
            _ => self.kept += rows.len(),
        }
    }
}

/// Empties the table of single rows into `parts`. A part of which rows have left since it was read is left out; rows
/// that are in none are written again. Returns the rows packed; nothing is changed if the others are too many.
pub(super) fn replace_all(tx: &Tx<'_>, streams: &mut Streams, mut parts: Vec<Part>) -> Result<u64, store::Error> {
    let mut packed = 0;
    let mut whole = Vec::with_capacity(parts.len());
    for part in &parts {
        let rows: i64 = tx.query_row(
            "SELECT count(*) FROM outbox_row WHERE stream_no = ?1 AND seq BETWEEN ?2 AND ?3",
            (part.packed.stream_no, part.first().1, part.last().1),
            |row| row.get(0),
        )?;
        whole.push(rows.cast_unsigned() == part.rows());
        packed += if whole.last() == Some(&true) { part.rows() } else { 0 };
    }
    let mut whole = whole.into_iter();
    parts.retain(|_| whole.next() == Some(true));
    let rows: i64 = tx.query_row("SELECT count(*) FROM outbox_row", [], |row| row.get(0))?;
    let kept = rows.cast_unsigned().saturating_sub(packed);
    if kept * PACKED_A_KEPT as u64 > 2 * packed {
        return Ok(0);
    }
    let kept = kept_rows(tx, &parts)?;
    tx.execute("DELETE FROM outbox_row", [])?;
    for row in kept {
        tx.execute("INSERT INTO outbox_row VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)", row)?;
    }
    for Part { at, packed: block, age, lengths } in parts {
        packs::insert(tx, &block, age)?;
        let stream = streams.touch(at);
        let freed: u64 = (block.base..).zip(&lengths).map(|(seq, length)| stream.row_bytes(seq, *length)).sum();
        stream.staged.freed_bytes += freed;
        stream.staged.packed_bytes += block_bytes(block.body.len() as u64);
        stream.staged.packed += block.count;
    }
    Ok(packed)
}

/// Every single row before, between and behind the parts, as it is.
fn kept_rows(tx: &Tx<'_>, parts: &[Part]) -> Result<Vec<[Value; 8]>, store::Error> {
    let mut kept = Vec::new();
    let mut statement = tx.prepare_cached(
        "SELECT stream_no, seq, wall_ms, boot_ms, boot_no, clock_state, checksum, body FROM outbox_row
         WHERE (stream_no, seq) > (?1, ?2) AND (stream_no, seq) < (?3, ?4)",
    )?;
    let starts = std::iter::once((i64::MIN, i64::MIN)).chain(parts.iter().map(Part::last));
    let ends = parts.iter().map(Part::first).chain([(i64::MAX, i64::MAX)]);
    for (start, end) in starts.zip(ends) {
        let mut rows = statement.query((start.0, start.1, end.0, end.1))?;
        while let Some(row) = rows.next()? {
            let mut values = [const { Value::Null }; 8];
            for (at, value) in values.iter_mut().enumerate() {
                *value = row.get(at)?;
            }
            kept.push(values);
        }
    }
    Ok(kept)
}
