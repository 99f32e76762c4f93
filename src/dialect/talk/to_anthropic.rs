//! Requests for Anthropic's messages (version 2023-06-01).

use crate::dialect::json;
use crate::dialect::pair::{Outgoing, Target};
use crate::dialect::pairs::anthropic_id;
use crate::dialect::write::{Array, Object};
use crate::dialect::{Dialect, Error, Facts};

use super::conversation::{Answered, Choice, Content, Conversation, Format, Media, Part, Source, Thinking};
use super::schema;

/// Least tokens of thinking that Claude takes.
const THINKING_MIN_TOKENS: u64 = 1_024;

pub(super) fn write(mut said: Conversation<'_>, facts: &Facts<'_>, to: &Target<'_>) -> Result<Outgoing, Error> {
    said.with_a_turn();
    let most = said.settings.output_tokens_max.unwrap_or(to.output_tokens_default).max(1);
    let thinking = thinking(&mut said, most);
    let settings = &said.settings;
    let given = [
        (settings.seed.is_some(), "seed"),
        (settings.min_p.is_some(), "min_p"),
        (settings.frequency_penalty.is_some(), "frequency_penalty"),
        (settings.presence_penalty.is_some(), "presence_penalty"),
        (settings.temperature.is_some() && thinking.is_some(), "temperature"),
        (settings.top_p.is_some() && thinking.is_some(), "top_p"),
        (settings.top_k.is_some() && thinking.is_some(), "top_k"),
        (matches!(settings.format, Format::Json), "response_format"),
    ];
    said.leave_out(&given);
    let mut body = Vec::with_capacity(1_024);
    {
        let mut request = Object::new(&mut body);
        request.text("model", to.model);
        request.number("max_tokens", most);
        if !said.system.is_empty() {
            write_blocks(&said.system, &mut request.array("system"))?;
        }
        {
            let mut messages = request.array("messages");
            for turn in &said.turns {
                let mut message = messages.object();
                message.text("role", if turn.model { "assistant" } else { "user" });
                write_blocks(&turn.parts, &mut message.array("content"))?;
            }
        }
        write_tools(&said, &mut request);
        let settings = &said.settings;
        if thinking.is_none() {
            request.raw_if("temperature", settings.temperature);
            request.raw_if("top_p", settings.top_p);
            request.raw_if("top_k", settings.top_k);
        }
        let stop: Vec<_> = settings.stop.iter().filter(|raw| json::says_something(raw)).collect();
        if !stop.is_empty() {
            let mut sequences = request.array("stop_sequences");
            stop.into_iter().for_each(|raw| sequences.raw(raw));
        }
        match &thinking {
            None => {}
            Some(Thinking::Adaptive) => request.object("thinking").text("type", "adaptive"),
            Some(thinking) => {
                let mut of = request.object("thinking");
                of.text("type", "enabled");
                // Thinking counts against the limit; half of it is left for the answer.
                let tokens = thinking.tokens().unwrap_or_default().min(most / 2);
                of.number("budget_tokens", tokens.max(THINKING_MIN_TOKENS));
            }
        }
        if let Format::Schema { schema, .. } = &settings.format {
            let mut config = request.object("output_config");
            let mut format = config.object("format");
            format.text("type", "json_schema");
            schema::write(*schema, format.key("schema"));
        }
        if let Some(user) = &settings.user {
            request.object("metadata").text("user_id", user);
        }
        said.unknown.iter().for_each(|(name, raw)| request.raw(name, raw));
        if facts.stream {
            request.flag("stream", true);
        }
    }
    Ok(Outgoing { body: body.into(), left_out: said.left_out })
}

/// Whether Claude shall think: not when it must call a tool, when it has too few tokens, or when a call that it made
/// comes back without its thought.
fn thinking<'a>(said: &mut Conversation<'a>, most: u64) -> Option<Thinking<'a>> {
    let asked = said.settings.thinking.take().filter(|asked| !matches!(asked, Thinking::Off))?;
    let forced = matches!(said.choice, Some(Choice::Any | Choice::Named(_)));
    let signed = |part: &Part<'_>| matches!(part, Part::Redacted(_)) || part.claudes_signature().is_some();
    let lost = said.turns.iter().rev().find(|turn| turn.model).is_some_and(|turn| {
        turn.parts.iter().any(|part| matches!(part, Part::Call(_))) && !turn.parts.iter().any(signed)
    });
    if forced || lost || most <= THINKING_MIN_TOKENS {
        said.left_out.push("thinking".to_owned());
        return None;
    }
    Some(asked)
}

