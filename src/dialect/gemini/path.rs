//! Where Google has the model and the operation: in the path, not in the body.

use crate::dialect::Operation;

/// What a path asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GeminiCall<'a> {
    /// The model's name, without `models/`.
    pub model: &'a str,
    /// The operation.
    pub operation: Operation,
    /// Whether the answer is a stream.
    pub stream: bool,
    /// Whether many requests come in one body (`batchEmbedContents`).
    pub batch: bool,
}

/// Reads the path of the Gemini API (`/v1beta/models/{model}:{method}`, `v1` and `v1alpha` too) and of Vertex AI
/// (`/v1/projects/…/locations/…/publishers/google/models/{model}:{method}`), without a query. None for any other.
///
/// A stream is one of events where the query has `alt=sse`; without it Google answers with a JSON array
/// ([`GeminiArray`](super::GeminiArray)), which no SDK asks for.
pub fn gemini_call(path: &str) -> Option<GeminiCall<'_>> {
    let rest = ["/v1beta/", "/v1/", "/v1alpha/", "/v1beta1/"].iter().find_map(|start| path.strip_prefix(start))?;
    let (named, method) = rest.rsplit_once(':')?;
    let model = match named.strip_prefix("models/").or_else(|| named.strip_prefix("tunedModels/")) {
        Some(model) => model,
        None => {
            let (place, model) = named.rsplit_once("/models/")?;
            if !place.starts_with("projects/") && !place.starts_with("publishers/") {
                return None;
            }
            model
        }
    };
    let (operation, stream, batch) = match method {
        "generateContent" => (Operation::Chat, false, false),
        "streamGenerateContent" => (Operation::Chat, true, false),
        "embedContent" => (Operation::Embeddings, false, false),
        "batchEmbedContents" => (Operation::Embeddings, false, true),
        "countTokens" => (Operation::CountTokens, false, false),
        _ => return None,
    };
    (!model.is_empty() && !model.starts_with('/')).then_some(GeminiCall { model, operation, stream, batch })
}

/// The method of an operation. Vectors are always asked for in a batch.
fn method(operation: Operation, stream: bool) -> &'static str {
    match (operation, stream) {
        (Operation::Embeddings, _) => "batchEmbedContents",
        (Operation::CountTokens, _) => "countTokens",
        (_, true) => "streamGenerateContent?alt=sse",
        (_, false) => "generateContent",
    }
}

/// The path and query at the Gemini API.
pub fn gemini_path(model: &str, operation: Operation, stream: bool) -> String {
    let model = model.strip_prefix("models/").unwrap_or(model);
    format!("/v1beta/models/{model}:{}", method(operation, stream))
}

/// The path and query at Vertex AI.
pub fn vertex_path(project: &str, location: &str, model: &str, operation: Operation, stream: bool) -> String {
    let method = method(operation, stream);
    format!("/v1/projects/{project}/locations/{location}/publishers/google/models/{model}:{method}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_houses_of_google_are_read() {
        let call = gemini_call("/v1beta/models/gemini-2.5-pro:streamGenerateContent").unwrap();
        assert_eq!((call.model, call.operation, call.stream), ("gemini-2.5-pro", Operation::Chat, true));
        let vertex = "/v1/projects/p/locations/europe-west1/publishers/google/models/gemini-2.5-pro:generateContent";
        assert_eq!(gemini_call(vertex).unwrap().model, "gemini-2.5-pro");
        assert!(gemini_call("/v1beta/models/e:batchEmbedContents").unwrap().batch);
        let prefixed = gemini_call("/v1beta/models/groq/llama-3:generateContent").unwrap();
        assert_eq!(prefixed.model, "groq/llama-3", "routes have names with a prefix");
        for other in [
            "",
            "/v1beta/models/",
            "/v1beta/models/:generateContent",
            "/v1beta/models//b:generateContent",
            "/v1beta/models/a:predict",
            "/v1/chat/completions",
            "/v1beta/cachedContents/models/x:generateContent",
        ] {
            assert_eq!(gemini_call(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let path = gemini_path("models/g", Operation::Chat, true);
        assert_eq!(path, "/v1beta/models/g:streamGenerateContent?alt=sse");
        assert!(gemini_call(path.split('?').next().unwrap()).unwrap().stream);
        let path = vertex_path("p", "global", "g", Operation::Embeddings, false);
        assert_eq!(gemini_call(&path).unwrap().operation, Operation::Embeddings);
    }
}
