//! Requests for Gemini's `generateContent` (v1beta, and Vertex AI's v1, which has the same bodies).

use std::borrow::Cow;

use super::conversation::{
    Answered, Call, Choice, Content, Conversation, Format, Media, Part, Schema, Settings, Source, Thinking, joined,
};
use crate::dialect::json::{self, Members};
use crate::dialect::pair::{Outgoing, Target};
use crate::dialect::write::{Array, Object, string};
use crate::dialect::{Dialect, Error};

/// Before a signature of Gemini's where another dialect keeps it, so that nobody else's is sent to Google.
pub(crate) const SIGNATURE_MARK: &str = "gemini.";
/// What Google takes in place of a signature for calls that no Gemini made.
const NO_SIGNATURE: &str = "skip_thought_signature_validator";

pub(super) fn write(mut said: Conversation<'_>, to: &Target<'_>) -> Result<Outgoing, Error> {
    said.with_a_turn();
    let settings = &said.settings;
    let given = [
        (settings.min_p.is_some(), "min_p"),
        (settings.user.is_some(), "user"),
        (settings.service_tier.is_some(), "service_tier"),
        (said.parallel == Some(false), "parallel_tool_calls"),
        (said.tools.iter().any(|tool| tool.strict == Some(true)), "tools.strict"),
    ];
    said.leave_out(&given);
    let mut body = Vec::with_capacity(1_024);
    {
        let mut request = Object::new(&mut body);
        if !said.system.is_empty() {
            let mut system = request.object("systemInstruction");
            let mut parts = system.array("parts");
            for part in &said.system {
                write_part(&said, part, to, &mut None, &mut parts)?;
            }
        }
        {
            let mut contents = request.array("contents");
            for turn in &said.turns {
                let mut content = contents.object();
                content.text("role", if turn.model { "model" } else { "user" });
                let mut signature = None;
                let mut parts = content.array("parts");
                let mut called = false;
                for part in &turn.parts {
                    let unsigned = matches!(part, Part::Call(_)) && !std::mem::replace(&mut called, true);
                    if unsigned && signature.is_none() && wants_signatures(to.model) {
                        signature = Some(Cow::Borrowed(NO_SIGNATURE));
                    }
                    write_part(&said, part, to, &mut signature, &mut parts)?;
                }
            }
        }
        write_tools(&said, &mut request);
        write_settings(&said.settings, to, &mut request);
        said.unknown.iter().for_each(|(name, raw)| request.raw(name, raw));
    }
    Ok(Outgoing { body: body.into(), left_out: said.left_out })
}

/// Whether the model refuses calls of its own without their signature: those of the third generation and after do.
fn wants_signatures(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    let generation = name.strip_prefix("gemini-").and_then(|rest| rest.split(['.', '-']).next());
    generation.and_then(|number| number.parse::<u32>().ok()).is_some_and(|number| number >= 3)
}

/// Writes a piece. `pending` is the signature of a thought, which Gemini has at the part after it.
fn write_part<'a>(
    said: &'a Conversation<'a>,
    part: &'a Part<'a>,
    to: &Target<'_>,
    pending: &mut Option<Cow<'a, str>>,
    parts: &mut Array<'_>,
) -> Result<(), Error> {
    let mut sign = |own: Option<&Cow<'a, str>>, part: &mut Object<'_>| {
        let waiting = pending.take();
        if let Some(signature) = own.cloned().or(waiting) {
            part.text("thoughtSignature", &signature);
        }
    };
    match part {
        Part::Text { text, signature } => {
            let mut part = parts.object();
            part.escaped("text", text);
            sign(signature.as_ref(), &mut part);
        }
        Part::Media(media) => write_media(media, parts),
        // Google does not want thoughts back, and nobody else's can be read there.
        Part::Thought { signature, .. } => {
            let own = signature.as_deref().and_then(|signature| signature.strip_prefix(SIGNATURE_MARK));
            if let Some(own) = own {
                *pending = Some(Cow::Owned(own.to_owned()));
            }
        }
        Part::Redacted(_) | Part::CachePoint(_) => {}
        Part::Call(Call { id, name, arguments, signature }) => {
            let mut part = parts.object();
            {
                let mut call = part.object("functionCall");
                if let Some(id) = id.as_deref().filter(|id| is_googles(id)) {
                    call.text("id", id);
                }
                call.text("name", name);
                call.json("args", arguments);
            }
            sign(signature.as_ref(), &mut part);
        }
        Part::Result(answered) => write_result(said, answered, to, parts)?,
    }
    Ok(())
}

