//! Google's interactions, read: a text, steps, or what a user shows, in any order.

use std::borrow::Cow;

use super::SIGNATURE_MARK;
use super::conversation::{
    Answered, Call, Choice, Content, Conversation, Format, Media, Part, Schema, Settings, Source, Thinking, Tool,
};
use super::from_chat::of_url;
use crate::dialect::interactions::{self, Signed, Wanted};
use crate::dialect::json::{self, Members, Raw, Sort, sort};
use crate::dialect::{Dialect, Error};

/// Members that are read, or that say nothing to another dialect: nothing is stored here, as if nobody asked for it.
const KNOWN: [&str; 11] = [
    "model",
    "input",
    "system_instruction",
    "tools",
    "generation_config",
    "response_format",
    "response_mime_type",
    "response_modalities",
    "service_tier",
    "stream",
    "store",
];

/// Members that only advise.
const ADVICE: [&str; 2] = ["safety_settings", "labels"];

/// What Google's own servers keep or do, and why nobody else does.
const THEIRS: [(&str, &str); 8] = [
    ("previous_interaction_id", "it keeps nothing between requests; send the whole conversation as `input`"),
    ("continuation_token", "it keeps nothing between requests; send the whole conversation as `input`"),
    ("cached_content", "it is kept by Google's servers"),
    ("agent_config", "agents run on Google's own servers"),
    ("environment", "only Google's own servers have environments"),
    ("environment_id", "only Google's own servers have environments"),
    ("webhook_config", "it answers at once or not at all"),
    ("background", "it answers at once or not at all"),
];

/// The settings that are read. What else stands beside them is for sound, pictures and films, or newer than this file.
const SETTINGS: [&str; 8] = [
    "max_output_tokens",
    "temperature",
    "top_p",
    "seed",
    "stop_sequences",
    "thinking_level",
    "thinking_summaries",
    "tool_choice",
];

pub(super) fn read(body: &[u8], to: Dialect) -> Result<Conversation<'_>, Error> {
    let request = Members::parse(body).map_err(|error| Error::request(&error))?;
    let mut said = Conversation::default();
    for (name, why) in THEIRS {
        if request.get(name).is_some_and(|raw| raw.get() != "false") {
            said.impossible.push((name, why));
        }
    }
    if let Some(text) = request.get("system_instruction") {
        let text = json::inner(text).ok_or_else(|| Error::field("system_instruction", "must be a text"))?;
        said.system.push(Part::Text { text, signature: None });
    }
    let input = request.get("input").ok_or(Error::Missing { field: "input" })?;
    match (json::inner(input), sort(input)) {
        (Some(text), _) => said.say(false, Part::Text { text, signature: None }),
        (None, Sort::Object) => read_step(&mut said, &Members::of(input, "input")?, "input")?,
        (None, _) => {
            for (at, step) in json::elements(input, "input")?.into_iter().enumerate() {
                read_step(&mut said, &Members::of(step, "input")?, &format!("input[{at}]"))?;
            }
        }
    }
    said.name_calls();
    let tools = request.get("tools").map(|raw| json::elements(raw, "tools")).transpose()?;
    for (at, tool) in tools.into_iter().flatten().enumerate() {
        said.tools.push(read_tool(tool, &format!("tools[{at}]"), to)?);
    }
    let config = request.get("generation_config").map(|raw| Members::of(raw, "generation_config")).transpose()?;
    let config = config.unwrap_or_default();
    if let Some(choice) = config.get("tool_choice") {
        read_choice(&mut said, choice)?;
    }
    let format = read_format(&mut said, &request);
    said.settings = settings(&request, &config, format)?;
    let others = config.iter().filter(|(name, raw)| raw.get() != "null" && !SETTINGS.contains(name));
    said.left_out.extend(others.map(|(name, _)| format!("generation_config.{name}")));
    said.left_out.extend(ADVICE.iter().filter(|name| request.get(name).is_some()).map(|name| (*name).to_owned()));
    let theirs = THEIRS.map(|(name, _)| name);
    said.pass_through(&request, &[&KNOWN[..], &ADVICE, &theirs].concat());
    Ok(said)
}

