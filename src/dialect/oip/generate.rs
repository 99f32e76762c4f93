//! `generate` and `generate_stream`: a text in, the text that follows it out.

use super::OipModel;
use crate::dialect::chat::finish_of;
use crate::dialect::json::{self, Members, Raw, Sort, sort};
use crate::dialect::pair::Target;
use crate::dialect::write::Object;
use crate::dialect::{Error, Facts, Finish, Operation};

/// OpenAI's own limit where a request for a text has none.
pub(crate) const OUTPUT_TOKENS_DEFAULT: u64 = 16;

/// Members of OpenAI's request that are said otherwise, or looked at before.
const OTHERWISE: [&str; 12] = [
    "model",
    "prompt",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "n",
    "best_of",
    "echo",
    "suffix",
    "logprobs",
];

/// How to draw tokens: backends call it as OpenAI and vLLM do. Nothing else goes along, because a server may take any
/// name for a tensor: one of vLLM's (`sampling_parameters`) would overrule the limit of tokens.
const SAMPLING: [&str; 8] =
    ["temperature", "top_p", "top_k", "min_p", "seed", "presence_penalty", "frequency_penalty", "repetition_penalty"];

/// Writes a request for what follows `prompt`, which is as it was written, and gives the names of what was left out.
pub(crate) fn write_generate(
    request: &Members<'_>,
    prompt: Raw<'_>,
    facts: &Facts<'_>,
    to: &Target<'_>,
    out: &mut Vec<u8>,
) -> Result<Vec<String>, Error> {
    let model: &OipModel<'_> = &to.oip;
    let mut left_out = Vec::new();
    let mut body = Object::new(out);
    body.raw(model.input, prompt);
    let mut parameters = body.object("parameters");
    for (name, value) in model.parameters.into_iter().flatten() {
        parameters.json(name, &value.to_string());
    }
    parameters.flag("stream", facts.stream);
    // Triton's backends repeat the prompt otherwise.
    if !model.has("exclude_input_in_output") {
        parameters.flag("exclude_input_in_output", true);
    }
    if !model.has("max_tokens") {
        let usual = if facts.operation == Operation::Chat { to.output_tokens_default } else { OUTPUT_TOKENS_DEFAULT };
        parameters.number("max_tokens", facts.output_tokens_max.unwrap_or(usual));
    } else if facts.output_tokens_max.is_some() {
        left_out.push("max_tokens".to_owned());
    }
    if let Some(stop) = request.get("stop") {
        // Triton takes no list for a parameter that is no tensor; one text is the usual case.
        match sort(stop) {
            Sort::Text => parameters.raw(model.stop, stop),
            Sort::Array => match json::elements(stop, "stop")?.as_slice() {
                [] => {}
                [one] => parameters.raw(model.stop, one),
                _ => parameters.raw(model.stop, stop),
            },
            _ => return Err(Error::field("stop", "must be a text or a list of texts")),
        }
    }
    for (name, value) in request.iter() {
        if OTHERWISE.contains(&name) || sort(value) == Sort::Null {
            continue;
        }
        if SAMPLING.contains(&name) && sort(value) == Sort::Number && !model.has(name) {
            parameters.raw(name, value);
        } else {
            left_out.push(name.to_owned());
        }
    }
    Ok(left_out)
}

/// An answer, or an event of a stream.
#[derive(Debug, Default)]
pub(crate) struct Piece<'a> {
    /// More of the text, between its quotes.
    pub(crate) text: &'a str,
    /// Whether the server tells why it stops, here or in a later piece.
    pub(crate) tells_reason: bool,
    /// Why it stopped.
    pub(crate) finish: Option<Finish>,
    /// Tokens of the prompt.
    pub(crate) input_tokens: Option<u64>,
    /// Tokens of this piece.
    pub(crate) output_tokens: Option<u64>,
    /// Whether the server says that it is the last one.
    pub(crate) done: bool,
}

impl<'a> Piece<'a> {
    /// Reads it; `None`: it has no text.
    pub(crate) fn read(members: &Members<'a>, output: Option<&str>) -> Option<Self> {
        let number = |name: &str| members.get(name).and_then(single).and_then(json::whole);
        let reason = members.get("finish_reason").and_then(single).and_then(json::text);
        let finish = reason.as_deref().filter(|reason| !matches!(*reason, "" | "None")).map(finish_of);
        Some(Self {
            text: members.get(output.unwrap_or("text_output")).and_then(single).and_then(json::inner)?,
            tells_reason: reason.is_some(),
            finish,
            input_tokens: number("num_input_tokens"),
            output_tokens: number("num_output_tokens"),
            done: members.get("done").and_then(json::flag).unwrap_or(false),
        })
    }
}

/// A tensor of one element is that element or a list of it.
fn single<'a>(raw: Raw<'a>) -> Option<Raw<'a>> {
    if sort(raw) != Sort::Array {
        return Some(raw);
    }
    match json::lenient_elements(raw).as_slice() {
        [one] => Some(*one),
        _ => None,
    }
}
