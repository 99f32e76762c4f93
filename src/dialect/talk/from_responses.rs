//! OpenAI's responses, read.

use std::borrow::Cow;

use super::conversation::{
    Answered, Call, Choice, Content, Conversation, Format, Media, Part, Schema, Settings, Source, Thinking, Tool,
};
use super::from_chat::of_url;
use crate::dialect::json::{self, Members, Raw, Sort, sort};
use crate::dialect::pairs::INVALID_ARGUMENTS;
use crate::dialect::{Dialect, Error, responses};

/// Members that only advise, or that are about what OpenAI keeps.
const ADVICE: [&str; 10] = [
    "metadata",
    "max_tool_calls",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "context_management",
    "moderation",
    "access_programs",
    "truncation",
];

/// Members that are read, or that say nothing to another dialect.
const KNOWN: [&str; 18] = [
    "model",
    "input",
    "instructions",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "max_output_tokens",
    "temperature",
    "top_p",
    "text",
    "reasoning",
    "user",
    "service_tier",
    "stream",
    "stream_options",
    "background",
    "store",
    "include",
];

pub(super) fn read(body: &[u8], to: Dialect) -> Result<Conversation<'_>, Error> {
    let request = Members::parse(body).map_err(|error| Error::request(&error))?;
    responses::refuse_state(&request, to)?;
    let mut said = Conversation::default();
    if let Some(text) = request.get("instructions") {
        let text = json::inner(text).ok_or_else(|| Error::field("instructions", "must be a text"))?;
        said.system.push(Part::Text { text, signature: None });
    }
    let input = request.get("input").ok_or(Error::Missing { field: "input" })?;
    match json::inner(input) {
        Some(text) => said.say(false, Part::Text { text, signature: None }),
        None => {
            for (at, item) in json::elements(input, "input")?.into_iter().enumerate() {
                read_item(&mut said, &Members::of(item, "input")?, &format!("input[{at}]"))?;
            }
        }
    }
    for (at, tool) in
        request.get("tools").map(|raw| json::elements(raw, "tools")).transpose()?.into_iter().flatten().enumerate()
    {
        let tool = responses::function(tool, &format!("tools[{at}]"), to)?;
        said.tools.push(Tool {
            name: tool.text("name").ok_or_else(|| Error::field(format!("tools[{at}].name"), "must be a name"))?,
            description: tool.get("description").and_then(json::inner).filter(|text| !text.is_empty()),
            schema: tool.get("parameters").map(Schema::Json),
            // On unless it is said, and others know of none.
            strict: tool.get("strict").and_then(json::flag),
        });
    }
    said.choice = request.get("tool_choice").map(read_choice).transpose()?;
    said.parallel = request.get("parallel_tool_calls").and_then(json::flag);
    said.settings = settings(&request)?;
    for name in ADVICE.iter().filter(|name| request.get(name).is_some_and(|raw| raw.get() != "{}")) {
        said.left_out.push((*name).to_owned());
    }
    said.pass_through(&request, &[&KNOWN[..], &ADVICE].concat());
    Ok(said)
}

fn read_item<'a>(said: &mut Conversation<'a>, item: &Members<'a>, here: &str) -> Result<(), Error> {
    let field = |name: &str| format!("{here}.{name}");
    match item.text("type").as_deref() {
        None | Some("message") => {
            let content = item.get("content").ok_or_else(|| Error::field(field("content"), "must be there"))?;
            let content_field = field("content");
            match item.text("role").as_deref() {
                Some("system" | "developer") => {
                    let mut parts = Vec::new();
                    read_content(content, &content_field, &mut |part| parts.push(part))?;
                    said.system.append(&mut parts);
                }
                Some("user") => read_content(content, &content_field, &mut |part| said.say(false, part))?,
                Some("assistant") => read_content(content, &content_field, &mut |part| said.say(true, part))?,
                _ => return Err(Error::field(field("role"), "must be user, assistant, system or developer")),
            }
        }
        Some("function_call") => {
            let name = item.text("name").ok_or_else(|| Error::field(field("name"), "must be a name"))?;
            let arguments = match item.get("arguments") {
                None => Cow::Borrowed("{}"),
                Some(raw) => {
                    let text = json::text(raw).ok_or_else(|| Error::field(field("arguments"), "must be a text"))?;
                    match text.trim() {
                        "" => Cow::Borrowed("{}"),
                        _ if Members::parse(text.as_bytes()).is_ok() => text,
                        // A model wrote it, and the conversation shall go on.
                        _ => Cow::Owned(format!("{{\"{INVALID_ARGUMENTS}\":{}}}", raw.get())),
                    }
                }
            };
            said.say(true, Part::Call(Call { id: item.text("call_id"), name, arguments, signature: None }));
        }
        Some("function_call_output") => {
            let mut parts = Vec::new();
            if let Some(output) = item.get("output") {
                read_content(output, &field("output"), &mut |part| parts.push(part))?;
            }
            said.say(
                false,
                Part::Result(Answered {
                    id: item.text("call_id"),
                    name: None,
                    content: Content::Parts(parts),
                    failed: false,
                    field: field("call_id"),
                }),
            );
        }
        Some("reasoning") => {
            let signature = item.text("encrypted_content").filter(|signature| !signature.is_empty());
            let summary = item.get("summary").map(json::lenient_elements).unwrap_or_default();
            let text = summary.first().and_then(|part| Members::lenient(part).get("text")).and_then(json::inner);
            match (text, signature, item.get("encrypted_content").and_then(json::inner)) {
                // Nobody can read it but its provider, and this gateway's own mark is no such thing.
                (None, Some(signature), Some(data)) if !signature.starts_with(super::SIGNATURE_MARK) => {
                    said.say(true, Part::Redacted(data));
                }
                (text, signature, _) => {
                    said.say(true, Part::Thought { text: Cow::Borrowed(text.unwrap_or_default()), signature });
                }
            }
        }
        _ => {
            return Err(Error::field(
                field("type"),
                "must be message, function_call, function_call_output or reasoning",
            ));
        }
    }
    Ok(())
}

