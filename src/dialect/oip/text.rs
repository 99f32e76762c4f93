//! The text of an answer as it is, for whoever takes it apart before it becomes an answer.

use super::told::{Heard, Told};
use crate::dialect::frame::Frames;
use crate::dialect::json;
use crate::dialect::usage::Meter;
use crate::dialect::{Asked, Dialect, Error, Failure, Finish, Step, Usage};

const OIP: Dialect = Dialect::Oip;

/// Reads what `generate_stream` or `generate` of a server of the Open Inference Protocol answers.
pub struct TextReader {
    frames: Frames,
    asked: Asked,
    told: Told,
    meter: Meter,
}

impl std::fmt::Debug for TextReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextReader").field("told", &self.told).finish_non_exhaustive()
    }
}

impl TextReader {
    /// For whoever asked; of its request only the limit of tokens counts.
    ///
    /// # Errors
    /// None today: the protocol has one framing.
    pub fn new(asked: &Asked) -> Result<Self, Error> {
        let frames = Frames::of(OIP, asked.limits.frame_max_bytes)?;
        let meter = Meter::new(asked.input_tokens_estimated);
        Ok(Self { frames, asked: asked.clone(), told: Told::default(), meter })
    }

    /// Takes a chunk of a stream as it arrived and appends its text.
    ///
    /// # Errors
    /// A frame is too long or makes no sense. The stream is over then.
    pub fn push(&mut self, chunk: &[u8], text: &mut String) -> Result<Step, Error> {
        self.frames.push(chunk)?;
        while let Some(frame) = self.frames.next()? {
            let Some(data) = frame.data.as_deref() else { continue };
            let what = "event of the stream";
            match self.told.hear(data, &self.asked, what)? {
                Heard::Failed(failure) => return Ok(Step::Failed(failure)),
                Heard::Text { text: more, is_last, model: _ } => {
                    self.meter.said(more);
                    text.push_str(&json::unescaped(more).ok_or(Error::Malformed { dialect: OIP, what })?);
                    if is_last {
                        return Ok(Step::Done);
                    }
                }
            }
        }
        Ok(Step::More)
    }

    /// The server closed the stream.
    ///
    /// # Errors
    /// The answer broke off.
    pub fn close(&self) -> Result<(), Failure> {
        if self.frames.is_mid_frame() || !self.told.is_whole() { Err(Failure::cut()) } else { Ok(()) }
    }

    /// The text of a whole answer.
    ///
    /// # Errors
    /// It is none.
    pub fn whole(&mut self, body: &[u8]) -> Result<String, Error> {
        let what = "answer";
        let text = match self.told.hear(body, &self.asked, what)? {
            Heard::Text { text, .. } => {
                self.meter.said(text);
                json::unescaped(text)
            }
            Heard::Failed(_) => None,
        };
        Ok(text.ok_or(Error::Malformed { dialect: OIP, what })?.into_owned())
    }

    /// What was used so far: told by the server, or counted here and marked as estimated.
    pub fn usage(&self) -> Usage {
        let mut meter = self.meter;
        meter.told(&self.told.usage());
        meter.usage()
    }

    /// Why the model stopped.
    pub fn finish(&self) -> Finish {
        self.told.end(&self.asked)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;
    use crate::dialect::{Facts, OipModel, Operation, Outgoing, Target, text_request};

    fn reader(body: &Value) -> TextReader {
        let body = Bytes::from(body.to_string());
        let facts = Facts::read(Dialect::Chat, Operation::Chat, &body).unwrap();
        TextReader::new(&Asked::new(&facts, body.clone(), "1", 1)).unwrap()
    }

    fn events(texts: &[Value]) -> String {
        texts.iter().map(|event| format!("data: {event}\n\n")).collect()
    }

    #[test]
    fn the_text_comes_without_its_escapes_in_whatever_chunks_it_arrives() {
        let all = events(&[json!({"text_output": "a\n"}), json!({"text_output": "\"é🔥"}), json!({"text_output": ""})]);
        for size in [1, 7, all.len()] {
            let mut reader = reader(&json!({"model": "m", "messages": []}));
            let mut text = String::new();
            for chunk in all.as_bytes().chunks(size) {
                assert_eq!(reader.push(chunk, &mut text), Ok(Step::More));
            }
            assert_eq!((text.as_str(), reader.close(), reader.finish()), ("a\n\"é🔥", Ok(()), Finish::Other));
            let usage = reader.usage();
            assert!(usage.estimated && usage.output_tokens > Some(0), "nobody counted: {usage:?}");
        }
    }

    #[test]
    fn a_stream_that_tells_reasons_has_to_tell_one_and_one_that_says_nothing_is_no_answer() {
        let told = |reason: &str| json!({"text_output": "a", "finish_reason": reason, "num_output_tokens": 2});
        let ask = json!({"model": "m", "messages": [], "max_completion_tokens": 2});
        let mut open = reader(&ask);
        let mut text = String::new();
        assert_eq!(open.push(events(&[told("None")]).as_bytes(), &mut text), Ok(Step::More));
        assert_eq!(open.close(), Err(Failure::cut()));
        assert_eq!(open.push(events(&[told("length")]).as_bytes(), &mut text), Ok(Step::Done));
        assert_eq!((open.finish(), open.usage().output_tokens), (Finish::Length, Some(4)));
        assert_eq!(reader(&ask).close(), Err(Failure::cut()), "it said nothing");
        let mut whole = reader(&ask);
        assert_eq!(
            whole.whole(json!({"text_output": ["b"], "num_output_tokens": 2}).to_string().as_bytes()).unwrap(),
            "b"
        );
        assert_eq!(whole.finish(), Finish::Length, "as many as it may have");
    }

    #[test]
    fn garbage_is_malformed_and_an_error_in_the_stream_is_the_servers() {
        for garbage in
            ["data: {\n\n", "data: {}\n\n", "data: {\"text_output\":7}\n\n", "data: {\"text_output\":\"\\ud800\"}\n\n"]
        {
            let pushed = reader(&json!({"model": "m", "messages": []})).push(garbage.as_bytes(), &mut String::new());
            assert!(matches!(pushed, Err(Error::Malformed { .. })), "{garbage}: {pushed:?}");
        }
        let mut failing = reader(&json!({"model": "m", "messages": []}));
        let pushed = failing.push(events(&[json!({"error": "out of memory"})]).as_bytes(), &mut String::new());
        assert!(matches!(pushed, Ok(Step::Failed(_))), "{pushed:?}");
        for body in ["", "[]", r#"{"error":"x"}"#, r#"{"text_output":"\ud800"}"#] {
            assert!(reader(&json!({"model": "m", "messages": []})).whole(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn a_chat_is_asked_as_the_text_of_its_template_and_what_that_says_is_not_left_out() {
        let chat = json!({"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": [], "tool_choice": "auto",
            "chat_template_kwargs": {}, "response_format": {"type": "text"}, "top_k": 4, "user": "u", "n": 1, "stream": true,
            "reasoning_effort": "none"});
        let to = Target { oip: OipModel::DEFAULT, output_tokens_default: 99, ..Target::new(OIP, "m") };
        let Outgoing { body, left_out } = text_request(chat.to_string().as_bytes(), "<s>\"x\"", &to).unwrap();
        let parameters = json!({"stream": true, "exclude_input_in_output": true, "max_tokens": 99, "top_k": 4});
        let sent: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(sent, json!({"text_input": "<s>\"x\"", "parameters": parameters}));
        assert_eq!(left_out, ["user"]);
    }
}
