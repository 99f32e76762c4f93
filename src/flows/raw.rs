//! Readings as they came, for the cloud, because somebody asked: a stretch of time, or what surrounds an alarm.

use std::sync::Arc;

use rusqlite::Connection;
use serde::Serialize;

use super::record::{self, RawReading, RawRecord, finite};
use super::sense::Sense;
use crate::base::{Clock, Name, Stamp};
use crate::history::{self, History, Request, StreamNo};
use crate::outbox::{self, Class, Envelope, Outbox, StreamHandle, StreamKey};
use crate::store::{self, CommitError, Reader, Tx, Writer};

/// Most readings of one request.
pub const MAX_READINGS: u64 = 10_000;
/// Longest name of a request, in bytes.
pub const MAX_REQUEST_BYTES: usize = 64;
/// Most readings of one row, and about how many bytes they may fill: a transaction and a message of a usual size.
const ROW_READINGS: usize = 256;
const ROW_BYTES: usize = 24_000;

/// Which readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Those whose source time lies within, ms since 1970, both ends included.
    Between {
        /// Start.
        from_ms: i64,
        /// End.
        to_ms: i64,
    },
    /// Those around the reading that raised an alarm.
    Around {
        /// The alarm's number on this box.
        alarm: i64,
        /// Readings before the one that raised it.
        before: u64,
        /// Readings from the one that raised it on.
        after: u64,
    },
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Enqueued {
    /// The stream.
    pub stream: Name,
    /// The request's name.
    pub request: String,
    /// First reading's number.
    pub first_seq: u64,
    /// Last reading's number.
    pub last_seq: u64,
    /// Readings on their way.
    pub readings: u64,
    /// Rows of class `raw` that hold them.
    pub rows: u32,
    /// True if the box no longer has, or does not have yet, everything that was asked for, or if it was too much for one
    /// request.
    pub truncated: bool,
    /// True if all of it was on its way before: the request came again.
    pub repeated: bool,
}

/// Why readings are not on their way.
#[derive(Debug, thiserror::Error)]
pub enum RawError {
    /// No stream of that name is configured.
    #[error("no stream {0:?}; GET /api/v1/streams lists them")]
    NoStream(String),
    /// The alarm is not of this stream, or no longer known.
    #[error("stream {stream} knows no alarm {alarm}; GET /api/v1/alerts lists them")]
    NoAlarm {
        /// The stream.
        stream: Name,
        /// The number asked for.
        alarm: i64,
    },
    /// Nothing of what was asked for is kept.
    #[error("stream {stream} keeps no reading of what was asked for")]
    Nothing {
        /// The stream.
        stream: Name,
    },
    /// A request's name is at least one and at most 64 visible ASCII characters.
    #[error("a request's name has 1 to {MAX_REQUEST_BYTES} visible ASCII characters")]
    Request,
    /// The queue or the disk's share is full. What fitted is on its way; the same request goes on from there.
    #[error("the queue has no room; the same request goes on from where this one ended")]
    Full,
    /// The disk refused.
    #[error("failed to queue the readings")]
    Store(#[source] store::Error),
    /// The queue has no place for another stream.
    #[error("failed to queue the readings")]
    Outbox(#[source] outbox::Error),
}

impl From<store::Error> for RawError {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Commit(CommitError::Full(_)) => Self::Full,
            error => Self::Store(error),
        }
    }
}

/// What the story is made of.
pub struct Raw {
    /// The streams.
    pub sense: Arc<Sense>,
    /// Where readings are.
    pub reader: Reader,
    /// The way to the disk.
    pub writer: Writer,
    /// Remembers requests.
    pub history: History,
    /// Where rows wait for the cloud.
    pub outbox: Outbox,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// What the next row holds.
struct Next {
    request: Request,
    /// It has a row in the table of requests.
    is_known: bool,
    readings: Vec<history::Reading>,
}

impl Raw {
    /// True for what may name a request.
    pub fn is_name(request: &str) -> bool {
        (1..=MAX_REQUEST_BYTES).contains(&request.len()) && request.bytes().all(|byte| byte.is_ascii_graphic())
    }

    /// Queues readings of `stream` for the cloud. The same `request` of a stream is fulfilled once, over restarts too;
    /// one that was cut short goes on.
    pub async fn enqueue(&self, stream: &str, request: &str, wanted: Wanted) -> Result<Enqueued, RawError> {
        if !Self::is_name(request) {
            return Err(RawError::Request);
        }
        let about = self.sense.stream(stream).ok_or_else(|| RawError::NoStream(stream.to_owned()))?;
        let (name, no) = (about.config.name.clone(), about.no);
        let per_row = (ROW_BYTES / (24 + 10 * about.config.signal.fields().len())).clamp(1, ROW_READINGS);
        let rows = self.rows_of(&name).await?;
        let mut repeated = true;
        loop {
            let (asked, id) = (name.clone(), request.to_owned());
            let next = self.reader.read(move |conn| Ok(next(conn, &asked, no, &id, wanted, per_row))).await??;
            let Next { request, is_known, readings } = next;
            if is_known && request.next_seq > request.last_seq {
                let Request { id: request, first_seq, last_seq, readings, parts, truncated, .. } = request;
                return Ok(Enqueued {
                    stream: name,
                    request,
                    first_seq,
                    last_seq,
                    readings,
                    rows: parts,
                    truncated,
                    repeated,
                });
            }
            repeated = false;
            let row = Row { no, rows, request, readings, stamp: self.clock.stamp() };
            let (history, outbox) = (self.history.clone(), self.outbox.clone());
            let room = outbox::Wanted { class: Class::Raw, rows: 1, body_bytes: ROW_BYTES };
            let admission = outbox.admit(&[room]).map_err(|_full| RawError::Full)?;
            self.writer.commit(ROW_BYTES, move |tx| row.write(tx, &history, &outbox)).await?;
            drop(admission);
        }
    }

