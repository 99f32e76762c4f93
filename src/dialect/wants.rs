//! What a request wants of an answer that not every model can give: reasoning, log probabilities, sound.

use serde_json::value::RawValue;

use super::json::{self, Members, Sort, sort};

/// Whether a member asks for reasoning: OpenAI's effort, or an object that every maker writes in its own way. Some of them say
/// that there shall be none.
pub(super) fn reasoning(raw: &RawValue) -> bool {
    match sort(raw) {
        Sort::Flag => json::flag(raw) == Some(true),
        Sort::Text => json::text(raw).is_some_and(|effort| !matches!(&*effort, "" | "none")),
        Sort::Object => {
            let members = Members::lenient(raw);
            let is_off = |(name, raw): (&str, &RawValue)| {
                matches!(
                    (name, raw.get()),
                    ("type", r#""disabled""#)
                        | ("effort", r#""none""#)
                        | ("enabled", "false")
                        | ("thinkingBudget" | "thinking_budget", "0")
                )
            };
            let says = |(_, raw): (&str, &RawValue)| !matches!(raw.get(), "null" | "false");
            !members.iter().any(is_off) && members.iter().any(says)
        }
        Sort::Array | Sort::Number | Sort::Null => false,
    }
}

/// Likewise, among Gemini's settings and those of interactions.
pub(super) fn reasoning_settings(settings: &Members<'_>) -> bool {
    let names = ["thinkingConfig", "thinking_config", "thinking_level", "thinking_summaries"];
    names.iter().any(|name| settings.get(name).is_some_and(reasoning))
}

/// Whether a member asks for log probabilities: a flag, how many of them, or a word in a list of what is to be included.
/// A number counts also where it is 0, which asks for those of the tokens that were taken.
pub(super) fn logprobs(raw: &RawValue) -> bool {
    match sort(raw) {
        Sort::Flag => json::flag(raw) == Some(true),
        Sort::Number => true,
        Sort::Array => json::lenient_elements(raw)
            .into_iter()
            .any(|word| json::inner(word).is_some_and(|word| word.ends_with("logprobs"))),
        Sort::Text | Sort::Object | Sort::Null => false,
    }
}

/// Likewise, among Gemini's settings.
pub(super) fn logprobs_settings(settings: &Members<'_>) -> bool {
    ["responseLogprobs", "response_logprobs", "logprobs"].iter().any(|name| settings.get(name).is_some_and(logprobs))
}

/// Whether a list of what the answer is made of has sound in it.
pub(super) fn sound(raw: &RawValue) -> bool {
    let is_sound = |word: &RawValue| json::inner(word).is_some_and(|word| word.eq_ignore_ascii_case("audio"));
    json::lenient_elements(raw).into_iter().any(is_sound)
}

/// Likewise, among Gemini's settings.
pub(super) fn sound_settings(settings: &Members<'_>) -> bool {
    ["responseModalities", "response_modalities"].iter().any(|name| settings.get(name).is_some_and(sound))
}

#[cfg(test)]
mod tests {
    use crate::dialect::{Dialect, Facts, Operation};

    fn facts(dialect: Dialect, members: &str) -> (bool, bool, bool) {
        let body = format!(r#"{{"model":"m"{members}}}"#);
        let facts = Facts::read(dialect, Operation::Chat, body.as_bytes()).unwrap();
        (facts.reasoning, facts.logprobs, facts.speaks)
    }

    #[test]
    fn reasoning_is_asked_for_in_every_makers_words() {
        for (dialect, asks) in [
            (Dialect::Chat, r#""reasoning_effort":"low""#),
            (Dialect::Chat, r#""reasoning":{"max_tokens":100},"reasoning_effort":"low""#),
            (Dialect::Chat, r#""thinking":{"type":"enabled"}"#),
            (Dialect::Responses, r#""reasoning":{"effort":"high","summary":null}"#),
            (Dialect::Anthropic, r#""thinking":{"type":"enabled","budget_tokens":1024}"#),
            (Dialect::Anthropic, r#""thinking":{"type":"adaptive"}"#),
            (Dialect::Gemini, r#""generationConfig":{"thinkingConfig":{"thinkingBudget":-1}}"#),
            (Dialect::Interactions, r#""generation_config":{"thinking_level":"low"}"#),
            (Dialect::Ollama, r#""think":true"#),
            (Dialect::Ollama, r#""think":"high""#),
        ] {
            assert_eq!(facts(dialect, &format!(",{asks}")), (true, false, false), "{dialect:?} {asks}");
        }
    }

    #[test]
    fn what_says_no_asks_for_nothing() {
        for (dialect, says) in [
            (Dialect::Chat, r#""reasoning_effort":"none","logprobs":false,"modalities":["text"]"#),
            (Dialect::Chat, r#""reasoning_effort":null,"logprobs":null,"top_logprobs":null"#),
            (Dialect::Chat, r#""reasoning":{"enabled":false}"#),
            (Dialect::Responses, r#""reasoning":{"effort":null},"include":["reasoning.encrypted_content"]"#),
            (Dialect::Anthropic, r#""thinking":{"type":"disabled"}"#),
            (
                Dialect::Gemini,
                r#""generationConfig":{"thinkingConfig":{"thinkingBudget":0},"responseModalities":["TEXT"]}"#,
            ),
            (Dialect::Ollama, r#""think":false"#),
        ] {
            assert_eq!(facts(dialect, &format!(",{says}")), (false, false, false), "{dialect:?} {says}");
        }
    }

    #[test]
    fn log_probabilities_and_sound_are_asked_for_in_every_makers_words() {
        for (dialect, asks, told) in [
            (Dialect::Chat, r#""logprobs":true,"top_logprobs":2"#, (false, true, false)),
            (Dialect::Responses, r#""include":["message.output_text.logprobs"]"#, (false, true, false)),
            (Dialect::Responses, r#""top_logprobs":3"#, (false, true, false)),
            (Dialect::Gemini, r#""generationConfig":{"responseLogprobs":true}"#, (false, true, false)),
            (Dialect::Ollama, r#""logprobs":true"#, (false, true, false)),
            (Dialect::Chat, r#""modalities":["text","audio"]"#, (false, false, true)),
            (Dialect::Gemini, r#""generationConfig":{"responseModalities":["AUDIO"]}"#, (false, false, true)),
            (Dialect::Interactions, r#""response_modalities":["audio"]"#, (false, false, true)),
        ] {
            assert_eq!(facts(dialect, &format!(",{asks}")), told, "{dialect:?} {asks}");
        }
        let body = br#"{"model":"m","prompt":"a","logprobs":0}"#;
        assert!(Facts::read(Dialect::Chat, Operation::Completions, body).unwrap().logprobs, "those that were taken");
    }
}
