//! Rows of answers in the database: what finds one, the answer itself and its vector, each with its checksum.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::answer::{Answer, Worth};
use super::partition::{Place, Purge};
use crate::store::{Error, Schema, Tx};

/// This room's tables. None is followed at the start: a row that is hidden is a question that is asked again.
pub const SCHEMA: Schema = Schema {
    room: "cache",
    steps: &["
        CREATE TABLE cache_entry (
            no INTEGER PRIMARY KEY, shelf TEXT NOT NULL, found_by BLOB NOT NULL, tenant TEXT NOT NULL, key TEXT NOT NULL,
            route TEXT NOT NULL, model TEXT NOT NULL, stored_ms INTEGER NOT NULL, until_ms INTEGER NOT NULL,
            bytes INTEGER NOT NULL, bits BLOB NOT NULL, crc INTEGER NOT NULL
        );
        CREATE TABLE cache_answer (
            no INTEGER PRIMARY KEY, content_type TEXT NOT NULL, body BLOB NOT NULL, note BLOB NOT NULL, tokens INTEGER,
            cost_pico_usd INTEGER, crc INTEGER NOT NULL
        );
        CREATE TABLE cache_vector (no INTEGER PRIMARY KEY, vector BLOB NOT NULL, crc INTEGER NOT NULL);
    "],
    read_at_start: &[],
};

/// What finds an answer.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) no: i64,
    /// The digest of the request, or of the partition.
    pub(super) found_by: [u8; 32],
    pub(super) stored_ms: i64,
    pub(super) until_ms: i64,
    pub(super) bytes: u32,
    /// The signs of the vector; empty where there is none.
    pub(super) bits: Vec<u64>,
}

/// All entries of a shelf by age, and the numbers of those whose checksum does not hold.
pub(super) fn load(connection: &Connection, shelf: &'static str) -> Result<(Vec<Entry>, Vec<i64>), Error> {
    let (mut entries, mut bad) = (Vec::new(), Vec::new());
    let mut statement = connection.prepare(
        "SELECT no, found_by, stored_ms, until_ms, bytes, bits, crc IS row_crc('cache_entry', no, shelf, found_by, tenant,
         key, route, model, stored_ms, until_ms, bytes, bits) FROM cache_entry WHERE shelf = ?1 ORDER BY no",
    )?;
    let mut rows = statement.query([shelf])?;
    while let Some(row) = rows.next()? {
        if row.get(6)? {
            entries.push(Entry {
                no: row.get(0)?,
                found_by: row.get(1)?,
                stored_ms: row.get(2)?,
                until_ms: row.get(3)?,
                bytes: row.get(4)?,
                bits: row.get::<_, Vec<u8>>(5)?.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect(),
            });
        } else {
            bad.push(row.get(0)?);
        }
    }
    Ok((entries, bad))
}

/// The highest number that was ever given and is still there.
pub(super) fn last_no(connection: &Connection) -> Result<i64, Error> {
    Ok(connection.query_row("SELECT coalesce(max(no), 0) FROM cache_entry", [], |row| row.get(0))?)
}

/// The answer of this number, if it is what was written.
pub(super) fn answer(connection: &Connection, no: i64) -> Result<Option<Answer>, Error> {
    let sql = "SELECT content_type, body, note, tokens, cost_pico_usd FROM cache_answer
        WHERE no = ?1 AND crc IS row_crc('cache_answer', no, content_type, body, note, tokens, cost_pico_usd)";
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Answer {
            content_type: row.get::<_, Arc<str>>(0)?,
            body: Bytes::from(row.get::<_, Vec<u8>>(1)?),
            note: Bytes::from(row.get::<_, Vec<u8>>(2)?),
            worth: Worth {
                tokens: row.get::<_, Option<i64>>(3)?.map(i64::cast_unsigned),
                cost_pico_usd: row.get::<_, Option<i64>>(4)?.map(i64::cast_unsigned),
            },
        })
    };
    Ok(connection.prepare_cached(sql)?.query_row([no], read).optional()?)
}

