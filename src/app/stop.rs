//! When to stop: SIGTERM from a service manager, Ctrl-C from a person.

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first signal. A second one ends the process at once, which loses nothing that was
/// acknowledged.
#[allow(clippy::disallowed_methods, reason = "lives as long as the process and holds nothing")]
pub(super) fn until_told_to_stop() -> Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for Ctrl-C")?;
    let stop = CancellationToken::new();
    let told = stop.clone();
    tokio::spawn(async move {
        for second in [false, true] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if second {
                std::process::exit(130);
            }
            told.cancel();
        }
    });
    Ok(stop)
}
