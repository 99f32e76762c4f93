//! Requests for AWS Bedrock's Converse and ConverseStream (bedrock-runtime 2023-09-30; the model is in the path).

use std::borrow::Cow;

use super::conversation::{Answered, Choice, Content, Conversation, Format, Media, Part, Settings, Source, Thinking};
use super::schema;
use crate::dialect::json;
use crate::dialect::pair::{Outgoing, Target};
use crate::dialect::write::{Array, Object, string};
use crate::dialect::{Dialect, Error, Facts};

/// Least tokens of thinking that Claude takes.
const THINKING_MIN_TOKENS: u64 = 1_024;
/// Longest id of a call.
const ID_MAX_BYTES: usize = 64;

/// What a model on Bedrock takes beside the members that all have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Claude,
    Nova,
    OpenAi,
    Other,
}

pub(super) fn write(mut said: Conversation<'_>, _: &Facts<'_>, to: &Target<'_>) -> Result<Outgoing, Error> {
    said.with_a_turn();
    let family = family(to.model);
    let thinking = thinking(&mut said, family);
    let settings = &said.settings;
    // Claude thinks at its own temperature.
    let claude_thinks = family == Family::Claude && thinking.is_some();
    let given = [
        (settings.seed.is_some(), "seed"),
        (settings.frequency_penalty.is_some(), "frequency_penalty"),
        (settings.presence_penalty.is_some(), "presence_penalty"),
        (settings.min_p.is_some(), "min_p"),
        (settings.top_k.is_some() && (family != Family::Claude || claude_thinks), "top_k"),
        (settings.temperature.is_some() && claude_thinks, "temperature"),
        (settings.top_p.is_some() && claude_thinks, "top_p"),
        (settings.user.is_some(), "user"),
        (said.parallel == Some(false) && family != Family::Claude, "parallel_tool_calls"),
        (matches!(settings.format, Format::Json), "response_format"),
    ];
    said.leave_out(&given);
    let mut body = Vec::with_capacity(1_024);
    {
        let mut request = Object::new(&mut body);
        if !said.system.is_empty() {
            let mut system = request.array("system");
            for part in &said.system {
                write_part(part, &mut system, family)?;
            }
        }
        {
            let mut messages = request.array("messages");
            for turn in &said.turns {
                let mut message = messages.object();
                message.text("role", if turn.model { "assistant" } else { "user" });
                let mut content = message.array("content");
                for part in &turn.parts {
                    write_part(part, &mut content, family)?;
                }
            }
        }
        write_inference(&said.settings, claude_thinks, &mut request);
        let left_out = write_tools(&said, family, &mut request);
        write_additional(&said, family, thinking.as_ref(), &mut request);
        if let Format::Schema { name, schema, .. } = &said.settings.format {
            let mut config = request.object("outputConfig");
            let mut format = config.object("textFormat");
            format.text("type", "json_schema");
            let mut structure = format.object("structure");
            let mut definition = structure.object("jsonSchema");
            definition.text("schema", &schema::text(*schema));
            definition.text("name", name.as_deref().unwrap_or("answer"));
        }
        if let Some(tier @ ("default" | "flex" | "priority")) = said.settings.service_tier.as_deref() {
            request.object("serviceTier").text("type", tier);
        }
        drop(request);
        said.left_out.extend(left_out.map(str::to_owned));
    }
    Ok(Outgoing { body: body.into(), left_out: said.left_out })
}

/// By the model's id, with or without a region, or an ARN of a profile.
fn family(model: &str) -> Family {
    if model.contains("anthropic") || model.contains("claude") {
        Family::Claude
    } else if model.contains("amazon.nova") {
        Family::Nova
    } else if model.contains("openai.") {
        Family::OpenAi
    } else {
        Family::Other
    }
}

fn unsupported(field: impl Into<String>, why: &'static str) -> Error {
    Error::Unsupported { field: field.into(), to: Dialect::Bedrock, why }
}

