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

/// Counts one message for each of `clients`.
pub(super) fn enter(tx: &Tx<'_>, clients: &[Arc<str>], wall_ms: i64) -> Result<(), Error> {
    for client in clients {
        let known = tx.execute(
            "UPDATE broker_lost SET messages = messages + 1, last_ms = max(last_ms, ?2) WHERE client = ?1",
            (&**client, wall_ms),
        )?;
        if known == 0 {
            tx.execute("INSERT INTO broker_lost VALUES (?1, 1, ?2, ?2)", (&**client, wall_ms))?;
            tx.execute(
                "DELETE FROM broker_lost WHERE client IN
                 (SELECT client FROM broker_lost ORDER BY last_ms DESC, client LIMIT -1 OFFSET ?1)",
                [MAX_CLIENTS],
            )?;
        }
    }
    Ok(())
}

/// The newest losses first.
pub fn losses(connection: &Connection, limit: usize) -> Result<Vec<SessionLoss>, Error> {
    let mut statement = connection
        .prepare_cached("SELECT client, messages, first_ms, last_ms FROM broker_lost ORDER BY last_ms DESC LIMIT ?1")?;
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
