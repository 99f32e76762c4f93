//! What kinds of providers there are, which languages each speaks and what it needs to be reached.

use std::fmt;

use serde::Deserialize;

/// What a provider is: it decides its address, its proof of identity and the languages it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// OpenAI's own service.
    Openai,
    /// Azure OpenAI, by its v1 address or, with `api_version`, by deployments.
    AzureOpenai,
    /// Anthropic's own service.
    Anthropic,
    /// Google's Gemini API (AI Studio keys).
    Gemini,
    /// Google Cloud's Vertex AI (service accounts): Gemini, Claude and what speaks OpenAI there.
    Vertex,
    /// Mistral's own service.
    Mistral,
    /// Amazon Bedrock: Converse.
    Bedrock,
    /// An Amazon SageMaker endpoint whose container speaks OpenAI chat (TGI, vLLM, DJL).
    Sagemaker,
    /// Hugging Face's router, or an Inference Endpoint of one's own.
    Huggingface,
    /// Groq.
    Groq,
    /// A vLLM server.
    Vllm,
    /// An Ollama server.
    Ollama,
    /// Anything else that speaks OpenAI.
    OpenaiCompatible,
    /// A server of the Open Inference Protocol, version 2: KServe, Triton, MLServer, another Forebay.
    Oip,
}

/// The language of a request and of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wire {
    /// OpenAI's REST API.
    Openai,
    /// Anthropic's Messages API.
    Anthropic,
    /// Gemini's generateContent.
    Gemini,
    /// Ollama's own API.
    Ollama,
    /// Bedrock's Converse.
    Converse,
    /// The Open Inference Protocol, version 2.
    Oip,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A conversation's next message.
    Chat,
    /// A text's continuation.
    Completions,
    /// OpenAI's responses.
    Responses,
    /// Vectors of texts.
    Embeddings,
    /// Vectors of several texts, where that is an operation of its own (Gemini).
    EmbeddingsBatch,
    /// Whether a text is harmful.
    Moderations,
    /// How many tokens a request has.
    CountTokens,
    /// Which models there are.
    Models,
    /// Tensors in, tensors out.
    Infer,
}

/// One thing to ask in one language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Call {
    /// The language.
    pub wire: Wire,
    /// What for.
    pub operation: Operation,
}

impl Call {
    /// `operation` in `wire`.
    pub const fn new(wire: Wire, operation: Operation) -> Self {
        Self { wire, operation }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in the language of {}", self.operation.as_str(), self.wire.as_str())
    }
}

impl Wire {
    /// The word in texts and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Ollama => "ollama",
            Self::Converse => "converse",
            Self::Oip => "oip",
        }
    }
}

impl Operation {
    /// The word in texts and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completions => "completions",
            Self::Responses => "responses",
            Self::Embeddings => "embeddings",
            Self::EmbeddingsBatch => "embeddings_batch",
            Self::Moderations => "moderations",
            Self::CountTokens => "count_tokens",
            Self::Models => "models",
            Self::Infer => "infer",
        }
    }
}

impl Kind {
    /// Every kind, for tables and tests.
    pub const ALL: [Self; 14] = [
        Self::Openai,
        Self::AzureOpenai,
        Self::Anthropic,
        Self::Gemini,
        Self::Vertex,
        Self::Mistral,
        Self::Bedrock,
        Self::Sagemaker,
        Self::Huggingface,
        Self::Groq,
        Self::Vllm,
        Self::Ollama,
        Self::OpenaiCompatible,
        Self::Oip,
    ];

