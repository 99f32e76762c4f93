//! Gemini's `generateContent` and `streamGenerateContent?alt=sse`.

use super::Teller;
use super::arguments::{Call, Kept};
use crate::dialect::gemini::{error, write_usage};
use crate::dialect::sse;
use crate::dialect::write::Object;
use crate::dialect::{Asked, Dialect, Error, Failure, Finish, Usage};

enum Part {
    Text(String),
    Thought(String),
    Call(Call),
}

/// Frames of a stream, or one body: they have the same form.
pub(super) struct Gemini {
    asked: Asked,
    model: Option<String>,
    streams: bool,
    kept: Kept,
    /// Of a whole answer.
    parts: Vec<Part>,
}

impl Gemini {
    pub(super) fn new(asked: &Asked, from: Dialect, streams: bool) -> Self {
        let kept = Kept::new(from, asked.limits.kept_max_bytes);
        Self { asked: asked.clone(), model: None, streams, kept, parts: Vec::new() }
    }

    fn say(&mut self, out: &mut Vec<u8>, part: Part) {
        if self.streams {
            sse::event(out, "", |out| self.frame(out, &[part], None));
            return;
        }
        match (self.parts.last_mut(), part) {
            (Some(Part::Text(old)), Part::Text(new)) | (Some(Part::Thought(old)), Part::Thought(new)) => {
                old.push_str(&new);
            }
            (_, part) => self.parts.push(part),
        }
    }

    /// The call before is whole.
    fn finish_call(&mut self, out: &mut Vec<u8>, call: Option<Call>) {
        if let Some(call) = call {
            self.say(out, Part::Call(call));
        }
    }

    fn frame(&self, out: &mut Vec<u8>, parts: &[Part], end: Option<(Finish, &Usage)>) {
        let mut body = Object::new(out);
        {
            let mut candidates = body.array("candidates");
            let mut candidate = candidates.object();
            {
                let mut content = candidate.object("content");
                {
                    let mut list = content.array("parts");
                    for part in parts {
                        let mut one = list.object();
                        match part {
                            Part::Text(text) => one.escaped("text", text),
                            Part::Thought(text) => {
                                one.escaped("text", text);
                                one.flag("thought", true);
                            }
                            Part::Call(call) => {
                                {
                                    let mut function = one.object("functionCall");
                                    function.escaped("id", &call.id);
                                    function.escaped("name", &call.name);
                                    function.json("args", &call.arguments);
                                }
                                if let Some(signature) = &call.signature {
                                    one.escaped("thoughtSignature", signature);
                                }
                            }
                        }
                    }
                    if parts.is_empty() {
                        list.object().text("text", "");
                    }
                }
                content.text("role", "model");
            }
            if let Some((finish, _)) = end {
                candidate.text("finishReason", word(finish));
            }
            candidate.number("index", 0);
        }
        if let Some((_, usage)) = end {
            write_usage(body.object("usageMetadata"), usage);
        }
        body.text("modelVersion", self.asked.model(self.model.as_deref()));
        body.text("responseId", &self.asked.id);
    }
}

/// Google's word for why a model stopped. A call of a tool is an ordinary end.
fn word(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop | Finish::ToolCalls => "STOP",
        Finish::Length => "MAX_TOKENS",
        Finish::Filtered => "SAFETY",
        Finish::Other => "OTHER",
    }
}

impl Teller for Gemini {
    fn model(&mut self, name: &str) {
        self.model.get_or_insert_with(|| name.to_owned());
    }

    fn text(&mut self, out: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.say(out, Part::Text(inner.to_owned()));
        Ok(())
    }

    fn thought(&mut self, out: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.say(out, Part::Thought(inner.to_owned()));
        Ok(())
    }

    fn signature(&mut self, _: &mut Vec<u8>, _: &str) -> Result<(), Error> {
        Ok(())
    }

    fn redacted(&mut self, _: &mut Vec<u8>, _: &str) -> Result<(), Error> {
        Ok(())
    }

    fn call(&mut self, out: &mut Vec<u8>, id: &str, name: &str, signature: Option<&str>) -> Result<(), Error> {
        let before = self.kept.begin(id, name, signature)?;
        self.finish_call(out, before);
        Ok(())
    }

    fn arguments(&mut self, _: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.kept.push(inner)
    }

    fn end(&mut self, out: &mut Vec<u8>, finish: Finish, usage: &Usage) -> Result<(), Error> {
        let last = self.kept.take()?;
        self.finish_call(out, last);
        let parts = std::mem::take(&mut self.parts);
        if self.streams {
            sse::event(out, "", |out| self.frame(out, &parts, Some((finish, usage))));
        } else {
            self.frame(out, &parts, Some((finish, usage)));
        }
        Ok(())
    }

    fn fail(&mut self, out: &mut Vec<u8>, failure: &Failure) {
        if self.streams {
            sse::event(out, "", |out| error(failure, out));
        } else {
            error(failure, out);
        }
    }
}
