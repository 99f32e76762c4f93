//! Bytes in any 24 hours, remembered over restarts.
//!
//! The clock that counts is the time since boot, which nobody can set. Bytes are summed by the hour; the last 25 hours
//! together, which cover every 24 hours there are, may not carry more than the budget. Within a boot the time between
//! two runs of the process counts. Over a reboot the time that the box was off counts only if the wall clock was
//! disciplined by NTP before and is so again: a clock that was set by hand or starts in 1970 releases nothing.
//!
//! The disk is told *before* bytes leave: a block is written as spent, then used. A kill loses at most a block of budget.

use std::collections::VecDeque;
use std::time::Duration;

use rusqlite::OptionalExtension;

use crate::base::{BootId, ClockState, Stamp};
use crate::store::{self, Schema, Tx};

use super::pace::Claim;

/// One row: what was spent, and by which clock.
pub const SYNC_SCHEMA: Schema = Schema {
    room: "sync",
    steps: &[
        "CREATE TABLE sync_day (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        counted_ms INTEGER NOT NULL,
        boot_id BLOB NOT NULL,
        boot_ms INTEGER NOT NULL,
        ntp_wall_ms INTEGER,
        hours TEXT NOT NULL
    ) STRICT",
        "ALTER TABLE sync_day ADD COLUMN crc INTEGER;
        UPDATE sync_day SET crc = row_crc('sync_day', counted_ms, boot_id, boot_ms, ntp_wall_ms, hours)",
    ],
    read_at_start: &["sync_day"],
};

const HOUR: Duration = Duration::from_secs(3600);
/// Consecutive hours that cover every 24 hours.
const HOURS: u64 = 25;

/// Bytes of one hour of the time that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Hour(u64, Spent);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
struct Spent {
    bytes: u64,
    /// Of these, bytes of a backlog.
    backlog: u64,
}

/// The row as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DayRow {
    counted_ms: u64,
    boot: BootId,
    boot_ms: u64,
    ntp_wall_ms: Option<i64>,
    hours: Vec<Hour>,
    /// The hour and the bytes that are written as spent before they are.
    block: (u64, u64),
}

impl DayRow {
    /// Small; for the writer's accounts.
    pub(super) const BYTES: usize = 1024;

    pub(super) fn write(&self, tx: &Tx<'_>) -> Result<(), store::Error> {
        let hours = serde_json::to_string(&self.hours).expect("numbers become JSON");
        tx.execute(
            "INSERT OR REPLACE INTO sync_day VALUES (1, ?1, ?2, ?3, ?4, ?5, row_crc('sync_day', ?1, ?2, ?3, ?4, ?5))",
            (self.counted_ms.cast_signed(), self.boot.0, self.boot_ms.cast_signed(), self.ntp_wall_ms, hours),
        )?;
        Ok(())
    }

    /// More than any budget, from now on.
    fn spent(now: &Stamp) -> Self {
        let at = Duration::from_millis(now.boot_ms);
        let bytes = 1 << 60;
        let hour = Hour(at.as_secs() / HOUR.as_secs(), Spent { bytes, backlog: bytes });
        let (boot, boot_ms) = (now.boot, now.boot_ms);
        Self { counted_ms: boot_ms, boot, boot_ms, ntp_wall_ms: None, hours: vec![hour], block: (hour.0, 0) }
    }

