//! Google's subset of OpenAPI as JSON Schema.

use super::conversation::Schema;
use crate::dialect::json::{self, Members, Raw, Sort, sort};
use crate::dialect::write::{Array, Object};

/// Schemas within schemas that are followed; JSON itself is read no deeper than 128.
const DEPTH_MAX: usize = 64;

/// Writes `schema` as JSON Schema.
pub(super) fn write(schema: Schema<'_>, out: &mut Vec<u8>) {
    match schema {
        Schema::Json(raw) => out.extend_from_slice(raw.get().as_bytes()),
        Schema::OpenApi(raw) => convert(raw, DEPTH_MAX, out),
    }
}

/// The same as a text.
pub(super) fn text(schema: Schema<'_>) -> String {
    let mut out = Vec::new();
    write(schema, &mut out);
    String::from_utf8(out).expect("JSON is UTF-8")
}

fn convert(raw: Raw<'_>, depth: usize, out: &mut Vec<u8>) {
    if sort(raw) != Sort::Object || depth == 0 {
        out.extend_from_slice(raw.get().as_bytes());
        return;
    }
    let members = Members::lenient(raw);
    let nullable = members.get("nullable").and_then(json::flag) == Some(true);
    let mut object = Object::new(out);
    for (name, raw) in members.iter() {
        match name {
            // How Google orders the members of an answer; `nullable` goes into the type.
            "nullable" | "propertyOrdering" | "property_ordering" => {}
            "type" => {
                let kind = json::text(raw).unwrap_or_default().to_ascii_lowercase();
                if nullable {
                    let mut kinds = object.array("type");
                    kinds.text(&kind);
                    kinds.text("null");
                } else {
                    object.text("type", &kind);
                }
            }
            "items" | "additionalProperties" => convert(raw, depth - 1, object.key(name)),
            "anyOf" | "any_of" => {
                let mut any = Array::new(object.key("anyOf"));
                for one in json::lenient_elements(raw) {
                    convert(one, depth - 1, any.element());
                }
            }
            "properties" => {
                let mut properties = object.object("properties");
                for (name, raw) in Members::lenient(raw).iter() {
                    convert(raw, depth - 1, properties.key(name));
                }
            }
            // Google writes these numbers as texts.
            "minItems" | "maxItems" | "minLength" | "maxLength" | "minProperties" | "maxProperties" => {
                let number = json::whole(raw).or_else(|| json::text(raw).and_then(|text| text.parse().ok()));
                if let Some(number) = number {
                    object.number(name, number);
                }
            }
            _ => object.raw(name, raw),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    fn converted(schema: &str) -> String {
        text(Schema::OpenApi(&RawValue::from_string(schema.to_owned()).unwrap()))
    }

    #[test]
    fn types_become_small_and_nullable_ones_two() {
        let schema = r#"{"type":"OBJECT","propertyOrdering":["a"],"required":["a"],"properties":{"a":{"type":"STRING","nullable":true,
            "enum":["X"]},"b":{"type":"ARRAY","minItems":"1","items":{"type":"INTEGER","format":"int32"}},"c":{"anyOf":[{"type":"NUMBER"}]}}}"#;
        assert_eq!(
            converted(schema),
            r#"{"type":"object","required":["a"],"properties":{"a":{"type":["string","null"],"enum":["X"]},"b":{"type":"array","minItems":1,"items":{"type":"integer","format":"int32"}},"c":{"anyOf":[{"type":"number"}]}}}"#
        );
    }

    #[test]
    fn a_schema_that_is_none_passes_and_a_deep_one_ends() {
        for odd in ["true", "7", "[]", "null", r#"{"type":7}"#] {
            converted(odd);
        }
        let deep = format!("{}true{}", r#"{"items":"#.repeat(100), "}".repeat(100));
        assert!(serde_json::from_str::<serde_json::Value>(&converted(&deep)).is_ok());
    }
}
