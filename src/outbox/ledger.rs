//! Rows of the loss ledger, and what a start reads and has to enter into it.

use rusqlite::OptionalExtension;
use rusqlite::types::ValueRef;

use super::batch::GapReason;
use super::rows::{self, gap_holds, stream_holds};
use super::size;
use super::state::Stream;
use super::stream::StreamKey;
use crate::store::{Error, Tx};

/// Enters numbers that will never be rows. `count` of them were acknowledged rows. An entry of the same reason that
/// ends where this one begins, or begins where it ends, becomes part of it, so that a loss that goes on costs one
/// entry. Returns by how many the entries grew.
pub(super) fn enter(
    tx: &Tx<'_>,
    stream_no: i64,
    numbers: (u64, u64),
    count: u64,
    reason: GapReason,
    wall_ms: i64,
) -> Result<i64, Error> {
    let (mut first, mut last, mut count) = (numbers.0.cast_signed(), numbers.1.cast_signed(), count.cast_signed());
    let mut grown = 1;
    let before = concat!(
        "SELECT first, last, count FROM outbox_gap WHERE stream_no = ?1 AND reason = ?3
         AND first = (SELECT max(first) FROM outbox_gap WHERE stream_no = ?1 AND first < ?2) AND last = ?2 - 1 AND ",
        gap_holds!()
    );
    let after = concat!(
        "SELECT first, last, count FROM outbox_gap WHERE stream_no = ?1 AND first = ?2 + 1 AND reason = ?3 AND ",
        gap_holds!()
    );
    for (sql, end) in [(before, first), (after, last)] {
        let neighbour: Option<(i64, i64, i64)> = tx
            .prepare_cached(sql)?
            .query_row((stream_no, end, reason.as_str()), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        if let Some((near_first, near_last, near_count)) = neighbour {
            (first, last, count) = (first.min(near_first), last.max(near_last), count + near_count);
            tx.execute("DELETE FROM outbox_gap WHERE stream_no = ?1 AND first = ?2", (stream_no, near_first))?;
            grown -= 1;
        }
    }
    tx.execute(rows::PUT_GAP, (stream_no, first, last, count, reason.as_str(), wall_ms))?;
    Ok(grown)
}

/// Takes numbers out of the ledger that the far side has an account of: it received them, or the entry itself. What an
/// entry says beyond them stays, so an entry that grew while it was on its way is sent again for the rest. Returns by
/// how many the entries grew.
pub(super) fn withdraw(tx: &Tx<'_>, stream_no: i64, first: u64, last: u64) -> Result<i64, Error> {
    let mut met = Vec::new();
    {
        // Entries do not overlap, so only the last that begins before `first` can reach it.
        let mut statement = tx.prepare_cached(concat!(
            "SELECT first, last, count, reason, wall_ms FROM outbox_gap WHERE stream_no = ?1 AND first <= ?3
             AND first >= coalesce((SELECT max(first) FROM outbox_gap WHERE stream_no = ?1 AND first <= ?2), 0)
             AND last >= ?2 AND ",
            gap_holds!()
        ))?;
        let mut rows = statement.query((stream_no, first.cast_signed(), last.cast_signed()))?;
        while let Some(row) = rows.next()? {
            let numbers = (row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned());
            met.push((numbers, row.get::<_, i64>(2)?.cast_unsigned(), row.get::<_, String>(3)?, row.get::<_, i64>(4)?));
        }
    }
    let mut grown = 0;
    for ((from, to), count, reason, wall_ms) in met {
        tx.execute("DELETE FROM outbox_gap WHERE stream_no = ?1 AND first = ?2", (stream_no, from.cast_signed()))?;
        grown -= 1;
        for (left, right) in [(from, first.saturating_sub(1)), (last + 1, to)] {
            if left <= right {
                // Nearly always every number of an entry was a row, or none was.
                let lost = count.min(right - left + 1).cast_signed();
                tx.execute(
                    rows::PUT_GAP,
                    (stream_no, left.cast_signed(), right.cast_signed(), lost, &reason, wall_ms),
                )?;
                grown += 1;
            }
        }
    }
    Ok(grown)
}

/// First and last number of an entry, and how many acknowledged rows of them are lost.
pub(super) type Entry = (u64, u64, u64);

/// The two oldest entries of a stream.
pub(super) fn two_oldest(tx: &Tx<'_>, stream_no: i64) -> Result<Option<[Entry; 2]>, Error> {
    let mut statement = tx.prepare_cached(concat!(
        "SELECT first, last, count FROM outbox_gap WHERE stream_no = ?1 AND ",
        gap_holds!(),
        " ORDER BY first LIMIT 2"
    ))?;
    let entries = statement.query_map([stream_no], |row| {
        let number = |at| Ok::<_, rusqlite::Error>(row.get::<_, i64>(at)?.cast_unsigned());
        Ok((number(0)?, number(1)?, number(2)?))
    })?;
    let entries = entries.collect::<Result<Vec<_>, _>>()?;
    Ok(entries.try_into().ok())
}

/// Reads every stream, burns what an earlier process had reserved and not given back, and reserves anew.
pub(super) fn resume(tx: &Tx<'_>, reserve_rows: u64, wall_ms: i64) -> Result<Vec<Stream>, Error> {
    let mut found = Vec::new();
    let bad = rows::sweep_bad(tx)?;
    if bad > 0 {
        tracing::error!(
            rows = bad,
            "rows of the queue's books had a wrong checksum; numbers that only they spoke of are declared lost"
        );
    }
    {
        // What is still being salvaged is taken up by the salvage.
        let mut statement = tx.prepare_cached(concat!(
            "SELECT stream_no, class, name, reserved, settled, bytes, counted, flat_until, flat_bytes, salvage, ",
            stream_holds!(),
            " FROM outbox_stream ORDER BY stream_no"
        ))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if !row.get::<_, bool>(10)? {
                // Which numbers were issued and which arrived stands nowhere else.
                return Err(Error::Row { table: "outbox_stream", what: "a wrong checksum".to_owned() });
            }
            if row.get_ref(9)? != ValueRef::Null {
                continue;
            }
            let (class, name): (String, String) = (row.get(1)?, row.get(2)?);
            let key = StreamKey::from_stored(&class, &name)
                .ok_or_else(|| Error::Row { table: "outbox_stream", what: format!("{class} {name}") })?;
            let number = |at| Ok::<_, rusqlite::Error>(row.get::<_, i64>(at)?.cast_unsigned());
            let mut stream = Stream::new(row.get(0)?, key, 0, number(3)?);
            stream.settled = number(4)?;
            stream.bytes = number(5)?;
            stream.flat_until = number(7)?;
            stream.flat_bytes = number(8)?;
            // No account: written by a release that kept none.
            let counted: Option<i64> = row.get(6)?;
            found.push((stream, counted.map(i64::cast_unsigned)));
        }
    }
    let mut streams = Vec::with_capacity(found.len());
    for (mut stream, counted) in found {
        let (no, settled) = (stream.no, stream.settled);
        stream.entries = entries(tx, no)?;
        if stream.key.epoch.is_some() {
            // Everything of it was accounted for when its salvage ended. It goes once the cloud has all of it.
            let (reserved, bytes) = (stream.reserved, stream.bytes);
            if settled >= reserved {
                forget(tx, no)?;
            } else {
                let rows = waiting(tx, no, settled, reserved)?;
                stream.begin_sending(reserved, rows, if rows == 0 { 0 } else { bytes });
                streams.push(stream);
            }
            continue;
        }
        let last = highest(tx, no)?.max(settled);
        if last < stream.reserved {
            burn(tx, no, (last + 1, stream.reserved), wall_ms)?;
        }
        stream.last = last.max(stream.reserved);
        stream.next = stream.last + 1;
        stream.reserved = stream.last + 2 * reserve_rows;
        stream.rows = waiting(tx, no, settled, stream.last)?;
        match counted {
            Some(counted) => stream.bytes += size::bytes_since(tx, &stream, counted)?,
            None => size::estimate(tx, &mut stream)?,
        }
        if stream.rows == 0 {
            stream.bytes = 0;
        }
        rows::put_stream(tx, &stream, stream.last)?;
        streams.push(stream);
    }
    Ok(streams)
}

