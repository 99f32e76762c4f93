//! The request but for its input.

use crate::dialect::anthropic::{NoBudget, thinking};
use crate::dialect::json::{self, Members, Raw};
use crate::dialect::pairs::remarks::{LeftOut, refused};
use crate::dialect::responses;
use crate::dialect::write::{Array, Object};
use crate::dialect::{Dialect, Error, Facts, Outgoing, Target};

use super::items::messages;

const TO: Dialect = Dialect::Anthropic;

pub(super) fn request(body: &[u8], facts: &Facts<'_>, to: &Target<'_>) -> Result<Outgoing, Error> {
    let members = Members::parse(body).map_err(|error| Error::request(&error))?;
    responses::refuse_state(&members, TO)?;
    let mut left = LeftOut::default();
    let input = members.get("input").ok_or(Error::Missing { field: "input" })?;
    let conversation = messages(members.get("instructions"), input, &mut left)?;
    let max_tokens = facts.output_tokens_max.unwrap_or(to.output_tokens_default).max(1);
    let forced = members.get("tool_choice").is_some_and(|choice| !matches!(choice.get(), r#""auto""# | r#""none""#));
    let effort = responses::effort(&members);
    let blocked = forced || conversation.has_unsigned_calls;
    let thinks = match effort.as_deref().map(|effort| thinking(effort, to.model, max_tokens, blocked)) {
        Some(Ok(thinks)) => thinks,
        Some(Err(NoBudget)) => {
            left.add("reasoning.effort");
            None
        }
        None => None,
    };

    let mut out = Vec::with_capacity(body.len() + 256);
    let mut object = Object::new(&mut out);
    object.text("model", to.model);
    object.number("max_tokens", max_tokens);
    if let Some(system) = &conversation.system {
        object.json("system", system);
    }
    object.json("messages", &conversation.messages);
    for (key, raw) in members.iter().filter(|(_, raw)| raw.get() != "null") {
        match key {
            "model"
            | "input"
            | "instructions"
            | "max_output_tokens"
            | "reasoning"
            | "tool_choice"
            | "parallel_tool_calls"
            | "background"
            | "top_logprobs"
            | "stream_options" => {}
            // Nothing is kept here either way.
            "store" | "truncation" | "include" => {}
            "stream" => object.raw("stream", raw),
            "temperature" | "top_p" if thinks.is_some() => left.add(key),
            "temperature" if raw.get().parse::<f64>().is_ok_and(|value| value > 1.0) => {
                left.add("temperature above 1");
                object.json("temperature", "1");
            }
            "temperature" | "top_p" => object.raw(key, raw),
            "tools" => tools(object.array("tools"), raw)?,
            "user" => object.object("metadata").raw("user_id", raw),
            "safety_identifier" if members.get("user").is_none() => object.object("metadata").raw("user_id", raw),
            "service_tier" => match json::text(raw).as_deref() {
                Some("auto") => object.text("service_tier", "auto"),
                Some("default") => object.text("service_tier", "standard_only"),
                _ => left.add("service_tier"),
            },
            "text" => {
                if Members::of(raw, key)?.get("verbosity").is_some() {
                    left.add("text.verbosity");
                }
            }
            "metadata"
            | "max_tool_calls"
            | "prompt_cache_key"
            | "prompt_cache_options"
            | "prompt_cache_retention"
            | "safety_identifier"
            | "context_management"
            | "moderation"
            | "access_programs" => left.add(key),
            other => object.raw(other, raw),
        }
    }
    if facts.tools > 0 {
        tool_choice(&mut object, &members)?;
    }
    if let Some(config) = thinks.as_ref().and_then(|thinks| thinks.config.as_deref()) {
        object.json("thinking", config);
    }
    output_config(&mut object, thinks.and_then(|thinks| thinks.effort), &members)?;
    drop(object);
    Ok(Outgoing { body: out.into(), left_out: left.into_names() })
}

fn output_config(object: &mut Object<'_>, effort: Option<&str>, members: &Members<'_>) -> Result<(), Error> {
    let format = responses::format(members);
    if effort.is_none() && format.is_none() {
        return Ok(());
    }
    let mut config = object.object("output_config");
    if let Some(effort) = effort {
        config.text("effort", effort);
    }
    if let Some(format) = format {
        if format.text("type").as_deref() != Some("json_schema") {
            return Err(refused("text.format", TO, "it gives JSON only by a schema: use `json_schema`"));
        }
        let mut to = config.object("format");
        to.text("type", "json_schema");
        to.raw("schema", format.get("schema").ok_or(Error::Missing { field: "text.format.schema" })?);
    }
    Ok(())
}

fn tools(mut list: Array<'_>, raw: Raw<'_>) -> Result<(), Error> {
    for (at, tool) in json::elements(raw, "tools")?.into_iter().enumerate() {
        let tool = responses::function(tool, &format!("tools[{at}]"), TO)?;
        let mut to = list.object();
        to.raw_if("name", tool.get("name"));
        to.raw_if("description", tool.get("description"));
        match tool.get("parameters") {
            Some(schema) => to.raw("input_schema", schema),
            None => to.json("input_schema", r#"{"type":"object","properties":{}}"#),
        }
        to.raw_if("strict", tool.get("strict").filter(|strict| strict.get() == "true"));
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
            let name = choice.get("name").filter(|_| choice.text("type").as_deref() == Some("function"));
            to.raw(
                "name",
                name.ok_or_else(|| refused("tool_choice", TO, "name one function, or say auto, none or required"))?,
            );
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
