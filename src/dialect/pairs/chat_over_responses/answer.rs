//! The whole answer.

use bytes::Bytes;

use crate::dialect::chat::{completion_head, write_usage};
use crate::dialect::json::Members;
use crate::dialect::responses::{Item, ending, finish_of, items, usage_in};
use crate::dialect::usage::Meter;
use crate::dialect::write::Object;
use crate::dialect::{Answer, Asked, Dialect, Error};

/// Chat's word for how a response ended.
pub(super) fn reason_of(incomplete: Option<&str>, has_calls: bool) -> &'static str {
    match incomplete {
        Some("max_output_tokens") => "length",
        Some("content_filter") => "content_filter",
        _ if has_calls => "tool_calls",
        _ => "stop",
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
    completion_head(&mut object, "chat.completion", asked, asked.model(members.text("model").as_deref()));
    {
        let mut choices = object.array("choices");
        let mut choice = choices.object();
        choice.number("index", 0);
        message(choice.object("message"), &items, has_calls);
        choice.null("logprobs");
        choice.text("finish_reason", reason_of(why.as_deref(), has_calls));
    }
    write_usage(object.object("usage"), &usage);
    drop(object);
    Ok(Answer { body: out.into(), usage, finish: finish_of(&members) })
}

fn message(mut to: Object<'_>, items: &[Item<'_>], has_calls: bool) {
    let (mut text, mut refusal, mut thought) = (None::<String>, None::<String>, String::new());
    for item in items {
        match item {
            Item::Text(more) => text.get_or_insert_default().push_str(more),
            Item::Refusal(more) => refusal.get_or_insert_default().push_str(more),
            Item::Reasoning(more, _) => thought.push_str(more),
            Item::Call(..) | Item::Other => {}
        }
    }
    to.text("role", "assistant");
    for (key, said) in [("content", &text), ("refusal", &refusal)] {
        match said {
            Some(said) => to.escaped(key, said),
            None => to.null(key),
        }
    }
    drop(to.array("annotations"));
    if !thought.is_empty() {
        to.escaped("reasoning_content", &thought);
    }
    if has_calls {
        let mut calls = to.array("tool_calls");
        for item in items {
            if let Item::Call(id, name, arguments) = item {
                let mut call = calls.object();
                call.escaped("id", id);
                call.text("type", "function");
                let mut function = call.object("function");
                function.escaped("name", name);
                function.escaped("arguments", arguments);
            }
        }
    }
}
