//! The input: items become messages.

use crate::dialect::json::{self, Members, Raw, Sort, sort};
use crate::dialect::pairs::remarks::{LeftOut, refused};
use crate::dialect::write::{Array, Object};
use crate::dialect::{Dialect, Error};

const TO: Dialect = Dialect::Chat;

/// Writes messages. What an assistant said and called in a row is one message, as chat wants it.
struct Messages<'w> {
    list: Array<'w>,
    /// What the open message of the assistant says, escaped.
    said: String,
    /// Its calls, with commas between them.
    calls: Vec<u8>,
    assistant: bool,
    /// Parts that results of tools show and chat's tools cannot: they follow as the user's, with commas between them.
    shown: Vec<u8>,
}

/// Writes the instructions and the input.
pub(super) fn messages(
    list: Array<'_>,
    instructions: Option<Raw<'_>>,
    input: Raw<'_>,
    left: &mut LeftOut,
) -> Result<(), Error> {
    let mut messages = Messages { list, said: String::new(), calls: Vec::new(), assistant: false, shown: Vec::new() };
    if let Some(instructions) = instructions {
        if sort(instructions) != Sort::Text {
            return Err(Error::field("instructions", "must be a string"));
        }
        messages.plain("system", instructions);
    }
    if sort(input) == Sort::Text {
        messages.plain("user", input);
        return Ok(());
    }
    for (at, item) in json::elements(input, "input")?.into_iter().enumerate() {
        let path = format!("input[{at}]");
        let item = Members::of(item, &path)?;
        match item.text("type").as_deref() {
            None | Some("message") => messages.message(&item, &path)?,
            Some("function_call") => messages.call(&item, &path)?,
            Some("function_call_output") => messages.output(&item, &path)?,
            // Only who wrote it can read it.
            Some("reasoning") => left.add("input[].reasoning"),
            Some("item_reference") => {
                return Err(refused(path, TO, "it keeps nothing between requests; send the item itself"));
            }
            Some(_) => return Err(refused(path, TO, "it takes messages, function calls and their outputs")),
        }
    }
    messages.flush();
    Ok(())
}

