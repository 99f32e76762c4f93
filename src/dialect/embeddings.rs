//! Embeddings for a model in this process: what is asked, and the answer.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::json::{self, Members, Sort, sort};
use super::write::{Object, string};
use super::{Error, Usage};

/// The most texts in one request, OpenAI's own limit.
const INPUTS_MAX: usize = 2_048;

/// A request of OpenAI's for embeddings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddingsRequest<'a> {
    /// The texts, at most 2,048.
    pub inputs: Vec<Cow<'a, str>>,
    /// Whether the vectors are wanted as base64 of little-endian 32-bit floats: OpenAI's clients ask for that.
    pub base64: bool,
    /// How many dimensions are wanted, if not all.
    pub dimensions: Option<u64>,
}

impl<'a> EmbeddingsRequest<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// It is no object, or a member of it is wrong. Texts that were cut into tokens elsewhere are refused: their numbers
    /// mean something only to the model they were made for.
    pub fn read(body: &'a [u8]) -> Result<Self, Error> {
        let members = Members::parse(body).map_err(|error| Error::request(&error))?;
        let input = members.get("input").ok_or(Error::Missing { field: "input" })?;
        let wrong = || Error::field("input", "must be a text or a list of at most 2048 texts");
        let inputs = match sort(input) {
            Sort::Text => vec![json::text(input).ok_or_else(wrong)?],
            Sort::Array => {
                let list = json::elements(input, "input")?;
                if list.is_empty() || list.len() > INPUTS_MAX {
                    return Err(wrong());
                }
                list.into_iter().map(|text| json::text(text).ok_or_else(wrong)).collect::<Result<_, _>>()?
            }
            _ => return Err(wrong()),
        };
        let base64 = match members.text("encoding_format").as_deref() {
            None | Some("float") => false,
            Some("base64") => true,
            Some(_) => return Err(Error::field("encoding_format", "must be float or base64")),
        };
        let dimensions = match members.get("dimensions") {
            None => None,
            Some(raw) => Some(
                json::whole(raw)
                    .filter(|dimensions| *dimensions > 0)
                    .ok_or_else(|| Error::field("dimensions", "must be a whole number above 0"))?,
            ),
        };
        Ok(Self { inputs, base64, dimensions })
    }

    /// The answer with one vector an input, in their order.
    pub fn answer(&self, model: &str, vectors: &[Vec<f32>], usage: &Usage) -> Vec<u8> {
        let mut out = Vec::with_capacity(128 + vectors.iter().map(|vector| vector.len() * 12).sum::<usize>());
        let mut body = Object::new(&mut out);
        body.text("object", "list");
        {
            let mut data = body.array("data");
            for (index, vector) in vectors.iter().enumerate() {
                let mut entry = data.object();
                entry.text("object", "embedding");
                entry.number("index", index as u64);
                let value = entry.key("embedding");
                if self.base64 {
                    let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
                    string(value, &STANDARD.encode(bytes));
                } else {
                    serde_json::to_writer(value, vector).expect("a vector takes every write");
                }
            }
        }
        body.text("model", model);
        let input = usage.input_tokens.unwrap_or(0);
        let mut to = body.object("usage");
        to.number("prompt_tokens", input);
        to.number("total_tokens", input);
        drop(to);
        drop(body);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_and_many_are_read() {
        let one = EmbeddingsRequest::read(br#"{"model":"m","input":"a\nb"}"#).unwrap();
        assert_eq!((one.inputs, one.base64), (vec![Cow::Borrowed("a\nb")], false));
        let many = br#"{"model":"m","input":["a","b"],"encoding_format":"base64","dimensions":2}"#;
        let many = EmbeddingsRequest::read(many).unwrap();
        assert_eq!((many.inputs.len(), many.base64, many.dimensions), (2, true, Some(2)));
    }

    #[test]
    fn tokens_and_empty_lists_are_refused() {
        for input in ["[]", "[1,2]", "[[1,2]]", "7", "{}", "[\"a\",null]"] {
            let body = format!(r#"{{"model":"m","input":{input}}}"#);
            let error = EmbeddingsRequest::read(body.as_bytes()).unwrap_err();
            assert!(matches!(error, Error::Field { ref field, .. } if field == "input"), "{input}: {error}");
        }
    }

    #[test]
    fn vectors_come_as_numbers_or_as_base64() {
        let usage = Usage { input_tokens: Some(3), ..Usage::default() };
        let mut request = EmbeddingsRequest::read(br#"{"input":"a"}"#).unwrap();
        assert_eq!(
            String::from_utf8(request.answer("m", &[vec![1.0, -0.5]], &usage)).unwrap(),
            r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[1.0,-0.5]}],"model":"m","usage":{"prompt_tokens":3,"total_tokens":3}}"#
        );
        request.base64 = true;
        let body = String::from_utf8(request.answer("m", &[vec![1.0, -0.5]], &usage)).unwrap();
        assert!(body.contains(r#""embedding":"AACAPwAAAL8=""#), "{body}");
    }
}
