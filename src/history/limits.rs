//! How much history may take of the file.

use super::Config;
use super::columns::MAX_READINGS;

/// Without a file: what a share of the usual one is.
const USUAL_FILE_BYTES: u64 = 1 << 30;
/// Kept free for what others write before history hears of it. The queue keeps half as much, so history gives way first.
const MARGIN_BYTES: u64 = 4 << 20;
/// Most bytes of readings that are not in blocks yet, in each of two tables.
const ARRIVAL_BYTES: u64 = 8 << 20;
/// Part of a stream's readings that one block holds at most: what leaves with it.
const BLOCK_PART: u64 = 4;

/// The limits of one history.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    pub(super) readings: u64,
    share_bytes: u64,
    file_bytes: Option<u64>,
}

impl Limits {
    pub(super) fn new(config: &Config, file_bytes: Option<u64>) -> Self {
        let share_bytes = file_bytes.unwrap_or(USUAL_FILE_BYTES) / 100 * config.share_percent.clamp(1, 90);
        Self { readings: config.readings, share_bytes, file_bytes }
    }

    /// Most bytes now, while the file has `used_bytes` in use and `total` of them are history's: its share, or what the
    /// others leave of the file if that is less.
    pub(super) fn now(&self, used_bytes: u64, total: u64) -> u64 {
        let Some(file_bytes) = self.file_bytes else { return self.share_bytes };
        let others = used_bytes.saturating_sub(total);
        let room = file_bytes.saturating_sub(MARGIN_BYTES.min(file_bytes / 4));
        self.share_bytes.min(room.saturating_sub(others))
    }

    pub(super) fn arrival_bytes(&self) -> u64 {
        ARRIVAL_BYTES.min(self.share_bytes / 8)
    }

    /// Most readings in a block.
    pub(super) fn block_readings(&self) -> usize {
        let part = usize::try_from(self.readings / BLOCK_PART).unwrap_or(usize::MAX);
        part.clamp(16, MAX_READINGS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_has_its_share_and_less_when_others_fill_the_file() {
        let limits = Limits::new(&Config { share_percent: 20, ..Config::default() }, Some(100 << 20));
        let share = (100 << 20) / 100 * 20;
        assert_eq!(limits.now(0, 0), share);
        assert_eq!(limits.now(share + (50 << 20), share), share);
        assert_eq!(
            limits.now((10 << 20) + (90 << 20), 10 << 20),
            6 << 20,
            "what 90 MiB of others and the margin leave"
        );
        assert_eq!(limits.now(100 << 20, 0), 0);
    }
}
