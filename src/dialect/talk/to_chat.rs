//! Requests for OpenAI's chat completions, and for all who speak them.

use crate::dialect::json;
use crate::dialect::pair::{Outgoing, Target};
use crate::dialect::pairs::{output_tokens_member, reasons};
use crate::dialect::write::{Array, Object, string};
use crate::dialect::{Dialect, Error, Facts};

use super::conversation::{Answered, Choice, Conversation, Format, Media, Part, Source, Thinking, joined};
use super::schema;

pub(super) fn write(mut said: Conversation<'_>, facts: &Facts<'_>, to: &Target<'_>) -> Result<Outgoing, Error> {
    let settings = &said.settings;
    let given = [
        // OpenAI itself refuses a request with members that it does not know.
        (settings.top_k.is_some(), "top_k"),
        (settings.min_p.is_some(), "min_p"),
        (
            matches!(settings.thinking, Some(Thinking::Tokens(_) | Thinking::Effort(_))) && !reasons(to.model),
            "thinking",
        ),
        (matches!(settings.thinking, Some(Thinking::Adaptive)), "thinking"),
    ];
    said.leave_out(&given);
    let mut body = Vec::with_capacity(1_024);
    {
        let mut request = Object::new(&mut body);
        request.text("model", to.model);
        write_messages(&said, &mut request)?;
        write_tools(&said, &mut request);
        let settings = &said.settings;
        if let Some(most) = settings.output_tokens_max {
            request.number(output_tokens_member(to.model), most);
        }
        request.raw_if("temperature", settings.temperature);
        request.raw_if("top_p", settings.top_p);
        request.raw_if("seed", settings.seed);
        request.raw_if("frequency_penalty", settings.frequency_penalty);
        request.raw_if("presence_penalty", settings.presence_penalty);
        if !settings.stop.is_empty() {
            let mut stop = request.array("stop");
            settings.stop.iter().filter(|raw| json::inner(raw).is_some()).for_each(|raw| stop.raw(raw));
        }
        match &settings.format {
            Format::Text => {}
            Format::Json => request.object("response_format").text("type", "json_object"),
            Format::Schema { name, schema, strict } => {
                let mut format = request.object("response_format");
                format.text("type", "json_schema");
                let mut of = format.object("json_schema");
                of.text("name", name.as_deref().unwrap_or("answer"));
                schema::write(*schema, of.key("schema"));
                if let Some(strict) = strict {
                    of.flag("strict", *strict);
                }
            }
        }
        if reasons(to.model)
            && let Some(effort) = settings.thinking.as_ref().and_then(Thinking::effort)
        {
            request.text("reasoning_effort", effort);
        }
        if let Some(user) = &settings.user {
            request.text("user", user);
        }
        if let Some(tier) = &settings.service_tier {
            request.text("service_tier", tier);
        }
        said.unknown.iter().for_each(|(name, raw)| request.raw(name, raw));
        if facts.stream {
            request.flag("stream", true);
            if to.asks_usage {
                request.object("stream_options").flag("include_usage", true);
            }
        }
    }
    Ok(Outgoing { body: body.into(), left_out: said.left_out })
}

fn write_messages(said: &Conversation<'_>, request: &mut Object<'_>) -> Result<(), Error> {
    let mut messages = request.array("messages");
    if !said.system.is_empty() {
        let mut message = messages.object();
        message.text("role", "system");
        write_content(&said.system, &mut message)?;
    }
    for turn in &said.turns {
        for part in &turn.parts {
            if let Part::Result(answered) = part {
                write_result(answered, &mut messages)?;
            }
        }
        let speaks = |part: &Part<'_>| matches!(part, Part::Text { .. } | Part::Media(_) | Part::Call(_));
        if !turn.parts.iter().any(speaks) {
            continue;
        }
        let mut message = messages.object();
        message.text("role", if turn.model { "assistant" } else { "user" });
        write_content(&turn.parts, &mut message)?;
        if turn.parts.iter().any(|part| matches!(part, Part::Call(_))) {
            let mut calls = message.array("tool_calls");
            for part in &turn.parts {
                let Part::Call(call) = part else { continue };
                let mut one = calls.object();
                one.text("id", call.id.as_deref().unwrap_or_default());
                one.text("type", "function");
                let mut function = one.object("function");
                function.text("name", &call.name);
                function.text("arguments", &call.arguments);
            }
        }
    }
    Ok(())
}

