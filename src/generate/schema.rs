//! A JSON schema as somebody else wrote it, looked through before a grammar is made of it.
//!
//! The grammars are `llguidance`'s. It follows references as deep as they go, on the caller's stack, and takes its own settings out of
//! the schema (`x-guidance`): the first are bounded here, and the second are ours. What it cannot hold an answer to is named with its place.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::error::Error;

/// Of one schema, or of all tools together.
const BYTES_MAX: usize = 256 * 1024;
/// Schemas in a schema, and the values that enumerations name.
const NODES_MAX: usize = 4096;
/// Schemas within schemas, each reference followed once.
const DEPTH_MAX: usize = 64;
/// Of one object.
const PROPERTIES_MAX: usize = 512;
/// What a number of items, properties or characters may be.
const COUNT_MAX: u64 = 65_536;
const PATTERN_BYTES_MAX: usize = 1024;

/// White space between tokens of JSON, once in each place: a space, or a line and how far it is in. A model spends its tokens on what it may.
const SPACE: &str = r"[ ]|\n[ ]{0,16}";
/// Formats that texts are held to. Others only describe, as the standard has it.
const FORMATS: [&str; 10] =
    ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"];
/// Keywords whose values are schemas.
const SCHEMAS: [&str; 3] = ["items", "additionalProperties", "additionalItems"];
const LISTS: [&str; 4] = ["anyOf", "oneOf", "allOf", "prefixItems"];
const MAPS: [&str; 2] = ["properties", "patternProperties"];
const COUNTS: [&str; 6] = ["minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"];
/// Values that are data, whatever they look like.
const DATA: [&str; 4] = ["const", "enum", "default", "examples"];
/// Keywords that say something of an answer which no grammar here can hold it to.
const UNABLE: [&str; 18] = [
    "not",
    "if",
    "then",
    "else",
    "contains",
    "minContains",
    "maxContains",
    "uniqueItems",
    "propertyNames",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "unevaluatedItems",
    "unevaluatedProperties",
    "$dynamicRef",
    "$dynamicAnchor",
    "$recursiveRef",
    "$recursiveAnchor",
];

/// A schema that was looked through.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Schema(Value);

impl Schema {
    /// Of a schema's JSON; `field` is what the request calls it.
    ///
    /// # Errors
    /// [`Error::Request`] names the place, and what would be right there.
    pub(super) fn read(field: &str, text: &str) -> Result<Self, Error> {
        let mut value = parsed(field, text)?;
        look(field, &value)?;
        mend(&mut value, "");
        if value == Value::Bool(true) {
            value = Value::Object(Map::new());
        }
        Ok(Self(value))
    }

    /// Of a call of one of the `tools`, a list as in OpenAI's chat, that `names` names; of any, if it names none.
    ///
    /// # Errors
    /// [`Error::Request`] names the tool that is none, that is missing, or whose parameters cannot be held to.
    pub(super) fn of_call(tools: &str, names: &[String]) -> Result<Self, Error> {
        let given = parsed("tools", tools)?;
        let given = given.as_array().ok_or_else(|| Error::request("tools", "a list", "another value"))?;
        let mut calls = Vec::new();
        let mut found = BTreeSet::new();
        for (at, tool) in given.iter().enumerate() {
            let function = tool.get("function").unwrap_or(tool);
            let name = function.get("name").and_then(Value::as_str);
            let name = name.ok_or_else(|| Error::request(format!("tools[{at}].function.name"), "a text", "none"))?;
            if !names.is_empty() && !names.iter().any(|wanted| wanted == name) || !found.insert(name) {
                continue;
            }
            let field = format!("tools[{at}].function.parameters");
            let mut parameters = match function.get("parameters") {
                None | Some(Value::Null) => serde_json::json!({ "additionalProperties": false }),
                Some(parameters) => parameters.clone(),
            };
            look(&field, &parameters)?;
            // References begin at the parameters, which are a part of something larger now.
            mend(&mut parameters, &format!("/anyOf/{}/properties/arguments", calls.len()));
            let members =
                parameters.as_object_mut().ok_or_else(|| Error::request(field, "a schema of objects", "none"))?;
            if !members.contains_key("type") {
                members.insert("type".to_owned(), "object".into());
            }
            calls.push(serde_json::json!({
                "type": "object",
                "properties": { "name": { "const": name }, "arguments": parameters },
                "required": ["name", "arguments"],
                "additionalProperties": false,
            }));
        }
        if let Some(missing) = names.iter().find(|name| !found.contains(name.as_str())) {
            return Err(Error::request("tool_choice", "the name of one of the tools", missing.as_str()));
        }
        if calls.is_empty() {
            return Err(Error::request("tools", "at least one, as one must be called", "none"));
        }
        Ok(Self(serde_json::json!({ "anyOf": calls })))
    }

