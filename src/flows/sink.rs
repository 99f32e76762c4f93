//! Where the receiving flows leave what arrived: all of it in one transaction, or nothing.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::base::Clock;
use crate::inbox::{Applied, Inbox};
use crate::store::{self, Schema, Tx, Writer};

use super::arrival::Arrival;

/// Messages that cannot be read, newest last, for a person to look at.
pub const COLLECT_SCHEMA: Schema = Schema {
    room: "collect",
    steps: &["CREATE TABLE collect_rejected (
        id INTEGER PRIMARY KEY,
        wall_ms INTEGER NOT NULL,
        topic TEXT NOT NULL,
        reason TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        payload BLOB NOT NULL
    ) STRICT"],
    read_at_start: &[],
};

/// What one message did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Its rows are kept, and which they are is known.
    Stored {
        /// Rows that were new.
        rows: u64,
        /// Rows that had come before.
        duplicates: u64,
    },
    /// It cannot be read, and was put aside.
    Rejected,
    /// Nothing: it would begin a series beyond the limit.
    Refused,
}

impl From<Applied> for Effect {
    fn from(applied: Applied) -> Self {
        match applied {
            Applied::Stored { new_rows: rows, duplicates, .. } => Self::Stored { rows, duplicates },
            Applied::TooManySeries => Self::Refused,
        }
    }
}

/// A place for rows that commits which of them it has together with the rows.
pub trait Sink: Send + Sync {
    /// Keeps every arrival in one transaction, and says what each did, in their order. An error means that nothing of
    /// it counts: the messages have to come again.
    fn keep(&self, arrivals: Vec<Arrival>) -> BoxFuture<'static, Result<Vec<Effect>, String>>;

    /// What a batch may hold.
    fn limits(&self) -> &crate::inbox::Config;
}

/// How much of what cannot be read is kept for a person to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejects {
    /// Messages; the oldest goes first.
    pub messages: u32,
    /// Bytes of each.
    pub bytes: usize,
}

impl Default for Rejects {
    fn default() -> Self {
        Self { messages: 1000, bytes: 64 * 1024 }
    }
}

/// The inbox in its SQLite file.
#[derive(Clone)]
pub struct InboxSink {
    writer: Writer,
    inbox: Inbox,
    clock: Arc<dyn Clock>,
    rejects: Rejects,
}

impl InboxSink {
    /// `writer` is the one of the inbox's store, which also holds [`COLLECT_SCHEMA`].
    pub fn new(writer: Writer, inbox: Inbox, clock: Arc<dyn Clock>, rejects: Rejects) -> Self {
        Self { writer, inbox, clock, rejects }
    }
}

impl Sink for InboxSink {
    fn keep(&self, arrivals: Vec<Arrival>) -> BoxFuture<'static, Result<Vec<Effect>, String>> {
        let bytes = arrivals.iter().map(Arrival::size_bytes).sum();
        let (writer, inbox, rejects, wall_ms) =
            (self.writer.clone(), self.inbox.clone(), self.rejects, self.clock.wall_ms());
        Box::pin(async move {
            let apply = move |tx: &Tx<'_>| {
                let keep = |arrival: &Arrival| match arrival {
                    Arrival::Batch { address, batch, .. } => Ok(inbox.apply(tx, &address.gateway, batch)?.into()),
                    Arrival::Unreadable { topic, reason, payload } => {
                        reject(tx, wall_ms, (topic, reason, payload), rejects)?;
                        Ok(Effect::Rejected)
                    }
                };
                arrivals.iter().map(keep).collect::<Result<Vec<Effect>, store::Error>>()
            };
            writer.commit(bytes, apply).await.map_err(|error| error.to_string())
        })
    }

    fn limits(&self) -> &crate::inbox::Config {
        self.inbox.config()
    }
}

fn reject(
    tx: &Tx<'_>,
    wall_ms: i64,
    (topic, reason, payload): (&str, &str, &[u8]),
    rejects: Rejects,
) -> Result<(), store::Error> {
    let size_bytes = i64::try_from(payload.len()).unwrap_or(i64::MAX);
    let kept = &payload[..payload.len().min(rejects.bytes)];
    tx.execute(
        "INSERT INTO collect_rejected (wall_ms, topic, reason, size_bytes, payload) VALUES (?1, ?2, ?3, ?4, ?5)",
        (wall_ms, topic, reason, size_bytes, kept),
    )?;
    let most = rejects.messages;
    tx.execute("DELETE FROM collect_rejected WHERE id <= (SELECT max(id) FROM collect_rejected) - ?1", (most,))?;
    Ok(())
}
