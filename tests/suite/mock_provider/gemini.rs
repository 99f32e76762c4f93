//! Gemini: generateContent and its stream, embeddings, token counting, models (v1beta).

use serde_json::{Value, json};

use super::behaviour::{CACHED_TOKENS, PROMPT_TOKENS};
use super::routes::{Answer, Asked, Dialect, error, json_answer, sse};

fn usage(words: usize, thoughts: usize) -> Value {
    let mut usage = json!({"promptTokenCount": PROMPT_TOKENS, "candidatesTokenCount": words,
        "totalTokenCount": PROMPT_TOKENS + words + thoughts, "cachedContentTokenCount": CACHED_TOKENS});
    if thoughts > 0 {
        usage["thoughtsTokenCount"] = json!(thoughts);
    }
    usage
}

fn part(asked: &Asked<'_>, parts: Value, finish: Option<&str>) -> Value {
    let mut candidate = json!({"content": {"parts": parts, "role": "model"}, "index": 0});
    if let Some(finish) = finish {
        candidate["finishReason"] = json!(finish);
    }
    let mut value = json!({"candidates": [candidate], "modelVersion": asked.model, "responseId": "mock"});
    if asked.does.usage {
        value["usageMetadata"] = usage(asked.does.words, asked.does.thought_tokens());
    }
    value
}

pub(super) fn answer(asked: &Asked<'_>, path: &str) -> Answer {
    let verb = path.rsplit(':').next().unwrap_or("");
    let values = vec![0.25; asked.does.dimensions];
    if verb.ends_with("enerateContent") && asked.body["contents"].as_array().is_none_or(Vec::is_empty) {
        return error(Dialect::Gemini, 400, None);
    }
    match verb {
        "generateContent" => {
            let mut parts = Vec::new();
            if asked.does.reasoning {
                parts.push(json!({"text": "Let me see.", "thought": true}));
            }
            parts.push(match asked.tool() {
                Some(name) => json!({"functionCall": {"name": name, "args": {"n": 1}}}),
                None => json!({"text": asked.text()}),
            });
            json_answer(Dialect::Gemini, &part(asked, json!(parts), Some("STOP")))
        }
        "streamGenerateContent" => {
            let mut values = Vec::new();
            if asked.does.reasoning {
                values.push(part(asked, json!([{"text": "Let me see.", "thought": true}]), None));
            }
            match asked.tool() {
                Some(name) => {
                    let call = json!([{"functionCall": {"name": name, "args": {"n": 1}}}]);
                    values.push(part(asked, call, Some("STOP")));
                }
                None => {
                    let last = asked.does.words.saturating_sub(1);
                    values.extend(
                        (0..asked.does.words)
                            .map(|at| part(asked, json!([{"text": asked.word(at)}]), (at == last).then_some("STOP"))),
                    );
                }
            }
            sse(Dialect::Gemini, values.iter().map(|value| format!("data: {value}\r\n\r\n")))
        }
        "countTokens" => json_answer(Dialect::Gemini, &json!({"totalTokens": PROMPT_TOKENS})),
        "embedContent" => json_answer(Dialect::Gemini, &json!({"embedding": {"values": values}})),
        "batchEmbedContents" => {
            let inputs = asked.body["requests"].as_array().map_or(0, Vec::len);
            json_answer(Dialect::Gemini, &json!({"embeddings": vec![json!({"values": values}); inputs]}))
        }
        _ if path.ends_with("/models") => models(),
        _ => error(Dialect::Gemini, 404, None),
    }
}

pub(super) fn models() -> Answer {
    let model = json!({"name": "models/mock-large", "version": "1", "displayName": "Mock", "inputTokenLimit": 8192,
        "outputTokenLimit": 1024, "supportedGenerationMethods": ["generateContent"]});
    json_answer(Dialect::Gemini, &json!({"models": [model]}))
}
