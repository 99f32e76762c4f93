//! `usage` and `stopReason`. As with Anthropic, what was read from and written to the cache is counted beside
//! `inputTokens`.

use crate::dialect::json::{self, Members, Raw};
use crate::dialect::{Finish, Served, Usage};

/// Reads `usage` of an answer, or of the event that ends a stream.
pub(crate) fn usage_in(answer: &Members<'_>) -> Option<Usage> {
    let usage = usage_of(answer.get("usage")?);
    let tier = answer.get("serviceTier").map(Members::lenient).unwrap_or_default();
    Some(Usage { served: Served::read(tier.get("type")), ..usage })
}

fn usage_of(raw: Raw<'_>) -> Usage {
    let members = Members::lenient(raw);
    let number = |name| members.get(name).and_then(json::whole);
    let (read, written) = (number("cacheReadInputTokens"), number("cacheWriteInputTokens"));
    let cached = read.unwrap_or(0).saturating_add(written.unwrap_or(0));
    Usage {
        input_tokens: number("inputTokens").map(|fresh| fresh.saturating_add(cached)),
        output_tokens: number("outputTokens"),
        cache_read_tokens: read,
        cache_write_tokens: written,
        cache_write_hour_tokens: members.get("cacheDetails").map(hour),
        ..Usage::default()
    }
}

/// What was written for an hour, of the counts by time.
fn hour(details: Raw<'_>) -> u64 {
    let each = json::lenient_elements(details).into_iter().map(Members::lenient);
    let hours = each.filter(|one| one.text("ttl").as_deref() == Some("1h"));
    hours.filter_map(|one| one.get("inputTokens").and_then(json::whole)).fold(0, u64::saturating_add)
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
