//! Reading history from a read-only connection.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::checksum::{corrupt, holds};
use super::{Alert, Bucket, Reading, Rejected, StreamNo, Window};
use crate::store::Error;

const READING: &str = "SELECT seq, time_ms, id, value, more, score, expected, state, extra, crc FROM history_reading";
const READING_COLUMNS: usize = 9;
const WINDOW_COLUMNS: usize = 7;

/// None if its checksum is wrong.
fn reading(row: &Row<'_>) -> rusqlite::Result<Option<Reading>> {
    if !holds(row, READING_COLUMNS)? {
        return Ok(None);
    }
    let mut values = vec![row.get::<_, Option<f64>>(3)?.unwrap_or(f64::NAN)];
    if let Some(more) = row.get::<_, Option<Vec<u8>>>(4)? {
        let (numbers, _) = more.as_chunks::<8>();
        values.extend(numbers.iter().map(|bytes| f64::from_le_bytes(*bytes)));
    }
    Ok(Some(Reading {
        seq: row.get::<_, i64>(0)? as u64,
        time_ms: row.get(1)?,
        id: row.get(2)?,
        values,
        score: row.get(5)?,
        expected: row.get(6)?,
        state: row.get(7)?,
        extra: row.get(8)?,
    }))
}

fn whole<T>(rows: impl Iterator<Item = rusqlite::Result<Option<T>>>) -> Result<Vec<T>, Error> {
    Ok(rows.filter_map(Result::transpose).collect::<Result<_, _>>()?)
}

/// The newest `count` readings, oldest first.
pub fn tail(conn: &Connection, stream: StreamNo, count: usize) -> Result<Vec<Reading>, Error> {
    let sql = format!("{READING} WHERE stream_no = ?1 ORDER BY seq DESC LIMIT ?2");
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map(params![stream.0, count as i64], reading)?;
    let mut readings = whole(rows)?;
    readings.reverse();
    Ok(readings)
}

/// Readings after `after_seq` in order, at most `limit`.
pub fn readings(conn: &Connection, stream: StreamNo, after_seq: u64, limit: usize) -> Result<Vec<Reading>, Error> {
    let sql = format!("{READING} WHERE stream_no = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3");
    let mut statement = conn.prepare_cached(&sql)?;
    whole(statement.query_map(params![stream.0, after_seq as i64, limit as i64], reading)?)
}

/// The first and the last number whose source time lies within the range, as far as readings are kept; `None` if none
/// does. With `to_ms` before `from_ms` there is none.
pub fn numbers_between(
    conn: &Connection,
    stream: StreamNo,
    from_ms: i64,
    to_ms: i64,
) -> Result<Option<(u64, u64)>, Error> {
    // Late readings and clocks that were set back put times out of order, so every kept reading is looked at.
    let sql = "SELECT min(seq), max(seq) FROM history_reading WHERE stream_no = ?1 AND time_ms BETWEEN ?2 AND ?3";
    let ends = conn.prepare_cached(sql)?.query_row(params![stream.0, from_ms, to_ms], |row| {
        Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?))
    })?;
    Ok(match ends {
        (Some(first), Some(last)) => Some((first.cast_unsigned(), last.cast_unsigned())),
        _ => None,
    })
}

/// Of the readings `first..=last`, the number of the `count`th; `None` if there are fewer.
pub fn number_at(conn: &Connection, stream: StreamNo, first: u64, last: u64, count: u64) -> Result<Option<u64>, Error> {
    let sql =
        "SELECT seq FROM history_reading WHERE stream_no = ?1 AND seq BETWEEN ?2 AND ?3 ORDER BY seq LIMIT 1 OFFSET ?4";
    let at = params![stream.0, first.cast_signed(), last.cast_signed(), count.saturating_sub(1).cast_signed()];
    let number = conn.prepare_cached(sql)?.query_row(at, |row| row.get::<_, i64>(0)).optional()?;
    Ok(number.map(i64::cast_unsigned))
}

