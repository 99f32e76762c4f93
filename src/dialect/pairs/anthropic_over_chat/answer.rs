//! The whole answer.

use bytes::Bytes;

use crate::dialect::anthropic::{message_head, message_stop, text_block, write_usage};
use crate::dialect::chat::{Completion, Message, finish_of, spoken};
use crate::dialect::json;
use crate::dialect::pairs::remarks::{anthropic_id, arguments_as_object};
use crate::dialect::usage::Meter;
use crate::dialect::write::{Array, Object};
use crate::dialect::{Answer, Asked, Dialect, Error};

/// Anthropic's word for why a model of OpenAI's stopped. Some servers say `stop` after a call.
pub(super) fn reason_of(finish_reason: &str, has_calls: bool) -> &'static str {
    match finish_reason {
        "length" => "max_tokens",
        "content_filter" => "refusal",
        "tool_calls" | "function_call" => "tool_use",
        _ if has_calls => "tool_use",
        _ => "end_turn",
    }
}

pub(super) fn answer(body: &Bytes, asked: &Asked) -> Result<Answer, Error> {
    let malformed = |what| Error::Malformed { dialect: Dialect::Chat, what };
    let completion: Completion<'_> = json::object(body).ok_or(malformed("answer"))?;
    let choice = completion.choices.first().ok_or(malformed("`choices`"))?;
    let message = choice.message.as_ref().ok_or(malformed("`message`"))?;
    let mut meter = Meter::new(asked.input_tokens_estimated);
    if let Some(usage) = completion.used() {
        meter.told(&usage);
    }
    for raw in [message.content, message.refusal, message.thought()].into_iter().flatten() {
        meter.said(raw.get());
    }
    for function in message.tool_calls.iter().flatten().filter_map(|call| call.function.as_ref()) {
        meter.said(function.arguments.and_then(json::inner).unwrap_or_default());
    }
    let usage = meter.usage();
    let reason = choice.finish_reason.and_then(json::text);
    let has_calls = message.tool_calls.as_ref().is_some_and(|calls| !calls.is_empty());

    let mut out = Vec::with_capacity(body.len() + 256);
    let mut object = Object::new(&mut out);
    message_head(&mut object, asked, asked.model(completion.model.and_then(json::text).as_deref()));
    content(object.array("content"), message);
    message_stop(&mut object, reason_of(reason.as_deref().unwrap_or("stop"), has_calls), None);
    write_usage(object.object("usage"), &usage);
    drop(object);
    Ok(Answer { body: out.into(), usage, finish: reason.as_deref().map(finish_of) })
}

fn content(mut list: Array<'_>, message: &Message<'_>) {
    let (text, thought) = spoken(message.content);
    let thought = message.thought().and_then(json::inner).map_or(thought, str::to_owned);
    if !thought.is_empty() {
        let mut block = list.object();
        block.text("type", "thinking");
        block.escaped("thinking", &thought);
        block.text("signature", "");
    }
    let refusal = message.refusal.and_then(json::inner).unwrap_or_default();
    for text in [text.as_str(), refusal].into_iter().filter(|text| !text.is_empty()) {
        text_block(list.object(), text);
    }
    for call in message.tool_calls.iter().flatten() {
        let Some(function) = &call.function else { continue };
        let mut block = list.object();
        block.text("type", "tool_use");
        block.text("id", &anthropic_id(&call.id.and_then(json::text).unwrap_or_default()));
        block.raw_if("name", function.name);
        block.object("caller").text("type", "direct");
        match function.arguments {
            Some(arguments) => arguments_as_object(block.key("input"), arguments),
            None => block.json("input", "{}"),
        }
    }
}
