//! Writing history inside the flow's transaction.

use std::sync::Arc;

use rusqlite::types::ValueRef;
use rusqlite::{OptionalExtension as _, params};

use super::checksum::{bytes, checksum, real};
use super::incoming::Incoming;
use super::limits::Limits;
use super::metrics::Metrics;
use super::number::Numbers;
use super::read::{OPEN_ALERT, alert};
use super::{Alert, Config, Reading, Rejected, Window};
use crate::store::{Error, Schema, Tx};

/// Bytes of a rejected payload that are kept.
const MAX_REJECTED_BYTES: usize = 4096;

/// This room's tables.
pub const SCHEMA: Schema = Schema {
    room: "history",
    steps: &["
        CREATE TABLE history_stream (no INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, memory BLOB);
        CREATE TABLE history_reading (
            stream_no INTEGER NOT NULL, seq INTEGER NOT NULL, time_ms INTEGER NOT NULL, value REAL, more BLOB,
            id TEXT, score REAL, expected REAL, state INTEGER NOT NULL, PRIMARY KEY (stream_no, seq)
        ) WITHOUT ROWID;
        CREATE TABLE history_window (
            stream_no INTEGER NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL, start_ms INTEGER NOT NULL,
            end_ms INTEGER NOT NULL, count INTEGER NOT NULL, peak_score REAL, body BLOB NOT NULL,
            PRIMARY KEY (stream_no, first_seq)
        ) WITHOUT ROWID;
        CREATE TABLE history_alert (
            id INTEGER PRIMARY KEY AUTOINCREMENT, stream_no INTEGER NOT NULL, severity TEXT NOT NULL,
            raised_ms INTEGER NOT NULL, raised_seq INTEGER NOT NULL, cleared_ms INTEGER, peak_score REAL NOT NULL,
            suppressed INTEGER NOT NULL
        );
        CREATE INDEX history_alert_open ON history_alert (stream_no) WHERE cleared_ms IS NULL;
        CREATE TABLE history_rejected (
            id INTEGER PRIMARY KEY AUTOINCREMENT, stream_no INTEGER NOT NULL, wall_ms INTEGER NOT NULL, reason TEXT NOT NULL,
            payload BLOB NOT NULL
        );
    ", "
        ALTER TABLE history_stream ADD COLUMN reserved INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE history_stream ADD COLUMN opened_ms INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE history_reading ADD COLUMN extra BLOB;
        -- Numbers came from the outbox before, which had up to 2048 of them reserved above the last one that was seen.
        UPDATE history_stream SET reserved = max(
            coalesce((SELECT max(seq) FROM history_reading WHERE stream_no = history_stream.no), 0),
            coalesce((SELECT max(last_seq) FROM history_window WHERE stream_no = history_stream.no), 0),
            coalesce((SELECT max(raised_seq) FROM history_alert WHERE stream_no = history_stream.no), 0));
        UPDATE history_stream SET reserved = reserved + 2048 WHERE reserved > 0;
        CREATE TABLE history_request (
            no INTEGER PRIMARY KEY AUTOINCREMENT, stream_no INTEGER NOT NULL, id TEXT NOT NULL, first_seq INTEGER NOT NULL,
            last_seq INTEGER NOT NULL, next_seq INTEGER NOT NULL, readings INTEGER NOT NULL, parts INTEGER NOT NULL,
            truncated INTEGER NOT NULL, alarm INTEGER, UNIQUE (stream_no, id)
        );
    ", "
        ALTER TABLE history_reading ADD COLUMN crc INTEGER;
        ALTER TABLE history_window ADD COLUMN crc INTEGER;
        ALTER TABLE history_stream ADD COLUMN memory_crc INTEGER;
    ", "
        -- Readings come to one of two tables and move into blocks from there. Those of an older release stay in
        -- history_reading until they are moved, too.
        CREATE TABLE history_arrival_a (no INTEGER PRIMARY KEY, sections BLOB NOT NULL, body BLOB NOT NULL);
        CREATE TABLE history_arrival_b (no INTEGER PRIMARY KEY, sections BLOB NOT NULL, body BLOB NOT NULL);
        CREATE TABLE history_block (
            no INTEGER PRIMARY KEY, stream_no INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
            count INTEGER NOT NULL, min_ms INTEGER NOT NULL, max_ms INTEGER NOT NULL, bytes INTEGER NOT NULL,
            raw_bytes INTEGER NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL
        );
        CREATE INDEX history_block_by_stream ON history_block (stream_no, last, count, bytes, min_ms, max_ms);
    ", "
        -- The rows that are there are what they are; from here on each says so.
        ALTER TABLE history_stream ADD COLUMN crc INTEGER;
        UPDATE history_stream SET crc = row_crc('history_stream', no, name, reserved, opened_ms);
        ALTER TABLE history_alert ADD COLUMN crc INTEGER;
        UPDATE history_alert SET crc = row_crc('history_alert', id, stream_no, severity, raised_ms, raised_seq, cleared_ms,
            peak_score, suppressed);
        ALTER TABLE history_rejected ADD COLUMN crc INTEGER;
        UPDATE history_rejected SET crc = row_crc('history_rejected', stream_no, wall_ms, reason, payload);
        ALTER TABLE history_request ADD COLUMN crc INTEGER;
        UPDATE history_request SET crc = row_crc('history_request', stream_no, id, first_seq, last_seq, next_seq, readings,
            parts, truncated, alarm);
    "],
    read_at_start: &["history_stream"],
};

/// The condition that an alarm is what was written.
const ALERT_HOLDS: &str = "crc IS row_crc('history_alert', id, stream_no, severity, raised_ms, raised_seq, cleared_ms,
    peak_score, suppressed)";

