//! The other end: the program that loads ONNX Runtime. Only in builds with the feature `delegate-host`.
//!
//! First it gives up what it does not need ([`isolate`]), then it does what the socket on its standard input says: loads one
//! model ([`runtime`]) and computes with it on this thread until the socket ends.

mod isolate;
mod provider;
mod runtime;
mod serve;
mod values;

use std::io::Write as _;
use std::process::ExitCode;

/// Runs the program. `what` is `serve`, `parent` the gateway's process.
pub fn main(what: Option<&str>, parent: Option<&str>) -> ExitCode {
    let done = match (what, parent.and_then(|parent| parent.parse().ok())) {
        (Some("serve"), Some(parent)) => isolate::give_up(parent).and_then(serve::serve),
        (Some("--version"), None) => {
            say(&format!("forebay-delegate {}", env!("CARGO_PKG_VERSION")));
            Ok(())
        }
        _ => Err("the gateway starts this program: see [delegate] in its configuration".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            say(&format!("forebay-delegate: {reason}"));
            ExitCode::FAILURE
        }
    }
}

fn say(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}