    /// The word of the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::AzureOpenai => "azure-openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Vertex => "vertex",
            Self::Mistral => "mistral",
            Self::Bedrock => "bedrock",
            Self::Sagemaker => "sagemaker",
            Self::Huggingface => "huggingface",
            Self::Groq => "groq",
            Self::Vllm => "vllm",
            Self::Ollama => "ollama",
            Self::OpenaiCompatible => "openai-compatible",
            Self::Oip => "oip",
        }
    }

    /// Whether it takes `call`, as its makers document it. A server behind `openai-compatible` may still say no.
    pub const fn takes(self, call: Call) -> bool {
        use Operation as O;
        match (self, call.wire) {
            (Self::Openai | Self::AzureOpenai | Self::Vllm | Self::OpenaiCompatible, Wire::Openai) => {
                !matches!(call.operation, O::CountTokens | O::EmbeddingsBatch | O::Infer)
            }
            (Self::Ollama, Wire::Openai) => {
                matches!(call.operation, O::Chat | O::Completions | O::Responses | O::Embeddings | O::Models)
            }
            (Self::Mistral, Wire::Openai) => {
                matches!(call.operation, O::Chat | O::Embeddings | O::Moderations | O::Models)
            }
            (Self::Groq | Self::Huggingface, Wire::Openai) => {
                matches!(call.operation, O::Chat | O::Responses | O::Models)
            }
            (Self::Gemini, Wire::Openai) => matches!(call.operation, O::Chat | O::Embeddings | O::Models),
            (Self::Vertex | Self::Sagemaker | Self::Bedrock, Wire::Openai) => matches!(call.operation, O::Chat),
            (Self::Anthropic | Self::Vllm, Wire::Anthropic) => {
                matches!(call.operation, O::Chat | O::CountTokens | O::Models)
            }
            (Self::Vertex, Wire::Anthropic) => matches!(call.operation, O::Chat | O::CountTokens),
            (Self::Ollama, Wire::Anthropic) => matches!(call.operation, O::Chat),
            (Self::Gemini, Wire::Gemini) => {
                matches!(call.operation, O::Chat | O::CountTokens | O::Embeddings | O::EmbeddingsBatch | O::Models)
            }
            (Self::Vertex, Wire::Gemini) => matches!(call.operation, O::Chat | O::CountTokens | O::Embeddings),
            (Self::Ollama, Wire::Ollama) => {
                matches!(call.operation, O::Chat | O::Completions | O::Embeddings | O::Models)
            }
            (Self::Bedrock, Wire::Converse) => matches!(call.operation, O::Chat | O::CountTokens),
            (Self::Oip, Wire::Oip) => matches!(call.operation, O::Infer | O::Completions | O::Models),
            _ => false,
        }
    }

    /// The language in which it loses the least, first; others that it speaks follow.
    pub const fn wires(self) -> &'static [Wire] {
        match self {
            Self::Anthropic => &[Wire::Anthropic],
            Self::Gemini => &[Wire::Gemini, Wire::Openai],
            Self::Vertex => &[Wire::Gemini, Wire::Anthropic, Wire::Openai],
            Self::Bedrock => &[Wire::Converse, Wire::Openai],
            Self::Vllm => &[Wire::Openai, Wire::Anthropic],
            Self::Ollama => &[Wire::Ollama, Wire::Openai, Wire::Anthropic],
            Self::Oip => &[Wire::Oip],
            Self::Openai
            | Self::AzureOpenai
            | Self::Mistral
            | Self::Sagemaker
            | Self::Huggingface
            | Self::Groq
            | Self::OpenaiCompatible => &[Wire::Openai],
        }
    }

    /// Whether nobody gets in without a key.
    pub(super) const fn needs_key(self) -> bool {
        !matches!(self, Self::Vllm | Self::Ollama | Self::OpenaiCompatible | Self::Oip | Self::Huggingface)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_reads_back_its_own_word() {
        #[derive(Deserialize)]
        struct Row {
            kind: Kind,
        }
        for kind in Kind::ALL {
            let row: Row = toml::from_str(&format!("kind = \"{kind}\"")).unwrap();
            assert_eq!(row.kind, kind);
        }
    }

    #[test]
    fn every_language_that_a_kind_lists_has_something_to_ask_for() {
        for kind in Kind::ALL {
            for wire in kind.wires() {
                let main = if *wire == Wire::Oip { Operation::Infer } else { Operation::Chat };
                assert!(kind.takes(Call::new(*wire, main)), "{kind} {wire:?}");
            }
        }
        assert!(!Kind::Anthropic.takes(Call::new(Wire::Openai, Operation::Chat)));
        assert!(!Kind::Openai.takes(Call::new(Wire::Openai, Operation::Infer)));
    }
}
