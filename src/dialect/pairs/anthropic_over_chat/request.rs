//! The request but for its messages.

use crate::dialect::json::{self, Members, Raw};
use crate::dialect::pairs::remarks::{LeftOut, output_tokens_member, reasons, refused};
use crate::dialect::write::{Array, Object};
use crate::dialect::{Dialect, Error, Facts, Outgoing, Target};

use super::messages::messages;

const TO: Dialect = Dialect::Chat;

pub(super) fn request(body: &[u8], facts: &Facts<'_>, to: &Target<'_>) -> Result<Outgoing, Error> {
    let members = Members::parse(body).map_err(|error| Error::request(&error))?;
    let mut left = LeftOut::default();
    let list = members.get("messages").ok_or(Error::Missing { field: "messages" })?;

    let mut out = Vec::with_capacity(body.len() + 256);
    let mut object = Object::new(&mut out);
    object.text("model", to.model);
    messages(object.array("messages"), members.get("system"), list, &mut left)?;
    if let Some(most) = facts.output_tokens_max {
        object.number(output_tokens_member(to.model), most);
    }
    let mut effort = None;
    for (key, raw) in members.iter().filter(|(_, raw)| raw.get() != "null") {
        match key {
            "model" | "messages" | "system" | "max_tokens" | "cache_control" => {}
            "stream" => object.raw("stream", raw),
            "temperature" | "top_p" => object.raw(key, raw),
            "stop_sequences" => {
                if !json::elements(raw, key)?.is_empty() {
                    object.raw("stop", raw);
                }
            }
            // An empty list is refused over there.
            "tools" | "tool_choice" if facts.tools == 0 => {}
            "tools" => tools(object.array("tools"), raw)?,
            "tool_choice" => tool_choice(&mut object, raw)?,
            "thinking" => effort = effort.or(thinking(raw)?),
            "output_config" => {
                let config = Members::of(raw, key)?;
                if let Some(said) = config.text("effort") {
                    effort = Some(match said.as_ref() {
                        "low" => "low",
                        "medium" => "medium",
                        "high" => "high",
                        _ => "xhigh",
                    });
                }
                if let Some(format) = config.get("format") {
                    response_format(&mut object, format)?;
                }
            }
            "output_format" => response_format(&mut object, raw)?,
            "metadata" => object.raw_if("user", Members::of(raw, key)?.get("user_id")),
            "service_tier" => object.text("service_tier", if raw.get() == r#""auto""# { "auto" } else { "default" }),
            "mcp_servers" | "container" | "context_management" => {
                return Err(refused(key, TO, "only Anthropic's own servers do this"));
            }
            "top_k" | "inference_geo" | "speed" | "diagnostics" => left.add(key),
            other => object.raw(other, raw),
        }
    }
    if facts.stream && to.asks_usage {
        object.object("stream_options").flag("include_usage", true);
    }
    match effort {
        Some(effort) if reasons(to.model) => object.text("reasoning_effort", effort),
        Some(_) => left.add("thinking"),
        None => {}
    }
    drop(object);
    Ok(Outgoing { body: out.into(), left_out: left.into_names() })
}

/// A budget of tokens as an effort; whoever leaves it to the model says none.
fn thinking(raw: Raw<'_>) -> Result<Option<&'static str>, Error> {
    let config = Members::of(raw, "thinking")?;
    if config.text("type").as_deref() != Some("enabled") {
        return Ok(None);
    }
    let budget = config.get("budget_tokens").and_then(json::whole);
    let budget = budget.ok_or_else(|| Error::field("thinking.budget_tokens", "must be a whole number"))?;
    Ok(Some(match budget {
        0..4_096 => "low",
        4_096..16_384 => "medium",
        _ => "high",
    }))
}

fn tools(mut list: Array<'_>, raw: Raw<'_>) -> Result<(), Error> {
    for (at, tool) in json::elements(raw, "tools")?.into_iter().enumerate() {
        let field = format!("tools[{at}]");
        let tool = Members::of(tool, &field)?;
        if tool.text("type").is_some_and(|kind| kind != "custom") {
            return Err(refused(
                field,
                TO,
                "only Anthropic's own models know this tool; offer one with `input_schema`",
            ));
        }
        let mut to = list.object();
        to.text("type", "function");
        let mut function = to.object("function");
        function.raw("name", tool.get("name").ok_or_else(|| Error::field(format!("{field}.name"), "must be there"))?);
        function.raw_if("description", tool.get("description"));
        let schema = tool.get("input_schema");
        function
            .raw("parameters", schema.ok_or_else(|| Error::field(format!("{field}.input_schema"), "must be there"))?);
        function.raw_if("strict", tool.get("strict"));
    }
    Ok(())
}

fn tool_choice(object: &mut Object<'_>, raw: Raw<'_>) -> Result<(), Error> {
    let choice = Members::of(raw, "tool_choice")?;
    match choice.text("type").as_deref() {
        Some("auto") => object.text("tool_choice", "auto"),
        Some("none") => object.text("tool_choice", "none"),
        Some("any") => object.text("tool_choice", "required"),
        Some("tool") => {
            let name = choice.get("name").ok_or_else(|| Error::field("tool_choice.name", "must be there"))?;
            let mut to = object.object("tool_choice");
            to.text("type", "function");
            to.object("function").raw("name", name);
        }
        _ => return Err(Error::field("tool_choice.type", "must be auto, any, tool or none")),
    }
    if choice.get("disable_parallel_tool_use").and_then(json::flag) == Some(true) {
        object.flag("parallel_tool_calls", false);
    }
    Ok(())
}

/// Anthropic gives exactly what the schema says, so a strict one is asked for here.
fn response_format(object: &mut Object<'_>, raw: Raw<'_>) -> Result<(), Error> {
    let format = Members::of(raw, "output_config.format")?;
    let schema = format.get("schema").filter(|_| format.text("type").as_deref() == Some("json_schema"));
    let schema =
        schema.ok_or_else(|| Error::field("output_config.format", "must be a json_schema with its `schema`"))?;
    let mut to = object.object("response_format");
    to.text("type", "json_schema");
    let mut inner = to.object("json_schema");
    inner.text("name", "answer");
    inner.raw("schema", schema);
    inner.flag("strict", true);
    Ok(())
}
