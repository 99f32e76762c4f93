//! `usageMetadata` and `finishReason`. Google counts thoughts beside the candidates.

use crate::dialect::json::{self, Members, Raw};
use crate::dialect::write::Object;
use crate::dialect::{Finish, Served, Usage};

/// Reads `usageMetadata`.
pub(crate) fn usage_of(raw: Raw<'_>) -> Usage {
    let members = Members::lenient(raw);
    let number = |name| members.get(name).and_then(json::whole);
    let (said, thought) = (number("candidatesTokenCount"), number("thoughtsTokenCount"));
    let asked = number("promptTokenCount");
    // What Google's own tools put into the prompt is billed as prompt.
    let asked = asked.map(|asked| asked.saturating_add(number("toolUsePromptTokenCount").unwrap_or(0)));
    let spoke = said.or(thought).is_some();
    let of = |details, modality| members.get(details).and_then(|raw| tokens_of(raw, modality));
    let fresh = |modality| {
        let cached = of("cacheTokensDetails", modality).unwrap_or(0);
        of("promptTokensDetails", modality).map(|all| all.saturating_sub(cached))
    };
    Usage {
        input_tokens: asked,
        output_tokens: spoke.then(|| said.unwrap_or(0).saturating_add(thought.unwrap_or(0))),
        cache_read_tokens: number("cachedContentTokenCount"),
        input_audio_tokens: fresh("AUDIO"),
        input_image_tokens: fresh("IMAGE"),
        reasoning_tokens: thought,
        output_audio_tokens: of("candidatesTokensDetails", "AUDIO"),
        output_image_tokens: of("candidatesTokensDetails", "IMAGE"),
        served: Served::read(members.get("trafficType")),
        ..Usage::default()
    }
}

/// The tokens of one modality in a list of all of them.
fn tokens_of(details: Raw<'_>, modality: &str) -> Option<u64> {
    let mut each = json::lenient_elements(details).into_iter().map(Members::lenient);
    each.find(|one| one.text("modality").as_deref() == Some(modality))?.get("tokenCount").and_then(json::whole)
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
    let told = |sound, pictures| [("AUDIO", sound), ("IMAGE", pictures)];
    let (input, output) = (
        told(usage.input_audio_tokens, usage.input_image_tokens),
        told(usage.output_audio_tokens, usage.output_image_tokens),
    );
    write_details(&mut to, "promptTokensDetails", "tokenCount", input);
    write_details(&mut to, "candidatesTokensDetails", "tokenCount", output);
}

/// The tokens of some modalities, as far as there are any; `count` is the member's name for them.
pub(crate) fn write_details(to: &mut Object<'_>, key: &str, count: &str, told: [(&str, Option<u64>); 2]) {
    let told = || told.into_iter().filter_map(|(modality, tokens)| Some((modality, tokens.filter(|&n| n > 0)?)));
    if told().next().is_some() {
        let mut list = to.array(key);
        for (modality, tokens) in told() {
            let mut one = list.object();
            one.text("modality", modality);
            one.number(count, tokens);
        }
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
