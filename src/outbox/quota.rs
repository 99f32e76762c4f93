//! How many bytes each class may take.
//!
//! A class may take its share of the queue's limit. Alarms may take all of it: telemetry then has what they leave. The
//! limit is the configured one, or what the other tables leave of the file if that is less.

use super::config::{ClassLimits, Config};
use super::stream::Class;

/// Of the file, if the configuration says nothing.
const DEFAULT_PERCENT: u64 = 70;
/// Kept free for what other tables write before the queue hears of it.
const MARGIN_BYTES: u64 = 2 << 20;
/// Evicting ends this part of a share below it, so that it is done in runs and not row by row.
const NOTCH: u64 = 128;
/// A class that refuses new rows takes them again when this part of its share is free.
const RELENT: u64 = 16;

/// The limits, as they are now.
#[derive(Debug, Clone)]
pub(super) struct Quota {
    classes: [ClassLimits; 4],
    configured_bytes: u64,
    /// What the file may hold, all tables.
    file_bytes: u64,
    now_bytes: u64,
}

impl Quota {
    pub(super) fn new(config: &Config, insert_bytes: u64) -> Self {
        let file_bytes = insert_bytes.saturating_sub(MARGIN_BYTES.min(insert_bytes / 8));
        let configured_bytes = config.max_bytes.unwrap_or(insert_bytes / 100 * DEFAULT_PERCENT);
        let now_bytes = configured_bytes.min(file_bytes);
        Self { classes: Class::ALL.map(|class| config.class(class)), configured_bytes, file_bytes, now_bytes }
    }

    /// The file holds `used_bytes` in all, `queued_bytes` of them rows of the queue.
    pub(super) fn file_holds(&mut self, used_bytes: u64, queued_bytes: u64) {
        let others = used_bytes.saturating_sub(queued_bytes);
        self.now_bytes = self.configured_bytes.min(self.file_bytes.saturating_sub(others));
    }

    pub(super) fn class(&self, class: Class) -> &ClassLimits {
        &self.classes[class as usize]
    }

    /// All classes together.
    pub(super) fn whole(&self) -> u64 {
        self.now_bytes
    }

    pub(super) fn share(&self, class: Class) -> u64 {
        self.now_bytes / 100 * self.class(class).share_percent
    }

    /// Most bytes of `class`, while alarms have `alarm_bytes`.
    pub(super) fn limit(&self, class: Class, alarm_bytes: u64) -> u64 {
        match class {
            Class::Alarm => self.now_bytes,
            _ => self.share(class).min(self.now_bytes.saturating_sub(alarm_bytes)),
        }
    }

    /// Where an eviction that began above `limit` ends.
    pub(super) fn notch_below(limit: u64) -> u64 {
        limit - limit / NOTCH
    }

    /// True if a class with `drop_newest` keeps a row that brings it to `bytes`. `refusing` remembers which way it
    /// leans, so that a queue that drains row by row does not leave a ledger entry after every row.
    pub(super) fn keeps_newest(&self, class: Class, alarm_bytes: u64, bytes: u64, refusing: &mut bool) -> bool {
        let limit = self.limit(class, alarm_bytes);
        *refusing = bytes > if *refusing { limit - limit / RELENT } else { limit };
        !*refusing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_may_take_everything_and_telemetry_what_they_leave() {
        let quota = Quota::new(&Config { max_bytes: Some(1000), ..Config::default() }, 1 << 30);
        assert_eq!(quota.limit(Class::Alarm, 0), 1000);
        assert_eq!(quota.limit(Class::Verdict, 0), 400);
        assert_eq!(quota.limit(Class::Verdict, 100), 400);
        assert_eq!(quota.limit(Class::Verdict, 700), 300);
        assert_eq!(quota.limit(Class::Raw, 1000), 0);
    }

    #[test]
    fn what_other_tables_take_is_taken_from_the_queue() {
        let mut quota = Quota::new(&Config { max_bytes: Some(60 << 20), ..Config::default() }, 102 << 20);
        assert_eq!(quota.whole(), 60 << 20);
        quota.file_holds(70 << 20, 50 << 20);
        assert_eq!(quota.whole(), 60 << 20);
        quota.file_holds(90 << 20, 20 << 20);
        assert_eq!(quota.whole(), 30 << 20);
        quota.file_holds(10 << 20, 5 << 20);
        assert_eq!(quota.whole(), 60 << 20);
    }
}
