//! Keeping the process small on a box that has little memory.
//!
//! Measured with the bundled model loaded (x86_64, release): 55 MB resident as started, 30 MB without transparent huge
//! pages; after the pages that only the start needed are given back, 14 MB idle and 23 MB under load.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::engine;

/// From the start to the first time that seldom used code is given back.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// To each next one of the first minute, in which every room does something for the first time; later twice as long each time.
const EARLY_LOOK: Duration = Duration::from_secs(4);
const EARLY: Duration = Duration::from_secs(60);
const LAST_LOOK: Duration = Duration::from_secs(600);

/// Asks the kernel not to back this process with 2 MiB pages: an allocator that touches a few KiB of each arena would
/// otherwise hold tens of MB. Call it before the first allocation; it allocates nothing itself.
#[allow(unsafe_code, reason = "prctl has no safe wrapper")]
pub fn refuse_huge_pages() {
    // SAFETY: PR_SET_THP_DISABLE takes plain numbers and touches no memory of ours. Failure leaves things as they are.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

/// After how many milliseconds the allocator gives free memory back: the number of mimalloc's `purge_delay`, which its
/// bindings do not name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Long enough that a layer of a model finds the memory of the one before, and its next run that of the last: given back at
/// once, it costs a request with a network a fifth to a half more time in page faults.
const KEEP_MS: std::ffi::c_long = 100;
const LOOK_AT_MODELS_EVERY: Duration = Duration::from_secs(1);
/// Models that computed so long since the last look are at work. Below, a box saves a megabyte and loses next to no time.
const AT_WORK: Duration = Duration::from_millis(20);
/// And are so until they rested for so many looks.
const LOOKS_AT_REST: u32 = 10;

/// Gives free memory back at once. By default mimalloc looks at it a second later, when somebody allocates, which on a quiet
/// box is never: 2 to 4 MB of the demonstration's gateway. Call it while there is one thread.
pub(crate) fn give_back_freed_memory_at_once() {
    keep_freed_memory(0);
}

/// Who sets the library's own variable wants something else and gets it.
#[allow(unsafe_code, reason = "the library's options have no safe wrapper")]
#[allow(clippy::disallowed_methods, reason = "the environment is read here and nowhere below")]
fn keep_freed_memory(milliseconds: std::ffi::c_long) {
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
        // SAFETY: takes plain numbers. Two threads must not set options at once: the first call is made while there is one
        // thread, the other by the one task that keeps the process small. Others only read the number, old or new.
        unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, milliseconds) };
    }
}

/// Gives free memory back that has been kept for its time: nobody else looks at it while nothing is allocated.
#[allow(unsafe_code, reason = "the library's call has no safe wrapper")]
fn tidy() {
    // SAFETY: any thread may ask for that at any time.
    unsafe { libmimalloc_sys::mi_collect(false) };
}

/// Gives back what the first connections, models and requests touched once, and later what is seldom used. The kernel maps
/// sixteen pages around each that is touched, so that after a while most of the code is resident and a third of it is used.
/// What is used comes back in some hundred page faults that read nothing from the disk: a millisecond.
/// Freed memory is kept a little while models are at work, of which `models` tells.
pub(crate) async fn stay_small(models: engine::Metrics, stop: CancellationToken) {
    let (mut pause, mut passed, mut lived) = (FIRST_LOOK, Duration::ZERO, Duration::ZERO);
    let (mut computed, mut looks_left) = (models.computed_time(), 0);
    while tokio::time::timeout(LOOK_AT_MODELS_EVERY, stop.cancelled()).await.is_err() {
        let before = std::mem::replace(&mut computed, models.computed_time());
        if computed.saturating_sub(before) >= AT_WORK {
            if looks_left == 0 {
                keep_freed_memory(KEEP_MS);
            }
            looks_left = LOOKS_AT_REST;
        } else if looks_left > 0 {
            looks_left -= 1;
            if looks_left == 0 {
                keep_freed_memory(0);
            }
            tidy();
        }
        passed += LOOK_AT_MODELS_EVERY;
        lived += LOOK_AT_MODELS_EVERY;
        if passed >= pause {
            give_back_unused_code();
            let next = if lived < EARLY { EARLY_LOOK } else { (pause * 2).min(LAST_LOOK) };
            (pause, passed) = (next, Duration::ZERO);
        }
    }
}

/// Gives back the pages of code and constants that loading models and opening the store touched, once each is done. They are read again
/// from the page cache as they are needed, which for most of them is never.
#[allow(unsafe_code, reason = "madvise has no safe wrapper")]
pub(crate) fn give_back_unused_code() {
    let here = give_back_unused_code as *const () as usize;
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    let mappings: Vec<_> = maps.lines().filter_map(Mapping::parse).collect();
    let Some(own) = mappings.iter().find(|mapping| mapping.contains(here)) else { return };
    for mapping in mappings.iter().filter(|mapping| mapping.file == own.file && mapping.is_never_written()) {
        let (from, length) = (mapping.from, mapping.to - mapping.from);
        // SAFETY: the range is part of this program as it lies in its file and is never written, so every page that is
        // dropped reads back the same.
        let failed = unsafe { libc::madvise(from as *mut libc::c_void, length, libc::MADV_DONTNEED) };
        tracing::debug!(size_bytes = length, failed, "gave back start-up pages");
    }
}

/// One line of /proc/self/maps.
struct Mapping<'a> {
    from: usize,
    to: usize,
    permissions: &'a str,
    offset: &'a str,
    file: &'a str,
}

impl<'a> Mapping<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let (from, to) = words.next()?.split_once('-')?;
        let (permissions, offset) = (words.next()?, words.next()?);
        let file = words.nth(2)?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        Some(Self { from: number(from)?, to: number(to)?, permissions, offset, file })
    }

    fn contains(&self, address: usize) -> bool {
        (self.from..self.to).contains(&address)
    }

    /// Code, and the constants at the beginning of the file. The other read-only mapping was written while the program
    /// was linked at its start, and only then made read-only: its pages would come back unlinked.
    fn is_never_written(&self) -> bool {
        self.permissions == "r-xp" || (self.permissions == "r--p" && self.offset.bytes().all(|digit| digit == b'0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_never_written_is_given_back() {
        let never_written = |line: &str| Mapping::parse(line).is_some_and(|mapping| mapping.is_never_written());
        let code = "55794945b000-55794b0cf000 r-xp 0093f000 fe:00 11053120    /usr/bin/forebay";
        assert!(never_written(code));
        assert!(never_written("557948b1b000-55794945b000 r--p 00000000 fe:00 11053120    /usr/bin/forebay"));
        assert!(!never_written("55794b0cf000-55794b1be000 r--p 025b2000 fe:00 11053120    /usr/bin/forebay"));
        assert!(!never_written(&code.replace("r-xp", "rwxp")));
        assert!(!never_written("7ffc99db7000-7ffc99ddd000 r-xp 00000000 00:00 0"));
        assert!(Mapping::parse(code).unwrap().contains(0x5579_4945_b000));
    }

    #[test]
    #[allow(unsafe_code, reason = "as above")]
    fn the_allocator_s_option_is_the_one_that_is_meant() {
        // SAFETY: reads a number.
        let delay_ms = unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert_eq!(delay_ms, 1000, "the default of purge_delay: have the options another order now?");
    }

    #[test]
    fn the_program_runs_on_after_giving_its_code_back() {
        give_back_unused_code();
        let words: Vec<String> = (0..1000).map(|number| format!("{number:x}")).collect();
        assert_eq!(words[255], "ff");
    }
}
