//! Logs to standard error: for people on a terminal, as JSON for a collector.

use std::io::IsTerminal as _;

use serde::Deserialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How the process logs.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,forebay::uplink=debug`.
    pub filter: String,
    /// How a line looks.
    pub format: Format,
}

impl Default for Config {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: Format::Text }
    }
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// For people; without time stamps where journald adds its own.
    Text,
    /// One JSON object a line.
    Json,
}

/// The filter cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("failed to read the log filter {filter:?}; use `info` or `info,forebay::uplink=debug`")]
pub struct InvalidFilter {
    filter: String,
    source: tracing_subscriber::filter::ParseError,
}

/// Starts logging for the whole process. A second start in one process keeps the first.
///
/// `under_journald`: the journal stamps lines itself.
pub fn start(config: &Config, under_journald: bool) -> Result<(), InvalidFilter> {
    // Every connection that ends is told by the link itself, once; the NATS client would say it three times more.
    let quiet = if config.filter.contains("async_nats") { "" } else { ",async_nats=off" };
    let filter = EnvFilter::builder()
        .parse(format!("{}{quiet}", config.filter))
        .map_err(|source| InvalidFilter { filter: config.filter.clone(), source })?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    let _ = match (config.format, under_journald) {
        (Format::Json, _) => registry.with(lines.json()).try_init(),
        (Format::Text, true) => registry.with(lines.with_ansi(false).without_time()).try_init(),
        (Format::Text, false) => registry.with(lines.with_ansi(std::io::stderr().is_terminal())).try_init(),
    };
    Ok(())
}