/// Whether Google made the id; those that others or this gateway made are not known there.
fn is_googles(id: &str) -> bool {
    !["call_", "toolu", "tooluse_", "chatcmpl", "fc_"].iter().any(|mark| id.starts_with(mark))
}

fn write_media(media: &Media<'_>, parts: &mut Array<'_>) {
    let mut part = parts.object();
    match &media.source {
        Source::Data(data) => {
            let mut blob = part.object("inlineData");
            blob.text("mimeType", &media.mime);
            blob.text("data", data);
        }
        Source::Url(url) => {
            let mut file = part.object("fileData");
            file.text("mimeType", &media.mime);
            file.text("fileUri", url);
        }
        Source::Text(text) => part.escaped("text", text),
    }
}

fn write_result(
    said: &Conversation<'_>,
    answered: &Answered<'_>,
    to: &Target<'_>,
    parts: &mut Array<'_>,
) -> Result<(), Error> {
    let by_id = || answered.id.as_deref().and_then(|id| said.name_of(id));
    let name = answered.name.as_deref().or_else(by_id).ok_or_else(|| Error::Unsupported {
        field: answered.field.clone(),
        to: to.dialect,
        why: "results have the name of their tool there, and no call in the conversation has this id",
    })?;
    let mut media = Vec::new();
    {
        let mut part = parts.object();
        let mut response = part.object("functionResponse");
        if let Some(id) = answered.id.as_deref().filter(|id| is_googles(id)) {
            response.text("id", id);
        }
        response.text("name", name);
        let mut texts = Vec::new();
        match &answered.content {
            // Google sees in the object itself whether the tool failed.
            Content::Object(object) if answered.failed && Members::lenient(object).get("error").is_none() => {
                response.object("response").raw("error", object);
            }
            Content::Object(object) => response.raw("response", object),
            Content::Parts(all) => {
                for part in all {
                    match part {
                        Part::Media(picture) => media.push(picture),
                        Part::Text { text, .. } => texts.push(Part::Text { text, signature: None }),
                        _ => {}
                    }
                }
                let text = joined(&Content::Parts(texts)).unwrap_or_default();
                let plain: Option<String> = serde_json::from_str(&format!("\"{text}\"")).ok();
                match plain.filter(|plain| !answered.failed && Members::parse(plain.as_bytes()).is_ok()) {
                    // An object is one; anything else goes under the name that Google documents.
                    Some(object) => response.json("response", &object),
                    None => {
                        let name = if answered.failed { "error" } else { "output" };
                        response.object("response").escaped(name, &text);
                    }
                }
            }
        }
    }
    media.into_iter().for_each(|picture| write_media(picture, parts));
    Ok(())
}

fn write_tools(said: &Conversation<'_>, request: &mut Object<'_>) {
    if said.tools.is_empty() {
        return;
    }
    {
        let mut tools = request.array("tools");
        let mut tool = tools.object();
        let mut declared = tool.array("functionDeclarations");
        for tool in &said.tools {
            let mut one = declared.object();
            one.text("name", &tool.name);
            one.escaped("description", tool.description.unwrap_or_default());
            match tool.schema {
                Some(Schema::Json(schema)) => one.raw("parametersJsonSchema", schema),
                Some(Schema::OpenApi(schema)) => one.raw("parameters", schema),
                None => {}
            }
        }
    }
    let Some(choice) = &said.choice else { return };
    let mut config = request.object("toolConfig");
    let mut calling = config.object("functionCallingConfig");
    calling.text(
        "mode",
        match choice {
            Choice::Auto => "AUTO",
            Choice::Any | Choice::Named(_) => "ANY",
            Choice::None => "NONE",
        },
    );
    if let Choice::Named(name) = choice {
        calling.array("allowedFunctionNames").text(name);
    }
}

