//! Gemini's frames, Ollama's lines and Bedrock's messages: passed on as they are, listened to for their usage.

use bytes::Bytes;

use super::body::pass_renamed;
use crate::dialect::frame::Frame;
use crate::dialect::hear::{Listener, Told, listener};
use crate::dialect::json::{self, Members};
use crate::dialect::pair::{Step, Translate};
use crate::dialect::tell::Teller;
use crate::dialect::usage::Meter;
use crate::dialect::{
    Answer, Asked, Dialect, Error, Failure, Finish, Operation, Usage, bedrock, event_stream, gemini, ollama, sse,
};

/// Passes frames on.
pub(super) struct Pass {
    dialect: Dialect,
    model_shown: Option<String>,
    listener: Box<dyn Listener>,
}

/// Tells nobody.
struct Silent;

impl Teller for Silent {
    fn model(&mut self, _: &str) {}
    fn text(&mut self, _: &mut Vec<u8>, _: &str) -> Result<(), Error> {
        Ok(())
    }
    fn thought(&mut self, _: &mut Vec<u8>, _: &str) -> Result<(), Error> {
        Ok(())
    }
    fn signature(&mut self, _: &mut Vec<u8>, _: &str) -> Result<(), Error> {
        Ok(())
    }
    fn redacted(&mut self, _: &mut Vec<u8>, _: &str) -> Result<(), Error> {
        Ok(())
    }
    fn call(&mut self, _: &mut Vec<u8>, _: &str, _: &str, _: Option<&str>) -> Result<(), Error> {
        Ok(())
    }
    fn arguments(&mut self, _: &mut Vec<u8>, _: &str) -> Result<(), Error> {
        Ok(())
    }
    fn end(&mut self, _: &mut Vec<u8>, _: Finish, _: &Usage) -> Result<(), Error> {
        Ok(())
    }
    fn fail(&mut self, _: &mut Vec<u8>, _: &Failure) {}
}

/// The member with the model's name.
fn model_member(dialect: Dialect) -> &'static str {
    if dialect == Dialect::Gemini { "modelVersion" } else { "model" }
}

impl Pass {
    pub(super) fn new(dialect: Dialect, asked: &Asked) -> Self {
        Self { dialect, model_shown: asked.model_shown.clone(), listener: listener(dialect, asked) }
    }
}

impl Translate for Pass {
    fn frame(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>, meter: &mut Meter) -> Result<Step, Error> {
        let mut nothing = Vec::new();
        let step = self.listener.frame(frame, &mut Told { teller: &mut Silent, out: &mut nothing, meter })?;
        if matches!(step, Step::Failed(_)) {
            return Ok(step);
        }
        if frame.data.is_none() {
            frame.keep_alive(out);
            return Ok(step);
        }
        let data = frame.data.as_deref().filter(|_| self.model_shown.is_some());
        let members = data.and_then(|data| Members::parse(data).ok()).unwrap_or_default();
        pass_renamed(frame.raw, members.get(model_member(self.dialect)), self.model_shown.as_deref(), out);
        Ok(step)
    }

    fn close(&mut self, _: &mut Vec<u8>, _: &mut Meter) -> bool {
        self.listener.finish().is_some()
    }

    fn fail(&mut self, failure: &Failure, out: &mut Vec<u8>) {
        match self.dialect {
            Dialect::Gemini => sse::event(out, "", |out| gemini::error(failure, out)),
            Dialect::Bedrock => {
                let mut body = Vec::new();
                bedrock::error(failure, &mut body);
                event_stream::exception("modelStreamErrorException", &body, out);
            }
            _ => {
                ollama::error(failure, out);
                out.push(b'\n');
            }
        }
    }

    fn finish(&self) -> Option<Finish> {
        self.listener.finish()
    }
}

