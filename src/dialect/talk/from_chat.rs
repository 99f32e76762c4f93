//! OpenAI's chat completions, read.

use std::borrow::Cow;

use super::conversation::{
    Answered, Call, Choice, Content, Conversation, Format, Media, Part, Schema, Settings, Source, Thinking, Tool,
};
use crate::dialect::Error;
use crate::dialect::json::{self, Members, Raw, Sort, sort};
use crate::dialect::pairs::INVALID_ARGUMENTS;

/// Members that only advise a model of OpenAI's, or say something about the request and not about the answer.
const ADVICE: [&str; 13] = [
    "logit_bias",
    "metadata",
    "store",
    "prediction",
    "verbosity",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "repetition_penalty",
    "chat_template_kwargs",
    "prompt_cache_options",
    "moderation",
    "top_logprobs",
];

/// Members that are read, or that say nothing to another dialect.
const KNOWN: [&str; 28] = [
    "model",
    "messages",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "n",
    "logprobs",
    "audio",
    "modalities",
    "web_search_options",
    "functions",
    "function_call",
    "max_completion_tokens",
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "stop",
    "response_format",
    "reasoning_effort",
    "user",
    "service_tier",
    "stream",
    "stream_options",
];

pub(super) fn read(body: &[u8]) -> Result<Conversation<'_>, Error> {
    let request = Members::parse(body).map_err(|error| Error::request(&error))?;
    let mut said = Conversation::default();
    let messages = request.get("messages").ok_or(Error::Missing { field: "messages" })?;
    for (at, message) in json::elements(messages, "messages")?.into_iter().enumerate() {
        read_message(&mut said, &Members::of(message, "messages")?, at)?;
    }
    if let Some(tools) = request.get("tools") {
        for (at, tool) in json::elements(tools, "tools")?.into_iter().enumerate() {
            said.tools.push(read_tool(tool, at)?);
        }
    }
    said.choice = request.get("tool_choice").map(read_choice).transpose()?;
    said.parallel = request.get("parallel_tool_calls").and_then(json::flag);
    said.settings = settings(&request)?;
    if request.get("n").and_then(json::whole).is_some_and(|n| n > 1) {
        said.impossible.push(("n", "only one answer can be asked for; send the request as often as you want answers"));
    }
    if request.get("logprobs").and_then(json::flag) == Some(true) {
        said.impossible.push(("logprobs", "it does not tell probabilities"));
    }
    if request.get("audio").is_some() {
        said.impossible.push(("audio", "answers are text"));
    }
    if request.get("web_search_options").is_some() {
        said.impossible.push(("web_search_options", "searches of OpenAI's models are not translated"));
    }
    if request.get("functions").is_some() || request.get("function_call").is_some() {
        said.impossible.push(("functions", "the member is out of date; use `tools` and `tool_choice`"));
    }
    for name in ADVICE {
        if request.get(name).is_some() {
            said.left_out.push(name.to_owned());
        }
    }
    said.pass_through(&request, &[&KNOWN[..], &ADVICE].concat());
    Ok(said)
}

fn read_message<'a>(said: &mut Conversation<'a>, message: &Members<'a>, at: usize) -> Result<(), Error> {
    let field = |name: &str| format!("messages[{at}].{name}");
    let role = message.text("role").ok_or_else(|| Error::field(field("role"), "must be a role"))?;
    match &*role {
        "system" | "developer" => {
            let content = message.get("content").ok_or_else(|| Error::field(field("content"), "must be there"))?;
            let mut parts = Vec::new();
            read_content(content, &field("content"), &mut |part| parts.push(part))?;
            said.system.append(&mut parts);
        }
        "user" => {
            let content = message.get("content").ok_or_else(|| Error::field(field("content"), "must be there"))?;
            read_content(content, &field("content"), &mut |part| said.say(false, part))?;
        }
        "assistant" => {
            let thought = message.get("reasoning_content").or_else(|| message.get("reasoning"));
            if let Some(text) = thought.filter(|raw| json::says_something(raw)).and_then(json::inner) {
                said.say(true, Part::Thought { text: Cow::Borrowed(text), signature: None });
            }
            for name in ["content", "refusal"] {
                if let Some(content) = message.get(name) {
                    read_content(content, &field(name), &mut |part| said.say(true, part))?;
                }
            }
            let calls = message.get("tool_calls").map(|raw| json::elements(raw, &field("tool_calls"))).transpose()?;
            for (nth, call) in calls.unwrap_or_default().into_iter().enumerate() {
                let call = read_call(call, &field(&format!("tool_calls[{nth}]")))?;
                said.say(true, Part::Call(call));
            }
        }
        "tool" | "function" => {
            let mut parts = Vec::new();
            if let Some(content) = message.get("content") {
                read_content(content, &field("content"), &mut |part| parts.push(part))?;
            }
            let answered = Answered {
                id: message.text("tool_call_id"),
                name: message.text("name"),
                content: Content::Parts(parts),
                failed: false,
                field: field("tool_call_id"),
            };
            said.say(false, Part::Result(answered));
        }
        _ => return Err(Error::field(field("role"), "must be system, developer, user, assistant or tool")),
    }
    Ok(())
}

