//! The whole answer.

use bytes::Bytes;

use crate::dialect::anthropic::{message_head, message_stop, text_block, write_usage};
use crate::dialect::json::Members;
use crate::dialect::pairs::remarks::{anthropic_id, parsed};
use crate::dialect::responses::{Item, ending, finish_of, items, usage_in};
use crate::dialect::usage::Meter;
use crate::dialect::write::{Array, Object};
use crate::dialect::{Answer, Asked, Dialect, Error};

/// Anthropic's word for how a response ended.
pub(super) fn reason_of(incomplete: Option<&str>, has_calls: bool) -> &'static str {
    match incomplete {
        Some("max_output_tokens") => "max_tokens",
        Some("content_filter") => "refusal",
        _ if has_calls => "tool_use",
        _ => "end_turn",
    }
}

pub(super) fn answer(body: &Bytes, asked: &Asked) -> Result<Answer, Error> {
    let malformed = |what| Error::Malformed { dialect: Dialect::Responses, what };
    let members = Members::parse(body).map_err(|_| malformed("answer"))?;
    let output = members.get("output").ok_or(malformed("`output`"))?;
    let (status, why) = ending(&members);
    if status == "failed" {
        return Err(malformed("failed response"));
    }
    let items = items(output);
    let mut meter = Meter::new(asked.input_tokens_estimated);
    if let Some(usage) = usage_in(&members) {
        meter.told(&usage);
    }
    meter.said(output.get());
    let usage = meter.usage();
    let has_calls = items.iter().any(|item| matches!(item, Item::Call(..)));

    let mut out = Vec::with_capacity(body.len() + 256);
    let mut object = Object::new(&mut out);
    message_head(&mut object, asked, asked.model(members.text("model").as_deref()));
    content(object.array("content"), &items);
    message_stop(&mut object, reason_of(why.as_deref(), has_calls), None);
    write_usage(object.object("usage"), &usage);
    drop(object);
    Ok(Answer { body: out.into(), usage, finish: finish_of(&members) })
}

/// The blocks. What the provider wants back of its reasoning travels as the signature of a block of thinking, or as one
/// that cannot be read where there is no summary.
fn content(mut list: Array<'_>, items: &[Item<'_>]) {
    for item in items {
        match item {
            Item::Text(text) | Item::Refusal(text) if !text.is_empty() => {
                text_block(list.object(), text);
            }
            Item::Reasoning(text, Some(encrypted)) if text.is_empty() => {
                let mut block = list.object();
                block.text("type", "redacted_thinking");
                block.escaped("data", encrypted);
            }
            Item::Reasoning(text, encrypted) if !text.is_empty() => {
                let mut block = list.object();
                block.text("type", "thinking");
                block.escaped("thinking", text);
                block.escaped("signature", encrypted.unwrap_or_default());
            }
            Item::Call(id, name, arguments) => {
                let mut block = list.object();
                block.text("type", "tool_use");
                block.text("id", &anthropic_id(id));
                block.escaped("name", name);
                block.object("caller").text("type", "direct");
                parsed(block.key("input"), arguments);
            }
            _ => {}
        }
    }
}
