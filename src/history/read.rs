//! Reading history from a read-only connection.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::block::Head;
use super::checksum::{corrupt, holds};
use super::walk::{backward, forward};
use super::{Alert, Bucket, Reading, Rejected, StreamNo, Window};
use crate::store::Error;

const WINDOW_COLUMNS: usize = 7;

fn whole<T>(rows: impl Iterator<Item = rusqlite::Result<Option<T>>>) -> Result<Vec<T>, Error> {
    Ok(rows.filter_map(Result::transpose).collect::<Result<_, _>>()?)
}

/// Readings after `after_seq` in order, at most `limit`.
pub fn readings(conn: &Connection, stream: StreamNo, after_seq: u64, limit: usize) -> Result<Vec<Reading>, Error> {
    let mut found = Vec::new();
    if limit > 0 {
        forward(conn, stream, after_seq, &|_| true, &mut |reading| {
            found.push(reading);
            found.len() < limit
        })?;
    }
    Ok(found)
}

/// The newest `count` readings, oldest first.
pub fn tail(conn: &Connection, stream: StreamNo, count: usize) -> Result<Vec<Reading>, Error> {
    let mut found = Vec::new();
    if count > 0 {
        backward(conn, stream, u64::MAX, &mut |reading| {
            found.push(reading);
            found.len() < count
        })?;
    }
    found.reverse();
    Ok(found)
}

/// The first and the last number whose source time lies within the range, as far as readings are kept; `None` if none
/// does. With `to_ms` before `from_ms` there is none.
pub fn numbers_between(
    conn: &Connection,
    stream: StreamNo,
    from_ms: i64,
    to_ms: i64,
) -> Result<Option<(u64, u64)>, Error> {
    // Late readings and clocks that were set back put times out of order, so every kept reading counts.
    let mut ends = None;
    let touches = |head: &Head| head.max_ms >= from_ms && head.min_ms <= to_ms;
    forward(conn, stream, 0, &touches, &mut |reading| {
        if (from_ms..=to_ms).contains(&reading.time_ms) {
            ends = Some((ends.map_or(reading.seq, |(first, _)| first), reading.seq));
        }
        true
    })?;
    Ok(ends)
}

/// Of the readings `first..=last`, the number of the `count`th; `None` if there are fewer.
pub fn number_at(conn: &Connection, stream: StreamNo, first: u64, last: u64, count: u64) -> Result<Option<u64>, Error> {
    let (mut left, mut number) = (count.max(1), None);
    forward(conn, stream, first.saturating_sub(1), &|_| true, &mut |reading| {
        if reading.seq > last {
            return false;
        }
        left -= 1;
        number = (left == 0).then_some(reading.seq);
        left > 0
    })?;
    Ok(number)
}

/// The numbers of up to `before` readings before `seq` and up to `after` from it on, in order.
pub fn numbers_around(
    conn: &Connection,
    stream: StreamNo,
    seq: u64,
    before: usize,
    after: usize,
) -> Result<(Vec<u64>, Vec<u64>), Error> {
    let mut earlier = Vec::new();
    if before > 0 {
        backward(conn, stream, seq, &mut |reading| {
            earlier.push(reading.seq);
            earlier.len() < before
        })?;
    }
    earlier.reverse();
    let later = readings(conn, stream, seq.saturating_sub(1), after)?;
    Ok((earlier, later.into_iter().map(|reading| reading.seq).collect()))
}

/// Number and source time of the oldest reading that is kept.
pub fn oldest(conn: &Connection, stream: StreamNo) -> Result<Option<(u64, i64)>, Error> {
    Ok(readings(conn, stream, 0, 1)?.first().map(|reading| (reading.seq, reading.time_ms)))
}

/// Where the open summary window begins: the number after the last window's last, and when the window's first reading
/// came by the box's clock, ms since 1970.
pub fn open_window(conn: &Connection, stream: StreamNo) -> Result<(u64, i64), Error> {
    let sql = "SELECT coalesce((SELECT last_seq FROM history_window WHERE stream_no = ?1 ORDER BY first_seq DESC LIMIT 1), 0),
               opened_ms FROM history_stream WHERE no = ?1";
    let row = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?.cast_unsigned() + 1, row.get(1)?));
    Ok(conn.prepare_cached(sql)?.query_row([stream.0], row).optional()?.unwrap_or((1, 0)))
}

