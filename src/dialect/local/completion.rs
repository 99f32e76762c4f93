//! Completions: text that follows a text.

use std::borrow::Cow;

use super::settings::{LocalSettings, whole};
use super::token::{LocalToken, write_chosen_of_text};
use crate::dialect::chat::write_usage;
use crate::dialect::json::{self, Members, Sort, sort};
use crate::dialect::sse;
use crate::dialect::write::{Object, number, string};
use crate::dialect::{Asked, Error, Failure, Usage};

/// What a model goes on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalPrompt<'a> {
    /// A text.
    Text(Cow<'a, str>),
    /// Tokens of this model.
    Tokens(Vec<u32>),
}

/// A request of completions as somebody who runs a model wants it.
#[derive(Debug, Clone)]
pub struct CompletionRequest<'a> {
    /// The text to go on with.
    pub prompt: LocalPrompt<'a>,
    /// Whether the prompt shall stand before the answer.
    pub echo: bool,
    /// What shall stand behind the answer.
    pub suffix: Option<Cow<'a, str>>,
    /// How many of the best candidates beside each token, where probabilities are wanted.
    pub logprobs: Option<u64>,
    /// The rest.
    pub settings: LocalSettings<'a>,
}

impl<'a> CompletionRequest<'a> {
    /// Reads a body of completions.
    ///
    /// # Errors
    /// It is no object, the prompt is missing or more than one, or a number is no number or out of its range.
    pub fn read(body: &'a [u8]) -> Result<Self, Error> {
        let members = Members::parse(body).map_err(|error| Error::request(&error))?;
        let prompt = members.get("prompt").ok_or(Error::Missing { field: "prompt" })?;
        let wrong = || Error::field("prompt", "must be one text or one list of tokens");
        let tokens = |raw: json::Raw<'a>| {
            let list = serde_json::from_str::<Vec<u32>>(raw.get()).map_err(|_| wrong())?;
            Ok::<_, Error>(LocalPrompt::Tokens(list))
        };
        let prompt = match sort(prompt) {
            Sort::Text => LocalPrompt::Text(json::text(prompt).ok_or_else(wrong)?),
            Sort::Array => match json::elements(prompt, "prompt")?.as_slice() {
                [one] if sort(one) == Sort::Text => LocalPrompt::Text(json::text(one).ok_or_else(wrong)?),
                [one] if sort(one) == Sort::Array => tokens(one)?,
                _ => tokens(prompt)?,
            },
            _ => return Err(wrong()),
        };
        Ok(Self {
            prompt,
            echo: members.get("echo").and_then(json::flag).unwrap_or(false),
            suffix: members.text("suffix").filter(|suffix| !suffix.is_empty()),
            logprobs: whole(&members, "logprobs")?,
            settings: LocalSettings::read(&members)?,
        })
    }
}

/// Writes the stream of a completion.
#[derive(Debug)]
pub struct CompletionWriter {
    head: Vec<u8>,
    /// Characters of tokens that were told.
    offset: usize,
}

impl CompletionWriter {
    /// A writer for whoever asked. The usage is always written; a [`Stream`](crate::dialect::Stream) takes it out again.
    pub fn new(asked: &Asked) -> Self {
        let mut head = Vec::new();
        write_head(&mut head, asked);
        Self { head, offset: 0 }
    }

    /// More of the answer, and the tokens that were chosen meanwhile where their probabilities are wanted.
    pub fn text(&mut self, out: &mut Vec<u8>, text: &str, tokens: &[LocalToken]) {
        let chosen = (!tokens.is_empty()).then(|| {
            let mut chosen = Vec::new();
            self.offset = write_chosen_of_text(&mut chosen, tokens, self.offset);
            chosen
        });
        self.chunk(out, text, chosen.as_deref(), None);
    }