    /// With what else the grammar's compiler has to know, in the place of what the schema said of that.
    pub(super) fn into_value(mut self) -> Value {
        if let Value::Object(members) = &mut self.0 {
            members.insert("x-guidance".to_owned(), serde_json::json!({ "whitespace_pattern": SPACE }));
        }
        self.0
    }
}

fn parsed(field: &str, text: &str) -> Result<Value, Error> {
    if text.len() > BYTES_MAX {
        return Err(Error::request(field, format!("at most {BYTES_MAX} bytes"), text.len().to_string()));
    }
    // serde_json bounds the depth.
    serde_json::from_str(text).map_err(|error| {
        let place = format!("no JSON at line {} column {}", error.line(), error.column());
        Error::request(field, "JSON, at most 127 levels deep", place)
    })
}

/// Moves references to where they lead now, and takes formats out that only describe.
fn mend(schema: &mut Value, prefix: &str) {
    let Value::Object(members) = schema else { return };
    if members.get("format").and_then(Value::as_str).is_some_and(|format| !FORMATS.contains(&format)) {
        members.remove("format");
    }
    for (key, value) in members.iter_mut().filter(|(key, _)| !DATA.contains(&key.as_str())) {
        match value {
            Value::String(reference) if key == "$ref" && !prefix.is_empty() => {
                *reference = format!("#{prefix}{}", reference.trim_start_matches('#'));
            }
            Value::Object(named) if MAPS.contains(&key.as_str()) || key == "$defs" || key == "definitions" => {
                named.values_mut().for_each(|schema| mend(schema, prefix));
            }
            Value::Array(schemas) => schemas.iter_mut().for_each(|schema| mend(schema, prefix)),
            schema => mend(schema, prefix),
        }
    }
}

/// Whether a grammar can be made of it.
fn look(field: &str, root: &Value) -> Result<(), Error> {
    let mut walk = Walk { root, seen: BTreeSet::new(), nodes: 0, at: field.to_owned() };
    walk.schema(root, 0)
}

struct Walk<'a> {
    root: &'a Value,
    /// References that were followed.
    seen: BTreeSet<&'a str>,
    nodes: usize,
    /// Where it is.
    at: String,
}

impl<'a> Walk<'a> {
    fn wrong(&self, expected: impl Into<String>, given: impl Into<String>) -> Error {
        Error::request(self.at.as_str(), expected, given)
    }

    /// The same at a member or an element.
    fn below(&mut self, part: &str, look: impl FnOnce(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        let length = self.at.len();
        self.at.push('.');
        self.at.extend(part.chars().take(64));
        let looked = look(self);
        self.at.truncate(length);
        looked
    }

    fn count(&mut self, nodes: usize) -> Result<(), Error> {
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            return Err(self.wrong(format!("at most {NODES_MAX} schemas and enumerated values in all"), "more"));
        }
        Ok(())
    }

