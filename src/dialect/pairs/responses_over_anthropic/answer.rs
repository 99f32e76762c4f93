//! The whole answer.

use bytes::Bytes;

use crate::dialect::anthropic::{Block, Counts, finish_of};
use crate::dialect::json::{self, Members};
use crate::dialect::pairs::remarks::quoted;
use crate::dialect::responses::Response;
use crate::dialect::usage::Meter;
use crate::dialect::{Answer, Asked, Dialect, Error};

/// Why a response is not whole, if Anthropic says that its message is not.
pub(super) fn incomplete(stop_reason: &str) -> Option<&'static str> {
    match stop_reason {
        "max_tokens" | "model_context_window_exceeded" => Some("max_output_tokens"),
        "refusal" => Some("content_filter"),
        _ => None,
    }
}

pub(super) fn answer(body: &Bytes, asked: &Asked) -> Result<Answer, Error> {
    let malformed = |what| Error::Malformed { dialect: Dialect::Anthropic, what };
    let members = Members::parse(body).map_err(|_| malformed("answer"))?;
    let content = members.get("content").ok_or(malformed("`content`"))?;
    let blocks: Vec<Block<'_>> = serde_json::from_str(content.get()).map_err(|_| malformed("`content`"))?;
    let mut counts = Counts::default();
    if let Some(usage) = members.get("usage") {
        counts.take(usage);
    }
    let mut meter = Meter::new(asked.input_tokens_estimated);
    meter.told(&counts.usage());
    meter.said(content.get());
    let mut response = Response::at_once(asked);
    response.name(members.text("model").as_deref());
    let nothing = &mut Vec::new();
    for block in &blocks {
        let inner = |raw: Option<json::Raw<'_>>| raw.and_then(json::inner).unwrap_or_default().to_owned();
        match block.kind.as_ref() {
            "text" => response.text(nothing, &inner(block.text))?,
            "thinking" => {
                response.reasoning(nothing, &inner(block.thinking))?;
                response.encrypted(nothing, &inner(block.signature))?;
                response.reasoning_ends(nothing);
            }
            "redacted_thinking" => {
                response.encrypted(nothing, &inner(block.data))?;
                response.reasoning_ends(nothing);
            }
            "tool_use" => {
                response.call(nothing, &inner(block.id), &inner(block.name))?;
                response.arguments(nothing, &quoted(block.input.map_or("{}", |input| input.get())))?;
            }
            // What Anthropic's own tools did has no item here.
            _ => {}
        }
    }
    let reason = members.text("stop_reason");
    let why = reason.as_deref().and_then(incomplete);
    let usage = meter.usage();
    response.end(nothing, why, &usage);
    Ok(Answer { body: response.whole(why, &usage).into(), usage, finish: reason.as_deref().map(finish_of) })
}
