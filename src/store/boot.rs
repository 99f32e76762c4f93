//! Which life of the file this is, which boot of the machine, and what the clock was worth in it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension};

use super::error::Error;
use super::schema::BOOT_HOLDS;
use super::tx::Tx;
use super::vfs::Disk;
use crate::base::{Clock, ClockState, Epoch};

/// Boots kept; older ones belong to no row that could still be queued.
const MAX_BOOTS: i64 = 4096;
/// How often the clock's state is looked at, in commits that happen anyway.
const LOOK: Duration = Duration::from_secs(1);
/// An idle store persists the wall clock this many times less often than a busy one, which gets it for nothing.
const IDLE_FACTOR: u64 = 10;

/// Number, id, wall clock and time since boot of its first stamp, offset.
pub const INSERT_BOOT: &str = "INSERT INTO boot VALUES (?1, ?2, ?3, ?4, ?5, row_crc('boot', ?1, ?2, ?3, ?4, ?5))";

/// The epoch of this file. A file without one is new: it gets one above every epoch that the side file remembers and
/// not below the wall clock, so that a wiped folder does not repeat an epoch either.
pub(super) fn settle_epoch(
    connection: &Connection,
    side: &Path,
    disk: &Disk,
    clock: &dyn Clock,
) -> Result<(Epoch, bool), Error> {
    let remembered = std::fs::read_to_string(side).ok().and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
    let sql = "SELECT value, crc IS row_crc('meta', 'epoch', value) FROM meta WHERE key = 'epoch'";
    let kept: Option<(i64, bool)> = connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    if let Some((kept, holds)) = kept {
        if !holds {
            // Rows under a wrong epoch would be somebody else's.
            return Err(Error::Row { table: "meta", what: "an epoch with a wrong checksum".to_owned() });
        }
        let epoch = kept.cast_unsigned();
        if remembered < epoch {
            disk.replace_file(side, format!("{epoch}\n").as_bytes())?;
        }
        return Ok((Epoch(epoch), false));
    }
    let epoch = (remembered + 1).max(u64::try_from(clock.wall_ms()).unwrap_or(0));
    // The side file first: an epoch that a file may have used must never be chosen again.
    disk.replace_file(side, format!("{epoch}\n").as_bytes())?;
    let sql = "INSERT INTO meta VALUES ('epoch', ?1, row_crc('meta', 'epoch', ?1))";
    connection.execute(sql, [epoch.cast_signed()])?;
    Ok((Epoch(epoch), true))
}

/// The last wall clock that is known to have passed, milliseconds since 1970; 0 if unknown, or if its row is bad.
pub(super) fn last_wall_ms(connection: &Connection) -> Result<i64, Error> {
    let sql = "SELECT value FROM meta WHERE key = 'last_wall_ms' AND crc IS row_crc('meta', 'last_wall_ms', value)";
    Ok(connection.query_row(sql, [], |row| row.get(0)).optional()?.unwrap_or(0))
}

/// What the store remembers about the current boot.
pub(super) struct Boot {
    pub(super) no: i64,
    clock: Arc<dyn Clock>,
    offset_known: bool,
    looked: Duration,
    persisted_wall_ms: i64,
    wall_persist_ms: u64,
}

/// What a transaction wrote for the clock, true once it is committed.
#[derive(Default)]
pub(super) struct Noted {
    offset: bool,
    wall_ms: Option<i64>,
}