/// Whether the model shall think, as far as it can be asked to. Claude refuses to when it must call a tool, when it
/// has too few tokens, and when the call that it made before comes back without its thought.
fn thinking<'a>(said: &mut Conversation<'a>, family: Family) -> Option<Thinking<'a>> {
    let asked = said.settings.thinking.take()?;
    let possible = match family {
        Family::Claude => {
            let forced = matches!(said.choice, Some(Choice::Any | Choice::Named(_)));
            let most = said.settings.output_tokens_max.unwrap_or(u64::MAX);
            let lost = said.turns.iter().rev().find(|turn| turn.model).is_some_and(|turn| {
                let calls = turn.parts.iter().any(|part| matches!(part, Part::Call(_)));
                let thought = |part: &Part<'_>| matches!(part, Part::Redacted(_)) || part.claudes_signature().is_some();
                calls && !turn.parts.iter().any(thought)
            });
            !forced && !lost && most > THINKING_MIN_TOKENS
        }
        Family::Nova | Family::OpenAi => true,
        Family::Other => false,
    };
    if matches!(asked, Thinking::Off) {
        return None;
    }
    if !possible {
        said.left_out.push("thinking".to_owned());
        return None;
    }
    Some(asked)
}

fn write_part(part: &Part<'_>, content: &mut Array<'_>, family: Family) -> Result<(), Error> {
    match part {
        Part::Text { text, .. } => content.object().escaped("text", text),
        Part::Media(media) => write_media(media, content)?,
        // Without a signature the thought is not the model's own, and Claude refuses it.
        Part::Thought { text, .. } => {
            if let Some(signature) = part.claudes_signature() {
                let mut block = content.object();
                let mut reasoning = block.object("reasoningContent");
                let mut thought = reasoning.object("reasoningText");
                thought.escaped("text", text);
                thought.text("signature", signature);
            }
        }
        Part::Redacted(data) => content.object().object("reasoningContent").escaped("redactedContent", data),
        Part::Call(call) => {
            let mut block = content.object();
            let mut call_block = block.object("toolUse");
            call_block.text("toolUseId", &id(call.id.as_deref().unwrap_or_default()));
            call_block.text("name", &call.name);
            call_block.json("input", &call.arguments);
        }
        Part::Result(answered) => write_result(answered, content)?,
        Part::CachePoint(ttl) if matches!(family, Family::Claude | Family::Nova) => {
            let mut block = content.object();
            let mut point = block.object("cachePoint");
            point.text("type", "default");
            if let Some(ttl) = ttl {
                point.text("ttl", ttl);
            }
        }
        Part::CachePoint(_) => {}
    }
    Ok(())
}

/// An id that Bedrock takes, the same for a call and its result.
fn id(given: &str) -> Cow<'_, str> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'-');
    if !given.is_empty() && given.len() <= ID_MAX_BYTES && given.bytes().all(fits) {
        return Cow::Borrowed(given);
    }
    let kept: String = given.bytes().take(40).map(|byte| if fits(byte) { char::from(byte) } else { '_' }).collect();
    Cow::Owned(format!("{kept}-{:08x}", crc32fast::hash(given.as_bytes())))
}

fn write_media(media: &Media<'_>, content: &mut Array<'_>) -> Result<(), Error> {
    if let Some(format) = media.mime.strip_prefix("image/") {
        let format = match format {
            "jpg" => "jpeg",
            "png" | "jpeg" | "gif" | "webp" => format,
            _ => return Err(unsupported(&*media.field, "it takes pictures as PNG, JPEG, GIF or WebP")),
        };
        let mut block = content.object();
        let mut image = block.object("image");
        image.text("format", format);
        return write_source(media, &mut image);
    }
    let format = match (&*media.mime, &media.source) {
        (_, Source::Text(_)) | ("text/plain", _) => "txt",
        ("application/pdf", _) => "pdf",
        ("text/csv", _) => "csv",
        ("text/html", _) => "html",
        ("text/markdown", _) => "md",
        ("application/msword", _) => "doc",
        ("application/vnd.ms-excel", _) => "xls",
        ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", _) => "docx",
        ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", _) => "xlsx",
        _ => return Err(unsupported(&*media.field, "it takes pictures, PDF, text and office documents")),
    };
    let mut block = content.object();
    let mut document = block.object("document");
    document.text("format", format);
    // Letters, digits, single spaces, hyphens and brackets; the name of the file may be an instruction otherwise.
    let kept = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '(' | ')' | '[' | ']') { c } else { '-' };
    let name: String = media.name.as_deref().unwrap_or("document").chars().take(100).map(kept).collect();
    document.text("name", if name.is_empty() { "document" } else { &name });
    write_source(media, &mut document)
}

