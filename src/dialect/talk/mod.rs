//! Requests to models that talk: read from the caller's dialect, written in the model's.

mod conversation;
mod from_anthropic;
mod from_chat;
mod from_gemini;
mod from_interactions;
mod from_ollama;
mod from_responses;
mod schema;
mod to_anthropic;
mod to_bedrock;
mod to_chat;
mod to_gemini;
mod to_ollama;

use super::pair::{Outgoing, Target};
use super::{Dialect, Error, Facts, Operation};

pub(crate) use conversation::escape;
pub(crate) use to_gemini::SIGNATURE_MARK;

/// The request in `body` as a model of `to` wants it.
pub(crate) fn request(body: &[u8], facts: &Facts<'_>, to: &Target<'_>) -> Result<Outgoing, Error> {
    let said = match (facts.dialect, facts.operation) {
        (Dialect::Anthropic, _) => from_anthropic::read(body)?,
        (Dialect::Gemini, _) => from_gemini::read(body)?,
        (Dialect::Interactions, _) => from_interactions::read(body, to.dialect)?,
        (Dialect::Responses, _) => from_responses::read(body, to.dialect)?,
        (Dialect::Ollama, Operation::Completions) => from_ollama::read_generate(body)?,
        (Dialect::Ollama, _) => from_ollama::read_chat(body)?,
        _ => from_chat::read(body)?,
    };
    said.possible(to.dialect)?;
    match to.dialect {
        Dialect::Anthropic => to_anthropic::write(said, facts, to),
        Dialect::Gemini => to_gemini::write(said, to),
        Dialect::Ollama => to_ollama::write(said, facts, to),
        Dialect::Bedrock => to_bedrock::write(said, facts, to),
        _ => to_chat::write(said, facts, to),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use crate::dialect::{Dialect, Error, Facts, Operation, Target, can_translate, request};

    /// The request as it goes out, and what was left out of it.
    pub(crate) fn written(from: Dialect, to: Target<'_>, body: &Value) -> Result<(Value, Vec<String>), Error> {
        let operation = match body.get("prompt") {
            Some(_) => Operation::Completions,
            None => Operation::Chat,
        };
        let body = Bytes::from(body.to_string());
        let facts = Facts::read(from, operation, &body)?;
        let outgoing = request(&body, &facts, &to)?;
        Ok((serde_json::from_slice(&outgoing.body).unwrap(), outgoing.left_out))
    }

    /// One conversation with all that an agent says, in each dialect: instructions, a picture, a call, its result.
    pub(crate) fn conversation(dialect: Dialect) -> Value {
        let schema = json!({"type": "object", "properties": {"line": {"type": "integer"}}, "required": ["line"]});
        match dialect {
            Dialect::Chat => json!({
                "model": "m", "max_tokens": 500, "temperature": 0.2, "stop": "END",
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": [
                        {"type": "text", "text": "What is \"this\"?\n"},
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]},
                    {"role": "assistant", "content": null, "tool_calls": [
                        {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{\"line\":4}"}}]},
                    {"role": "tool", "tool_call_id": "call_1", "content": "hot"},
                    {"role": "user", "content": "Well?"}],
                "tools": [{"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": schema}}],
                "tool_choice": "auto"}),
            Dialect::Anthropic => json!({
                "model": "m", "max_tokens": 500, "temperature": 0.2, "stop_sequences": ["END"],
                "system": "Be brief.",
                "messages": [
                    {"role": "user", "content": [
                        {"type": "text", "text": "What is \"this\"?\n"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}]},
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "call_1", "name": "look", "input": {"line": 4}}]},
                    {"role": "user", "content": [
                        {"type": "tool_result", "tool_use_id": "call_1", "content": "hot"},
                        {"type": "text", "text": "Well?"}]}],
                "tools": [{"name": "look", "description": "Looks.", "input_schema": schema}],
                "tool_choice": {"type": "auto"}}),
            Dialect::Gemini => json!({
                "systemInstruction": {"parts": [{"text": "Be brief."}]},
                "contents": [
                    {"role": "user", "parts": [
                        {"text": "What is \"this\"?\n"},
                        {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}]},
                    {"role": "model", "parts": [{"functionCall": {"name": "look", "args": {"line": 4}}}]},
                    {"role": "user", "parts": [
                        {"functionResponse": {"name": "look", "response": {"output": "hot"}}}, {"text": "Well?"}]}],
                "tools": [{"functionDeclarations": [{"name": "look", "description": "Looks.", "parameters":
                    {"type": "OBJECT", "properties": {"line": {"type": "INTEGER"}}, "required": ["line"]}}]}],
                "toolConfig": {"functionCallingConfig": {"mode": "AUTO"}},
                "generationConfig": {"maxOutputTokens": 500, "temperature": 0.2, "stopSequences": ["END"]}}),
            Dialect::Ollama => json!({
                "model": "m", "stream": false,
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": "What is \"this\"?\n", "images": ["iVBORw0KGgo="]},
                    {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "look", "arguments": {"line": 4}}}]},
                    {"role": "tool", "content": "hot", "tool_name": "look"},
                    {"role": "user", "content": "Well?"}],
                "tools": [{"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": schema}}],
                "options": {"num_predict": 500, "temperature": 0.2, "stop": "END"}}),
            Dialect::Responses => json!({
                "model": "m", "max_output_tokens": 500, "temperature": 0.2, "instructions": "Be brief.",
                "input": [
                    {"role": "user", "content": [
                        {"type": "input_text", "text": "What is \"this\"?\n"},
                        {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="}]},
                    {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{\"line\":4}"},
                    {"type": "function_call_output", "call_id": "call_1", "output": "hot"},
                    {"type": "message", "role": "user", "content": "Well? END"}],
                "tools": [{"type": "function", "name": "look", "description": "Looks.", "parameters": schema}],
                "tool_choice": "auto"}),
            Dialect::Interactions => json!({
                "model": "m", "system_instruction": "Be brief.",
                "input": [
                    {"type": "user_input", "content": [
                        {"type": "text", "text": "What is \"this\"?\n"},
                        {"type": "image", "mime_type": "image/png", "data": "iVBORw0KGgo="}]},
                    {"type": "thought", "signature": "Sig=", "summary": [{"type": "text", "text": "hm"}]},
                    {"type": "function_call", "id": "call_1", "name": "look", "arguments": {"line": 4}},
                    {"type": "function_result", "call_id": "call_1", "name": "look", "result": "hot"},
                    {"type": "user_input", "content": [{"type": "text", "text": "Well?"}]}],
                "tools": [{"type": "function", "name": "look", "description": "Looks.", "parameters": schema}],
                "generation_config": {"max_output_tokens": 500, "temperature": 0.2, "stop_sequences": ["END"],
                    "tool_choice": "auto"}}),
            other @ (Dialect::Bedrock | Dialect::Oip) => panic!("nobody asks in {other}"),
        }
    }

    const CALLERS: [Dialect; 6] = [
        Dialect::Chat,
        Dialect::Responses,
        Dialect::Anthropic,
        Dialect::Gemini,
        Dialect::Interactions,
        Dialect::Ollama,
    ];

    /// What every written request must hold, wherever the dialect has it.
    #[test]
    fn every_pair_keeps_the_picture_the_call_its_result_and_the_limits() {
        let mut pairs = 0;
        for from in CALLERS {
            for to in Dialect::ALL {
                // Responses know no stop sequences.
                if from == to || to == Dialect::Responses || !can_translate(Operation::Chat, from, to) {
                    continue;
                }
                pairs += 1;
                let (body, left_out) = written(from, Target::new(to, "served-model"), &conversation(from)).unwrap();
                let text = body.to_string();
                let all =
                    ["Be brief.", "What is \\\"this\\\"?\\n", "iVBORw0KGgo=", "look", "Looks.", "\"line\"", "hot"];
                for piece in all.into_iter().chain(["Well?", "500", "0.2", "END", "\"required\":[\"line\"]"]) {
                    assert!(text.contains(piece), "{from} to {to} lost {piece}: {text}");
                }
                assert!(left_out.is_empty(), "{from} to {to}: {left_out:?}");
            }
        }
        assert!(pairs >= 22, "{pairs}");
    }

    #[test]
    fn a_body_that_is_no_request_is_refused_with_the_place() {
        for from in CALLERS {
            for to in [Dialect::Gemini, Dialect::Ollama, Dialect::Bedrock, Dialect::Chat, Dialect::Anthropic] {
                if from == to || !can_translate(Operation::Chat, from, to) {
                    continue;
                }
                for odd in [
                    json!({"model": "m"}),
                    json!({"model": "m", "messages": 7, "contents": 7, "input": 7}),
                    json!({"model": "m", "messages": [7], "contents": [7], "input": [7]}),
                    json!({"model": "m", "messages": [{}], "contents": [{"role": "user"}], "input": [{}]}),
                    json!({"model": "m", "messages": [{"role": "nobody", "content": "x"}], "contents": [{"role": "nobody", "parts": []}], "input": [{"role": "nobody", "content": "x"}]}),
                    json!({"model": "m", "messages": [{"role": "user", "content": [[]]}], "contents": [{"parts": [[]]}], "input": [{"role": "user", "content": [[]]}]}),
                    json!({"model": "m", "messages": [], "contents": [], "input": [], "tools": [{}, 7]}),
                    json!({"model": "m", "messages": [], "contents": [], "input": [], "tools": 7}),
                ] {
                    let error = written(from, Target::new(to, "s"), &odd).unwrap_err();
                    assert!(error.is_callers(), "{from} to {to}, {odd}: {error}");
                }
            }
        }
    }

    #[test]
    fn a_request_that_is_cut_anywhere_is_refused_and_never_panics() {
        for from in CALLERS {
            let whole = conversation(from).to_string();
            for cut in (0..whole.len()).filter(|cut| whole.is_char_boundary(*cut)) {
                let body = Bytes::copy_from_slice(&whole.as_bytes()[..cut]);
                assert!(Facts::read(from, Operation::Chat, &body).is_err(), "{cut}");
            }
        }
    }

    #[test]
    fn members_that_nobody_knows_pass_through() {
        let mut body = conversation(Dialect::Chat);
        body["x_new"] = json!({"a": [1]});
        let sent = |to| written(Dialect::Chat, Target::new(to, "m"), &body).unwrap().0;
        assert_eq!(sent(Dialect::Gemini)["x_new"], json!({"a": [1]}));
        assert_eq!(sent(Dialect::Ollama)["x_new"], json!({"a": [1]}));
        assert_eq!(sent(Dialect::Bedrock)["additionalModelRequestFields"]["x_new"], json!({"a": [1]}));
    }

    #[test]
    fn instructions_alone_become_a_turn() {
        let body = json!({"model": "m", "messages": [{"role": "system", "content": "Say hello."}]});
        let (sent, _) = written(Dialect::Chat, Target::new(Dialect::Gemini, "g"), &body).unwrap();
        assert_eq!(sent["contents"][0], json!({"role": "user", "parts": [{"text": "Say hello."}]}));
        let (sent, _) = written(Dialect::Chat, Target::new(Dialect::Bedrock, "b"), &body).unwrap();
        assert_eq!(sent["messages"][0]["content"][0]["text"], "Say hello.");
    }

    #[test]
    fn what_would_change_the_form_of_the_answer_is_refused() {
        for (member, value) in [("n", json!(2)), ("logprobs", json!(true)), ("functions", json!([]))] {
            let mut body = conversation(Dialect::Chat);
            body[member] = value;
            for to in [Dialect::Gemini, Dialect::Ollama, Dialect::Bedrock] {
                let error = written(Dialect::Chat, Target::new(to, "m"), &body).unwrap_err();
                assert!(matches!(&error, Error::Unsupported { field, .. } if field == member), "{error}");
            }
        }
    }

    /// Values that belong nowhere.
    fn odd(which: usize) -> Value {
        let all = [
            json!(null),
            json!(-1.5),
            json!(true),
            json!(""),
            json!("x\"\\\u{1F600}\n"),
            json!([]),
            json!({}),
            json!([[{"type": "text"}]]),
            json!({"type": "tool_use", "input": [], "name": 7}),
            json!("data:;base64,"),
            json!({"type": "text", "text": ["a"]}),
        ];
        all[which % all.len()].clone()
    }

    /// Puts `value` in the place of the `at`th value below `root`; none if there are not so many.
    fn replace(root: &mut Value, at: &mut usize, value: &Value) -> bool {
        let children: Vec<&mut Value> = match root {
            Value::Array(list) => list.iter_mut().collect(),
            Value::Object(members) => members.values_mut().collect(),
            _ => Vec::new(),
        };
        for child in children {
            if *at == 0 {
                *child = value.clone();
                return true;
            }
            *at -= 1;
            if replace(child, at, value) {
                return true;
            }
        }
        false
    }

    #[test]
    fn any_value_in_any_place_is_sent_as_json_or_refused_as_the_callers() {
        let mut refused = 0;
        for from in CALLERS {
            for at in 0.. {
                let mut one = conversation(from);
                if !replace(&mut one, &mut at.clone(), &Value::Null) {
                    break;
                }
                for which in 0..11 {
                    let mut body = conversation(from);
                    replace(&mut body, &mut at.clone(), &odd(which));
                    for to in [Dialect::Gemini, Dialect::Ollama, Dialect::Bedrock, Dialect::Chat, Dialect::Anthropic] {
                        if from != to && can_translate(Operation::Chat, from, to) {
                            // `written` reads what it sent as JSON.
                            match written(from, Target::new(to, "gemini-3-pro"), &body) {
                                Ok(_) => {}
                                Err(error) => {
                                    assert!(error.is_callers(), "{from} to {to}: {error}");
                                    refused += 1;
                                }
                            }
                        }
                    }
                }
            }
        }
        assert!(refused > 1_000, "{refused}");
    }
}