/// A step, or something that the user shows without one.
fn read_step<'a>(said: &mut Conversation<'a>, step: &Members<'a>, here: &str) -> Result<(), Error> {
    let field = |name: &str| format!("{here}.{name}");
    match step.text("type").as_deref() {
        Some(kind @ ("user_input" | "model_output")) => {
            let content = step.get("content").map(|raw| contents(raw, &field("content"))).transpose()?;
            for (at, content) in content.unwrap_or_default().into_iter().enumerate() {
                let part = read_content(content, format!("{here}.content[{at}]"))?;
                said.say(kind == "model_output", part);
            }
        }
        Some("thought") => read_thought(said, step, here)?,
        Some("function_call") => {
            let name = step.text("name").ok_or_else(|| Error::field(field("name"), "must be a name"))?;
            let arguments = match step.get("arguments") {
                Some(raw) if sort(raw) == Sort::Object => Cow::Borrowed(raw.get()),
                None => Cow::Borrowed("{}"),
                Some(_) => return Err(Error::field(field("arguments"), "must be an object")),
            };
            said.say(true, Part::Call(Call { id: step.text("id"), name, arguments, signature: None }));
        }
        Some("function_result") => {
            let result = step.get("result").ok_or_else(|| Error::field(field("result"), "must be there"))?;
            let content = match (json::inner(result), sort(result)) {
                (Some(text), _) => Content::Parts(vec![Part::Text { text, signature: None }]),
                (None, Sort::Object) => Content::Object(result),
                (None, _) => {
                    let all = json::elements(result, &field("result"))?.into_iter().enumerate();
                    let parts = all.map(|(at, raw)| read_content(raw, format!("{here}.result[{at}]")));
                    Content::Parts(parts.collect::<Result<_, _>>()?)
                }
            };
            let answered = Answered {
                id: step.text("call_id"),
                name: step.text("name"),
                content,
                failed: step.get("is_error").and_then(json::flag).unwrap_or(false),
                field: field("call_id"),
            };
            said.say(false, Part::Result(answered));
        }
        Some("text" | "image" | "audio" | "document" | "video") => {
            let part = content_of(step, here.to_owned())?;
            said.say(false, part);
        }
        _ => {
            let expected = "must be user_input, model_output, thought, function_call, function_result or a kind of \
                            content: steps of tools that Google's own servers run are not translated";
            return Err(Error::field(field("type"), expected));
        }
    }
    Ok(())
}

/// What stands in a step; one in the place of a list is taken.
fn contents<'a>(raw: Raw<'a>, field: &str) -> Result<Vec<Raw<'a>>, Error> {
    if sort(raw) == Sort::Object { Ok(vec![raw]) } else { json::elements(raw, field) }
}

fn read_content(raw: Raw<'_>, here: String) -> Result<Part<'_>, Error> {
    content_of(&Members::of(raw, &here)?, here)
}

fn content_of<'a>(content: &Members<'a>, here: String) -> Result<Part<'a>, Error> {
    let otherwise = match content.text("type").as_deref() {
        Some("text") => {
            let text = content.get("text").and_then(json::inner);
            let text = text.ok_or_else(|| Error::field(here + ".text", "must be a text"))?;
            return Ok(Part::Text { text, signature: None });
        }
        Some("image") => "image/jpeg",
        Some("audio") => "audio/wav",
        Some("document") => "application/pdf",
        Some("video") => "video/mp4",
        _ => return Err(Error::field(here + ".type", "must be text, image, audio, document or video")),
    };
    let mime = content.text("mime_type").filter(|mime| !mime.is_empty());
    if let Some(data) = content.text("data").filter(|data| !data.is_empty()) {
        let mime = mime.ok_or_else(|| Error::field(format!("{here}.mime_type"), "must be there"))?;
        return Ok(Part::Media(Media { mime, source: Source::Data(data), name: None, field: here }));
    }
    let uri = content.text("uri").ok_or_else(|| Error::field(format!("{here}.data"), "must be base64"))?;
    let mut media = of_url(uri, otherwise, None, here)?;
    if let (Source::Url(_), Some(mime)) = (&media.source, mime) {
        media.mime = mime;
    }
    Ok(Part::Media(media))
}

