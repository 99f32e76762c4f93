//! The messages of a request.

use crate::dialect::json::{self, Members, Raw, Sort, sort};
use crate::dialect::pairs::remarks::{LeftOut, refused};
use crate::dialect::write::{self, Array, Object};
use crate::dialect::{Dialect, Error};

const TO: Dialect = Dialect::Chat;

/// Writes the system prompt and the conversation.
pub(super) fn messages(
    mut list: Array<'_>,
    system: Option<Raw<'_>>,
    raw: Raw<'_>,
    left: &mut LeftOut,
) -> Result<(), Error> {
    if let Some(system) = system {
        let text = joined(system, "system")?;
        if !text.is_empty() {
            let mut message = list.object();
            message.text("role", "system");
            message.escaped("content", &text);
        }
    }
    for (at, message) in json::elements(raw, "messages")?.into_iter().enumerate() {
        let path = format!("messages[{at}]");
        let message = Members::of(message, &path)?;
        let content = message.get("content");
        let content = content.ok_or_else(|| Error::field(format!("{path}.content"), "must be there"))?;
        match message.text("role").as_deref() {
            Some("user") => user(&mut list, content, &path, left)?,
            Some("assistant") => assistant(&mut list, content, &path, left)?,
            Some("system") => {
                let text = joined(content, &format!("{path}.content"))?;
                let mut message = list.object();
                message.text("role", "system");
                message.escaped("content", &text);
            }
            _ => return Err(Error::field(format!("{path}.role"), "must be user or assistant")),
        }
    }
    Ok(())
}

/// A string, or blocks of text one under the other, escaped.
fn joined(raw: Raw<'_>, field: &str) -> Result<String, Error> {
    if let Some(text) = json::inner(raw) {
        return Ok(text.to_owned());
    }
    let mut all = String::new();
    for (at, block) in json::elements(raw, field)?.into_iter().enumerate() {
        let block = Members::of(block, &format!("{field}[{at}]"))?;
        let text = block.get("text").and_then(json::inner);
        let text = text.ok_or_else(|| Error::field(format!("{field}[{at}]"), "must be a block of text"))?;
        if !all.is_empty() && !text.is_empty() {
            all.push_str("\\n");
        }
        all.push_str(text);
    }
    Ok(all)
}

/// A user's turn: first the results of tools, each a message of its own, then what the user says.
fn user(list: &mut Array<'_>, content: Raw<'_>, path: &str, left: &mut LeftOut) -> Result<(), Error> {
    if sort(content) == Sort::Text {
        let mut message = list.object();
        message.text("role", "user");
        message.raw("content", content);
        return Ok(());
    }
    let mut parts = Vec::new();
    let mut count = 0;
    let mut only_text = None;
    {
        let mut said = Array::new(&mut parts);
        for (at, block) in json::elements(content, &format!("{path}.content"))?.into_iter().enumerate() {
            let field = format!("{path}.content[{at}]");
            let block = Members::of(block, &field)?;
            if block.text("type").as_deref() == Some("tool_result") {
                count += result(list, &block, &field, &mut said, left)?;
                continue;
            }
            only_text = part(&mut said, &block, &field)?.filter(|_| count == 0);
            count += 1;
        }
    }
    if count > 0 {
        let mut message = list.object();
        message.text("role", "user");
        match only_text.filter(|_| count == 1) {
            // One text goes as a string: some servers know no parts.
            Some(text) => message.raw("content", text),
            None => message.json("content", &String::from_utf8(parts).expect("JSON is written from text only")),
        }
    }
    Ok(())
}

/// Writes one part; gives its text if it is one.
fn part<'a>(list: &mut Array<'_>, block: &Members<'a>, field: &str) -> Result<Option<Raw<'a>>, Error> {
    match block.text("type").as_deref() {
        Some("text") => {
            let text = block.get("text").filter(|text| sort(text) == Sort::Text);
            let text = text.ok_or_else(|| Error::field(format!("{field}.text"), "must be a string"))?;
            let mut part = list.object();
            part.text("type", "text");
            part.raw("text", text);
            return Ok(Some(text));
        }
        Some("image") => {
            let url = address(block, field)?;
            let mut part = list.object();
            part.text("type", "image_url");
            part.object("image_url").text("url", &url);
        }
        Some("document") => document(list, block, field)?,
        _ => return Err(refused(field, TO, "it takes text, image, document and tool_result")),
    }
    Ok(None)
}

