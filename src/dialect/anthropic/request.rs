//! What a request to Anthropic is made of, whichever dialect it comes from.

use crate::dialect::Error;
use crate::dialect::pairs::{data_url, is_web};
use crate::dialect::write::Object;

/// Tokens of thinking below which Anthropic refuses a budget.
const THINKING_MIN_TOKENS: u64 = 1_024;

/// What becomes of the messages.
#[derive(Debug)]
pub(crate) struct Conversation {
    /// The blocks of `system`, a JSON array; `None` if there are none.
    pub(crate) system: Option<String>,
    /// `messages`, a JSON array.
    pub(crate) messages: String,
    /// Whether a call stands there without the signed thinking that led to it.
    pub(crate) has_unsigned_calls: bool,
}

/// How the model shall think.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Thinking {
    /// The value of `thinking`.
    pub(crate) config: Option<String>,
    /// The value of `output_config.effort`.
    pub(crate) effort: Option<&'static str>,
}

/// A model that wants a budget for its thinking cannot have one here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoBudget;

/// An effort of OpenAI's as Anthropic says it. Models before 4.6 are given a budget of tokens, later ones an effort.
///
/// `blocked`: a tool is forced, or calls stand in the conversation without the signed thinking before them. With a budget
/// Anthropic refuses both.
pub(crate) fn thinking(
    effort: &str,
    model: &str,
    max_tokens: u64,
    blocked: bool,
) -> Result<Option<Thinking>, NoBudget> {
    let (effort, budget) = match effort {
        "minimal" | "low" => ("low", THINKING_MIN_TOKENS),
        "medium" => ("medium", 4_096),
        "high" => ("high", 16_384),
        "xhigh" => ("xhigh", 32_768),
        "max" => ("max", 65_536),
        // "none": Anthropic does not think unless it is told to.
        _ => return Ok(None),
    };
    let wants_budget = ["claude-3", "-4-0", "-4-1", "-4-2025", "-4-5", "-4@"].iter().any(|part| model.contains(part));
    if !wants_budget {
        return Ok(Some(Thinking { config: Some(r#"{"type":"adaptive"}"#.to_owned()), effort: Some(effort) }));
    }
    let budget = budget.min(max_tokens.saturating_sub(1));
    if budget < THINKING_MIN_TOKENS || blocked {
        return Err(NoBudget);
    }
    Ok(Some(Thinking { config: Some(format!(r#"{{"type":"enabled","budget_tokens":{budget}}}"#)), effort: None }))
}

/// Writes `source` for an address or for bytes.
pub(crate) fn write_source(block: &mut Object<'_>, url: &str, field: &str) -> Result<(), Error> {
    let mut source = block.object("source");
    if let Some((media_type, data)) = data_url(url) {
        source.text("type", "base64");
        source.text("media_type", media_type);
        source.text("data", data);
    } else if is_web(url) {
        source.text("type", "url");
        source.text("url", url);
    } else {
        return Err(Error::field(field, "must be an http(s) address or a data URL in base64"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_models_get_a_budget_within_the_limit_of_tokens() {
        let budget = |max_tokens| thinking("high", "claude-sonnet-4-5", max_tokens, false);
        let config = |budget: u64| Some(format!(r#"{{"type":"enabled","budget_tokens":{budget}}}"#));
        assert_eq!(budget(64_000), Ok(Some(Thinking { config: config(16_384), effort: None })));
        assert_eq!(budget(4_000), Ok(Some(Thinking { config: config(3_999), effort: None })));
        assert_eq!(budget(1_000), Err(NoBudget));
        assert_eq!(thinking("high", "claude-sonnet-4-5", 64_000, true), Err(NoBudget));
    }

    #[test]
    fn newer_models_get_an_effort() {
        let thinks = thinking("minimal", "claude-opus-4-6", 100, true).unwrap().unwrap();
        assert_eq!((thinks.config.as_deref(), thinks.effort), (Some(r#"{"type":"adaptive"}"#), Some("low")));
        assert_eq!(thinking("none", "claude-opus-4-6", 100, false), Ok(None));
    }
}