/// A thought and its signature. The summary comes back in as many pieces as it was streamed in.
fn read_thought<'a>(said: &mut Conversation<'a>, step: &Members<'a>, here: &str) -> Result<(), Error> {
    let field = format!("{here}.summary");
    let mut text = Cow::Borrowed("");
    for piece in step.get("summary").map(|raw| contents(raw, &field)).transpose()?.unwrap_or_default() {
        match Members::of(piece, &field)?.get("text").and_then(json::inner) {
            Some(more) if text.is_empty() => text = Cow::Borrowed(more),
            Some(more) => text.to_mut().push_str(more),
            None => {}
        }
    }
    let plain = |inner: &str| serde_json::from_str::<String>(&format!("\"{inner}\"")).unwrap_or_default();
    let signature = match step.get("signature").and_then(json::inner).and_then(interactions::read) {
        Some(Signed::Redacted(data)) => {
            said.say(true, Part::Redacted(data));
            return Ok(());
        }
        Some(Signed::Google(inner)) => Some(Cow::Owned(format!("{SIGNATURE_MARK}{}", plain(inner)))),
        Some(Signed::Claude(inner)) => Some(Cow::Owned(plain(inner))),
        None => None,
    };
    said.say(true, Part::Thought { text, signature });
    Ok(())
}

fn read_tool<'a>(raw: Raw<'a>, here: &str, to: Dialect) -> Result<Tool<'a>, Error> {
    let tool = Members::of(raw, here)?;
    match tool.text("type").as_deref() {
        Some("function") => {}
        Some(_) => {
            let why = "only Google's own servers have this tool; offer a function";
            return Err(Error::Unsupported { field: here.to_owned(), to, why });
        }
        None => return Err(Error::field(format!("{here}.type"), "must be function")),
    }
    Ok(Tool {
        name: tool.text("name").ok_or_else(|| Error::field(format!("{here}.name"), "must be a name"))?,
        description: tool.get("description").and_then(json::inner).filter(|text| !text.is_empty()),
        schema: tool.get("parameters").map(Schema::Json),
        strict: None,
    })
}

/// A word, or a word for some of the tools: then only these are offered.
fn read_choice<'a>(said: &mut Conversation<'a>, raw: Raw<'a>) -> Result<(), Error> {
    let allowed = (sort(raw) == Sort::Object).then(|| Members::lenient(raw).get("allowed_tools")).flatten();
    let allowed = allowed.map(Members::lenient).unwrap_or_default();
    let names: Vec<_> = allowed.get("tools").map(json::lenient_elements).unwrap_or_default();
    let names: Vec<_> = names.into_iter().filter_map(json::text).collect();
    let mode = if sort(raw) == Sort::Object { allowed.text("mode") } else { json::text(raw) };
    let choice = match mode.as_deref() {
        Some("auto" | "validated") => Choice::Auto,
        Some("none") => Choice::None,
        Some("any") => match &names[..] {
            [only] => Choice::Named(only.clone()),
            _ => Choice::Any,
        },
        _ => return Err(Error::field("generation_config.tool_choice", "must be auto, any, none or validated")),
    };
    if !names.is_empty() && !matches!(choice, Choice::None) {
        said.tools.retain(|tool| names.contains(&tool.name));
    }
    said.choice = Some(choice);
    Ok(())
}

/// The form of the answer.
fn read_format<'a>(said: &mut Conversation<'a>, request: &Members<'a>) -> Format<'a> {
    let modalities = request.get("response_modalities").map(json::lenient_elements).unwrap_or_default();
    if modalities.into_iter().filter_map(json::text).any(|kind| !kind.eq_ignore_ascii_case("text")) {
        said.impossible.push(("response_modalities", "answers are text"));
    }
    match interactions::wanted(request.get("response_format"), request.get("response_mime_type")) {
        Wanted::Text => Format::Text,
        Wanted::Json => Format::Json,
        Wanted::Schema(schema) => Format::Schema { name: None, schema: Schema::Json(schema), strict: None },
        Wanted::Media => {
            said.impossible.push(("response_format", "answers are text"));
            Format::Text
        }
    }
}

