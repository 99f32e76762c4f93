//! Readings that somebody asked for, and how far they were handed on: so that a request that is repeated, or cut short
//! by a kill, is fulfilled once.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::{History, StreamNo};
use crate::store::{Error, Tx};

/// Requests that are remembered, over all streams.
const REMEMBERED: i64 = 1_000;

/// A request for the readings `first_seq..=last_seq` of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// As its maker calls it.
    pub id: String,
    /// First number.
    pub first_seq: u64,
    /// Last number.
    pub last_seq: u64,
    /// The next number to hand on; beyond `last_seq` when it is fulfilled.
    pub next_seq: u64,
    /// Readings handed on.
    pub readings: u64,
    /// Rows that they fill.
    pub parts: u32,
    /// True if not everything that was asked for is kept.
    pub truncated: bool,
    /// The alarm that it is about.
    pub alarm: Option<i64>,
}

/// A request that the disk has changed is none: it is made and fulfilled again.
const REQUEST: &str = "SELECT id, first_seq, last_seq, next_seq, readings, parts, truncated, alarm FROM history_request
     WHERE stream_no = ?1 AND id = ?2 AND crc IS row_crc('history_request', stream_no, id, first_seq, last_seq, next_seq,
     readings, parts, truncated, alarm)";

fn row(row: &Row<'_>) -> rusqlite::Result<Request> {
    Ok(Request {
        id: row.get(0)?,
        first_seq: row.get::<_, i64>(1)?.cast_unsigned(),
        last_seq: row.get::<_, i64>(2)?.cast_unsigned(),
        next_seq: row.get::<_, i64>(3)?.cast_unsigned(),
        readings: row.get::<_, i64>(4)?.cast_unsigned(),
        parts: row.get(5)?,
        truncated: row.get(6)?,
        alarm: row.get(7)?,
    })
}

/// The request of that name, if it was made before.
pub fn request(conn: &Connection, stream: StreamNo, id: &str) -> Result<Option<Request>, Error> {
    Ok(conn.prepare_cached(REQUEST)?.query_row(params![stream.0, id], row).optional()?)
}

impl History {
    /// The request of that name, as this transaction sees it.
    pub fn request(&self, tx: &Tx, stream: StreamNo, id: &str) -> Result<Option<Request>, Error> {
        Ok(tx.prepare_cached(REQUEST)?.query_row(params![stream.0, id], row).optional()?)
    }

    /// Writes down how far a request is, a new one included.
    pub fn note_request(&self, tx: &Tx, stream: StreamNo, request: &Request) -> Result<(), Error> {
        let known = tx.execute(
            "UPDATE history_request SET next_seq = ?3, readings = ?4, parts = ?5, truncated = ?6,
             crc = row_crc('history_request', stream_no, id, first_seq, last_seq, ?3, ?4, ?5, ?6, alarm)
             WHERE stream_no = ?1 AND id = ?2 AND crc IS row_crc('history_request', stream_no, id, first_seq, last_seq,
             next_seq, readings, parts, truncated, alarm)",
            params![
                stream.0,
                request.id,
                request.next_seq.cast_signed(),
                request.readings.cast_signed(),
                request.parts,
                request.truncated,
            ],
        )?;
        if known > 0 {
            return Ok(());
        }
        tx.execute(
            "INSERT OR REPLACE INTO history_request
             (stream_no, id, first_seq, last_seq, next_seq, readings, parts, truncated, alarm, crc)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9,
             row_crc('history_request', ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9))",
            params![
                stream.0,
                request.id,
                request.first_seq.cast_signed(),
                request.last_seq.cast_signed(),
                request.next_seq.cast_signed(),
                request.readings.cast_signed(),
                request.parts,
                request.truncated,
                request.alarm,
            ],
        )?;
        tx.execute("DELETE FROM history_request WHERE no <= last_insert_rowid() - ?1", [REMEMBERED])?;
        Ok(())
    }
}
