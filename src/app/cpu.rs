//! What a thread has computed, as the kernel's scheduler counts it.

use std::time::Duration;

/// The time that the calling thread has computed so far. None where the kernel does not say
/// (`Documentation/scheduler/sched-stats.rst`: the first number of `/proc/thread-self/schedstat`, nanoseconds).
pub(super) fn of_this_thread() -> Option<Duration> {
    nanoseconds(&std::fs::read_to_string("/proc/thread-self/schedstat").ok()?)
}

fn nanoseconds(text: &str) -> Option<Duration> {
    text.split_ascii_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_computes_is_counted() {
        assert_eq!(nanoseconds("1500 7 3\n"), Some(Duration::from_nanos(1500)));
        assert_eq!(nanoseconds(""), None);
        let Some(before) = of_this_thread() else { return };
        let sum = (0..20_000_000_u64).fold(0, |sum, number| std::hint::black_box(sum ^ number));
        std::hint::black_box(sum);
        assert!(of_this_thread().unwrap() > before);
    }
}
