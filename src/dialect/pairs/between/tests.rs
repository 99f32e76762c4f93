//! Every pair of dialects, with what all of them must tell.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::dialect::event_stream::tests::event;
use crate::dialect::talk::tests::conversation;
use crate::dialect::{
    Asked, Dialect, Facts, FailureKind, Finish, Operation, Step, Stream, Usage, answer, can_translate,
};
use bytes::Bytes;

/// A caller who asked for a stream, or not.
fn asked(dialect: Dialect, stream: bool) -> Asked {
    let mut body = conversation(dialect);
    if dialect != Dialect::Gemini {
        body["stream"] = json!(stream);
    }
    if stream && dialect == Dialect::Chat {
        body["stream_options"] = json!({"include_usage": true});
    }
    let body = Bytes::from(body.to_string());
    let facts = Facts::read(dialect, Operation::Chat, &body).unwrap();
    Asked::new(&facts, body.clone(), "7f3a", 1_795_000_000)
}

/// The same answer as each model's server streams it: a thought, words, a call, the usage.
fn streamed(dialect: Dialect) -> Vec<u8> {
    let sse = |frames: &[Value]| -> Vec<u8> {
        frames.iter().flat_map(|frame| format!("data: {frame}\r\n\r\n").into_bytes()).collect()
    };
    match dialect {
        Dialect::Gemini => sse(&[
            json!({"candidates": [{"content": {"parts": [{"text": "hm", "thought": true}], "role": "model"}, "index": 0}],
                "modelVersion": "gemini-3-pro", "usageMetadata": {"promptTokenCount": 40}}),
            json!({"candidates": [{"content": {"parts": [{"text": "Let me \"look\""}], "role": "model"}}]}),
            json!({"candidates": [{"content": {"parts": [
                {"functionCall": {"name": "look", "args": {"line": 4}}, "thoughtSignature": "Sig="}], "role": "model"},
                "finishReason": "STOP"}],
                "usageMetadata": {"promptTokenCount": 40, "candidatesTokenCount": 9, "thoughtsTokenCount": 3,
                    "cachedContentTokenCount": 16, "totalTokenCount": 52}}),
        ]),
        Dialect::Ollama => [
            json!({"model": "qwen3", "created_at": "x", "message": {"role": "assistant", "content": "", "thinking": "hm"}, "done": false}),
            json!({"model": "qwen3", "message": {"role": "assistant", "content": "Let me \"look\""}, "done": false}),
            json!({"model": "qwen3", "message": {"role": "assistant", "content": "", "tool_calls":
                [{"function": {"name": "look", "arguments": {"line": 4}}}]}, "done": false}),
            json!({"model": "qwen3", "message": {"role": "assistant", "content": ""}, "done": true, "done_reason": "stop",
                "total_duration": 5, "prompt_eval_count": 40, "eval_count": 12}),
        ]
        .iter()
        .flat_map(|line| format!("{line}\n").into_bytes())
        .collect(),
        Dialect::Bedrock => [
            ("messageStart", json!({"role": "assistant"})),
            ("contentBlockDelta", json!({"delta": {"reasoningContent": {"text": "hm"}}, "contentBlockIndex": 0})),
            ("contentBlockDelta", json!({"delta": {"reasoningContent": {"signature": "Sig="}}, "contentBlockIndex": 0})),
            ("contentBlockStop", json!({"contentBlockIndex": 0})),
            ("contentBlockDelta", json!({"delta": {"text": "Let me \"look\""}, "contentBlockIndex": 1})),
            ("contentBlockStop", json!({"contentBlockIndex": 1})),
            ("contentBlockStart", json!({"start": {"toolUse": {"toolUseId": "tooluse_1", "name": "look"}}, "contentBlockIndex": 2})),
            ("contentBlockDelta", json!({"delta": {"toolUse": {"input": "{\"line\""}}, "contentBlockIndex": 2})),
            ("contentBlockDelta", json!({"delta": {"toolUse": {"input": ":4}"}}, "contentBlockIndex": 2})),
            ("contentBlockStop", json!({"contentBlockIndex": 2})),
            ("messageStop", json!({"stopReason": "tool_use"})),
            ("metadata", json!({"usage": {"inputTokens": 24, "outputTokens": 12, "totalTokens": 52,
                "cacheReadInputTokens": 16, "cacheWriteInputTokens": 0}, "metrics": {"latencyMs": 5}})),
        ]
        .iter()
        .flat_map(|(name, payload)| event(name, &payload.to_string()))
        .collect(),
        Dialect::Anthropic => sse(&[
            json!({"type": "message_start", "message": {"model": "claude", "usage": {"input_tokens": 24, "cache_read_input_tokens": 16, "output_tokens": 1}}}),
            json!({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}}),
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}}),
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "Sig="}}),
            json!({"type": "content_block_stop", "index": 0}),
            json!({"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}}),
            json!({"type": "ping"}),
            json!({"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Let me \"look\""}}),
            json!({"type": "content_block_stop", "index": 1}),
            json!({"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}}),
            json!({"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "{\"line\""}}),
            json!({"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": ":4}"}}),
            json!({"type": "content_block_stop", "index": 2}),
            json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 12}}),
            json!({"type": "message_stop"}),
        ]),
        _ => {
            let chunk = |delta: Value, reason: Value| {
                json!({"model": "gpt", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})
            };
            let call = json!([{"index": 0, "id": "call_9", "type": "function", "function": {"name": "look", "arguments": ""}}]);
            let arguments = |piece: &str| json!([{"index": 0, "function": {"arguments": piece}}]);
            let mut bytes = sse(&[
                chunk(json!({"role": "assistant", "content": ""}), Value::Null),
                chunk(json!({"reasoning_content": "hm"}), Value::Null),
                chunk(json!({"content": "Let me \"look\""}), Value::Null),
                chunk(json!({"tool_calls": call}), Value::Null),
                chunk(json!({"tool_calls": arguments("{\"line\"")}), Value::Null),
                chunk(json!({"tool_calls": arguments(":4}")}), Value::Null),
                chunk(json!({}), json!("tool_calls")),
                json!({"model": "gpt", "choices": [], "usage": {"prompt_tokens": 40, "completion_tokens": 12, "total_tokens": 52,
                    "prompt_tokens_details": {"cached_tokens": 16}}}),
            ]);
            bytes.extend_from_slice(b"data: [DONE]\n\n");
            bytes
        }
    }
}