    /// The stream of class `raw`, registered when it is first needed.
    async fn rows_of(&self, name: &Name) -> Result<StreamHandle, RawError> {
        let (outbox, key) = (self.outbox.clone(), StreamKey::new(name.clone(), Class::Raw));
        let registering = tokio::task::spawn_blocking(move || outbox.stream(key));
        registering.await.expect("registering does not panic").map_err(RawError::Outbox)
    }
}

/// Where a request stands and what comes next.
fn next(
    conn: &Connection,
    name: &Name,
    no: StreamNo,
    id: &str,
    wanted: Wanted,
    per_row: usize,
) -> Result<Next, RawError> {
    let known = history::request(conn, no, id)?;
    let is_known = known.is_some();
    let mut request = match known {
        Some(request) => request,
        None => resolve(conn, name, no, id, wanted)?,
    };
    let mut readings = Vec::new();
    if request.next_seq <= request.last_seq {
        // History goes on forgetting while a request is fulfilled.
        request.truncated |= history::oldest(conn, no)?.is_none_or(|(oldest, _)| oldest > request.next_seq);
        readings = history::readings(conn, no, request.next_seq - 1, per_row)?;
        readings.retain(|reading| reading.seq <= request.last_seq);
    }
    Ok(Next { request, is_known, readings })
}

/// The numbers that are meant.
fn resolve(conn: &Connection, name: &Name, no: StreamNo, id: &str, wanted: Wanted) -> Result<Request, RawError> {
    let nothing = || RawError::Nothing { stream: name.clone() };
    let oldest = history::oldest(conn, no)?;
    let forgets = oldest.is_some_and(|(seq, _)| seq > 1);
    let (mut first, last, mut truncated, alarm) = match wanted {
        Wanted::Between { from_ms, to_ms } => {
            let (first, last) = history::numbers_between(conn, no, from_ms, to_ms)?.ok_or_else(nothing)?;
            let earlier = forgets && oldest.is_some_and(|(_, time_ms)| from_ms < time_ms);
            let newest = history::tail(conn, no, 1)?;
            let later = newest.iter().any(|reading| to_ms > reading.time_ms);
            (first, last, earlier || later, None)
        }
        Wanted::Around { alarm, before, after } => {
            let found = history::one_alert(conn, no, alarm)?;
            let found = found.ok_or_else(|| RawError::NoAlarm { stream: name.clone(), alarm })?;
            let limit = |count: u64| count.min(MAX_READINGS) as usize;
            let (earlier, later) = history::numbers_around(conn, no, found.raised_seq, limit(before), limit(after))?;
            let short = (forgets && (earlier.len() as u64) < before) || (later.len() as u64) < after;
            let (first, last) = (earlier.first().or(later.first()), later.last().or(earlier.last()));
            (*first.ok_or_else(nothing)?, *last.ok_or_else(nothing)?, short, Some(alarm))
        }
    };
    let mut end = last;
    if let Some(most) = history::number_at(conn, no, first, last, MAX_READINGS)? {
        truncated |= most < last;
        end = most;
    }
    // The first that is there: where a clock was set back, a range of times is not one of numbers.
    first = history::number_at(conn, no, first, end, 1)?.ok_or_else(nothing)?;
    Ok(Request {
        id: id.to_owned(),
        first_seq: first,
        last_seq: end,
        next_seq: first,
        readings: 0,
        parts: 0,
        truncated,
        alarm,
    })
}

/// One row on its way to the disk.
struct Row {
    no: StreamNo,
    rows: StreamHandle,
    request: Request,
    readings: Vec<history::Reading>,
    stamp: Stamp,
}

impl Row {
    /// Appends the row and notes it in one transaction, unless somebody with the same request was quicker.
    fn write(self, tx: &Tx<'_>, history: &History, outbox: &Outbox) -> Result<(), store::Error> {
        let Self { no, rows, mut request, readings, stamp } = self;
        if history.request(tx, no, &request.id)?.is_some_and(|known| known.parts != request.parts) {
            return Ok(());
        }
        let last = readings.last().map_or(request.last_seq, |reading| reading.seq);
        request.parts += 1;
        request.readings += readings.len() as u64;
        request.next_seq = last + 1;
        let record = RawRecord {
            request: request.id.clone(),
            alarm: request.alarm,
            part: request.parts,
            is_last: request.next_seq > request.last_seq,
            truncated: request.truncated,
            readings: readings.iter().map(as_raw).collect(),
        };
        outbox.append(tx, &rows, &Envelope { body: record::encode(&record), stamp })?;
        history.note_request(tx, no, &request)
    }
}

fn as_raw(reading: &history::Reading) -> RawReading {
    RawReading {
        number: reading.seq,
        time_ms: reading.time_ms,
        values: finite(&reading.values),
        score: reading.score,
        state: reading.state,
    }
}
