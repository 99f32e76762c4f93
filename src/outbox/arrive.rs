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
