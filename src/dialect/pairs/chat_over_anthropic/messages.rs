//! The messages of a request.

use crate::dialect::anthropic::{Conversation, Turns, write_source};
use crate::dialect::json::{self, Members, Raw, Sort, sort};
use crate::dialect::pairs::remarks::{LeftOut, anthropic_id, arguments_as_object, refused};
use crate::dialect::write::{Array, Object};
use crate::dialect::{Dialect, Error};

const TO: Dialect = Dialect::Anthropic;

pub(super) fn messages(raw: Raw<'_>, left: &mut LeftOut) -> Result<Conversation, Error> {
    let mut system = Vec::new();
    let mut turns = Turns::new();
    let mut has_unsigned_calls = false;
    {
        let mut system = Array::new(&mut system);
        for (at, message) in json::elements(raw, "messages")?.into_iter().enumerate() {
            let path = format!("messages[{at}]");
            let message = Members::of(message, &path)?;
            let role = message.text("role").ok_or_else(|| Error::field(format!("{path}.role"), "must be there"))?;
            let content = message.get("content");
            let cache = message.get("cache_control");
            if message.get("name").is_some() && role != "tool" {
                left.add("messages[].name");
            }
            match role.as_ref() {
                // Anthropic has one place for instructions, before everything else.
                "system" | "developer" => {
                    for (text, cache) in texts(content, &path, cache)? {
                        text_block(system.element(), text, cache);
                    }
                }
                "user" => user(content, &path, cache, &mut turns)?,
                "assistant" => {
                    let signed = assistant(&message, &path, &mut turns)?;
                    has_unsigned_calls |= message.get("tool_calls").is_some() && !signed;
                }
                "tool" => tool(&message, &path, &mut turns)?,
                "function" => return Err(refused(path, TO, "use the role `tool`")),
                _ => {
                    return Err(Error::field(
                        format!("{path}.role"),
                        "must be system, developer, user, assistant or tool",
                    ));
                }
            }
        }
    }
    let system = String::from_utf8(system).expect("JSON is written from text only");
    Ok(Conversation { system: (system != "[]").then_some(system), messages: turns.end(), has_unsigned_calls })
}

/// The texts of a content, a string or parts, each with its `cache_control`. Anthropic refuses empty ones.
fn texts<'a>(
    content: Option<Raw<'a>>,
    path: &str,
    cache: Option<Raw<'a>>,
) -> Result<Vec<(Raw<'a>, Option<Raw<'a>>)>, Error> {
    let mut found = Vec::new();
    match content {
        None => {}
        Some(text) if sort(text) == Sort::Text => found.push((text, cache)),
        Some(parts) => {
            for (at, part) in json::elements(parts, &format!("{path}.content"))?.into_iter().enumerate() {
                let field = format!("{path}.content[{at}]");
                let part = Members::of(part, &field)?;
                let text = part.get("text").or_else(|| part.get("refusal")).filter(|text| sort(text) == Sort::Text);
                let text = text.ok_or_else(|| Error::field(field, "must be a part with text"))?;
                found.push((text, part.get("cache_control")));
            }
        }
    }
    found.retain(|(text, _)| json::says_something(text));
    Ok(found)
}

fn text_block(out: &mut Vec<u8>, text: Raw<'_>, cache: Option<Raw<'_>>) {
    let mut block = Object::new(out);
    block.text("type", "text");
    block.raw("text", text);
    block.raw_if("cache_control", cache);
}

fn user(content: Option<Raw<'_>>, path: &str, cache: Option<Raw<'_>>, turns: &mut Turns) -> Result<(), Error> {
    let Some(parts) = content.filter(|content| sort(content) == Sort::Array) else {
        for (text, cache) in texts(content, path, cache)? {
            text_block(turns.block("user"), text, cache);
        }
        return Ok(());
    };
    for (at, raw) in json::elements(parts, &format!("{path}.content"))?.into_iter().enumerate() {
        let field = format!("{path}.content[{at}]");
        let part = Members::of(raw, &field)?;
        let cache = part.get("cache_control");
        match part.text("type").as_deref() {
            Some("text") => {
                let text = part.get("text").filter(|text| sort(text) == Sort::Text);
                let text = text.ok_or_else(|| Error::field(format!("{field}.text"), "must be a string"))?;
                if json::says_something(text) {
                    text_block(turns.block("user"), text, cache);
                }
            }
            Some("image_url") => image(&part, &field, cache, turns.block("user"))?,
            Some("file") => file(&part, &field, cache, turns.block("user"))?,
            Some("input_audio") => return Err(refused(field, TO, "it does not listen")),
            Some(_) => turns.block("user").extend_from_slice(raw.get().as_bytes()),
            None => return Err(Error::field(format!("{field}.type"), "must be there")),
        }
    }
    Ok(())
}

