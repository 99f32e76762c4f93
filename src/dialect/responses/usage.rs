//! `usage` and `status`.

use crate::dialect::json::{self, Members, Raw};
use crate::dialect::write::Object;
use crate::dialect::{Finish, Served, Usage};

/// Reads the `usage` of a response, and how it was served.
pub(crate) fn usage_in(response: &Members<'_>) -> Option<Usage> {
    let usage = usage_of(response.get("usage")?);
    Some(Usage { served: Served::read(response.get("service_tier")), ..usage })
}

fn usage_of(raw: Raw<'_>) -> Usage {
    let members = Members::lenient(raw);
    let number = |members: &Members<'_>, name| members.get(name).and_then(json::whole);
    let inputs = members.get("input_tokens_details").map(Members::lenient).unwrap_or_default();
    let outputs = members.get("output_tokens_details").map(Members::lenient).unwrap_or_default();
    Usage {
        input_tokens: number(&members, "input_tokens"),
        output_tokens: number(&members, "output_tokens"),
        cache_read_tokens: number(&inputs, "cached_tokens"),
        cache_write_tokens: number(&inputs, "cache_write_tokens"),
        input_audio_tokens: number(&inputs, "audio_tokens"),
        input_image_tokens: number(&inputs, "image_tokens"),
        reasoning_tokens: number(&outputs, "reasoning_tokens"),
        output_audio_tokens: number(&outputs, "audio_tokens"),
        output_image_tokens: number(&outputs, "image_tokens"),
        ..Usage::default()
    }
}

/// Writes `usage`. OpenAI's clients require every member of it to be a number, so what nobody told is 0 here.
pub(crate) fn write_usage(mut to: Object<'_>, usage: &Usage) {
    let (input, output) = (usage.input_tokens.unwrap_or(0), usage.output_tokens.unwrap_or(0));
    to.number("input_tokens", input);
    {
        let mut details = to.object("input_tokens_details");
        details.number("cached_tokens", usage.cache_read_tokens.unwrap_or(0));
        details.number("cache_write_tokens", usage.cache_write_tokens.unwrap_or(0));
    }
    to.number("output_tokens", output);
    to.object("output_tokens_details").number("reasoning_tokens", usage.reasoning_tokens.unwrap_or(0));
    to.number("total_tokens", input.saturating_add(output));
}

/// Why a response ended, from its `status`, `incomplete_details` and `output`; `None` while it goes on.
pub(crate) fn finish_of(response: &Members<'_>) -> Option<Finish> {
    match response.text("status")?.as_ref() {
        "completed" => {
            let calls = response
                .get("output")
                .map(json::lenient_elements)
                .unwrap_or_default()
                .into_iter()
                .any(|item| Members::lenient(item).text("type").is_some_and(|kind| kind == "function_call"));
            Some(if calls { Finish::ToolCalls } else { Finish::Stop })
        }
        "incomplete" => {
            let details = response.get("incomplete_details").map(Members::lenient).unwrap_or_default();
            Some(match details.text("reason").as_deref() {
                Some("max_output_tokens") => Finish::Length,
                Some("content_filter") => Finish::Filtered,
                _ => Finish::Other,
            })
        }
        "failed" | "cancelled" => Some(Finish::Other),
        _ => None,
    }
}
