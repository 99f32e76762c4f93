//! Which way of speaking a body is written in, and what it asks for.

use std::fmt;

/// A way of speaking: the shape of bodies, of the frames of a stream and of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dialect {
    /// OpenAI's chat completions, and everything of OpenAI's beside responses: completions, embeddings, moderations.
    Chat,
    /// OpenAI's responses.
    Responses,
    /// Anthropic's messages.
    Anthropic,
    /// Google's `generateContent` and `embedContent`.
    Gemini,
    /// Google's Interactions API: a language of callers only.
    Interactions,
    /// Ollama's chat, generate, tags and embed.
    Ollama,
    /// AWS Bedrock's Converse.
    Bedrock,
    /// The Open Inference Protocol, version 2: a language of models' servers only.
    Oip,
}

impl Dialect {
    /// Every dialect, in the order of their declaration.
    pub const ALL: [Self; 8] = [
        Self::Chat,
        Self::Responses,
        Self::Anthropic,
        Self::Gemini,
        Self::Interactions,
        Self::Ollama,
        Self::Bedrock,
        Self::Oip,
    ];

    /// Its name in configuration, headers and records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chat => "openai",
            Self::Responses => "responses",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Interactions => "interactions",
            Self::Ollama => "ollama",
            Self::Bedrock => "bedrock",
            Self::Oip => "oip",
        }
    }

    /// The `content-type` of a stream in this dialect.
    pub const fn stream_content_type(self) -> &'static str {
        match self {
            Self::Chat | Self::Responses | Self::Anthropic | Self::Gemini | Self::Interactions | Self::Oip => {
                "text/event-stream"
            }
            Self::Ollama => "application/x-ndjson",
            Self::Bedrock => "application/vnd.amazon.eventstream",
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// The next turn of a conversation: the only one that is translated between dialects.
    Chat,
    /// Text that follows a text (`/v1/completions`, Ollama's `generate`).
    Completions,
    /// Vectors of texts.
    Embeddings,
    /// Whether a text breaks rules.
    Moderations,
    /// How many tokens a request would have.
    CountTokens,
}

impl Operation {
    /// Its name in records, after the GenAI conventions of OpenTelemetry where they have one.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completions => "text_completion",
            Self::Embeddings => "embeddings",
            Self::Moderations => "moderations",
            Self::CountTokens => "count_tokens",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a model stopped, as far as records and caches care. Answers are translated from the word itself, not from this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Finish {
    /// It was done, or met a stop sequence.
    Stop,
    /// It met the limit of tokens, its own or the request's.
    Length,
    /// It calls tools.
    ToolCalls,
    /// Somebody's filter or its own refusal stopped it.
    Filtered,
    /// Anything else: a paused turn, a word that is newer than this file.
    Other,
}