/// Number, stream, severity, time and number of the reading that raised it, time at which it was cleared, worst number,
/// whether it was suppressed.
pub(super) const PUT_ALERT: &str = "INSERT INTO history_alert
    (id, stream_no, severity, raised_ms, raised_seq, cleared_ms, peak_score, suppressed, crc)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, row_crc('history_alert', ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8))";

/// A stream's number in these tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamNo(pub i64);

/// The writing side.
#[derive(Debug, Clone)]
pub struct History {
    pub(super) config: Config,
    pub(super) incoming: Arc<Incoming>,
    numbers: Arc<Numbers>,
}

impl History {
    /// Keeps as much as `config` says.
    pub fn new(config: Config) -> Self {
        let incoming = Arc::new(Incoming::new(Limits::new(&config, None)));
        Self { config, incoming, numbers: Arc::default() }
    }

    /// In a file that rows may fill up to `file_bytes`: history has its share of them, and less when others need them.
    #[must_use]
    pub fn in_file_of(self, file_bytes: u64) -> Self {
        let incoming = Arc::new(Incoming::new(Limits::new(&self.config, Some(file_bytes))));
        Self { incoming, ..self }
    }

    /// Bytes of the file that readings take, as far as they were counted.
    pub fn bytes(&self) -> u64 {
        self.incoming.total()
    }

    /// True if readings wait to be moved into blocks.
    pub fn is_moving(&self) -> bool {
        self.incoming.frozen().is_some()
    }

    /// What it counts.
    pub fn metrics(&self) -> &Metrics {
        &self.incoming.metrics
    }

    /// How many readings of a stream are kept.
    pub fn readings_kept(&self) -> u64 {
        self.config.readings
    }

    /// The number of the stream called `name`, given once and kept. Takes up the numbering of its readings.
    pub fn stream(&self, tx: &Tx, name: &str) -> Result<StreamNo, Error> {
        let known = "SELECT no FROM history_stream WHERE name = ?1";
        let no = match tx.prepare_cached(known)?.query_row([name], |row| row.get(0)).optional()? {
            Some(no) => no,
            None => {
                let next = "SELECT coalesce(max(no), 0) + 1 FROM history_stream";
                let no = tx.query_row(next, [], |row| row.get(0))?;
                tx.execute(
                    "INSERT INTO history_stream (no, name, crc)
                     VALUES (?1, ?2, row_crc('history_stream', ?1, ?2, 0, 0))",
                    params![no, name],
                )?;
                no
            }
        };
        self.numbers.resume(tx, no)?;
        Ok(StreamNo(no))
    }

    /// Gives unused numbers back, so that the next start leaves none out. Nothing may be appended afterwards.
    pub fn close(&self, tx: &Tx) -> Result<(), Error> {
        self.numbers.close(tx)
    }

    /// Adds a reading and returns its number, which no other reading of this stream ever had or will have, also if this
    /// transaction fails. `reading.seq` is not read. The reading is written at the end of the transaction.
    pub fn append(&self, tx: &Tx, stream: StreamNo, reading: &Reading) -> Result<u64, Error> {
        let seq = self.numbers.issue(tx, stream.0)?;
        self.put(tx, stream, seq, reading);
        Ok(seq)
    }

    /// A reading under its number.
    pub(super) fn put(&self, tx: &Tx, stream: StreamNo, seq: u64, reading: &Reading) {
        self.incoming.take(tx, stream.0, Reading { seq, ..reading.clone() });
    }

    /// A summary window began with a reading at this time of the box's clock, ms since 1970.
    pub fn open_window(&self, tx: &Tx, stream: StreamNo, wall_ms: i64) -> Result<(), Error> {
        tx.execute(
            "UPDATE history_stream SET opened_ms = ?2, crc = row_crc('history_stream', no, name, reserved, ?2)
             WHERE no = ?1",
            params![stream.0, wall_ms],
        )?;
        Ok(())
    }

