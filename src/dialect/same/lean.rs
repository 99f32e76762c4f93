//! What OpenAI's strict clients require of an answer, and many a server that speaks its dialect leaves out.

use bytes::Bytes;

use crate::dialect::Asked;
use crate::dialect::json::{Members, Raw};
use crate::dialect::write;

/// Bytes that take the place of what lies in a range of others.
pub(super) type Change = (std::ops::Range<usize>, Vec<u8>);

/// What is to be added to a chat's answer so that every member is there that its schema requires. Empty for a server that
/// says them all, as most do.
pub(super) fn missing(
    body: &Bytes,
    members: &Members<'_>,
    choices: &[(Raw<'_>, Members<'_>)],
    asked: &Asked,
) -> Vec<Change> {
    let mut changes = Vec::new();
    let begins = |raw: Raw<'_>| raw.get().as_ptr().addr() - body.as_ptr().addr();
    let head = body.iter().position(|byte| *byte == b'{').unwrap_or(0);
    let mut more = Vec::new();
    let mut add = |name: &str, value: &str| {
        write::string(&mut more, name);
        more.extend_from_slice(format!(":{value},").as_bytes());
    };
    if !members.has("id") {
        add("id", &format!("\"chatcmpl-{}\"", asked.id));
    }
    if !members.has("object") {
        add("object", "\"chat.completion\"");
    }
    if !members.has("created") {
        add("created", &asked.created_unix_s.to_string());
    }
    if !more.is_empty() {
        changes.push((head + 1..head + 1, more));
    }
    for (index, (choice, of)) in choices.iter().enumerate() {
        let message = of.get("message").map(|raw| (raw, Members::lenient(raw)));
        let calls = message.as_ref().is_some_and(|(_, members)| members.get("tool_calls").is_some());
        let finish = if calls { "\"tool_calls\"" } else { "\"stop\"" };
        let wanted = [("index", &*index.to_string()), ("logprobs", "null"), ("finish_reason", finish)];
        changes.extend(added(choice, begins(choice), of, &wanted));
        let Some((raw, members)) = message else { continue };
        let wanted = [("role", "\"assistant\""), ("content", "null"), ("refusal", "null"), ("annotations", "[]")];
        changes.extend(added(raw, begins(raw), &members, &wanted));
    }
    changes
}

/// These members in front of the others of an object that begins there, as far as it lacks them. What is no object, or
/// one whose members nobody can name (half a character in a key), stays as it is.
fn added(object: Raw<'_>, begins: usize, members: &Members<'_>, wanted: &[(&str, &str)]) -> Option<Change> {
    let inside = object.get().strip_prefix('{')?.strip_suffix('}')?;
    let is_empty = members.len() == 0;
    if is_empty && !inside.trim_ascii().is_empty() {
        return None;
    }
    let mut more = Vec::new();
    for (name, value) in wanted.iter().filter(|(name, _)| !members.has(name)) {
        for part in ["\"", name, "\":", value, ","] {
            more.extend_from_slice(part.as_bytes());
        }
    }
    if is_empty {
        more.pop();
    }
    (!more.is_empty()).then_some((begins + 1..begins + 1, more))
}

/// Says whose words a stream has, where its first delta does not: appended to `out` from `from` on is that chunk.
pub(super) fn give_role(out: &mut Vec<u8>, from: usize) {
    let Some(inside) = delta_begins(&out[from..]).map(|at| from + at) else { return };
    let is_empty = out[inside..].iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'}');
    let role: &[u8] = if is_empty { b"\"role\":\"assistant\"" } else { b"\"role\":\"assistant\"," };
    out.splice(inside..inside, role.iter().copied());
}