    pub(super) fn read(tx: &Tx<'_>, now: &Stamp) -> Result<Option<Self>, store::Error> {
        let row = tx
            .prepare_cached(
                "SELECT counted_ms, boot_id, boot_ms, ntp_wall_ms, hours,
                 crc IS row_crc('sync_day', counted_ms, boot_id, boot_ms, ntp_wall_ms, hours)
                 FROM sync_day WHERE id = 1",
            )?
            .query_row([], |row| {
                if !row.get::<_, bool>(5)? {
                    return Ok(None);
                }
                let hours: String = row.get(4)?;
                let (counted_ms, boot_ms): (i64, i64) = (row.get(0)?, row.get(2)?);
                let boot = BootId(row.get(1)?);
                let (counted_ms, boot_ms) = (counted_ms.cast_unsigned(), boot_ms.cast_unsigned());
                Ok(Some((
                    Self { counted_ms, boot, boot_ms, ntp_wall_ms: row.get(3)?, hours: Vec::new(), block: (0, 0) },
                    hours,
                )))
            })
            .optional()?;
        let Some(row) = row else { return Ok(None) };
        let Some((row, text)) = row else {
            // What was spent is not known: all of it, now, so that no 24 hours carry more than the budget.
            tracing::error!("the account of the day's bytes had a wrong checksum; its budget counts as spent");
            return Ok(Some(Self::spent(now)));
        };
        let hours = serde_json::from_str(&text)
            .map_err(|error| store::Error::Row { table: "sync_day", what: error.to_string() })?;
        Ok(Some(Self { hours, ..row }))
    }
}

/// The budget of a day.
#[derive(Debug, Clone)]
pub(super) struct DayBudget {
    bytes_per_day: u64,
    backlog_bytes: u64,
    debt_bytes: u64,
    /// The time that counts, at `at` since boot.
    counted: Duration,
    at: Duration,
    /// Ascending; the current hour and the 24 before it, those without bytes left out.
    hours: VecDeque<Hour>,
    /// What the disk has as spent beyond what is, in that hour.
    ahead: (u64, u64),
    /// The wall clock under NTP at an earlier boot's last row, and the time that counts then.
    before_reboot: Option<(i64, Duration)>,
}

impl DayBudget {
    /// Goes on where `row` ends. Fresh rows keep `live_share_percent` of the budget for themselves; alarms may overdraw it.
    pub(super) fn resume(
        bytes_per_day: u64,
        live_share_percent: u8,
        debt_bytes: u64,
        row: Option<DayRow>,
        now: &Stamp,
    ) -> Self {
        let share = 100 - u128::from(live_share_percent.min(100));
        let backlog_bytes = u64::try_from(u128::from(bytes_per_day) * share / 100).unwrap_or(u64::MAX);
        let at = Duration::from_millis(now.boot_ms);
        let mut budget = Self {
            bytes_per_day,
            backlog_bytes,
            debt_bytes,
            counted: Duration::ZERO,
            at,
            hours: VecDeque::new(),
            ahead: (0, 0),
            before_reboot: None,
        };
        if let Some(row) = row {
            let then = Duration::from_millis(row.counted_ms);
            if row.boot == now.boot {
                budget.counted = then + Duration::from_millis(now.boot_ms.saturating_sub(row.boot_ms));
            } else {
                // The box has been on again for this long at least.
                budget.counted = then + at;
                budget.before_reboot = row.ntp_wall_ms.map(|wall_ms| (wall_ms, then));
            }
            budget.hours = row.hours.into();
            budget.credit(now);
        }
        budget
    }

    /// Counts the time that the box was off, as soon as the wall clock can be trusted.
    pub(super) fn credit(&mut self, now: &Stamp) {
        if self.before_reboot.is_none() || now.state != ClockState::Ntp {
            return;
        }
        self.pass(Duration::from_millis(now.boot_ms));
        let Some((wall_ms, then)) = self.before_reboot.take() else { return };
        let passed = Duration::from_millis(u64::try_from(now.wall_ms - wall_ms).unwrap_or(0));
        self.counted = self.counted.max(then.saturating_add(passed));
        self.forget();
    }

    fn pass(&mut self, now: Duration) {
        self.counted += now.saturating_sub(self.at);
        self.at = self.at.max(now);
        self.forget();
    }

    fn hour(&self) -> u64 {
        self.counted.as_secs() / HOUR.as_secs()
    }

    fn forget(&mut self) {
        let hour = self.hour();
        self.hours.retain(|&Hour(at, _)| at + HOURS > hour);
    }

    fn spent(&self, backlog: bool) -> u64 {
        self.hours.iter().map(|Hour(_, spent)| if backlog { spent.backlog } else { spent.bytes }).sum()
    }

