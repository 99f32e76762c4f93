//! The disk's own limit: what one synced write costs, without any database.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::time::Instant;

use crate::percentile;

const WRITES: usize = 300;

pub(crate) fn run() {
    println!(
        "\n## The disk: write and fdatasync, {WRITES} times\n\n| bytes | syncs/s | p50 ms | p99 ms |\n|---|---|---|---|"
    );
    for (bytes, in_place) in [(4096, false), (4096, true), (65_536, true), (262_144, true)] {
        let times = synced(bytes, in_place);
        let rate = 1000.0 * WRITES as f64 / times.iter().sum::<f64>();
        let what = if in_place { "over old content" } else { "at the end" };
        println!("| {bytes} {what} | {rate:.0} | {:.2} | {:.2} |", percentile(&times, 50), percentile(&times, 99));
    }
}

/// Milliseconds of each, sorted. A write-ahead log writes over old content once it has started over.
fn synced(bytes: usize, in_place: bool) -> Vec<f64> {
    let folder = tempfile::tempdir().unwrap();
    let mut file = File::create(folder.path().join("sync")).unwrap();
    if in_place {
        file.write_all(&vec![0; 16 * bytes]).unwrap();
        file.sync_all().unwrap();
    }
    let content = vec![7; bytes];
    let mut times: Vec<f64> = (0..WRITES)
        .map(|at| {
            if in_place {
                file.seek(SeekFrom::Start((at % 16 * bytes) as u64)).unwrap();
            }
            let began = Instant::now();
            file.write_all(&content).unwrap();
            file.sync_data().unwrap();
            began.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times
}
