//! The messages: what is said becomes messages, what is called, answered and thought becomes items of its own.

use crate::dialect::json::{self, Members, Raw, Sort, sort};
use crate::dialect::pairs::remarks::{LeftOut, refused};
use crate::dialect::write::{self, Array, Object};
use crate::dialect::{Dialect, Error};

const TO: Dialect = Dialect::Responses;

pub(super) fn items(mut list: Array<'_>, raw: Raw<'_>, left: &mut LeftOut) -> Result<(), Error> {
    for (at, message) in json::elements(raw, "messages")?.into_iter().enumerate() {
        let path = format!("messages[{at}]");
        let message = Members::of(message, &path)?;
        let content = message.get("content");
        let content = content.ok_or_else(|| Error::field(format!("{path}.content"), "must be there"))?;
        let role = match message.text("role").as_deref() {
            Some("user") => "user",
            Some("assistant") => "assistant",
            Some("system") => "system",
            _ => return Err(Error::field(format!("{path}.role"), "must be user or assistant")),
        };
        if sort(content) == Sort::Text {
            let mut item = list.object();
            item.text("role", role);
            item.raw("content", content);
            continue;
        }
        blocks(&mut list, role, content, &path, left)?;
    }
    Ok(())
}

/// A string, or blocks of text one under the other, escaped.
pub(super) fn joined(raw: Raw<'_>, field: &str) -> Result<String, Error> {
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

fn blocks(list: &mut Array<'_>, role: &str, content: Raw<'_>, path: &str, left: &mut LeftOut) -> Result<(), Error> {
    // Parts of the message that is being gathered, with commas between them; another item ends it.
    let mut said = Vec::new();
    for (at, block) in json::elements(content, &format!("{path}.content"))?.into_iter().enumerate() {
        let field = format!("{path}.content[{at}]");
        let block = Members::of(block, &field)?;
        let missing = |name: &str| Error::field(format!("{field}.{name}"), "must be there");
        match (block.text("type").as_deref(), role) {
            (Some("tool_result"), "user") => {
                flush(list, role, &mut said);
                result(list, &block, &field, left)?;
            }
            (Some("tool_use"), "assistant") => {
                flush(list, role, &mut said);
                let mut item = list.object();
                item.text("type", "function_call");
                item.raw("call_id", block.get("id").ok_or_else(|| missing("id"))?);
                item.raw("name", block.get("name").ok_or_else(|| missing("name"))?);
                write::string(item.key("arguments"), block.get("input").map_or("{}", |input| input.get()));
            }
            (Some("thinking" | "redacted_thinking"), "assistant") => {
                flush(list, role, &mut said);
                reasoning(list, &block, left);
            }
            _ => {
                if !said.is_empty() {
                    said.push(b',');
                }
                part(&mut said, &block, role, &field)?;
            }
        }
    }
    flush(list, role, &mut said);
    Ok(())
}

fn flush(list: &mut Array<'_>, role: &str, said: &mut Vec<u8>) {
    if said.is_empty() {
        return;
    }
    let mut item = list.object();
    item.text("role", role);
    let out = item.key("content");
    out.push(b'[');
    out.append(said);
    out.push(b']');
}

fn part(out: &mut Vec<u8>, block: &Members<'_>, role: &str, field: &str) -> Result<(), Error> {
    let mut to = Object::new(out);
    match block.text("type").as_deref() {
        Some("text") => {
            let text = block.get("text").filter(|text| sort(text) == Sort::Text);
            to.text("type", if role == "assistant" { "output_text" } else { "input_text" });
            to.raw("text", text.ok_or_else(|| Error::field(format!("{field}.text"), "must be a string"))?);
        }
        Some("image") => {
            to.text("type", "input_image");
            to.text("detail", "auto");
            to.text("image_url", &address(block, field)?);
        }
        Some("document") => document(to, block, field)?,
        _ => return Err(refused(field, TO, "it takes text, image, document, tool_use and tool_result")),
    }
    Ok(())
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

fn document(mut to: Object<'_>, block: &Members<'_>, field: &str) -> Result<(), Error> {
    let source = block.get("source").map(Members::lenient).unwrap_or_default();
    match source.text("type").as_deref() {
        Some("text") => {
            to.text("type", "input_text");
            to.raw_if("text", source.get("data"));
        }
        Some("url") => {
            to.text("type", "input_file");
            to.raw_if("file_url", source.get("url"));
        }
        _ => {
            to.text("type", "input_file");
            match block.get("title") {
                Some(title) => to.raw("filename", title),
                None => to.text("filename", "document.pdf"),
            }
            to.text("file_data", &address(block, field)?);
        }
    }
    Ok(())
}

fn result(list: &mut Array<'_>, block: &Members<'_>, field: &str, left: &mut LeftOut) -> Result<(), Error> {
    let id = block.get("tool_use_id");
    if block.get("is_error").and_then(json::flag) == Some(true) {
        left.add("messages[].content[].is_error");
    }
    let mut item = list.object();
    item.text("type", "function_call_output");
    item.raw("call_id", id.ok_or_else(|| Error::field(format!("{field}.tool_use_id"), "must be there"))?);
    let Some(content) = block.get("content") else {
        item.text("output", "");
        return Ok(());
    };
    if sort(content) == Sort::Text {
        item.raw("output", content);
        return Ok(());
    }
    let mut output = item.array("output");
    for (at, inside) in json::elements(content, &format!("{field}.content"))?.into_iter().enumerate() {
        let field = format!("{field}.content[{at}]");
        part(output.element(), &Members::of(inside, &field)?, "user", &field)?;
    }
    Ok(())
}

/// Thinking with a signature comes back as the item that it was; see the answer's side.
fn reasoning(list: &mut Array<'_>, block: &Members<'_>, left: &mut LeftOut) {
    let encrypted = block.get("signature").or_else(|| block.get("data")).filter(|raw| json::says_something(raw));
    let Some(encrypted) = encrypted else {
        left.add("messages[].content[].thinking");
        return;
    };
    let mut item = list.object();
    item.text("type", "reasoning");
    {
        let mut summary = item.array("summary");
        if let Some(thinking) = block.get("thinking").filter(|raw| json::says_something(raw)) {
            let mut part = summary.object();
            part.text("type", "summary_text");
            part.raw("text", thinking);
        }
    }
    item.raw("encrypted_content", encrypted);
}
