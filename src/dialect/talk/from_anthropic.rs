//! Anthropic's messages, read.

use std::borrow::Cow;

use super::conversation::{
    Answered, Call, Choice, Content, Conversation, Format, Media, Part, Schema, Settings, Source, Thinking, Tool,
};
use crate::dialect::Error;
use crate::dialect::json::{self, Members, Raw, Sort, sort};

/// Members that are read, or that say nothing to another dialect.
const KNOWN: [&str; 20] = [
    "model",
    "system",
    "messages",
    "tools",
    "tool_choice",
    "mcp_servers",
    "container",
    "context_management",
    "stop_sequences",
    "output_config",
    "output_format",
    "thinking",
    "metadata",
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "service_tier",
    "stream",
    "cache_control",
];

pub(super) fn read(body: &[u8]) -> Result<Conversation<'_>, Error> {
    let request = Members::parse(body).map_err(|error| Error::request(&error))?;
    let mut said = Conversation::default();
    if let Some(system) = request.get("system") {
        let mut parts = Vec::new();
        read_content(system, "system", &mut |part| parts.push(part))?;
        said.system = parts;
    }
    let messages = request.get("messages").ok_or(Error::Missing { field: "messages" })?;
    for (at, message) in json::elements(messages, "messages")?.into_iter().enumerate() {
        let message = Members::of(message, "messages")?;
        let field = format!("messages[{at}].content");
        let content = message.get("content").ok_or_else(|| Error::field(&*field, "must be there"))?;
        match message.text("role").as_deref() {
            Some("user") => read_content(content, &field, &mut |part| said.say(false, part))?,
            Some("assistant") => read_content(content, &field, &mut |part| said.say(true, part))?,
            Some("system") => {
                let mut parts = Vec::new();
                read_content(content, &field, &mut |part| parts.push(part))?;
                said.system.append(&mut parts);
            }
            _ => return Err(Error::field(format!("messages[{at}].role"), "must be user or assistant")),
        }
    }
    if let Some(tools) = request.get("tools") {
        for (at, tool) in json::elements(tools, "tools")?.into_iter().enumerate() {
            said.tools.push(read_tool(tool, at)?);
        }
    }
    if let Some(choice) = request.get("tool_choice") {
        let choice = Members::of(choice, "tool_choice")?;
        said.choice = Some(match choice.text("type").as_deref() {
            Some("auto") => Choice::Auto,
            Some("any") => Choice::Any,
            Some("none") => Choice::None,
            Some("tool") => Choice::Named(choice.text("name").ok_or(Error::Missing { field: "tool_choice.name" })?),
            _ => return Err(Error::field("tool_choice.type", "must be auto, any, tool or none")),
        });
        said.parallel = choice.get("disable_parallel_tool_use").and_then(json::flag).map(|off| !off);
    }
    said.settings = settings(&request)?;
    for name in ["mcp_servers", "container"] {
        if request.get(name).is_some_and(|raw| !matches!(raw.get(), "[]")) {
            said.impossible.push((name, "it is run by Anthropic's servers"));
        }
    }
    if request.get("context_management").is_some() {
        said.left_out.push("context_management".to_owned());
    }
    said.pass_through(&request, &KNOWN);
    Ok(said)
}

fn read_content<'a>(raw: Raw<'a>, field: &str, say: &mut dyn FnMut(Part<'a>)) -> Result<(), Error> {
    if let Some(text) = json::inner(raw) {
        if !text.is_empty() {
            say(Part::Text { text, signature: None });
        }
        return Ok(());
    }
    for (at, block) in json::elements(raw, field)?.into_iter().enumerate() {
        let here = format!("{field}[{at}]");
        let block = Members::of(block, &here)?;
        let cached = block.get("cache_control").map(|raw| Members::lenient(raw).text("ttl"));
        read_block(&block, here, say)?;
        if let Some(ttl) = cached {
            say(Part::CachePoint(ttl));
        }
    }
    Ok(())
}

