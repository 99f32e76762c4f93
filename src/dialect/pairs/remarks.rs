//! What several pairs need: the words of a refusal, what was left out, pictures in data URLs, ids that Anthropic takes.

use std::borrow::Cow;

use crate::dialect::json::{self, Raw};
use crate::dialect::write;
use crate::dialect::{Dialect, Error};

/// Names of members that were left out, each once.
#[derive(Debug, Default)]
pub(super) struct LeftOut(Vec<String>);

impl LeftOut {
    pub(super) fn add(&mut self, field: &str) {
        if !self.0.iter().any(|old| old == field) {
            self.0.push(field.to_owned());
        }
    }

    pub(super) fn into_names(self) -> Vec<String> {
        self.0
    }
}

/// The refusal of a member that would change the answer's form.
pub(super) fn refused(field: impl Into<String>, to: Dialect, why: &'static str) -> Error {
    Error::Unsupported { field: field.into(), to, why }
}

/// Media type and base64 of `data:image/png;base64,...`.
pub(crate) fn data_url(url: &str) -> Option<(&str, &str)> {
    let (head, data) = url.strip_prefix("data:")?.split_once(',')?;
    let media_type = head.strip_suffix(";base64")?;
    // Parameters such as `;charset=` may follow the type itself.
    Some((media_type.split(';').next().unwrap_or(media_type), data))
}

/// Whether it is an address that a provider can fetch.
pub(crate) fn is_web(url: &str) -> bool {
    url.starts_with("https://") || url.starts_with("http://")
}

/// The id of a call as Anthropic takes it: letters, digits, `_` and `-`. The same id always becomes the same.
pub(crate) fn anthropic_id(id: &str) -> Cow<'_, str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !id.is_empty() && id.chars().all(fits) {
        return Cow::Borrowed(id);
    }
    let made: String = id.chars().map(|c| if fits(c) { c } else { '_' }).collect();
    Cow::Owned(if made.is_empty() { "call".to_owned() } else { made })
}

/// The member under which arguments travel that are no JSON object: a model wrote them, and the conversation shall go on.
pub(crate) const INVALID_ARGUMENTS: &str = "invalid_arguments";

/// Writes the arguments of a call, which chat and responses have as a string, as the object that they are.
pub(super) fn arguments_as_object(out: &mut Vec<u8>, arguments: Raw<'_>) {
    as_object(out, &json::text(arguments).unwrap_or_default());
}

/// The same for the inside of the string, escaped.
pub(super) fn parsed(out: &mut Vec<u8>, inner: &str) {
    let unescaped = serde_json::from_str::<String>(&format!("\"{inner}\"")).unwrap_or_default();
    as_object(out, &unescaped);
}

fn as_object(out: &mut Vec<u8>, text: &str) {
    let text = text.trim();
    if text.is_empty() {
        out.extend_from_slice(b"{}");
    } else if text.starts_with('{') && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
        out.extend_from_slice(text.as_bytes());
    } else {
        write::Object::new(out).text(INVALID_ARGUMENTS, text);
    }
}

/// JSON as the inside of a JSON string.
pub(super) fn quoted(json: &str) -> String {
    let mut out = Vec::with_capacity(json.len() + 16);
    write::string(&mut out, json);
    String::from_utf8(out[1..out.len() - 1].to_vec()).expect("escaped text is text")
}

/// Whether a server that speaks OpenAI takes `reasoning_effort` for that model. Others refuse the whole request for it.
pub(crate) fn reasons(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    let begins = |prefix: &str| name.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix));
    ["gpt-5", "gpt-6", "gpt-oss", "o1", "o3", "o4", "grok-", "magistral"].into_iter().any(begins)
}

/// How a server calls the limit of tokens. OpenAI's own models want the newer name, some others know only the old one.
pub(crate) fn output_tokens_member(model: &str) -> &'static str {
    let name = model.rsplit('/').next().unwrap_or(model);
    let own = ["gpt-3", "gpt-4", "gpt-5", "gpt-6", "chatgpt-", "o1", "o3", "o4"];
    if own.into_iter().any(|prefix| name.starts_with(prefix)) { "max_completion_tokens" } else { "max_tokens" }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    #[test]
    fn data_urls_give_type_and_bytes() {
        assert_eq!(data_url("data:image/png;base64,AAAA"), Some(("image/png", "AAAA")));
        assert_eq!(data_url("data:text/plain;charset=utf-8;base64,AA"), Some(("text/plain", "AA")));
        assert_eq!(data_url("data:text/plain,hello"), None);
        assert_eq!(data_url("https://example.org/a.png"), None);
    }

    #[test]
    fn ids_keep_to_anthropics_alphabet() {
        assert_eq!(anthropic_id("call_1-a"), "call_1-a");
        assert_eq!(anthropic_id("functions.get:0"), "functions_get_0");
        assert_eq!(anthropic_id(""), "call");
    }

    #[test]
    fn arguments_that_are_no_object_are_kept_as_text() {
        let written = |arguments: &str| {
            let mut out = Vec::new();
            let raw = RawValue::from_string(serde_json::to_string(arguments).unwrap()).unwrap();
            arguments_as_object(&mut out, &raw);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(r#"{"a": 1}"#), r#"{"a": 1}"#);
        assert_eq!(written(""), "{}");
        assert_eq!(written("{\"a\":"), r#"{"invalid_arguments":"{\"a\":"}"#);
        assert_eq!(written("[1]"), r#"{"invalid_arguments":"[1]"}"#);
    }
}
