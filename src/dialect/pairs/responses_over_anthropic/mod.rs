//! A caller of OpenAI's responses over a model of Anthropic's.

mod answer;
mod items;
mod request;
mod stream;

use bytes::Bytes;

use crate::dialect::pair::{Answer, Outgoing, Pair, Target, Translate};
use crate::dialect::{Asked, Error, Facts};

/// The pair.
pub(super) struct ResponsesOverAnthropic;

impl Pair for ResponsesOverAnthropic {
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
    use crate::dialect::trial::{answered, full_answer, full_stream, sent, streamed};

    #[test]
    fn items_become_turns_of_blocks() {
        let (body, left) = sent(Dialect::Responses, Dialect::Anthropic, "claude-opus-4-7", &json!({
            "model": "x", "instructions": "Be short.", "reasoning": {"effort": "high"}, "tool_choice": "auto", "parallel_tool_calls": true,
            "tools": [{"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}}],
            "input": [
                {"role": "developer", "content": [{"type": "input_text", "text": "Be kind."}]},
                {"role": "user", "content": [{"type": "input_text", "text": "Look"}, {"type": "input_image", "image_url": "data:image/png;base64,AA"}]},
                {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{\"a\":1}"},
                {"type": "function_call_output", "call_id": "1", "output": "one"}]
        }))
        .unwrap();
        assert_eq!(left, Vec::<String>::new());
        assert_eq!(
            body,
            json!({
                "model": "claude-opus-4-7", "max_tokens": 4096, "thinking": {"type": "adaptive"}, "output_config": {"effort": "high"},
                "system": [{"type": "text", "text": "Be short."}, {"type": "text", "text": "Be kind."}],
                "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}], "tool_choice": {"type": "auto"},
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "Look"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}}]},
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}}]},
                    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "one"}]}]
            })
        );
    }

    #[test]
    fn thinking_comes_back_signed_with_the_next_turn() {
        let (answer, _) = answered(Dialect::Responses, Dialect::Anthropic, &full_answer(Dialect::Anthropic)).unwrap();
        let body = json!({"model": "x", "input": answer["output"]});
        let (body, left) = sent(Dialect::Responses, Dialect::Anthropic, "claude", &body).unwrap();
        assert_eq!(left, Vec::<String>::new());
        assert_eq!(body["messages"][0]["content"], full_answer(Dialect::Anthropic)["content"]);
    }

    #[test]
    fn a_stream_ends_with_the_same_items_as_the_whole_answer() {
        let seen = streamed(Dialect::Responses, Dialect::Anthropic, &full_stream(Dialect::Anthropic));
        let (whole, _) = answered(Dialect::Responses, Dialect::Anthropic, &full_answer(Dialect::Anthropic)).unwrap();
        let last = seen.events().pop().unwrap().1;
        assert_eq!(last["type"], "response.completed");
        assert_eq!(last["response"]["output"][0], whole["output"][0]);
        assert_eq!(last["response"]["output"][1], whole["output"][1]);
        assert_eq!(last["response"]["output"][3], whole["output"][3]);
        assert_eq!(last["response"]["usage"], whole["usage"]);
    }
}
