//! Walks what a request says in one pass: text is counted, pictures and documents are, and nothing is built.
//!
//! The walk is serde's own recursion, so what is nested deeper than 128 is refused like any other body that is no JSON.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Facts;
use super::json::{self, Members};

/// Bytes of a text with escapes that are copied for [`Facts::last_text`]; what is longer is cut.
const SAMPLE_MAX_BYTES: usize = 1_024;

/// Counts the text of any value; bytes that are not text (pictures, documents, signatures) are stepped over.
pub(crate) struct Walk<'f, 'a> {
    pub(super) facts: &'f mut Facts<'a>,
    /// Where the last text is put that is a turn's own; none: this is a tool's, a citation's or an instruction.
    pub(super) said: Option<&'f mut Option<Cow<'a, str>>>,
}

impl<'f, 'a> Walk<'f, 'a> {
    /// Of what is nobody's turn.
    pub(crate) fn beside(facts: &'f mut Facts<'a>) -> Self {
        Self { facts, said: None }
    }
}

/// A text with escapes is not in the body as it is; so the beginning of it is copied.
pub(super) fn sample(text: &str) -> Cow<'static, str> {
    let end = (0..=text.len().min(SAMPLE_MAX_BYTES)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    Cow::Owned(text[..end].to_owned())
}

impl<'de> DeserializeSeed<'de> for Walk<'_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<(), E> {
        self.facts.text.add(text);
        if let Some(said) = self.said {
            *said = Some(Cow::Borrowed(text));
        }
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.facts.text.add(text);
        if let Some(said) = self.said {
            *said = Some(sample(text));
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        self.facts.text.add("x");
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        self.facts.text.add("x");
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.facts.text.add("x");
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        loop {
            let walk = Walk { facts: &mut *self.facts, said: self.said.as_deref_mut() };
            if list.next_element_seed(walk)?.is_none() {
                return Ok(());
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(Keys)? {
            match key {
                Inside::Words => {
                    map.next_value_seed(Walk { facts: &mut *self.facts, said: self.said.as_deref_mut() })?;
                }
                other => walk_member(self.facts, other, &mut map)?,
            }
        }
        Ok(())
    }
}

/// Walks the value of a key that does not lead to what a turn says.
pub(super) fn walk_member<'de, A: MapAccess<'de>>(
    facts: &mut Facts<'de>,
    key: Inside,
    map: &mut A,
) -> Result<(), A::Error> {
    match key {
        Inside::Text | Inside::Words | Inside::Content => map.next_value_seed(Walk::beside(facts)),
        Inside::Word | Inside::Role => map.next_value::<IgnoredAny>().map(drop),
        Inside::Kind => {
            count_kind(facts, map.next_value()?);
            Ok(())
        }
        Inside::Bytes => map.next_value_seed(Opaque(facts)),
        Inside::Media => {
            count_media(facts, map.next_value()?);
            Ok(())
        }
        Inside::Images => {
            let raw: &'de RawValue = map.next_value()?;
            facts.images += json::lenient_elements(raw).len() as u64;
            Ok(())
        }
        Inside::File => {
            facts.files += 1;
            map.next_value::<IgnoredAny>().map(drop)
        }
        Inside::Result => {
            facts.tool_results += 1;
            map.next_value_seed(Walk::beside(facts))
        }
    }
}

/// What a key inside of a message leads to.
#[derive(Clone, Copy)]
pub(super) enum Inside {
    Text,
    /// What a part of a turn says.
    Words,
    /// What a turn says; in a part of one it is a tool's or a document's.
    Content,
    /// A word of the protocol: ids.
    Word,
    /// Who says it.
    Role,
    /// `type`.
    Kind,
    /// A string here is no text; anything else is looked into.
    Bytes,
    /// A picture, a recording or a document, as its media type says.
    Media,
    Images,
    File,
    /// What a tool said.
    Result,
}

pub(super) struct Keys;

impl<'de> DeserializeSeed<'de> for Keys {
    type Value = Inside;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Inside, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Keys {
    type Value = Inside;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_str<E>(self, key: &str) -> Result<Inside, E> {
        Ok(match key {
            "type" => Inside::Kind,
            "role" => Inside::Role,
            "text" | "parts" => Inside::Words,
            "content" => Inside::Content,
            "id" | "call_id" | "tool_call_id" | "tool_use_id" | "media_type" | "mimeType" | "mime_type" | "detail"
            | "cache_control" | "toolUseId" => Inside::Word,
            "data" | "file_data" | "url" | "image_url" | "file_url" | "encrypted_content" | "signature" | "bytes"
            | "thoughtSignature" | "thought_signature" | "source" | "uri" => Inside::Bytes,
            // Gemini's and Bedrock's parts are named by their key.
            "inlineData" | "inline_data" | "fileData" | "image" => Inside::Media,
            "images" => Inside::Images,
            "document" | "video" => Inside::File,
            "functionResponse" | "function_response" | "toolResult" => Inside::Result,
            _ => Inside::Text,
        })
    }
}

/// The value of a `type`: some say that the object is a picture, a recording, a document, or what a tool said.
pub(super) fn count_kind(facts: &mut Facts<'_>, kind: &RawValue) {
    match kind.get() {
        r#""image_url""# | r#""input_image""# | r#""image""# => facts.images += 1,
        r#""input_audio""# | r#""audio""# => facts.audio += 1,
        r#""file""# | r#""input_file""# | r#""document""# | r#""video""# => facts.files += 1,
        r#""tool_result""# | r#""function_call_output""# | r#""custom_tool_call_output""# | r#""function_result""# => {
            facts.tool_results += 1
        }
        _ => {}
    }
}

/// Something that is shown; without a media type it is taken for a picture.
fn count_media(facts: &mut Facts<'_>, raw: &RawValue) {
    let media = Members::lenient(raw);
    let kind = media.text("mimeType").or_else(|| media.text("mime_type"));
    match kind.as_deref().and_then(|kind| kind.split('/').next()) {
        Some("audio") => facts.audio += 1,
        Some("image") | None => facts.images += 1,
        Some(_) => facts.files += 1,
    }
}

/// A value whose string is no text; a list or an object is looked into.
struct Opaque<'f, 'a>(&'f mut Facts<'a>);

impl<'de> DeserializeSeed<'de> for Opaque<'_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Opaque<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<(), A::Error> {
        Walk::beside(self.0).visit_seq(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        Walk::beside(self.0).visit_map(map)
    }
}