fn write_blocks(parts: &[Part<'_>], content: &mut Array<'_>) -> Result<(), Error> {
    // Results come before what is said beside them.
    let results = parts.iter().filter(|part| matches!(part, Part::Result(_)));
    let others = parts.iter().filter(|part| !matches!(part, Part::Result(_)));
    for part in results.chain(others) {
        match part {
            Part::Text { text, .. } => write_text(text, content),
            Part::Media(media) => write_media(media, content)?,
            Part::Thought { text, .. } => {
                // A thought that nobody signed is refused.
                let Some(signature) = part.claudes_signature() else { continue };
                let mut block = content.object();
                block.text("type", "thinking");
                block.escaped("thinking", text);
                block.text("signature", signature);
            }
            Part::Redacted(data) => {
                let mut block = content.object();
                block.text("type", "redacted_thinking");
                block.escaped("data", data);
            }
            Part::CachePoint(_) => {}
            Part::Call(call) => {
                let mut block = content.object();
                block.text("type", "tool_use");
                block.text("id", &anthropic_id(call.id.as_deref().unwrap_or_default()));
                block.text("name", &call.name);
                block.json("input", &call.arguments);
            }
            Part::Result(answered) => write_result(answered, content)?,
        }
    }
    Ok(())
}

fn write_text(text: &str, content: &mut Array<'_>) {
    let mut block = content.object();
    block.text("type", "text");
    block.escaped("text", text);
}

fn write_media(media: &Media<'_>, content: &mut Array<'_>) -> Result<(), Error> {
    let image = media.mime.starts_with("image/");
    if !image && media.mime != "application/pdf" && !matches!(media.source, Source::Text(_)) {
        let why = "it takes pictures, PDF and text";
        return Err(Error::Unsupported { field: media.field.clone(), to: Dialect::Anthropic, why });
    }
    let mut block = content.object();
    block.text("type", if image { "image" } else { "document" });
    let mut source = block.object("source");
    match &media.source {
        Source::Data(data) => {
            source.text("type", "base64");
            source.text("media_type", &media.mime);
            source.text("data", data);
        }
        Source::Url(url) => {
            source.text("type", "url");
            source.text("url", url);
        }
        Source::Text(text) => {
            source.text("type", "text");
            source.text("media_type", "text/plain");
            source.escaped("data", text);
        }
    }
    Ok(())
}

fn write_result(answered: &Answered<'_>, content: &mut Array<'_>) -> Result<(), Error> {
    let mut block = content.object();
    block.text("type", "tool_result");
    block.text("tool_use_id", &anthropic_id(answered.id.as_deref().unwrap_or_default()));
    match &answered.content {
        Content::Object(object) => block.text("content", object.get()),
        Content::Parts(parts) => write_blocks(parts, &mut block.array("content"))?,
    }
    if answered.failed {
        block.flag("is_error", true);
    }
    Ok(())
}

fn write_tools(said: &Conversation<'_>, request: &mut Object<'_>) {
    if said.tools.is_empty() {
        return;
    }
    {
        let mut tools = request.array("tools");
        for tool in &said.tools {
            let mut one = tools.object();
            one.text("name", &tool.name);
            if let Some(description) = tool.description {
                one.escaped("description", description);
            }
            match tool.schema {
                Some(schema) => schema::write(schema, one.key("input_schema")),
                None => one.json("input_schema", r#"{"type":"object","properties":{}}"#),
            }
            if let Some(strict) = tool.strict {
                one.flag("strict", strict);
            }
        }
    }
    let off = said.parallel == Some(false);
    let (kind, name) = match &said.choice {
        None if !off => return,
        None | Some(Choice::Auto) => ("auto", None),
        Some(Choice::Any) => ("any", None),
        Some(Choice::None) => ("none", None),
        Some(Choice::Named(name)) => ("tool", Some(name)),
    };
    let mut choice = request.object("tool_choice");
    choice.text("type", kind);
    if let Some(name) = name {
        choice.text("name", name);
    }
    if off && kind != "none" {
        choice.flag("disable_parallel_tool_use", true);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dialect::talk::tests::{conversation, written};

    #[test]
    fn geminis_contents_become_blocks() {
        let to = Target::new(Dialect::Anthropic, "claude-sonnet-4-5");
        let (sent, left_out) = written(Dialect::Gemini, to, &conversation(Dialect::Gemini)).unwrap();
        assert_eq!(
            sent,
            json!({
                "model": "claude-sonnet-4-5", "max_tokens": 500,
                "system": [{"type": "text", "text": "Be brief."}],
                "messages": [
                    {"role": "user", "content": [
                        {"type": "text", "text": "What is \"this\"?\n"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}]},
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "call_0", "name": "look", "input": {"line": 4}}]},
                    {"role": "user", "content": [
                        {"type": "tool_result", "tool_use_id": "call_0", "content": "{\"output\":\"hot\"}"},
                        {"type": "text", "text": "Well?"}]}],
                "tools": [{"name": "look", "description": "Looks.", "input_schema":
                    {"type": "object", "properties": {"line": {"type": "integer"}}, "required": ["line"]}}],
                "tool_choice": {"type": "auto"},
                "temperature": 0.2, "stop_sequences": ["END"]})
        );
        assert!(left_out.is_empty());
    }

    #[test]
    fn a_limit_that_nobody_gave_is_the_targets_and_thinking_leaves_room() {
        let body = json!({"model": "m", "think": true, "messages": [{"role": "user", "content": "Hi"}], "stream": false,
            "options": {"temperature": 0.1}});
        let to = Target { output_tokens_default: 6_000, ..Target::new(Dialect::Anthropic, "claude") };
        let (sent, left_out) = written(Dialect::Ollama, to, &body).unwrap();
        assert_eq!((&sent["max_tokens"], &sent["thinking"]), (&json!(6_000), &json!({"type": "adaptive"})));
        assert_eq!(left_out, ["temperature"]);
        let contents = json!([{"parts": [{"text": "Hi"}]}]);
        let body = json!({"contents": contents, "generationConfig": {"thinkingConfig": {"thinkingBudget": 9_000}}});
        let (sent, _) = written(Dialect::Gemini, to, &body).unwrap();
        assert_eq!(sent["thinking"]["budget_tokens"], 3_000);
    }
}
