//! Small bodies: which models there are, and how many tokens a request has.

use crate::dialect::write::Object;

/// The body of `GET /v1beta/models`: names, and whether each has vectors in the place of answers.
pub fn gemini_models<'a>(models: impl Iterator<Item = (&'a str, bool)>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    {
        let mut body = Object::new(&mut out);
        let mut list = body.array("models");
        for (name, embeds) in models {
            let mut one = list.object();
            one.text("name", &format!("models/{name}"));
            one.text("displayName", name);
            let mut methods = one.array("supportedGenerationMethods");
            let all: &[&str] =
                if embeds { &["embedContent", "batchEmbedContents"] } else { &["generateContent", "countTokens"] };
            all.iter().for_each(|method| methods.text(method));
        }
    }
    out
}

/// The body of an answer to `countTokens`.
pub fn gemini_tokens(tokens: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    Object::new(&mut out).number("totalTokens", tokens);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_and_tokens_are_told_as_google_tells_them() {
        let body: serde_json::Value =
            serde_json::from_slice(&gemini_models([("g", false), ("e", true)].into_iter())).unwrap();
        assert_eq!(body["models"][0]["name"], "models/g");
        assert_eq!(body["models"][1]["supportedGenerationMethods"][0], "embedContent");
        assert_eq!(gemini_tokens(7), br#"{"totalTokens":7}"#);
    }
}
