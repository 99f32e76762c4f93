//! LiteLLM's names for providers, and what they are here.

/// What is known of a prefix such as `groq/`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vendor {
    /// The `kind` of a `[[provider]]`.
    pub(super) kind: &'static str,
    /// Where it is, where the kind does not know.
    pub(super) base_url: Option<&'static str>,
    /// The variable that LiteLLM takes the key from if the file names none; none: it needs no key.
    pub(super) key_variable: Option<&'static str>,
}

const fn known(kind: &'static str, key_variable: &'static str) -> Vendor {
    Vendor { kind, base_url: None, key_variable: Some(key_variable) }
}

const fn compatible(base_url: &'static str, key_variable: &'static str) -> Vendor {
    Vendor { kind: "openai-compatible", base_url: Some(base_url), key_variable: Some(key_variable) }
}

const fn open(kind: &'static str, base_url: Option<&'static str>) -> Vendor {
    Vendor { kind, base_url, key_variable: None }
}

/// By the text before the first `/` of LiteLLM's `model`, or its `custom_llm_provider`.
pub(super) fn vendor(prefix: &str) -> Option<Vendor> {
    Some(match prefix {
        "openai" | "text-completion-openai" => known("openai", "OPENAI_API_KEY"),
        "azure" | "azure_text" => known("azure-openai", "AZURE_API_KEY"),
        "anthropic" | "anthropic_text" => known("anthropic", "ANTHROPIC_API_KEY"),
        "gemini" => known("gemini", "GEMINI_API_KEY"),
        "vertex_ai" | "vertex_ai_beta" => known("vertex", "GOOGLE_APPLICATION_CREDENTIALS"),
        "mistral" => known("mistral", "MISTRAL_API_KEY"),
        "codestral" => {
            Vendor { base_url: Some("https://codestral.mistral.ai/v1"), ..known("mistral", "CODESTRAL_API_KEY") }
        }
        "bedrock" | "bedrock_converse" => known("bedrock", "AWS_SHARED_CREDENTIALS_FILE"),
        "sagemaker" | "sagemaker_chat" => known("sagemaker", "AWS_SHARED_CREDENTIALS_FILE"),
        "huggingface" => known("huggingface", "HUGGINGFACE_API_KEY"),
        "groq" => known("groq", "GROQ_API_KEY"),
        "hosted_vllm" | "vllm" => open("vllm", None),
        "ollama" | "ollama_chat" => open("ollama", Some("http://localhost:11434")),
        "litellm_proxy" | "custom_openai" | "openai_like" | "llamafile" | "lm_studio" => {
            open("openai-compatible", None)
        }
        "deepseek" => compatible("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
        "xai" => compatible("https://api.x.ai/v1", "XAI_API_KEY"),
        "openrouter" => compatible("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
        "together_ai" => compatible("https://api.together.xyz/v1", "TOGETHERAI_API_KEY"),
        "fireworks_ai" => compatible("https://api.fireworks.ai/inference/v1", "FIREWORKS_AI_API_KEY"),
        "perplexity" => compatible("https://api.perplexity.ai", "PERPLEXITYAI_API_KEY"),
        "cerebras" => compatible("https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
        "nvidia_nim" => compatible("https://integrate.api.nvidia.com/v1", "NVIDIA_NIM_API_KEY"),
        "deepinfra" => compatible("https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY"),
        "sambanova" => compatible("https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY"),
        "moonshot" => compatible("https://api.moonshot.ai/v1", "MOONSHOT_API_KEY"),
        _ => return None,
    })
}

/// The prefix that LiteLLM would find for a model that has none.
pub(super) fn guessed(model: &str) -> Option<&'static str> {
    const OPENAI: [&str; 10] = [
        "gpt-",
        "o1",
        "o3",
        "o4",
        "chatgpt-",
        "text-embedding-",
        "text-davinci-",
        "ft:gpt-",
        "omni-moderation-",
        "text-moderation-",
    ];
    const BEDROCK: [&str; 8] = ["anthropic.", "amazon.", "meta.", "mistral.", "cohere.", "ai21.", "us.", "eu."];
    if OPENAI.iter().any(|start| model.starts_with(start)) {
        Some("openai")
    } else if model.starts_with("claude") {
        Some("anthropic")
    } else if BEDROCK.iter().any(|start| model.starts_with(start)) {
        Some("bedrock")
    } else if model.starts_with("gemini-") {
        Some("vertex_ai")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_without_prefix_is_whose_name_says_so() {
        assert_eq!(guessed("gpt-4o"), Some("openai"));
        assert_eq!(guessed("claude-x"), Some("anthropic"));
        assert_eq!(guessed("us.anthropic.claude-x-v1:0"), Some("bedrock"));
        assert_eq!(guessed("llama"), None);
        assert!(guessed("o3-mini").and_then(vendor).is_some());
        assert!(vendor("replicate").is_none());
    }
}
