//! What each subcommand does. Answers go to standard output, progress and errors to standard error.

mod accounts;
pub(super) mod check;
pub(super) mod collect;
pub(super) mod doctor;
pub(super) mod key;
pub(super) mod model;
pub(super) mod prove;
pub(super) mod replay;
pub(super) mod request;
pub(super) mod run;

use std::io::{IsTerminal as _, Write as _};

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