/// The place behind the brace of the first `delta` of a chunk. Within a text its quotes would be escaped.
fn delta_begins(chunk: &[u8]) -> Option<usize> {
    let key = b"\"delta\"";
    memchr::memmem::find_iter(chunk, key).find_map(|at| {
        let mut behind = chunk[at + key.len()..].iter().enumerate().filter(|(_, byte)| !byte.is_ascii_whitespace());
        let (_, colon) = behind.next()?;
        let (brace_at, brace) = behind.next()?;
        (*colon == b':' && *brace == b'{').then_some(at + key.len() + brace_at + 1)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::dialect::same::body::answer;
    use crate::dialect::trial::asked;
    use crate::dialect::{Asked, Dialect};

    fn answered(body: &Value) -> Value {
        let request = json!({"model": "m", "messages": []});
        let asked = Asked { model_shown: Some("shown".to_owned()), ..asked(Dialect::Chat, &request) };
        let told = answer(Dialect::Chat, &Bytes::from(body.to_string()), &asked).unwrap();
        serde_json::from_slice(&told.body).unwrap()
    }

    #[test]
    fn a_lean_answer_has_what_strict_clients_require() {
        let lean = json!({"model": "real", "choices": [{"message": {"content": "Hi."}}, {"message": {}}, {}]});
        let told = answered(&lean);
        assert_eq!((&told["object"], &told["model"]), (&json!("chat.completion"), &json!("shown")));
        assert!(told["id"].as_str().unwrap().starts_with("chatcmpl-") && told["created"].is_u64(), "{told}");
        let message = json!({"role": "assistant", "content": "Hi.", "refusal": null, "annotations": []});
        let first = json!({"index": 0, "logprobs": null, "finish_reason": "stop", "message": message});
        assert_eq!(told["choices"][0], first);
        assert_eq!(told["choices"][1]["message"]["content"], Value::Null);
        assert_eq!(told["choices"][2], json!({"index": 2, "logprobs": null, "finish_reason": "stop"}));
    }

    #[test]
    fn what_is_there_stays_as_it_is() {
        let whole = json!({
            "id": "x", "object": "chat.completion", "created": 5, "model": "real", "more": {"a": 1.50},
            "choices": [{"index": 7, "logprobs": {"content": []}, "finish_reason": "length",
                "message": {"role": "assistant", "content": null, "refusal": "No.", "annotations": [1]}}],
        });
        let mut wanted = whole.clone();
        wanted["model"] = json!("shown");
        assert_eq!(answered(&whole), wanted);
    }

    #[test]
    fn a_member_that_is_null_is_there_and_does_not_come_twice() {
        let whole = r#"{"id":"x","object":"chat.completion","created":5,"model":"real","choices":[{"index":0,"logprobs":null,"finish_reason":"stop","message":{"role":"assistant","content":"Hi.","refusal":null,"annotations":[]}}]}"#;
        let asked = asked(Dialect::Chat, &json!({"model": "m", "messages": []}));
        let told = answer(Dialect::Chat, &Bytes::from_static(whole.as_bytes()), &asked).unwrap();
        assert_eq!(told.body, whole);
    }

    #[test]
    fn what_is_no_object_or_has_half_a_character_in_a_key_stays_as_it_is() {
        let asked = asked(Dialect::Chat, &json!({"model": "m", "messages": []}));
        for choices in [
            r#"[7,null,"{}"]"#,
            r#"[{"a\ud800":1}]"#,
            r#"[{"index":0,"logprobs":null,"finish_reason":"stop","message":{"content":"Hi.","\ud800":1}}]"#,
        ] {
            let whole =
                format!(r#"{{"id":"x","object":"chat.completion","created":5,"model":"real","choices":{choices}}}"#);
            let told = answer(Dialect::Chat, &Bytes::from(whole.clone()), &asked).unwrap();
            assert_eq!(told.body, whole);
        }
    }

    #[test]
    fn a_delta_gets_its_role_wherever_it_lies() {
        for (chunk, wanted) in [
            (
                r#"data: {"model":"delta","choices":[{"delta" : { "content":"x"}}]}"#,
                r#"{"role":"assistant", "content":"x"}"#,
            ),
            (r#"data: {"choices":[{"index":0,"delta":{}}]}"#, r#""delta":{"role":"assistant"}"#),
        ] {
            let mut out = [b"before ", chunk.as_bytes()].concat();
            give_role(&mut out, 7);
            let told = String::from_utf8(out).unwrap();
            assert!(told.contains(wanted), "{told}");
        }
        let mut none = b"data: {\"choices\":[]}".to_vec();
        give_role(&mut none, 0);
        assert_eq!(none, b"data: {\"choices\":[]}");
    }
}
