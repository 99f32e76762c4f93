//! The input: items become turns of blocks.

use crate::dialect::anthropic::{Conversation, Turns, write_source};
use crate::dialect::json::{self, Members, Raw, Sort, sort};
use crate::dialect::pairs::remarks::{LeftOut, anthropic_id, arguments_as_object, refused};
use crate::dialect::write::{Array, Object};
use crate::dialect::{Dialect, Error};

const TO: Dialect = Dialect::Anthropic;

pub(super) fn messages(
    instructions: Option<Raw<'_>>,
    input: Raw<'_>,
    left: &mut LeftOut,
) -> Result<Conversation, Error> {
    let mut system = Vec::new();
    let mut turns = Turns::new();
    let mut has_unsigned_calls = false;
    {
        let mut system = Array::new(&mut system);
        if let Some(instructions) = instructions {
            if sort(instructions) != Sort::Text {
                return Err(Error::field("instructions", "must be a string"));
            }
            if json::says_something(instructions) {
                text_block(system.element(), instructions);
            }
        }
        if sort(input) == Sort::Text {
            if json::says_something(input) {
                text_block(turns.block("user"), input);
            }
        } else {
            let mut signed = false;
            for (at, item) in json::elements(input, "input")?.into_iter().enumerate() {
                let path = format!("input[{at}]");
                let item = Members::of(item, &path)?;
                match item.text("type").as_deref() {
                    None | Some("message") => message(&item, &path, &mut system, &mut turns)?,
                    Some("function_call") => {
                        has_unsigned_calls |= !signed;
                        call(&item, &path, &mut turns)?;
                    }
                    Some("function_call_output") => {
                        signed = false;
                        output(&item, &path, &mut turns)?;
                    }
                    Some("reasoning") => {
                        signed = reasoning(&item, &mut turns);
                        if !signed {
                            left.add("input[].reasoning");
                        }
                    }
                    Some("item_reference") => {
                        return Err(refused(path, TO, "it keeps nothing between requests; send the item itself"));
                    }
                    Some(_) => return Err(refused(path, TO, "it takes messages, function calls and their outputs")),
                }
            }
        }
    }
    let system = String::from_utf8(system).expect("JSON is written from text only");
    Ok(Conversation { system: (system != "[]").then_some(system), messages: turns.end(), has_unsigned_calls })
}

/// A block of text; Anthropic refuses empty ones.
fn text_block(out: &mut Vec<u8>, text: Raw<'_>) {
    let mut block = Object::new(out);
    block.text("type", "text");
    block.raw("text", text);
}

fn message(item: &Members<'_>, path: &str, system: &mut Array<'_>, turns: &mut Turns) -> Result<(), Error> {
    let content = item.get("content").ok_or_else(|| Error::field(format!("{path}.content"), "must be there"))?;
    let role = match item.text("role").as_deref() {
        Some("user") => Some("user"),
        Some("assistant") => Some("assistant"),
        Some("system" | "developer") => None,
        _ => return Err(Error::field(format!("{path}.role"), "must be user, assistant, system or developer")),
    };
    let mut write = |part: Option<&Members<'_>>, text: Option<Raw<'_>>, field: &str| {
        if let Some(text) = text {
            if json::says_something(text) {
                text_block(role.map_or_else(|| system.element(), |role| turns.block(role)), text);
            }
            return Ok(());
        }
        match (part, role) {
            (Some(part), Some(role)) => picture(part, turns.block(role), field),
            _ => Err(Error::field(field, "must be a part with text")),
        }
    };
    if sort(content) == Sort::Text {
        return write(None, Some(content), path);
    }
    for (at, part) in json::elements(content, &format!("{path}.content"))?.into_iter().enumerate() {
        let field = format!("{path}.content[{at}]");
        let part = Members::of(part, &field)?;
        let text = part.get("text").or_else(|| part.get("refusal")).filter(|text| sort(text) == Sort::Text);
        write(Some(&part), text, &field)?;
    }
    Ok(())
}

/// A picture or a document.
fn picture(part: &Members<'_>, out: &mut Vec<u8>, field: &str) -> Result<(), Error> {
    let mut block = Object::new(out);
    match part.text("type").as_deref() {
        Some("input_image") => {
            let url = part.text("image_url");
            let url =
                url.ok_or_else(|| refused(field, TO, "files of OpenAI's store are not there; send `image_url`"))?;
            block.text("type", "image");
            write_source(&mut block, &url, &format!("{field}.image_url"))
        }
        Some("input_file") => {
            let (name, url) = match (part.text("file_data"), part.text("file_url")) {
                (Some(data), _) => ("file_data", data),
                (None, Some(url)) => ("file_url", url),
                _ => return Err(refused(field, TO, "files of OpenAI's store are not there; send `file_data`")),
            };
            block.text("type", "document");
            block.raw_if("title", part.get("filename"));
            write_source(&mut block, &url, &format!("{field}.{name}"))
        }
        _ => Err(refused(field, TO, "it takes input_text, input_image and input_file")),
    }
}

fn call(item: &Members<'_>, path: &str, turns: &mut Turns) -> Result<(), Error> {
    let missing = |name: &str| Error::field(format!("{path}.{name}"), "must be there");
    let id = item.text("call_id").ok_or_else(|| missing("call_id"))?;
    let mut block = Object::new(turns.block("assistant"));
    block.text("type", "tool_use");
    block.text("id", &anthropic_id(&id));
    block.raw("name", item.get("name").ok_or_else(|| missing("name"))?);
    arguments_as_object(block.key("input"), item.get("arguments").ok_or_else(|| missing("arguments"))?);
    Ok(())
}

fn output(item: &Members<'_>, path: &str, turns: &mut Turns) -> Result<(), Error> {
    let missing = |name: &str| Error::field(format!("{path}.{name}"), "must be there");
    let id = item.text("call_id").ok_or_else(|| missing("call_id"))?;
    let output = item.get("output").ok_or_else(|| missing("output"))?;
    let mut block = Object::new(turns.block("user"));
    block.text("type", "tool_result");
    block.text("tool_use_id", &anthropic_id(&id));
    if sort(output) == Sort::Text {
        if json::says_something(output) {
            block.raw("content", output);
        }
        return Ok(());
    }
    let mut content = block.array("content");
    for (at, part) in json::elements(output, &format!("{path}.output"))?.into_iter().enumerate() {
        let field = format!("{path}.output[{at}]");
        let part = Members::of(part, &field)?;
        match part.get("text").filter(|text| sort(text) == Sort::Text) {
            Some(text) if json::says_something(text) => text_block(content.element(), text),
            Some(_) => {}
            None => picture(&part, content.element(), &field)?,
        }
    }
    Ok(())
}

/// Reasoning that Anthropic signed comes back as what it was: with a summary the block and its signature, without one
/// the block that only Anthropic can read. Gives false for reasoning of somebody else.
fn reasoning(item: &Members<'_>, turns: &mut Turns) -> bool {
    let Some(encrypted) = item.get("encrypted_content").filter(|raw| json::says_something(raw)) else { return false };
    let mut said = String::new();
    for part in item.get("summary").map(json::lenient_elements).unwrap_or_default() {
        said.push_str(Members::lenient(part).get("text").and_then(json::inner).unwrap_or_default());
    }
    let mut block = Object::new(turns.block("assistant"));
    if said.is_empty() {
        block.text("type", "redacted_thinking");
        block.raw("data", encrypted);
    } else {
        block.text("type", "thinking");
        block.escaped("thinking", &said);
        block.raw("signature", encrypted);
    }
    true
}
