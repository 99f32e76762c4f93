//! Gemini's `generateContent`, read. Names come as `camelCase` and, as Google's servers take it, as `snake_case`.

use std::borrow::Cow;

use super::conversation::{
    Answered, Call, Choice, Content, Conversation, Format, Media, Part, Schema, Settings, Source, Thinking, Tool,
};
use crate::dialect::Error;
use crate::dialect::json::{self, Members, Raw, Sort, sort};

/// A member under either of its names.
fn either<'a>(of: &Members<'a>, camel: &str, snake: &str) -> Option<Raw<'a>> {
    of.get(camel).or_else(|| of.get(snake))
}

/// Members that are read, or that say nothing to another dialect.
const KNOWN: [&str; 15] = [
    "model",
    "contents",
    "systemInstruction",
    "system_instruction",
    "tools",
    "toolConfig",
    "tool_config",
    "generationConfig",
    "generation_config",
    "cachedContent",
    "cached_content",
    "safetySettings",
    "safety_settings",
    "labels",
    "store",
];

pub(super) fn read(body: &[u8]) -> Result<Conversation<'_>, Error> {
    let request = Members::parse(body).map_err(|error| Error::request(&error))?;
    let mut said = Conversation::default();
    if let Some(system) = either(&request, "systemInstruction", "system_instruction") {
        let mut parts = Vec::new();
        read_parts(&Members::of(system, "systemInstruction")?, "systemInstruction", &mut |part| parts.push(part))?;
        said.system = parts;
    }
    let contents = request.get("contents").ok_or(Error::Missing { field: "contents" })?;
    // One content in the place of a list is taken by Google's servers too.
    let contents = if sort(contents) == Sort::Object { vec![contents] } else { json::elements(contents, "contents")? };
    for (at, content) in contents.into_iter().enumerate() {
        let field = format!("contents[{at}]");
        let content = Members::of(content, &field)?;
        let model = match content.text("role").as_deref() {
            None | Some("user" | "function" | "tool" | "") => false,
            Some("model") => true,
            Some(_) => return Err(Error::field(field + ".role", "must be user or model")),
        };
        read_parts(&content, &field, &mut |part| said.say(model, part))?;
    }
    said.name_calls();
    if let Some(tools) = request.get("tools") {
        for (at, tool) in json::elements(tools, "tools")?.into_iter().enumerate() {
            let tool = Members::of(tool, "tools")?;
            for (name, raw) in tool.iter().filter(|(_, raw)| raw.get() != "null") {
                if !matches!(name, "functionDeclarations" | "function_declarations") {
                    let expected = "must be functionDeclarations: tools of Google's servers are not translated";
                    return Err(Error::field(format!("tools[{at}].{name}"), expected));
                }
                for declared in json::elements(raw, "tools.functionDeclarations")? {
                    said.tools.push(read_tool(declared, at)?);
                }
            }
        }
    }
    let config = either(&request, "toolConfig", "tool_config").map(Members::lenient).unwrap_or_default();
    let calling = either(&config, "functionCallingConfig", "function_calling_config").map(Members::lenient);
    if let Some(calling) = calling {
        let allowed = either(&calling, "allowedFunctionNames", "allowed_function_names");
        let mut allowed = allowed.map(json::lenient_elements).unwrap_or_default().into_iter().filter_map(json::text);
        let only = allowed.next().filter(|_| allowed.next().is_none());
        said.choice = match calling.text("mode").as_deref() {
            Some("ANY" | "any") => Some(only.map_or(Choice::Any, Choice::Named)),
            Some("NONE" | "none") => Some(Choice::None),
            Some("AUTO" | "auto" | "VALIDATED") => Some(Choice::Auto),
            _ => None,
        };
    }
    let config = either(&request, "generationConfig", "generation_config").map(Members::lenient).unwrap_or_default();
    said.settings = settings(&config)?;
    if either(&config, "candidateCount", "candidate_count").and_then(json::whole).is_some_and(|n| n > 1) {
        said.impossible.push(("generationConfig.candidateCount", "only one answer can be asked for"));
    }
    if either(&config, "responseLogprobs", "response_logprobs").and_then(json::flag) == Some(true) {
        said.impossible.push(("generationConfig.responseLogprobs", "it does not tell probabilities"));
    }
    let modalities = either(&config, "responseModalities", "response_modalities").map(json::lenient_elements);
    if modalities.unwrap_or_default().into_iter().filter_map(json::text).any(|kind| !kind.eq_ignore_ascii_case("text"))
    {
        said.impossible.push(("generationConfig.responseModalities", "answers are text"));
    }
    if either(&request, "cachedContent", "cached_content").is_some() {
        said.impossible.push(("cachedContent", "it is kept by Google's servers"));
    }
    said.pass_through(&request, &KNOWN);
    for name in ["safetySettings", "safety_settings", "labels"] {
        if request.get(name).is_some() {
            said.left_out.push(name.to_owned());
        }
    }
    Ok(said)
}

