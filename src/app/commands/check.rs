//! `forebay check`

use std::process::ExitCode;

use super::say;
use crate::app::config::{Loaded, Overrides, review};

/// Says what is wrong, what does not work, and what an operator should know.
pub(crate) fn run(config: &std::path::Path, overrides: &Overrides) -> ExitCode {
    let loaded = match Loaded::read(config, overrides) {
        Ok(loaded) => loaded,
        Err(diagnosis) => {
            say(format_args!("error: {diagnosis}"));
            return ExitCode::FAILURE;
        }
    };
    let review = review(&loaded);
    for error in &review.errors {
        say(format_args!("error: {error}"));
    }
    for problem in &review.problems {
        say(format_args!("problem: {problem}"));
    }
    for remark in &review.remarks {
        say(format_args!("note: {remark}"));
    }
    if review.errors.is_empty() && review.problems.is_empty() {
        let (streams, routes) = (loaded.config.stream.len(), loaded.config.route.len());
        let routes = if routes == 0 { String::new() } else { format!("; routes: {routes}") };
        say(format_args!("{}: fine; streams: {streams}{routes}", loaded.file));
    }
    if review.errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