/// The same as one body.
fn whole(dialect: Dialect) -> Value {
    match dialect {
        Dialect::Gemini => json!({"candidates": [{"content": {"parts": [
                {"text": "hm", "thought": true}, {"text": "Let me \"look\""},
                {"functionCall": {"name": "look", "args": {"line": 4}}, "thoughtSignature": "Sig="}], "role": "model"},
                "finishReason": "STOP"}], "modelVersion": "gemini-3-pro",
            "usageMetadata": {"promptTokenCount": 40, "candidatesTokenCount": 9, "thoughtsTokenCount": 3, "cachedContentTokenCount": 16}}),
        Dialect::Ollama => {
            json!({"model": "qwen3", "message": {"role": "assistant", "content": "Let me \"look\"", "thinking": "hm",
                "tool_calls": [{"function": {"name": "look", "arguments": {"line": 4}}}]},
            "done": true, "done_reason": "stop", "prompt_eval_count": 40, "eval_count": 12})
        }
        Dialect::Bedrock => json!({"output": {"message": {"role": "assistant", "content": [
                {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "Sig="}}}, {"text": "Let me \"look\""},
                {"toolUse": {"toolUseId": "tooluse_1", "name": "look", "input": {"line": 4}}}]}},
            "stopReason": "tool_use", "usage": {"inputTokens": 24, "outputTokens": 12, "totalTokens": 52, "cacheReadInputTokens": 16}}),
        Dialect::Anthropic => json!({"model": "claude", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "Sig="}, {"type": "text", "text": "Let me \"look\""},
                {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"line": 4}}],
            "stop_reason": "tool_use", "usage": {"input_tokens": 24, "cache_read_input_tokens": 16, "output_tokens": 12}}),
        _ => {
            json!({"model": "gpt", "choices": [{"index": 0, "message": {"role": "assistant", "content": "Let me \"look\"",
                "reasoning_content": "hm", "tool_calls": [{"id": "call_9", "type": "function", "function":
                    {"name": "look", "arguments": "{\"line\":4}"}}]}, "finish_reason": "tool_calls"}],
            "usage": {"prompt_tokens": 40, "completion_tokens": 12, "prompt_tokens_details": {"cached_tokens": 16}}})
        }
    }
}

