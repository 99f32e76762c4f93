//! Whole bodies.

use std::ops::Range;

use bytes::Bytes;

use super::lean::{self, Change};
use crate::dialect::json::{self, Members, Raw};
use crate::dialect::usage::Meter;
use crate::dialect::write::{self, Object};
use crate::dialect::{
    Answer, Asked, Dialect, Error, Facts, Operation, Served, Target, Usage, anthropic, chat, responses,
};

/// The caller's bytes with the model's name of the other side, and with the usage asked for in a stream of OpenAI's.
pub(crate) fn request(body: &Bytes, facts: &Facts<'_>, to: &Target<'_>) -> Result<Bytes, Error> {
    let renamed = facts.model_at.clone().filter(|_| facts.model.as_deref() != Some(to.model));
    let streams_text = matches!(facts.operation, Operation::Chat | Operation::Completions);
    let asks = facts.dialect == Dialect::Chat && streams_text && facts.stream && !facts.include_usage && to.asks_usage;
    // A server that is not asked takes no such member, whoever wrote it.
    let unwanted = facts.stream_options_at.clone().filter(|_| !to.asks_usage).map(|at| member(body, at));
    if renamed.is_none() && !asks && unwanted.is_none() {
        return Ok(body.clone());
    }
    let mut changes: Vec<Change> = Vec::with_capacity(2);
    if let Some(at) = renamed {
        let mut name = Vec::with_capacity(to.model.len() + 2);
        write::string(&mut name, to.model);
        changes.push((at, name));
    }
    if asks {
        changes.push(match &facts.stream_options_at {
            None => (facts.members_at..facts.members_at, b"\"stream_options\":{\"include_usage\":true},".to_vec()),
            Some(at) => (at.clone(), with_usage(&body[at.clone()])?),
        });
    }
    changes.extend(unwanted.map(|at| (at, Vec::new())));
    Ok(changed(body, changes))
}

/// The bytes with these changes, which do not overlap.
fn changed(body: &Bytes, mut changes: Vec<Change>) -> Bytes {
    changes.sort_by_key(|(at, _)| at.start);
    let mut out = Vec::with_capacity(body.len() + changes.iter().map(|(_, new)| new.len()).sum::<usize>());
    let mut from = 0;
    for (at, change) in changes {
        out.extend_from_slice(&body[from..at.start]);
        out.extend_from_slice(&change);
        from = at.end;
    }
    out.extend_from_slice(&body[from..]);
    out.into()
}

/// Where the whole member is whose value is there: its key, and the comma that goes with it.
fn member(body: &[u8], value: Range<usize>) -> Range<usize> {
    let is_between = |byte: &u8| byte.is_ascii_whitespace() || *byte == b':';
    let quote = body[..value.start].iter().rposition(|byte| !is_between(byte)).unwrap_or(0);
    // Keys that are known have no quotes in them.
    let from = body[..quote].iter().rposition(|byte| *byte == b'"').unwrap_or(0);
    let behind = body[value.end..].iter().position(|byte| !byte.is_ascii_whitespace()).map(|at| value.end + at);
    if let Some(comma) = behind.filter(|at| body[*at] == b',') {
        return from..comma + 1;
    }
    let before = body[..from].iter().rposition(|byte| !byte.is_ascii_whitespace());
    before.filter(|at| body[*at] == b',').unwrap_or(from)..value.end
}

/// The caller's `stream_options` with `include_usage`, and everything else as it was.
fn with_usage(options: &[u8]) -> Result<Vec<u8>, Error> {
    let members = Members::parse(options).map_err(|error| Error::request(&error))?;
    let mut out = Vec::with_capacity(options.len() + 24);
    let mut object = Object::new(&mut out);
    for (key, raw) in members.iter().filter(|(key, _)| *key != "include_usage") {
        object.raw(key, raw);
    }
    object.flag("include_usage", true);
    drop(object);
    Ok(out)
}