impl Boot {
    /// Finds or begins the row of this boot.
    pub(super) fn settle(
        connection: &mut Connection,
        clock: Arc<dyn Clock>,
        last_wall_ms: i64,
        wall_persist_ms: u64,
    ) -> Result<Self, Error> {
        let stamp = clock.stamp();
        let boot_ms = i64::try_from(stamp.boot_ms).unwrap_or(i64::MAX);
        let tx = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let bad = tx.execute(&format!("DELETE FROM boot WHERE NOT ({BOOT_HOLDS})"), [])?;
        if bad > 0 {
            tracing::error!(
                rows = bad,
                "boots had a wrong checksum and are forgotten: times of their rows stay as they were taken"
            );
        }
        // Without /proc every boot has the same id; a time since boot that steps back still tells two apart.
        let sql = format!(
            "SELECT boot_no, offset_ms IS NOT NULL FROM boot
             WHERE boot_no = (SELECT max(boot_no) FROM boot) AND boot_no > 0 AND boot_id = ?1 AND first_boot_ms <= ?2
             AND {BOOT_HOLDS}"
        );
        let same: Option<(i64, bool)> =
            tx.query_row(&sql, (stamp.boot.0, boot_ms), |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let (no, offset_known) = if let Some(same) = same {
            same
        } else {
            let offset_ms = (stamp.state == ClockState::Ntp).then_some(0_i64);
            let no: i64 =
                tx.query_row("SELECT max(0, coalesce(max(boot_no), 0)) + 1 FROM boot", [], |row| row.get(0))?;
            tx.execute(INSERT_BOOT, (no, stamp.boot.0, stamp.wall_ms, boot_ms, offset_ms))?;
            tx.execute("DELETE FROM boot WHERE boot_no <= ?1", [no - MAX_BOOTS])?;
            (no, offset_ms.is_some())
        };
        tx.commit()?;
        let looked = clock.since_boot();
        Ok(Self { no, clock, offset_known, looked, persisted_wall_ms: last_wall_ms, wall_persist_ms })
    }

    /// Writes what has become due into a transaction that happens anyway.
    pub(super) fn note(&mut self, tx: &Tx<'_>) -> Result<Noted, Error> {
        let mut noted = Noted::default();
        let now = self.clock.since_boot();
        if now < self.looked + LOOK && self.persisted_wall_ms != 0 {
            return Ok(noted);
        }
        self.looked = now;
        if !self.offset_known && self.clock.state() == ClockState::Ntp {
            // Set once per boot: readings of this boot were at wall_ms + offset_ms.
            let start_ms = self.clock.wall_ms() - i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
            // Salvaged rows of this boot have a row of their own here, with the belief of their file.
            tx.execute(
                &format!(
                    "UPDATE boot SET offset_ms = ?3 - (first_wall_ms - first_boot_ms), crc = row_crc('boot', boot_no,
                     boot_id, first_wall_ms, first_boot_ms, ?3 - (first_wall_ms - first_boot_ms))
                     WHERE boot_id = (SELECT boot_id FROM boot WHERE boot_no = ?1) AND offset_ms IS NULL
                     AND (boot_no = ?1 OR (boot_no < 0 AND first_boot_ms <= ?2)) AND {BOOT_HOLDS}"
                ),
                (self.no, i64::try_from(now.as_millis()).unwrap_or(i64::MAX), start_ms),
            )?;
            noted.offset = true;
        }
        let wall_ms = self.clock.wall_ms();
        if wall_ms.abs_diff(self.persisted_wall_ms) >= self.wall_persist_ms {
            noted.wall_ms = Some(self.persist_wall(tx)?);
        }
        Ok(noted)
    }

    /// Writes the wall clock now: at close, and as the probe of a disk that failed.
    pub(super) fn note_wall(&self, tx: &Tx<'_>) -> Result<Noted, Error> {
        Ok(Noted { offset: false, wall_ms: Some(self.persist_wall(tx)?) })
    }

    fn persist_wall(&self, tx: &Tx<'_>) -> Result<i64, Error> {
        let wall_ms = self.clock.wall_ms();
        tx.execute(
            "INSERT INTO meta VALUES ('last_wall_ms', ?1, row_crc('meta', 'last_wall_ms', ?1))
             ON CONFLICT (key) DO UPDATE SET value = excluded.value, crc = excluded.crc",
            [wall_ms],
        )?;
        Ok(wall_ms)
    }

