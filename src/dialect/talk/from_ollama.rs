//! Ollama's `chat` and `generate`, read.

use std::borrow::Cow;

use super::conversation::{
    Answered, Call, Content, Conversation, Format, Media, Part, Schema, Settings, Source, Thinking, Tool,
};
use crate::dialect::Error;
use crate::dialect::json::{self, Members, Raw, Sort, sort};

pub(super) fn read_chat(body: &[u8]) -> Result<Conversation<'_>, Error> {
    let request = Members::parse(body).map_err(|error| Error::request(&error))?;
    let mut said = Conversation::default();
    let messages = request.get("messages").ok_or(Error::Missing { field: "messages" })?;
    for (at, message) in json::elements(messages, "messages")?.into_iter().enumerate() {
        let message = Members::of(message, "messages")?;
        let field = |name: &str| format!("messages[{at}].{name}");
        let text = match message.get("content") {
            Some(raw) => json::inner(raw).ok_or_else(|| Error::field(field("content"), "must be a text"))?,
            None => "",
        };
        let words = (!text.is_empty()).then_some(Part::Text { text, signature: None });
        match message.text("role").as_deref() {
            Some("system") => said.system.extend(words),
            Some("user") => {
                words.into_iter().for_each(|part| said.say(false, part));
                read_images(&mut said, &message, &field("images"))?;
            }
            Some("assistant") => {
                if let Some(text) = message.get("thinking").and_then(json::inner).filter(|text| !text.is_empty()) {
                    said.say(true, Part::Thought { text: Cow::Borrowed(text), signature: None });
                }
                words.into_iter().for_each(|part| said.say(true, part));
                let calls = message.get("tool_calls").map(|raw| json::elements(raw, &field("tool_calls")));
                for call in calls.transpose()?.unwrap_or_default() {
                    said.say(true, Part::Call(read_call(call, &field("tool_calls"))?));
                }
            }
            Some("tool") => {
                // Ollama's results name their tool, or nothing: then they answer the calls in order.
                let name = message.text("tool_name").or_else(|| message.text("name"));
                let answered = Answered {
                    id: message.text("tool_call_id"),
                    name,
                    content: Content::Parts(words.into_iter().collect()),
                    failed: false,
                    field: field("tool_name"),
                };
                said.say(false, Part::Result(answered));
            }
            _ => return Err(Error::field(field("role"), "must be system, user, assistant or tool")),
        }
    }
    if let Some(tools) = request.get("tools") {
        for (at, tool) in json::elements(tools, "tools")?.into_iter().enumerate() {
            let function = Members::of(tool, "tools")?.get("function").map(Members::lenient).unwrap_or_default();
            let name = function.text("name");
            said.tools.push(Tool {
                name: name.ok_or_else(|| Error::field(format!("tools[{at}].function.name"), "must be a name"))?,
                description: function.get("description").and_then(json::inner).filter(|text| !text.is_empty()),
                schema: function.get("parameters").map(Schema::Json),
                strict: None,
            });
        }
    }
    said.name_calls();
    rest(&mut said, &request)?;
    Ok(said)
}

/// `generate` with a prompt is one turn of a conversation. What is made for the model's own template is refused.
pub(super) fn read_generate(body: &[u8]) -> Result<Conversation<'_>, Error> {
    let request = Members::parse(body).map_err(|error| Error::request(&error))?;
    let mut said = Conversation::default();
    if let Some(text) = request.get("system").and_then(json::inner).filter(|text| !text.is_empty()) {
        said.system.push(Part::Text { text, signature: None });
    }
    let prompt = request.get("prompt").ok_or(Error::Missing { field: "prompt" })?;
    let text = json::inner(prompt).ok_or_else(|| Error::field("prompt", "must be a text"))?;
    if !text.is_empty() {
        said.say(false, Part::Text { text, signature: None });
    }
    read_images(&mut said, &request, "images")?;
    if request.get("raw").and_then(json::flag) == Some(true) {
        said.impossible.push(("raw", "its own template cannot be left out"));
    }
    let impossible = [
        ("suffix", "it writes only what follows"),
        ("template", "its own template cannot be replaced"),
        ("context", "it keeps no tokens; send the conversation to `chat`"),
    ];
    for (name, why) in impossible {
        if request.get(name).is_some_and(|raw| !matches!(raw.get(), "\"\"" | "[]")) {
            said.impossible.push((name, why));
        }
    }
    rest(&mut said, &request)?;
    Ok(said)
}

