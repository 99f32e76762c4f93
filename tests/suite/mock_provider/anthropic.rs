//! Anthropic: messages and token counting (API version 2023-06-01).

use serde_json::{Value, json};

use super::behaviour::{CACHED_TOKENS, PROMPT_TOKENS};
use super::routes::{Answer, Asked, Dialect, json_answer, sse};

fn event(value: &Value) -> String {
    format!("event: {}\ndata: {value}\n\n", value["type"].as_str().unwrap())
}

fn usage(words: usize, thoughts: usize) -> Value {
    json!({"input_tokens": PROMPT_TOKENS - CACHED_TOKENS, "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": CACHED_TOKENS, "output_tokens": words, "service_tier": "standard",
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}, "inference_geo": null,
        "output_tokens_details": {"thinking_tokens": thoughts}, "server_tool_use": null})
}

fn message(asked: &Asked<'_>, content: Value, stop: Value, words: usize) -> Value {
    json!({"id": "msg_mock", "type": "message", "role": "assistant", "model": asked.model, "content": content,
        "stop_reason": stop, "stop_sequence": null, "stop_details": null, "container": null, "usage": usage(words, asked.does.thought_tokens())})
}

pub(super) fn messages(asked: &Asked<'_>, stream: bool) -> Answer {
    let words = asked.does.words;
    let tool = asked.tool();
    let stop = if tool.is_some() { "tool_use" } else { "end_turn" };
    if !stream {
        let mut content = Vec::new();
        if asked.does.reasoning {
            content.push(json!({"type": "thinking", "thinking": "Let me see.", "signature": "c2ln"}));
        }
        content.push(match &tool {
            Some(name) => json!({"type": "tool_use", "id": "toolu_mock", "name": name, "input": {"n": 1}, "caller": {"type": "direct"}}),
            None => json!({"type": "text", "text": asked.text(), "citations": null}),
        });
        return json_answer(Dialect::Anthropic, &message(asked, json!(content), json!(stop), words));
    }
    let mut events = vec![
        json!({"type": "message_start", "message": message(asked, json!([]), Value::Null, 1)}),
        json!({"type": "ping"}),
    ];
    let mut index = 0;
    let mut block = |start: Value, deltas: Vec<Value>| {
        events.push(json!({"type": "content_block_start", "index": index, "content_block": start}));
        for delta in deltas {
            events.push(json!({"type": "content_block_delta", "index": index, "delta": delta}));
        }
        events.push(json!({"type": "content_block_stop", "index": index}));
        index += 1;
    };
    if asked.does.reasoning {
        let deltas = vec![
            json!({"type": "thinking_delta", "thinking": "Let me see."}),
            json!({"type": "signature_delta", "signature": "c2ln"}),
        ];
        block(json!({"type": "thinking", "thinking": "", "signature": ""}), deltas);
    }
    match &tool {
        Some(name) => {
            let deltas = ["", "{\"n\"", ":1}"];
            let deltas =
                deltas.iter().map(|piece| json!({"type": "input_json_delta", "partial_json": piece})).collect();
            block(json!({"type": "tool_use", "id": "toolu_mock", "name": name, "input": {}}), deltas);
        }
        None => {
            let deltas = (0..words).map(|at| json!({"type": "text_delta", "text": asked.word(at)})).collect();
            block(json!({"type": "text", "text": ""}), deltas);
        }
    }
    let delta = json!({"stop_reason": stop, "stop_sequence": null});
    events.push(json!({"type": "message_delta", "delta": delta, "usage": {"output_tokens": words,
        "output_tokens_details": {"thinking_tokens": asked.does.thought_tokens()}}}));
    events.push(json!({"type": "message_stop"}));
    sse(Dialect::Anthropic, events.iter().map(event))
}

pub(super) fn count_tokens() -> Answer {
    json_answer(Dialect::Anthropic, &json!({"input_tokens": PROMPT_TOKENS}))
}
