//! Counts and `done_reason`.

use crate::dialect::json::{self, Members};
use crate::dialect::{Finish, Usage};

/// The counts of a last line or of a whole answer.
pub(crate) fn usage_of(line: &Members<'_>) -> Usage {
    let number = |name| line.get(name).and_then(json::whole);
    Usage {
        // Left out where the whole prompt was still in the server's memory.
        input_tokens: number("prompt_eval_count"),
        output_tokens: number("eval_count"),
        ..Usage::default()
    }
}

/// What a `done_reason` stands for.
pub(crate) fn finish_of(reason: &str) -> Finish {
    match reason {
        "stop" => Finish::Stop,
        "length" => Finish::Length,
        _ => Finish::Other,
    }
}