/// The model's answer as it is; only read for its usage, and given the name that the caller shall see and, where a chat's
/// lacks them, the members that strict clients require.
pub(crate) fn answer(dialect: Dialect, body: &Bytes, asked: &Asked) -> Result<Answer, Error> {
    let malformed = |what| Error::Malformed { dialect, what };
    let members = Members::parse(body).map_err(|_| malformed("answer"))?;
    let mut meter = Meter::new(asked.input_tokens_estimated);
    let mut choices = Vec::new();
    let (told, finish, said) = match (dialect, asked.operation) {
        (Dialect::Anthropic, _) => {
            let mut counts = anthropic::Counts::default();
            if let Some(raw) = members.get("usage") {
                counts.take(raw);
            }
            let reason = members.text("stop_reason").map(|reason| anthropic::finish_of(&reason));
            (counts.usage(), reason, members.get("content"))
        }
        (Dialect::Responses, _) => {
            let told = responses::usage_in(&members).unwrap_or_default();
            (told, responses::finish_of(&members), members.get("output"))
        }
        (_, Operation::Chat | Operation::Completions) => {
            let all = members.get("choices").ok_or(malformed("`choices`"))?;
            choices = json::lenient_elements(all).into_iter().map(|raw| (raw, Members::lenient(raw))).collect();
            let reason = choices.first().and_then(|(_, choice)| choice.text("finish_reason"));
            let reason = reason.map(|reason| chat::finish_of(&reason));
            let told = members.get("usage").map(chat::usage_of).unwrap_or_default();
            (Usage { served: Served::read(members.get("service_tier")), ..told }, reason, Some(all))
        }
        _ => {
            let mut told = members.get("usage").map(chat::usage_of).unwrap_or_default();
            // Vectors and verdicts are no tokens.
            told.output_tokens = told.output_tokens.or(Some(0));
            (told, None, None)
        }
    };
    // Names of members count as well, so an estimate is rather too high.
    if told.output_tokens.is_none_or(|tokens| tokens == 0)
        && let Some(said) = said
    {
        meter.said(said.get());
    }
    meter.told(&told);
    let usage = meter.usage();
    let mut changes = Vec::new();
    if (dialect, asked.operation) == (Dialect::Chat, Operation::Chat) {
        changes = lean::missing(body, &members, &choices, asked);
    }
    changes.extend(renamed(body, &members, asked));
    let body = if changes.is_empty() { body.clone() } else { changed(body, changes) };
    Ok(Answer { body, usage, finish })
}

/// The model's name that the caller shall see in the place of the other.
fn renamed(body: &Bytes, members: &Members<'_>, asked: &Asked) -> Option<Change> {
    let (shown, raw) = (asked.model_shown.as_ref()?, members.get("model")?);
    let from = raw.get().as_ptr().addr() - body.as_ptr().addr();
    let mut name = Vec::with_capacity(shown.len() + 2);
    write::string(&mut name, shown);
    Some((from..from + raw.get().len(), name))
}