    /// Bytes that may still leave now.
    pub(super) fn left(&mut self, now: Duration) -> u64 {
        self.pass(now);
        self.bytes_per_day.saturating_sub(self.spent(false))
    }

    /// How long until so many bytes fit; zero is now. More than the whole budget fits when nothing was sent for a day.
    pub(super) fn wait(&mut self, claim: Claim, bytes: u64, now: Duration) -> Duration {
        self.pass(now);
        let debt = if claim == Claim::Alarm { self.debt_bytes } else { 0 };
        let whole = self.until(false, self.bytes_per_day.saturating_add(debt), bytes);
        if claim == Claim::Backlog { whole.max(self.until(true, self.backlog_bytes, bytes)) } else { whole }
    }

    fn until(&self, backlog: bool, most: u64, bytes: u64) -> Duration {
        let mut spent = self.spent(backlog);
        let fits = |spent: u64| spent == 0 || spent.saturating_add(bytes) <= most;
        if fits(spent) {
            return Duration::ZERO;
        }
        for Hour(at, of_hour) in &self.hours {
            spent -= if backlog { of_hour.backlog } else { of_hour.bytes };
            if fits(spent) {
                let free_s = (at + HOURS).saturating_mul(HOUR.as_secs());
                return Duration::from_secs(free_s).saturating_sub(self.counted);
            }
        }
        Duration::ZERO
    }

    /// They leave.
    pub(super) fn charge(&mut self, claim: Claim, bytes: u64, now: Duration) {
        self.pass(now);
        let hour = self.hour();
        if self.hours.back().is_none_or(|last| last.0 < hour) {
            self.hours.push_back(Hour(hour, Spent::default()));
        }
        let last = &mut self.hours.back_mut().expect("just pushed").1;
        last.bytes += bytes;
        last.backlog += if claim == Claim::Backlog { bytes } else { 0 };
        self.ahead.1 = if self.ahead.0 == hour { self.ahead.1.saturating_sub(bytes) } else { 0 };
    }

    /// True if the disk knows of so many bytes more than were sent.
    pub(super) fn is_covered(&mut self, bytes: u64, now: Duration) -> bool {
        self.pass(now);
        self.ahead.0 == self.hour() && self.ahead.1 >= bytes
    }

    /// What the disk is to know before `bytes` more leave: a block ahead, so that few rows are written.
    pub(super) fn row_ahead(&mut self, bytes: u64, now: &Stamp) -> DayRow {
        let block = bytes.saturating_add((self.bytes_per_day / 100).max(64 * 1024));
        self.row(block, now)
    }

    /// Exactly what was spent, for the end of a run.
    pub(super) fn row_exact(&mut self, now: &Stamp) -> DayRow {
        self.row(0, now)
    }

    fn row(&mut self, block: u64, now: &Stamp) -> DayRow {
        self.pass(Duration::from_millis(now.boot_ms));
        let hour = self.hour();
        let mut hours: Vec<Hour> = self.hours.iter().copied().collect();
        match hours.last_mut() {
            Some(last) if last.0 == hour => last.1.bytes += block,
            _ => hours.push(Hour(hour, Spent { bytes: block, backlog: 0 })),
        }
        DayRow {
            counted_ms: u64::try_from(self.counted.as_millis()).unwrap_or(u64::MAX),
            boot: now.boot,
            boot_ms: now.boot_ms,
            ntp_wall_ms: (now.state == ClockState::Ntp).then_some(now.wall_ms),
            hours,
            block: (hour, block),
        }
    }

