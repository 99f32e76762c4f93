//! A caller of OpenAI's chat over a model of Anthropic's.

mod answer;
mod messages;
mod request;
mod stream;

use bytes::Bytes;

use crate::dialect::pair::{Answer, Outgoing, Pair, Target, Translate};
use crate::dialect::{Asked, Error, Facts};

/// The pair.
pub(super) struct ChatOverAnthropic;

impl Pair for ChatOverAnthropic {
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

    fn asks(body: &Value) -> Result<(Value, Vec<String>), Error> {
        sent(Dialect::Chat, Dialect::Anthropic, "claude-sonnet-4-5", body)
    }

    #[test]
    fn a_conversation_with_tools_and_pictures_keeps_all_of_it() {
        let (body, left) = asks(&json!({
            "model": "x", "max_completion_tokens": 300, "temperature": 0.5, "stop": ["END", " "], "user": "u1", "seed": 1,
            "my_field": {"a": 1}, "parallel_tool_calls": false, "tool_choice": "required",
            "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": true}}],
            "messages": [
                {"role": "system", "content": "Be short."},
                {"role": "user", "content": [{"type": "text", "text": "Look", "cache_control": {"type": "ephemeral"}},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                    {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]},
                {"role": "assistant", "content": null, "tool_calls": [
                    {"id": "call:1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}},
                    {"id": "call:2", "type": "function", "function": {"name": "f", "arguments": ""}}]},
                {"role": "tool", "tool_call_id": "call:1", "content": "one"},
                {"role": "tool", "tool_call_id": "call:2", "content": [{"type": "text", "text": "two"}]},
                {"role": "user", "content": "And now?"}]
        }))
        .unwrap();
        assert_eq!(left, ["stop of white space", "seed"]);
        assert_eq!(
            body,
            json!({
                "model": "claude-sonnet-4-5", "max_tokens": 300, "temperature": 0.5, "stop_sequences": ["END"],
                "metadata": {"user_id": "u1"}, "my_field": {"a": 1},
                "tool_choice": {"type": "any", "disable_parallel_tool_use": true},
                "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}, "strict": true}],
                "system": [{"type": "text", "text": "Be short."}],
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "Look", "cache_control": {"type": "ephemeral"}},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                        {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}]},
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "call_1", "name": "f", "input": {"a": 1}},
                        {"type": "tool_use", "id": "call_2", "name": "f", "input": {}}]},
                    {"role": "user", "content": [
                        {"type": "tool_result", "tool_use_id": "call_1", "content": [{"type": "text", "text": "one"}]},
                        {"type": "tool_result", "tool_use_id": "call_2", "content": [{"type": "text", "text": "two"}]},
                        {"type": "text", "text": "And now?"}]}]
            })
        );
    }

    #[test]
    fn what_would_change_the_answers_form_is_refused_by_name() {
        for (name, value) in [
            ("n", json!(2)),
            ("logprobs", json!(true)),
            ("modalities", json!(["text", "audio"])),
            ("web_search_options", json!({})),
            ("functions", json!([])),
            ("response_format", json!({"type": "json_object"})),
        ] {
            let mut body = json!({"model": "x", "messages": []});
            body[name] = value;
            let error = asks(&body).unwrap_err();
            assert!(matches!(&error, Error::Unsupported { field, .. } if field == name), "{name}: {error}");
            assert_eq!(error.failure().param.as_deref(), Some(name));
        }
    }

    #[test]
    fn a_schema_and_an_effort_are_said_as_anthropic_says_them() {
        let body = json!({"model": "x", "messages": [], "reasoning_effort": "medium", "temperature": 0.2, "max_tokens": 8000,
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}});
        let (old, left) = asks(&body).unwrap();
        assert_eq!(old["thinking"], json!({"type": "enabled", "budget_tokens": 4096}));
        assert_eq!(old["output_config"], json!({"format": {"type": "json_schema", "schema": {"type": "object"}}}));
        assert_eq!(left, ["temperature"], "there is none beside thinking");
        let (new, _) = sent(Dialect::Chat, Dialect::Anthropic, "claude-opus-4-7", &body).unwrap();
        assert_eq!(new["thinking"], json!({"type": "adaptive"}));
        assert_eq!(new["output_config"]["effort"], "medium");
    }

    #[test]
    fn the_answer_has_every_member_that_strict_clients_want() {
        let (body, _) = answered(Dialect::Chat, Dialect::Anthropic, &full_answer(Dialect::Anthropic)).unwrap();
        assert_eq!(
            body,
            json!({"id": "chatcmpl-7", "object": "chat.completion", "created": 1_700_000_000, "model": "claude",
                "choices": [{"index": 0, "message": {"role": "assistant", "content": "It is\n\"hot\" 🔥", "refusal": null,
                    "annotations": [], "reasoning_content": "Let me see",
                    "thinking_blocks": [{"type": "thinking", "thinking": "Let me see", "signature": "sig=="}],
                    "tool_calls": [
                        {"id": "toolu_1", "type": "function", "function": {"name": "stop_pump", "arguments": "{\"line\":4}"}},
                        {"id": "toolu_2", "type": "function", "function": {"name": "look", "arguments": "{}"}}]},
                    "logprobs": null, "finish_reason": "tool_calls"}],
                "usage": {"prompt_tokens": 15, "completion_tokens": 42, "total_tokens": 57,
                    "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 0},
                    "completion_tokens_details": {"reasoning_tokens": 7}}})
        );
    }

    #[test]
    fn thinking_comes_back_signed_with_the_next_turn() {
        let (answer, _) = answered(Dialect::Chat, Dialect::Anthropic, &full_answer(Dialect::Anthropic)).unwrap();
        let (body, _) = asks(
            &json!({"model": "x", "messages": [{"role": "user", "content": "Hi"}, answer["choices"][0]["message"]]}),
        )
        .unwrap();
        assert_eq!(body["messages"][1]["content"], full_answer(Dialect::Anthropic)["content"]);
    }

    #[test]
    fn chunks_agree_and_end_with_the_usage() {
        let seen = streamed(Dialect::Chat, Dialect::Anthropic, &full_stream(Dialect::Anthropic));
        let data = seen.data();
        assert!(seen.text.contains(": ping\n\n"), "the connection is kept alive");
        assert_eq!(data[0]["choices"][0]["delta"], json!({"role": "assistant", "content": "", "refusal": null}));
        for chunk in &data[..data.len() - 1] {
            assert_eq!(
                (&chunk["id"], &chunk["created"], &chunk["model"]),
                (&json!("chatcmpl-7"), &json!(1_700_000_000), &json!("claude"))
            );
        }
        let deltas: Vec<&Value> = data.iter().map(|chunk| &chunk["choices"][0]["delta"]).collect();
        let joined = |read: &dyn Fn(&Value) -> Value| -> String {
            deltas.iter().filter_map(|delta| read(delta).as_str().map(str::to_owned)).collect()
        };
        assert_eq!(joined(&|delta| delta["content"].clone()), "It is\n\"hot\" 🔥");
        assert_eq!(joined(&|delta| delta["reasoning_content"].clone()), "Let me see");
        let arguments = |index: u64| {
            joined(&|delta| match &delta["tool_calls"][0] {
                call if call["index"] == index => call["function"]["arguments"].clone(),
                _ => Value::Null,
            })
        };
        assert_eq!((arguments(0).as_str(), arguments(1).as_str()), ("{\"line\": 4}", "{}"));
        let blocks: Vec<&Value> =
            deltas.iter().map(|delta| &delta["thinking_blocks"]).filter(|blocks| !blocks.is_null()).collect();
        assert_eq!(blocks, [&json!([{"type": "thinking", "thinking": "Let me see", "signature": "sig=="}])]);
        let [.., reason, usage, done] = &data[..] else { panic!() };
        assert_eq!(reason["choices"][0]["finish_reason"], "tool_calls");
        assert_eq!((&usage["choices"], &usage["usage"]["total_tokens"]), (&json!([]), &json!(57)));
        assert_eq!(done, "[DONE]");
    }
}