fn settings<'a>(request: &Members<'a>, config: &Members<'a>, format: Format<'a>) -> Result<Settings<'a>, Error> {
    let stop = config.get("stop_sequences").map(|raw| json::elements(raw, "generation_config.stop_sequences"));
    let thinking = match config.text("thinking_level") {
        Some(level) => Some(Thinking::Effort(Cow::Owned(level.to_ascii_lowercase()))),
        // Nobody can tell thoughts of a model that does not think.
        None if config.text("thinking_summaries").as_deref() == Some("auto") => Some(Thinking::Adaptive),
        None => None,
    };
    Ok(Settings {
        output_tokens_max: config.get("max_output_tokens").and_then(json::whole),
        temperature: config.get("temperature"),
        top_p: config.get("top_p"),
        seed: config.get("seed"),
        stop: stop.transpose()?.unwrap_or_default(),
        format,
        thinking,
        service_tier: request.text("service_tier").map(|tier| match &*tier {
            // Google's word for the ordinary one.
            "standard" => Cow::Borrowed("default"),
            _ => tier,
        }),
        ..Settings::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::dialect::Target;
    use crate::dialect::talk::tests::{conversation, written};

    fn sent(to: Dialect, body: &Value) -> (Value, Vec<String>) {
        written(Dialect::Interactions, Target::new(to, "gemini-3-pro"), body).unwrap()
    }

    #[test]
    fn steps_become_contents_of_generate_content() {
        let (body, left_out) = sent(Dialect::Gemini, &conversation(Dialect::Interactions));
        assert_eq!(
            body["contents"],
            json!([
                {"role": "user", "parts": [
                    {"text": "What is \"this\"?\n"},
                    {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}]},
                {"role": "model", "parts": [
                    {"functionCall": {"name": "look", "args": {"line": 4}}, "thoughtSignature": "Sig="}]},
                {"role": "user", "parts": [
                    {"functionResponse": {"name": "look", "response": {"output": "hot"}}}, {"text": "Well?"}]}])
        );
        assert!(left_out.is_empty(), "{left_out:?}");
    }

    #[test]
    fn a_text_alone_and_a_picture_alone_are_what_the_user_says() {
        let (body, _) = sent(Dialect::Gemini, &json!({"model": "m", "input": "Hi", "store": true}));
        assert_eq!(body["contents"], json!([{"role": "user", "parts": [{"text": "Hi"}]}]));
        assert!(body.get("store").is_none());
        let picture = json!({"type": "image", "uri": "https://example.org/a.png"});
        for input in [picture.clone(), json!([picture])] {
            let (body, _) = sent(Dialect::Gemini, &json!({"model": "m", "input": input}));
            let file = json!({"fileData": {"mimeType": "image/png", "fileUri": "https://example.org/a.png"}});
            assert_eq!(body["contents"][0]["parts"], json!([file]));
        }
    }

    #[test]
    fn sound_documents_and_films_come_with_their_kind() {
        let file = |kind: &str, mime: &str| json!({"type": kind, "mime_type": mime, "data": "QUJD"});
        let content =
            json!([file("audio", "audio/mp3"), file("document", "application/pdf"), file("video", "video/webm")]);
        let body = json!({"model": "m", "input": [{"type": "user_input", "content": content}]});
        let facts_of = bytes::Bytes::from(body.to_string());
        let facts =
            crate::dialect::Facts::read(Dialect::Interactions, crate::dialect::Operation::Chat, &facts_of).unwrap();
        assert_eq!((facts.audio, facts.files, facts.images), (1, 2, 0));
        let (body, _) = sent(Dialect::Gemini, &body);
        let kinds: Vec<_> = body["contents"][0]["parts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|part| &part["inlineData"]["mimeType"])
            .collect();
        assert_eq!(kinds, ["audio/mp3", "application/pdf", "video/webm"]);
    }

    #[test]
    fn nobodys_signature_goes_to_somebody_else() {
        let mut body = conversation(Dialect::Interactions);
        let claude = |body: &Value| {
            let to = Target::new(Dialect::Anthropic, "claude");
            written(Dialect::Interactions, to, body).unwrap().0["messages"][1]["content"].clone()
        };
        assert_eq!(claude(&body)[0]["type"], "tool_use", "Google's stays behind");
        let bedrock = Target::new(Dialect::Bedrock, "anthropic.claude-sonnet-4");
        let (sent_there, _) = written(Dialect::Interactions, bedrock, &body).unwrap();
        assert!(!sent_there.to_string().contains("Sig="), "{sent_there}");
        let thought = json!({"type": "thought", "signature": interactions::claudes("Cl="),
            "summary": [{"type": "text", "text": "h"}, {"type": "text", "text": "m"}]});
        body["input"][1] = thought;
        assert_eq!(claude(&body)[0], json!({"type": "thinking", "thinking": "hm", "signature": "Cl="}));
        let google = sent(Dialect::Gemini, &body).0["contents"][1]["parts"][0]["thoughtSignature"].clone();
        assert_eq!(google, "skip_thought_signature_validator");
        body["input"][1] = json!({"type": "thought", "signature": interactions::redacted("Zz=")});
        assert_eq!(claude(&body)[0], json!({"type": "redacted_thinking", "data": "Zz="}));
    }

    #[test]
    fn results_may_be_objects_texts_pictures_and_failures() {
        let mut body = conversation(Dialect::Interactions);
        let response =
            |body: &Value| sent(Dialect::Gemini, body).0["contents"][2]["parts"][0]["functionResponse"].clone();
        body["input"][3]["result"] = json!({"c": 71});
        assert_eq!(response(&body)["response"], json!({"c": 71}));
        body["input"][3]["is_error"] = json!(true);
        assert_eq!(response(&body)["response"], json!({"error": {"c": 71}}));
        body["input"][3]["result"] = json!([{"type": "text", "text": "burnt"}]);
        assert_eq!(response(&body)["response"], json!({"error": "burnt"}));
        let mut claude = written(Dialect::Interactions, Target::new(Dialect::Anthropic, "c"), &body).unwrap().0;
        assert_eq!(claude["messages"][2]["content"][0]["is_error"].take(), json!(true));
    }

    #[test]
    fn settings_are_said_in_the_others_words() {
        let mut body = conversation(Dialect::Interactions);
        body["generation_config"] = json!({"thinking_level": "LOW", "thinking_summaries": "none", "seed": 7,
            "tool_choice": {"allowed_tools": {"mode": "any", "tools": ["look"]}}, "speech_config": {}});
        body["response_format"] =
            json!({"type": "text", "mime_type": "application/json", "schema": {"type": "object"}});
        body["service_tier"] = json!("standard");
        body["labels"] = json!({"a": "b"});
        let (body, left_out) = written(Dialect::Interactions, Target::new(Dialect::Chat, "gpt-5"), &body).unwrap();
        assert_eq!(left_out, ["generation_config.speech_config", "labels"]);
        assert_eq!((&body["reasoning_effort"], &body["seed"]), (&json!("low"), &json!(7)));
        assert_eq!(body["tool_choice"], json!({"type": "function", "function": {"name": "look"}}));
        assert_eq!(body["response_format"]["json_schema"]["schema"], json!({"type": "object"}));
        assert_eq!(body["service_tier"], "default");
    }

    #[test]
    fn only_tools_that_are_allowed_are_offered() {
        let mut body = conversation(Dialect::Interactions);
        body["tools"].as_array_mut().unwrap().push(json!({"type": "function", "name": "stop"}));
        body["generation_config"]["tool_choice"] = json!({"allowed_tools": {"mode": "auto", "tools": ["stop"]}});
        let (body, _) = written(Dialect::Interactions, Target::new(Dialect::Chat, "m"), &body).unwrap();
        assert_eq!((body["tools"].as_array().unwrap().len(), &body["tool_choice"]), (1, &json!("auto")));
        assert_eq!(body["tools"][0]["function"]["name"], "stop");
    }

    #[test]
    fn what_google_keeps_or_runs_is_refused_by_its_name() {
        for (member, value) in [
            ("previous_interaction_id", json!("v1_x")),
            ("background", json!(true)),
            ("cached_content", json!("cachedContents/x")),
            ("response_modalities", json!(["text", "image"])),
            ("response_format", json!({"type": "audio"})),
            ("tools[0]", json!([{"type": "google_search"}])),
        ] {
            let mut body = conversation(Dialect::Interactions);
            body[member.split('[').next().unwrap()] = value;
            for to in [Dialect::Gemini, Dialect::Chat] {
                let error = written(Dialect::Interactions, Target::new(to, "m"), &body).unwrap_err();
                assert!(matches!(&error, Error::Unsupported { field, .. } if field == member), "{error}");
            }
        }
        let body =
            json!({"model": "m", "input": "Hi", "background": false, "store": false, "previous_interaction_id": null});
        sent(Dialect::Gemini, &body);
        let error =
            written(Dialect::Interactions, Target::new(Dialect::Chat, "m"), &json!({"agent": "a", "input": "Hi"}));
        assert!(matches!(error.unwrap_err(), Error::Field { field, .. } if field == "agent"));
        let searched = json!({"model": "m", "input": [{"type": "google_search_call", "id": "1"}]});
        let error = written(Dialect::Interactions, Target::new(Dialect::Gemini, "m"), &searched).unwrap_err();
        assert!(matches!(&error, Error::Field { field, .. } if field == "input[0].type"), "{error}");
    }
}
