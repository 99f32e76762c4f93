//! OpenAI: chat, completions, responses, embeddings, moderations, models (API v1 as of October 2026).

use serde_json::{Value, json};

use super::behaviour::{Behaviour, CACHED_TOKENS, PROMPT_TOKENS};
use super::routes::{Answer, Asked, Dialect, error, json_answer, sse};

const CREATED: u64 = 1_790_000_000;

fn data(value: &Value) -> String {
    format!("data: {value}\n\n")
}

fn usage(does: &Behaviour) -> Value {
    let words = does.words;
    json!({
        "prompt_tokens": PROMPT_TOKENS, "completion_tokens": words, "total_tokens": PROMPT_TOKENS + words,
        "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": does.thought_tokens(), "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
    })
}

pub(super) fn chat(asked: &Asked<'_>) -> Answer {
    if is_refused(asked) {
        return error(Dialect::OpenAi, 422, None);
    }
    if asked.stream { chat_stream(asked) } else { chat_whole(asked) }
}

/// Mistral refuses what it does not know.
fn is_refused(asked: &Asked<'_>) -> bool {
    asked.tells_usage && !asked.body["stream_options"].is_null()
}

fn chat_whole(asked: &Asked<'_>) -> Answer {
    // As small servers answer that know no more of the dialect.
    if asked.model.contains("lean") {
        let value = json!({"model": asked.model, "choices": [{"message": {"content": asked.text()}}]});
        return json_answer(Dialect::OpenAi, &value);
    }
    let mut message = json!({"role": "assistant", "content": asked.text(), "refusal": null, "annotations": []});
    let mut finish = "stop";
    if asked.does.reasoning {
        message["reasoning_content"] = json!("Let me see.");
    }
    if let Some(name) = asked.tool() {
        message["content"] = Value::Null;
        message["tool_calls"] =
            json!([{"id": "call_mock", "type": "function", "function": {"name": name, "arguments": "{\"n\":1}"}}]);
        finish = "tool_calls";
    }
    let mut value = json!({
        "id": "chatcmpl-mock", "object": "chat.completion", "created": CREATED, "model": asked.model,
        "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": finish}],
        "service_tier": "default", "system_fingerprint": "fp_mock",
    });
    if asked.does.usage {
        value["usage"] = usage(asked.does);
    }
    json_answer(Dialect::OpenAi, &value)
}

fn chat_stream(asked: &Asked<'_>) -> Answer {
    let with_usage = asked.does.usage && asked.body["stream_options"]["include_usage"] == json!(true);
    let chunk = |delta: Value, finish: Value| {
        let mut value = json!({
            "id": "chatcmpl-mock", "object": "chat.completion.chunk", "created": CREATED, "model": asked.model,
            "service_tier": "default", "system_fingerprint": "fp_mock",
            "choices": [{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}],
        });
        if with_usage {
            value["usage"] = Value::Null;
        }
        data(&value)
    };
    let mut events = vec![chunk(json!({"role": "assistant", "content": "", "refusal": null}), Value::Null)];
    if asked.model.contains("lean") {
        events.clear();
    }
    if asked.does.reasoning {
        events.push(chunk(json!({"reasoning_content": "Let me see."}), Value::Null));
    }
    let finish = match asked.tool() {
        Some(name) => {
            let start = json!({"tool_calls": [{"index": 0, "id": "call_mock", "type": "function",
                "function": {"name": name, "arguments": ""}}]});
            events.push(chunk(start, Value::Null));
            for piece in ["{\"n\"", ":1}"] {
                let delta = json!({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]});
                events.push(chunk(delta, Value::Null));
            }
            "tool_calls"
        }
        None => {
            events.extend((0..asked.does.words).map(|at| chunk(json!({"content": asked.word(at)}), Value::Null)));
            "stop"
        }
    };
    events.push(if asked.tells_usage {
        let mut last: Value = serde_json::from_str(&chunk(json!({}), json!(finish))[6..]).unwrap();
        last["usage"] = usage(asked.does);
        data(&last)
    } else {
        chunk(json!({}), json!(finish))
    });
    if with_usage && !asked.tells_usage {
        events.push(data(&json!({
            "id": "chatcmpl-mock", "object": "chat.completion.chunk", "created": CREATED, "model": asked.model,
            "choices": [], "usage": usage(asked.does),
        })));
    }
    events.push("data: [DONE]\n\n".to_owned());
    sse(Dialect::OpenAi, events)
}

