//! The request but for its messages.

use crate::dialect::anthropic::{NoBudget, Thinking, thinking};
use crate::dialect::json::{self, Members, Raw, Sort, sort};
use crate::dialect::pairs::remarks::{LeftOut, refused};
use crate::dialect::write::{Array, Object};
use crate::dialect::{Dialect, Error, Facts, Outgoing, Target};

use super::messages::messages;

const TO: Dialect = Dialect::Anthropic;

pub(super) fn request(body: &[u8], facts: &Facts<'_>, to: &Target<'_>) -> Result<Outgoing, Error> {
    let members = Members::parse(body).map_err(|error| Error::request(&error))?;
    let mut left = LeftOut::default();
    if facts.answers > 1 {
        return Err(refused("n", TO, "one answer a request is all it gives; ask again for each"));
    }
    let list = members.get("messages").ok_or(Error::Missing { field: "messages" })?;
    let conversation = messages(list, &mut left)?;
    let max_tokens = facts.output_tokens_max.unwrap_or(to.output_tokens_default).max(1);
    let thinking = effort(&members, to.model, max_tokens, conversation.has_unsigned_calls, &mut left);

    let mut out = Vec::with_capacity(body.len() + 256);
    let mut object = Object::new(&mut out);
    object.text("model", to.model);
    object.number("max_tokens", max_tokens);
    if let Some(system) = &conversation.system {
        object.json("system", system);
    }
    object.json("messages", &conversation.messages);
    let mut format = None;
    for (key, raw) in members.iter().filter(|(_, raw)| raw.get() != "null") {
        match key {
            "model"
            | "messages"
            | "max_tokens"
            | "max_completion_tokens"
            | "n"
            | "stream_options"
            | "reasoning_effort"
            | "tool_choice"
            | "parallel_tool_calls" => {}
            "stream" => object.raw("stream", raw),
            "temperature" => temperature(&mut object, raw, thinking.is_some(), &mut left),
            "top_p" if thinking.is_some() => left.add("top_p"),
            "top_p" => object.raw("top_p", raw),
            "stop" => stop(&mut object, raw, &mut left),
            "tools" => tools(object.array("tools"), raw)?,
            "response_format" => format = response_format(raw)?,
            "user" => object.object("metadata").raw("user_id", raw),
            "safety_identifier" if members.get("user").is_none() => object.object("metadata").raw("user_id", raw),
            "service_tier" => match json::text(raw).as_deref() {
                Some("auto") => object.text("service_tier", "auto"),
                Some("default") => object.text("service_tier", "standard_only"),
                _ => left.add("service_tier"),
            },
            "logprobs" if raw.get() == "true" => {
                return Err(refused("logprobs", TO, "it tells no probabilities"));
            }
            "modalities" if raw.get().contains("audio") => {
                return Err(refused("modalities", TO, "it does not speak aloud"));
            }
            "audio" => return Err(refused("audio", TO, "it does not speak aloud")),
            "web_search_options" => {
                return Err(refused("web_search_options", TO, "offer the search as one of `tools`"));
            }
            "functions" | "function_call" => return Err(refused(key, TO, "use `tools` and `tool_choice`")),
            "logprobs" | "modalities" => {}
            "seed"
            | "logit_bias"
            | "presence_penalty"
            | "frequency_penalty"
            | "prediction"
            | "store"
            | "metadata"
            | "verbosity"
            | "prompt_cache_key"
            | "prompt_cache_retention"
            | "prompt_cache_options"
            | "safety_identifier"
            | "moderation"
            | "top_logprobs" => left.add(key),
            other => object.raw(other, raw),
        }
    }
    if facts.tools > 0 {
        tool_choice(&mut object, &members)?;
    }
    if let Some(thinking) = &thinking
        && let Some(config) = &thinking.config
    {
        object.json("thinking", config);
    }
    let effort = thinking.and_then(|thinking| thinking.effort);
    if effort.is_some() || format.is_some() {
        let mut config = object.object("output_config");
        if let Some(effort) = effort {
            config.text("effort", effort);
        }
        if let Some(schema) = format {
            let mut format = config.object("format");
            format.text("type", "json_schema");
            format.raw("schema", schema);
        }
    }
    drop(object);
    Ok(Outgoing { body: out.into(), left_out: left.into_names() })
}

/// Anthropic's temperature ends at 1, and there is none beside thinking.
fn temperature(object: &mut Object<'_>, raw: Raw<'_>, thinks: bool, left: &mut LeftOut) {
    if thinks {
        left.add("temperature");
    } else if raw.get().parse::<f64>().is_ok_and(|value| value > 1.0) {
        left.add("temperature above 1");
        object.json("temperature", "1");
    } else {
        object.raw("temperature", raw);
    }
}