fn read_block<'a>(block: &Members<'a>, here: String, say: &mut dyn FnMut(Part<'a>)) -> Result<(), Error> {
    let kind = block.text("type").unwrap_or_default();
    let text_of = |name: &str| {
        block.get(name).and_then(json::inner).ok_or_else(|| Error::field(format!("{here}.{name}"), "must be a text"))
    };
    match &*kind {
        "text" => {
            let text = text_of("text")?;
            if !text.is_empty() {
                say(Part::Text { text, signature: None });
            }
        }
        "thinking" => {
            let signature = block.text("signature").filter(|signature| !signature.is_empty());
            say(Part::Thought { text: Cow::Borrowed(text_of("thinking")?), signature });
        }
        "redacted_thinking" => say(Part::Redacted(text_of("data")?)),
        "image" => say(Part::Media(read_media(block, "image/jpeg", here)?)),
        "document" => say(Part::Media(read_media(block, "application/pdf", here)?)),
        "tool_use" => {
            let name = block.text("name").ok_or_else(|| Error::field(format!("{here}.name"), "must be a name"))?;
            let arguments = match block.get("input") {
                Some(input) if sort(input) == Sort::Object => Cow::Borrowed(input.get()),
                None => Cow::Borrowed("{}"),
                Some(_) => return Err(Error::field(here + ".input", "must be an object")),
            };
            say(Part::Call(Call { id: block.text("id"), name, arguments, signature: None }));
        }
        "tool_result" => {
            let mut parts = Vec::new();
            if let Some(content) = block.get("content") {
                read_content(content, &format!("{here}.content"), &mut |part| parts.push(part))?;
            }
            say(Part::Result(Answered {
                id: block.text("tool_use_id"),
                name: None,
                content: Content::Parts(parts),
                failed: block.get("is_error").and_then(json::flag).unwrap_or(false),
                field: here + ".tool_use_id",
            }));
        }
        _ => {
            let expected = "must be text, image, document, thinking, redacted_thinking, tool_use or tool_result: \
                            tools of Anthropic's servers are not translated";
            return Err(Error::field(here + ".type", expected));
        }
    }
    Ok(())
}

fn read_media<'a>(block: &Members<'a>, otherwise: &'static str, field: String) -> Result<Media<'a>, Error> {
    let source = block.get("source").ok_or_else(|| Error::field(format!("{field}.source"), "must be there"))?;
    let source = Members::of(source, &field)?;
    let wrong = |expected| Error::field(format!("{field}.source"), expected);
    let mime = source.text("media_type").unwrap_or(Cow::Borrowed(otherwise));
    let source = match source.text("type").as_deref() {
        Some("base64") => Source::Data(source.text("data").ok_or_else(|| wrong("must have data in base64"))?),
        Some("url") => Source::Url(source.text("url").ok_or_else(|| wrong("must have a url"))?),
        Some("text") => {
            Source::Text(source.get("data").and_then(json::inner).ok_or_else(|| wrong("must have data, a text"))?)
        }
        _ => return Err(wrong("must be base64, url or text: ids of uploads are not translated")),
    };
    Ok(Media { mime, source, name: block.text("title"), field })
}

fn read_tool(raw: Raw<'_>, at: usize) -> Result<Tool<'_>, Error> {
    let tool = Members::of(raw, "tools")?;
    let field = |name: &str| format!("tools[{at}].{name}");
    if tool.text("type").is_some_and(|kind| kind != "custom") {
        return Err(Error::field(field("type"), "must be custom: tools of Anthropic's servers are not translated"));
    }
    Ok(Tool {
        name: tool.text("name").ok_or_else(|| Error::field(field("name"), "must be a name"))?,
        description: tool.get("description").and_then(json::inner).filter(|text| !text.is_empty()),
        schema: tool.get("input_schema").map(Schema::Json),
        strict: tool.get("strict").and_then(json::flag),
    })
}

fn settings<'a>(request: &Members<'a>) -> Result<Settings<'a>, Error> {
    let stop = request.get("stop_sequences").map(|raw| json::elements(raw, "stop_sequences")).transpose()?;
    let output = request.get("output_config").map(Members::lenient).unwrap_or_default();
    let format = output.get("format").or_else(|| request.get("output_format")).map(Members::lenient);
    let format = match format.and_then(|format| format.get("schema")) {
        Some(schema) => Format::Schema { name: None, schema: Schema::Json(schema), strict: Some(true) },
        None => Format::Text,
    };
    let thinking = request.get("thinking").map(Members::lenient);
    let thinking = thinking.and_then(|thinking| match thinking.text("type").as_deref() {
        Some("enabled") => thinking.get("budget_tokens").and_then(json::whole).map(Thinking::Tokens),
        Some("adaptive") => Some(output.text("effort").map_or(Thinking::Adaptive, Thinking::Effort)),
        Some("disabled") => Some(Thinking::Off),
        _ => None,
    });
    let metadata = request.get("metadata").map(Members::lenient).unwrap_or_default();
    Ok(Settings {
        output_tokens_max: request.get("max_tokens").and_then(json::whole),
        temperature: request.get("temperature"),
        top_p: request.get("top_p"),
        top_k: request.get("top_k"),
        stop: stop.unwrap_or_default(),
        format,
        thinking,
        user: metadata.text("user_id"),
        service_tier: request.text("service_tier").map(|tier| match &*tier {
            // Anthropic's words for the same: what was paid for ahead, or the ordinary one.
            "standard_only" => Cow::Borrowed("default"),
            _ => tier,
        }),
        ..Settings::default()
    })
}
