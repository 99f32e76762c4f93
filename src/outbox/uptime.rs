//! How long the box has been on in all: what waiting is measured by, because the wall clock may be set.
//!
//! Time in which the box is off does not count: nobody knows how long it was. After a power cut at most
//! [`PERSIST_MS`] of the last boot's time is missing too, so a row may live that much longer.

use std::time::Duration;

use super::evict::Age;
use super::rows::PUT_UPTIME;
use crate::store::{Error, Tx};

/// How often the time since boot is written, in transactions that happen anyway.
const PERSIST_MS: u64 = 60_000;
/// Boots remembered; rows of older ones are as old as can be.
const MAX_BOOTS: i64 = 4096;

/// Uptime before each boot.
#[derive(Debug)]
pub(super) struct Uptime {
    /// Boot, uptime of all boots before it in milliseconds; ascending.
    boots: Vec<(i64, u64)>,
    persisted_ms: u64,
}

impl Uptime {
    /// Reads what earlier boots left, and begins this one.
    pub(super) fn resume(tx: &Tx<'_>, since_boot_ms: u64) -> Result<Self, Error> {
        let mut boots = Vec::new();
        let mut total_ms = 0;
        {
            // Bad rows are swept: a boot's uptime before it is also that of the one before it and in it.
            let mut statement =
                tx.prepare_cached("SELECT boot_no, before_ms, seen_ms FROM outbox_uptime ORDER BY boot_no")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let number = |at| Ok::<_, rusqlite::Error>(row.get::<_, i64>(at)?.cast_unsigned());
                let (before_ms, seen_ms) = (number(1)?, number(2)?);
                boots.push((row.get(0)?, before_ms));
                total_ms = before_ms + seen_ms;
            }
        }
        let boot_no = tx.boot_no();
        if boots.last().is_none_or(|(last, _)| *last < boot_no) {
            boots.push((boot_no, total_ms));
            let row = (boot_no, total_ms.cast_signed(), since_boot_ms.cast_signed());
            tx.execute(PUT_UPTIME, row)?;
            tx.execute("DELETE FROM outbox_uptime WHERE boot_no <= ?1", [boot_no - MAX_BOOTS])?;
        }
        Ok(Self { boots, persisted_ms: since_boot_ms })
    }

    /// Writes the time since boot if that is due. A commit that fails writes it a period later.
    pub(super) fn note(&mut self, tx: &Tx<'_>, since_boot_ms: u64) -> Result<(), Error> {
        if since_boot_ms >= self.persisted_ms + PERSIST_MS {
            self.persisted_ms = since_boot_ms;
            if let Some((boot_no, before_ms)) = self.boots.last() {
                tx.execute(PUT_UPTIME, (boot_no, before_ms.cast_signed(), since_boot_ms.cast_signed()))?;
            }
        }
        Ok(())
    }

    /// The uptime when the time since this boot is `since_boot_ms`.
    pub(super) fn now_ms(&self, since_boot_ms: u64) -> u64 {
        self.boots.last().map_or(0, |(_, before_ms)| before_ms + since_boot_ms)
    }

    /// True if a row of `age` has waited longer than `ttl` when the uptime is `now_ms`.
    pub(super) fn is_over(&self, age: Age, ttl: Duration, now_ms: u64) -> bool {
        // Salvaged: when the box was on in a life of another file is not known here.
        if age.0 < 0 {
            return false;
        }
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        now_ms.saturating_sub(self.of(age)) > ttl_ms
    }

    /// Uptime at which a row was made, in milliseconds.
    pub(super) fn of(&self, (boot_no, boot_ms): Age) -> u64 {
        match self.boots.binary_search_by_key(&boot_no, |(no, _)| *no) {
            Ok(at) => self.boots[at].1 + boot_ms.max(0).cast_unsigned(),
            // Older than all that is remembered.
            Err(0) => 0,
            // The row of its boot was bad: as young as it can be.
            Err(at) => self.boots.get(at).map_or(u64::MAX, |(_, before_ms)| *before_ms),
        }
    }
}