/// Text, thought, arguments and the reason that a caller reads from a stream or a body.
#[derive(Debug, Default, PartialEq)]
struct Read {
    text: String,
    thought: String,
    call: String,
    arguments: String,
    reason: String,
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Reads what a caller of `dialect` got, piece by piece, as its SDK does.
fn read(dialect: Dialect, pieces: &[Value]) -> Read {
    let mut read = Read::default();
    for piece in pieces {
        match dialect {
            Dialect::Gemini => {
                let candidate = &piece["candidates"][0];
                for part in candidate["content"]["parts"].as_array().into_iter().flatten() {
                    let to = if part["thought"] == true { &mut read.thought } else { &mut read.text };
                    to.push_str(text(&part["text"]));
                    if let Some(call) = part.get("functionCall") {
                        read.call.push_str(text(&call["name"]));
                        read.arguments.push_str(&call["args"].to_string());
                    }
                }
                read.reason.push_str(text(&candidate["finishReason"]));
            }
            Dialect::Ollama => {
                let message = &piece["message"];
                read.text.push_str(text(&message["content"]));
                read.thought.push_str(text(&message["thinking"]));
                for call in message["tool_calls"].as_array().into_iter().flatten() {
                    read.call.push_str(text(&call["function"]["name"]));
                    read.arguments.push_str(&call["function"]["arguments"].to_string());
                }
                read.reason.push_str(text(&piece["done_reason"]));
            }
            Dialect::Interactions => {
                let said = |content: &Value| text(&content["text"]).to_owned();
                for step in piece["steps"].as_array().into_iter().flatten().chain([&piece["step"]]) {
                    read.text.push_str(&said(&step["content"][0]));
                    read.thought.push_str(&said(&step["summary"][0]));
                    read.call.push_str(text(&step["name"]));
                    if step["arguments"].as_object().is_some_and(|arguments| !arguments.is_empty()) {
                        read.arguments.push_str(&step["arguments"].to_string());
                    }
                }
                let delta = &piece["delta"];
                read.text.push_str(&said(delta));
                read.thought.push_str(&said(&delta["content"]));
                read.arguments.push_str(text(&delta["arguments"]));
                let whole = if piece["object"] == "interaction" { piece } else { &piece["interaction"] };
                if whole["usage"].is_object() {
                    read.reason.push_str(text(&whole["status"]));
                }
            }
            Dialect::Responses => {
                // A whole response, or the last event, which repeats it.
                let whole = if piece["object"] == "response" { piece } else { &piece["response"] };
                if whole["status"] != "completed" {
                    continue;
                }
                for item in whole["output"].as_array().into_iter().flatten() {
                    read.text.push_str(text(&item["content"][0]["text"]));
                    read.thought.push_str(text(&item["summary"][0]["text"]));
                    read.call.push_str(text(&item["name"]));
                    read.arguments.push_str(text(&item["arguments"]));
                }
                read.reason.push_str(text(&whole["status"]));
            }
            Dialect::Anthropic => {
                for block in piece["content"].as_array().into_iter().flatten().chain([&piece["content_block"]]) {
                    read.text.push_str(text(&block["text"]));
                    read.thought.push_str(text(&block["thinking"]));
                    read.call.push_str(text(&block["name"]));
                    if block["input"].as_object().is_some_and(|input| !input.is_empty()) {
                        read.arguments.push_str(&block["input"].to_string());
                    }
                }
                let delta = &piece["delta"];
                read.text.push_str(text(&delta["text"]));
                read.thought.push_str(text(&delta["thinking"]));
                read.arguments.push_str(text(&delta["partial_json"]));
                read.reason.push_str(text(&delta["stop_reason"]));
                read.reason.push_str(text(&piece["stop_reason"]));
            }
            _ => {
                let choice = &piece["choices"][0];
                let said = if choice["delta"].is_object() { &choice["delta"] } else { &choice["message"] };
                read.text.push_str(text(&said["content"]));
                read.thought.push_str(text(&said["reasoning_content"]));
                for call in said["tool_calls"].as_array().into_iter().flatten() {
                    read.call.push_str(text(&call["function"]["name"]));
                    read.arguments.push_str(text(&call["function"]["arguments"]));
                }
                read.reason.push_str(text(&choice["finish_reason"]));
            }
        }
    }
    read
}

fn expected(dialect: Dialect) -> Read {
    let reason = match dialect {
        Dialect::Gemini => "STOP",
        Dialect::Ollama => "stop",
        Dialect::Anthropic => "tool_use",
        Dialect::Responses => "completed",
        Dialect::Interactions => "requires_action",
        _ => "tool_calls",
    };
    Read {
        text: "Let me \"look\"".to_owned(),
        thought: "hm".to_owned(),
        call: "look".to_owned(),
        arguments: "{\"line\":4}".to_owned(),
        reason: reason.to_owned(),
    }
}

/// The pieces of a stream that was written for a caller.
fn pieces(dialect: Dialect, out: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(out).unwrap();
    let json = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    if dialect == Dialect::Ollama {
        return text.lines().map(json).collect();
    }
    let data = text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    data.map(json).collect()
}

const CALLERS: [Dialect; 6] =
    [Dialect::Chat, Dialect::Responses, Dialect::Anthropic, Dialect::Gemini, Dialect::Interactions, Dialect::Ollama];
const MODELS: [Dialect; 5] = [Dialect::Chat, Dialect::Anthropic, Dialect::Gemini, Dialect::Ollama, Dialect::Bedrock];

fn pairs() -> impl Iterator<Item = (Dialect, Dialect)> {
    let all = CALLERS.into_iter().flat_map(|from| MODELS.into_iter().map(move |to| (from, to)));
    all.filter(|&(from, to)| from != to && super::of(Operation::Chat, from, to).is_some())
}

fn usage_is_right(usage: &Usage, pair: (Dialect, Dialect)) {
    let told = (usage.input_tokens, usage.output_tokens, usage.estimated);
    assert_eq!(told, (Some(40), Some(12), false), "{pair:?}");
    if pair.1 != Dialect::Ollama {
        assert_eq!(usage.cache_read_tokens, Some(16), "{pair:?}");
    }
}

#[test]
fn every_pair_tells_a_stream_whole() {
    assert_eq!(pairs().count(), 22);
    for pair @ (from, to) in pairs() {
        let mut stream = Stream::new(to, &asked(from, true)).unwrap();
        let mut out = Vec::new();
        let step = stream.push(&streamed(to), &mut out).unwrap();
        if to == Dialect::Gemini {
            assert_eq!(step, Step::More, "Google says nothing at the end");
            stream.close(&mut out).unwrap();
        } else {
            assert_eq!(step, Step::Done, "{pair:?}");
        }
        assert_eq!(read(from, &pieces(from, &out)), expected(from), "{pair:?}");
        assert_eq!(stream.finish(), Some(Finish::ToolCalls), "{pair:?}");
        usage_is_right(&stream.usage(), pair);
    }
}

#[test]
fn every_pair_tells_a_whole_answer() {
    for pair @ (from, to) in pairs() {
        let asked = Asked { model_shown: Some("ours".to_owned()), ..asked(from, false) };
        let answer = answer(&Bytes::from(whole(to).to_string()), to, &asked).unwrap();
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(read(from, std::slice::from_ref(&body)), expected(from), "{pair:?}");
        assert_eq!(answer.finish, Some(Finish::ToolCalls), "{pair:?}");
        assert!(body["model"] == "ours" || body["modelVersion"] == "ours", "{pair:?}: {body}");
        usage_is_right(&answer.usage, pair);
    }
}

#[test]
fn googles_signature_of_a_call_reaches_the_caller_and_can_come_back() {
    let of = |from| {
        let body = Bytes::from(whole(Dialect::Gemini).to_string());
        let answer = answer(&body, Dialect::Gemini, &asked(from, false)).unwrap();
        serde_json::from_slice::<Value>(&answer.body).unwrap()
    };
    let call = &of(Dialect::Chat)["choices"][0]["message"]["tool_calls"][0];
    assert_eq!(call["extra_content"]["google"]["thought_signature"], "Sig=");
    let blocks = of(Dialect::Anthropic);
    let signed = blocks["content"].as_array().unwrap().iter().find(|block| block["signature"] == "gemini.Sig=");
    assert_eq!(signed.unwrap()["type"], "thinking");
    let steps = of(Dialect::Interactions)["steps"].clone();
    let summary = json!([{"type": "text", "text": "hm"}]);
    assert_eq!(steps[0], json!({"type": "thought", "summary": summary}));
    assert_eq!(steps[2], json!({"type": "thought", "signature": "Sig="}), "beside the call that it belongs to");
    assert_eq!(steps[3]["type"], "function_call");
}

#[test]
fn events_of_an_interaction_come_in_the_order_that_its_clients_count_on() {
    let told = |to| {
        let mut stream = Stream::new(to, &asked(Dialect::Interactions, true)).unwrap();
        let mut out = Vec::new();
        stream.push(&streamed(to), &mut out).unwrap();
        stream.close(&mut out).unwrap();
        assert!(out.ends_with(b"event: done\ndata: [DONE]\n\n"));
        pieces(Dialect::Interactions, &out)
    };
    let names = |pieces: &[Value]| -> Vec<String> {
        let of = |piece: &Value| match &piece["delta"]["type"] {
            Value::String(kind) => kind.clone(),
            _ => piece["event_type"].as_str().unwrap().to_owned(),
        };
        pieces.iter().map(of).collect()
    };
    let pieces = told(Dialect::Gemini);
    let thought = ["step.start", "thought_summary", "step.stop"];
    let words = ["step.start", "text", "step.stop"];
    let signature = ["step.start", "thought_signature", "step.stop"];
    let call = ["step.start", "arguments_delta", "step.stop"];
    let all = [&["interaction.created"][..], &thought, &words, &signature, &call, &["interaction.completed"]].concat();
    assert_eq!(names(&pieces), all);
    let indexes: Vec<_> = pieces.iter().filter_map(|piece| piece["index"].as_u64()).collect();
    assert_eq!(indexes, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]);
    let last = &pieces.last().unwrap()["interaction"];
    assert_eq!((&last["id"], &last["created"]), (&json!("v1_7f3a"), &json!("2026-11-18T11:06:40Z")));
    assert_eq!(
        last["usage"],
        json!({"total_input_tokens": 40, "total_cached_tokens": 16, "total_output_tokens": 9,
            "total_thought_tokens": 3, "total_tokens": 52})
    );
    let pieces = told(Dialect::Anthropic);
    let signed = pieces.iter().find(|piece| piece["delta"]["type"] == "thought_signature").unwrap();
    assert_eq!(signed["delta"]["signature"], "claude++Sig=", "it is told apart from Google's");
    assert_eq!(signed["index"], 0);
}