/// A text, or a list of parts. Empty texts say nothing, and others refuse them.
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
        let kind = part.text("type").unwrap_or(Cow::Borrowed("text"));
        match &*kind {
            "text" | "input_text" | "output_text" | "refusal" => {
                let text = part.get("text").or_else(|| part.get("refusal")).and_then(json::inner);
                let text = text.ok_or_else(|| Error::field(here + ".text", "must be a text"))?;
                if !text.is_empty() {
                    say(Part::Text { text, signature: None });
                }
            }
            "image_url" => {
                let url = part.get("image_url").and_then(|raw| match sort(raw) {
                    Sort::Text => json::text(raw),
                    _ => Members::lenient(raw).text("url"),
                });
                let url = url.ok_or_else(|| Error::field(format!("{here}.image_url.url"), "must be a URL"))?;
                say(Part::Media(of_url(url, "image/jpeg", None, here)?));
            }
            "input_audio" => {
                let audio = part.get("input_audio").map(Members::lenient).unwrap_or_default();
                let data =
                    audio.text("data").ok_or_else(|| Error::field(format!("{here}.input_audio.data"), BASE64))?;
                let format = audio.text("format").unwrap_or(Cow::Borrowed("wav"));
                let mime = Cow::Owned(format!("audio/{}", if format == "mp3" { "mpeg" } else { &*format }));
                say(Part::Media(Media { mime, source: Source::Data(data), name: None, field: here }));
            }
            "file" => {
                let file = part.get("file").map(Members::lenient).unwrap_or_default();
                let data = file.text("file_data").ok_or_else(|| {
                    Error::field(
                        format!("{here}.file.file_data"),
                        "must be the file: ids of uploads are not translated",
                    )
                })?;
                let media = of_url(data, "application/pdf", file.text("filename"), here)?;
                say(Part::Media(media));
            }
            _ => return Err(Error::field(here + ".type", "must be text, image_url, input_audio or file")),
        }
    }
    Ok(())
}

const BASE64: &str = "must be base64";

/// What a `data:` URL holds, or another URL. `otherwise` is its kind if the URL does not say.
pub(super) fn of_url<'a>(
    url: Cow<'a, str>,
    otherwise: &'static str,
    name: Option<Cow<'a, str>>,
    field: String,
) -> Result<Media<'a>, Error> {
    let cut = |url: &Cow<'a, str>, from: usize, to: usize| match url {
        Cow::Borrowed(url) => Cow::Borrowed(&url[from..to]),
        Cow::Owned(url) => Cow::Owned(url[from..to].to_owned()),
    };
    let Some(rest) = url.strip_prefix("data:") else {
        if url.starts_with("http:") || url.starts_with("https:") || url.starts_with("gs:") || url.starts_with("s3:") {
            let mime = Cow::Borrowed(mime_of(&url).unwrap_or(otherwise));
            return Ok(Media { mime, source: Source::Url(url), name, field });
        }
        return Err(Error::field(field, "must be a URL that begins with data: or https:"));
    };
    let (head, _) = rest.split_once(',').ok_or_else(|| Error::field(field.clone(), "must be a whole data: URL"))?;
    let Some(kind) = head.strip_suffix(";base64") else {
        return Err(Error::field(field, "must be a data: URL with ;base64"));
    };
    let kind = kind.split(';').next().unwrap_or_default();
    let mime = if kind.is_empty() { Cow::Borrowed(otherwise) } else { cut(&url, 5, 5 + kind.len()) };
    let data = cut(&url, 5 + head.len() + 1, url.len());
    Ok(Media { mime, source: Source::Data(data), name, field })
}

/// The kind of what a URL points to, by its end.
fn mime_of(url: &str) -> Option<&'static str> {
    let path = url.split(['?', '#']).next()?;
    Some(match path.rsplit_once('.')?.1.to_ascii_lowercase().as_str() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "pdf" => "application/pdf",
        "mp3" => "audio/mpeg",
        "wav" => "audio/wav",
        "mp4" => "video/mp4",
        _ => return None,
    })
}

