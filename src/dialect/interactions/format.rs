//! `response_format`: what the answer shall be.

use crate::dialect::json::{self, Members, Raw, Sort, sort};

/// What is asked for.
#[derive(Debug)]
pub(crate) enum Wanted<'a> {
    Text,
    /// Any JSON.
    Json,
    /// JSON of that form.
    Schema(Raw<'a>),
    /// Sound, pictures, films.
    Media,
}

/// Reads `response_format` and the older `response_mime_type`. A format is one of text, a list of formats, or a bare JSON
/// schema, as it was before formats had a type.
pub(crate) fn wanted<'a>(format: Option<Raw<'a>>, mime_type: Option<Raw<'a>>) -> Wanted<'a> {
    let json_wanted = mime_type.and_then(json::text).as_deref() == Some("application/json");
    let formats = match format {
        Some(raw) if sort(raw) == Sort::Array => json::lenient_elements(raw),
        Some(raw) if sort(raw) == Sort::Object => vec![raw],
        _ => Vec::new(),
    };
    let mut found = if json_wanted { Wanted::Json } else { Wanted::Text };
    for raw in formats {
        let format = Members::lenient(raw);
        let kind = format.text("type");
        match kind.as_deref() {
            Some("text") => {
                let mime_type = format.text("mime_type");
                if let Some(schema) = format.get("schema") {
                    found = Wanted::Schema(schema);
                } else if mime_type.as_deref() == Some("application/json") {
                    found = Wanted::Json;
                }
            }
            Some("audio" | "image" | "video") => return Wanted::Media,
            _ if format.len() > 0 => found = Wanted::Schema(raw),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    fn read(format: &str, mime_type: Option<&str>) -> String {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        let (format, mime_type) = (raw(format), mime_type.map(|text| raw(&format!("{text:?}"))));
        match wanted(Some(&format), mime_type.as_deref()) {
            Wanted::Schema(schema) => schema.get().to_owned(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn every_form_of_a_format_is_read() {
        assert_eq!(
            read(r#"{"type":"text","mime_type":"application/json","schema":{"type":"object"}}"#, None),
            r#"{"type":"object"}"#
        );
        assert_eq!(read(r#"[{"type":"text","schema":{}}]"#, None), "{}");
        assert_eq!(
            read(r#"{"type":"object","properties":{}}"#, Some("application/json")),
            r#"{"type":"object","properties":{}}"#
        );
        assert_eq!(read(r#"{"type":"text","mime_type":"application/json"}"#, None), "Json");
        assert_eq!(read("null", Some("application/json")), "Json");
        assert_eq!(read(r#"{"type":"text"}"#, None), "Text");
        assert_eq!(read("{}", Some("text/plain")), "Text");
        assert_eq!(read(r#"[{"type":"text"},{"type":"image"}]"#, None), "Media");
    }
}
