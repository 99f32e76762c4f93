//! Open Inference Protocol, version 2, as Triton speaks it: infer, generate, generate_stream.

use bytes::Bytes;
use serde_json::{Value, json};

use super::behaviour::PROMPT_TOKENS;
use super::routes::{Answer, Asked, Dialect, error, json_answer, sse};

pub(super) fn answer(asked: &Asked<'_>, path: &str) -> Answer {
    match path.rsplit('/').next().unwrap_or("") {
        "infer" => infer(asked),
        "generate" if asked.body["text_input"].is_string() => json_answer(Dialect::Oip, &whole(asked)),
        "generate_stream" if asked.body["text_input"].is_string() => stream(asked),
        "generate" | "generate_stream" => error(Dialect::Oip, 400, None),
        _ => json_answer(Dialect::Oip, &json!([])),
    }
}

/// A vector for each text, and half of one for anything else.
fn infer(asked: &Asked<'_>) -> Answer {
    let input = &asked.body["inputs"][0];
    let shape = input["shape"].as_array().map_or(&[][..], Vec::as_slice);
    let tensor = if input["datatype"] == "BYTES" {
        let texts = input["data"].as_array().map_or(0, Vec::len);
        if shape.first() != Some(&json!(texts)) {
            return error(Dialect::Oip, 400, None);
        }
        let width = asked.does.dimensions;
        json!({"name": "embedding", "datatype": "FP32", "shape": [texts, width], "data": vec![0.25; texts * width]})
    } else {
        json!({"name": "y", "datatype": "FP32", "shape": [1], "data": [0.5]})
    };
    json_answer(Dialect::Oip, &json!({"model_name": asked.model, "model_version": "1", "outputs": [tensor]}))
}

/// With what the backend of vLLM adds when it is asked to.
fn piece(asked: &Asked<'_>, text: &str, tokens: usize, reason: &str) -> Value {
    let mut value = json!({"model_name": asked.model, "model_version": "1", "text_output": text});
    let wants = |name: &str| asked.body["parameters"][name] == true;
    if wants("return_finish_reason") {
        value["finish_reason"] = json!(reason);
    }
    if wants("return_num_input_tokens") {
        value["num_input_tokens"] = json!(PROMPT_TOKENS);
    }
    if wants("return_num_output_tokens") {
        value["num_output_tokens"] = json!(tokens);
    }
    value
}

/// What the model says, in pieces that end anywhere; thoughts and calls as Qwen's templates have them.
fn words<'a>(asked: &'a Asked<'_>) -> Vec<&'a str> {
    let mut words = Vec::new();
    if asked.does.reasoning {
        words.extend(["<thi", "nk>Let me", " see.</thi", "nk>\n\n"]);
    }
    words.extend((0..asked.does.words).map(|at| asked.word(at)));
    if asked.does.tool_call {
        words.extend(["\n<tool_", "call>\n{\"name\": \"look\", ", "\"arguments\": {\"line\": 4}}\n</tool_call>"]);
    }
    words
}

fn whole(asked: &Asked<'_>) -> Value {
    let repeats = asked.body["parameters"]["exclude_input_in_output"] != true;
    let prompt = asked.body["text_input"].as_str().filter(|_| repeats).unwrap_or("");
    let said = words(asked);
    piece(asked, &[prompt, &said.concat()].concat(), said.len(), "stop")
}

/// A word in an event; nothing says that it was the last one but the connection's end.
fn stream(asked: &Asked<'_>) -> Answer {
    let said = words(asked);
    let reason = |at: usize| if at + 1 == said.len() { "stop" } else { "None" };
    let event = |(at, word): (usize, &&str)| format!("data: {}\n\n", piece(asked, word, 1, reason(at)));
    sse(Dialect::Oip, said.iter().enumerate().map(event))
}

/// An error in the middle of a stream.
pub(super) fn error_frame(message: &str) -> Bytes {
    Bytes::from(format!("data: {}\n\n", json!({"error": message})))
}
