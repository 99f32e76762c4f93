//! What each subcommand does. Answers go to standard output, progress and errors to standard error.

mod accounts;
pub(super) mod bench;
pub(super) mod check;
pub(super) mod collect;
pub(super) mod doctor;
pub(super) mod import;
mod inspect;
pub(super) mod key;
pub(super) mod lend;
mod lent;
pub(super) mod model;
pub(super) mod prove;
pub(super) mod replay;
pub(super) mod request;
pub(super) mod run;

use std::io::{IsTerminal as _, Write as _};

use anyhow::{Context as _, Result};

use super::cli::{LinkArgs, NatsArgs};
use crate::base::Name;
use crate::uplink::{self, Kind, NatsConfig, TlsConfig};

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

/// How long the far side may be silent before it is asked whether it lives.
const PATIENCE_MS: u64 = 20_000;

/// The link of whoever asks gateways: over MQTT, or over NATS where that is named.
pub(super) fn link(args: &LinkArgs, nats: &NatsArgs) -> Result<uplink::Config> {
    let (host, port) = replay::host_and_port(nats.nats.as_ref().unwrap_or(&args.broker))?;
    let tls = args.ca.clone().map(|ca_file| TlsConfig {
        ca_file,
        certificate_file: args.certificate.clone(),
        key_file: args.key.clone(),
        server_name: None,
    });
    let config = uplink::Config {
        host,
        port,
        tls,
        username: args.user.clone(),
        password_file: args.password_file.clone(),
        answer_timeout_ms: PATIENCE_MS,
        ..uplink::Config::default()
    };
    if nats.nats.is_some() { over_nats(nats, config) } else { Ok(config) }
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