/// Entries of a stream's ledger: few, by its bound.
fn entries(tx: &Tx<'_>, no: i64) -> Result<u64, Error> {
    // What is bad is swept.
    let entries: i64 = tx.query_row("SELECT count(*) FROM outbox_gap WHERE stream_no = ?1", [no], |row| row.get(0))?;
    Ok(entries.cast_unsigned())
}

/// Removes a stream of an old epoch that is drained.
fn forget(tx: &Tx<'_>, no: i64) -> Result<(), Error> {
    for sql in [
        "DELETE FROM outbox_row WHERE stream_no = ?1",
        "DELETE FROM outbox_block WHERE block_no IN (SELECT block_no FROM outbox_pack WHERE stream_no = ?1)",
        "DELETE FROM outbox_pack WHERE stream_no = ?1",
        "DELETE FROM outbox_gap WHERE stream_no = ?1",
        "DELETE FROM outbox_acked WHERE stream_no = ?1",
        "DELETE FROM outbox_stream WHERE stream_no = ?1",
    ] {
        tx.execute(sql, [no])?;
    }
    Ok(())
}

/// A crash loop does not fill the ledger: the entry of the last crash grows.
fn burn(tx: &Tx<'_>, no: i64, numbers: (u64, u64), wall_ms: i64) -> Result<(), Error> {
    enter(tx, no, numbers, 0, GapReason::Restart, wall_ms).map(drop)
}

/// The highest number that any table knows. Each look-up is one descent of a tree.
fn highest(tx: &Tx<'_>, no: i64) -> Result<u64, Error> {
    let mut highest = 0;
    for sql in [
        "SELECT seq FROM outbox_row WHERE stream_no = ?1 ORDER BY seq DESC LIMIT 1",
        "SELECT last FROM outbox_pack WHERE stream_no = ?1 ORDER BY last DESC LIMIT 1",
        "SELECT last FROM outbox_gap WHERE stream_no = ?1 ORDER BY first DESC LIMIT 1",
        "SELECT last FROM outbox_acked WHERE stream_no = ?1 ORDER BY first DESC LIMIT 1",
    ] {
        let last: Option<i64> = tx.prepare_cached(sql)?.query_row([no], |row| row.get(0)).optional()?;
        highest = highest.max(last.unwrap_or(0).cast_unsigned());
    }
    Ok(highest)
}

/// Rows waiting: what lies above the settled prefix and is neither in the ledger nor acknowledged. Counting rows
/// would read the whole queue.
fn waiting(tx: &Tx<'_>, no: i64, settled: u64, last: u64) -> Result<u64, Error> {
    let mut rows = last - settled;
    for sql in [
        "SELECT coalesce(sum(last - max(first - 1, ?2)), 0) FROM outbox_gap WHERE stream_no = ?1 AND last > ?2",
        "SELECT coalesce(sum(last - max(first - 1, ?2)), 0) FROM outbox_acked WHERE stream_no = ?1 AND last > ?2",
    ] {
        let other: i64 = tx.query_row(sql, (no, settled.cast_signed()), |row| row.get(0))?;
        rows = rows.saturating_sub(other.cast_unsigned());
    }
    Ok(rows)
}
