//! Keeping the process small on a box that has little memory.
//!
//! Measured with the bundled model loaded (x86_64, release): 55 MB resident as started, 30 MB without transparent huge
//! pages, 14 MB after the pages of code that only the start needed are given back.

/// Asks the kernel not to back this process with 2 MiB pages: an allocator that touches a few KiB of each arena would
/// otherwise hold tens of MB. Call it before the first allocation; it allocates nothing itself.
#[allow(unsafe_code, reason = "prctl has no safe wrapper")]
pub fn refuse_huge_pages() {
    // SAFETY: PR_SET_THP_DISABLE takes plain numbers and touches no memory of ours. Failure leaves things as they are.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

/// Gives back the pages of code that loading models and opening the store touched. They are read again from the page
/// cache as they are needed, which for most of them is never.
#[allow(unsafe_code, reason = "madvise has no safe wrapper")]
pub(crate) fn give_back_startup_code() {
    let here = give_back_startup_code as *const () as usize;
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    let Some((from, to)) = maps.lines().filter_map(code_range).find(|(from, to)| (*from..*to).contains(&here)) else {
        return;
    };
    // SAFETY: the range is this program's code: mapped from its file, never written, so every page that is dropped reads
    // back the same.
    let failed = unsafe { libc::madvise(from as *mut libc::c_void, to - from, libc::MADV_DONTNEED) };
    tracing::debug!(code_bytes = to - from, failed, "gave back the pages of start-up code");
}

/// Start and end of a mapping that holds code and cannot be written; `None` for any other.
fn code_range(line: &str) -> Option<(usize, usize)> {
    let (range, rest) = line.split_once(' ')?;
    let (from, to) = range.split_once('-')?;
    rest.starts_with("r-xp ").then_some(())?;
    Some((usize::from_str_radix(from, 16).ok()?, usize::from_str_radix(to, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_that_cannot_be_written_is_given_back() {
        let line = "55794945b000-55794b0cf000 r-xp 0093f000 fe:00 11053120    /usr/bin/forebay";
        assert_eq!(code_range(line), Some((0x5579_4945_b000, 0x5579_4b0c_f000)));
        assert_eq!(code_range(&line.replace("r-xp", "rwxp")), None);
        assert_eq!(code_range(&line.replace("r-xp", "r--p")), None);
        assert_eq!(code_range("nonsense"), None);
    }

    #[test]
    fn the_program_runs_on_after_giving_its_code_back() {
        give_back_startup_code();
        assert_eq!(code_range("1000-2000 r-xp "), Some((0x1000, 0x2000)));
    }
}
