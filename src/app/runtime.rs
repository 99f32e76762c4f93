//! The runtime that connections, questions and timers run on.

use anyhow::{Context as _, Result};

/// A thread less than there are cores, at least one. What computes models and what writes to disk has threads of its own
/// (decision 46); tokio's own variable, `TOKIO_WORKER_THREADS`, says another number.
///
/// # Errors
/// The operating system gives no threads or no descriptors.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        builder.worker_threads(threads(cores));
    }
    builder.enable_all().build().context("failed to start the runtime")
}

fn threads(cores: usize) -> usize {
    cores.saturating_sub(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_core_is_left_to_models_and_the_disk_where_there_is_another() {
        assert_eq!([1, 2, 3, 4, 16].map(threads), [1, 1, 2, 3, 15]);
    }
}