fn read_content<'a>(raw: Raw<'a>, field: &str, say: &mut dyn FnMut(Part<'a>)) -> Result<(), Error> {
    if let Some(text) = json::inner(raw) {
        if !text.is_empty() {
            say(Part::Text { text, signature: None });
        }
        return Ok(());
    }
    for (at, part) in json::elements(raw, field)?.into_iter().enumerate() {
        let here = format!("{field}[{at}]");
        let part = Members::of(part, &here)?;
        match part.text("type").as_deref() {
            Some("input_text" | "output_text" | "text" | "refusal") => {
                let text = part.get("text").or_else(|| part.get("refusal")).and_then(json::inner);
                let text = text.ok_or_else(|| Error::field(here + ".text", "must be a text"))?;
                if !text.is_empty() {
                    say(Part::Text { text, signature: None });
                }
            }
            Some("input_image") => {
                let why = "must be a URL: ids of uploads are not translated";
                let url = part.text("image_url").ok_or_else(|| Error::field(format!("{here}.image_url"), why))?;
                say(Part::Media(of_url(url, "image/jpeg", None, here)?));
            }
            Some("input_file") => {
                let why = "must have file_data or file_url: ids of uploads are not translated";
                let url = part.text("file_data").or_else(|| part.text("file_url"));
                let url = url.ok_or_else(|| Error::field(&*here, why))?;
                say(Part::Media(of_url(url, "application/pdf", part.text("filename"), here)?));
            }
            Some("input_audio") => {
                let audio = part.get("input_audio").map(Members::lenient).unwrap_or_default();
                let data = audio
                    .text("data")
                    .ok_or_else(|| Error::field(format!("{here}.input_audio.data"), "must be base64"))?;
                let mime = if audio.text("format").as_deref() == Some("mp3") { "audio/mpeg" } else { "audio/wav" };
                say(Part::Media(Media { mime: mime.into(), source: Source::Data(data), name: None, field: here }));
            }
            _ => {
                return Err(Error::field(here + ".type", "must be input_text, input_image, input_file or output_text"));
            }
        }
    }
    Ok(())
}

fn read_choice(raw: Raw<'_>) -> Result<Choice<'_>, Error> {
    let wrong = || Error::field("tool_choice", "must be auto, none, required or one function");
    if sort(raw) == Sort::Object {
        return Members::lenient(raw).text("name").map(Choice::Named).ok_or_else(wrong);
    }
    match json::text(raw).as_deref() {
        Some("auto") => Ok(Choice::Auto),
        Some("none") => Ok(Choice::None),
        Some("required") => Ok(Choice::Any),
        _ => Err(wrong()),
    }
}

fn settings<'a>(request: &Members<'a>) -> Result<Settings<'a>, Error> {
    let format = match responses::format(request) {
        None => Format::Text,
        Some(format) => match (format.text("type").as_deref(), format.get("schema")) {
            (Some("json_schema"), Some(schema)) => Format::Schema {
                name: format.text("name"),
                schema: Schema::Json(schema),
                strict: format.get("strict").and_then(json::flag),
            },
            (Some("json_schema"), None) => return Err(Error::Missing { field: "text.format.schema" }),
            _ => Format::Json,
        },
    };
    let thinking = responses::effort(request).map(|effort| match &*effort {
        "none" => Thinking::Off,
        _ => Thinking::Effort(effort),
    });
    Ok(Settings {
        output_tokens_max: request.get("max_output_tokens").and_then(json::whole),
        temperature: request.get("temperature"),
        top_p: request.get("top_p"),
        format,
        thinking,
        user: request.text("user"),
        service_tier: request.text("service_tier"),
        ..Settings::default()
    })
}
