//! A caller of Anthropic's messages over a model that speaks OpenAI's chat.

mod answer;
mod messages;
mod request;
mod stream;

use bytes::Bytes;

use crate::dialect::pair::{Answer, Outgoing, Pair, Target, Translate};
use crate::dialect::{Asked, Error, Facts};

/// The pair.
pub(super) struct AnthropicOverChat;

impl Pair for AnthropicOverChat {
    fn request(&self, body: &[u8], facts: &Facts<'_>, to: &Target<'_>) -> Result<Outgoing, Error> {
        request::request(body, facts, to)
    }

    fn answer(&self, body: &Bytes, asked: &Asked) -> Result<Answer, Error> {
        answer::answer(body, asked)
    }

    fn stream(&self, asked: &Asked) -> Box<dyn Translate> {
        Box::new(stream::Translation::new(asked))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::dialect::trial::{answered, full_answer, full_stream, sent, streamed};
    use crate::dialect::{Dialect, Error};

    fn asks(model: &str, body: &Value) -> Result<(Value, Vec<String>), Error> {
        sent(Dialect::Anthropic, Dialect::Chat, model, body)
    }

    #[test]
    fn a_conversation_with_tools_and_pictures_keeps_all_of_it() {
        let (body, left) = asks("qwen", &json!({
            "model": "x", "max_tokens": 300, "stop_sequences": ["END"], "metadata": {"user_id": "u1"}, "top_k": 5,
            "system": [{"type": "text", "text": "Be short."}, {"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}],
            "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
            "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": true},
            "thinking": {"type": "enabled", "budget_tokens": 2000}, "stream": true,
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "Look"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}]},
                {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "text", "text": "I "}, {"type": "text", "text": "look"},
                    {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": [1, 2]}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "is_error": true, "content": [
                    {"type": "text", "text": "one"}, {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}]},
                    {"type": "text", "text": "And now?"}]}]
        }))
        .unwrap();
        assert_eq!(left, ["messages[].content[].thinking", "messages[].content[].is_error", "top_k", "thinking"]);
        assert_eq!(
            body,
            json!({
                "model": "qwen", "max_tokens": 300, "stop": ["END"], "user": "u1", "stream": true,
                "stream_options": {"include_usage": true}, "parallel_tool_calls": false,
                "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}],
                "tool_choice": {"type": "function", "function": {"name": "f"}},
                "messages": [
                    {"role": "system", "content": "Be short.\nBe kind."},
                    {"role": "user", "content": [{"type": "text", "text": "Look"},
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]},
                    {"role": "assistant", "content": "I look", "tool_calls": [
                        {"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":[1,2]}"}}]},
                    {"role": "tool", "tool_call_id": "t1", "content": "one"},
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
                        {"type": "text", "text": "And now?"}]}]
            })
        );
    }

    #[test]
    fn models_of_openai_get_their_own_names() {
        let body = json!({"model": "x", "max_tokens": 9, "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
            "thinking": {"type": "enabled", "budget_tokens": 20000},
            "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}});
        let (body, left) = asks("gpt-5.1", &body).unwrap();
        assert_eq!(left, Vec::<String>::new());
        assert_eq!(
            body,
            json!({"model": "gpt-5.1", "max_completion_tokens": 9, "reasoning_effort": "high",
                "messages": [{"role": "user", "content": "Hi"}],
                "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": true}}})
        );
    }

    #[test]
    fn a_choice_among_no_tools_is_not_said() {
        let body = json!({"model": "x", "max_tokens": 1, "messages": [], "tools": [], "tool_choice": {"type": "auto"}});
        let (body, _) = asks("qwen", &body).unwrap();
        assert_eq!(body, json!({"model": "qwen", "max_tokens": 1, "messages": []}));
    }

    #[test]
    fn what_only_anthropic_does_is_refused_by_name() {
        let with = |name: &str, value: Value| {
            let mut body = json!({"model": "x", "max_tokens": 1, "messages": []});
            body[name] = value;
            asks("qwen", &body).unwrap_err().failure().param.unwrap()
        };
        assert_eq!(with("tools", json!([{"type": "web_search_20250305", "name": "web_search"}])), "tools[0]");
        assert_eq!(with("mcp_servers", json!([])), "mcp_servers");
        let block = json!([{"role": "user", "content": [{"type": "search_result", "source": "s"}]}]);
        assert_eq!(with("messages", block), "messages[0].content[0]");
        let file =
            json!([{"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}]}]);
        assert_eq!(with("messages", file), "messages[0].content[0].source");
    }

    #[test]
    fn the_answer_is_a_message() {
        let (body, _) = answered(Dialect::Anthropic, Dialect::Chat, &full_answer(Dialect::Chat)).unwrap();
        assert_eq!(
            body,
            json!({"id": "msg_7", "type": "message", "role": "assistant", "model": "qwen", "content": [
                {"type": "thinking", "thinking": "Let me see", "signature": ""},
                {"type": "text", "text": "It is\n\"hot\" 🔥", "citations": null},
                {"type": "tool_use", "id": "toolu_1", "name": "stop_pump", "input": {"line": 4},
                    "caller": {"type": "direct"}},
                {"type": "tool_use", "id": "toolu_2", "name": "look", "input": {}, "caller": {"type": "direct"}}],
                "stop_reason": "tool_use", "stop_sequence": null, "stop_details": null, "container": null,
                "usage": {"input_tokens": 10, "cache_creation_input_tokens": null, "cache_read_input_tokens": 5,
                    "output_tokens": 42, "output_tokens_details": {"thinking_tokens": 7}, "server_tool_use": null,
                    "cache_creation": null, "inference_geo": null, "service_tier": null}})
        );
    }

    #[test]
    fn events_come_in_the_strict_order() {
        let seen = streamed(Dialect::Anthropic, Dialect::Chat, &full_stream(Dialect::Chat));
        let mut names = Vec::new();
        let mut open = None;
        let mut next = 0;
        for (name, data) in seen.events() {
            assert_eq!(data["type"], name.as_str());
            match name.as_str() {
                "content_block_start" => {
                    assert_eq!((open, data["index"].as_u64()), (None, Some(next)));
                    open = Some(next);
                    next += 1;
                }
                "content_block_delta" => assert_eq!(data["index"].as_u64(), open),
                "content_block_stop" => assert_eq!(data["index"].as_u64(), open.take()),
                _ => {}
            }
            if names.last() != Some(&name) {
                names.push(name);
            }
        }
        let block = ["content_block_start", "content_block_delta", "content_block_stop"];
        let expected: Vec<&str> =
            ["message_start"].into_iter().chain(block.repeat(4)).chain(["message_delta", "message_stop"]).collect();
        assert_eq!(names, expected);
        let data = seen.data();
        assert_eq!(data[0]["message"]["usage"]["input_tokens"], 11, "an estimate until the end tells");
        let usage = &data[data.len() - 2]["usage"];
        assert_eq!((&usage["input_tokens"], &usage["output_tokens"]), (&json!(10), &json!(42)));
    }

    #[test]
    fn calls_that_all_have_index_zero_are_told_apart_by_their_ids() {
        let call = |id: &str| {
            json!({"model": "m", "choices": [{"index": 0, "delta": {"tool_calls": [
            {"index": 0, "id": id, "function": {"name": "f", "arguments": "{}"}}]}}]})
        };
        let end = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
        let seen = streamed(Dialect::Anthropic, Dialect::Chat, &[call("a"), call("b"), end, json!("[DONE]")]);
        let ids: Vec<Value> =
            seen.data().iter().map(|data| data["content_block"]["id"].clone()).filter(|id| !id.is_null()).collect();
        assert_eq!(ids, ["a", "b"]);
        assert!(seen.text.contains(r#""stop_reason":"tool_use""#), "whatever the server calls it");
    }

    #[test]
    fn arguments_for_a_call_that_is_closed_are_an_error() {
        let call = |index: u64, id: Value| {
            json!({"choices": [{"index": 0, "delta": {"tool_calls": [
            {"index": index, "id": id, "function": {"name": id, "arguments": "{"}}]}}]})
        };
        let seen = streamed(
            Dialect::Anthropic,
            Dialect::Chat,
            &[call(0, json!("a")), call(1, json!("b")), call(0, Value::Null)],
        );
        assert_eq!(seen.error, Some(Error::Malformed { dialect: Dialect::Chat, what: "order of tool calls" }));
    }
}
