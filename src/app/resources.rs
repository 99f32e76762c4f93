//! What the box has left for models: memory, warmth, battery, as Linux shows them in its files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::engine::{Pool, Readings};

/// How often the box is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// What a sensor says beyond these is no temperature.
const PLAUSIBLE_C: std::ops::Range<f64> = -40.0..150.0;

/// Reads the box.
pub(super) struct Resources {
    /// `/proc`, or a folder that a test has made.
    proc: PathBuf,
    /// `/sys`.
    sys: PathBuf,
}

/// Memory of the box or of a control group.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Memory {
    total_bytes: u64,
    left_bytes: u64,
}

impl Resources {
    pub(super) fn new(proc: &Path, sys: &Path) -> Self {
        Self { proc: proc.to_owned(), sys: sys.to_owned() }
    }

    /// Three quarters of what the box has, or of the narrowest control group that this process is in. None where neither
    /// is known.
    pub(super) fn memory_for_models(&self) -> Option<u64> {
        self.memory().iter().map(|memory| memory.total_bytes / 4 * 3).min()
    }

    /// Tells the pool how the box is, until `stop`.
    pub(super) async fn watch(self, pool: Arc<Pool>, stop: CancellationToken) {
        let this = Arc::new(self);
        loop {
            let (looking, pool) = (Arc::clone(&this), Arc::clone(&pool));
            // Sensors of some boards answer slowly.
            let _ = tokio::task::spawn_blocking(move || pool.back_off(&looking.read())).await;
            if tokio::time::timeout(LOOK_EVERY, stop.cancelled()).await.is_ok() {
                return;
            }
        }
    }

    pub(super) fn read(&self) -> Readings {
        #[allow(clippy::cast_precision_loss, reason = "percent")]
        let percent = |memory: &Memory| memory.left_bytes as f64 / memory.total_bytes as f64 * 100.0;
        Readings {
            memory_left_percent: self.memory().iter().map(percent).min_by(f64::total_cmp),
            temperature_c: self.temperature_c(),
            battery_percent: self.battery_percent(),
        }
    }

    /// The box's, and that of every control group with a bound on the way to this process.
    fn memory(&self) -> Vec<Memory> {
        self.of_box().into_iter().chain(self.of_groups()).filter(|memory| memory.total_bytes > 0).collect()
    }

    fn of_box(&self) -> Option<Memory> {
        let text = read(&self.proc.join("meminfo"))?;
        let kilobytes = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let (total, left) = (kilobytes("MemTotal")?, kilobytes("MemAvailable")?);
        Some(Memory { total_bytes: total * 1024, left_bytes: left * 1024 })
    }

    /// Version 2, which is the one with a line `0::/path`.
    fn of_groups(&self) -> Vec<Memory> {
        let groups = read(&self.proc.join("self/cgroup")).unwrap_or_default();
        let Some(path) = groups.lines().find_map(|line| line.strip_prefix("0::/")) else { return Vec::new() };
        let root = self.sys.join("fs/cgroup");
        let inside = Path::new(path);
        inside.ancestors().filter_map(|group| of_group(&root.join(group))).collect()
    }

    /// Of the hottest zone.
    fn temperature_c(&self) -> Option<f64> {
        let zones = entries(&self.sys.join("class/thermal"), "thermal_zone");
        let degrees = zones.iter().filter_map(|zone| number(&zone.join("temp")));
        degrees.map(|milli| milli / 1000.0).filter(|degrees| PLAUSIBLE_C.contains(degrees)).max_by(f64::total_cmp)
    }

    /// Of the emptiest battery of the box itself, if it is being used up.
    fn battery_percent(&self) -> Option<f64> {
        let supplies = entries(&self.sys.join("class/power_supply"), "");
        let is =
            |supply: &Path, file: &str, word: &str| read(&supply.join(file)).is_some_and(|text| text.trim() == word);
        let batteries =
            supplies.iter().filter(|supply| is(supply, "type", "Battery") && !is(supply, "scope", "Device"));
        let used = batteries.filter(|battery| is(battery, "status", "Discharging"));
        used.filter_map(|battery| number(&battery.join("capacity"))).min_by(f64::total_cmp)
    }
}