#[test]
fn a_caller_who_wants_no_summaries_of_thoughts_gets_only_their_signatures() {
    let body =
        json!({"model": "m", "input": "Hi", "stream": true, "generation_config": {"thinking_summaries": "none"}});
    let body = Bytes::from(body.to_string());
    let facts = Facts::read(Dialect::Interactions, Operation::Chat, &body).unwrap();
    let asked = Asked::new(&facts, body.clone(), "7f3a", 1_795_000_000);
    let answer = answer(&Bytes::from(whole(Dialect::Anthropic).to_string()), Dialect::Anthropic, &asked).unwrap();
    let told: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(told["steps"][0], json!({"type": "thought", "signature": "claude++Sig="}));
    let mut stream = Stream::new(Dialect::Anthropic, &asked).unwrap();
    let mut out = Vec::new();
    stream.push(&streamed(Dialect::Anthropic), &mut out).unwrap();
    assert!(!String::from_utf8(out).unwrap().contains("hm"));
}

#[test]
fn an_interaction_says_by_its_status_why_it_ended() {
    for (reason, status) in [("STOP", "completed"), ("MAX_TOKENS", "incomplete"), ("SAFETY", "failed")] {
        let said = json!({"candidates": [{"content": {"parts": [{"text": "It"}]}, "finishReason": reason}]});
        let answer =
            answer(&Bytes::from(said.to_string()), Dialect::Gemini, &asked(Dialect::Interactions, false)).unwrap();
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["status"], status);
        assert_eq!(body.get("errors").is_some(), status == "failed");
    }
}