    fn schema(&mut self, schema: &'a Value, depth: usize) -> Result<(), Error> {
        self.count(1)?;
        if depth > DEPTH_MAX {
            let expected = format!("at most {DEPTH_MAX} schemas within each other, references followed");
            return Err(self.wrong(expected, "more"));
        }
        match schema {
            Value::Bool(_) => Ok(()),
            Value::Object(members) => self.members(members, depth),
            other => Err(self.wrong("a schema: an object, true or false", sort(other))),
        }
    }

    fn members(&mut self, members: &'a Map<String, Value>, depth: usize) -> Result<(), Error> {
        for (key, value) in members {
            let key = key.as_str();
            self.below(key, |walk| {
                if UNABLE.contains(&key) {
                    Err(walk.wrong("a keyword that an answer can be held to while it is written", "this one"))
                } else if SCHEMAS.contains(&key) && !value.is_array() {
                    walk.schema(value, depth + 1)
                } else if SCHEMAS.contains(&key) || LISTS.contains(&key) {
                    walk.list(value, depth)
                } else if MAPS.contains(&key) {
                    walk.map(value, depth)
                } else {
                    walk.plain(key, value, depth)
                }
            })?;
        }
        Ok(())
    }

    fn list(&mut self, value: &'a Value, depth: usize) -> Result<(), Error> {
        let list = value.as_array().ok_or_else(|| self.wrong("a list of schemas", sort(value)))?;
        for (at, schema) in list.iter().enumerate() {
            self.below(&at.to_string(), |walk| walk.schema(schema, depth + 1))?;
        }
        Ok(())
    }

    fn map(&mut self, value: &'a Value, depth: usize) -> Result<(), Error> {
        let members = value.as_object().ok_or_else(|| self.wrong("an object of schemas", sort(value)))?;
        if members.len() > PROPERTIES_MAX {
            return Err(self.wrong(format!("at most {PROPERTIES_MAX} properties"), members.len().to_string()));
        }
        for (name, schema) in members {
            self.below(name, |walk| walk.schema(schema, depth + 1))?;
        }
        Ok(())
    }

    /// Keywords without schemas in them.
    fn plain(&mut self, key: &str, value: &'a Value, depth: usize) -> Result<(), Error> {
        match (key, value) {
            ("enum", Value::Array(values)) => self.count(values.len()),
            ("required", Value::Array(names)) if names.len() <= PROPERTIES_MAX => Ok(()),
            ("required", _) => Err(self.wrong(format!("a list of at most {PROPERTIES_MAX} names"), "another value")),
            ("pattern", Value::String(pattern)) if pattern.len() <= PATTERN_BYTES_MAX => Ok(()),
            ("pattern", _) => Err(self.wrong(format!("a text of at most {PATTERN_BYTES_MAX} bytes"), "another value")),
            ("$ref", Value::String(reference)) => self.reference(reference, depth),
            ("$ref", other) => Err(self.wrong("a text", sort(other))),
            (count, value) if COUNTS.contains(&count) => match value.as_u64() {
                Some(count) if count <= COUNT_MAX => Ok(()),
                _ => Err(self.wrong(format!("a whole number of 0 to {COUNT_MAX}"), short(value))),
            },
            _ => Ok(()),
        }
    }

    /// Follows one as the grammar's compiler does: each once.
    fn reference(&mut self, reference: &'a str, depth: usize) -> Result<(), Error> {
        let given: String = reference.chars().take(64).collect();
        let path = reference.strip_prefix("#/").map(|path| path.split('/'));
        let target = match path {
            None if reference == "#" => Some(self.root),
            None => None,
            Some(mut path) => path.try_fold(self.root, |value, part| match value {
                Value::Array(values) => values.get(part.parse::<usize>().ok()?),
                value => value.get(part),
            }),
        };
        let expected = "a reference to a place in this schema that there is, #/$defs/NAME";
        let target = target.ok_or_else(|| self.wrong(expected, given))?;
        if self.seen.insert(reference) { self.schema(target, depth + 1) } else { Ok(()) }
    }
}

fn sort(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn short(value: &Value) -> String {
    value.to_string().chars().take(64).collect()
}