impl Messages<'_> {
    fn plain(&mut self, role: &str, content: Raw<'_>) {
        let mut message = self.list.object();
        message.text("role", role);
        message.raw("content", content);
    }

    fn message(&mut self, item: &Members<'_>, path: &str) -> Result<(), Error> {
        let content = item.get("content").ok_or_else(|| Error::field(format!("{path}.content"), "must be there"))?;
        let role = item.text("role").ok_or_else(|| Error::field(format!("{path}.role"), "must be there"))?;
        if role == "assistant" {
            self.flush_shown();
            self.assistant = true;
            let text = joined(content, &format!("{path}.content"))?;
            self.said.push_str(&text);
            return Ok(());
        }
        self.flush();
        let role = match role.as_ref() {
            "user" => "user",
            // The older name, which every server knows.
            "system" | "developer" => "system",
            _ => return Err(Error::field(format!("{path}.role"), "must be user, assistant, system or developer")),
        };
        if sort(content) == Sort::Text {
            self.plain(role, content);
            return Ok(());
        }
        let mut message = self.list.object();
        message.text("role", role);
        if role == "system" {
            message.escaped("content", &joined(content, &format!("{path}.content"))?);
            return Ok(());
        }
        let parts = json::elements(content, &format!("{path}.content"))?;
        if let [only] = parts[..]
            && let Some(text) = Members::lenient(only).get("text").filter(|text| sort(text) == Sort::Text)
        {
            // One text goes as a string: some servers know no parts.
            message.raw("content", text);
            return Ok(());
        }
        let mut list = message.array("content");
        for (at, part) in parts.into_iter().enumerate() {
            let field = format!("{path}.content[{at}]");
            write_part(list.element(), &Members::of(part, &field)?, &field)?;
        }
        Ok(())
    }

    fn call(&mut self, item: &Members<'_>, path: &str) -> Result<(), Error> {
        self.flush_shown();
        self.assistant = true;
        if !self.calls.is_empty() {
            self.calls.push(b',');
        }
        let required =
            |name: &str| item.get(name).ok_or_else(|| Error::field(format!("{path}.{name}"), "must be there"));
        let mut call = Object::new(&mut self.calls);
        call.raw("id", required("call_id")?);
        call.text("type", "function");
        let mut function = call.object("function");
        function.raw("name", required("name")?);
        function.raw("arguments", required("arguments")?);
        Ok(())
    }

    fn output(&mut self, item: &Members<'_>, path: &str) -> Result<(), Error> {
        self.flush_assistant();
        let field = format!("{path}.output");
        let output = item.get("output").ok_or_else(|| Error::field(&field, "must be there"))?;
        let id = item.get("call_id").ok_or_else(|| Error::field(format!("{path}.call_id"), "must be there"))?;
        let mut text = String::new();
        if let Some(inner) = json::inner(output) {
            text.push_str(inner);
        } else {
            for (at, part) in json::elements(output, &field)?.into_iter().enumerate() {
                let field = format!("{field}[{at}]");
                let part = Members::of(part, &field)?;
                if let Some(more) = part.get("text").and_then(json::inner) {
                    text.push_str(more);
                    continue;
                }
                if !self.shown.is_empty() {
                    self.shown.push(b',');
                }
                write_part(&mut self.shown, &part, &field)?;
            }
        }
        let mut message = self.list.object();
        message.text("role", "tool");
        message.raw("tool_call_id", id);
        message.escaped("content", &text);
        Ok(())
    }

    fn flush(&mut self) {
        self.flush_assistant();
        self.flush_shown();
    }

    fn flush_assistant(&mut self) {
        if !std::mem::take(&mut self.assistant) {
            return;
        }
        let mut message = self.list.object();
        message.text("role", "assistant");
        if self.said.is_empty() && !self.calls.is_empty() {
            message.null("content");
        } else {
            message.escaped("content", &self.said);
        }
        if !self.calls.is_empty() {
            let out = message.key("tool_calls");
            out.push(b'[');
            out.extend_from_slice(&self.calls);
            out.push(b']');
        }
        self.said.clear();
        self.calls.clear();
    }

    fn flush_shown(&mut self) {
        if self.shown.is_empty() {
            return;
        }
        let mut message = self.list.object();
        message.text("role", "user");
        let out = message.key("content");
        out.push(b'[');
        out.extend_from_slice(&self.shown);
        out.push(b']');
        self.shown.clear();
    }
}

/// A string, or the texts of parts, escaped.
fn joined(raw: Raw<'_>, field: &str) -> Result<String, Error> {
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

fn write_part(out: &mut Vec<u8>, part: &Members<'_>, field: &str) -> Result<(), Error> {
    let mut to = Object::new(out);
    match part.text("type").as_deref() {
        Some("input_text" | "output_text" | "text") => {
            let text = part.get("text").filter(|text| sort(text) == Sort::Text);
            to.text("type", "text");
            to.raw("text", text.ok_or_else(|| Error::field(format!("{field}.text"), "must be a string"))?);
        }
        Some("input_image") => {
            let url = part.get("image_url");
            let url =
                url.ok_or_else(|| refused(field, TO, "files of OpenAI's store are not there; send `image_url`"))?;
            to.text("type", "image_url");
            let mut image = to.object("image_url");
            image.raw("url", url);
            image.raw_if("detail", part.get("detail"));
        }
        Some("input_file") => {
            let data = part.get("file_data");
            let data = data.ok_or_else(|| refused(field, TO, "it fetches no files; send `file_data`"))?;
            to.text("type", "file");
            let mut file = to.object("file");
            file.raw_if("filename", part.get("filename"));
            file.raw("file_data", data);
        }
        Some("input_audio") => {
            to.text("type", "input_audio");
            to.raw_if("input_audio", part.get("input_audio"));
        }
        _ => return Err(refused(field, TO, "it takes input_text, input_image, input_file and input_audio")),
    }
    Ok(())
}
