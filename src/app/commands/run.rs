//! `forebay run`

use std::process::ExitCode;

use anyhow::{Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::note;
use crate::app::cli::{NegativeControl, RunArgs};
use crate::app::config::{Loaded, Overrides, review};
use crate::app::gateway;
use crate::app::stop::until_told_to_stop;
use crate::store::{Disk, Synchronous};
use crate::telemetry;

/// Serves until SIGTERM or Ctrl-C.
pub(crate) async fn run(args: &RunArgs, overrides: &Overrides, under_journald: bool) -> Result<ExitCode> {
    let mut loaded = match Loaded::read(&args.at.config, overrides) {
        Ok(loaded) => loaded,
        Err(diagnosis) => {
            note(diagnosis);
            return Ok(ExitCode::FAILURE);
        }
    };
    raise_open_files();
    let logs = telemetry::start(&loaded.config.log, under_journald)?;
    let review = review(&loaded);
    for diagnosis in review.errors.iter().chain(&review.problems) {
        note(diagnosis);
    }
    if !review.errors.is_empty() {
        bail!("{} does not work as it stands; nothing was started", loaded.file);
    }
    if let Some(control) = args.negative_control {
        let synchronous = match control {
            NegativeControl::Normal => Synchronous::Normal,
            NegativeControl::Off => Synchronous::Off,
        };
        tracing::error!(
            synchronous = synchronous.as_str(),
            "a negative control: what this gateway acknowledges is NOT on the disk"
        );
        loaded.config.store.disk = Disk::default().with_synchronous(synchronous);
    }
    Box::pin(gateway::run(loaded.config, logs, until_told_to_stop()?)).await?;
    Ok(ExitCode::SUCCESS)
}

/// A thousand streams are two thousand sockets, and what a shell or a container gives is often 1,024: as many as may be had
/// without asking anybody. Where it fails, the doors wait for one to become free.
fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}
