//! `usage` and `finish_reason`.

use crate::dialect::json::{self, Members, Raw};
use crate::dialect::write::Object;
use crate::dialect::{Finish, Usage};

/// Reads `usage`.
pub(crate) fn usage_of(raw: Raw<'_>) -> Usage {
    let members = Members::lenient(raw);
    let number = |members: &Members<'_>, name| members.get(name).and_then(json::whole);
    let inputs = members.get("prompt_tokens_details").map(Members::lenient).unwrap_or_default();
    let outputs = members.get("completion_tokens_details").map(Members::lenient).unwrap_or_default();
    Usage {
        input_tokens: number(&members, "prompt_tokens"),
        // Embeddings have no output.
        output_tokens: number(&members, "completion_tokens"),
        cache_read_tokens: number(&inputs, "cached_tokens")
            // DeepSeek's name for the same.
            .or_else(|| number(&members, "prompt_cache_hit_tokens")),
        cache_write_tokens: number(&inputs, "cache_write_tokens"),
        input_audio_tokens: number(&inputs, "audio_tokens"),
        input_image_tokens: number(&inputs, "image_tokens"),
        reasoning_tokens: number(&outputs, "reasoning_tokens"),
        output_audio_tokens: number(&outputs, "audio_tokens"),
        output_image_tokens: number(&outputs, "image_tokens"),
        ..Usage::default()
    }
}

/// Writes `usage`. Of the details those that are known: every client takes them for optional.
pub(crate) fn write_usage(mut to: Object<'_>, usage: &Usage) {
    let (input, output) = (usage.input_tokens.unwrap_or(0), usage.output_tokens.unwrap_or(0));
    to.number("prompt_tokens", input);
    to.number("completion_tokens", output);
    to.number("total_tokens", input.saturating_add(output));
    let inputs = [
        ("cached_tokens", usage.cache_read_tokens),
        ("cache_write_tokens", usage.cache_write_tokens),
        ("audio_tokens", usage.input_audio_tokens),
        ("image_tokens", usage.input_image_tokens),
    ];
    write_details(&mut to, "prompt_tokens_details", &inputs);
    let outputs = [
        ("reasoning_tokens", usage.reasoning_tokens),
        ("audio_tokens", usage.output_audio_tokens),
        ("image_tokens", usage.output_image_tokens),
    ];
    write_details(&mut to, "completion_tokens_details", &outputs);
}

fn write_details(to: &mut Object<'_>, key: &str, details: &[(&str, Option<u64>)]) {
    if details.iter().any(|(_, tokens)| tokens.is_some()) {
        let mut object = to.object(key);
        for (name, tokens) in details {
            if let Some(tokens) = tokens {
                object.number(name, *tokens);
            }
        }
    }
}

/// What a `finish_reason` stands for.
pub(crate) fn finish_of(reason: &str) -> Finish {
    match reason {
        "stop" => Finish::Stop,
        "length" => Finish::Length,
        "tool_calls" | "function_call" => Finish::ToolCalls,
        "content_filter" => Finish::Filtered,
        _ => Finish::Other,
    }
}
