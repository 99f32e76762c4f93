//! Ollama: chat, generate, embed, tags, version (0.40).

use bytes::Bytes;
use serde_json::{Value, json};

use super::behaviour::PROMPT_TOKENS;
use super::routes::{Answer, Asked, Dialect, error, json_answer};

const CREATED: &str = "2026-10-01T12:00:00.000000Z";

pub(super) fn answer(asked: &Asked<'_>, path: &str) -> Answer {
    let is_chat = path == "/api/chat";
    match path {
        "/api/chat" | "/api/generate" => talk(asked, is_chat),
        "/api/embed" => {
            let inputs = asked.body["input"].as_array().map_or(1, Vec::len);
            let vectors = vec![vec![0.25; asked.does.dimensions]; inputs];
            let value = json!({"model": asked.model, "embeddings": vectors, "total_duration": 1000, "load_duration": 10,
                "prompt_eval_count": PROMPT_TOKENS});
            json_answer(Dialect::Ollama, &value)
        }
        "/api/tags" => json_answer(
            Dialect::Ollama,
            &json!({"models": [{"name": "mock:latest", "model": "mock:latest", "modified_at": CREATED, "size": 1,
                "digest": "0", "details": {"format": "gguf", "family": "mock", "parameter_size": "1B", "quantization_level": "Q4_0"}}]}),
        ),
        "/api/version" => json_answer(Dialect::Ollama, &json!({"version": "0.40.12"})),
        _ => error(Dialect::Ollama, 404, None),
    }
}

fn talk(asked: &Asked<'_>, is_chat: bool) -> Answer {
    let part = |content: &str, is_done: bool| {
        let mut value = json!({"model": asked.model, "created_at": CREATED});
        if is_chat {
            value["message"] = json!({"role": "assistant", "content": content});
        } else {
            value["response"] = json!(content);
        }
        value["done"] = json!(is_done);
        value
    };
    let finish = |mut value: Value| {
        value["done_reason"] = json!("stop");
        value["total_duration"] = json!(5_000_000);
        value["load_duration"] = json!(1000);
        if asked.does.usage {
            value["prompt_eval_count"] = json!(PROMPT_TOKENS);
            value["prompt_eval_duration"] = json!(1_000_000);
            value["eval_count"] = json!(asked.does.words);
            value["eval_duration"] = json!(4_000_000);
        }
        value
    };
    let tool = asked.tool().filter(|_| is_chat);
    let calls = |name: &str| json!([{"function": {"name": name, "arguments": {"n": 1}}}]);
    if !asked.stream {
        let mut value = finish(part(&asked.text(), true));
        if let Some(name) = &tool {
            value["message"] = json!({"role": "assistant", "content": "", "tool_calls": calls(name)});
        }
        if asked.does.reasoning && is_chat {
            value["message"]["thinking"] = json!("Let me see.");
        }
        return json_answer(Dialect::Ollama, &value);
    }
    let mut lines = Vec::new();
    if asked.does.reasoning && is_chat {
        let mut value = part("", false);
        value["message"]["thinking"] = json!("Let me see.");
        lines.push(value);
    }
    match &tool {
        Some(name) => {
            let mut value = part("", false);
            value["message"]["tool_calls"] = calls(name);
            lines.push(value);
        }
        None => lines.extend((0..asked.does.words).map(|at| part(asked.word(at), false))),
    }
    lines.push(finish(part("", true)));
    let frames = lines.iter().map(|line| Bytes::from(format!("{line}\n"))).collect();
    Answer { dialect: Dialect::Ollama, status: 200, content_type: "application/x-ndjson", frames, headers: Vec::new() }
}
