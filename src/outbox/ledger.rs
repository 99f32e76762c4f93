//! Rows of the loss ledger, and what a start has to enter into it.

use rusqlite::OptionalExtension;

use super::batch::GapReason;
use super::state::{Staged, Stream};
use super::stream::StreamKey;
use crate::store::{Error, Tx};

/// Enters numbers that will never be rows. `count` of them were acknowledged rows.
pub(super) fn enter(
    tx: &Tx<'_>,
    stream_no: i64,
    numbers: (u64, u64),
    count: u64,
    reason: GapReason,
    wall_ms: i64,
) -> Result<(), Error> {
    let (first, last) = (numbers.0.cast_signed(), numbers.1.cast_signed());
    tx.execute(
        "INSERT OR REPLACE INTO outbox_gap VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        (stream_no, first, last, count.cast_signed(), reason.as_str(), wall_ms),
    )?;
    Ok(())
}

/// Reads every stream, burns what an earlier process had reserved and not given back, and reserves anew.
pub(super) fn resume(tx: &Tx<'_>, reserve_rows: u64, wall_ms: i64) -> Result<Vec<Stream>, Error> {
    let mut found = Vec::new();
    {
        let mut statement = tx
            // What is still being salvaged is taken up by the salvage.
            .prepare_cached(
                "SELECT stream_no, class, name, reserved, settled FROM outbox_stream WHERE salvage IS NULL
                 ORDER BY stream_no",
            )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (class, name): (String, String) = (row.get(1)?, row.get(2)?);
            let key = StreamKey::from_stored(&class, &name)
                .ok_or_else(|| Error::Row { table: "outbox_stream", what: format!("{class} {name}") })?;
            found.push((
                row.get(0)?,
                key,
                row.get::<_, i64>(3)?.cast_unsigned(),
                row.get::<_, i64>(4)?.cast_unsigned(),
            ));
        }
    }
    let mut streams = Vec::with_capacity(found.len());
    for (no, key, reserved, settled) in found {
        if key.epoch.is_some() {
            // Everything of it was accounted for when its salvage ended. It goes once the cloud has all of it.
            if settled >= reserved {
                forget(tx, no)?;
            } else {
                let mut stream = Stream::resting(no, key, settled, reserved);
                stream.begin_sending(reserved, waiting(tx, no, settled, reserved)?);
                streams.push(stream);
            }
            continue;
        }
        let last = highest(tx, no)?.max(settled);
        if last < reserved {
            burn(tx, no, (last + 1, reserved), wall_ms)?;
        }
        let last = last.max(reserved);
        let reserved = last + 2 * reserve_rows;
        tx.execute("UPDATE outbox_stream SET reserved = ?2 WHERE stream_no = ?1", (no, reserved.cast_signed()))?;
        let rows = waiting(tx, no, settled, last)?;
        streams.push(Stream {
            no,
            key,
            next: last + 1,
            reserved,
            last,
            settled,
            rows,
            burned: None,
            staged: Staged::default(),
        });
    }
    Ok(streams)
}

/// Removes a stream of an old epoch that is drained.
fn forget(tx: &Tx<'_>, no: i64) -> Result<(), Error> {
    for sql in [
        "DELETE FROM outbox_row WHERE stream_no = ?1",
        "DELETE FROM outbox_gap WHERE stream_no = ?1",
        "DELETE FROM outbox_acked WHERE stream_no = ?1",
        "DELETE FROM outbox_stream WHERE stream_no = ?1",
    ] {
        tx.execute(sql, [no])?;
    }
    Ok(())
}

/// A crash loop must not fill the ledger: an entry that ends where this one begins grows instead.
fn burn(tx: &Tx<'_>, no: i64, numbers: (u64, u64), wall_ms: i64) -> Result<(), Error> {
    let grown = tx.execute(
        "UPDATE outbox_gap SET last = ?3 WHERE stream_no = ?1 AND last = ?2 AND reason = ?4
         AND first = (SELECT max(first) FROM outbox_gap WHERE stream_no = ?1)",
        (no, (numbers.0 - 1).cast_signed(), numbers.1.cast_signed(), GapReason::Restart.as_str()),
    )?;
    if grown == 0 {
        enter(tx, no, numbers, 0, GapReason::Restart, wall_ms)?;
    }
    Ok(())
}

/// The highest number that any table knows. Each look-up is one descent of a tree.
fn highest(tx: &Tx<'_>, no: i64) -> Result<u64, Error> {
    let mut highest = 0;
    for sql in [
        "SELECT seq FROM outbox_row WHERE stream_no = ?1 ORDER BY seq DESC LIMIT 1",
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
