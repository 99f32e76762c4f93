//! Walks the conversation of a request in one pass: text is counted, pictures and documents are, and nothing is built.
//!
//! The walk is serde's own recursion, so what is nested deeper than 128 is refused like any other body that is no JSON.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Facts, json};

/// Bytes of a text with escapes that are copied for [`Facts::last_text`]; what is longer is cut.
const SAMPLE_MAX_BYTES: usize = 1_024;

/// Walks a list of messages, or one message; numbers in it (prompts given as tokens) count as tokens themselves.
pub(crate) struct List<'f, 'a>(pub(crate) &'f mut Facts<'a>);

impl<'de> DeserializeSeed<'de> for List<'_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for List<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("messages")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Walk(self.0))?.is_some() {
            self.0.messages += 1;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.0.messages += 1;
        Walk(self.0).visit_map(map)
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<(), E> {
        self.0.messages += 1;
        Walk(self.0).visit_borrowed_str(text)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.0.messages += 1;
        Walk(self.0).visit_str(text)
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Counts the text of any value; bytes that are not text (pictures, documents, signatures) are stepped over.
pub(crate) struct Walk<'f, 'a>(pub(crate) &'f mut Facts<'a>);

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
        self.0.text.add(text);
        self.0.last_text = Some(Cow::Borrowed(text));
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.0.text.add(text);
        let end = (0..=text.len().min(SAMPLE_MAX_BYTES)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        self.0.last_text = Some(Cow::Owned(text[..end].to_owned()));
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        self.0.text.add("x");
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        self.0.text.add("x");
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.0.text.add("x");
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Walk(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(Keys)? {
            match key {
                Inside::Text => map.next_value_seed(Walk(self.0))?,
                Inside::Word => {
                    map.next_value::<IgnoredAny>()?;
                }
                Inside::Kind => map.next_value_seed(KindOf(self.0))?,
                Inside::Bytes => map.next_value_seed(Opaque(self.0))?,
                Inside::Image => {
                    self.0.images += 1;
                    map.next_value::<IgnoredAny>()?;
                }
                Inside::Images => {
                    let raw: &'de RawValue = map.next_value()?;
                    self.0.images += json::lenient_elements(raw).len() as u64;
                }
                Inside::File => {
                    self.0.files += 1;
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// What a key inside of a message leads to.
enum Inside {
    Text,
    /// A word of the protocol: roles, ids.
    Word,
    /// `type`.
    Kind,
    /// A string here is no text; anything else is looked into.
    Bytes,
    Image,
    Images,
    File,
}

struct Keys;

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
            "role" | "id" | "call_id" | "tool_call_id" | "tool_use_id" | "media_type" | "mimeType" | "mime_type"
            | "detail" | "cache_control" | "toolUseId" => Inside::Word,
            "data" | "file_data" | "url" | "image_url" | "file_url" | "encrypted_content" | "signature" | "bytes"
            | "thoughtSignature" | "thought_signature" | "source" | "uri" => Inside::Bytes,
            // Gemini's and Bedrock's parts are named by their key.
            "inlineData" | "inline_data" | "fileData" | "image" => Inside::Image,
            "images" => Inside::Images,
            "document" | "video" => Inside::File,
            _ => Inside::Text,
        })
    }
}

/// The value of a `type`: some say that the object is a picture or a document.
struct KindOf<'f, 'a>(&'f mut Facts<'a>);

impl<'de> DeserializeSeed<'de> for KindOf<'_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let raw: &'de RawValue = serde::Deserialize::deserialize(deserializer)?;
        match raw.get() {
            r#""image_url""# | r#""input_image""# | r#""image""# => self.0.images += 1,
            r#""input_audio""# | r#""file""# | r#""input_file""# | r#""document""# | r#""audio""# | r#""video""# => {
                self.0.files += 1;
            }
            _ => {}
        }
        Ok(())
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
        Walk(self.0).visit_seq(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        Walk(self.0).visit_map(map)
    }
}
