//! A caller of Anthropic's messages over a model that answers responses only.

mod answer;
mod items;
mod request;
mod stream;

use bytes::Bytes;

use crate::dialect::pair::{Answer, Outgoing, Pair, Target, Translate};
use crate::dialect::{Asked, Error, Facts};

/// The pair.
pub(super) struct AnthropicOverResponses;

impl Pair for AnthropicOverResponses {
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

    use crate::dialect::Dialect;
    use crate::dialect::trial::{answered, full_answer, full_stream, sent, streamed};

    #[test]
    fn thinking_comes_back_with_the_next_turn() {
        let (answer, _) = answered(Dialect::Anthropic, Dialect::Responses, &full_answer(Dialect::Responses)).unwrap();
        let body = json!({"model": "x", "max_tokens": 9, "system": "Be short.", "messages": [
            {"role": "user", "content": "Hi"}, {"role": "assistant", "content": answer["content"]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "done"}]}]}]});
        let (body, left) = sent(Dialect::Anthropic, Dialect::Responses, "gpt-5-pro", &body).unwrap();
        assert_eq!(left, Vec::<String>::new());
        assert_eq!(
            body["input"],
            json!([
                {"role": "user", "content": "Hi"},
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Let me see"}], "encrypted_content": "sig=="},
                {"role": "assistant", "content": [{"type": "output_text", "text": "It is\n\"hot\" 🔥"}]},
                {"type": "function_call", "call_id": "toolu_1", "name": "stop_pump", "arguments": "{\"line\":4}"},
                {"type": "function_call", "call_id": "toolu_2", "name": "look", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "toolu_1", "output": [{"type": "input_text", "text": "done"}]}])
        );
        assert_eq!((&body["instructions"], &body["store"]), (&json!("Be short."), &json!(false)));
        assert_eq!(body["include"], json!(["reasoning.encrypted_content"]));
    }

    #[test]
    fn blocks_of_a_stream_carry_signature_text_and_arguments() {
        let seen = streamed(Dialect::Anthropic, Dialect::Responses, &full_stream(Dialect::Responses));
        let mut blocks: Vec<Value> = Vec::new();
        for data in seen.data() {
            match data["type"].as_str().unwrap() {
                "content_block_start" => {
                    blocks.push(json!({"type": data["content_block"]["type"], "said": "", "signed": ""}))
                }
                "content_block_delta" => {
                    let delta = &data["delta"];
                    let said = ["text", "thinking", "partial_json"].iter().find_map(|name| delta[*name].as_str());
                    let block = &mut blocks[data["index"].as_u64().unwrap() as usize];
                    let (name, more) = match said {
                        Some(said) => ("said", said),
                        None => ("signed", delta["signature"].as_str().unwrap()),
                    };
                    block[name] = json!(format!("{}{more}", block[name].as_str().unwrap()));
                }
                _ => {}
            }
        }
        assert_eq!(
            blocks,
            [
                json!({"type": "thinking", "said": "Let me see", "signed": "sig=="}),
                json!({"type": "text", "said": "It is\n\"hot\" 🔥", "signed": ""}),
                json!({"type": "tool_use", "said": "{\"line\": 4}", "signed": ""}),
                json!({"type": "tool_use", "said": "{}", "signed": ""}),
            ]
        );
    }
}