    /// Adds a summary window and forgets the oldest beyond the bound.
    pub fn append_window(&self, tx: &Tx, stream: StreamNo, window: &Window) -> Result<(), Error> {
        let crc = checksum(&[
            ValueRef::Integer(window.first_seq as i64),
            ValueRef::Integer(window.last_seq as i64),
            ValueRef::Integer(window.start_ms),
            ValueRef::Integer(window.end_ms),
            ValueRef::Integer(window.count as i64),
            real(window.peak_score),
            bytes(Some(&window.body)),
        ]);
        tx.execute(
            "INSERT OR REPLACE INTO history_window
             (stream_no, first_seq, last_seq, start_ms, end_ms, count, peak_score, body, crc)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                stream.0,
                window.first_seq as i64,
                window.last_seq as i64,
                window.start_ms,
                window.end_ms,
                window.count as i64,
                window.peak_score,
                window.body,
                crc,
            ],
        )?;
        tx.execute(
            "DELETE FROM history_window WHERE stream_no = ?1 AND first_seq <=
               (SELECT first_seq FROM history_window WHERE stream_no = ?1 ORDER BY first_seq DESC LIMIT 1 OFFSET ?2)",
            // The newest one says where the open window begins.
            params![stream.0, self.config.windows.max(1) as i64],
        )?;
        Ok(())
    }

    /// A new alarm; returns its number. `alert.id` is not read.
    pub fn raise(&self, tx: &Tx, stream: StreamNo, alert: &Alert) -> Result<i64, Error> {
        // Never one that was told before.
        let next = "SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'history_alert'), 0),
            coalesce((SELECT max(id) FROM history_alert), 0)) + 1";
        let id: i64 = tx.query_row(next, [], |row| row.get(0))?;
        tx.execute(
            PUT_ALERT,
            params![
                id,
                stream.0,
                alert.severity,
                alert.raised_ms,
                alert.raised_seq as i64,
                None::<i64>,
                alert.peak_score,
                alert.suppressed
            ],
        )?;
        tx.execute("DELETE FROM history_alert WHERE id <= ?1", [id.saturating_sub(self.config.alerts as i64)])?;
        Ok(id)
    }

    /// The alarm that stands on this stream has changed: its worst number, its severity, or it is over.
    pub fn update_alert(
        &self,
        tx: &Tx,
        stream: StreamNo,
        severity: &str,
        worst: f64,
        cleared_ms: Option<i64>,
    ) -> Result<(), Error> {
        tx.execute(
            &format!(
                "UPDATE history_alert SET severity = ?2, peak_score = ?3, cleared_ms = ?4, crc = row_crc('history_alert',
                 id, stream_no, ?2, raised_ms, raised_seq, ?4, ?3, suppressed)
                 WHERE stream_no = ?1 AND cleared_ms IS NULL AND {ALERT_HOLDS}"
            ),
            params![stream.0, severity, worst, cleared_ms],
        )?;
        Ok(())
    }

    /// The alarm that stands on this stream was suppressed and is told from now on.
    pub fn release_alert(&self, tx: &Tx, stream: StreamNo) -> Result<(), Error> {
        tx.execute(
            &format!(
                "UPDATE history_alert SET suppressed = 0, crc = row_crc('history_alert', id, stream_no, severity,
                 raised_ms, raised_seq, cleared_ms, peak_score, 0)
                 WHERE stream_no = ?1 AND cleared_ms IS NULL AND {ALERT_HOLDS}"
            ),
            [stream.0],
        )?;
        Ok(())
    }

    /// The alarm that stands on this stream, as this transaction sees it.
    pub fn standing(&self, tx: &Tx, stream: StreamNo) -> Result<Option<Alert>, Error> {
        let found = tx.prepare_cached(OPEN_ALERT)?.query_row([stream.0], alert).optional()?;
        Ok(found.flatten())
    }

    /// What the stream must remember over a restart.
    pub fn remember(&self, tx: &Tx, stream: StreamNo, memory: &[u8]) -> Result<(), Error> {
        tx.execute(
            "UPDATE history_stream SET memory = ?2, memory_crc = ?3 WHERE no = ?1",
            params![stream.0, memory, checksum(&[bytes(Some(memory))])],
        )?;
        Ok(())
    }

    /// Keeps the start of a payload that could not be read.
    pub fn reject(&self, tx: &Tx, stream: StreamNo, rejected: &Rejected) -> Result<(), Error> {
        let payload = &rejected.payload[..rejected.payload.len().min(MAX_REJECTED_BYTES)];
        tx.execute(
            "INSERT INTO history_rejected (stream_no, wall_ms, reason, payload, crc)
             VALUES (?1, ?2, ?3, ?4, row_crc('history_rejected', ?1, ?2, ?3, ?4))",
            params![stream.0, rejected.wall_ms, rejected.reason, payload],
        )?;
        tx.execute("DELETE FROM history_rejected WHERE id <= last_insert_rowid() - ?1", [self.config.rejected as i64])?;
        Ok(())
    }
}