/// One text as a text, anything more as parts. Thoughts stay behind: OpenAI's messages have no place for them.
fn write_content(parts: &[Part<'_>], message: &mut Object<'_>) -> Result<(), Error> {
    let says = |part: &&Part<'_>| matches!(part, Part::Text { .. } | Part::Media(_));
    let said: Vec<&Part<'_>> = parts.iter().filter(says).collect();
    match said[..] {
        [] => message.null("content"),
        [Part::Text { text, .. }] => message.escaped("content", text),
        _ => {
            let mut content = message.array("content");
            for part in said {
                match part {
                    Part::Text { text, .. } => write_text(text, &mut content),
                    Part::Media(media) => write_media(media, &mut content)?,
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

fn write_text(text: &str, content: &mut Array<'_>) {
    let mut part = content.object();
    part.text("type", "text");
    part.escaped("text", text);
}

fn write_media(media: &Media<'_>, content: &mut Array<'_>) -> Result<(), Error> {
    let unsupported = |why| Error::Unsupported { field: media.field.clone(), to: Dialect::Chat, why };
    let url = |data: &str| format!("data:{};base64,{data}", media.mime);
    match &media.source {
        Source::Text(text) => write_text(text, content),
        source if media.mime.starts_with("image/") => {
            let mut part = content.object();
            part.text("type", "image_url");
            let mut image = part.object("image_url");
            match source {
                Source::Data(data) => image.text("url", &url(data)),
                Source::Url(url) => image.text("url", url),
                Source::Text(_) => {}
            }
        }
        Source::Data(data) if media.mime.starts_with("audio/") => {
            let format = match &*media.mime {
                "audio/mpeg" | "audio/mp3" => "mp3",
                "audio/wav" | "audio/x-wav" | "audio/wave" => "wav",
                _ => return Err(unsupported("it takes sound as WAV or MP3")),
            };
            let mut part = content.object();
            part.text("type", "input_audio");
            let mut audio = part.object("input_audio");
            audio.text("data", data);
            audio.text("format", format);
        }
        Source::Data(data) if media.mime == "application/pdf" => {
            let mut part = content.object();
            part.text("type", "file");
            let mut file = part.object("file");
            file.text("filename", media.name.as_deref().unwrap_or("document.pdf"));
            file.text("file_data", &url(data));
        }
        _ => return Err(unsupported("it takes pictures, WAV, MP3 and PDF, and only pictures by their URL")),
    }
    Ok(())
}

fn write_result(answered: &Answered<'_>, messages: &mut Array<'_>) -> Result<(), Error> {
    let why = "results are text there";
    let text = joined(&answered.content);
    let text = text.ok_or_else(|| Error::Unsupported { field: answered.field.clone(), to: Dialect::Chat, why })?;
    let mut message = messages.object();
    message.text("role", "tool");
    message.text("tool_call_id", answered.id.as_deref().unwrap_or_default());
    message.escaped("content", &text);
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
            one.text("type", "function");
            let mut function = one.object("function");
            function.text("name", &tool.name);
            if let Some(description) = tool.description {
                function.escaped("description", description);
            }
            if let Some(schema) = tool.schema {
                schema::write(schema, function.key("parameters"));
            }
            if let Some(strict) = tool.strict {
                function.flag("strict", strict);
            }
        }
    }
    match &said.choice {
        None => {}
        Some(Choice::Auto) => request.text("tool_choice", "auto"),
        Some(Choice::Any) => request.text("tool_choice", "required"),
        Some(Choice::None) => request.text("tool_choice", "none"),
        Some(Choice::Named(name)) => {
            let mut choice = request.object("tool_choice");
            choice.text("type", "function");
            string(choice.object("function").key("name"), name);
        }
    }
    if let Some(parallel) = said.parallel {
        request.flag("parallel_tool_calls", parallel);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dialect::talk::tests::{conversation, written};

    #[test]
    fn geminis_contents_become_messages_with_ids() {
        let mut body = conversation(Dialect::Gemini);
        body["generationConfig"]["thinkingConfig"] = json!({"thinkingLevel": "LOW"});
        body["generationConfig"]["responseSchema"] = json!({"type": "OBJECT", "nullable": true});
        let (sent, left_out) = written(Dialect::Gemini, Target::new(Dialect::Chat, "gpt-5-mini"), &body).unwrap();
        assert_eq!(
            sent["messages"],
            json!([
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [
                    {"type": "text", "text": "What is \"this\"?\n"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]},
                {"role": "assistant", "content": null, "tool_calls": [
                    {"id": "call_0", "type": "function", "function": {"name": "look", "arguments": "{\"line\":4}"}}]},
                {"role": "tool", "tool_call_id": "call_0", "content": "{\"output\":\"hot\"}"},
                {"role": "user", "content": "Well?"}])
        );
        assert_eq!(sent["tools"][0]["function"]["parameters"]["properties"]["line"], json!({"type": "integer"}));
        assert_eq!(sent["response_format"]["json_schema"]["schema"], json!({"type": ["object", "null"]}));
        assert_eq!((&sent["max_completion_tokens"], &sent["reasoning_effort"]), (&json!(500), &json!("low")));
        assert!(left_out.is_empty());
    }

    #[test]
    fn ollamas_older_clients_have_no_ids_and_get_them() {
        let mut body = conversation(Dialect::Ollama);
        body["messages"][3] = json!({"role": "tool", "content": "hot"});
        body["stream"] = json!(true);
        body["options"]["num_ctx"] = json!(8192);
        let (sent, left_out) = written(Dialect::Ollama, Target::new(Dialect::Chat, "m"), &body).unwrap();
        assert_eq!(sent["messages"][2]["tool_calls"][0]["id"], sent["messages"][3]["tool_call_id"]);
        assert_eq!((&sent["max_tokens"], &sent["stop"]), (&json!(500), &json!(["END"])));
        assert_eq!(sent["stream_options"], json!({"include_usage": true}));
        assert_eq!(left_out, ["options.num_ctx"]);
    }

    #[test]
    fn a_prompt_of_generate_becomes_a_turn_unless_it_needs_the_template() {
        let body = json!({"model": "m", "prompt": "Why?", "system": "Be brief.", "images": ["iVBORw0KGgo="]});
        let (sent, _) = written(Dialect::Ollama, Target::new(Dialect::Chat, "m"), &body).unwrap();
        assert_eq!(sent["messages"][0], json!({"role": "system", "content": "Be brief."}));
        assert_eq!(sent["messages"][1]["content"][0], json!({"type": "text", "text": "Why?"}));
        assert_eq!(sent["stream"], true, "Ollama streams unless it is told not to");
        for (member, value) in [("raw", json!(true)), ("suffix", json!("}")), ("context", json!([1]))] {
            let mut body = body.clone();
            body[member] = value;
            let error = written(Dialect::Ollama, Target::new(Dialect::Chat, "m"), &body).unwrap_err();
            assert!(matches!(&error, Error::Unsupported { field, .. } if field == member), "{error}");
        }
    }
}
