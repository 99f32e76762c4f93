//! Messages, tools and variables as templates expect them: texts for contents, objects for arguments, and nothing in them that steers.

use minijinja::Value;
use minijinja::value::ValueKind;

use super::controls::Controls;
use super::error::Error;
use super::template::reason;

/// Keeps the order of members, as the model learned it.
pub(super) fn parsed(field: &str, text: &str) -> Result<Value, Error> {
    // serde_json bounds the depth.
    serde_json::from_str(text).map_err(|error| {
        let place = format!("no JSON at line {} column {}", error.line(), error.column());
        Error::request(field, "JSON", place)
    })
}

pub(super) fn pairs(map: &Value) -> Result<Vec<(Value, Value)>, Error> {
    let keys = map.try_iter().map_err(|error| Error::Template(reason(&error)))?;
    let get = |key: Value| map.get_item(&key).map(|value| (key, value));
    keys.map(get).collect::<Result<_, _>>().map_err(|error| Error::Template(reason(&error)))
}

/// The same value with every text in it shielded.
pub(super) fn shielded(value: &Value, controls: &dyn Controls) -> Result<Value, Error> {
    Ok(match value.kind() {
        ValueKind::String => Value::from(controls.shielded(value.as_str().unwrap_or_default())),
        ValueKind::Seq => {
            let items = value.try_iter().map_err(|error| Error::Template(reason(&error)))?;
            Value::from(items.map(|item| shielded(&item, controls)).collect::<Result<Vec<_>, _>>()?)
        }
        ValueKind::Map => {
            let shield = |(key, value): (Value, Value)| Ok((shielded(&key, controls)?, shielded(&value, controls)?));
            Value::from_pairs(pairs(value)?.into_iter().map(shield).collect::<Result<Vec<_>, Error>>()?)
        }
        _ => value.clone(),
    })
}

/// Messages as templates expect them: texts for contents, objects for arguments.
pub(super) fn messages(text: &str, controls: &dyn Controls) -> Result<Value, Error> {
    let given = parsed("messages", text)?;
    if given.kind() != ValueKind::Seq || given.len() == Some(0) {
        return Err(Error::request("messages", "a list of at least one", given.kind().to_string()));
    }
    let items = given.try_iter().map_err(|error| Error::Template(reason(&error)))?;
    let each = items.enumerate().map(|(at, message)| {
        let field = |name: &str| format!("messages[{at}].{name}");
        if message.kind() != ValueKind::Map {
            return Err(Error::request(format!("messages[{at}]"), "an object", message.kind().to_string()));
        }
        let mut members = Vec::new();
        let mut has_role = false;
        for (key, value) in pairs(&message)? {
            let value = match key.as_str().unwrap_or_default() {
                "role" => {
                    has_role = true;
                    role(&value).ok_or_else(|| {
                        let roles = "system, developer, user, assistant, tool or function";
                        Error::request(field("role"), roles, "another")
                    })?
                }
                "content" => content(&value, &field("content"), controls)?,
                "tool_calls" => calls(&value, &field("tool_calls"), controls)?,
                _ => shielded(&value, controls)?,
            };
            members.push((shielded(&key, controls)?, value));
        }
        if !has_role {
            return Err(Error::request(field("role"), "one", "none"));
        }
        if !members.iter().any(|(key, _)| key.as_str() == Some("content")) {
            members.push((Value::from("content"), Value::from("")));
        }
        Ok(Value::from_pairs(members))
    });
    Ok(Value::from(each.collect::<Result<Vec<_>, Error>>()?))
}

fn role(value: &Value) -> Option<Value> {
    Some(match value.as_str()? {
        "developer" => Value::from("system"),
        "function" => Value::from("tool"),
        "system" | "user" | "assistant" | "tool" => value.clone(),
        _ => return None,
    })
}

fn content(value: &Value, field: &str, controls: &dyn Controls) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => shielded(value, controls),
        // Templates add contents to texts.
        ValueKind::None | ValueKind::Undefined => Ok(Value::from("")),
        ValueKind::Seq => {
            let mut text = String::new();
            for part in value.try_iter().map_err(|error| Error::Template(reason(&error)))? {
                let member = |name: &str| part.get_attr(name).ok().unwrap_or_default();
                let kind = member("type");
                match (kind.as_str(), member("text").as_str()) {
                    (Some("text" | "input_text" | "output_text"), Some(said)) => text.push_str(said),
                    (Some("refusal"), _) => text.push_str(member("refusal").as_str().unwrap_or_default()),
                    (other, _) => {
                        return Err(Error::Unsupported {
                            what: format!("{field} of type {:?}", other.unwrap_or_default()),
                            instead: "they read parts of type text".to_owned(),
                        });
                    }
                }
            }
            Ok(Value::from(controls.shielded(&text)))
        }
        other => Err(Error::request(field, "a text or a list of parts", other.to_string())),
    }
}

/// Arguments come as a text that holds JSON, and templates want what it holds.
fn calls(value: &Value, field: &str, controls: &dyn Controls) -> Result<Value, Error> {
    if value.is_none() {
        return Ok(Value::from(()));
    }
    if value.kind() != ValueKind::Seq {
        return Err(Error::request(field, "a list", value.kind().to_string()));
    }
    let open = |value: &Value| -> Result<Value, Error> {
        let members = pairs(value)?.into_iter().map(|(key, value)| {
            let inner = match (key.as_str(), value.as_str()) {
                (Some("arguments"), Some(text)) if !text.is_empty() => parsed(&format!("{field}.arguments"), text)?,
                _ => value,
            };
            Ok((key, inner))
        });
        Ok(Value::from_pairs(members.collect::<Result<Vec<_>, Error>>()?))
    };
    let items = value.try_iter().map_err(|error| Error::Template(reason(&error)))?;
    let each = items.map(|call| {
        if call.kind() != ValueKind::Map {
            return Err(Error::request(field, "objects", call.kind().to_string()));
        }
        let members = pairs(&open(&call)?)?.into_iter().map(|(key, value)| {
            let is_function = key.as_str() == Some("function") && value.kind() == ValueKind::Map;
            Ok((key, if is_function { open(&value)? } else { value }))
        });
        shielded(&Value::from_pairs(members.collect::<Result<Vec<_>, Error>>()?), controls)
    });
    Ok(Value::from(each.collect::<Result<Vec<_>, Error>>()?))
}