fn of_group(folder: &Path) -> Option<Memory> {
    // `max` is no bound, and no number.
    let total_bytes = whole(&folder.join("memory.max"))?;
    let used = whole(&folder.join("memory.current"))?;
    // Pages of files are given back when they are needed.
    let stat = read(&folder.join("memory.stat")).unwrap_or_default();
    let cached = stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.trim().parse().ok()).unwrap_or(0);
    let used = used.saturating_sub(cached);
    Some(Memory { total_bytes, left_bytes: total_bytes.saturating_sub(used) })
}

fn read(file: &Path) -> Option<String> {
    std::fs::read_to_string(file).ok()
}

fn number(file: &Path) -> Option<f64> {
    read(file)?.trim().parse().ok()
}

fn whole(file: &Path) -> Option<u64> {
    read(file)?.trim().parse().ok()
}

fn entries(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    named.map(|entry| entry.path()).collect()
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the test makes the files that the kernel would")]
mod tests {
    use super::*;

    fn put(folder: &Path, file: &str, text: &str) {
        let path = folder.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn a_box_that_shows_nothing_has_no_readings() {
        let folder = tempfile::tempdir().unwrap();
        let resources = Resources::new(folder.path(), folder.path());
        assert_eq!(resources.read(), Readings::default());
        assert_eq!(resources.memory_for_models(), None);
    }

    #[test]
    fn the_narrowest_control_group_bounds_memory() {
        let folder = tempfile::tempdir().unwrap();
        let resources = Resources::new(folder.path(), folder.path());
        put(folder.path(), "meminfo", "MemTotal:        1000 kB\nMemFree:  10 kB\nMemAvailable:     500 kB\n");
        assert_eq!(resources.memory_for_models(), Some(1_024_000 / 4 * 3));
        assert_eq!(resources.read().memory_left_percent, Some(50.0));
        put(folder.path(), "self/cgroup", "0::/system.slice/forebay.service\n");
        put(folder.path(), "fs/cgroup/system.slice/forebay.service/memory.max", "max\n");
        put(folder.path(), "fs/cgroup/system.slice/memory.max", "400000\n");
        put(folder.path(), "fs/cgroup/system.slice/memory.current", "390000\n");
        put(folder.path(), "fs/cgroup/system.slice/memory.stat", "anon 7\ninactive_file 30000\n");
        assert_eq!(resources.memory_for_models(), Some(300_000));
        assert_eq!(resources.read().memory_left_percent, Some(10.0));
    }

    #[test]
    fn the_hottest_zone_and_a_battery_in_use_count() {
        let folder = tempfile::tempdir().unwrap();
        let resources = Resources::new(folder.path(), folder.path());
        for (zone, temp) in [("0", "48000"), ("1", "61500"), ("2", "-274000"), ("3", "no")] {
            put(folder.path(), &format!("class/thermal/thermal_zone{zone}/temp"), temp);
        }
        put(folder.path(), "class/thermal/cooling_device0/temp", "99000");
        let battery = |name: &str, scope: &str, status: &str, capacity: &str| {
            let file = |file: &str, text: &str| put(folder.path(), &format!("class/power_supply/{name}/{file}"), text);
            file("type", "Battery\n");
            file("scope", scope);
            file("status", status);
            file("capacity", capacity);
        };
        battery("BAT0", "System\n", "Charging\n", "12\n");
        battery("mouse", "Device\n", "Discharging\n", "3\n");
        put(folder.path(), "class/power_supply/AC/type", "Mains\n");
        assert_eq!(resources.read(), Readings { temperature_c: Some(61.5), ..Readings::default() });
        battery("BAT0", "System\n", "Discharging\n", "12\n");
        assert_eq!(resources.read().battery_percent, Some(12.0));
    }
}
