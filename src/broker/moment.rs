//! A moment as rows keep it over boots: by the time since boot within its own, by the wall clock beyond.

use std::collections::HashMap;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _};

use crate::base::Clock;
use crate::store::{BOOT_HOLDS, Error};

/// A moment as rows keep it: exact within its boot, by the wall clock beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) wall_ms: i64,
    /// Absent in rows of an older release.
    pub(super) boot_ms: Option<i64>,
    pub(super) boot_no: Option<i64>,
}

/// As a row keeps it: wall clock and time since boot.
pub(super) fn kept_at(at: Duration, clock: &dyn Clock) -> (i64, i64) {
    let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let ahead_ms = ms(at).saturating_sub(ms(clock.since_boot()));
    (clock.wall_ms().saturating_add(ahead_ms), ms(at))
}

/// Reads moments of rows: this boot's exactly, those of others by the wall clock, corrected if that boot's clock was set
/// right later.
pub(super) struct Moments<'a> {
    pub(super) connection: &'a Connection,
    pub(super) clock: &'a dyn Clock,
    pub(super) boot_no: Option<i64>,
    /// True start of other boots, if known.
    pub(super) starts_ms: HashMap<i64, Option<i64>>,
}

impl<'a> Moments<'a> {
    pub(super) fn new(connection: &'a Connection, clock: &'a dyn Clock) -> Result<Self, Error> {
        // Opening made the row of this boot, and none has a higher number.
        let boot_no = connection.query_row("SELECT max(boot_no) FROM boot", [], |row| row.get(0))?;
        Ok(Self { connection, clock, boot_no, starts_ms: HashMap::new() })
    }

    /// Milliseconds from now, negative if it is over.
    pub(super) fn ahead_ms(&mut self, kept: Kept) -> Result<i64, Error> {
        let (Some(boot_no), Some(boot_ms)) = (kept.boot_no, kept.boot_ms) else {
            return Ok(kept.wall_ms.saturating_sub(self.clock.wall_ms()));
        };
        if Some(boot_no) == self.boot_no {
            let now_ms = i64::try_from(self.clock.since_boot().as_millis()).unwrap_or(i64::MAX);
            return Ok(boot_ms.saturating_sub(now_ms));
        }
        let start_ms = match self.starts_ms.get(&boot_no) {
            Some(start_ms) => *start_ms,
            None => {
                let sql = format!(
                    "SELECT first_wall_ms - first_boot_ms + offset_ms FROM boot WHERE boot_no = ?1 AND {BOOT_HOLDS}"
                );
                let found = self.connection.query_row(&sql, [boot_no], |row| row.get(0)).optional()?.flatten();
                self.starts_ms.insert(boot_no, found);
                found
            }
        };
        let wall_ms = start_ms.map_or(kept.wall_ms, |start_ms| start_ms.saturating_add(boot_ms));
        Ok(wall_ms.saturating_sub(self.clock.wall_ms()))
    }

    pub(super) fn expiry(&mut self, kept: Option<Kept>) -> Result<Option<Duration>, Error> {
        let Some(kept) = kept else { return Ok(None) };
        let left_ms = self.ahead_ms(kept)?.max(0).cast_unsigned();
        Ok(Some(self.clock.since_boot() + Duration::from_millis(left_ms)))
    }
}

pub(super) fn numbers_of(kept: Option<Kept>) -> [i64; 2] {
    [kept.map_or(-1, |kept| kept.wall_ms), kept.and_then(|kept| kept.boot_ms).unwrap_or(-1)]
}
