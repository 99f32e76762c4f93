//! What custody costs and what it gives: durable messages a second and the time to an acknowledgement beside other
//! software, bytes written per payload byte, the drain after an outage, and the disk under all of it.
//!
//! `cargo bench --no-default-features --bench custody [-- disk|acks|bytes|drain|packs]...`. Every server is a process of its
//! own with its files in the temporary folder (TMPDIR chooses the disk). Peers take turns with us, medians are printed.
//! Times on a busy machine mean little; ratios within one run, bytes and CPU do.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a bench"
)]

mod acks;
mod bytes;
mod disk;
mod drain;
mod load;
mod packs;
mod relp;
mod servers;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let benches: [(&str, fn()); 5] =
        [("disk", disk::run), ("acks", acks::run), ("bytes", bytes::run), ("drain", drain::run), ("packs", packs::run)];
    for (name, bench) in benches {
        if arguments.is_empty() || arguments.iter().any(|argument| argument == name) {
            bench();
        }
    }
}

/// The middle one.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The value below which `percent` of `sorted` lie.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}