    /// The end: `stop` or `length`, and the usage.
    pub fn end(&mut self, out: &mut Vec<u8>, finish_reason: &str, usage: &Usage) {
        self.chunk(out, "", None, Some(finish_reason));
        sse::event(out, "", |out| {
            out.extend_from_slice(&self.head);
            out.extend_from_slice(b"],\"usage\":");
            write_usage(Object::new(out), usage);
            out.push(b'}');
        });
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    /// An error in the middle.
    pub fn fail(&mut self, out: &mut Vec<u8>, failure: &Failure) {
        sse::event(out, "", |out| crate::dialect::chat::error(failure, out));
    }

    fn chunk(&self, out: &mut Vec<u8>, text: &str, chosen: Option<&[u8]>, reason: Option<&str>) {
        sse::event(out, "", |out| {
            out.extend_from_slice(&self.head);
            write_choice(out, text, chosen, reason);
            out.extend_from_slice(b"],\"usage\":null}");
        });
    }
}

/// `{"id":...,"choices":[`
fn write_head(out: &mut Vec<u8>, asked: &Asked) {
    out.extend_from_slice(b"{\"id\":\"cmpl-");
    out.extend_from_slice(asked.id.as_bytes());
    out.extend_from_slice(b"\",\"object\":\"text_completion\",\"created\":");
    number(out, asked.created_unix_s);
    out.extend_from_slice(b",\"model\":");
    string(out, asked.model(None));
    out.extend_from_slice(b",\"choices\":[");
}

fn write_choice(out: &mut Vec<u8>, text: &str, chosen: Option<&[u8]>, reason: Option<&str>) {
    let mut choice = Object::new(out);
    choice.number("index", 0);
    choice.text("text", text);
    match chosen {
        Some(chosen) => choice.key("logprobs").extend_from_slice(chosen),
        None => choice.null("logprobs"),
    }
    match reason {
        Some(reason) => choice.text("finish_reason", reason),
        None => choice.null("finish_reason"),
    }
}

/// A whole completion.
pub fn completion_body(
    asked: &Asked,
    text: &str,
    tokens: Option<&[LocalToken]>,
    finish_reason: &str,
    usage: &Usage,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(512 + text.len());
    write_head(&mut out, asked);
    let chosen = tokens.map(|tokens| {
        let mut chosen = Vec::new();
        write_chosen_of_text(&mut chosen, tokens, 0);
        chosen
    });
    write_choice(&mut out, text, chosen.as_deref(), Some(finish_reason));
    out.extend_from_slice(b"],\"usage\":");
    write_usage(Object::new(&mut out), usage);
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;
    use crate::dialect::trial::asked;
    use crate::dialect::{Dialect, Operation, answer};

    #[test]
    fn a_prompt_is_one_text_or_one_list_of_tokens() {
        let read = |prompt: &str| {
            let body = format!(r#"{{"model":"m","prompt":{prompt}}}"#);
            CompletionRequest::read(body.as_bytes()).map(|request| match request.prompt {
                LocalPrompt::Text(text) => json!(text),
                LocalPrompt::Tokens(tokens) => json!(tokens),
            })
        };
        for (prompt, expected) in
            [(r#""a\n""#, json!("a\n")), (r#"["a"]"#, json!("a")), ("[1,2]", json!([1, 2])), ("[[7]]", json!([7]))]
        {
            assert_eq!(read(prompt).unwrap(), expected, "{prompt}");
        }
        for wrong in [r#"["a","b"]"#, "[[1],[2]]", "7", "[-1]", "[1.5]", "{}", "[null]"] {
            let error = read(wrong).unwrap_err();
            assert!(matches!(error, Error::Field { ref field, .. } if field == "prompt"), "{wrong}: {error}");
        }
        assert!(matches!(CompletionRequest::read(b"{}"), Err(Error::Missing { field: "prompt" })));
    }

    #[test]
    fn a_completion_is_told_whole_and_in_pieces_with_its_probabilities() {
        let asked =
            Asked { operation: Operation::Completions, ..asked(Dialect::Chat, &json!({"model": "m", "prompt": "a"})) };
        let usage = Usage { input_tokens: Some(3), output_tokens: Some(2), ..Usage::default() };
        let token = |bytes: &[u8]| LocalToken {
            bytes: bytes.to_vec(),
            logprob: f32::NEG_INFINITY,
            alternatives: vec![(b"x".to_vec(), -0.5)],
        };
        let tokens = [token("\u{e9}".as_bytes()), token(b"b")];
        let whole = completion_body(&asked, "\u{e9}b", Some(&tokens), "length", &usage);
        let told = answer(&Bytes::from(whole), Dialect::Chat, &asked).unwrap();
        let body: Value = serde_json::from_slice(&told.body).unwrap();
        assert_eq!(body["choices"][0]["text"], "\u{e9}b");
        assert_eq!(
            body["choices"][0]["logprobs"],
            json!({"tokens": ["\u{e9}", "b"], "token_logprobs": [-9999.0, -9999.0],
                "top_logprobs": [{"x": -0.5}, {"x": -0.5}], "text_offset": [0, 1]})
        );
        assert_eq!((body["usage"]["total_tokens"].as_u64(), told.usage.total_tokens()), (Some(5), Some(5)));

        let (mut writer, mut out) = (CompletionWriter::new(&asked), Vec::new());
        writer.text(&mut out, "\u{e9}", &tokens[..1]);
        writer.text(&mut out, "b", &tokens[1..]);
        writer.end(&mut out, "length", &usage);
        let frames: Vec<Value> = std::str::from_utf8(&out)
            .unwrap()
            .split("\n\n")
            .filter_map(|frame| serde_json::from_str(frame.strip_prefix("data: ")?).ok())
            .collect();
        assert_eq!(frames.len(), 4);
        assert_eq!(frames[1]["choices"][0]["logprobs"]["text_offset"], json!([1]));
        assert_eq!(frames[2]["choices"][0]["finish_reason"], "length");
        assert_eq!((&frames[3]["choices"], &frames[3]["usage"]["completion_tokens"]), (&json!([]), &json!(2)));
        assert!(frames.iter().all(|frame| frame["id"] == frames[0]["id"] && frame["object"] == "text_completion"));
        assert!(out.ends_with(b"data: [DONE]\n\n"));
    }
}
