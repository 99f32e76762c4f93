//! Rows of the queue's own books: streams, ledger, acknowledged ranges. Each has a checksum, written and asked for in the
//! statement itself. A bad one is not there: its numbers then stand for nothing, and are declared lost as any others.

use super::state::Stream;
use crate::store::{Error, Tx};

/// The condition that a ledger entry is what was written.
macro_rules! gap_holds {
    () => {
        "crc IS row_crc('outbox_gap', stream_no, first, last, count, reason, wall_ms)"
    };
}
pub(super) use gap_holds;

/// The condition that an acknowledged range is what was written.
macro_rules! acked_holds {
    () => {
        "crc IS row_crc('outbox_acked', stream_no, first, last)"
    };
}
pub(super) use acked_holds;

/// The condition that a stream is what was written.
macro_rules! stream_holds {
    () => {
        "crc IS row_crc('outbox_stream', stream_no, class, name, reserved, settled, bytes, counted, flat_until,
         flat_bytes, epoch, salvage)"
    };
}
pub(super) use stream_holds;

/// The condition that a salvage's progress is what was written.
macro_rules! salvage_holds {
    () => {
        "crc IS row_crc('outbox_salvage', file, next_page, tries, rows, lost, lowest_no, done)"
    };
}
pub(super) use salvage_holds;

/// Stream, first and last number, count, reason, wall clock.
pub(super) const PUT_GAP: &str = "INSERT OR REPLACE INTO outbox_gap
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, row_crc('outbox_gap', ?1, ?2, ?3, ?4, ?5, ?6))";
/// Stream, first and last number. A bad row in its place goes.
pub(super) const PUT_ACKED: &str =
    "INSERT OR REPLACE INTO outbox_acked VALUES (?1, ?2, ?3, row_crc('outbox_acked', ?1, ?2, ?3))";
/// Boot, uptime before it and in it.
pub(super) const PUT_UPTIME: &str =
    "INSERT OR REPLACE INTO outbox_uptime VALUES (?1, ?2, ?3, row_crc('outbox_uptime', ?1, ?2, ?3))";

/// A whole row of `outbox_stream`. It is written as a whole from what memory knows, so that nothing that the disk has
/// changed gets a good checksum.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct StreamRow<'a> {
    pub(super) no: i64,
    pub(super) class: &'a str,
    pub(super) name: &'a str,
    pub(super) reserved: i64,
    pub(super) settled: i64,
    pub(super) bytes: i64,
    pub(super) counted: Option<i64>,
    pub(super) flat_until: i64,
    pub(super) flat_bytes: i64,
    pub(super) epoch: Option<i64>,
    pub(super) salvage: Option<&'a str>,
}

impl StreamRow<'_> {
    pub(super) fn put(&self, tx: &Tx<'_>) -> Result<(), Error> {
        tx.execute(
            "INSERT INTO outbox_stream VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11,
             row_crc('outbox_stream', ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11))
             ON CONFLICT (stream_no) DO UPDATE SET class = excluded.class, name = excluded.name,
             reserved = excluded.reserved, settled = excluded.settled, bytes = excluded.bytes,
             counted = excluded.counted, flat_until = excluded.flat_until, flat_bytes = excluded.flat_bytes,
             epoch = excluded.epoch, salvage = excluded.salvage, crc = excluded.crc",
            rusqlite::params![
                self.no,
                self.class,
                self.name,
                self.reserved,
                self.settled,
                self.bytes,
                self.counted,
                self.flat_until,
                self.flat_bytes,
                self.epoch,
                self.salvage,
            ],
        )?;
        Ok(())
    }
}

/// Writes the stream's row; rows up to `counted` are in its bytes.
pub(super) fn put_stream(tx: &Tx<'_>, stream: &Stream, counted: u64) -> Result<(), Error> {
    let name = stream.key.stored_name();
    StreamRow {
        no: stream.no,
        class: stream.key.class.as_str(),
        name: &name,
        reserved: stream.reserved_now().cast_signed(),
        settled: stream.settled_now().cast_signed(),
        bytes: stream.bytes_now().cast_signed(),
        counted: Some(counted.cast_signed()),
        flat_until: stream.flat_until.cast_signed(),
        flat_bytes: stream.flat_bytes.cast_signed(),
        epoch: stream.key.epoch.map(|epoch| epoch.0.cast_signed()),
        salvage: stream.salvage.as_deref(),
    }
    .put(tx)
}

/// Takes away what the disk has changed, at start. Returns how many rows that were.
pub(super) fn sweep_bad(tx: &Tx<'_>) -> Result<usize, Error> {
    let mut bad = 0;
    for sql in [
        concat!("DELETE FROM outbox_gap WHERE NOT (", gap_holds!(), ")"),
        concat!("DELETE FROM outbox_acked WHERE NOT (", acked_holds!(), ")"),
        "DELETE FROM outbox_uptime WHERE crc IS NOT row_crc('outbox_uptime', boot_no, before_ms, seen_ms)",
    ] {
        bad += tx.execute(sql, [])?;
    }
    Ok(bad)
}
