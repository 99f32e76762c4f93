//! What each subcommand does. Answers go to standard output, progress and errors to standard error.

mod accounts;
pub(super) mod bench;
pub(super) mod check;
pub(super) mod collect;
pub(super) mod doctor;
pub(super) mod import;
mod inspect;
pub(super) mod key;
pub(super) mod model;
pub(super) mod prove;
pub(super) mod replay;
pub(super) mod request;
pub(super) mod run;

use std::io::{IsTerminal as _, Write as _};

use anyhow::{Context as _, Result};

use super::cli::NatsArgs;
use crate::base::Name;
use crate::uplink::{self, Kind, NatsConfig};

/// The same link over NATS instead of MQTT.
pub(super) fn over_nats(args: &NatsArgs, link: uplink::Config) -> Result<uplink::Config> {
    let name = |text: &str| Name::new(text).with_context(|| format!("failed to use {text:?}"));
    let nats = NatsConfig {
        stream: name(&args.name)?,
        domain: args.domain.as_deref().map(name).transpose()?,
        credentials_file: args.credentials.clone(),
        nkey_file: args.nkey.clone(),
        inbox_prefix: args.inbox_prefix.clone(),
        // Only who publishes rows has to know how they are kept.
        check_stream: false,
        ..NatsConfig::default()
    };
    Ok(uplink::Config { kind: Kind::Nats, nats: Some(nats), ..link })
}

/// One line of answer. A reader that went away (`| head`) is no error.
pub(super) fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// One line about what is going on.
pub(super) fn note(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Progress on one line that is written over, if somebody watches.
pub(super) fn progress(line: impl std::fmt::Display) {
    let mut stderr = std::io::stderr().lock();
    if stderr.is_terminal() {
        let _ = write!(stderr, "\r\x1b[2K{line}");
        let _ = stderr.flush();
    }
}

/// Ends a line of progress.
pub(super) fn progress_done() {
    progress("");
}
