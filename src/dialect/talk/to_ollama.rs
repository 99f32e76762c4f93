//! Requests for Ollama's `chat` (`/api/chat`, as of 0.12).

use super::conversation::{Answered, Choice, Conversation, Format, Media, Part, Source, Thinking, joined};
use super::schema;
use crate::dialect::json;
use crate::dialect::pair::{Outgoing, Target};
use crate::dialect::write::{Object, string};
use crate::dialect::{Dialect, Error, Facts};

pub(super) fn write(mut said: Conversation<'_>, facts: &Facts<'_>, to: &Target<'_>) -> Result<Outgoing, Error> {
    let settings = &said.settings;
    let given = [
        (settings.user.is_some(), "user"),
        (settings.service_tier.is_some(), "service_tier"),
        (said.parallel == Some(false), "parallel_tool_calls"),
        (said.tools.iter().any(|tool| tool.strict == Some(true)), "tools.strict"),
    ];
    said.leave_out(&given);
    if matches!(said.choice, Some(Choice::Any | Choice::Named(_))) {
        return Err(unsupported("tool_choice", "it cannot be made to call a tool; use auto"));
    }
    let mut body = Vec::with_capacity(1_024);
    {
        let mut request = Object::new(&mut body);
        request.text("model", to.model);
        write_messages(&said, &mut request)?;
        if !said.tools.is_empty() && !matches!(said.choice, Some(Choice::None)) {
            let mut tools = request.array("tools");
            for tool in &said.tools {
                let mut one = tools.object();
                one.text("type", "function");
                let mut function = one.object("function");
                function.text("name", &tool.name);
                function.escaped("description", tool.description.unwrap_or_default());
                match tool.schema {
                    Some(schema) => schema::write(schema, function.key("parameters")),
                    None => function.json("parameters", r#"{"type":"object","properties":{}}"#),
                }
            }
        }
        let settings = &said.settings;
        match settings.format {
            Format::Text => {}
            Format::Json => request.text("format", "json"),
            Format::Schema { schema, .. } => schema::write(schema, request.key("format")),
        }
        match &settings.thinking {
            None => {}
            Some(Thinking::Off) => request.flag("think", false),
            // Only gpt-oss knows how much; others take true.
            Some(thinking) => match thinking.effort().filter(|_| to.model.contains("gpt-oss")) {
                Some(effort) => request.text("think", effort),
                None => request.flag("think", true),
            },
        }
        said.unknown.iter().for_each(|(name, raw)| request.raw(name, raw));
        request.flag("stream", facts.stream);
        write_options(&said, &mut request);
    }
    Ok(Outgoing { body: body.into(), left_out: said.left_out })
}

fn unsupported(field: impl Into<String>, why: &'static str) -> Error {
    Error::Unsupported { field: field.into(), to: Dialect::Ollama, why }
}

fn write_messages(said: &Conversation<'_>, request: &mut Object<'_>) -> Result<(), Error> {
    let mut messages = request.array("messages");
    if !said.system.is_empty() {
        let mut message = messages.object();
        message.text("role", "system");
        write_words(&said.system, &mut message)?;
    }
    for turn in &said.turns {
        for answered in turn.parts.iter().filter_map(|part| match part {
            Part::Result(answered) => Some(answered),
            _ => None,
        }) {
            let mut message = messages.object();
            message.text("role", "tool");
            write_result(said, answered, &mut message)?;
        }
        if turn.parts.iter().all(|part| matches!(part, Part::Result(_) | Part::CachePoint(_))) {
            continue;
        }
        let mut message = messages.object();
        message.text("role", if turn.model { "assistant" } else { "user" });
        write_words(&turn.parts, &mut message)?;
        let thoughts: Vec<&str> = turn.parts.iter().filter_map(thought).collect();
        if !thoughts.is_empty() {
            message.escaped("thinking", &thoughts.join("\\n"));
        }
        if turn.parts.iter().any(|part| matches!(part, Part::Call(_))) {
            let mut calls = message.array("tool_calls");
            for part in &turn.parts {
                let Part::Call(call) = part else { continue };
                let mut one = calls.object();
                if let Some(id) = &call.id {
                    one.text("id", id);
                }
                let mut function = one.object("function");
                function.text("name", &call.name);
                function.json("arguments", &call.arguments);
            }
        }
    }
    Ok(())
}

fn thought<'p>(part: &'p Part<'_>) -> Option<&'p str> {
    match part {
        Part::Thought { text, .. } if !text.is_empty() => Some(text),
        _ => None,
    }
}

/// `content` with all texts, and `images`.
fn write_words(parts: &[Part<'_>], message: &mut Object<'_>) -> Result<(), Error> {
    let mut texts = Vec::new();
    let mut images = Vec::new();
    for part in parts {
        match part {
            Part::Text { text, .. } | Part::Media(Media { source: Source::Text(text), .. }) => texts.push(*text),
            Part::Media(media) => images.push(picture(media)?),
            _ => {}
        }
    }
    message.escaped("content", &texts.join("\\n"));
    if !images.is_empty() {
        let mut list = message.array("images");
        images.into_iter().for_each(|image| list.text(image));
    }
    Ok(())
}

fn picture<'m>(media: &'m Media<'_>) -> Result<&'m str, Error> {
    match &media.source {
        Source::Data(data) if media.mime.starts_with("image/") => Ok(data),
        Source::Url(_) => Err(unsupported(&*media.field, "it fetches nothing; send the picture as base64")),
        _ => Err(unsupported(&*media.field, "it takes pictures and no other files")),
    }
}

fn write_result(said: &Conversation<'_>, answered: &Answered<'_>, message: &mut Object<'_>) -> Result<(), Error> {
    let by_id = || answered.id.as_deref().and_then(|id| said.name_of(id));
    if let Some(name) = answered.name.as_deref().or_else(by_id) {
        message.text("tool_name", name);
    }
    if let Some(id) = &answered.id {
        message.text("tool_call_id", id);
    }
    let text = joined(&answered.content);
    let text = text.ok_or_else(|| unsupported(&*answered.field, "results are text there"))?;
    message.escaped("content", &text);
    Ok(())
}

fn write_options(said: &Conversation<'_>, request: &mut Object<'_>) {
    let settings = &said.settings;
    let mut options = request.object("options");
    if let Some(most) = settings.output_tokens_max {
        options.number("num_predict", most);
    }
    options.raw_if("temperature", settings.temperature);
    options.raw_if("top_p", settings.top_p);
    options.raw_if("top_k", settings.top_k);
    options.raw_if("min_p", settings.min_p);
    options.raw_if("seed", settings.seed);
    options.raw_if("frequency_penalty", settings.frequency_penalty);
    options.raw_if("presence_penalty", settings.presence_penalty);
    if !settings.stop.is_empty() {
        let mut stop = options.array("stop");
        for text in settings.stop.iter().filter_map(|raw| json::text(raw)) {
            string(stop.element(), &text);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dialect::talk::tests::{conversation, written};

    #[test]
    fn an_agents_turns_become_messages() {
        let to = Target::new(Dialect::Ollama, "qwen3:4b");
        let (body, left_out) = written(Dialect::Anthropic, to, &conversation(Dialect::Anthropic)).unwrap();
        assert_eq!(
            body,
            json!({
                "model": "qwen3:4b",
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": "What is \"this\"?\n", "images": ["iVBORw0KGgo="]},
                    {"role": "assistant", "content": "", "tool_calls": [
                        {"id": "call_1", "function": {"name": "look", "arguments": {"line": 4}}}]},
                    {"role": "tool", "tool_name": "look", "tool_call_id": "call_1", "content": "hot"},
                    {"role": "user", "content": "Well?"}],
                "tools": [{"type": "function", "function": {"name": "look", "description": "Looks.", "parameters":
                    {"type": "object", "properties": {"line": {"type": "integer"}}, "required": ["line"]}}}],
                "stream": false,
                "options": {"num_predict": 500, "temperature": 0.2, "stop": ["END"]}})
        );
        assert!(left_out.is_empty());
    }

    #[test]
    fn what_ollama_cannot_do_is_refused_with_its_member() {
        let to = Target::new(Dialect::Ollama, "m");
        let refused = |body: &serde_json::Value| match written(Dialect::Chat, to, body) {
            Err(Error::Unsupported { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        let mut body = conversation(Dialect::Chat);
        body["tool_choice"] = json!("required");
        assert_eq!(refused(&body), "tool_choice");
        let mut body = conversation(Dialect::Chat);
        body["messages"][1]["content"][1]["image_url"]["url"] = json!("https://example.org/a.png");
        assert_eq!(refused(&body), "messages[1].content[1]");
    }

    #[test]
    fn thinking_and_forms_are_said_in_ollamas_words() {
        let mut body = conversation(Dialect::Chat);
        body["reasoning_effort"] = json!("low");
        body["response_format"] = json!({"type": "json_object"});
        body["tool_choice"] = json!("none");
        let sent = |model| written(Dialect::Chat, Target::new(Dialect::Ollama, model), &body).unwrap().0;
        assert_eq!(sent("gpt-oss:20b")["think"], "low");
        assert_eq!(sent("qwen3")["think"], true);
        assert_eq!(sent("qwen3")["format"], "json");
        assert!(sent("qwen3").get("tools").is_none(), "no tool may be called");
    }
}