/// The `source` of a picture or document as an address.
fn address(block: &Members<'_>, field: &str) -> Result<String, Error> {
    let source = block.get("source").map(Members::lenient).unwrap_or_default();
    match (source.text("type").as_deref(), source.text("media_type"), source.text("data"), source.text("url")) {
        (Some("base64"), Some(media_type), Some(data), _) => Ok(format!("data:{media_type};base64,{data}")),
        (Some("url"), _, _, Some(url)) => Ok(url.into_owned()),
        (Some("file"), ..) => Err(refused(format!("{field}.source"), TO, "files of Anthropic's store are not there")),
        _ => Err(Error::field(format!("{field}.source"), "must be base64 with media_type and data, or a url")),
    }
}

fn document(list: &mut Array<'_>, block: &Members<'_>, field: &str) -> Result<(), Error> {
    let source = block.get("source").map(Members::lenient).unwrap_or_default();
    match source.text("type").as_deref() {
        Some("text") => {
            let mut part = list.object();
            part.text("type", "text");
            part.raw_if("text", source.get("data"));
        }
        Some("base64") => {
            let data = address(block, field)?;
            let mut part = list.object();
            part.text("type", "file");
            let mut file = part.object("file");
            match block.get("title") {
                Some(title) => file.raw("filename", title),
                None => file.text("filename", "document.pdf"),
            }
            file.text("file_data", &data);
        }
        _ => return Err(refused(format!("{field}.source"), TO, "send the document itself, as base64 or text")),
    }
    Ok(())
}

/// The result of a tool. Chat's tools answer with text only, so pictures follow as the user's: gives how many.
fn result(
    list: &mut Array<'_>,
    block: &Members<'_>,
    field: &str,
    said: &mut Array<'_>,
    left: &mut LeftOut,
) -> Result<usize, Error> {
    let id = block.get("tool_use_id");
    let id = id.ok_or_else(|| Error::field(format!("{field}.tool_use_id"), "must be there"))?;
    if block.get("is_error").and_then(json::flag) == Some(true) {
        left.add("messages[].content[].is_error");
    }
    let mut text = String::new();
    let mut pictures = 0;
    match block.get("content") {
        None => {}
        Some(content) if sort(content) == Sort::Text => text.push_str(json::inner(content).unwrap_or_default()),
        Some(content) => {
            for (at, inside) in json::elements(content, &format!("{field}.content"))?.into_iter().enumerate() {
                let field = format!("{field}.content[{at}]");
                let inside = Members::of(inside, &field)?;
                if let Some(more) = inside.get("text").and_then(json::inner) {
                    if !text.is_empty() {
                        text.push_str("\\n");
                    }
                    text.push_str(more);
                } else {
                    part(said, &inside, &field)?;
                    pictures += 1;
                }
            }
        }
    }
    let mut message = list.object();
    message.text("role", "tool");
    message.raw("tool_call_id", id);
    message.escaped("content", &text);
    Ok(pictures)
}

fn assistant(list: &mut Array<'_>, content: Raw<'_>, path: &str, left: &mut LeftOut) -> Result<(), Error> {
    let mut message = list.object();
    message.text("role", "assistant");
    if sort(content) == Sort::Text {
        message.raw("content", content);
        return Ok(());
    }
    let mut text = String::new();
    let mut calls = Vec::new();
    let mut has_calls = false;
    {
        let mut calls = Array::new(&mut calls);
        for (at, block) in json::elements(content, &format!("{path}.content"))?.into_iter().enumerate() {
            let field = format!("{path}.content[{at}]");
            let block = Members::of(block, &field)?;
            match block.text("type").as_deref() {
                Some("text") => text.push_str(block.get("text").and_then(json::inner).unwrap_or_default()),
                // Only Anthropic's models can read what they signed.
                Some("thinking" | "redacted_thinking") => left.add("messages[].content[].thinking"),
                Some("tool_use") => {
                    has_calls = true;
                    call(calls.object(), &block, &field)?;
                }
                _ => return Err(refused(field, TO, "an assistant says text, thinking and tool_use")),
            }
        }
    }
    if text.is_empty() && has_calls {
        message.null("content");
    } else {
        message.escaped("content", &text);
    }
    if has_calls {
        message.json("tool_calls", &String::from_utf8(calls).expect("JSON is written from text only"));
    }
    Ok(())
}

fn call(mut to: Object<'_>, block: &Members<'_>, field: &str) -> Result<(), Error> {
    let missing = |name: &str| Error::field(format!("{field}.{name}"), "must be there");
    to.raw("id", block.get("id").ok_or_else(|| missing("id"))?);
    to.text("type", "function");
    let mut function = to.object("function");
    function.raw("name", block.get("name").ok_or_else(|| missing("name"))?);
    write::string(function.key("arguments"), block.get("input").map_or("{}", |input| input.get()));
    Ok(())
}
