//! The request but for its messages.

use crate::dialect::json::{self, Members, Raw};
use crate::dialect::pairs::remarks::{LeftOut, refused};
use crate::dialect::write::{Array, Object};
use crate::dialect::{Dialect, Error, Facts, Outgoing, Target};

use super::items::items;

const TO: Dialect = Dialect::Responses;

pub(super) fn request(body: &[u8], facts: &Facts<'_>, to: &Target<'_>) -> Result<Outgoing, Error> {
    let members = Members::parse(body).map_err(|error| Error::request(&error))?;
    let mut left = LeftOut::default();
    if facts.answers > 1 {
        return Err(refused("n", TO, "one answer a request is all it gives; ask again for each"));
    }
    let list = members.get("messages").ok_or(Error::Missing { field: "messages" })?;

    let mut out = Vec::with_capacity(body.len() + 256);
    let mut object = Object::new(&mut out);
    object.text("model", to.model);
    items(object.array("input"), list, &mut left)?;
    if let Some(most) = facts.output_tokens_max {
        object.number("max_output_tokens", most);
    }
    // The conversation travels with each request, so nothing needs to be kept over there.
    object.flag("store", members.get("store").and_then(json::flag).unwrap_or(false));
    for (key, raw) in members.iter().filter(|(_, raw)| raw.get() != "null") {
        match key {
            "model"
            | "messages"
            | "max_tokens"
            | "max_completion_tokens"
            | "n"
            | "stream_options"
            | "store"
            | "verbosity"
            | "response_format" => {}
            "stream"
            | "temperature"
            | "top_p"
            | "metadata"
            | "user"
            | "service_tier"
            | "prompt_cache_key"
            | "prompt_cache_retention"
            | "prompt_cache_options"
            | "safety_identifier"
            | "moderation" => object.raw(key, raw),
            "reasoning_effort" => {
                let mut reasoning = object.object("reasoning");
                reasoning.raw("effort", raw);
                reasoning.text("summary", "auto");
            }
            "tools" | "tool_choice" | "parallel_tool_calls" if facts.tools == 0 => {}
            "tools" => tools(object.array("tools"), raw)?,
            "tool_choice" => tool_choice(&mut object, raw)?,
            "parallel_tool_calls" => object.raw(key, raw),
            "logprobs" if raw.get() == "true" => {
                return Err(refused("logprobs", TO, "probabilities are not translated"));
            }
            "stop" => return Err(refused("stop", TO, "it knows no stop sequences")),
            "modalities" if raw.get().contains("audio") => {
                return Err(refused("modalities", TO, "it does not speak aloud"));
            }
            "audio" => return Err(refused("audio", TO, "it does not speak aloud")),
            "web_search_options" => {
                return Err(refused("web_search_options", TO, "offer the search as one of `tools`"));
            }
            "functions" | "function_call" => return Err(refused(key, TO, "use `tools` and `tool_choice`")),
            "logprobs" | "modalities" => {}
            "seed" | "logit_bias" | "presence_penalty" | "frequency_penalty" | "prediction" | "top_logprobs" => {
                left.add(key);
            }
            other => object.raw(other, raw),
        }
    }
    text(&mut object, &members)?;
    drop(object);
    Ok(Outgoing { body: out.into(), left_out: left.into_names() })
}

/// `response_format` and `verbosity` are one member over there.
fn text(object: &mut Object<'_>, members: &Members<'_>) -> Result<(), Error> {
    let verbosity = members.get("verbosity");
    let format = members.get("response_format");
    if verbosity.is_none() && format.is_none() {
        return Ok(());
    }
    let mut text = object.object("text");
    text.raw_if("verbosity", verbosity);
    let Some(format) = format else { return Ok(()) };
    let format = Members::of(format, "response_format")?;
    let mut to = text.object("format");
    match format.text("type").as_deref() {
        Some("json_schema") => {
            let inner = format.get("json_schema").ok_or(Error::Missing { field: "response_format.json_schema" })?;
            to.text("type", "json_schema");
            for (key, raw) in Members::of(inner, "response_format.json_schema")?.iter() {
                to.raw(key, raw);
            }
        }
        Some("json_object") => to.text("type", "json_object"),
        Some("text") => to.text("type", "text"),
        _ => return Err(Error::field("response_format.type", "must be text, json_object or json_schema")),
    }
    Ok(())
}

fn tools(mut list: Array<'_>, raw: Raw<'_>) -> Result<(), Error> {
    for (at, tool) in json::elements(raw, "tools")?.into_iter().enumerate() {
        let field = format!("tools[{at}]");
        let members = Members::of(tool, &field)?;
        let kind = members.text("type");
        let inner = match kind.as_deref() {
            Some("function") => members.get("function"),
            Some("custom") => members.get("custom"),
            // Tools of OpenAI's own servers, for callers who know whom they ask.
            _ => {
                list.raw(tool);
                continue;
            }
        };
        let inner = inner.ok_or_else(|| Error::field(&field, "must hold the function"))?;
        let mut to = list.object();
        to.text("type", kind.as_deref().unwrap_or("function"));
        for (key, raw) in Members::of(inner, &field)?.iter() {
            to.raw(key, raw);
        }
    }
    Ok(())
}

fn tool_choice(object: &mut Object<'_>, raw: Raw<'_>) -> Result<(), Error> {
    if json::text(raw).is_some() {
        object.raw("tool_choice", raw);
        return Ok(());
    }
    let choice = Members::of(raw, "tool_choice")?;
    let function = choice.get("function").map(Members::lenient).unwrap_or_default();
    let name = function.get("name");
    let name = name.ok_or_else(|| refused("tool_choice", TO, "name one function, or say auto, none or required"))?;
    let mut to = object.object("tool_choice");
    to.text("type", "function");
    to.raw("name", name);
    Ok(())
}