/// The vector of this number, if it is what was written.
pub(super) fn vector(connection: &Connection, no: i64) -> Result<Option<Vec<f32>>, Error> {
    let sql = "SELECT vector FROM cache_vector WHERE no = ?1 AND crc IS row_crc('cache_vector', no, vector)";
    let read = |row: &rusqlite::Row<'_>| row.get::<_, Vec<u8>>(0);
    let bytes = connection.prepare_cached(sql)?.query_row([no], read).optional()?;
    Ok(bytes.map(|bytes| bytes.as_chunks().0.iter().map(|number| f32::from_le_bytes(*number)).collect()))
}

/// A new answer under what finds it.
pub(super) fn insert(
    tx: &Tx<'_>,
    shelf: &'static str,
    entry: &Entry,
    place: &Place,
    answer: &Answer,
    vector: &[f32],
) -> Result<(), Error> {
    let bits: Vec<u8> = entry.bits.iter().flat_map(|word| word.to_le_bytes()).collect();
    tx.execute(
        "INSERT INTO cache_entry VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11,
         row_crc('cache_entry', ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11))",
        params![
            entry.no,
            shelf,
            entry.found_by,
            place.tenant,
            place.key,
            place.route,
            place.model,
            entry.stored_ms,
            entry.until_ms,
            entry.bytes,
            bits
        ],
    )?;
    tx.execute(
        "INSERT INTO cache_answer VALUES (?1, ?2, ?3, ?4, ?5, ?6, row_crc('cache_answer', ?1, ?2, ?3, ?4, ?5, ?6))",
        params![
            entry.no,
            &*answer.content_type,
            &*answer.body,
            &*answer.note,
            answer.worth.tokens.map(u64::cast_signed),
            answer.worth.cost_pico_usd.map(u64::cast_signed),
        ],
    )?;
    if !vector.is_empty() {
        let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
        tx.execute(
            "INSERT INTO cache_vector VALUES (?1, ?2, row_crc('cache_vector', ?1, ?2))",
            params![entry.no, bytes],
        )?;
    }
    Ok(())
}

/// Takes answers away.
pub(super) fn remove(tx: &Tx<'_>, numbers: &[i64]) -> Result<(), Error> {
    for no in numbers {
        tx.execute("DELETE FROM cache_vector WHERE no = ?1", [no])?;
        tx.execute("DELETE FROM cache_answer WHERE no = ?1", [no])?;
        tx.execute("DELETE FROM cache_entry WHERE no = ?1", [no])?;
    }
    Ok(())
}

/// Takes every answer away.
pub(super) fn clear(tx: &Tx<'_>) -> Result<(), Error> {
    for sql in ["DELETE FROM cache_vector", "DELETE FROM cache_answer", "DELETE FROM cache_entry"] {
        tx.execute(sql, [])?;
    }
    Ok(())
}

/// Numbers of the answers that a purge wants, at most `most`.
pub(super) fn wanted(
    connection: &Connection,
    shelf: &'static str,
    purge: &Purge,
    now_ms: i64,
    most: usize,
) -> Result<Vec<i64>, Error> {
    let mut statement =
        connection.prepare("SELECT no, tenant, key, route, model, stored_ms FROM cache_entry WHERE shelf = ?1")?;
    let mut rows = statement.query([shelf])?;
    let mut numbers = Vec::new();
    while let Some(row) = rows.next()?
        && numbers.len() < most
    {
        let place = Place { tenant: row.get(1)?, key: row.get(2)?, route: row.get(3)?, model: row.get(4)? };
        let age_ms = now_ms.saturating_sub(row.get(5)?).max(0).cast_unsigned();
        if purge.wants(&place, age_ms) {
            numbers.push(row.get(0)?);
        }
    }
    Ok(numbers)
}

/// For the tests of what a bad row does.
#[cfg(test)]
pub(super) fn spoil(tx: &Tx<'_>) -> Result<(), Error> {
    tx.execute("UPDATE cache_answer SET body = x'00'", [])?;
    Ok(())
}
