//! `/api/tags`: which models there are.

use crate::dialect::listing::rfc3339;
use crate::dialect::write::Object;

/// A model as Ollama's clients list it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OllamaModel<'a> {
    /// Its name.
    pub name: &'a str,
    /// When it changed, in seconds since 1970.
    pub modified_unix_s: u64,
    /// Bytes of its file; 0 for a model that is elsewhere.
    pub size_bytes: u64,
    /// SHA-256 of its file in hex; empty for a model that is elsewhere.
    pub digest: &'a str,
    /// What it is made of, such as `llama`; may be empty.
    pub family: &'a str,
    /// Such as `7B`; may be empty.
    pub parameter_size: &'a str,
    /// Such as `Q4_K_M`; may be empty.
    pub quantization: &'a str,
}

/// The body of `GET /api/tags`.
pub fn ollama_tags(models: &[OllamaModel<'_>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + models.len() * 256);
    {
        let mut body = Object::new(&mut out);
        let mut list = body.array("models");
        for model in models {
            let mut one = list.object();
            one.text("name", model.name);
            one.text("model", model.name);
            one.text("modified_at", &rfc3339(model.modified_unix_s));
            one.number("size", model.size_bytes);
            one.text("digest", model.digest);
            let mut details = one.object("details");
            details.text("parent_model", "");
            details.text("format", if model.digest.is_empty() { "" } else { "gguf" });
            details.text("family", model.family);
            {
                let mut families = details.array("families");
                if !model.family.is_empty() {
                    families.text(model.family);
                }
            }
            details.text("parameter_size", model.parameter_size);
            details.text("quantization_level", model.quantization);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_listed_as_ollama_lists_them() {
        let model = OllamaModel {
            name: "qwen2.5:0.5b",
            modified_unix_s: 0,
            size_bytes: 7,
            digest: "ab",
            family: "qwen2",
            parameter_size: "0.5B",
            quantization: "Q4_K_M",
        };
        let body: serde_json::Value = serde_json::from_slice(&ollama_tags(&[model])).unwrap();
        assert_eq!(body["models"][0]["model"], "qwen2.5:0.5b");
        assert_eq!(body["models"][0]["details"]["families"][0], "qwen2");
        assert_eq!(ollama_tags(&[]), br#"{"models":[]}"#);
    }
}
