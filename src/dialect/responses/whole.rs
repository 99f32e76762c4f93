//! The response itself, with what it repeats of the request: every member of it is required by strict clients.

use super::usage::write_usage;
use crate::dialect::json::{self, Members, Raw};
use crate::dialect::write::{Array, Object};
use crate::dialect::{Asked, Usage};

/// What is there so far.
pub(super) struct Said<'a> {
    pub(super) model: &'a str,
    /// Finished items, with commas between them.
    pub(super) items: &'a [u8],
    pub(super) status: &'a str,
    /// Why it is not whole.
    pub(super) incomplete: Option<&'a str>,
    pub(super) usage: Option<&'a Usage>,
}

/// What is repeated as it came, and what stands there otherwise.
const REPEATED: [(&str, &str); 16] = [
    ("frequency_penalty", "0.0"),
    ("instructions", "null"),
    ("max_output_tokens", "null"),
    ("max_tool_calls", "null"),
    ("metadata", "{}"),
    ("parallel_tool_calls", "true"),
    ("presence_penalty", "0.0"),
    ("previous_response_id", "null"),
    ("prompt_cache_key", "null"),
    ("safety_identifier", "null"),
    ("temperature", "1.0"),
    ("tool_choice", "\"auto\""),
    ("top_logprobs", "0"),
    ("top_p", "1.0"),
    ("truncation", "\"disabled\""),
    ("user", "null"),
];

pub(super) fn write(mut to: Object<'_>, asked: &Asked, said: &Said<'_>) {
    let request = Members::parse(&asked.request).unwrap_or_default();
    to.text("id", &format!("resp_{}", asked.id));
    to.text("object", "response");
    to.number("created_at", asked.created_unix_s);
    // There is no clock here.
    to.null("completed_at");
    to.text("status", said.status);
    to.flag("background", false);
    to.null("error");
    match said.incomplete {
        Some(reason) => to.object("incomplete_details").text("reason", reason),
        None => to.null("incomplete_details"),
    }
    to.text("model", said.model);
    {
        let list = to.key("output");
        list.push(b'[');
        list.extend_from_slice(said.items);
        list.push(b']');
    }
    for (key, otherwise) in REPEATED {
        to.json(key, request.get(key).map_or(otherwise, |raw: Raw<'_>| raw.get()));
    }
    members(to.object("reasoning"), request.get("reasoning"), &["effort", "summary"]);
    text(to.object("text"), request.get("text"));
    tools(to.array("tools"), request.get("tools"));
    // Nothing is kept here, whatever was asked for.
    to.flag("store", false);
    to.text("service_tier", "default");
    match said.usage {
        Some(usage) => write_usage(to.object("usage"), usage),
        None => to.null("usage"),
    }
}

/// The members of an object, and `null` for those of `required` that it lacks.
fn members(mut to: Object<'_>, raw: Option<Raw<'_>>, required: &[&str]) {
    let members = raw.map(Members::lenient).unwrap_or_default();
    for (key, value) in members.iter() {
        to.raw(key, value);
    }
    for key in required.iter().filter(|key| members.iter().all(|(there, _)| there != **key)) {
        to.null(key);
    }
}

fn text(mut to: Object<'_>, raw: Option<Raw<'_>>) {
    let text = raw.map(Members::lenient).unwrap_or_default();
    for (key, value) in text.iter().filter(|(key, _)| *key != "format") {
        to.raw(key, value);
    }
    match text.get("format") {
        None => to.object("format").text("type", "text"),
        Some(format) => to.raw("format", format),
    }
}

fn tools(mut to: Array<'_>, raw: Option<Raw<'_>>) {
    for tool in raw.map(json::lenient_elements).unwrap_or_default() {
        if Members::lenient(tool).text("type").is_some_and(|kind| kind == "function") {
            members(to.object(), Some(tool), &["description", "parameters", "strict"]);
        } else {
            to.raw(tool);
        }
    }
}