#[test]
fn claudes_signature_reaches_anthropics_callers_from_bedrock() {
    let asked = asked(Dialect::Anthropic, false);
    let answer = answer(&Bytes::from(whole(Dialect::Bedrock).to_string()), Dialect::Bedrock, &asked).unwrap();
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["content"][0], json!({"type": "thinking", "thinking": "hm", "signature": "Sig="}));
    assert_eq!(body["usage"]["input_tokens"], 24, "what the cache had is counted beside it");
}

#[test]
fn a_stream_that_is_cut_anywhere_is_told_as_cut_and_its_usage_is_estimated() {
    for pair @ (from, to) in pairs() {
        let bytes = streamed(to);
        for cut in (0..bytes.len()).step_by(7) {
            let mut stream = Stream::new(to, &asked(from, true)).unwrap();
            let mut out = Vec::new();
            let step = stream.push(&bytes[..cut], &mut out).unwrap();
            let told_whole = stream.finish().is_some();
            if step == Step::More {
                let closed = stream.close(&mut out);
                assert!(closed.is_err() || told_whole, "{pair:?} at {cut}");
                if closed.is_err() {
                    stream.fail(&crate::dialect::Failure::cut(), &mut out);
                    let last = pieces(from, &out).pop().unwrap();
                    assert!(last.get("error").is_some() || last["type"] == "error", "{pair:?} at {cut}: {last}");
                }
            }
            let usage = stream.usage();
            assert!(usage.input_tokens.is_some_and(|tokens| tokens > 0), "{pair:?} at {cut}");
        }
    }
}

