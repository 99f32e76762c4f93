//! What the user said last, and where it stands in the request: for whoever compares questions by what they mean.

use std::borrow::Cow;
use std::ops::Range;

use super::json::{self, Members, Raw, Sort, sort};
use super::{Dialect, Operation};

/// The last text of a conversation whose last turn is the user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserText<'a> {
    /// What was said.
    pub text: Cow<'a, str>,
    /// Where it stands in the body, quotes included. Everything else of the request is outside of it.
    pub at: Range<usize>,
}

/// The user's last text; none if somebody else spoke last (a model whose answer is to be gone on with, a tool), if it has
/// no text, or if `body` is no request of `dialect` that talks.
pub fn user_text(dialect: Dialect, operation: Operation, body: &[u8]) -> Option<UserText<'_>> {
    if operation != Operation::Chat {
        return None;
    }
    let members = Members::parse(body).ok()?;
    let raw = match dialect {
        Dialect::Chat | Dialect::Anthropic | Dialect::Ollama => turn(last(members.get("messages")?)?, "content")?,
        Dialect::Gemini => turn(last(members.get("contents")?)?, "parts")?,
        Dialect::Responses => {
            let input = members.get("input")?;
            if sort(input) == Sort::Text { input } else { turn(last(input)?, "content")? }
        }
        // A list of Google's interactions may be parts or turns, and tells them apart by words of its own.
        Dialect::Interactions => members.get("input").filter(|input| sort(input) == Sort::Text)?,
        _ => return None,
    };
    let from = raw.get().as_ptr().addr().checked_sub(body.as_ptr().addr())?;
    let text = json::text(raw).filter(|text| !text.trim().is_empty())?;
    Some(UserText { text, at: from..from + raw.get().len() })
}

fn last(list: Raw<'_>) -> Option<Raw<'_>> {
    json::lenient_elements(list).pop()
}

/// The last text of a turn, if the user took it.
fn turn<'a>(raw: Raw<'a>, content: &str) -> Option<Raw<'a>> {
    let turn = Members::lenient(raw);
    // Gemini's user may leave the role out, and so may whoever sends one message to OpenAI's responses.
    if turn.text("role").is_some_and(|role| role != "user") || turn.text("type").is_some_and(|kind| kind != "message") {
        return None;
    }
    let content = turn.get(content)?;
    if sort(content) == Sort::Text {
        return Some(content);
    }
    let texts = json::lenient_elements(content).into_iter().rev().map(Members::lenient);
    let mut texts = texts.filter(|part| {
        let kind = part.text("type");
        kind.is_none_or(|kind| matches!(&*kind, "text" | "input_text"))
    });
    texts.find_map(|part| part.get("text").filter(|text| sort(text) == Sort::Text))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn said(dialect: Dialect, body: &Value) -> Option<(String, String)> {
        let body = body.to_string();
        let found = user_text(dialect, Operation::Chat, body.as_bytes())?;
        Some((found.text.clone().into_owned(), body[found.at].to_owned()))
    }

    #[test]
    fn the_users_last_text_is_found_in_every_dialect_with_its_place() {
        let hot = "Is it \"hot\"?\nNow?";
        let inner = json!(hot).to_string();
        let talk = |content: Value| {
            json!({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"},
            {"role": "user", "content": content}], "system": "Be brief.", "tools": [{"description": "last of all"}]})
        };
        for (dialect, body) in [
            (Dialect::Chat, talk(json!(hot))),
            (Dialect::Ollama, talk(json!(hot))),
            (Dialect::Anthropic, talk(json!([{"type": "text", "text": "Look:"}, {"type": "text", "text": hot}]))),
            (
                Dialect::Chat,
                talk(json!([{"type": "text", "text": hot}, {"type": "image_url", "image_url": {"url": "u"}}])),
            ),
            (Dialect::Responses, json!({"input": hot, "instructions": "Be brief."})),
            (
                Dialect::Responses,
                json!({"input": [{"role": "user", "content": [{"type": "input_text", "text": hot}]}]}),
            ),
            (
                Dialect::Gemini,
                json!({"contents": [{"parts": [{"text": hot}]}], "systemInstruction": {"parts": [{"text": "Brief."}]}}),
            ),
            (Dialect::Interactions, json!({"input": hot})),
        ] {
            assert_eq!(said(dialect, &body), Some((hot.to_owned(), inner.clone())), "{dialect}: {body}");
        }
    }

    #[test]
    fn where_the_user_did_not_speak_last_there_is_none() {
        for (dialect, body) in [
            (
                Dialect::Chat,
                json!({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}),
            ),
            (Dialect::Chat, json!({"messages": [{"role": "tool", "tool_call_id": "1", "content": "hot"}]})),
            (
                Dialect::Anthropic,
                json!({"messages": [{"role": "user", "content": [{"type": "tool_result", "content": "hot"}]}]}),
            ),
            (Dialect::Responses, json!({"input": [{"type": "function_call_output", "call_id": "1", "output": "hot"}]})),
            (Dialect::Gemini, json!({"contents": [{"role": "user", "parts": [{"functionResponse": {"name": "f"}}]}]})),
            (Dialect::Gemini, json!({"contents": [{"role": "model", "parts": [{"text": "Ho"}]}]})),
            (Dialect::Chat, json!({"messages": [{"role": "user", "content": " "}]})),
            (Dialect::Chat, json!({"messages": []})),
        ] {
            assert_eq!(said(dialect, &body), None, "{dialect}: {body}");
        }
        let body = json!({"messages": [{"role": "user", "content": "Hi"}]}).to_string();
        assert_eq!(user_text(Dialect::Chat, Operation::Embeddings, body.as_bytes()), None);
    }
}
