//! A stream's readings from wherever they are: what an older release left, blocks, and what has just arrived, in the order
//! of their numbers.
//!
//! Numbers only rise, so the three follow each other. What is in a block may have arrived in a table that is still being
//! moved; the block counts.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::arrival::{self, Order};
use super::block::{self, Head};
use super::checksum::holds;
use super::{Reading, StreamNo};
use crate::store::Error;

const READING: &str = "SELECT seq, time_ms, id, value, more, score, expected, state, extra, crc FROM history_reading";
const READING_COLUMNS: usize = 9;

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

/// Shows the stream's readings after `after`, until `visit` says false. Blocks that `touches` does not want are passed over
/// unread.
pub(super) fn forward(
    connection: &Connection,
    stream: StreamNo,
    after: u64,
    touches: &dyn Fn(&Head) -> bool,
    visit: &mut dyn FnMut(Reading) -> bool,
) -> Result<(), Error> {
    let packed = block::packed_until(connection, stream.0)?;
    if !each_old(connection, stream, after, visit)? {
        return Ok(());
    }
    if after < packed {
        for head in block::heads(connection, stream.0, after)?.iter().filter(|head| touches(head)) {
            let mut readings = block::readings(connection, head.no)?.into_iter();
            if !readings.by_ref().filter(|reading| reading.seq > after).all(&mut *visit) {
                return Ok(());
            }
        }
        return arrival::of_stream(connection, stream.0, Order::OldestFirst, &mut |readings| {
            Ok(readings.into_iter().filter(|reading| reading.seq > packed).all(&mut *visit))
        });
    }
    // Somebody who follows the stream wants the last few: they are found from the end.
    let mut found = Vec::new();
    arrival::of_stream(connection, stream.0, Order::NewestFirst, &mut |readings| {
        let is_beyond = readings.first().is_some_and(|reading| reading.seq > after);
        found.push(readings);
        Ok(is_beyond)
    })?;
    let readings = found.into_iter().rev().flatten();
    readings.filter(|reading| reading.seq > after).all(visit);
    Ok(())
}

/// Shows the stream's readings before `before` from the newest back, until `visit` says false.
pub(super) fn backward(
    connection: &Connection,
    stream: StreamNo,
    before: u64,
    visit: &mut dyn FnMut(Reading) -> bool,
) -> Result<(), Error> {
    let packed = block::packed_until(connection, stream.0)?;
    let mut more = true;
    if before > packed {
        arrival::of_stream(connection, stream.0, Order::NewestFirst, &mut |readings| {
            let is_beyond = readings.first().is_some_and(|reading| reading.seq > packed);
            let wanted = readings.into_iter().rev().filter(|reading| reading.seq > packed && reading.seq < before);
            more = wanted.into_iter().all(&mut *visit);
            Ok(more && is_beyond)
        })?;
    }
    if more { packed_backward(connection, stream, before, visit) } else { Ok(()) }
}

/// [`backward`] without what has just arrived.
pub(super) fn packed_backward(
    connection: &Connection,
    stream: StreamNo,
    before: u64,
    visit: &mut dyn FnMut(Reading) -> bool,
) -> Result<(), Error> {
    let mut next = block::around(connection, stream.0, before)?;
    if next.is_none() {
        next = block::before(connection, stream.0, before)?;
    }
    while let Some(head) = next {
        let readings = block::readings(connection, head.no)?;
        if !readings.into_iter().rev().filter(|reading| reading.seq < before).all(&mut *visit) {
            return Ok(());
        }
        next = block::before(connection, stream.0, head.last)?;
    }
    let sql = format!("{READING} WHERE stream_no = ?1 AND seq < ?2 ORDER BY seq DESC");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![stream.0, block::as_column(before)])?;
    while let Some(row) = rows.next()? {
        if let Some(reading) = reading(row)?
            && !visit(reading)
        {
            break;
        }
    }
    Ok(())
}

fn each_old(
    connection: &Connection,
    stream: StreamNo,
    after: u64,
    visit: &mut dyn FnMut(Reading) -> bool,
) -> Result<bool, Error> {
    let sql = format!("{READING} WHERE stream_no = ?1 AND seq > ?2 ORDER BY seq");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![stream.0, block::as_column(after)])?;
    while let Some(row) = rows.next()? {
        if let Some(reading) = reading(row)?
            && !visit(reading)
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A stream that an older release left readings of.
pub(super) fn old_stream(connection: &Connection) -> Result<Option<StreamNo>, Error> {
    let sql = "SELECT stream_no FROM history_reading LIMIT 1";
    Ok(connection.prepare_cached(sql)?.query_row([], |row| row.get(0).map(StreamNo)).optional()?)
}

/// The newest of them in order, at most `most`, and their first and last numbers, damaged ones included.
pub(super) fn old_newest(
    connection: &Connection,
    stream: StreamNo,
    most: usize,
) -> Result<(Vec<Reading>, (u64, u64)), Error> {
    let sql = format!("{READING} WHERE stream_no = ?1 ORDER BY seq DESC LIMIT ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![stream.0, most as i64])?;
    let (mut readings, mut numbers) = (Vec::new(), (u64::MAX, 0));
    while let Some(row) = rows.next()? {
        let seq = row.get::<_, i64>(0)?.cast_unsigned();
        numbers = (numbers.0.min(seq), numbers.1.max(seq));
        readings.extend(reading(row)?);
    }
    readings.reverse();
    Ok((readings, numbers))
}
