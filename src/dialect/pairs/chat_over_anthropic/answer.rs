//! The whole answer.

use bytes::Bytes;

use crate::dialect::anthropic::{Block, Counts, finish_of};
use crate::dialect::chat::{completion_head, write_usage};
use crate::dialect::json::{self, Members};
use crate::dialect::usage::Meter;
use crate::dialect::write::{self, Object};
use crate::dialect::{Answer, Asked, Dialect, Error};

/// OpenAI's word for why Anthropic's model stopped.
pub(super) fn reason_of(stop_reason: &str) -> &'static str {
    match stop_reason {
        "max_tokens" | "model_context_window_exceeded" => "length",
        "tool_use" => "tool_calls",
        "refusal" => "content_filter",
        _ => "stop",
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
    let usage = meter.usage();
    let stop_reason = members.text("stop_reason");

    let mut out = Vec::with_capacity(body.len() + 256);
    let mut object = Object::new(&mut out);
    completion_head(&mut object, "chat.completion", asked, asked.model(members.text("model").as_deref()));
    {
        let mut choices = object.array("choices");
        let mut choice = choices.object();
        choice.number("index", 0);
        message(choice.object("message"), &blocks, content);
        choice.null("logprobs");
        choice.text("finish_reason", stop_reason.as_deref().map_or("stop", reason_of));
    }
    write_usage(object.object("usage"), &usage);
    drop(object);
    Ok(Answer { body: out.into(), usage, finish: stop_reason.as_deref().map(finish_of) })
}

fn message(mut to: Object<'_>, blocks: &[Block<'_>], content: json::Raw<'_>) {
    to.text("role", "assistant");
    let joined = |kind: &str, text: for<'b> fn(&'b Block<'_>) -> Option<json::Raw<'b>>| {
        let mut all = String::new();
        for block in blocks.iter().filter(|block| block.kind == kind) {
            all.push_str(text(block).and_then(json::inner).unwrap_or_default());
        }
        all
    };
    let text = joined("text", |block| block.text);
    if blocks.iter().any(|block| block.kind == "text") {
        to.escaped("content", &text);
    } else {
        to.null("content");
    }
    to.null("refusal");
    drop(to.array("annotations"));
    let thinking = joined("thinking", |block| block.thinking);
    if !thinking.is_empty() {
        to.escaped("reasoning_content", &thinking);
    }
    // The blocks as they are, with their signatures: they must come back before the results of tools.
    if blocks.iter().any(|block| block.kind.ends_with("thinking")) {
        let mut list = to.array("thinking_blocks");
        for (block, raw) in blocks.iter().zip(json::lenient_elements(content)) {
            if block.kind.ends_with("thinking") {
                list.raw(raw);
            }
        }
    }
    if blocks.iter().any(|block| block.kind == "tool_use") {
        let mut calls = to.array("tool_calls");
        for block in blocks.iter().filter(|block| block.kind == "tool_use") {
            let mut call = calls.object();
            call.raw_if("id", block.id);
            call.text("type", "function");
            let mut function = call.object("function");
            function.raw_if("name", block.name);
            write::string(function.key("arguments"), block.input.map_or("{}", |input| input.get()));
        }
    }
}