fn read_parts<'a>(content: &Members<'a>, field: &str, say: &mut dyn FnMut(Part<'a>)) -> Result<(), Error> {
    let parts = content.get("parts").ok_or_else(|| Error::field(format!("{field}.parts"), "must be there"))?;
    let parts = if sort(parts) == Sort::Object { vec![parts] } else { json::elements(parts, field)? };
    for (at, part) in parts.into_iter().enumerate() {
        let here = format!("{field}.parts[{at}]");
        let part = Members::of(part, &here)?;
        let signature = either(&part, "thoughtSignature", "thought_signature").and_then(json::text);
        if let Some(text) = part.get("text") {
            let text = json::inner(text).ok_or_else(|| Error::field(format!("{here}.text"), "must be a text"))?;
            if part.get("thought").and_then(json::flag) == Some(true) {
                say(Part::Thought { text: Cow::Borrowed(text), signature });
            } else if !text.is_empty() {
                say(Part::Text { text, signature });
            }
        } else if let Some(data) = either(&part, "inlineData", "inline_data") {
            let data = Members::of(data, &here)?;
            let mime = either(&data, "mimeType", "mime_type").and_then(json::text);
            let mime = mime.ok_or_else(|| Error::field(format!("{here}.inlineData.mimeType"), "must be there"))?;
            let name = either(&data, "displayName", "display_name").and_then(json::text);
            let data = data.text("data");
            let data = data.ok_or_else(|| Error::field(format!("{here}.inlineData.data"), "must be base64"))?;
            say(Part::Media(Media { mime, source: Source::Data(data), name, field: here }));
        } else if let Some(file) = either(&part, "fileData", "file_data") {
            let file = Members::of(file, &here)?;
            let url = either(&file, "fileUri", "file_uri").and_then(json::text);
            let url = url.ok_or_else(|| Error::field(format!("{here}.fileData.fileUri"), "must be a URL"))?;
            let mime = either(&file, "mimeType", "mime_type").and_then(json::text);
            let mime = mime.unwrap_or(Cow::Borrowed("application/octet-stream"));
            say(Part::Media(Media { mime, source: Source::Url(url), name: None, field: here }));
        } else if let Some(call) = either(&part, "functionCall", "function_call") {
            let call = Members::of(call, &here)?;
            let name = call.text("name");
            let name = name.ok_or_else(|| Error::field(format!("{here}.functionCall.name"), "must be a name"))?;
            let arguments = match call.get("args") {
                Some(args) if sort(args) == Sort::Object => Cow::Borrowed(args.get()),
                None => Cow::Borrowed("{}"),
                Some(_) => return Err(Error::field(here + ".functionCall.args", "must be an object")),
            };
            say(Part::Call(Call { id: call.text("id"), name, arguments, signature }));
        } else if let Some(result) = either(&part, "functionResponse", "function_response") {
            let result = Members::of(result, &here)?;
            let object = result.get("response").filter(|raw| sort(raw) == Sort::Object);
            let wrong = || Error::field(format!("{here}.functionResponse.response"), "must be an object");
            let object = object.ok_or_else(wrong)?;
            say(Part::Result(Answered {
                id: result.text("id"),
                name: result.text("name"),
                failed: Members::lenient(object).get("error").is_some(),
                content: Content::Object(object),
                field: here + ".functionResponse",
            }));
        } else if signature.is_none() {
            // A part with a signature alone is how a stream ends.
            return Err(Error::field(here, "must be text, inlineData, fileData, functionCall or functionResponse"));
        }
    }
    Ok(())
}

fn read_tool(raw: Raw<'_>, at: usize) -> Result<Tool<'_>, Error> {
    let tool = Members::of(raw, "tools.functionDeclarations")?;
    let name = tool.text("name");
    let schema = either(&tool, "parametersJsonSchema", "parameters_json_schema").map(Schema::Json);
    Ok(Tool {
        name: name.ok_or_else(|| Error::field(format!("tools[{at}].functionDeclarations.name"), "must be a name"))?,
        description: tool.get("description").and_then(json::inner).filter(|text| !text.is_empty()),
        schema: schema.or_else(|| tool.get("parameters").map(Schema::OpenApi)),
        strict: None,
    })
}

fn settings<'a>(config: &Members<'a>) -> Result<Settings<'a>, Error> {
    let stop = either(config, "stopSequences", "stop_sequences");
    let mime = either(config, "responseMimeType", "response_mime_type").and_then(json::text);
    let schema = either(config, "responseJsonSchema", "response_json_schema").map(Schema::Json);
    let schema = schema.or_else(|| either(config, "responseSchema", "response_schema").map(Schema::OpenApi));
    let format = match schema {
        Some(schema) => Format::Schema { name: None, schema, strict: None },
        None if mime.as_deref() == Some("application/json") => Format::Json,
        None => Format::Text,
    };
    let thinking = either(config, "thinkingConfig", "thinking_config").map(Members::lenient).unwrap_or_default();
    let level = either(&thinking, "thinkingLevel", "thinking_level").and_then(json::text);
    let budget = either(&thinking, "thinkingBudget", "thinking_budget");
    let thinking = match (level, budget.map(|raw| (json::whole(raw), raw.get()))) {
        (Some(level), _) => Some(Thinking::Effort(Cow::Owned(level.to_ascii_lowercase()))),
        (None, Some((Some(0), _))) => Some(Thinking::Off),
        (None, Some((Some(tokens), _))) => Some(Thinking::Tokens(tokens)),
        (None, Some((None, "-1"))) => Some(Thinking::Adaptive),
        _ => None,
    };
    Ok(Settings {
        output_tokens_max: either(config, "maxOutputTokens", "max_output_tokens").and_then(json::whole),
        temperature: config.get("temperature"),
        top_p: either(config, "topP", "top_p"),
        top_k: either(config, "topK", "top_k"),
        seed: config.get("seed"),
        frequency_penalty: either(config, "frequencyPenalty", "frequency_penalty"),
        presence_penalty: either(config, "presencePenalty", "presence_penalty"),
        stop: stop.map(|raw| json::elements(raw, "generationConfig.stopSequences")).transpose()?.unwrap_or_default(),
        format,
        thinking,
        ..Settings::default()
    })
}
