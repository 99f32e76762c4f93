//! What Linux says of a process: its CPU time by the kernel's own clocks, its resident memory by `/proc`.

use std::time::Duration;

use crate::engine::bench::Meter;

/// Of this machine.
pub(super) struct SystemMeter;

impl Meter for SystemMeter {
    fn cpu(&self, host: Option<u32>) -> Option<Duration> {
        let own = read(libc::CLOCK_PROCESS_CPUTIME_ID)?;
        let host = host.map(|pid| read(clock_of(pid)?));
        Some(own + host.unwrap_or(Some(Duration::ZERO))?)
    }

    fn resident_bytes(&self, host: Option<u32>) -> Option<u64> {
        let own = resident_bytes("self")?;
        let host = host.map(|pid| resident_bytes(&pid.to_string()));
        Some(own + host.unwrap_or(Some(0))?)
    }
}

/// The clock of all threads of a process: the number that `clock_getcpuclockid` gives.
fn clock_of(pid: u32) -> Option<libc::clockid_t> {
    /// What the scheduler counted, not the timer's ticks.
    const SCHEDULED: libc::clockid_t = 2;
    Some((!libc::clockid_t::try_from(pid).ok()? << 3) | SCHEDULED)
}

#[allow(unsafe_code, reason = "the clocks of processes have no safe wrapper in the tree")]
fn read(clock: libc::clockid_t) -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec, which is there.
    let failed = unsafe { libc::clock_gettime(clock, &raw mut time) };
    let (seconds, nanos) = (u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?);
    (failed == 0).then(|| Duration::new(seconds, nanos))
}

fn resident_bytes(process: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/statm")).ok()?;
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_process_has_used_time_and_memory_under_both_names() {
        let own = SystemMeter.cpu(None).unwrap();
        assert!(own > Duration::ZERO);
        // Asked by its number, it is counted twice.
        assert!(SystemMeter.cpu(Some(std::process::id())).unwrap() >= own * 2);
        let bytes = SystemMeter.resident_bytes(Some(std::process::id())).unwrap();
        assert!(bytes >= SystemMeter.resident_bytes(None).unwrap(), "{bytes}");
    }

    #[test]
    fn a_process_that_is_not_there_is_not_known() {
        assert_eq!(SystemMeter.cpu(Some(u32::MAX)), None);
        assert_eq!(SystemMeter.resident_bytes(Some(u32::MAX)), None);
    }
}