/// Appends a frame with the model's name in it changed; `raw` lies within `data`, which lies within `frame`.
pub(super) fn pass_renamed(frame: &[u8], model: Option<Raw<'_>>, shown: Option<&str>, out: &mut Vec<u8>) {
    let place = model.and_then(|raw| {
        let from = raw.get().as_ptr().addr().checked_sub(frame.as_ptr().addr())?;
        (from + raw.get().len() <= frame.len()).then_some(from..from + raw.get().len())
    });
    match (shown, place) {
        (Some(shown), Some(place)) => {
            out.extend_from_slice(&frame[..place.start]);
            write::string(out, shown);
            out.extend_from_slice(&frame[place.end..]);
        }
        _ => out.extend_from_slice(frame),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(body: &str, model: &str, asks_usage: bool) -> String {
        let bytes = Bytes::copy_from_slice(body.as_bytes());
        let facts = Facts::read(Dialect::Chat, Operation::Chat, &bytes).unwrap();
        let out = request(&bytes, &facts, &Target { asks_usage, ..Target::new(Dialect::Chat, model) }).unwrap();
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn a_server_that_is_not_asked_for_the_usage_gets_no_stream_options() {
        let rest = [
            r#"{"model":"a","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#,
            r#"{"stream_options" : {"include_usage":true} , "model":"a","stream":true,"messages":[]}"#,
            r#"{"model":"a","stream":true,"messages":[] , "stream_options": {"x": [1]} }"#,
        ];
        for body in rest {
            let sent = sent(body, "b", false);
            let wanted = serde_json::json!({"model": "b", "stream": true, "messages": []});
            assert_eq!(serde_json::from_str::<serde_json::Value>(&sent).unwrap(), wanted, "{sent}");
        }
    }

    #[test]
    fn only_the_models_name_changes() {
        let body = "{ \"x\": [1.0, 2],\n \"model\" :\"a\", \"messages\": [] , \"y\": \"\\u00e9\"}";
        assert_eq!(sent(body, "b\"c", true), body.replace("\"a\"", "\"b\\\"c\""));
        assert_eq!(sent(body, "a", true), body);
    }

    #[test]
    fn bytes_that_need_no_change_are_not_even_copied() {
        let bytes = Bytes::from_static(br#"{"model":"a","messages":[]}"#);
        let facts = Facts::read(Dialect::Chat, Operation::Chat, &bytes).unwrap();
        let out = request(&bytes, &facts, &Target::new(Dialect::Chat, "a")).unwrap();
        assert_eq!(out.as_ptr(), bytes.as_ptr());
    }

    #[test]
    fn usage_is_asked_for_in_streams() {
        assert_eq!(
            sent(r#"{"stream":true,"model":"a","messages":[]}"#, "b", true),
            r#"{"stream_options":{"include_usage":true},"stream":true,"model":"b","messages":[]}"#
        );
        assert_eq!(
            sent(
                r#"{"stream":true,"stream_options":{"include_usage":false,"x":1},"model":"a","messages":[]}"#,
                "a",
                true
            ),
            r#"{"stream":true,"stream_options":{"x":1,"include_usage":true},"model":"a","messages":[]}"#
        );
        let untouched = r#"{"stream":true,"model":"a","messages":[]}"#;
        assert_eq!(sent(untouched, "a", false), untouched);
        let asked = r#"{"stream":true,"stream_options":{"include_usage":true},"model":"a","messages":[]}"#;
        assert_eq!(sent(asked, "a", true), asked);
    }

    #[test]
    fn an_answer_passes_with_its_usage_read_and_the_name_that_is_shown() {
        let request = Bytes::from_static(br#"{"model":"alias","prompt":""}"#);
        let facts = Facts::read(Dialect::Chat, Operation::Completions, &request).unwrap();
        let mut asked = Asked::new(&facts, request.clone(), "1", 1);
        let body = Bytes::from_static(br#"{"model":"real", "choices":[{"text":"","finish_reason":"length"}],"usage":{"prompt_tokens":4,"completion_tokens":2}}"#);
        let told = answer(Dialect::Chat, &body, &asked).unwrap();
        assert_eq!(told.body.as_ptr(), body.as_ptr());
        assert_eq!(
            (told.usage.input_tokens, told.usage.output_tokens, told.usage.estimated),
            (Some(4), Some(2), false)
        );
        assert_eq!(told.finish, Some(crate::dialect::Finish::Length));
        asked.model_shown = Some("alias".to_owned());
        let told = answer(Dialect::Chat, &body, &asked).unwrap();
        assert!(told.body.starts_with(br#"{"model":"alias", "choices""#));
        let error = answer(Dialect::Chat, &Bytes::from_static(b"<html>"), &asked).unwrap_err();
        assert_eq!(error.to_string(), "read the answer of a model that speaks openai");
    }
}
