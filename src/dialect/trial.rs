//! What the tests of this room share: bodies go through as they do in service.

use bytes::Bytes;
use serde_json::Value;

use super::{Answer, Asked, Dialect, Error, Facts, Failure, Operation, Step, Stream, Target, Usage, answer, request};

/// The caller's side of a request.
pub(crate) fn asked(dialect: Dialect, body: &Value) -> Asked {
    let bytes = Bytes::from(body.to_string());
    let facts = Facts::read(dialect, Operation::Chat, &bytes).unwrap();
    Asked { input_tokens_estimated: 11, ..Asked::new(&facts, bytes.clone(), "7", 1_700_000_000) }
}

/// A small request of that dialect that wants a stream and its usage.
pub(crate) fn small(dialect: Dialect) -> Value {
    serde_json::json!(match dialect {
        Dialect::Responses => serde_json::json!({"model": "m", "input": "Hi", "stream": true}),
        Dialect::Anthropic => serde_json::json!({"model": "m", "max_tokens": 9, "stream": true,
            "messages": [{"role": "user", "content": "Hi"}]}),
        _ => serde_json::json!({"model": "m", "stream": true, "stream_options": {"include_usage": true},
            "messages": [{"role": "user", "content": "Hi"}]}),
    })
}

/// The request as the model's server gets it, and what was left out.
pub(crate) fn sent(from: Dialect, to: Dialect, model: &str, body: &Value) -> Result<(Value, Vec<String>), Error> {
    let bytes = Bytes::from(body.to_string());
    let facts = Facts::read(from, Operation::Chat, &bytes)?;
    let out = request(&bytes, &facts, &Target::new(to, model))?;
    Ok((serde_json::from_slice(&out.body).unwrap(), out.left_out))
}

/// The answer as the caller gets it.
pub(crate) fn answered(caller: Dialect, model: Dialect, body: &Value) -> Result<(Value, Answer), Error> {
    let answer = answer(&Bytes::from(body.to_string()), model, &asked(caller, &small(caller)))?;
    Ok((serde_json::from_slice(&answer.body).unwrap(), answer))
}

/// Events as a server sends them; those with a type are named after it, as Anthropic and responses do.
pub(crate) fn sse(events: &[Value]) -> String {
    let mut text = String::new();
    for event in events {
        if let Some(kind) = event.get("type").and_then(Value::as_str) {
            text += &format!("event: {kind}\n");
        }
        match event.as_str() {
            Some(word) => text += &format!("data: {word}\n\n"),
            None => text += &format!("data: {event}\n\n"),
        }
    }
    text
}

/// What became of a stream.
#[derive(Debug, PartialEq)]
pub(crate) struct Streamed {
    /// What the caller got.
    pub(crate) text: String,
    pub(crate) usage: Usage,
    pub(crate) finish: Option<super::Finish>,
    pub(crate) failure: Option<Failure>,
    pub(crate) error: Option<Error>,
}

impl Streamed {
    /// Event names and data that the caller got, `[DONE]` as a string.
    pub(crate) fn events(&self) -> Vec<(String, Value)> {
        let mut found = Vec::new();
        for frame in self.text.split("\n\n").filter(|frame| !frame.is_empty() && !frame.starts_with(':')) {
            let (mut name, mut data) = (String::new(), String::new());
            for line in frame.lines() {
                if let Some(event) = line.strip_prefix("event: ") {
                    name = event.to_owned();
                } else if let Some(more) = line.strip_prefix("data: ") {
                    data = more.to_owned();
                }
            }
            found.push((name, serde_json::from_str(&data).unwrap_or(Value::String(data))));
        }
        found
    }

    /// Only the data.
    pub(crate) fn data(&self) -> Vec<Value> {
        self.events().into_iter().map(|(_, data)| data).collect()
    }
}

/// Sends `text` in chunks of `size` bytes and closes.
pub(crate) fn streamed_by(caller: &Asked, model: Dialect, text: &str, size: usize) -> Streamed {
    let mut stream = Stream::new(model, caller).unwrap();
    let mut out = Vec::new();
    let (mut failure, mut error) = (None, None);
    for chunk in text.as_bytes().chunks(size.max(1)) {
        match stream.push(chunk, &mut out) {
            Ok(Step::Failed(told)) => failure = Some(told),
            Ok(_) => {}
            Err(wrong) => {
                error = Some(wrong);
                break;
            }
        }
    }
    if error.is_none()
        && failure.is_none()
        && let Err(cut) = stream.close(&mut out)
    {
        failure = Some(cut);
    }
    let (usage, finish) = (stream.usage(), stream.finish());
    Streamed { text: String::from_utf8(out).unwrap(), usage, finish, failure, error }
}

