//! What the kernel counted for the processes of a group.

/// Running time of all threads in microseconds, user's and system's.
pub(crate) fn cpu_us(group: u32) -> f64 {
    let mut sum = 0.0;
    for process in members(group) {
        for thread in std::fs::read_dir(process.join("task")).into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            sum += text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1000.0;
        }
    }
    sum
}

/// Memory that is in place now, in megabytes.
pub(crate) fn rss_mb(group: u32) -> f64 {
    let of = |process: std::path::PathBuf| {
        let status = std::fs::read_to_string(process.join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().trim_end_matches(" kB").parse::<f64>().ok()
    };
    members(group).filter_map(of).sum::<f64>() / 1024.0
}

fn members(group: u32) -> impl Iterator<Item = std::path::PathBuf> {
    let is_number = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.filter(move |entry| entry.file_name().to_str().is_some_and(is_number)).map(|entry| entry.path()).filter(
        move |process| {
            // Behind the name, which may have anything in it: state, parent, group.
            let of_group = |stat: &str| stat.rsplit(") ").next()?.split(' ').nth(2)?.parse::<u32>().ok();
            std::fs::read_to_string(process.join("stat")).is_ok_and(|stat| of_group(&stat) == Some(group))
        },
    )
}
