//! The runtime that connections, questions and timers run on.

use std::ffi::OsStr;

use anyhow::{Context as _, Result};

const VARIABLE: &str = "TOKIO_WORKER_THREADS";
const THREADS_MAX: usize = 1024;

/// A thread less than there are cores, at least one. What computes models and what writes to disk has threads of its own
/// (decision 46); tokio's own variable, `TOKIO_WORKER_THREADS`, says another number.
///
/// # Errors
/// The variable holds no such number, or the operating system gives no threads or no descriptors.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime> {
    let said = std::env::var_os(VARIABLE);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = threads(said.as_deref().map(OsStr::to_string_lossy).as_deref(), cores)?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(threads).enable_all().build().context("failed to start the runtime")
}

fn threads(said: Option<&str>, cores: usize) -> Result<usize> {
    let Some(said) = said else { return Ok(cores.saturating_sub(1).max(1)) };
    let number = said.parse().ok().filter(|number| (1..=THREADS_MAX).contains(number));
    number.with_context(|| {
        format!("failed to read {VARIABLE}: expected a number from 1 to {THREADS_MAX}, given {said:?}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_core_is_left_to_models_and_the_disk_where_there_is_another() {
        assert_eq!([1, 2, 3, 4, 16].map(|cores| threads(None, cores).unwrap()), [1, 1, 2, 3, 15]);
    }

    #[test]
    fn the_variable_says_another_number_and_nothing_else() {
        assert_eq!(threads(Some("6"), 2).unwrap(), 6);
        for said in ["", "0", "-1", "two", "1025", "99999999999999999999"] {
            let error = threads(Some(said), 2).unwrap_err().to_string();
            assert!(error.contains("expected a number from 1 to 1024, given") && error.contains(said), "{error}");
        }
    }
}