#[test]
fn errors_in_the_middle_of_a_stream_are_failures_of_their_kind() {
    let throttled = |to| match to {
        Dialect::Gemini => {
            json!({"error": {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED"}}).to_string()
        }
        _ => json!({"error": "the runner died"}).to_string(),
    };
    for (to, expected) in [(Dialect::Gemini, FailureKind::RateLimited), (Dialect::Ollama, FailureKind::Upstream)] {
        let mut stream = Stream::new(to, &asked(Dialect::Chat, true)).unwrap();
        let frame =
            if to == Dialect::Gemini { format!("data: {}\n\n", throttled(to)) } else { format!("{}\n", throttled(to)) };
        let step = stream.push(frame.as_bytes(), &mut Vec::new()).unwrap();
        assert!(matches!(&step, Step::Failed(failure) if failure.kind == expected), "{step:?}");
        assert!(!stream.has_begun(), "somebody else can be asked");
    }
    let mut stream = Stream::new(Dialect::Bedrock, &asked(Dialect::Chat, true)).unwrap();
    let mut bytes = Vec::new();
    crate::dialect::event_stream::exception("throttlingException", br#"{"message":"slow down"}"#, &mut bytes);
    let step = stream.push(&bytes, &mut Vec::new()).unwrap();
    let Step::Failed(failure) = step else { panic!("{step:?}") };
    assert_eq!((failure.kind, failure.message.as_str()), (FailureKind::RateLimited, "slow down"));
}

#[test]
fn a_prompt_that_google_blocks_is_an_answer_that_was_filtered() {
    let blocked = json!({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 5}});
    let body = Bytes::from(blocked.to_string());
    let answer = answer(&body, Dialect::Gemini, &asked(Dialect::Chat, false)).unwrap();
    assert_eq!(answer.finish, Some(Finish::Filtered));
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["choices"][0]["finish_reason"], "content_filter");
}

#[test]
fn answers_that_are_none_are_refused_as_the_models_fault() {
    for (from, to) in pairs() {
        for odd in ["", "[]", "null", "{}", "<html>", "{\"candidates\":", "{\"choices\":[]}", "{\"error\":\"no\"}"] {
            let error = answer(&Bytes::from(odd), to, &asked(from, false));
            let error = error.expect_err(odd);
            assert!(!error.is_callers(), "{from} over {to}, {odd}: {error}");
        }
    }
}

#[test]
fn two_calls_at_once_stay_two() {
    let calls = json!({"candidates": [{"content": {"parts": [
        {"functionCall": {"name": "a", "args": {}}}, {"functionCall": {"name": "b", "args": {"x": 1}}}]},
        "finishReason": "STOP"}]});
    let frame = format!("data: {calls}\n\n");
    for from in [Dialect::Chat, Dialect::Anthropic, Dialect::Ollama] {
        let mut stream = Stream::new(Dialect::Gemini, &asked(from, true)).unwrap();
        let mut out = Vec::new();
        stream.push(frame.as_bytes(), &mut out).unwrap();
        stream.close(&mut out).unwrap();
        let seen = read(from, &pieces(from, &out));
        assert_eq!((seen.call.as_str(), seen.arguments.ends_with("{\"x\":1}")), ("ab", true), "{seen:?}");
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("call_7f3a0") && text.contains("call_7f3a1"), "{text}");
    }
}

#[test]
fn generate_is_answered_as_generate() {
    let body = Bytes::from_static(br#"{"model":"m","prompt":"Why?"}"#);
    let facts = Facts::read(Dialect::Ollama, Operation::Completions, &body).unwrap();
    let asked = Asked::new(&facts, body.clone(), "7f3a", 1_795_000_000);
    assert!(can_translate(Operation::Completions, Dialect::Ollama, Dialect::Chat));
    let mut stream = Stream::new(Dialect::Chat, &asked).unwrap();
    let mut out = Vec::new();
    stream
        .push(b"data: {\"model\":\"gpt\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"So\"}}]}\n\n", &mut out)
        .unwrap();
    let line: Value = serde_json::from_slice(&out).unwrap();
    let expected = json!({"model": "gpt", "created_at": "2026-11-18T11:06:40Z", "response": "So", "done": false});
    assert_eq!(line, expected);
}

proptest! {
    // Each case goes through every pair.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn chunks_do_not_matter(size in 1_usize..60) {
        for (from, to) in pairs() {
            let told = |size: usize| {
                let mut stream = Stream::new(to, &asked(from, true)).unwrap();
                let mut out = Vec::new();
                for chunk in streamed(to).chunks(size) {
                    stream.push(chunk, &mut out).unwrap();
                }
                stream.close(&mut out).unwrap();
                out
            };
            prop_assert_eq!(told(size), told(usize::MAX));
        }
    }

    #[test]
    fn no_bytes_break_a_stream(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for (from, to) in pairs() {
            let mut stream = Stream::new(to, &asked(from, true)).unwrap();
            let mut out = Vec::new();
            let _ = stream.push(&bytes, &mut out);
            let _ = stream.push(b"\n\n", &mut out);
            let _ = stream.close(&mut out);
        }
    }
}
