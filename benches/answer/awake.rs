//! Keeps the cores from falling asleep. A core that sleeps between two words is handed to other guests of a virtual
//! machine, and wakes to cold caches: then it is the sleep that is measured, of whoever has the most to do after it.

/// On each core that this program may use, a loop that gives way to everything else at once (`SCHED_IDLE`).
pub(crate) fn keep_awake() {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    for core in (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)) {
        std::thread::spawn(move || {
            let mut only = rustix::thread::CpuSet::new();
            only.set(core);
            rustix::thread::sched_setaffinity(None, &only).unwrap();
            let priority = libc::sched_param { sched_priority: 0 };
            #[allow(unsafe_code, reason = "no crate here has this call")]
            // SAFETY: of this thread, and the parameter outlives the call.
            let changed = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const priority) };
            assert_eq!(changed, 0, "{}", std::io::Error::last_os_error());
            // Without the processor's hint for loops that wait, at which a virtual core is taken away as well.
            let mut busy = 1_u64;
            loop {
                busy = std::hint::black_box(busy.wrapping_mul(3));
            }
        });
    }
}