fn image(part: &Members<'_>, field: &str, cache: Option<Raw<'_>>, out: &mut Vec<u8>) -> Result<(), Error> {
    let place = part.get("image_url").map(|raw| match sort(raw) {
        Sort::Object => Members::lenient(raw).text("url"),
        _ => json::text(raw),
    });
    let url = place.flatten().ok_or_else(|| Error::field(format!("{field}.image_url.url"), "must be a string"))?;
    let mut block = Object::new(out);
    block.text("type", "image");
    write_source(&mut block, &url, &format!("{field}.image_url.url"))?;
    block.raw_if("cache_control", cache);
    Ok(())
}

fn file(part: &Members<'_>, field: &str, cache: Option<Raw<'_>>, out: &mut Vec<u8>) -> Result<(), Error> {
    let file = part.get("file").map(Members::lenient).unwrap_or_default();
    let data = file.text("file_data").ok_or_else(|| {
        refused(format!("{field}.file"), TO, "files of OpenAI's store are not there; send `file_data`")
    })?;
    let mut block = Object::new(out);
    block.text("type", "document");
    write_source(&mut block, &data, &format!("{field}.file.file_data"))?;
    block.raw_if("title", file.get("filename"));
    block.raw_if("cache_control", cache);
    Ok(())
}

/// Gives whether signed thinking stands before the calls.
fn assistant(message: &Members<'_>, path: &str, turns: &mut Turns) -> Result<bool, Error> {
    let mut signed = false;
    for thought in message.get("thinking_blocks").map(json::lenient_elements).unwrap_or_default() {
        signed = true;
        turns.block("assistant").extend_from_slice(thought.get().as_bytes());
    }
    let said = texts(message.get("content"), path, message.get("cache_control"))?;
    let refusal = message.get("refusal").filter(|refusal| said.is_empty() && json::says_something(refusal));
    for (text, cache) in said.into_iter().chain(refusal.map(|refusal| (refusal, None))) {
        text_block(turns.block("assistant"), text, cache);
    }
    if message.get("function_call").is_some() {
        return Err(refused(format!("{path}.function_call"), TO, "use `tool_calls`"));
    }
    let Some(calls) = message.get("tool_calls") else { return Ok(signed) };
    for (at, call) in json::elements(calls, &format!("{path}.tool_calls"))?.into_iter().enumerate() {
        let field = format!("{path}.tool_calls[{at}]");
        let call = Members::of(call, &field)?;
        let id = call.text("id").ok_or_else(|| Error::field(format!("{field}.id"), "must be there"))?;
        let function = call.get("function").map(Members::lenient).unwrap_or_default();
        let name =
            function.get("name").ok_or_else(|| Error::field(format!("{field}.function.name"), "must be there"))?;
        let mut block = Object::new(turns.block("assistant"));
        block.text("type", "tool_use");
        block.text("id", &anthropic_id(&id));
        block.raw("name", name);
        match function.get("arguments") {
            Some(arguments) => arguments_as_object(block.key("input"), arguments),
            None => block.json("input", "{}"),
        }
    }
    Ok(signed)
}

fn tool(message: &Members<'_>, path: &str, turns: &mut Turns) -> Result<(), Error> {
    let id = message.text("tool_call_id");
    let id = id.ok_or_else(|| Error::field(format!("{path}.tool_call_id"), "must be there"))?;
    let mut block = Object::new(turns.block("user"));
    block.text("type", "tool_result");
    block.text("tool_use_id", &anthropic_id(&id));
    let said = texts(message.get("content"), path, None)?;
    if !said.is_empty() {
        let mut list = block.array("content");
        for (text, cache) in said {
            text_block(list.element(), text, cache);
        }
    }
    block.raw_if("cache_control", message.get("cache_control"));
    Ok(())
}
