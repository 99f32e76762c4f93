//! `forebay run`

use std::process::ExitCode;

use anyhow::{Result, bail};

use super::note;
use crate::app::config::{Loaded, Overrides, review};
use crate::app::gateway;
use crate::app::stop::until_told_to_stop;
use crate::telemetry;

/// Serves until SIGTERM or Ctrl-C.
pub(crate) async fn run(config: &std::path::Path, overrides: &Overrides, under_journald: bool) -> Result<ExitCode> {
    let loaded = match Loaded::read(config, overrides) {
        Ok(loaded) => loaded,
        Err(diagnosis) => {
            note(diagnosis);
            return Ok(ExitCode::FAILURE);
        }
    };
    telemetry::start(&loaded.config.log, under_journald)?;
    let review = review(&loaded);
    for diagnosis in review.errors.iter().chain(&review.problems) {
        note(diagnosis);
    }
    if !review.errors.is_empty() {
        bail!("{} does not work as it stands; nothing was started", loaded.file);
    }
    Box::pin(gateway::run(loaded.config, until_told_to_stop()?)).await?;
    Ok(ExitCode::SUCCESS)
}