fn write_source(media: &Media<'_>, to: &mut Object<'_>) -> Result<(), Error> {
    let mut source = to.object("source");
    match &media.source {
        Source::Data(data) => source.text("bytes", data),
        Source::Text(text) => source.escaped("text", text),
        Source::Url(url) if url.starts_with("s3://") => source.object("s3Location").text("uri", url),
        Source::Url(_) => {
            return Err(unsupported(&*media.field, "it fetches nothing but s3:// locations; send the file as base64"));
        }
    }
    Ok(())
}

fn write_result(answered: &Answered<'_>, content: &mut Array<'_>) -> Result<(), Error> {
    let mut block = content.object();
    let mut result = block.object("toolResult");
    result.text("toolUseId", &id(answered.id.as_deref().unwrap_or_default()));
    {
        let mut said = result.array("content");
        match &answered.content {
            Content::Object(object) => said.object().raw("json", object),
            Content::Parts(parts) => {
                for part in parts {
                    match part {
                        Part::Text { text, .. } => said.object().escaped("text", text),
                        Part::Media(media) => write_media(media, &mut said)?,
                        _ => {}
                    }
                }
                if !parts.iter().any(|part| matches!(part, Part::Text { .. } | Part::Media(_))) {
                    said.object().text("text", " ");
                }
            }
        }
    }
    result.text("status", if answered.failed { "error" } else { "success" });
    Ok(())
}

fn write_inference(settings: &Settings<'_>, claude_thinks: bool, request: &mut Object<'_>) {
    let mut config = request.object("inferenceConfig");
    if let Some(most) = settings.output_tokens_max {
        config.number("maxTokens", most);
    }
    if !claude_thinks {
        config.raw_if("temperature", settings.temperature);
        config.raw_if("topP", settings.top_p);
    }
    if !settings.stop.is_empty() {
        let mut stop = config.array("stopSequences");
        settings.stop.iter().filter(|raw| json::inner(raw).is_some()).for_each(|raw| stop.raw(raw));
    }
}

/// Writes `toolConfig`, and says what of it could not be written.
fn write_tools(said: &Conversation<'_>, family: Family, request: &mut Object<'_>) -> Option<&'static str> {
    // Bedrock refuses calls in a conversation without tools, so those that were called are declared.
    let mut called: Vec<&str> = Vec::new();
    for part in said.turns.iter().flat_map(|turn| &turn.parts) {
        if let Part::Call(call) = part
            && !called.contains(&&*call.name)
        {
            called.push(&call.name);
        }
    }
    let forbidden = matches!(said.choice, Some(Choice::None));
    let declared = if forbidden && called.is_empty() { &[][..] } else { &said.tools[..] };
    called.retain(|name| !declared.iter().any(|tool| tool.name == *name));
    if declared.is_empty() && called.is_empty() {
        return None;
    }
    let mut config = request.object("toolConfig");
    {
        let mut tools = config.array("tools");
        for tool in declared {
            let mut one = tools.object();
            let mut spec = one.object("toolSpec");
            spec.text("name", &tool.name);
            if let Some(description) = tool.description {
                spec.escaped("description", description);
            }
            if let Some(strict) = tool.strict {
                spec.flag("strict", strict);
            }
            let mut input = spec.object("inputSchema");
            match tool.schema {
                Some(schema) => schema::write(schema, input.key("json")),
                None => input.json("json", ANY_ARGUMENTS),
            }
        }
        for name in called {
            let mut one = tools.object();
            let mut spec = one.object("toolSpec");
            spec.text("name", name);
            spec.object("inputSchema").json("json", ANY_ARGUMENTS);
        }
    }
    match &said.choice {
        // Then all of the choice is among the additional members: Bedrock takes it in one place.
        _ if one_at_a_time(said, family) => {}
        Some(Choice::Auto) => config.object("toolChoice").json("auto", "{}"),
        Some(Choice::Any) => config.object("toolChoice").json("any", "{}"),
        Some(Choice::Named(name)) => config.object("toolChoice").object("tool").text("name", name),
        // Only Claude can be forbidden to call what is declared, among the additional members.
        Some(Choice::None) if family != Family::Claude => return Some("tool_choice"),
        Some(Choice::None) | None => {}
    }
    None
}