/// Anthropic refuses sequences that are only white space.
fn stop(object: &mut Object<'_>, raw: Raw<'_>, left: &mut LeftOut) {
    let mut list = object.array("stop_sequences");
    let all = if sort(raw) == Sort::Array { json::lenient_elements(raw) } else { vec![raw] };
    for one in all {
        if json::text(one).is_some_and(|text| text.trim().is_empty()) {
            left.add("stop of white space");
        } else {
            list.raw(one);
        }
    }
}

fn tools(mut list: Array<'_>, raw: Raw<'_>) -> Result<(), Error> {
    for (at, tool) in json::elements(raw, "tools")?.into_iter().enumerate() {
        let members = Members::of(tool, &format!("tools[{at}]"))?;
        match members.text("type").as_deref() {
            Some("function") => {}
            Some("custom") if members.get("custom").is_some() => {
                return Err(refused(format!("tools[{at}]"), TO, "it calls tools with JSON; offer a function"));
            }
            // Anthropic's own tools, for callers who know whom they ask.
            _ => {
                list.raw(tool);
                continue;
            }
        }
        let field = format!("tools[{at}].function");
        let function =
            Members::of(members.get("function").ok_or_else(|| Error::field(&field, "must be there"))?, &field)?;
        let mut to = list.object();
        to.raw("name", function.get("name").ok_or_else(|| Error::field(format!("{field}.name"), "must be there"))?);
        to.raw_if("description", function.get("description"));
        match function.get("parameters") {
            Some(schema) => to.raw("input_schema", schema),
            None => to.json("input_schema", r#"{"type":"object","properties":{}}"#),
        }
        to.raw_if("strict", function.get("strict").filter(|strict| strict.get() == "true"));
        to.raw_if("cache_control", members.get("cache_control").or_else(|| function.get("cache_control")));
    }
    Ok(())
}

fn tool_choice(object: &mut Object<'_>, members: &Members<'_>) -> Result<(), Error> {
    let one_at_a_time = members.get("parallel_tool_calls").and_then(json::flag) == Some(false);
    let choice = members.get("tool_choice");
    if choice.is_none() && !one_at_a_time {
        return Ok(());
    }
    let mut to = object.object("tool_choice");
    let word = choice.and_then(json::text);
    let kind = match (word.as_deref(), choice) {
        (Some("auto"), _) | (None, None) => "auto",
        (Some("none"), _) => "none",
        (Some("required"), _) => "any",
        (None, Some(choice)) => {
            let choice = Members::of(choice, "tool_choice")?;
            let function = choice.get("function").map(Members::lenient).unwrap_or_default();
            let Some(name) = function.get("name") else {
                return Err(refused("tool_choice", TO, "name one function, or say auto, none or required"));
            };
            to.raw("name", name);
            "tool"
        }
        _ => return Err(Error::field("tool_choice", "must be auto, none, required or a function")),
    };
    to.text("type", kind);
    if one_at_a_time && kind != "none" {
        to.flag("disable_parallel_tool_use", true);
    }
    Ok(())
}

/// The schema of `response_format`.
fn response_format(raw: Raw<'_>) -> Result<Option<Raw<'_>>, Error> {
    let format = Members::of(raw, "response_format")?;
    match format.text("type").as_deref() {
        Some("text") => Ok(None),
        Some("json_schema") => {
            let inner = Members::of(
                format.get("json_schema").ok_or(Error::Missing { field: "response_format.json_schema" })?,
                "response_format.json_schema",
            )?;
            inner.get("schema").map(Some).ok_or(Error::Missing { field: "response_format.json_schema.schema" })
        }
        Some("json_object") => Err(refused("response_format", TO, "it gives JSON only by a schema: use `json_schema`")),
        _ => Err(Error::field("response_format.type", "must be text, json_object or json_schema")),
    }
}

/// `reasoning_effort` as Anthropic says it.
fn effort(
    members: &Members<'_>,
    model: &str,
    max_tokens: u64,
    has_unsigned_calls: bool,
    left: &mut LeftOut,
) -> Option<Thinking> {
    let effort = members.text("reasoning_effort")?;
    let forced = members.get("tool_choice").is_some_and(|choice| !matches!(choice.get(), r#""auto""# | r#""none""#));
    match thinking(&effort, model, max_tokens, forced || has_unsigned_calls) {
        // A caller who says Anthropic's own `thinking` has said it all.
        Ok(Some(thinking)) if members.get("thinking").is_some() => Some(Thinking { config: None, ..thinking }),
        Ok(thinking) => thinking,
        Err(NoBudget) => {
            left.add("reasoning_effort");
            None
        }
    }
}