/// A whole answer; also one with vectors, which say nothing.
pub(super) fn answer(dialect: Dialect, body: &Bytes, asked: &Asked) -> Result<Answer, Error> {
    let mut meter = Meter::new(asked.input_tokens_estimated);
    let members = Members::parse(body).map_err(|_| Error::Malformed { dialect, what: "answer" })?;
    let mut finish = None;
    if matches!(asked.operation, Operation::Chat | Operation::Completions) {
        let mut listener = listener(dialect, asked);
        let mut nothing = Vec::new();
        listener.whole(body, &mut Told { teller: &mut Silent, out: &mut nothing, meter: &mut meter })?;
        finish = listener.finish();
    } else {
        let tokens = ["prompt_eval_count", "totalTokens", "inputTokens"];
        let told = tokens.iter().find_map(|name| members.get(name).and_then(json::whole));
        meter.told(&Usage { input_tokens: told, output_tokens: Some(0), ..Usage::default() });
    }
    let mut out = Vec::with_capacity(body.len() + 32);
    pass_renamed(body, members.get(model_member(dialect)), asked.model_shown.as_deref(), &mut out);
    Ok(Answer { body: out.into(), usage: meter.usage(), finish })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::{Facts, Stream, answer, request};

    fn asked(dialect: Dialect, body: &'static str, shown: Option<&str>) -> (Bytes, Asked) {
        let body = Bytes::from_static(body.as_bytes());
        let facts = Facts::read(dialect, Operation::Chat, &body).unwrap();
        let asked = Asked { model_shown: shown.map(str::to_owned), ..Asked::new(&facts, body.clone(), "7f3a", 0) };
        (body, asked)
    }

    #[test]
    fn googles_frames_pass_as_they_are_and_are_counted() {
        let (body, asked) =
            asked(Dialect::Gemini, r#"{"contents":[{"parts":[{"text":"Hi"}]}],"x_new":1}"#, Some("ours"));
        let facts = Facts::read(Dialect::Gemini, Operation::Chat, &body).unwrap();
        let to = crate::dialect::Target::new(Dialect::Gemini, "gemini-2.5-pro");
        assert_eq!(request(&body, &facts, &to).unwrap().body, body);
        let frame = "data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"Ho\"}]}, \"finishReason\": \"STOP\"}], \
                     \"usageMetadata\": {\"promptTokenCount\": 2, \"candidatesTokenCount\": 1}, \"modelVersion\": \"g\"}\r\n\r\n";
        let mut stream = Stream::new(Dialect::Gemini, &asked).unwrap();
        let mut out = Vec::new();
        stream.push(frame.as_bytes(), &mut out).unwrap();
        stream.close(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), frame.replace("\"g\"", "\"ours\""));
        assert_eq!((stream.usage().input_tokens, stream.usage().output_tokens), (Some(2), Some(1)));
        assert_eq!(stream.finish(), Some(Finish::Stop));
    }

    #[test]
    fn ollamas_lines_and_answers_pass_with_the_callers_name() {
        let (body, asked) = asked(Dialect::Ollama, r#"{"model":"ours","messages":[]}"#, Some("ours"));
        let facts = Facts::read(Dialect::Ollama, Operation::Chat, &body).unwrap();
        let sent = request(&body, &facts, &crate::dialect::Target::new(Dialect::Ollama, "qwen3")).unwrap();
        assert_eq!(&sent.body[..], br#"{"model":"qwen3","messages":[]}"#);
        let line = "{\"model\":\"qwen3\",\"message\":{\"content\":\"Hi\"},\"done\":true,\"eval_count\":1,\"prompt_eval_count\":3}\n";
        let mut stream = Stream::new(Dialect::Ollama, &asked).unwrap();
        let mut out = Vec::new();
        stream.push(line.as_bytes(), &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), line.replace("qwen3", "ours"));
        let answer = answer(&Bytes::from(line.trim()), Dialect::Ollama, &asked).unwrap();
        assert_eq!(answer.usage.total_tokens(), Some(4));
        assert!(answer.body.starts_with(b"{\"model\":\"ours\""));
    }

    #[test]
    fn a_cut_stream_fails_in_its_own_dialect() {
        for (dialect, body) in [
            (Dialect::Gemini, r#"{"contents":[]}"#),
            (Dialect::Ollama, r#"{"model":"m","messages":[]}"#),
            (Dialect::Bedrock, r#"{"messages":[]}"#),
        ] {
            let mut stream = Stream::new(dialect, &asked(dialect, body, None).1).unwrap();
            let mut out = Vec::new();
            assert!(stream.close(&mut out).is_err());
            stream.fail(&Failure::cut(), &mut out);
            let text = String::from_utf8_lossy(&out).into_owned();
            assert!(text.contains("broke off"), "{text}");
        }
    }
}
