//! Time as an argument: wall clock, time since boot, and how far the wall clock can be trusted.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// Seconds since 1970 at which this binary was built.
const BUILD_UNIX: &str = env!("FOREBAY_BUILD_UNIX");

/// How the wall clock was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClockState {
    /// Nobody has set it since power-on; only the time since boot means anything.
    Unsynced,
    /// A battery-backed clock set it; it may have drifted.
    Rtc,
    /// The kernel says that it is disciplined by NTP or PTP.
    Ntp,
}

impl ClockState {
    /// The word used in rows, logs and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unsynced => "unsynced",
            Self::Rtc => "rtc",
            Self::Ntp => "ntp",
        }
    }
}

/// One boot of the machine. Times since boot compare only within one boot.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BootId(pub [u8; 16]);

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// One moment as a row stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Milliseconds since 1970, UTC, never before the clock's floor.
    pub wall_ms: i64,
    /// Milliseconds since boot, suspend included.
    pub boot_ms: u64,
    /// The boot that `boot_ms` counts from.
    pub boot: BootId,
    /// How far `wall_ms` can be trusted.
    pub state: ClockState,
}

/// The only source of time below `app`.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// Milliseconds since 1970, UTC.
    fn wall_ms(&self) -> i64;
    /// Time since boot. Never steps back.
    fn since_boot(&self) -> Duration;
    /// The current boot.
    fn boot(&self) -> BootId;
    /// How far the wall clock can be trusted.
    fn state(&self) -> ClockState;

    /// Everything a row needs, read together.
    fn stamp(&self) -> Stamp {
        Stamp {
            wall_ms: self.wall_ms(),
            boot_ms: u64::try_from(self.since_boot().as_millis()).unwrap_or(u64::MAX),
            boot: self.boot(),
            state: self.state(),
        }
    }
}

/// The machine's clocks. The wall clock is clamped to a floor, so certificates verify on a box without a
/// battery-backed clock.
#[derive(Debug)]
pub struct SystemClock {
    floor_ms: AtomicI64,
    boot: BootId,
}

impl SystemClock {
    /// A clock whose floor is the time this binary was built. Reads the boot id once.
    pub fn new() -> Self {
        let floor_ms = BUILD_UNIX.parse::<i64>().unwrap_or(0) * 1000;
        Self { floor_ms: AtomicI64::new(floor_ms), boot: read_boot_id() }
    }

    /// Raises the floor to the last time known to have passed (from the state directory). Never lowers it.
    pub fn raise_floor(&self, wall_ms: i64) {
        self.floor_ms.fetch_max(wall_ms, Ordering::Relaxed);
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn wall_ms(&self) -> i64 {
        let time = read_clock(libc::CLOCK_REALTIME);
        let wall_ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        wall_ms.max(self.floor_ms.load(Ordering::Relaxed))
    }

    fn since_boot(&self) -> Duration {
        read_clock(libc::CLOCK_BOOTTIME)
    }

    fn boot(&self) -> BootId {
        self.boot
    }

    fn state(&self) -> ClockState {
        if kernel_says_synchronised() {
            ClockState::Ntp
        } else if std::path::Path::new("/dev/rtc0").exists() {
            ClockState::Rtc
        } else {
            ClockState::Unsynced
        }
    }
}

#[allow(unsafe_code, reason = "std has no CLOCK_BOOTTIME, and Instant is banned so that tests own the time")]
fn read_clock(id: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` outlives the call and both clock ids exist on every Linux we run on.
    let rc = unsafe { libc::clock_gettime(id, &raw mut time) };
    debug_assert_eq!(rc, 0);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[allow(unsafe_code, reason = "adjtimex is the kernel's own word on synchronisation")]
fn kernel_says_synchronised() -> bool {
    // SAFETY: a zeroed timex with modes = 0 only reads.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `timex` outlives the call.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    state >= 0 && state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0
}

fn read_boot_id() -> BootId {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let mut id = [0; 16];
    // Without /proc (an empty chroot) every boot looks the same; times since boot then only order rows.
    let _ = hex::decode_to_slice(digits, &mut id);
    BootId(id)
}

/// A clock that moves only when told to.
#[derive(Debug)]
pub struct ManualClock {
    wall_ms: AtomicI64,
    boot_ms: AtomicU64,
    boot: BootId,
}

impl ManualClock {
    /// Starts at `wall_ms`, one second after boot.
    pub fn at(wall_ms: i64) -> Self {
        Self { wall_ms: AtomicI64::new(wall_ms), boot_ms: AtomicU64::new(1000), boot: BootId([7; 16]) }
    }

    /// Both clocks move forward together.
    pub fn advance(&self, by: Duration) {
        let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.boot_ms.fetch_add(ms, Ordering::SeqCst);
        self.wall_ms.fetch_add(i64::try_from(ms).unwrap_or(i64::MAX), Ordering::SeqCst);
    }

    /// Somebody sets the wall clock; the time since boot does not notice.
    pub fn set_wall_ms(&self, wall_ms: i64) {
        self.wall_ms.store(wall_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall_ms(&self) -> i64 {
        self.wall_ms.load(Ordering::SeqCst)
    }

    fn since_boot(&self) -> Duration {
        Duration::from_millis(self.boot_ms.load(Ordering::SeqCst))
    }

    fn boot(&self) -> BootId {
        self.boot
    }

    fn state(&self) -> ClockState {
        ClockState::Ntp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_clock_never_reads_before_its_floor() {
        let clock = SystemClock::new();
        let far_future = clock.wall_ms() + 1_000_000_000;
        clock.raise_floor(far_future);
        clock.raise_floor(5);
        assert_eq!(clock.wall_ms(), far_future);
    }

    #[test]
    fn build_time_is_a_real_date() {
        assert!(BUILD_UNIX.parse::<i64>().unwrap() > 1_700_000_000);
    }
}