/// The readings between two source times, both included, in at most `buckets` groups of neighbours.
pub fn curve(
    conn: &Connection,
    stream: StreamNo,
    from_ms: Option<i64>,
    to_ms: Option<i64>,
    buckets: usize,
) -> Result<Vec<Bucket>, Error> {
    let (from_ms, to_ms) = (from_ms.unwrap_or(i64::MIN), to_ms.unwrap_or(i64::MAX));
    let mut points: Vec<(u64, Bucket)> = Vec::new();
    let touches = |head: &Head| head.max_ms >= from_ms && head.min_ms <= to_ms;
    forward(conn, stream, 0, &touches, &mut |reading| {
        let Reading { seq, time_ms, ref values, score, expected, .. } = reading;
        let value = values.first().copied().filter(|value| !value.is_nan());
        if let Some(value) = value.filter(|_| (from_ms..=to_ms).contains(&time_ms)) {
            points.push((seq, Bucket { time_ms, low: value, high: value, score, expected }));
        }
        true
    })?;
    let (Some((first, _)), Some((last, _))) = (points.first(), points.last()) else { return Ok(Vec::new()) };
    let (first, span) = (*first, last.saturating_sub(*first));
    let per_bucket = (span / buckets.max(1) as u64).saturating_add(1);
    let mut curve: Vec<Bucket> = Vec::new();
    let mut open = None;
    for (seq, point) in points {
        let number = seq.saturating_sub(first) / per_bucket;
        match curve.last_mut().filter(|_| open == Some(number)) {
            Some(bucket) => {
                bucket.time_ms = bucket.time_ms.min(point.time_ms);
                bucket.low = bucket.low.min(point.low);
                bucket.high = bucket.high.max(point.high);
                bucket.score = bucket.score.into_iter().chain(point.score).reduce(f64::max);
                bucket.expected = point.expected;
            }
            None => curve.push(point),
        }
        open = Some(number);
    }
    Ok(curve)
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

    fn reading(value: f64) -> Reading {
        Reading {
            seq: 0,
            time_ms: 7,
            id: Some(format!("{value}")),
            values: vec![value, value + 0.5],
            score: Some(value / 2.0),
            expected: None,
            state: 4,
            extra: None,
        }
    }

    #[tokio::test]
    async fn a_row_that_the_disk_has_changed_is_not_served() {
        let folder = tempfile::tempdir().unwrap();
        let config = store::Config::at(folder.path());
        let (store, _) = Store::open(&config, &[SCHEMA], Arc::new(ManualClock::at(1_700_000_000_000))).unwrap();
        let history = History::new(Config::default());
        let begin = {
            let history = history.clone();
            move |tx: &Tx<'_>| {
                tx.execute(
                    "INSERT INTO history_stream (no, name, crc)
                     VALUES (1, 'press', row_crc('history_stream', 1, 'press', 0, 0))",
                    [],
                )?;
                // Those of an older release, one of them from before there were checksums.
                for (seq, crc) in [(1, Some(1)), (2, None)] {
                    tx.execute(
                        "INSERT INTO history_reading (stream_no, seq, time_ms, value, id, state, crc)
                         VALUES (1, ?1, 7, 0.5, 'old', 4, ?2)",
                        (seq, crc),
                    )?;
                }
                let stream = history.stream(tx, "press")?;
                history.remember(tx, stream, b"so far")?;
                Ok(stream)
            }
        };
        let stream = store.writer().commit(1, begin).await.unwrap();
        for value in [1.0, f64::NAN, 3.0, 4.0] {
            let history = history.clone();
            let append = move |tx: &Tx<'_>| history.append(tx, stream, &reading(value)).map(drop);
            store.writer().commit(1, append).await.unwrap();
        }
        let spoil = |tx: &Tx<'_>| {
            let sql = "UPDATE history_arrival_a SET body = CAST(substr(body, 1, 20) || x'00' || substr(body, 22) AS BLOB) WHERE no = 3";
            tx.execute(sql, [])
        };
        assert_eq!(store.writer().commit(1, spoil).await.unwrap(), 1);
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
        assert_eq!(ids, ["old", "1", "NaN", "4"], "a row of an older release has no checksum");
        assert_eq!((count, buckets, remembered), (4, 3, Some(b"so far".to_vec())));
        let spoil = |tx: &Tx<'_>| tx.execute("UPDATE history_stream SET memory = x'00'", []);
        store.writer().commit(1, spoil).await.unwrap();
        assert_eq!(store.reader().read(move |conn| memory(conn, stream)).await.unwrap(), None);
    }
}