pub(super) fn completions(asked: &Asked<'_>) -> Answer {
    let part = |text: &str, finish: Value| {
        json!({
            "id": "cmpl-mock", "object": "text_completion", "created": CREATED, "model": asked.model,
            "choices": [{"index": 0, "text": text, "logprobs": null, "finish_reason": finish}],
        })
    };
    if !asked.stream {
        let mut value = part(&asked.text(), json!("stop"));
        if asked.does.usage {
            value["usage"] = usage(asked.does);
        }
        return json_answer(Dialect::OpenAi, &value);
    }
    let mut events: Vec<_> = (0..asked.does.words).map(|at| data(&part(asked.word(at), Value::Null))).collect();
    events.push(data(&part("", json!("stop"))));
    if asked.does.usage && asked.body["stream_options"]["include_usage"] == json!(true) {
        let mut value = part("", Value::Null);
        value["choices"] = json!([]);
        value["usage"] = usage(asked.does);
        events.push(data(&value));
    }
    events.push("data: [DONE]\n\n".to_owned());
    sse(Dialect::OpenAi, events)
}

fn response(asked: &Asked<'_>, status: &str, output: Value) -> Value {
    let words = asked.does.words;
    let is_done = status == "completed";
    let usage = if is_done && asked.does.usage {
        json!({
            "input_tokens": PROMPT_TOKENS, "input_tokens_details": {"cached_tokens": CACHED_TOKENS},
            "output_tokens": words, "output_tokens_details": {"reasoning_tokens": asked.does.thought_tokens()}, "total_tokens": PROMPT_TOKENS + words,
        })
    } else {
        Value::Null
    };
    json!({
        "id": "resp_mock", "object": "response", "created_at": CREATED, "status": status, "background": false,
        "completed_at": if is_done { json!(CREATED) } else { Value::Null }, "presence_penalty": 0.0,
        "frequency_penalty": 0.0, "top_logprobs": 0, "max_tool_calls": null, "service_tier": "default",
        "safety_identifier": null, "prompt_cache_key": null,
        "error": null, "incomplete_details": null, "instructions": null, "max_output_tokens": null, "model": asked.model,
        "output": output, "parallel_tool_calls": true, "previous_response_id": null,
        "reasoning": {"effort": asked.body["reasoning"]["effort"], "summary": asked.body["reasoning"]["summary"]}, "store": false, "temperature": 1.0,
        "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "top_p": 1.0, "truncation": "disabled",
        "usage": usage, "user": null, "metadata": {},
    })
}

fn output(asked: &Asked<'_>) -> Vec<Value> {
    let mut items = Vec::new();
    if asked.does.reasoning {
        let summary = json!([{"type": "summary_text", "text": "Let me see."}]);
        items.push(json!({"id": "rs_mock", "type": "reasoning", "summary": summary}));
    }
    items.push(match asked.tool() {
        Some(name) => json!({"id": "fc_mock", "type": "function_call", "status": "completed", "call_id": "call_mock",
            "name": name, "arguments": "{\"n\":1}"}),
        None => json!({"id": "msg_mock", "type": "message", "status": "completed", "role": "assistant",
            "content": [{"type": "output_text", "text": asked.text(), "annotations": [], "logprobs": []}]}),
    });
    items
}

pub(super) fn responses(asked: &Asked<'_>) -> Answer {
    let output = output(asked);
    if !asked.stream {
        return json_answer(Dialect::OpenAi, &response(asked, "completed", json!(output)));
    }
    let started = response(asked, "in_progress", json!([]));
    let mut events = vec![
        ("response.created", json!({"response": started})),
        ("response.in_progress", json!({"response": started})),
    ];
    for (index, item) in output.iter().enumerate() {
        item_events(asked, index, item, &mut events);
    }
    events.push(("response.completed", json!({"response": response(asked, "completed", json!(output))})));
    let numbered = events.into_iter().enumerate().map(|(number, (kind, mut value))| {
        value["type"] = json!(kind);
        value["sequence_number"] = json!(number);
        format!("event: {kind}\ndata: {value}\n\n")
    });
    sse(Dialect::OpenAi, numbered)
}

