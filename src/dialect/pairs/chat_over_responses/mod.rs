//! A caller of OpenAI's chat over a model that answers responses only.

mod answer;
mod items;
mod request;
mod stream;

use bytes::Bytes;

use crate::dialect::pair::{Answer, Outgoing, Pair, Target, Translate};
use crate::dialect::{Asked, Error, Facts};

/// The pair.
pub(super) struct ChatOverResponses;

impl Pair for ChatOverResponses {
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
    use serde_json::json;

    use crate::dialect::Dialect;
    use crate::dialect::trial::{full_stream, sent, streamed};

    #[test]
    fn messages_become_items() {
        let (body, left) = sent(Dialect::Chat, Dialect::Responses, "gpt-5-pro", &json!({
            "model": "x", "max_tokens": 9, "reasoning_effort": "high", "verbosity": "low", "seed": 3, "stream": true,
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "strict": true}},
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "messages": [
                {"role": "system", "content": "Be short."},
                {"role": "user", "content": [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]},
                {"role": "assistant", "content": "I look", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
                {"role": "tool", "tool_call_id": "1", "content": "one"}]
        }))
        .unwrap();
        assert_eq!(left, ["seed"]);
        assert_eq!(
            body,
            json!({
                "model": "gpt-5-pro", "max_output_tokens": 9, "store": false, "stream": true,
                "reasoning": {"effort": "high", "summary": "auto"},
                "text": {"verbosity": "low", "format": {"type": "json_schema", "name": "n", "schema": {}, "strict": true}},
                "tools": [{"type": "function", "name": "f", "parameters": {}}], "tool_choice": {"type": "function", "name": "f"},
                "input": [
                    {"role": "system", "content": "Be short."},
                    {"role": "user", "content": [{"type": "input_text", "text": "Look"},
                        {"type": "input_image", "image_url": "https://example.org/a.png", "detail": "auto"}]},
                    {"role": "assistant", "content": [{"type": "output_text", "text": "I look"}]},
                    {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
                    {"type": "function_call_output", "call_id": "1", "output": "one"}]
            })
        );
    }

    #[test]
    fn stop_sequences_are_refused() {
        let error = sent(Dialect::Chat, Dialect::Responses, "m", &json!({"model": "x", "messages": [], "stop": "a"}))
            .unwrap_err();
        assert_eq!(error.to_string(), "say `stop` to a model that speaks responses: it knows no stop sequences");
    }

    #[test]
    fn calls_whose_arguments_come_only_at_the_end_have_them() {
        let seen = streamed(Dialect::Chat, Dialect::Responses, &full_stream(Dialect::Responses));
        let mut arguments = [String::new(), String::new()];
        for chunk in seen.data() {
            let call = &chunk["choices"][0]["delta"]["tool_calls"][0];
            if let Some(index) = call["index"].as_u64() {
                arguments[index as usize] += call["function"]["arguments"].as_str().unwrap();
            }
        }
        assert_eq!(arguments, ["{\"line\": 4}", "{}"]);
    }
}
