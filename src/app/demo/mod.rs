//! `forebay demo`: a machine's 79 days in a few seconds, with the cable cut and the gateway killed on the way.

mod cable;
mod children;
mod probe;
mod proof;
mod report;
mod site;
mod story;
mod watch;

pub(super) use story::run;
