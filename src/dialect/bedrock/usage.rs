//! `usage` and `stopReason`. As with Anthropic, what was read from and written to the cache is counted beside
//! `inputTokens`.

use crate::dialect::json::{self, Members, Raw};
use crate::dialect::{Finish, Usage};

/// Reads `usage`.
pub(crate) fn usage_of(raw: Raw<'_>) -> Usage {
    let members = Members::lenient(raw);
    let number = |name| members.get(name).and_then(json::whole);
    let (read, written) = (number("cacheReadInputTokens"), number("cacheWriteInputTokens"));
    let cached = read.unwrap_or(0).saturating_add(written.unwrap_or(0));
    Usage {
        input_tokens: number("inputTokens").map(|fresh| fresh.saturating_add(cached)),
        output_tokens: number("outputTokens"),
        cache_read_tokens: read,
        cache_write_tokens: written,
        reasoning_tokens: None,
        estimated: false,
    }
}

/// What a `stopReason` stands for.
pub(crate) fn finish_of(reason: &str) -> Finish {
    match reason {
        "end_turn" | "stop_sequence" => Finish::Stop,
        "max_tokens" | "model_context_window_exceeded" => Finish::Length,
        "tool_use" => Finish::ToolCalls,
        "guardrail_intervened" | "content_filtered" => Finish::Filtered,
        _ => Finish::Other,
    }
}
