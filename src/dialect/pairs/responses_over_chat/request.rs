//! The request but for its input.

use crate::dialect::json::{self, Members, Raw};
use crate::dialect::pairs::remarks::{LeftOut, output_tokens_member, reasons, refused};
use crate::dialect::responses;
use crate::dialect::write::{Array, Object};
use crate::dialect::{Dialect, Error, Facts, Outgoing, Target};

use super::items::messages;

const TO: Dialect = Dialect::Chat;

pub(super) fn request(body: &[u8], facts: &Facts<'_>, to: &Target<'_>) -> Result<Outgoing, Error> {
    let members = Members::parse(body).map_err(|error| Error::request(&error))?;
    responses::refuse_state(&members, TO)?;
    let mut left = LeftOut::default();
    let input = members.get("input").ok_or(Error::Missing { field: "input" })?;

    let mut out = Vec::with_capacity(body.len() + 256);
    let mut object = Object::new(&mut out);
    object.text("model", to.model);
    messages(object.array("messages"), members.get("instructions"), input, &mut left)?;
    if let Some(most) = facts.output_tokens_max {
        object.number(output_tokens_member(to.model), most);
    }
    for (key, raw) in members.iter().filter(|(_, raw)| raw.get() != "null") {
        match key {
            "model" | "input" | "instructions" | "max_output_tokens" | "reasoning" | "background" | "top_logprobs"
            | "stream_options" => {}
            // Nothing is kept here either way.
            "store" | "truncation" | "include" => {}
            "stream" | "temperature" | "top_p" | "user" | "service_tier" => object.raw(key, raw),
            // An empty list is refused over there, and so is a choice without one.
            "tools" | "tool_choice" | "parallel_tool_calls" if facts.tools == 0 => {}
            "tools" => tools(object.array("tools"), raw)?,
            "parallel_tool_calls" => object.raw(key, raw),
            "tool_choice" => tool_choice(&mut object, raw)?,
            "text" => {
                if Members::of(raw, key)?.get("verbosity").is_some() {
                    left.add("text.verbosity");
                }
                if let Some(format) = responses::format(&members) {
                    response_format(&mut object, &format)?;
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
    if facts.stream && to.asks_usage {
        object.object("stream_options").flag("include_usage", true);
    }
    if let Some(effort) = responses::effort(&members) {
        if reasons(to.model) {
            object.text("reasoning_effort", &effort);
        } else if effort != "none" {
            left.add("reasoning.effort");
        }
    }
    drop(object);
    Ok(Outgoing { body: out.into(), left_out: left.into_names() })
}

fn tools(mut list: Array<'_>, raw: Raw<'_>) -> Result<(), Error> {
    for (at, tool) in json::elements(raw, "tools")?.into_iter().enumerate() {
        let tool = responses::function(tool, &format!("tools[{at}]"), TO)?;
        let mut to = list.object();
        to.text("type", "function");
        let mut function = to.object("function");
        function.raw_if("name", tool.get("name"));
        function.raw_if("description", tool.get("description"));
        function.raw_if("parameters", tool.get("parameters"));
        function.raw_if("strict", tool.get("strict"));
    }
    Ok(())
}

fn tool_choice(object: &mut Object<'_>, raw: Raw<'_>) -> Result<(), Error> {
    if json::text(raw).is_some() {
        object.raw("tool_choice", raw);
        return Ok(());
    }
    let choice = Members::of(raw, "tool_choice")?;
    match (choice.text("type").as_deref(), choice.get("name")) {
        (Some("function"), Some(name)) => {
            let mut to = object.object("tool_choice");
            to.text("type", "function");
            to.object("function").raw("name", name);
            Ok(())
        }
        _ => Err(refused("tool_choice", TO, "name one function, or say auto, none or required")),
    }
}

fn response_format(object: &mut Object<'_>, format: &Members<'_>) -> Result<(), Error> {
    let mut to = object.object("response_format");
    match format.text("type").as_deref() {
        Some("json_object") => to.text("type", "json_object"),
        Some("json_schema") => {
            to.text("type", "json_schema");
            let mut inner = to.object("json_schema");
            match format.get("name") {
                Some(name) => inner.raw("name", name),
                None => inner.text("name", "answer"),
            }
            inner.raw_if("description", format.get("description"));
            inner.raw("schema", format.get("schema").ok_or(Error::Missing { field: "text.format.schema" })?);
            inner.raw_if("strict", format.get("strict"));
        }
        _ => return Err(Error::field("text.format.type", "must be text, json_object or json_schema")),
    }
    Ok(())
}