    /// The row is on the disk, and nothing was charged since it was made.
    pub(super) fn written(&mut self, row: &DayRow) {
        self.ahead = row.block;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stamp(boot: u8, boot_s: u64, wall_s: i64, state: ClockState) -> Stamp {
        Stamp { wall_ms: wall_s * 1000, boot_ms: boot_s * 1000, boot: BootId([boot; 16]), state }
    }

    fn at(boot_s: u64) -> Stamp {
        stamp(1, boot_s, 1_700_000_000, ClockState::Ntp)
    }

    const H: u64 = 3600;

    #[test]
    fn what_was_spent_comes_back_a_day_later_and_not_before() {
        let mut day = DayBudget::resume(1000, 0, 0, None, &at(0));
        day.charge(Claim::Fresh, 900, Duration::from_secs(H / 2));
        let wait = day.wait(Claim::Fresh, 200, Duration::from_secs(2 * H));
        assert_eq!(wait, Duration::from_secs(23 * H));
        assert_eq!(day.wait(Claim::Fresh, 100, Duration::from_secs(2 * H)), Duration::ZERO);
        assert_eq!(day.wait(Claim::Fresh, 200, Duration::from_secs(25 * H)), Duration::ZERO);
    }

    #[test]
    fn a_backlog_leaves_the_share_of_fresh_rows_alone_and_alarms_may_overdraw() {
        let mut day = DayBudget::resume(1000, 30, 200, None, &at(0));
        day.charge(Claim::Backlog, 700, Duration::ZERO);
        assert!(day.wait(Claim::Backlog, 1, Duration::ZERO) > Duration::ZERO);
        assert_eq!(day.wait(Claim::Fresh, 300, Duration::ZERO), Duration::ZERO);
        day.charge(Claim::Fresh, 300, Duration::ZERO);
        assert!(day.wait(Claim::Fresh, 1, Duration::ZERO) > Duration::ZERO);
        assert_eq!(day.wait(Claim::Alarm, 200, Duration::ZERO), Duration::ZERO);
        day.charge(Claim::Alarm, 200, Duration::ZERO);
        assert!(day.wait(Claim::Alarm, 1, Duration::ZERO) > Duration::ZERO);
    }

    #[test]
    fn a_reboot_releases_nothing_until_the_clock_is_good_again() {
        let mut day = DayBudget::resume(1000, 0, 0, None, &at(0));
        day.charge(Claim::Fresh, 1000, Duration::ZERO);
        let row = day.row_exact(&at(H));
        let two_days = 1_700_000_000 + 48 * 3600;
        for (wall_s, state) in [(two_days, ClockState::Rtc), (5, ClockState::Unsynced), (5, ClockState::Ntp)] {
            let mut later = DayBudget::resume(1000, 0, 0, Some(row.clone()), &stamp(2, 60, wall_s, state));
            assert!(later.wait(Claim::Fresh, 1, Duration::from_secs(60)) > Duration::from_secs(22 * H), "{state:?}");
        }
        let mut later = DayBudget::resume(1000, 0, 0, Some(row), &stamp(2, 60, 5, ClockState::Unsynced));
        later.credit(&stamp(2, 120, two_days, ClockState::Ntp));
        assert_eq!(later.wait(Claim::Fresh, 1000, Duration::from_secs(120)), Duration::ZERO, "it was off for two days");
    }

    #[test]
    fn the_row_is_what_the_next_process_goes_on_from() {
        let folder = tempfile::tempdir().unwrap();
        let clock = std::sync::Arc::new(crate::base::ManualClock::at(1_700_000_000_000));
        let (store, _) = store::Store::open(&store::Config::at(folder.path()), &[SYNC_SCHEMA], clock).unwrap();
        let mut day = DayBudget::resume(100_000_000, 0, 0, None, &at(0));
        assert!(!day.is_covered(10, Duration::ZERO));
        let row = day.row_ahead(10, &at(0));
        let written = row.clone();
        store.writer().commit_blocking(move |tx| written.write(tx)).unwrap();
        day.written(&row);
        assert!(day.is_covered(1_000_000, Duration::ZERO));
        day.charge(Claim::Backlog, 1_000_000, Duration::ZERO);
        assert!(!day.is_covered(10, Duration::from_secs(H)), "a block is of one hour");
        let read = store.writer().commit_blocking(|tx| DayRow::read(tx, &at(60))).unwrap().unwrap();
        let mut killed = DayBudget::resume(100_000_000, 0, 0, Some(read), &at(60));
        assert_eq!(killed.left(Duration::from_secs(60)), 100_000_000 - 1_000_010, "the block is lost, nothing else");
        let spoil = |tx: &Tx<'_>| tx.execute("UPDATE sync_day SET counted_ms = counted_ms + 64000000", []);
        store.writer().commit_blocking(spoil).unwrap();
        let read = store.writer().commit_blocking(|tx| DayRow::read(tx, &at(60))).unwrap().unwrap();
        let mut unknown = DayBudget::resume(100_000_000, 0, 0, Some(read), &at(60));
        assert_eq!(unknown.left(Duration::from_secs(60)), 0, "what the disk has changed is no budget");
        assert!(unknown.left(Duration::from_secs(60 + 25 * H)) > 0, "and after a day there is one again");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Send(u64),
        Pass(u64),
        Kill,
        Stop,
        Reboot { off_s: u64, jump_s: i64, state: ClockState },
        SetClock(i64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let state = prop_oneof![Just(ClockState::Unsynced), Just(ClockState::Rtc)];
        let jump = prop_oneof![Just(-1_700_000_000_i64), Just(-315_000_000), Just(3600), -9_999_i64..9_999];
        prop_oneof![
            8 => (1_u64..50_000).prop_map(Step::Send),
            5 => (0_u64..30_000).prop_map(Step::Pass),
            1 => Just(Step::Kill),
            1 => Just(Step::Stop),
            1 => (0_u64..200_000, jump.clone(), state).prop_map(|(off_s, jump_s, state)| Step::Reboot { off_s, jump_s, state }),
            1 => jump.prop_map(Step::SetClock),
        ]
    }

    proptest! {
        /// True time against a sender that always goes as soon as it may: whatever is killed, rebooted or set, no 24
        /// hours of true time carry more than the budget.
        #[test]
        fn no_24_hours_carry_more_than_the_budget(steps in proptest::collection::vec(step(), 1..120)) {
            const BUDGET: u64 = 100_000;
            let (mut boot, mut boot_s, mut true_s, mut wall_s, mut state) = (1_u8, 0_u64, 0_u64, 1_700_000_000_i64, ClockState::Ntp);
            let mut disk: Option<DayRow> = None;
            let mut day = DayBudget::resume(BUDGET, 0, 0, None, &stamp(boot, boot_s, wall_s, state));
            let mut sent: Vec<(u64, u64)> = Vec::new();
            for step in steps {
                match step {
                    Step::Send(bytes) => {
                        let now = Duration::from_secs(boot_s);
                        if day.wait(Claim::Fresh, bytes, now) > Duration::ZERO {
                            continue;
                        }
                        if !day.is_covered(bytes, now) {
                            let row = day.row_ahead(bytes, &stamp(boot, boot_s, wall_s, state));
                            day.written(&row);
                            disk = Some(row);
                        }
                        day.charge(Claim::Fresh, bytes, now);
                        sent.push((true_s, bytes));
                    }
                    Step::Pass(seconds) => {
                        (true_s, boot_s, wall_s) = (true_s + seconds, boot_s + seconds, wall_s + seconds.cast_signed());
                    }
                    Step::SetClock(jump_s) => {
                        // A clock that is set is no longer disciplined.
                        (wall_s, state) = (wall_s + jump_s, ClockState::Rtc);
                    }
                    Step::Kill | Step::Stop | Step::Reboot { .. } => {
                        if matches!(step, Step::Stop) {
                            disk = Some(day.row_exact(&stamp(boot, boot_s, wall_s, state)));
                        }
                        if let Step::Reboot { off_s, jump_s, state: then } = step {
                            true_s += off_s;
                            wall_s += off_s.cast_signed() + jump_s;
                            (boot, boot_s, state) = (boot.wrapping_add(1), 5, then);
                            true_s += 5;
                        }
                        day = DayBudget::resume(BUDGET, 0, 0, disk.clone(), &stamp(boot, boot_s, wall_s, state));
                    }
                }
            }
            for (at, _) in &sent {
                let sum: u64 = sent.iter().filter(|(t, _)| (*at..at + 24 * H).contains(t)).map(|(_, bytes)| bytes).sum();
                prop_assert!(sum <= BUDGET, "{sum} bytes in the 24 hours from {at} s on");
            }
        }
    }
}