/// How an item of the output comes into being.
fn item_events(asked: &Asked<'_>, index: usize, item: &Value, events: &mut Vec<(&'static str, Value)>) {
    let at = json!({"output_index": index, "item_id": item["id"]});
    let with = |more: Value| {
        let mut value = at.clone();
        for (name, part) in more.as_object().unwrap() {
            value[name] = part.clone();
        }
        value
    };
    let mut begun = item.clone();
    let mut parts = Vec::new();
    match item["type"].as_str().unwrap() {
        "reasoning" => {
            begun["summary"] = json!([]);
            let part = |text: &str| json!({"summary_index": 0, "part": {"type": "summary_text", "text": text}});
            let whole = "Let me see.";
            parts.push(("response.reasoning_summary_part.added", with(part(""))));
            parts.push(("response.reasoning_summary_text.delta", with(json!({"summary_index": 0, "delta": whole}))));
            parts.push(("response.reasoning_summary_text.done", with(json!({"summary_index": 0, "text": whole}))));
            parts.push(("response.reasoning_summary_part.done", with(part(whole))));
        }
        "function_call" => {
            begun["status"] = json!("in_progress");
            begun["arguments"] = json!("");
            for piece in ["{\"n\"", ":1}"] {
                parts.push(("response.function_call_arguments.delta", with(json!({"delta": piece}))));
            }
            let done = json!({"name": item["name"], "arguments": "{\"n\":1}"});
            parts.push(("response.function_call_arguments.done", with(done)));
        }
        _ => {
            begun["status"] = json!("in_progress");
            begun["content"] = json!([]);
            let part = |text: &str| json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []});
            parts.push(("response.content_part.added", with(json!({"content_index": 0, "part": part("")}))));
            for n in 0..asked.does.words {
                let delta = json!({"content_index": 0, "delta": asked.word(n), "logprobs": []});
                parts.push(("response.output_text.delta", with(delta)));
            }
            let whole = asked.text();
            let done = json!({"content_index": 0, "text": whole, "logprobs": []});
            parts.push(("response.output_text.done", with(done)));
            parts.push(("response.content_part.done", with(json!({"content_index": 0, "part": part(&whole)}))));
        }
    }
    events.push(("response.output_item.added", json!({"output_index": index, "item": begun})));
    events.extend(parts);
    events.push(("response.output_item.done", json!({"output_index": index, "item": item})));
}

pub(super) fn embeddings(asked: &Asked<'_>) -> Answer {
    // Texts, or tokens of texts.
    let several = |items: &Vec<Value>| items.first().is_some_and(|first| first.is_string() || first.is_array());
    let inputs = asked.body["input"].as_array().filter(|items| several(items)).map_or(1, Vec::len);
    let is_base64 = asked.body["encoding_format"] == json!("base64");
    let vector = if is_base64 {
        // 0.25 as a little-endian float, so often.
        let bytes = [0u8, 0, 0x80, 0x3e].repeat(asked.does.dimensions);
        json!(base64(&bytes))
    } else {
        json!(vec![0.25; asked.does.dimensions])
    };
    let rows: Vec<_> =
        (0..inputs).map(|index| json!({"object": "embedding", "index": index, "embedding": vector})).collect();
    let usage = json!({"prompt_tokens": PROMPT_TOKENS, "total_tokens": PROMPT_TOKENS});
    let answer = json!({"id": "emb-mock", "object": "list", "data": rows, "model": asked.model, "usage": usage});
    json_answer(Dialect::OpenAi, &answer)
}

/// Standard base64, so that the mock needs no crate for it.
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let n = three.iter().fold(0u32, |n, byte| n << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for at in 0..4 {
            let digit = DIGITS[(n >> (18 - 6 * at)) as usize & 63];
            text.push(if at <= three.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

pub(super) fn moderations(asked: &Asked<'_>) -> Answer {
    let inputs = asked.body["input"].as_array().map_or(1, Vec::len);
    let result = json!({"flagged": false, "categories": {"violence": false}, "category_scores": {"violence": 0.01},
        "category_applied_input_types": {"violence": ["text"]}});
    json_answer(Dialect::OpenAi, &json!({"id": "modr-mock", "model": asked.model, "results": vec![result; inputs]}))
}

pub(super) fn models() -> Answer {
    let model = |id| json!({"id": id, "object": "model", "created": CREATED, "owned_by": "mock"});
    json_answer(Dialect::OpenAi, &json!({"object": "list", "data": [model("mock-large"), model("mock-small")]}))
}