fn read_call<'a>(raw: Raw<'a>, field: &str) -> Result<Call<'a>, Error> {
    let call = Members::of(raw, field)?;
    let function = call.get("function").map(Members::lenient).unwrap_or_default();
    let name = function.text("name").ok_or_else(|| Error::field(format!("{field}.function.name"), "must be a name"))?;
    let arguments = match function.get("arguments") {
        None => Cow::Borrowed("{}"),
        Some(raw) => {
            let wrong = || Error::field(format!("{field}.function.arguments"), "must be a JSON object in a text");
            let text = json::text(raw).ok_or_else(wrong)?;
            if text.trim().is_empty() {
                Cow::Borrowed("{}")
            } else if Members::parse(text.as_bytes()).is_ok() {
                text
            } else {
                // A model wrote it, and the conversation shall go on.
                Cow::Owned(format!("{{\"{INVALID_ARGUMENTS}\":{}}}", raw.get()))
            }
        }
    };
    // Where Google's own OpenAI-compatible API puts it.
    let google = call.get("extra_content").map(Members::lenient).and_then(|extra| extra.get("google"));
    let signature = google.and_then(|raw| Members::lenient(raw).text("thought_signature"));
    Ok(Call { id: call.text("id"), name, arguments, signature })
}

fn read_tool(raw: Raw<'_>, at: usize) -> Result<Tool<'_>, Error> {
    let tool = Members::of(raw, "tools")?;
    let field = |name: &str| format!("tools[{at}].{name}");
    if tool.text("type").is_some_and(|kind| kind != "function") {
        return Err(Error::field(field("type"), "must be function: tools of OpenAI's servers are not translated"));
    }
    let function = tool.get("function").ok_or_else(|| Error::field(field("function"), "must be there"))?;
    let function = Members::of(function, &field("function"))?;
    Ok(Tool {
        name: function.text("name").ok_or_else(|| Error::field(field("function.name"), "must be a name"))?,
        description: function.get("description").and_then(json::inner).filter(|text| !text.is_empty()),
        schema: function.get("parameters").map(Schema::Json),
        strict: function.get("strict").and_then(json::flag),
    })
}

fn read_choice(raw: Raw<'_>) -> Result<Choice<'_>, Error> {
    let wrong = || Error::field("tool_choice", "must be auto, none, required or a function");
    match json::text(raw).as_deref() {
        Some("auto") => Ok(Choice::Auto),
        Some("none") => Ok(Choice::None),
        Some("required") => Ok(Choice::Any),
        Some(_) => Err(wrong()),
        None => {
            let function = Members::of(raw, "tool_choice")?.get("function").map(Members::lenient).unwrap_or_default();
            function.text("name").map(Choice::Named).ok_or_else(wrong)
        }
    }
}

fn settings<'a>(request: &Members<'a>) -> Result<Settings<'a>, Error> {
    let limit = |name| request.get(name).and_then(json::whole);
    let stop = match request.get("stop") {
        Some(raw) if sort(raw) == Sort::Text => vec![raw],
        Some(raw) => json::elements(raw, "stop")?,
        None => Vec::new(),
    };
    let format = match request.get("response_format").map(Members::lenient) {
        Some(format) if format.text("type").as_deref() == Some("json_object") => Format::Json,
        Some(format) if format.text("type").as_deref() == Some("json_schema") => {
            let of = format.get("json_schema").map(Members::lenient).unwrap_or_default();
            let schema = of.get("schema").ok_or(Error::Missing { field: "response_format.json_schema.schema" })?;
            let strict = of.get("strict").and_then(json::flag);
            Format::Schema { name: of.text("name"), schema: Schema::Json(schema), strict }
        }
        _ => Format::Text,
    };
    let thinking = request.text("reasoning_effort").map(|effort| match &*effort {
        "none" => Thinking::Off,
        _ => Thinking::Effort(effort),
    });
    Ok(Settings {
        // The smaller one binds, as in the facts.
        output_tokens_max: limit("max_completion_tokens").into_iter().chain(limit("max_tokens")).min(),
        temperature: request.get("temperature"),
        top_p: request.get("top_p"),
        top_k: request.get("top_k"),
        min_p: request.get("min_p"),
        seed: request.get("seed"),
        frequency_penalty: request.get("frequency_penalty"),
        presence_penalty: request.get("presence_penalty"),
        stop,
        format,
        thinking,
        user: request.text("user"),
        service_tier: request.text("service_tier"),
    })
}
