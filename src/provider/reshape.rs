//! The one change to a body that an address asks for: Claude on Vertex has its model in the address and its version in
//! the body ("Claude on Vertex AI", `vertex-2023-10-16`).

use std::fmt;

use bytes::Bytes;
use serde::Deserializer;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

/// A JSON object's members in their order, values as written.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> serde::Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::with_capacity(map.size_hint().unwrap_or(8));
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// A Messages request as Vertex takes it. `keep_model`: the address has none (token counting). The error says what the
/// body is not.
pub(super) fn claude_on_vertex(body: &[u8], keep_model: bool) -> Result<Bytes, String> {
    let Members(members) = serde_json::from_slice(body).map_err(|_| "its body is no JSON object".to_owned())?;
    let mut out = Vec::with_capacity(body.len() + 48);
    out.push(b'{');
    for (name, value) in &members {
        if name == "anthropic_version" || (name == "model" && !keep_model) {
            continue;
        }
        serde_json::to_writer(&mut out, name).expect("a text is written to memory");
        out.push(b':');
        out.extend_from_slice(value.get().as_bytes());
        out.push(b',');
    }
    out.extend_from_slice(b"\"anthropic_version\":\"vertex-2023-10-16\"}");
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_leaves_the_body_and_everything_else_stays_as_written() {
        let body = br#" {"model":"claude","max_tokens":1e2,"x":[1.0, {"model":"inner"}],"a\"b":null,"stream":true} "#;
        let out = claude_on_vertex(body, false).unwrap();
        let expected =
            br#"{"max_tokens":1e2,"x":[1.0, {"model":"inner"}],"a\"b":null,"stream":true,"anthropic_version":"vertex-2023-10-16"}"#;
        assert_eq!(out, expected.as_slice());
        assert!(claude_on_vertex(body, true).unwrap().starts_with(br#"{"model":"claude","#));
        assert_eq!(claude_on_vertex(b"{}", false).unwrap(), br#"{"anthropic_version":"vertex-2023-10-16"}"#.as_slice());
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for bad in [&b""[..], b"[]", b"{", b"null", b"{\"a\":1} x", &b"[".repeat(100_000)] {
            assert!(claude_on_vertex(bad, false).is_err());
        }
    }
}
