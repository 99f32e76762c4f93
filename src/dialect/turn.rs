//! The turns of a conversation, and which text of them is the user's.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Facts;
use super::walk::{Inside, Keys, Walk, count_kind, sample, walk_member};

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
        while list.next_element_seed(Turn(self.0))?.is_some() {
            self.0.messages += 1;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.0.messages += 1;
        Turn(self.0).visit_map(map)
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<(), E> {
        self.0.messages += 1;
        Turn(self.0).visit_borrowed_str(text)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.0.messages += 1;
        Turn(self.0).visit_str(text)
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// One message, step, prompt or input. What the user says in it is remembered as [`Facts::last_text`], whatever stands behind it.
struct Turn<'f, 'a>(&'f mut Facts<'a>);

impl<'de> DeserializeSeed<'de> for Turn<'_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Turn<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<(), E> {
        self.0.text.add(text);
        self.0.last_text = Some(Cow::Borrowed(text));
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.0.text.add(text);
        self.0.last_text = Some(sample(text));
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<(), E> {
        Walk::beside(self.0).visit_u64(number)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<(), E> {
        Walk::beside(self.0).visit_i64(number)
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<(), E> {
        Walk::beside(self.0).visit_f64(number)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<(), A::Error> {
        Walk::beside(self.0).visit_seq(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        // The role may stand behind the text: google-genai writes it there.
        let (mut said, mut is_users, mut may_be_users) = (None, None, true);
        while let Some(key) = map.next_key_seed(Keys)? {
            match key {
                Inside::Role => {
                    let raw: &'de RawValue = map.next_value()?;
                    is_users = (raw.get() != "null").then_some(raw.get() == r#""user""#);
                    self.0.tool_results += u64::from(matches!(raw.get(), r#""tool""# | r#""function""#));
                }
                Inside::Kind => {
                    let raw: &'de RawValue = map.next_value()?;
                    count_kind(self.0, raw);
                    may_be_users = matches!(raw.get(), r#""message""# | r#""user_input""# | r#""text""# | "null");
                }
                Inside::Content | Inside::Words => {
                    map.next_value_seed(Walk { facts: &mut *self.0, said: Some(&mut said) })?;
                }
                other => walk_member(self.0, other, &mut map)?,
            }
        }
        if said.is_some() && is_users.unwrap_or(may_be_users) {
            self.0.last_text = said;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::dialect::{Dialect, Facts, Operation};

    fn last(dialect: Dialect, operation: Operation, body: &str) -> Option<String> {
        Facts::read(dialect, operation, body.as_bytes()).unwrap().last_text.map(String::from)
    }

    #[test]
    fn the_users_text_is_found_in_the_order_that_each_makers_sdk_writes() {
        // anthropic writes `system` behind the messages, openai `instructions` before `input` and some members behind it,
        // google-genai the parts before their role and the instruction behind the contents.
        for (dialect, body) in [
            (
                Dialect::Anthropic,
                r#"{"max_tokens":9,"messages":[{"role":"user","content":"Wie warm?"}],"model":"m","system":"Be short.",
                    "tools":[{"name":"t","input_schema":{"type":"object"}}]}"#,
            ),
            (
                Dialect::Anthropic,
                r#"{"messages":[{"role":"user","content":[{"type":"text","text":"Wie warm?"},{"type":"document","source":
                    {"type":"text","media_type":"text/plain","data":"x"},"title":"A title"}]}],"model":"m","system":[{"type":"text",
                    "text":"Be short."}]}"#,
            ),
            (
                Dialect::Chat,
                r#"{"messages":[{"role":"system","content":"Be short."},{"role":"user","content":[{"type":"text","text":"Wie warm?"}]}],
                    "model":"m","suffix":"x"}"#,
            ),
            (Dialect::Responses, r#"{"input":"Wie warm?","instructions":"Be short.","model":"m"}"#),
            (
                Dialect::Responses,
                r#"{"input":[{"role":"user","content":"Wie warm?"},{"role":"developer","content":"Be short."}],"model":"m"}"#,
            ),
            (
                Dialect::Gemini,
                r#"{"contents":[{"parts":[{"text":"Wie warm?"}],"role":"user"}],"systemInstruction":{"parts":[{"text":
                    "Be short."}],"role":"user"},"generationConfig":{"maxOutputTokens":9}}"#,
            ),
            (
                Dialect::Gemini,
                r#"{"contents":[{"parts":[{"text":"Wie warm?"}]}],"system_instruction":{"parts":[{"text":"B"}]}}"#,
            ),
            (Dialect::Interactions, r#"{"input":"Wie warm?","model":"m","system_instruction":"Be short."}"#),
            (
                Dialect::Interactions,
                r#"{"input":[{"type":"user_input","content":[{"type":"text","text":"Wie warm?"}]}],"model":"m",
                    "system_instruction":"Be short."}"#,
            ),
            (
                Dialect::Ollama,
                r#"{"model":"m","messages":[{"role":"user","content":"Wie warm?","images":["QUJD"]}],"options":{}}"#,
            ),
        ] {
            let found = last(dialect, Operation::Chat, body);
            assert_eq!(found.as_deref(), Some("Wie warm?"), "{dialect:?} {body}");
        }
    }

    #[test]
    fn what_a_tool_or_the_model_said_last_is_not_the_users() {
        for (dialect, body) in [
            (
                Dialect::Chat,
                r#"{"model":"m","messages":[{"role":"user","content":"Wie warm?"},{"role":"assistant","content":"Let me look.",
                    "tool_calls":[{"id":"1","type":"function","function":{"name":"t","arguments":"{}"}}]},
                    {"role":"tool","tool_call_id":"1","content":"It is warm."}]}"#,
            ),
            (
                Dialect::Anthropic,
                r#"{"model":"m","messages":[{"role":"user","content":"Wie warm?"},{"role":"assistant","content":[{"type":
                    "tool_use","id":"1","name":"t","input":{"text":"look"}}]},{"role":"user","content":[{"type":"tool_result",
                    "tool_use_id":"1","content":[{"type":"text","text":"It is warm."}]}]}]}"#,
            ),
            (
                Dialect::Responses,
                r#"{"model":"m","input":[{"type":"message","role":"user","content":[{"type":"input_text","text":"Wie warm?"}]},
                    {"type":"reasoning","id":"r","summary":[],"content":[{"type":"reasoning_text","text":"Hm."}]},
                    {"type":"function_call_output","call_id":"1","output":"It is warm."}]}"#,
            ),
            (
                Dialect::Gemini,
                r#"{"contents":[{"parts":[{"text":"Wie warm?"}],"role":"user"},{"parts":[{"text":"I look."},{"functionCall":
                    {"name":"t","args":{}}}],"role":"model"},{"parts":[{"functionResponse":{"name":"t","response":{"text":
                    "It is warm."}}}],"role":"user"}]}"#,
            ),
            (
                Dialect::Interactions,
                r#"{"model":"m","input":[{"type":"user_input","content":[{"type":"text","text":"Wie warm?"}]},{"type":
                    "model_output","content":[{"type":"text","text":"I look."}]},{"type":"function_result","call_id":"1",
                    "result":[{"type":"text","text":"It is warm."}]}]}"#,
            ),
        ] {
            let facts = Facts::read(dialect, Operation::Chat, body.as_bytes()).unwrap();
            assert_eq!(facts.last_text.as_deref(), Some("Wie warm?"), "{dialect:?}");
        }
    }

    #[test]
    fn prompts_and_inputs_are_the_users() {
        for (dialect, operation, body) in [
            (Dialect::Chat, Operation::Completions, r#"{"model":"m","prompt":["a","Wie warm?"],"suffix":"x"}"#),
            (Dialect::Chat, Operation::Embeddings, r#"{"input":["a","Wie warm?"],"model":"m"}"#),
            (Dialect::Chat, Operation::Moderations, r#"{"input":[{"type":"text","text":"Wie warm?"}],"model":"m"}"#),
            (
                Dialect::Ollama,
                Operation::Completions,
                r#"{"model":"m","prompt":"Wie warm?","system":"s","images":["QUJD"]}"#,
            ),
            (Dialect::Gemini, Operation::Embeddings, r#"{"requests":[{"content":{"parts":[{"text":"Wie warm?"}]}}]}"#),
            (Dialect::Gemini, Operation::Embeddings, r#"{"content":{"parts":[{"text":"Wie warm?"}]}}"#),
        ] {
            assert_eq!(last(dialect, operation, body).as_deref(), Some("Wie warm?"), "{body}");
        }
    }
}