fn read_images<'a>(said: &mut Conversation<'a>, of: &Members<'a>, field: &str) -> Result<(), Error> {
    let images = of.get("images").map(|raw| json::elements(raw, field)).transpose()?.unwrap_or_default();
    for (at, image) in images.into_iter().enumerate() {
        let here = format!("{field}[{at}]");
        let data = json::text(image).ok_or_else(|| Error::field(&*here, "must be base64"))?;
        // Ollama finds the kind in the bytes; so do the first characters of their base64.
        let mime = match data.as_bytes() {
            [b'i', b'V', b'B', b'O', ..] => "image/png",
            [b'R', b'0', b'l', b'G', ..] => "image/gif",
            [b'U', b'k', b'l', b'G', ..] => "image/webp",
            _ => "image/jpeg",
        };
        let media = Media { mime: Cow::Borrowed(mime), source: Source::Data(data), name: None, field: here };
        said.say(false, Part::Media(media));
    }
    Ok(())
}

fn read_call<'a>(raw: Raw<'a>, field: &str) -> Result<Call<'a>, Error> {
    let call = Members::of(raw, field)?;
    let function = call.get("function").map(Members::lenient).unwrap_or_default();
    let name = function.text("name").ok_or_else(|| Error::field(format!("{field}.function.name"), "must be a name"))?;
    let arguments = match function.get("arguments") {
        Some(raw) if sort(raw) == Sort::Object => Cow::Borrowed(raw.get()),
        None => Cow::Borrowed("{}"),
        Some(_) => return Err(Error::field(format!("{field}.function.arguments"), "must be an object")),
    };
    Ok(Call { id: call.text("id"), name, arguments, signature: None })
}

fn rest<'a>(said: &mut Conversation<'a>, request: &Members<'a>) -> Result<(), Error> {
    let options = request.get("options").map(|raw| Members::of(raw, "options")).transpose()?.unwrap_or_default();
    let format = match request.get("format") {
        Some(raw) if raw.get() == "\"json\"" => Format::Json,
        Some(raw) if sort(raw) == Sort::Object => {
            Format::Schema { name: None, schema: Schema::Json(raw), strict: None }
        }
        _ => Format::Text,
    };
    let thinking = request.get("think").and_then(|raw| match raw.get() {
        "true" => Some(Thinking::Adaptive),
        "false" => Some(Thinking::Off),
        _ => json::text(raw).map(Thinking::Effort),
    });
    let stop = match options.get("stop") {
        Some(raw) if sort(raw) == Sort::Text => vec![raw],
        Some(raw) => json::elements(raw, "options.stop")?,
        None => Vec::new(),
    };
    if request.get("logprobs").and_then(json::flag) == Some(true) {
        said.impossible.push(("logprobs", "it does not tell probabilities"));
    }
    said.settings = Settings {
        // -1 and -2 are "as much as it likes".
        output_tokens_max: options.get("num_predict").and_then(json::whole),
        temperature: options.get("temperature"),
        top_p: options.get("top_p"),
        top_k: options.get("top_k"),
        min_p: options.get("min_p"),
        seed: options.get("seed"),
        frequency_penalty: options.get("frequency_penalty"),
        presence_penalty: options.get("presence_penalty"),
        stop,
        format,
        thinking,
        ..Settings::default()
    };
    const REQUEST: [&str; 18] = [
        "model",
        "messages",
        "prompt",
        "system",
        "images",
        "suffix",
        "template",
        "context",
        "raw",
        "tools",
        "format",
        "options",
        "stream",
        "think",
        "keep_alive",
        "logprobs",
        "top_logprobs",
        "truncate",
    ];
    const KNOWN: [&str; 9] = [
        "num_predict",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "frequency_penalty",
        "presence_penalty",
        "stop",
    ];
    let unknown = options.iter().filter(|(name, _)| !KNOWN.contains(name));
    said.left_out.extend(unknown.map(|(name, _)| format!("options.{name}")));
    said.pass_through(request, &REQUEST);
    if request.get("keep_alive").is_some() {
        said.left_out.push("keep_alive".to_owned());
    }
    Ok(())
}
