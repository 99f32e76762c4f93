//! Logs to standard error: for people on a terminal, as JSON for a collector.

use std::io::IsTerminal as _;

use serde::Deserialize;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

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

/// The logs of this process, whose level can be changed while it runs.
#[derive(Debug, Clone)]
pub struct Logs {
    level: LevelFilter,
    /// What the filter says of single targets, each with a comma before it.
    targets: String,
    filter: reload::Handle<EnvFilter, Registry>,
}

impl Logs {
    /// The level that they began with, of targets about which nothing else was said.
    pub fn level(&self) -> LevelFilter {
        self.level
    }

    /// From now on this level counts for targets about which nothing else was said.
    pub fn set_level(&self, level: LevelFilter) -> Result<(), String> {
        let text = format!("{level}{}", self.targets);
        let filter = EnvFilter::builder().parse(&text).map_err(|error| format!("log filter {text:?}: {error}"))?;
        self.filter.reload(filter).map_err(|error| format!("the log's filter cannot be changed: {error}"))
    }
}

/// The level and the rest of a filter.
fn split(filter: &str) -> (LevelFilter, String) {
    let (mut level, mut targets) = (LevelFilter::OFF, String::new());
    for directive in filter.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
        match directive.parse() {
            Ok(plain) => level = plain,
            Err(_) => {
                targets.push(',');
                targets.push_str(directive);
            }
        }
    }
    (level, targets)
}

/// Starts logging for the whole process. A second start in one process keeps the first, and its logs change nothing.
///
/// `under_journald`: the journal stamps lines itself.
pub fn start(config: &Config, under_journald: bool) -> Result<Logs, InvalidFilter> {
    // Every connection that ends is told by the link itself, once; the NATS client would say it three times more.
    let quiet = if config.filter.contains("async_nats") { "" } else { ",async_nats=off" };
    let text = format!("{}{quiet}", config.filter);
    let filter =
        EnvFilter::builder().parse(&text).map_err(|source| InvalidFilter { filter: config.filter.clone(), source })?;
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    let _ = match (config.format, under_journald) {
        (Format::Json, _) => registry.with(lines.json()).try_init(),
        (Format::Text, true) => registry.with(lines.with_ansi(false).without_time()).try_init(),
        (Format::Text, false) => registry.with(lines.with_ansi(std::io::stderr().is_terminal())).try_init(),
    };
    let (level, targets) = split(&text);
    Ok(Logs { level, targets, filter: handle })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_level_and_what_is_said_of_single_targets() {
        for (text, level, targets) in [
            ("info", LevelFilter::INFO, ""),
            ("WARN,forebay::uplink=debug", LevelFilter::WARN, ",forebay::uplink=debug"),
            ("forebay=trace, debug ,a[b]=info", LevelFilter::DEBUG, ",forebay=trace,a[b]=info"),
            ("forebay=trace", LevelFilter::OFF, ",forebay=trace"),
            ("", LevelFilter::OFF, ""),
        ] {
            assert_eq!(split(text), (level, targets.to_owned()), "{text}");
        }
    }
}