/// The numbers of up to `before` readings before `seq` and up to `after` from it on, in order.
pub fn numbers_around(
    conn: &Connection,
    stream: StreamNo,
    seq: u64,
    before: usize,
    after: usize,
) -> Result<(Vec<u64>, Vec<u64>), Error> {
    let numbers = |sql: &str, limit: usize| {
        let mut statement = conn.prepare_cached(sql)?;
        let rows =
            statement.query_map(params![stream.0, seq.cast_signed(), limit as i64], |row| row.get::<_, i64>(0))?;
        Ok::<_, Error>(rows.map(|row| row.map(i64::cast_unsigned)).collect::<Result<Vec<_>, _>>()?)
    };
    let sql = "SELECT seq FROM history_reading WHERE stream_no = ?1 AND seq < ?2 ORDER BY seq DESC LIMIT ?3";
    let mut earlier = numbers(sql, before)?;
    earlier.reverse();
    let sql = "SELECT seq FROM history_reading WHERE stream_no = ?1 AND seq >= ?2 ORDER BY seq LIMIT ?3";
    Ok((earlier, numbers(sql, after)?))
}

/// Number and source time of the oldest reading that is kept.
pub fn oldest(conn: &Connection, stream: StreamNo) -> Result<Option<(u64, i64)>, Error> {
    let sql = "SELECT seq, time_ms FROM history_reading WHERE stream_no = ?1 ORDER BY seq LIMIT 1";
    let row = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?));
    Ok(conn.prepare_cached(sql)?.query_row([stream.0], row).optional()?)
}

/// Where the open summary window begins: the number after the last window's last, and when the window's first reading
/// came by the box's clock, ms since 1970.
pub fn open_window(conn: &Connection, stream: StreamNo) -> Result<(u64, i64), Error> {
    let sql = "SELECT coalesce((SELECT last_seq FROM history_window WHERE stream_no = ?1 ORDER BY first_seq DESC LIMIT 1), 0),
               opened_ms FROM history_stream WHERE no = ?1";
    let row = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?.cast_unsigned() + 1, row.get(1)?));
    Ok(conn.prepare_cached(sql)?.query_row([stream.0], row).optional()?.unwrap_or((1, 0)))
}

/// The readings between two source times in at most `buckets` groups of neighbours.
///
/// Source times rise with the position but for a clock that was set back, so the range is found by bisection and
/// needs no index of its own.
pub fn curve(
    conn: &Connection,
    stream: StreamNo,
    from_ms: Option<i64>,
    to_ms: Option<i64>,
    buckets: usize,
) -> Result<Vec<Bucket>, Error> {
    let ends = "SELECT min(seq), max(seq) FROM history_reading WHERE stream_no = ?1";
    let (first, last) = conn
        .prepare_cached(ends)?
        .query_row([stream.0], |row| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?)))?;
    let (Some(mut first), Some(mut last)) = (first, last) else { return Ok(Vec::new()) };
    if let Some(from_ms) = from_ms {
        first = bisect(conn, stream, first, last, from_ms)?;
    }
    if let Some(to_ms) = to_ms {
        last = bisect(conn, stream, first, last, to_ms)?;
    }
    let per_bucket = ((last - first + 1) as u64).div_ceil(buckets.max(1) as u64).max(1) as i64;
    // Rows come in the order of the key, so neighbours are grouped as they come: GROUP BY would sort them again.
    let mut statement = conn.prepare_cached(&format!(
        "{READING} WHERE stream_no = ?1 AND seq BETWEEN ?2 AND ?3 AND value IS NOT NULL ORDER BY seq"
    ))?;
    let mut rows = statement.query(params![stream.0, first, last])?;
    let mut curve: Vec<Bucket> = Vec::new();
    let mut open = None;
    while let Some(row) = rows.next()? {
        if !holds(row, READING_COLUMNS)? {
            continue;
        }
        let number = (row.get::<_, i64>(0)? - first) / per_bucket;
        let (time_ms, value, score): (i64, f64, Option<f64>) = (row.get(1)?, row.get(3)?, row.get(5)?);
        let expected = row.get(6)?;
        match curve.last_mut().filter(|_| open == Some(number)) {
            Some(bucket) => {
                bucket.time_ms = bucket.time_ms.min(time_ms);
                bucket.low = bucket.low.min(value);
                bucket.high = bucket.high.max(value);
                bucket.score = bucket.score.into_iter().chain(score).reduce(f64::max);
                bucket.expected = expected;
            }
            None => curve.push(Bucket { time_ms, low: value, high: value, score, expected }),
        }
        open = Some(number);
    }
    Ok(curve)
}

