//! The whole answer.

use bytes::Bytes;

use crate::dialect::chat::{Completion, finish_of, spoken};
use crate::dialect::json;
use crate::dialect::responses::Response;
use crate::dialect::usage::Meter;
use crate::dialect::{Answer, Asked, Dialect, Error};

/// Why a response is not whole, if chat says that its answer is not.
pub(super) fn incomplete(finish_reason: &str) -> Option<&'static str> {
    match finish_reason {
        "length" => Some("max_output_tokens"),
        "content_filter" => Some("content_filter"),
        _ => None,
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
    let mut response = Response::at_once(asked);
    response.name(completion.model.and_then(json::text).as_deref());
    let nothing = &mut Vec::new();

    let (text, thought) = spoken(message.content);
    let thought = message.thought().and_then(json::inner).map_or(thought, str::to_owned);
    if !thought.is_empty() {
        meter.said(&thought);
        response.reasoning(nothing, &thought)?;
    }
    if !text.is_empty() {
        meter.said(&text);
        response.text(nothing, &text)?;
    }
    if let Some(refusal) = message.refusal.and_then(json::inner).filter(|refusal| !refusal.is_empty()) {
        meter.said(refusal);
        response.refusal(nothing, refusal)?;
    }
    for (at, call) in message.tool_calls.iter().flatten().enumerate() {
        let Some(function) = &call.function else { continue };
        let made = format!("call_{}_{at}", asked.id);
        let id = call.id.and_then(json::inner).filter(|id| !id.is_empty()).unwrap_or(&made);
        response.call(nothing, id, function.name.and_then(json::inner).unwrap_or_default())?;
        if let Some(arguments) = function.arguments.and_then(json::inner).filter(|arguments| !arguments.is_empty()) {
            meter.said(arguments);
            response.arguments(nothing, arguments)?;
        }
    }
    let reason = choice.finish_reason.and_then(json::text);
    let why = reason.as_deref().and_then(incomplete);
    let usage = meter.usage();
    response.end(nothing, why, &usage);
    Ok(Answer { body: response.whole(why, &usage).into(), usage, finish: reason.as_deref().map(finish_of) })
}