fn write_settings(settings: &Settings<'_>, to: &Target<'_>, request: &mut Object<'_>) {
    debug_assert_eq!(to.dialect, Dialect::Gemini);
    let mut config = request.object("generationConfig");
    if let Some(most) = settings.output_tokens_max {
        config.number("maxOutputTokens", most);
    }
    config.raw_if("temperature", settings.temperature);
    config.raw_if("topP", settings.top_p);
    config.raw_if("topK", settings.top_k);
    config.raw_if("seed", settings.seed);
    config.raw_if("frequencyPenalty", settings.frequency_penalty);
    config.raw_if("presencePenalty", settings.presence_penalty);
    if !settings.stop.is_empty() {
        let mut stop = config.array("stopSequences");
        settings.stop.iter().filter(|raw| json::inner(raw).is_some()).for_each(|raw| stop.raw(raw));
    }
    match settings.format {
        Format::Text => {}
        Format::Json => config.text("responseMimeType", "application/json"),
        Format::Schema { schema, .. } => {
            config.text("responseMimeType", "application/json");
            match schema {
                Schema::Json(schema) => config.raw("responseJsonSchema", schema),
                Schema::OpenApi(schema) => config.raw("responseSchema", schema),
            }
        }
    }
    let Some(thinking) = &settings.thinking else { return };
    let mut config = config.object("thinkingConfig");
    match thinking {
        // The third generation cannot be told not to think at all.
        Thinking::Off if wants_signatures(to.model) => config.text("thinkingLevel", "low"),
        Thinking::Off => config.number("thinkingBudget", 0),
        thinking => {
            match thinking {
                Thinking::Adaptive if wants_signatures(to.model) => {}
                Thinking::Adaptive => config.json("thinkingBudget", "-1"),
                _ if wants_signatures(to.model) => {
                    let level = match thinking.effort() {
                        Some("minimal") => "minimal",
                        Some("low") => "low",
                        Some("medium") => "medium",
                        _ => "high",
                    };
                    string(config.key("thinkingLevel"), level);
                }
                _ => config.number("thinkingBudget", thinking.tokens().unwrap_or_default()),
            }
            config.flag("includeThoughts", true);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::dialect::talk::tests::{conversation, written};

    fn sent(from: Dialect, model: &str, body: &Value) -> (Value, Vec<String>) {
        written(from, Target::new(Dialect::Gemini, model), body).unwrap()
    }

    #[test]
    fn an_agents_turns_become_contents() {
        let (body, left_out) = sent(Dialect::Chat, "gemini-2.5-pro", &conversation(Dialect::Chat));
        assert_eq!(
            body,
            json!({
                "systemInstruction": {"parts": [{"text": "Be brief."}]},
                "contents": [
                    {"role": "user", "parts": [
                        {"text": "What is \"this\"?\n"},
                        {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}]},
                    {"role": "model", "parts": [{"functionCall": {"name": "look", "args": {"line": 4}}}]},
                    {"role": "user", "parts": [
                        {"functionResponse": {"name": "look", "response": {"output": "hot"}}}, {"text": "Well?"}]}],
                "tools": [{"functionDeclarations": [{"name": "look", "description": "Looks.", "parametersJsonSchema":
                    {"type": "object", "properties": {"line": {"type": "integer"}}, "required": ["line"]}}]}],
                "toolConfig": {"functionCallingConfig": {"mode": "AUTO"}},
                "generationConfig": {"maxOutputTokens": 500, "temperature": 0.2, "stopSequences": ["END"]}})
        );
        assert!(left_out.is_empty());
    }

    #[test]
    fn a_call_of_a_newer_model_comes_back_with_its_signature_or_with_the_word_for_none() {
        let mut body = conversation(Dialect::Chat);
        let call =
            |body: &Value| sent(Dialect::Chat, "gemini-3-pro-preview", body).0["contents"][1]["parts"][0].clone();
        assert_eq!(call(&body)["thoughtSignature"], NO_SIGNATURE);
        body["messages"][2]["tool_calls"][0]["extra_content"] = json!({"google": {"thought_signature": "AbC="}});
        assert_eq!(call(&body)["thoughtSignature"], "AbC=");

        let mut body = conversation(Dialect::Anthropic);
        let blocks = json!([
            {"type": "thinking", "thinking": "", "signature": "gemini.AbC="},
            {"type": "tool_use", "id": "call_1", "name": "look", "input": {}}]);
        body["messages"][1]["content"] = blocks;
        let parts = |body: &Value| sent(Dialect::Anthropic, "gemini-3-pro", body).0["contents"][1]["parts"].clone();
        assert_eq!(parts(&body), json!([{"functionCall": {"name": "look", "args": {}}, "thoughtSignature": "AbC="}]));
        body["messages"][1]["content"][0]["signature"] = json!("of-claude");
        assert_eq!(parts(&body)[0]["thoughtSignature"], NO_SIGNATURE, "nobody else's signature goes to Google");
        assert!(!wants_signatures("gemini-2.5-pro") && !wants_signatures("gemma-3-27b-it"));
        assert!(wants_signatures("publishers/google/models/gemini-3.1-flash"));
    }

    #[test]
    fn results_keep_their_name_and_say_whether_they_failed() {
        let mut body = conversation(Dialect::Anthropic);
        body["messages"][2]["content"][0]["is_error"] = json!(true);
        let (sent_body, _) = sent(Dialect::Anthropic, "g", &body);
        let response = &sent_body["contents"][2]["parts"][0]["functionResponse"];
        assert_eq!(*response, json!({"name": "look", "response": {"error": "hot"}}));
        let mut body = conversation(Dialect::Chat);
        body["messages"][3]["content"] = json!("{\"c\": 71}");
        let (sent_body, _) = sent(Dialect::Chat, "g", &body);
        assert_eq!(sent_body["contents"][2]["parts"][0]["functionResponse"]["response"], json!({"c": 71}));
        body["messages"][3]["tool_call_id"] = json!("call_nobody_made");
        let error = written(Dialect::Chat, Target::new(Dialect::Gemini, "g"), &body).unwrap_err();
        assert!(matches!(&error, Error::Unsupported { field, .. } if field == "messages[3].tool_call_id"), "{error}");
    }

    #[test]
    fn thinking_forms_and_choices_are_said_in_googles_words() {
        let mut body = conversation(Dialect::Chat);
        body["reasoning_effort"] = json!("medium");
        body["tool_choice"] = json!({"type": "function", "function": {"name": "look"}});
        body["response_format"] =
            json!({"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}});
        let (older, _) = sent(Dialect::Chat, "gemini-2.5-flash", &body);
        let thinking = |body: &Value| body["generationConfig"]["thinkingConfig"].clone();
        assert_eq!(thinking(&older), json!({"thinkingBudget": 8192, "includeThoughts": true}));
        assert_eq!(older["generationConfig"]["responseMimeType"], "application/json");
        assert_eq!(older["generationConfig"]["responseJsonSchema"], json!({"type": "object"}));
        let calling = json!({"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["look"]}});
        assert_eq!(older["toolConfig"], calling);
        let (newer, _) = sent(Dialect::Chat, "gemini-3-flash", &body);
        assert_eq!(thinking(&newer), json!({"thinkingLevel": "medium", "includeThoughts": true}));
        body["reasoning_effort"] = json!("none");
        assert_eq!(thinking(&sent(Dialect::Chat, "gemini-2.5-flash", &body).0), json!({"thinkingBudget": 0}));
    }
}
