//! The ledger of absent clients: what their full sessions could not take, written in the transaction of the message.
//!
//! The message itself is where it belongs (the stream, the other sessions) and its publisher is acknowledged, unless
//! the configuration says that a full session refuses. The count says what the absent client will not get.

use std::sync::Arc;

use rusqlite::Connection;

use crate::store::{Error, Tx};

/// Clients in the ledger; the one whose last loss is the oldest goes first.
const MAX_CLIENTS: i64 = 10_000;

/// What one client will not get, although its session was there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionLoss {
    /// Its client id.
    pub client: String,
    /// QoS 1 and 2 messages.
    pub messages: u64,
    /// When the first of them came, milliseconds since 1970.
    pub first_ms: i64,
    /// When the last of them came.
    pub last_ms: i64,
}

/// The condition that an entry is what was written.
const HOLDS: &str = "crc IS row_crc('broker_lost', client, messages, first_ms, last_ms)";

/// Counts one message for each of `clients`.
pub(super) fn enter(tx: &Tx<'_>, clients: &[Arc<str>], wall_ms: i64) -> Result<(), Error> {
    clients.iter().try_for_each(|client| add(tx, client, 1, (wall_ms, wall_ms)))
}

/// Counts messages that a client will not get, of which the first and the last came then.
pub(super) fn add(tx: &Tx<'_>, client: &str, messages: u64, (first_ms, last_ms): (i64, i64)) -> Result<(), Error> {
    if messages == 0 {
        return Ok(());
    }
    let known = tx.execute(
        &format!(
            "UPDATE broker_lost SET messages = messages + ?2, first_ms = min(first_ms, ?3), last_ms = max(last_ms, ?4),
             crc = row_crc('broker_lost', client, messages + ?2, min(first_ms, ?3), max(last_ms, ?4))
             WHERE client = ?1 AND {HOLDS}"
        ),
        (client, messages.cast_signed(), first_ms, last_ms),
    )?;
    if known == 0 {
        tx.execute(
            "INSERT OR REPLACE INTO broker_lost
             VALUES (?1, ?2, ?3, ?4, row_crc('broker_lost', ?1, ?2, ?3, ?4))",
            (client, messages.cast_signed(), first_ms, last_ms),
        )?;
        tx.execute(
            "DELETE FROM broker_lost WHERE client IN
             (SELECT client FROM broker_lost ORDER BY last_ms DESC, client LIMIT -1 OFFSET ?1)",
            [MAX_CLIENTS],
        )?;
    }
    Ok(())
}

/// What a session is called whose client nobody can name any more. A client id of this form is nobody's by chance.
pub(super) fn nameless(session: i64) -> String {
    format!("(session {session}, its row was damaged)")
}

/// Forgets entries that the disk has changed.
pub(super) fn sweep_bad(tx: &Tx<'_>) -> Result<(), Error> {
    tx.execute(&format!("DELETE FROM broker_lost WHERE NOT ({HOLDS})"), []).map(drop)
}

/// The newest losses first.
pub fn losses(connection: &Connection, limit: usize) -> Result<Vec<SessionLoss>, Error> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT client, messages, first_ms, last_ms FROM broker_lost WHERE {HOLDS} ORDER BY last_ms DESC LIMIT ?1"
    ))?;
    let rows = statement.query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
        Ok(SessionLoss {
            client: row.get(0)?,
            messages: row.get::<_, i64>(1)?.cast_unsigned(),
            first_ms: row.get(2)?,
            last_ms: row.get(3)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
