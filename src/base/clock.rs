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

    /// Somebody knows that this moment has passed (the state directory does): a clock that wakes up before it is wrong.
    fn has_passed(&self, _wall_ms: i64) {}

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

/// How far the machine's clock may lie below the floor and still count as set: a time service slews it back this much.
const FLOOR_SLACK_MS: i64 = 60_000;
const NS_PER_MS: i64 = 1_000_000;

/// The machine's clocks. The wall clock is clamped to a floor, so certificates verify on a box without a
/// battery-backed clock. The floor moves on with the time since boot, so that time never stands still below it.
///
/// A clock that the kernel calls synchronised is believed whatever the floor says: a floor that was written while the
/// clock was years ahead must not keep it there.
#[derive(Debug)]
pub struct SystemClock {
    /// The floor at the moment of boot, nanoseconds since 1970. Rounded to milliseconds like the times that raise it, it
    /// would lie one ahead of the machine's clock half of the time, and each look at the time would ask the kernel who is
    /// right.
    floor_start_ns: AtomicI64,
    boot: BootId,
    has_rtc: bool,
}

impl SystemClock {
    /// A clock whose floor is the time this binary was built. Reads the boot id once.
    pub fn new() -> Self {
        let floor_start_ns = floor_start_ns(build_ms(), read_clock(libc::CLOCK_BOOTTIME));
        Self { floor_start_ns: AtomicI64::new(floor_start_ns), boot: read_boot_id(), has_rtc: has_rtc() }
    }

    /// Raises the floor to the last time known to have passed (from the state directory). Never lowers it.
    pub fn raise_floor(&self, wall_ms: i64) {
        self.floor_start_ns.fetch_max(floor_start_ns(wall_ms, self.since_boot()), Ordering::Relaxed);
    }

    fn floor_ms(&self) -> i64 {
        floor_at(self.floor_start_ns.load(Ordering::Relaxed), self.since_boot())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn wall_ms(&self) -> i64 {
        believed_ms(machine_ms(), self.floor_ms(), kernel_says_synchronised)
    }

    fn since_boot(&self) -> Duration {
        read_clock(libc::CLOCK_BOOTTIME)
    }

    fn boot(&self) -> BootId {
        self.boot
    }

    fn state(&self) -> ClockState {
        trust(machine_ms(), self.floor_ms(), kernel_says_synchronised(), self.has_rtc)
    }

    fn has_passed(&self, wall_ms: i64) {
        self.raise_floor(wall_ms);
    }
}

fn build_ms() -> i64 {
    BUILD_UNIX.parse::<i64>().unwrap_or(0) * 1000
}

/// What the floor was at boot if it is `wall_ms` now.
fn floor_start_ns(wall_ms: i64, since_boot: Duration) -> i64 {
    wall_ms.saturating_mul(NS_PER_MS).saturating_sub(nanos(since_boot))
}

/// The floor, milliseconds since 1970.
fn floor_at(start_ns: i64, since_boot: Duration) -> i64 {
    start_ns.saturating_add(nanos(since_boot)) / NS_PER_MS
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

fn machine_ms() -> i64 {
    i64::try_from(read_clock(libc::CLOCK_REALTIME).as_millis()).unwrap_or(i64::MAX)
}

/// The wall clock that rows and certificates see.
fn believed_ms(machine_ms: i64, floor_ms: i64, is_synchronised: impl FnOnce() -> bool) -> i64 {
    if machine_ms >= floor_ms {
        machine_ms
    } else if is_synchronised() {
        // Nobody runs a binary before it was built.
        machine_ms.max(build_ms())
    } else {
        floor_ms
    }
}

fn trust(machine_ms: i64, floor_ms: i64, is_synchronised: bool, has_rtc: bool) -> ClockState {
    if is_synchronised {
        ClockState::Ntp
    } else if has_rtc && machine_ms.saturating_add(FLOOR_SLACK_MS) >= floor_ms {
        ClockState::Rtc
    } else {
        // A battery-backed clock that woke up in the past has lost its battery.
        ClockState::Unsynced
    }
}

/// A sandbox hides the device but not what the kernel says about it.
fn has_rtc() -> bool {
    ["/dev/rtc0", "/sys/class/rtc/rtc0"].iter().any(|path| std::path::Path::new(path).exists())
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
    if state < 0 {
        // A filter of system calls; systemd's time service leaves its word in a file as well.
        return std::path::Path::new("/run/systemd/timesync/synchronized").exists();
    }
    state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0
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

    const YEAR_MS: i64 = 365 * 24 * 3_600_000;

    #[test]
    fn a_clock_that_wakes_up_in_1970_goes_on_from_the_floor_and_does_not_stand_still() {
        let clock = SystemClock::new();
        let far_future = clock.wall_ms() + 20 * YEAR_MS;
        clock.raise_floor(far_future);
        clock.raise_floor(5);
        let floor = clock.floor_ms();
        assert!(floor >= far_future && floor < far_future + 60_000, "{floor}");
        let start_ns = clock.floor_start_ns.load(Ordering::Relaxed);
        let day = Duration::from_secs(86_400);
        let moved = floor_at(start_ns, clock.since_boot() + day) - floor;
        assert!((86_400_000..86_460_000).contains(&moved), "the floor moves with the time since boot: {moved}");
        assert_eq!(believed_ms(0, floor, || false), floor);
        assert_eq!(trust(0, floor, false, true), ClockState::Unsynced, "its battery is empty");
    }

    #[test]
    fn a_floor_that_is_raised_to_now_does_not_overtake_the_clock() {
        for (wall_us, boot_us, later_us) in
            [(7_000_000, 1_000_900, 100), (7_000_999, 1_000_001, 1), (7_000_500, 1_000_999, 501)]
        {
            let start_ns = floor_start_ns(wall_us / 1000, Duration::from_micros(boot_us));
            let floor = floor_at(start_ns, Duration::from_micros(boot_us + later_us));
            let machine = (wall_us + later_us.cast_signed()) / 1000;
            assert!(floor <= machine && machine - floor <= 1, "{floor} and {machine}");
        }
    }

    #[test]
    fn a_synchronised_clock_is_believed_below_a_floor_that_was_years_ahead() {
        let now = build_ms() + YEAR_MS;
        let ahead = now + 10 * YEAR_MS;
        assert_eq!(believed_ms(now, ahead, || true), now);
        assert_eq!(believed_ms(now, ahead, || false), ahead);
        assert_eq!(believed_ms(5, ahead, || true), build_ms(), "nobody runs a binary before it was built");
        assert_eq!(trust(now, ahead, true, false), ClockState::Ntp);
    }

    #[test]
    fn a_battery_backed_clock_near_the_floor_counts_as_set() {
        let now = build_ms() + YEAR_MS;
        assert_eq!(trust(now, now + 1000, false, true), ClockState::Rtc);
        assert_eq!(trust(now, now + 1000, false, false), ClockState::Unsynced);
        assert_eq!(trust(now, now + YEAR_MS, false, true), ClockState::Unsynced);
    }

    #[test]
    fn build_time_is_a_real_date() {
        assert!(BUILD_UNIX.parse::<i64>().unwrap() > 1_700_000_000);
    }
}
