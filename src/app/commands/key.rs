//! `forebay key NAME`

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use rand::SeedableRng as _;

use super::say;
use crate::access;
use crate::base::Name;

/// Prints a fresh key once, and what the configuration needs to know of it.
pub(crate) fn run(name: &str) -> Result<ExitCode> {
    let name = Name::new(name).context("failed to use that name for an identity")?;
    let key = access::new_key(&mut rand::rngs::StdRng::from_os_rng());
    say(format_args!("# The key of {name}, shown once: MQTT password (user name {name}), or Authorization: Bearer."));
    say(format_args!("# {}", key.text));
    say("# For the configuration file:");
    say("[[access.identity]]");
    say(format_args!("name = \"{name}\""));
    say(format_args!("key_sha256 = \"{}\"", key.sha256));
    say("publish = [\"plant/%u/#\"]      # topics it may publish to; %u is its name, %c its client id");
    say(
        "subscribe = [\"forebay/#\"]       # what it may hear; to read a stream over HTTP it needs the stream's topic, too",
    );
    Ok(ExitCode::SUCCESS)
}
