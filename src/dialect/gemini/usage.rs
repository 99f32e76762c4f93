//! `usageMetadata` and `finishReason`. Google counts thoughts beside the candidates.

use crate::dialect::json::{self, Members, Raw};
use crate::dialect::write::Object;
use crate::dialect::{Finish, Usage};

/// Reads `usageMetadata`.
pub(crate) fn usage_of(raw: Raw<'_>) -> Usage {
    let members = Members::lenient(raw);
    let number = |name| members.get(name).and_then(json::whole);
    let (said, thought) = (number("candidatesTokenCount"), number("thoughtsTokenCount"));
    let asked = number("promptTokenCount");
    // What Google's own tools put into the prompt is billed as prompt.
    let asked = asked.map(|asked| asked.saturating_add(number("toolUsePromptTokenCount").unwrap_or(0)));
    let spoke = said.or(thought).is_some();
    Usage {
        input_tokens: asked,
        output_tokens: spoke.then(|| said.unwrap_or(0).saturating_add(thought.unwrap_or(0))),
        cache_read_tokens: number("cachedContentTokenCount"),
        cache_write_tokens: None,
        reasoning_tokens: thought,
        estimated: false,
    }
}

/// Writes `usageMetadata`.
pub(crate) fn write_usage(mut to: Object<'_>, usage: &Usage) {
    let (input, output) = (usage.input_tokens.unwrap_or(0), usage.output_tokens.unwrap_or(0));
    to.number("promptTokenCount", input);
    to.number("candidatesTokenCount", output.saturating_sub(usage.reasoning_tokens.unwrap_or(0)));
    to.number("totalTokenCount", input.saturating_add(output));
    if let Some(read) = usage.cache_read_tokens {
        to.number("cachedContentTokenCount", read);
    }
    if let Some(thought) = usage.reasoning_tokens {
        to.number("thoughtsTokenCount", thought);
    }
}

/// What a `finishReason` stands for.
pub(crate) fn finish_of(reason: &str) -> Finish {
    match reason {
        "STOP" => Finish::Stop,
        "MAX_TOKENS" => Finish::Length,
        "SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" | "IMAGE_SAFETY" | "MODEL_ARMOR"
        | "LANGUAGE" => Finish::Filtered,
        _ => Finish::Other,
    }
}
