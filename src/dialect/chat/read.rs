//! Answers and chunks as a server sends them, borrowed. Whatever is not named here is not needed.

use serde::Deserialize;

use crate::dialect::json::{self, Members, Raw};
use crate::dialect::{Served, Usage};

use super::usage::usage_of;

/// A chunk of a stream.
#[derive(Debug, Deserialize)]
pub(crate) struct Chunk<'a> {
    #[serde(borrow, default)]
    pub(crate) model: Option<Raw<'a>>,
    #[serde(borrow, default)]
    pub(crate) choices: Vec<ChunkChoice<'a>>,
    #[serde(borrow, default)]
    pub(crate) usage: Option<Raw<'a>>,
    #[serde(borrow, default)]
    pub(crate) error: Option<Raw<'a>>,
    /// Groq tells the usage here.
    #[serde(borrow, default)]
    pub(crate) x_groq: Option<Raw<'a>>,
    #[serde(borrow, default)]
    pub(crate) service_tier: Option<Raw<'a>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ChunkChoice<'a> {
    #[serde(default)]
    pub(crate) index: u64,
    #[serde(borrow, default)]
    pub(crate) delta: Option<Delta<'a>>,
    /// The text of a legacy completion.
    #[serde(borrow, default)]
    pub(crate) text: Option<Raw<'a>>,
    #[serde(borrow, default)]
    pub(crate) finish_reason: Option<Raw<'a>>,
}

/// What is new.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Delta<'a> {
    #[serde(borrow, default)]
    pub(crate) role: Option<Raw<'a>>,
    #[serde(borrow, default)]
    pub(crate) content: Option<Raw<'a>>,
    #[serde(borrow, default)]
    pub(crate) refusal: Option<Raw<'a>>,
    /// DeepSeek's, vLLM's and many others' word for the text of a model's reasoning.
    #[serde(borrow, default)]
    pub(crate) reasoning_content: Option<Raw<'a>>,
    /// OpenRouter's, Groq's and newer vLLM's.
    #[serde(borrow, default)]
    pub(crate) reasoning: Option<Raw<'a>>,
    #[serde(borrow, default)]
    pub(crate) tool_calls: Option<Vec<ToolCallDelta<'a>>>,
}

impl<'a> Delta<'a> {
    /// The reasoning under whichever name.
    pub(crate) fn thought(&self) -> Option<Raw<'a>> {
        self.reasoning_content.or(self.reasoning)
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct ToolCallDelta<'a> {
    #[serde(default)]
    pub(crate) index: Option<u64>,
    #[serde(borrow, default)]
    pub(crate) id: Option<Raw<'a>>,
    #[serde(borrow, default)]
    pub(crate) function: Option<FunctionDelta<'a>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct FunctionDelta<'a> {
    #[serde(borrow, default)]
    pub(crate) name: Option<Raw<'a>>,
    #[serde(borrow, default)]
    pub(crate) arguments: Option<Raw<'a>>,
}

/// A whole answer.
#[derive(Debug, Deserialize)]
pub(crate) struct Completion<'a> {
    #[serde(borrow, default)]
    pub(crate) model: Option<Raw<'a>>,
    #[serde(borrow)]
    pub(crate) choices: Vec<Choice<'a>>,
    #[serde(borrow, default)]
    pub(crate) usage: Option<Raw<'a>>,
    #[serde(borrow, default)]
    pub(crate) service_tier: Option<Raw<'a>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Choice<'a> {
    #[serde(borrow, default)]
    pub(crate) message: Option<Message<'a>>,
    #[serde(borrow, default)]
    pub(crate) finish_reason: Option<Raw<'a>>,
}

/// The message of an answer.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Message<'a> {
    #[serde(borrow, default)]
    pub(crate) content: Option<Raw<'a>>,
    #[serde(borrow, default)]
    pub(crate) refusal: Option<Raw<'a>>,
    #[serde(borrow, default)]
    pub(crate) reasoning_content: Option<Raw<'a>>,
    #[serde(borrow, default)]
    pub(crate) reasoning: Option<Raw<'a>>,
    #[serde(borrow, default)]
    pub(crate) tool_calls: Option<Vec<ToolCallDelta<'a>>>,
}

impl<'a> Message<'a> {
    /// The reasoning under whichever name.
    pub(crate) fn thought(&self) -> Option<Raw<'a>> {
        self.reasoning_content.or(self.reasoning)
    }
}

/// Usage of a chunk, wherever it stands.
pub(crate) fn usage_in(chunk: &Chunk<'_>) -> Option<Usage> {
    let usage = usage_of(chunk.usage.or_else(|| Members::lenient(chunk.x_groq?).get("usage"))?);
    Some(Usage { served: Served::read(chunk.service_tier), ..usage })
}

impl Completion<'_> {
    /// What it used, and how it was served.
    pub(crate) fn used(&self) -> Option<Usage> {
        Some(Usage { served: Served::read(self.service_tier), ..usage_of(self.usage?) })
    }
}

/// Words and reasoning of a `content`, both escaped. It is a string; Mistral's reasoning models send parts, with parts in
/// those of their thinking.
pub(crate) fn spoken(content: Option<Raw<'_>>) -> (String, String) {
    let (mut words, mut thought) = (String::new(), String::new());
    let Some(content) = content else { return (words, thought) };
    if let Some(text) = json::inner(content) {
        words.push_str(text);
        return (words, thought);
    }
    for part in json::lenient_elements(content) {
        let part = Members::lenient(part);
        push_text(&part, &mut words);
        for inside in part.get("thinking").map(json::lenient_elements).unwrap_or_default() {
            push_text(&Members::lenient(inside), &mut thought);
        }
    }
    (words, thought)
}

fn push_text(part: &Members<'_>, to: &mut String) {
    to.push_str(part.get("text").and_then(json::inner).unwrap_or_default());
}