/// Sends events whole and byte by byte, which must give the same.
pub(crate) fn streamed(caller: Dialect, model: Dialect, events: &[Value]) -> Streamed {
    let asked = asked(caller, &small(caller));
    let text = sse(events);
    let whole = streamed_by(&asked, model, &text, text.len());
    assert_eq!(streamed_by(&asked, model, &text, 1), whole, "chunks matter");
    whole
}

/// An answer with reasoning, text and a call, as a stream of that dialect.
pub(crate) fn full_stream(model: Dialect) -> Vec<Value> {
    use serde_json::json;
    match model {
        Dialect::Anthropic => vec![
            json!({"type":"message_start","message":{"id":"msg_x","type":"message","role":"assistant","model":"claude","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":10,"cache_read_input_tokens":5,"cache_creation_input_tokens":0,"output_tokens":1}}}),
            json!({"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}),
            json!({"type":"ping"}),
            json!({"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Let me"}}),
            json!({"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":" see"}}),
            json!({"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"sig=="}}),
            json!({"type":"content_block_stop","index":0}),
            json!({"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}),
            json!({"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"It is\n"}}),
            json!({"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"\"hot\" 🔥"}}),
            json!({"type":"content_block_stop","index":1}),
            json!({"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"toolu_1","name":"stop_pump","input":{}}}),
            json!({"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"line\":"}}),
            json!({"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":" 4}"}}),
            json!({"type":"content_block_stop","index":2}),
            json!({"type":"content_block_start","index":3,"content_block":{"type":"tool_use","id":"toolu_2","name":"look","input":{}}}),
            json!({"type":"content_block_stop","index":3}),
            json!({"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":42,"output_tokens_details":{"thinking_tokens":7}}}),
            json!({"type":"message_stop"}),
        ],
        Dialect::Responses => {
            let item = |kind: &str, index: u64, item: Value| json!({"type":kind,"output_index":index,"item":item,"sequence_number":0});
            vec![
                json!({"type":"response.created","response":{"id":"resp_x","model":"gpt-5","status":"in_progress","output":[]}}),
                item("response.output_item.added", 0, json!({"id":"rs_1","type":"reasoning","summary":[]})),
                json!({"type":"response.reasoning_summary_part.added","output_index":0,"item_id":"rs_1","summary_index":0,"part":{"type":"summary_text","text":""}}),
                json!({"type":"response.reasoning_summary_text.delta","output_index":0,"delta":"Let me"}),
                json!({"type":"response.reasoning_summary_text.delta","output_index":0,"delta":" see"}),
                item(
                    "response.output_item.done",
                    0,
                    json!({"id":"rs_1","type":"reasoning","summary":[{"type":"summary_text","text":"Let me see"}],"encrypted_content":"sig=="}),
                ),
                item(
                    "response.output_item.added",
                    1,
                    json!({"id":"msg_1","type":"message","content":[],"role":"assistant"}),
                ),
                json!({"type":"response.output_text.delta","output_index":1,"delta":"It is\n"}),
                json!({"type":"response.output_text.delta","output_index":1,"delta":"\"hot\" 🔥"}),
                item("response.output_item.done", 1, json!({"id":"msg_1","type":"message"})),
                item(
                    "response.output_item.added",
                    2,
                    json!({"id":"fc_1","type":"function_call","call_id":"toolu_1","name":"stop_pump","arguments":""}),
                ),
                json!({"type":"response.function_call_arguments.delta","output_index":2,"delta":"{\"line\":"}),
                json!({"type":"response.function_call_arguments.delta","output_index":2,"delta":" 4}"}),
                item(
                    "response.output_item.done",
                    2,
                    json!({"id":"fc_1","type":"function_call","call_id":"toolu_1","name":"stop_pump","arguments":"{\"line\": 4}"}),
                ),
                item(
                    "response.output_item.added",
                    3,
                    json!({"id":"fc_2","type":"function_call","call_id":"toolu_2","name":"look","arguments":""}),
                ),
                item(
                    "response.output_item.done",
                    3,
                    json!({"id":"fc_2","type":"function_call","call_id":"toolu_2","name":"look","arguments":"{}"}),
                ),
                json!({"type":"response.completed","response":{"id":"resp_x","model":"gpt-5","status":"completed","output":[{"type":"function_call"}],"usage":{"input_tokens":15,"input_tokens_details":{"cached_tokens":5,"cache_write_tokens":0},"output_tokens":42,"output_tokens_details":{"reasoning_tokens":7},"total_tokens":57}}}),
            ]
        }
        _ => {
            let chunk = |delta: Value, reason: Value| json!({"id":"c","object":"chat.completion.chunk","created":1,"model":"qwen","choices":[{"index":0,"delta":delta,"logprobs":null,"finish_reason":reason}],"usage":null});
            vec![
                chunk(json!({"role":"assistant","content":""}), Value::Null),
                chunk(json!({"reasoning_content":"Let me"}), Value::Null),
                chunk(json!({"reasoning_content":" see"}), Value::Null),
                chunk(json!({"content":"It is\n"}), Value::Null),
                chunk(json!({"content":"\"hot\" 🔥"}), Value::Null),
                chunk(
                    json!({"tool_calls":[{"index":0,"id":"toolu_1","type":"function","function":{"name":"stop_pump","arguments":""}}]}),
                    Value::Null,
                ),
                chunk(json!({"tool_calls":[{"index":0,"function":{"arguments":"{\"line\":"}}]}), Value::Null),
                chunk(json!({"tool_calls":[{"index":0,"function":{"arguments":" 4}"}}]}), Value::Null),
                chunk(
                    json!({"tool_calls":[{"index":1,"id":"toolu_2","type":"function","function":{"name":"look","arguments":"{}"}}]}),
                    Value::Null,
                ),
                chunk(json!({}), json!("tool_calls")),
                json!({"id":"c","object":"chat.completion.chunk","created":1,"model":"qwen","choices":[],"usage":{"prompt_tokens":15,"completion_tokens":42,"total_tokens":57,"prompt_tokens_details":{"cached_tokens":5},"completion_tokens_details":{"reasoning_tokens":7}}}),
                json!("[DONE]"),
            ]
        }
    }
}

/// The same answer, whole.
pub(crate) fn full_answer(model: Dialect) -> Value {
    use serde_json::json;
    match model {
        Dialect::Anthropic => json!({"id":"msg_x","type":"message","role":"assistant","model":"claude","content":[
            {"type":"thinking","thinking":"Let me see","signature":"sig=="},
            {"type":"text","text":"It is\n\"hot\" 🔥"},
            {"type":"tool_use","id":"toolu_1","name":"stop_pump","input":{"line":4}},
            {"type":"tool_use","id":"toolu_2","name":"look","input":{}}],
            "stop_reason":"tool_use","stop_sequence":null,
            "usage":{"input_tokens":10,"cache_read_input_tokens":5,"cache_creation_input_tokens":0,"output_tokens":42,"output_tokens_details":{"thinking_tokens":7}}}),
        Dialect::Responses => json!({"id":"resp_x","object":"response","model":"gpt-5","status":"completed","output":[
            {"type":"reasoning","id":"rs","summary":[{"type":"summary_text","text":"Let me see"}],"encrypted_content":"sig=="},
            {"type":"message","id":"m","role":"assistant","content":[{"type":"output_text","text":"It is\n\"hot\" 🔥","annotations":[]}]},
            {"type":"function_call","id":"f","call_id":"toolu_1","name":"stop_pump","arguments":"{\"line\":4}"},
            {"type":"function_call","id":"g","call_id":"toolu_2","name":"look","arguments":"{}"}],
            "usage":{"input_tokens":15,"input_tokens_details":{"cached_tokens":5,"cache_write_tokens":0},"output_tokens":42,"output_tokens_details":{"reasoning_tokens":7},"total_tokens":57}}),
        _ => json!({"id":"c","object":"chat.completion","created":1,"model":"qwen","choices":[{"index":0,"message":{
            "role":"assistant","content":"It is\n\"hot\" 🔥","reasoning_content":"Let me see","tool_calls":[
            {"id":"toolu_1","type":"function","function":{"name":"stop_pump","arguments":"{\"line\":4}"}},
            {"id":"toolu_2","type":"function","function":{"name":"look","arguments":"{}"}}]},"finish_reason":"tool_calls"}],
            "usage":{"prompt_tokens":15,"completion_tokens":42,"total_tokens":57,"prompt_tokens_details":{"cached_tokens":5},"completion_tokens_details":{"reasoning_tokens":7}}}),
    }
}
