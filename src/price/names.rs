//! The usual forms of providers' and models' names.

use std::borrow::Cow;

/// The one name that a provider has here, whatever a table or a configuration calls it: `google-vertex`,
/// `vertex_ai-language-models` and `vertex` are one, `fireworks_ai` and `fireworks-ai` too. Lower case, `-` for `_`.
pub fn provider_name(given: &str) -> Cow<'_, str> {
    let given = given.trim();
    let is_plain = !given.bytes().any(|byte| byte == b'_' || byte.is_ascii_uppercase());
    let name = if is_plain { Cow::Borrowed(given) } else { given.to_ascii_lowercase().replace('_', "-").into() };
    let known = match &*name {
        "azure-openai" | "azure-text" => "azure",
        "google" | "google-ai-studio" | "google-genai" => "gemini",
        "amazon-bedrock" | "aws-bedrock" | "bedrock-converse" | "bedrock-mantle" => "bedrock",
        "aws-sagemaker" | "sagemaker-chat" => "sagemaker",
        "text-completion-openai" => "openai",
        "text-completion-codestral" => "codestral",
        "cohere-chat" => "cohere",
        "hugging-face" => "huggingface",
        "together" | "togetherai" => "together-ai",
        "mistralai" => "mistral",
        "moonshotai" => "moonshot",
        "fireworks" | "fireworks-ai-embedding-models" => "fireworks-ai",
        "google-vertex" | "google-vertex-anthropic" | "vertex-ai" => "vertex",
        other if other.starts_with("vertex-ai-") => "vertex",
        _ => return name,
    };
    known.into()
}

/// Regions that Bedrock's inference profiles and model ids begin with.
const REGIONS: [&str; 9] = ["global.", "us.", "eu.", "apac.", "jp.", "au.", "ca.", "us-gov.", "sa."];

/// The form without the path that `provider`'s API has before a model: `models/`, `publishers/google/models/`, an ARN, the
/// provider's own name.
pub(super) fn without_path<'a>(provider: &str, model: &'a str) -> &'a str {
    let model = match model.rsplit_once("/models/") {
        Some((_, last)) if provider == "vertex" || provider == "gemini" => last,
        _ => model,
    };
    let model = model.strip_prefix("models/").unwrap_or(model);
    if provider == "bedrock" && model.starts_with("arn:") {
        return model.rsplit('/').next().unwrap_or(model);
    }
    match model.split_once('/') {
        Some((first, rest)) if provider_name(first) == provider => rest,
        _ => model,
    }
}

/// The form without what does not make another model: Bedrock's region, who tuned it, Ollama's `:latest`.
pub(super) fn without_variant<'a>(provider: &str, model: &'a str) -> &'a str {
    if provider == "bedrock" {
        return REGIONS.iter().find_map(|region| model.strip_prefix(region)).unwrap_or(model);
    }
    // As in ft:gpt-4o-mini-2024-07-18:who:name:id
    if let Some(tuned) = model.strip_prefix("ft:") {
        let base = tuned.split(':').next().unwrap_or(tuned);
        return &model[..3 + base.len()];
    }
    model.strip_suffix(":latest").unwrap_or(model)
}

/// The form without the date or number of its release, and what is between them.
pub(super) fn without_release(model: &str) -> Option<&str> {
    let (base, release) = match model.rsplit_once('@') {
        Some(parts) => parts,
        None => {
            // -2024-08-06 is three parts, -20250929 and -001 are one.
            let dated =
                model.len().checked_sub(11).filter(|&at| model.is_char_boundary(at)).map(|at| model.split_at(at));
            let dated = dated.and_then(|(base, date)| Some((base, date.strip_prefix('-')?)));
            match dated {
                Some((base, date)) if is_date(date) => (base, date),
                _ => model.rsplit_once('-')?,
            }
        }
    };
    (is_release(release) && !base.is_empty()).then_some(base)
}

/// Whether `text` is the date or number of a release: `2024-08-06`, `20250929`, `001`, `latest`, `default`.
pub(super) fn is_release(text: &str) -> bool {
    is_date(text) || matches!(text, "latest" | "default") || (text.len() == 3 && text.starts_with("00") && digits(text))
}

/// Whether `text` is a date of this century.
pub(super) fn is_date(text: &str) -> bool {
    let form: Vec<usize> = text.split('-').map(|part| if digits(part) { part.len() } else { 0 }).collect();
    text.starts_with("20") && (form == [8] || form == [4, 2, 2])
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_has_one_name() {
        for name in ["google-vertex", "google-vertex-anthropic", "vertex_ai", "vertex_ai-anthropic_models", "Vertex"] {
            assert_eq!(provider_name(name), "vertex", "{name}");
        }
        assert_eq!(provider_name("bedrock_converse"), provider_name("amazon-bedrock"));
        assert_eq!(provider_name("fireworks_ai"), "fireworks-ai");
        assert_eq!(provider_name("our-own"), "our-own");
    }

    #[test]
    fn paths_before_a_model_are_no_part_of_its_name() {
        assert_eq!(without_path("gemini", "models/gemini-2.5-pro"), "gemini-2.5-pro");
        let vertex = "projects/p/locations/l/publishers/google/models/gemini-2.5-pro";
        assert_eq!(without_path("vertex", vertex), "gemini-2.5-pro");
        assert_eq!(without_path("openai", "openai/gpt-4o"), "gpt-4o");
        assert_eq!(without_path("groq", "openai/gpt-oss-120b"), "openai/gpt-oss-120b", "whose model it is stays");
        let arn = "arn:aws:bedrock:us-east-1:1234:inference-profile/us.anthropic.claude-sonnet-4-5-20250929-v1:0";
        assert_eq!(without_path("bedrock", arn), "us.anthropic.claude-sonnet-4-5-20250929-v1:0");
    }

    #[test]
    fn variants_and_releases_come_off() {
        assert_eq!(without_variant("bedrock", "eu.amazon.nova-lite-v1:0"), "amazon.nova-lite-v1:0");
        assert_eq!(without_variant("openai", "ft:gpt-4o-2024-08-06:acme::x1"), "ft:gpt-4o-2024-08-06");
        assert_eq!(without_variant("ollama", "llama3.1:latest"), "llama3.1");
        assert_eq!(without_release("gpt-4o-2024-08-06"), Some("gpt-4o"));
        assert_eq!(without_release("claude-sonnet-4-5-20250929"), Some("claude-sonnet-4-5"));
        assert_eq!(without_release("claude-sonnet-4-5@20250929"), Some("claude-sonnet-4-5"));
        assert_eq!(without_release("gemini-2.0-flash-001"), Some("gemini-2.0-flash"));
        assert_eq!(without_release("mistral-small-latest"), Some("mistral-small"));
        for whole in ["gpt-4o", "o3", "", "-", "é", "éééééé-2024", "20250929", "@20250929", "-2024-08-06", "qwen-72b"]
        {
            assert_eq!(without_release(whole), None, "{whole}");
        }
    }
}
