//! A caller of OpenAI's responses over a model that speaks chat.

mod answer;
mod items;
mod request;
mod stream;

use bytes::Bytes;

use crate::dialect::pair::{Answer, Outgoing, Pair, Target, Translate};
use crate::dialect::{Asked, Error, Facts};

/// The pair.
pub(super) struct ResponsesOverChat;

impl Pair for ResponsesOverChat {
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
        sent(Dialect::Responses, Dialect::Chat, "gpt-5", body)
    }

    #[test]
    fn items_become_messages() {
        let (body, left) = asks(&json!({
            "model": "x", "instructions": "Be short.", "max_output_tokens": 9, "store": true, "metadata": {"a": "b"},
            "reasoning": {"effort": "low"}, "text": {"format": {"type": "json_schema", "name": "n", "schema": {}, "strict": true}},
            "tools": [{"type": "function", "name": "f", "parameters": {}, "strict": true}], "tool_choice": {"type": "function", "name": "f"},
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "Look"}, {"type": "input_image", "image_url": "https://example.org/a.png", "detail": "low"}]},
                {"type": "reasoning", "id": "r", "summary": []},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look"}]},
                {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
                {"type": "function_call", "call_id": "2", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "1", "output": "one"},
                {"type": "function_call_output", "call_id": "2", "output": [{"type": "input_text", "text": "two"}, {"type": "input_image", "image_url": "https://example.org/b.png"}]},
                {"role": "user", "content": "And now?"}]
        }))
        .unwrap();
        assert_eq!(left, ["input[].reasoning", "metadata"]);
        let call = |id: &str| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}});
        assert_eq!(
            body,
            json!({
                "model": "gpt-5", "max_completion_tokens": 9, "reasoning_effort": "low",
                "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "strict": true}},
                "tools": [{"type": "function", "function": {"name": "f", "parameters": {}, "strict": true}}],
                "tool_choice": {"type": "function", "function": {"name": "f"}},
                "messages": [
                    {"role": "system", "content": "Be short."},
                    {"role": "user", "content": [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}}]},
                    {"role": "assistant", "content": "I look", "tool_calls": [call("1"), call("2")]},
                    {"role": "tool", "tool_call_id": "1", "content": "one"},
                    {"role": "tool", "tool_call_id": "2", "content": "two"},
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.org/b.png"}}]},
                    {"role": "user", "content": "And now?"}]
            })
        );
    }

    #[test]
    fn what_needs_a_memory_is_refused_by_name() {
        for (name, value) in [
            ("previous_response_id", json!("resp_1")),
            ("conversation", json!("c")),
            ("background", json!(true)),
            ("prompt", json!({"id": "p"})),
        ] {
            let mut body = json!({"model": "x", "input": "a"});
            body[name] = value;
            let error = asks(&body).unwrap_err();
            assert!(matches!(&error, Error::Unsupported { field, .. } if field == name), "{error}");
        }
        let tool = asks(&json!({"model": "x", "input": "a", "tools": [{"type": "web_search"}]})).unwrap_err();
        assert_eq!(tool.failure().param.as_deref(), Some("tools[0]"));
    }

    #[test]
    fn the_response_repeats_the_request_and_has_every_required_member() {
        let (body, _) = answered(Dialect::Responses, Dialect::Chat, &full_answer(Dialect::Chat)).unwrap();
        for name in [
            "id",
            "object",
            "created_at",
            "status",
            "error",
            "incomplete_details",
            "instructions",
            "metadata",
            "model",
            "output",
            "parallel_tool_calls",
            "temperature",
            "tool_choice",
            "tools",
            "top_p",
            "usage",
            "text",
            "reasoning",
        ] {
            assert!(body.get(name).is_some(), "{name}");
        }
        assert_eq!(
            (&body["id"], &body["status"], &body["model"]),
            (&json!("resp_7"), &json!("completed"), &json!("qwen"))
        );
        assert_eq!(
            body["usage"],
            json!({"input_tokens": 15, "input_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 0},
                "output_tokens": 42, "output_tokens_details": {"reasoning_tokens": 7}, "total_tokens": 57})
        );
        assert_eq!(
            body["output"][1],
            json!({"id": "msg_7_1", "type": "message", "status": "completed", "role": "assistant",
                "content": [{"type": "output_text", "annotations": [], "logprobs": [], "text": "It is\n\"hot\" 🔥"}]})
        );
    }

    #[test]
    fn an_answer_that_met_its_limit_is_incomplete() {
        let body = json!({"choices": [{"message": {"content": "a"}, "finish_reason": "length"}]});
        let (body, answer) = answered(Dialect::Responses, Dialect::Chat, &body).unwrap();
        assert_eq!(
            (&body["status"], &body["incomplete_details"]),
            (&json!("incomplete"), &json!({"reason": "max_output_tokens"}))
        );
        assert!(answer.usage.estimated, "nobody told it");
    }

    #[test]
    fn events_are_numbered_and_each_item_is_finished_before_the_next() {
        let seen = streamed(Dialect::Responses, Dialect::Chat, &full_stream(Dialect::Chat));
        let events = seen.events();
        for (at, (name, data)) in events.iter().enumerate() {
            assert_eq!(
                (data["type"].as_str(), data["sequence_number"].as_u64()),
                (Some(name.as_str()), Some(at as u64))
            );
        }
        let mut names: Vec<&str> = events.iter().map(|(name, _)| name.strip_prefix("response.").unwrap()).collect();
        names.dedup();
        let call =
            ["output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"];
        let expected: Vec<&str> = ["created", "in_progress"]
            .into_iter()
            .chain([
                "output_item.added",
                "reasoning_summary_part.added",
                "reasoning_summary_text.delta",
                "reasoning_summary_text.done",
                "reasoning_summary_part.done",
                "output_item.done",
                "output_item.added",
                "content_part.added",
                "output_text.delta",
                "output_text.done",
                "content_part.done",
                "output_item.done",
            ])
            .chain(call)
            .chain(call)
            .chain(["completed"])
            .collect();
        assert_eq!(names, expected);
        let (whole, _) = answered(Dialect::Responses, Dialect::Chat, &full_answer(Dialect::Chat)).unwrap();
        let last = &events.last().unwrap().1["response"];
        assert_eq!(last["output"][1], whole["output"][1], "the last event repeats the whole");
        assert_eq!(last["usage"], whole["usage"]);
    }

    #[test]
    fn the_text_that_is_kept_is_bounded() {
        use crate::dialect::trial::{asked, small, sse, streamed_by};
        use crate::dialect::{Asked, Limits};
        let limits = Limits { kept_max_bytes: 100, ..Limits::default() };
        let asked = Asked { limits, ..asked(Dialect::Responses, &small(Dialect::Responses)) };
        let chunk = json!({"choices": [{"index": 0, "delta": {"content": "0123456789"}}]});
        let seen = streamed_by(&asked, Dialect::Chat, &sse(&vec![chunk; 20]), 64);
        assert_eq!(seen.error, Some(Error::TooLong { what: "text of an answer", max_bytes: 100 }));
    }
}