/// The first position in `[first, last]` whose time is at or after `time_ms`; `last` if there is none.
fn bisect(conn: &Connection, stream: StreamNo, first: i64, last: i64, time_ms: i64) -> Result<i64, Error> {
    // Positions may be missing after a restart: look at the next one there is.
    let sql = "SELECT seq, time_ms FROM history_reading WHERE stream_no = ?1 AND seq >= ?2 ORDER BY seq LIMIT 1";
    let mut statement = conn.prepare_cached(sql)?;
    let (mut low, mut high) = (first, last);
    while low < high {
        let middle = low + (high - low) / 2;
        let (seq, time): (i64, i64) =
            statement.query_row(params![stream.0, middle], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if time < time_ms {
            low = seq.max(middle) + 1;
        } else {
            high = middle;
        }
    }
    Ok(low.min(last))
}

/// Summary windows, newest first.
pub fn windows(conn: &Connection, stream: StreamNo, limit: usize) -> Result<Vec<Window>, Error> {
    let mut statement = conn.prepare_cached(
        "SELECT first_seq, last_seq, start_ms, end_ms, count, peak_score, body, crc FROM history_window
         WHERE stream_no = ?1 ORDER BY first_seq DESC LIMIT ?2",
    )?;
    whole(statement.query_map(params![stream.0, limit as i64], |row| {
        if !holds(row, WINDOW_COLUMNS)? {
            return Ok(None);
        }
        Ok(Some(Window {
            first_seq: row.get::<_, i64>(0)? as u64,
            last_seq: row.get::<_, i64>(1)? as u64,
            start_ms: row.get(2)?,
            end_ms: row.get(3)?,
            count: row.get::<_, i64>(4)? as u64,
            peak_score: row.get(5)?,
            body: row.get(6)?,
        }))
    })?)
}

/// An alarm, and whether it and its stream's name are what was written.
macro_rules! alert {
    () => {
        "SELECT a.id, s.name, a.severity, a.raised_ms, a.raised_seq, a.cleared_ms, a.peak_score, a.suppressed,
         a.crc IS row_crc('history_alert', a.id, a.stream_no, a.severity, a.raised_ms, a.raised_seq, a.cleared_ms,
         a.peak_score, a.suppressed) AND s.crc IS row_crc('history_stream', s.no, s.name, s.reserved, s.opened_ms)
         FROM history_alert a JOIN history_stream s ON s.no = a.stream_no"
    };
}

const ALERT: &str = alert!();

pub(super) const OPEN_ALERT: &str =
    concat!(alert!(), " WHERE a.stream_no = ?1 AND a.cleared_ms IS NULL ORDER BY a.id DESC LIMIT 1");

pub(super) fn alert(row: &Row<'_>) -> rusqlite::Result<Option<Alert>> {
    if !row.get::<_, bool>(8)? {
        corrupt();
        return Ok(None);
    }
    Ok(Some(Alert {
        id: row.get(0)?,
        stream: row.get(1)?,
        severity: row.get(2)?,
        raised_ms: row.get(3)?,
        raised_seq: row.get::<_, i64>(4)? as u64,
        cleared_ms: row.get(5)?,
        peak_score: row.get(6)?,
        suppressed: row.get(7)?,
    }))
}

/// Alarms of one stream or of all, newest first.
pub fn alerts(conn: &Connection, stream: Option<StreamNo>, limit: usize) -> Result<Vec<Alert>, Error> {
    let sql = format!("{ALERT} WHERE ?1 IS NULL OR a.stream_no = ?1 ORDER BY a.id DESC LIMIT ?2");
    let mut statement = conn.prepare_cached(&sql)?;
    whole(statement.query_map(params![stream.map(|no| no.0), limit as i64], alert)?)
}

/// The alarm that stands on this stream.
pub fn open_alert(conn: &Connection, stream: StreamNo) -> Result<Option<Alert>, Error> {
    Ok(conn.prepare_cached(OPEN_ALERT)?.query_row([stream.0], alert).optional()?.flatten())
}

/// The alarm of that number, if it is of this stream and still kept.
pub fn one_alert(conn: &Connection, stream: StreamNo, id: i64) -> Result<Option<Alert>, Error> {
    let sql = format!("{ALERT} WHERE a.stream_no = ?1 AND a.id = ?2");
    Ok(conn.prepare_cached(&sql)?.query_row(params![stream.0, id], alert).optional()?.flatten())
}

/// What the stream remembered last. Nothing, if its checksum is wrong: a stream that begins anew is better than one that
/// goes on from numbers that were never there.
pub fn memory(conn: &Connection, stream: StreamNo) -> Result<Option<Vec<u8>>, Error> {
    let sql = "SELECT memory, memory_crc FROM history_stream WHERE no = ?1";
    let read = |row: &Row<'_>| if holds(row, 1)? { row.get(0) } else { Ok(None) };
    Ok(conn.prepare_cached(sql)?.query_row([stream.0], read).optional()?.flatten())
}

/// Rejected payloads, newest first.
pub fn rejected(conn: &Connection, limit: usize) -> Result<Vec<Rejected>, Error> {
    let mut statement = conn.prepare_cached(
        "SELECT s.name, r.wall_ms, r.reason, r.payload FROM history_rejected r
         JOIN history_stream s ON s.no = r.stream_no
         WHERE r.crc IS row_crc('history_rejected', r.stream_no, r.wall_ms, r.reason, r.payload)
         AND s.crc IS row_crc('history_stream', s.no, s.name, s.reserved, s.opened_ms) ORDER BY r.id DESC LIMIT ?1",
    )?;
    let rows = statement.query_map([limit as i64], |row| {
        Ok(Rejected { stream: row.get(0)?, wall_ms: row.get(1)?, reason: row.get(2)?, payload: row.get(3)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ManualClock;
    use crate::history::{Config, History, SCHEMA};
    use crate::store::{self, Store, Tx};
    use std::sync::Arc;

    #[tokio::test]
    async fn a_row_that_the_disk_has_changed_is_not_served() {
        let folder = tempfile::tempdir().unwrap();
        let config = store::Config::at(folder.path());
        let (store, _) = Store::open(&config, &[SCHEMA], Arc::new(ManualClock::at(1_700_000_000_000))).unwrap();
        let history = History::new(Config::default());
        let fill = move |tx: &Tx<'_>| {
            let stream = history.stream(tx, "press")?;
            for value in [1.0, f64::NAN, 3.0, 4.0] {
                let id = Some(format!("{value}"));
                let (score, expected) = (Some(value / 2.0), None);
                let values = vec![value, value + 0.5];
                let reading = Reading { seq: 0, time_ms: 7, id, values, score, expected, state: 4, extra: None };
                history.append(tx, stream, &reading)?;
            }
            history.remember(tx, stream, b"so far")?;
            tx.execute("UPDATE history_reading SET score = 0.75 WHERE id = '3'", [])?;
            tx.execute("UPDATE history_reading SET crc = NULL WHERE id = '4'", [])?;
            Ok(stream)
        };
        let stream = store.writer().commit(1, fill).await.unwrap();
        let served = move |conn: &Connection| {
            let ids: Vec<_> = tail(conn, stream, 9)?.into_iter().filter_map(|reading| reading.id).collect();
            Ok((
                ids,
                readings(conn, stream, 0, 9)?.len(),
                curve(conn, stream, None, None, 9)?.len(),
                memory(conn, stream)?,
            ))
        };
        let (ids, count, buckets, remembered) = store.reader().read(served).await.unwrap();
        assert_eq!(ids, ["1", "NaN", "4"], "a row of an older release has no checksum");
        assert_eq!((count, buckets, remembered), (3, 2, Some(b"so far".to_vec())));
        let spoil = |tx: &Tx<'_>| tx.execute("UPDATE history_stream SET memory = x'00'", []);
        store.writer().commit(1, spoil).await.unwrap();
        assert_eq!(store.reader().read(move |conn| memory(conn, stream)).await.unwrap(), None);
    }
}