    /// The transaction that wrote `noted` is on the disk.
    pub(super) fn keep(&mut self, noted: &Noted) {
        self.offset_known |= noted.offset;
        self.persisted_wall_ms = noted.wall_ms.unwrap_or(self.persisted_wall_ms);
    }

    /// True if the clock is worth a commit of its own.
    pub(super) fn is_due_when_idle(&self) -> bool {
        let wall_due_ms = self.wall_persist_ms.saturating_mul(IDLE_FACTOR);
        (!self.offset_known && self.clock.state() == ClockState::Ntp)
            || self.clock.wall_ms().abs_diff(self.persisted_wall_ms) >= wall_due_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::BootId;
    use crate::store::{Config, Store};
    use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst};

    /// A clock whose trust changes, as when the network comes up a while after power-on.
    #[derive(Debug)]
    struct Waking {
        wall_ms: AtomicI64,
        boot_ms: AtomicU64,
        boot: [u8; 16],
        synced: AtomicBool,
    }

    impl Waking {
        fn at(wall_ms: i64, boot: u8) -> Arc<Self> {
            Arc::new(Self {
                wall_ms: AtomicI64::new(wall_ms),
                boot_ms: AtomicU64::new(10_000),
                boot: [boot; 16],
                synced: AtomicBool::new(false),
            })
        }

        fn advance_ms(&self, ms: i64) {
            self.wall_ms.fetch_add(ms, SeqCst);
            self.boot_ms.fetch_add(ms.cast_unsigned(), SeqCst);
        }
    }

    impl Clock for Waking {
        fn wall_ms(&self) -> i64 {
            self.wall_ms.load(SeqCst)
        }

        fn since_boot(&self) -> Duration {
            Duration::from_millis(self.boot_ms.load(SeqCst))
        }

        fn boot(&self) -> BootId {
            BootId(self.boot)
        }

        fn state(&self) -> ClockState {
            if self.synced.load(SeqCst) { ClockState::Ntp } else { ClockState::Unsynced }
        }
    }

    fn offsets(store: &Store) -> Vec<(i64, Option<i64>)> {
        let read = |tx: &Tx<'_>| {
            let mut statement = tx.prepare_cached("SELECT boot_no, offset_ms FROM boot ORDER BY boot_no")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        };
        store.writer().commit_blocking(read).unwrap()
    }

    #[test]
    fn a_clock_that_becomes_good_writes_one_offset_for_its_boot() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::at(folder.path());
        let clock = Waking::at(86_400_000, 1);
        let (store, opened) = Store::open(&config, &[], Arc::<Waking>::clone(&clock)).unwrap();
        let epoch = opened.epoch;
        clock.advance_ms(5000);
        store.writer().commit_blocking(|_| Ok(())).unwrap();
        assert_eq!(offsets(&store), [(1, None)]);

        clock.synced.store(true, SeqCst);
        clock.wall_ms.fetch_add(1_700_000_000_000, SeqCst);
        clock.advance_ms(5000);
        store.writer().commit_blocking(|_| Ok(())).unwrap();
        assert_eq!(offsets(&store), [(1, Some(1_700_000_000_000))]);
        // A later step is the business of the time service, not of rows that were stamped with a good clock.
        clock.wall_ms.fetch_add(77, SeqCst);
        clock.advance_ms(5000);
        store.writer().commit_blocking(|_| Ok(())).unwrap();
        assert_eq!(offsets(&store), [(1, Some(1_700_000_000_000))]);
        let last_ms = clock.wall_ms();
        store.close();

        let (store, opened) = Store::open(&config, &[], Waking::at(0, 2)).unwrap();
        assert_eq!((opened.epoch, opened.boot_no, opened.last_wall_ms), (epoch, 2, last_ms));
        assert_eq!(offsets(&store), [(1, Some(1_700_000_000_000)), (2, None)]);
    }
}
