//! The messages: each becomes an item, an assistant's calls items of their own.

use crate::dialect::json::{self, Members, Raw, Sort, sort};
use crate::dialect::pairs::remarks::{LeftOut, refused};
use crate::dialect::write::Array;
use crate::dialect::{Dialect, Error};

const TO: Dialect = Dialect::Responses;

pub(super) fn items(mut list: Array<'_>, raw: Raw<'_>, left: &mut LeftOut) -> Result<(), Error> {
    for (at, message) in json::elements(raw, "messages")?.into_iter().enumerate() {
        let path = format!("messages[{at}]");
        let message = Members::of(message, &path)?;
        if message.get("name").is_some() {
            left.add("messages[].name");
        }
        match message.text("role").as_deref() {
            Some(role @ ("system" | "developer" | "user")) => {
                let content = message.get("content");
                let content = content.ok_or_else(|| Error::field(format!("{path}.content"), "must be there"))?;
                let mut item = list.object();
                item.text("role", role);
                if sort(content) == Sort::Text {
                    item.raw("content", content);
                } else {
                    parts(item.array("content"), content, &format!("{path}.content"))?;
                }
            }
            Some("assistant") => assistant(&mut list, &message, &path)?,
            Some("tool") => {
                let id = message.get("tool_call_id");
                let mut item = list.object();
                item.text("type", "function_call_output");
                item.raw("call_id", id.ok_or_else(|| Error::field(format!("{path}.tool_call_id"), "must be there"))?);
                item.escaped("output", &joined(message.get("content"), &format!("{path}.content"))?);
            }
            Some("function") => return Err(refused(path, TO, "use the role `tool`")),
            _ => {
                return Err(Error::field(format!("{path}.role"), "must be system, developer, user, assistant or tool"));
            }
        }
    }
    Ok(())
}

/// A string, or the texts of parts, escaped.
fn joined(raw: Option<Raw<'_>>, field: &str) -> Result<String, Error> {
    let Some(raw) = raw else { return Ok(String::new()) };
    if let Some(text) = json::inner(raw) {
        return Ok(text.to_owned());
    }
    let mut all = String::new();
    for (at, part) in json::elements(raw, field)?.into_iter().enumerate() {
        let part = Members::of(part, &format!("{field}[{at}]"))?;
        let text = part.get("text").or_else(|| part.get("refusal")).and_then(json::inner);
        all.push_str(text.ok_or_else(|| Error::field(format!("{field}[{at}]"), "must be a part with text"))?);
    }
    Ok(all)
}

fn assistant(list: &mut Array<'_>, message: &Members<'_>, path: &str) -> Result<(), Error> {
    if message.get("function_call").is_some() {
        return Err(refused(format!("{path}.function_call"), TO, "use `tool_calls`"));
    }
    let text = joined(message.get("content"), &format!("{path}.content"))?;
    let refusal = message.get("refusal").and_then(json::inner).unwrap_or_default();
    if !text.is_empty() || !refusal.is_empty() {
        let mut item = list.object();
        item.text("role", "assistant");
        let mut content = item.array("content");
        if !text.is_empty() {
            let mut part = content.object();
            part.text("type", "output_text");
            part.escaped("text", &text);
        }
        if !refusal.is_empty() {
            let mut part = content.object();
            part.text("type", "refusal");
            part.escaped("refusal", refusal);
        }
    }
    let Some(calls) = message.get("tool_calls") else { return Ok(()) };
    for (at, call) in json::elements(calls, &format!("{path}.tool_calls"))?.into_iter().enumerate() {
        let field = format!("{path}.tool_calls[{at}]");
        let call = Members::of(call, &field)?;
        let missing = |name: &str| Error::field(format!("{field}.{name}"), "must be there");
        let function = call.get("function").map(Members::lenient).unwrap_or_default();
        let mut item = list.object();
        item.text("type", "function_call");
        item.raw("call_id", call.get("id").ok_or_else(|| missing("id"))?);
        item.raw("name", function.get("name").ok_or_else(|| missing("function.name"))?);
        match function.get("arguments") {
            Some(arguments) => item.raw("arguments", arguments),
            None => item.text("arguments", "{}"),
        }
    }
    Ok(())
}

fn parts(mut list: Array<'_>, raw: Raw<'_>, field: &str) -> Result<(), Error> {
    for (at, part) in json::elements(raw, field)?.into_iter().enumerate() {
        let field = format!("{field}[{at}]");
        let part = Members::of(part, &field)?;
        let mut to = list.object();
        match part.text("type").as_deref() {
            Some("text") => {
                let text = part.get("text").filter(|text| sort(text) == Sort::Text);
                to.text("type", "input_text");
                to.raw("text", text.ok_or_else(|| Error::field(format!("{field}.text"), "must be a string"))?);
            }
            Some("image_url") => {
                let image = part.get("image_url").map(Members::lenient).unwrap_or_default();
                let url = image.get("url");
                to.text("type", "input_image");
                to.raw(
                    "image_url",
                    url.ok_or_else(|| Error::field(format!("{field}.image_url.url"), "must be a string"))?,
                );
                match image.get("detail") {
                    Some(detail) => to.raw("detail", detail),
                    None => to.text("detail", "auto"),
                }
            }
            Some("file") => {
                to.text("type", "input_file");
                let file = part.get("file").map(Members::lenient).unwrap_or_default();
                for (key, raw) in file.iter() {
                    to.raw(key, raw);
                }
            }
            Some("input_audio") => return Err(refused(field, TO, "it does not listen")),
            _ => return Err(refused(field, TO, "it takes text, image_url and file")),
        }
    }
    Ok(())
}