#[cfg(test)]
mod tests {
    use crate::dialect::{Dialect, Facts, Operation};

    fn chat(body: &str) -> Facts<'_> {
        Facts::read(Dialect::Chat, Operation::Chat, body.as_bytes()).unwrap()
    }

    #[test]
    fn what_a_model_must_hear_see_and_read_is_told_apart() {
        let body = br#"{"contents":[{"parts":[{"inlineData":{"mimeType":"audio/wav","data":"QUJD"}},{"inline_data":{"mime_type":
            "application/pdf","data":"QUJD"}},{"fileData":{"mimeType":"image/png","fileUri":"gs://a"}}]}]}"#;
        let facts = Facts::read(Dialect::Gemini, Operation::Chat, body).unwrap();
        assert_eq!((facts.audio, facts.files, facts.images), (1, 1, 1));
        let facts = chat(
            r#"{"model":"m","messages":[{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"QUJD","format":"wav"}},
            {"type":"file","file":{"file_data":"data:application/pdf;base64,QUJD"}}]}]}"#,
        );
        assert_eq!((facts.audio, facts.files, facts.images), (1, 1, 0));
        let body = br#"{"model":"m","prompt":"What is this?","images":["QUJD","QUJD"]}"#;
        let facts = Facts::read(Dialect::Ollama, Operation::Completions, body).unwrap();
        assert_eq!((facts.images, facts.messages, facts.characters), (2, 1, 13));
    }

    #[test]
    fn what_a_tool_said_is_told_though_none_is_offered() {
        for (dialect, messages) in [
            (Dialect::Chat, r#""messages":[{"role":"tool","tool_call_id":"1","content":"warm"}]"#),
            (
                Dialect::Anthropic,
                r#""messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"1","content":"warm"}]}]"#,
            ),
            (Dialect::Responses, r#""input":[{"type":"function_call_output","call_id":"1","output":"warm"}]"#),
            (
                Dialect::Gemini,
                r#""contents":[{"parts":[{"functionResponse":{"name":"t","response":{}}}],"role":"user"}]"#,
            ),
            (Dialect::Interactions, r#""input":[{"type":"function_result","call_id":"1","result":"warm"}]"#),
            (Dialect::Ollama, r#""messages":[{"role":"tool","tool_name":"t","content":"warm"}]"#),
        ] {
            let body = format!(r#"{{"model":"m",{messages}}}"#);
            let facts = Facts::read(dialect, Operation::Chat, body.as_bytes()).unwrap();
            assert_eq!((facts.tools, facts.tool_results), (0, 1), "{dialect:?}");
        }
        assert_eq!(chat(r#"{"model":"m","messages":[{"role":"user","content":"a"}]}"#).tool_results, 0);
    }
}
