//! The beginning of a conversation, which stays the same while it goes on.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::base::Digest;

/// What dialects call the parts that a conversation begins with.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow, default, alias = "instructions", alias = "systemInstruction", alias = "system_instruction")]
    system: Option<&'a RawValue>,
    #[serde(borrow, default, alias = "contents", alias = "input")]
    messages: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Role<'a> {
    #[serde(borrow, default)]
    role: Option<std::borrow::Cow<'a, str>>,
}

/// A digest of the system prompt and the first message of `body`; none if it has neither.
pub(super) fn of(body: &[u8]) -> Option<Digest> {
    let body: Body<'_> = serde_json::from_slice(body).ok()?;
    let messages = body.messages.map(|messages| {
        let Ok(list) = serde_json::from_str::<Vec<&RawValue>>(messages.get()) else { return vec![messages] };
        // Instructions stand before the first message that is one.
        let is_first = |message: &&RawValue| {
            let role = serde_json::from_str::<Role<'_>>(message.get()).ok().and_then(|message| message.role);
            !matches!(role.as_deref(), Some("system" | "developer"))
        };
        let end = list.iter().position(is_first).map_or(list.len(), |at| at + 1);
        list[..end].to_vec()
    });
    let parts: Vec<_> = body.system.into_iter().chain(messages.into_iter().flatten()).collect();
    if parts.is_empty() {
        return None;
    }
    let mut text = Vec::new();
    for part in parts {
        text.extend((part.get().len() as u64).to_le_bytes());
        text.extend_from_slice(part.get().as_bytes());
    }
    Some(Digest::of(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_that_goes_on_begins_as_it_did_and_another_one_does_not() {
        let first = of(br#"{"messages":[{"role":"system","content":"s"},{"role":"user","content":"a"}]}"#);
        let later = of(br#"{"n":1,"messages":[{"role":"system","content":"s"},{"role":"user","content":"a"},{"role":"assistant"}]}"#);
        let other = of(br#"{"messages":[{"role":"system","content":"s"},{"role":"user","content":"b"}]}"#);
        assert!(first.is_some() && first == later && first != other);
        assert!(of(br#"{"input":"a","instructions":"b"}"#).is_some());
        assert_eq!(of(br#"{"model":"m"}"#), None);
        assert_eq!(of(b"[1"), None);
    }
}
