//! Bedrock's Converse and its stream (runtime 2023-09-30), AWS's event stream, SageMaker's wrapping in it.

use bytes::Bytes;
use serde_json::{Value, json};

use super::behaviour::{CACHED_TOKENS, PROMPT_TOKENS};
use super::routes::{Answer, Asked, Dialect, json_answer};

const EVENT_STREAM: &str = "application/vnd.amazon.eventstream";

/// One message of `application/vnd.amazon.eventstream`, with headers of texts.
pub(crate) fn event_message(headers: &[(&str, &str)], payload: &[u8]) -> Bytes {
    let mut written = Vec::new();
    for (name, value) in headers {
        written.push(name.len() as u8);
        written.extend(name.as_bytes());
        written.push(7);
        written.extend((value.len() as u16).to_be_bytes());
        written.extend(value.as_bytes());
    }
    let total = (16 + written.len() + payload.len()) as u32;
    let mut out = total.to_be_bytes().to_vec();
    out.extend((written.len() as u32).to_be_bytes());
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out.extend(written);
    out.extend(payload);
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out.into()
}

/// The `:event-type` (or `:exception-type`) and the payload of each message; panics where a checksum is wrong.
pub(crate) fn read_events(mut wire: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut events = Vec::new();
    let word = |bytes: &[u8]| u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
    while !wire.is_empty() {
        let (message, rest) = wire.split_at(word(wire));
        let (body, checksum) = message.split_at(message.len() - 4);
        assert_eq!(crc32fast::hash(body) as usize, word(checksum), "the checksum of a message");
        let (mut headers, payload) = body[12..].split_at(word(&body[4..]));
        let mut kind = String::new();
        while let Some((&length, after)) = headers.split_first() {
            let (name, after) = after.split_at(length.into());
            let length = u16::from_be_bytes([after[1], after[2]]).into();
            let (value, after) = after[3..].split_at(length);
            if name == b":event-type" || name == b":exception-type" {
                kind = String::from_utf8(value.to_vec()).unwrap();
            }
            headers = after;
        }
        events.push((kind, payload.to_vec()));
        wire = rest;
    }
    events
}

fn event(kind: &str, value: &Value) -> Bytes {
    let headers = [(":event-type", kind), (":content-type", "application/json"), (":message-type", "event")];
    event_message(&headers, value.to_string().as_bytes())
}

pub(super) fn exception(kind: &str, message: &str) -> Bytes {
    let headers = [(":exception-type", kind), (":content-type", "application/json"), (":message-type", "exception")];
    event_message(&headers, json!({"message": message}).to_string().as_bytes())
}

fn usage(words: usize) -> Value {
    json!({"inputTokens": PROMPT_TOKENS - CACHED_TOKENS, "outputTokens": words, "totalTokens": PROMPT_TOKENS + words,
        "cacheReadInputTokens": CACHED_TOKENS, "cacheWriteInputTokens": 0})
}

pub(super) fn converse(asked: &Asked<'_>) -> Answer {
    let tool = asked.tool();
    let mut content = Vec::new();
    if asked.does.reasoning {
        content.push(json!({"reasoningContent": {"reasoningText": {"text": "Let me see.", "signature": "c2ln"}}}));
    }
    content.push(match &tool {
        Some(name) => json!({"toolUse": {"toolUseId": "tooluse_mock", "name": name, "input": {"n": 1}}}),
        None => json!({"text": asked.text()}),
    });
    let value = json!({
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": if tool.is_some() { "tool_use" } else { "end_turn" },
        "usage": usage(asked.does.words), "metrics": {"latencyMs": 5},
    });
    json_answer(Dialect::Bedrock, &value)
}

pub(super) fn converse_stream(asked: &Asked<'_>) -> Answer {
    let tool = asked.tool();
    let mut frames = vec![event("messageStart", &json!({"role": "assistant"}))];
    let mut index = 0;
    if asked.does.reasoning {
        let delta = json!({"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "Let me see."}}});
        frames.push(event("contentBlockDelta", &delta));
        frames.push(event("contentBlockStop", &json!({"contentBlockIndex": 0})));
        index = 1;
    }
    let delta = |delta: Value| event("contentBlockDelta", &json!({"contentBlockIndex": index, "delta": delta}));
    match &tool {
        Some(name) => {
            let start = json!({"toolUse": {"toolUseId": "tooluse_mock", "name": name}});
            frames.push(event("contentBlockStart", &json!({"contentBlockIndex": index, "start": start})));
            for piece in ["{\"n\"", ":1}"] {
                frames.push(delta(json!({"toolUse": {"input": piece}})));
            }
        }
        None => frames.extend((0..asked.does.words).map(|at| delta(json!({"text": asked.word(at)})))),
    }
    frames.push(event("contentBlockStop", &json!({"contentBlockIndex": index})));
    let stop = if tool.is_some() { "tool_use" } else { "end_turn" };
    frames.push(event("messageStop", &json!({"stopReason": stop})));
    if asked.does.usage {
        let metadata = json!({"usage": usage(asked.does.words), "metrics": {"latencyMs": 5}});
        frames.push(event("metadata", &metadata));
    }
    Answer { dialect: Dialect::Bedrock, status: 200, content_type: EVENT_STREAM, frames, headers: Vec::new() }
}

/// As SageMaker passes on what a container streams.
pub(super) fn wrap(answer: Answer) -> Answer {
    let headers =
        [(":event-type", "PayloadPart"), (":content-type", "application/octet-stream"), (":message-type", "event")];
    let frames = answer.frames.iter().map(|frame| event_message(&headers, frame)).collect();
    Answer { content_type: EVENT_STREAM, frames, ..answer }
}