/// Whether calls are wanted one at a time of a model that can be told so.
fn one_at_a_time(said: &Conversation<'_>, family: Family) -> bool {
    let called = matches!(said.choice, None | Some(Choice::Auto | Choice::Any | Choice::Named(_)));
    family == Family::Claude && said.parallel == Some(false) && !said.tools.is_empty() && called
}

const ANY_ARGUMENTS: &str = r#"{"type":"object","properties":{}}"#;

/// What only one family knows.
fn write_additional(
    said: &Conversation<'_>,
    family: Family,
    thinking: Option<&Thinking<'_>>,
    request: &mut Object<'_>,
) {
    let mut fields = Vec::new();
    {
        let mut to = Object::new(&mut fields);
        // What nobody here knows is what Bedrock has these members for.
        said.unknown.iter().for_each(|(name, raw)| to.raw(name, raw));
        match (family, thinking) {
            (Family::Claude, Some(Thinking::Adaptive)) => to.object("thinking").text("type", "adaptive"),
            (Family::Claude, Some(thinking)) => {
                let most = said.settings.output_tokens_max.unwrap_or(u64::MAX);
                // Thinking counts against the limit; half of it is left for the answer.
                let tokens = thinking.tokens().unwrap_or_default().min((most / 2).max(THINKING_MIN_TOKENS));
                let mut of = to.object("thinking");
                of.text("type", "enabled");
                of.number("budget_tokens", tokens.max(THINKING_MIN_TOKENS));
            }
            (Family::Nova, Some(thinking)) => {
                let mut of = to.object("reasoningConfig");
                of.text("type", "enabled");
                let effort = match thinking.effort() {
                    Some(effort @ ("low" | "medium" | "high")) => effort,
                    Some("minimal") => "low",
                    _ => "medium",
                };
                of.text("maxReasoningEffort", effort);
            }
            (Family::OpenAi, Some(thinking)) => {
                if let Some(effort) = thinking.effort() {
                    string(to.key("reasoning_effort"), effort);
                }
            }
            _ => {}
        }
        if family == Family::Claude {
            if thinking.is_none() {
                to.raw_if("top_k", said.settings.top_k);
            }
            let declared = !said.tools.is_empty();
            if matches!(said.choice, Some(Choice::None)) && declared {
                to.object("tool_choice").text("type", "none");
            } else if one_at_a_time(said, family) {
                let mut choice = to.object("tool_choice");
                match &said.choice {
                    Some(Choice::Any) => choice.text("type", "any"),
                    Some(Choice::Named(name)) => {
                        choice.text("type", "tool");
                        choice.text("name", name);
                    }
                    _ => choice.text("type", "auto"),
                }
                choice.flag("disable_parallel_tool_use", true);
            }
        }
    }
    if fields != b"{}" {
        request.key("additionalModelRequestFields").extend_from_slice(&fields);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dialect::talk::tests::{conversation, written};

    #[test]
    fn ids_that_bedrock_refuses_are_replaced_alike_everywhere() {
        assert_eq!(id("tooluse_1.a:b-c"), "tooluse_1.a:b-c");
        for odd in ["", "a b", "é", &"x".repeat(65)] {
            let made = id(odd).into_owned();
            assert!(made.len() <= ID_MAX_BYTES && made.is_ascii() && !made.contains(' '), "{made}");
            assert_eq!(made, id(odd));
        }
        assert_ne!(id(&"x".repeat(65)), id(&"x".repeat(66)));
    }

    const CLAUDE: &str = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";

    fn sent(from: Dialect, model: &str, body: &serde_json::Value) -> (serde_json::Value, Vec<String>) {
        written(from, Target::new(Dialect::Bedrock, model), body).unwrap()
    }

    #[test]
    fn an_agents_turns_become_blocks() {
        let (body, left_out) = sent(Dialect::Chat, CLAUDE, &conversation(Dialect::Chat));
        let schema = json!({"type": "object", "properties": {"line": {"type": "integer"}}, "required": ["line"]});
        assert_eq!(
            body,
            json!({
                "system": [{"text": "Be brief."}],
                "messages": [
                    {"role": "user", "content": [
                        {"text": "What is \"this\"?\n"},
                        {"image": {"format": "png", "source": {"bytes": "iVBORw0KGgo="}}}]},
                    {"role": "assistant", "content": [{"toolUse": {"toolUseId": "call_1", "name": "look", "input": {"line": 4}}}]},
                    {"role": "user", "content": [
                        {"toolResult": {"toolUseId": "call_1", "content": [{"text": "hot"}], "status": "success"}},
                        {"text": "Well?"}]}],
                "inferenceConfig": {"maxTokens": 500, "temperature": 0.2, "stopSequences": ["END"]},
                "toolConfig": {
                    "tools": [{"toolSpec": {"name": "look", "description": "Looks.", "inputSchema": {"json": schema}}}],
                    "toolChoice": {"auto": {}}}})
        );
        assert!(left_out.is_empty());
    }

    #[test]
    fn cache_marks_thoughts_and_documents_of_anthropics_callers_arrive() {
        let mut body = conversation(Dialect::Anthropic);
        body["system"] =
            json!([{"type": "text", "text": "Long.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]);
        body["messages"][1]["content"] = json!([
            {"type": "thinking", "thinking": "hm", "signature": "sig"},
            {"type": "redacted_thinking", "data": "AAA"},
            {"type": "tool_use", "id": "call_1", "name": "look", "input": {}}]);
        body["messages"][2]["content"][1] = json!({"type": "document", "title": "a b/c.pdf",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}});
        body["max_tokens"] = json!(20_000);
        body["thinking"] = json!({"type": "enabled", "budget_tokens": 4_000});
        let (sent_body, left_out) = sent(Dialect::Anthropic, CLAUDE, &body);
        assert_eq!(sent_body["system"][1], json!({"cachePoint": {"type": "default", "ttl": "1h"}}));
        let blocks = &sent_body["messages"][1]["content"];
        assert_eq!(blocks[0], json!({"reasoningContent": {"reasoningText": {"text": "hm", "signature": "sig"}}}));
        assert_eq!(blocks[1], json!({"reasoningContent": {"redactedContent": "AAA"}}));
        assert_eq!(
            sent_body["messages"][2]["content"][1]["document"],
            json!({"format": "pdf", "name": "a-b-c-pdf", "source": {"bytes": "JVBE"}})
        );
        let thinking = json!({"type": "enabled", "budget_tokens": 4_000});
        assert_eq!(sent_body["additionalModelRequestFields"]["thinking"], thinking);
        assert!(sent_body["inferenceConfig"].get("temperature").is_none());
        assert_eq!(left_out, ["temperature"]);
        // Another house's model has no marks.
        let (sent_body, _) = sent(Dialect::Anthropic, "meta.llama3-70b-instruct-v1:0", &body);
        assert_eq!(sent_body["system"], json!([{"text": "Long."}]));
    }

    #[test]
    fn claude_is_not_asked_to_think_where_it_would_refuse() {
        let mut body = conversation(Dialect::Chat);
        body["reasoning_effort"] = json!("high");
        let (sent_body, left_out) = sent(Dialect::Chat, CLAUDE, &body);
        assert!(sent_body.get("additionalModelRequestFields").is_none(), "its call came back without the thought");
        assert_eq!(left_out, ["thinking"]);
        body["messages"] = json!([{"role": "user", "content": "Hello"}]);
        body["max_tokens"] = json!(3_000);
        let (sent_body, _) = sent(Dialect::Chat, CLAUDE, &body);
        assert_eq!(
            sent_body["additionalModelRequestFields"]["thinking"]["budget_tokens"], 1_500,
            "half is for the answer"
        );
        let (nova, _) = sent(Dialect::Chat, "eu.amazon.nova-2-lite-v1:0", &body);
        let effort = json!({"type": "enabled", "maxReasoningEffort": "high"});
        assert_eq!(nova["additionalModelRequestFields"]["reasoningConfig"], effort);
        let (oss, _) = sent(Dialect::Chat, "openai.gpt-oss-120b-1:0", &body);
        assert_eq!(oss["additionalModelRequestFields"]["reasoning_effort"], "high");
    }

    #[test]
    fn calls_without_declared_tools_are_declared() {
        let mut body = conversation(Dialect::Chat);
        body.as_object_mut().unwrap().remove("tools");
        body.as_object_mut().unwrap().remove("tool_choice");
        let (sent_body, _) = sent(Dialect::Chat, CLAUDE, &body);
        assert_eq!(sent_body["toolConfig"]["tools"][0]["toolSpec"]["name"], "look");
        let mut body = conversation(Dialect::Chat);
        body["tool_choice"] = json!("none");
        let (sent_body, _) = sent(Dialect::Chat, CLAUDE, &body);
        assert_eq!(sent_body["additionalModelRequestFields"]["tool_choice"], json!({"type": "none"}));
        assert_eq!(sent(Dialect::Chat, "amazon.nova-lite-v1:0", &body).1, ["tool_choice"]);
    }

    #[test]
    fn calls_one_at_a_time_are_asked_for_in_one_place() {
        let mut body = conversation(Dialect::Chat);
        body["parallel_tool_calls"] = json!(false);
        let (sent_body, left_out) = sent(Dialect::Chat, CLAUDE, &body);
        let choice = json!({"type": "auto", "disable_parallel_tool_use": true});
        assert_eq!(sent_body["additionalModelRequestFields"]["tool_choice"], choice);
        assert!(sent_body["toolConfig"].get("toolChoice").is_none() && left_out.is_empty());
        let (sent_body, left_out) = sent(Dialect::Chat, "amazon.nova-lite-v1:0", &body);
        assert_eq!(sent_body["toolConfig"]["toolChoice"], json!({"auto": {}}));
        assert_eq!(left_out, ["parallel_tool_calls"]);
    }

    #[test]
    fn the_form_of_an_answer_and_its_tier_are_said_in_bedrocks_words() {
        let mut body = conversation(Dialect::Chat);
        body["response_format"] =
            json!({"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}});
        body["service_tier"] = json!("flex");
        let (sent_body, _) = sent(Dialect::Chat, CLAUDE, &body);
        let format = json!({"type": "json_schema", "structure": {"jsonSchema": {"schema": "{\"type\":\"object\"}", "name": "n"}}});
        assert_eq!(sent_body["outputConfig"]["textFormat"], format);
        assert_eq!(sent_body["serviceTier"], json!({"type": "flex"}));
        body["messages"][1]["content"][1]["image_url"]["url"] = json!("data:image/tiff;base64,AAAA");
        let error = written(Dialect::Chat, Target::new(Dialect::Bedrock, CLAUDE), &body).unwrap_err();
        assert!(error.to_string().contains("PNG"), "{error}");
    }
}
