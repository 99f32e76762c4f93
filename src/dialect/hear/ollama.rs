//! Ollama's answers and the lines of its streams, which have the same form.

use super::{Ids, Told};
use crate::dialect::frame::Frame;
use crate::dialect::json::{self, Members};
use crate::dialect::ollama::{finish_of, usage_of};
use crate::dialect::pair::Step;
use crate::dialect::talk::escape;
use crate::dialect::{Asked, Dialect, Error, Failure, Finish};

pub(super) struct Listener {
    ids: Ids,
    finish: Option<Finish>,
}

impl Listener {
    pub(super) fn new(asked: &Asked) -> Self {
        Self { ids: Ids::new(asked), finish: None }
    }

    fn hear(&mut self, data: &[u8], to: &mut Told<'_>) -> Result<Step, Error> {
        let malformed = |what| Error::Malformed { dialect: Dialect::Ollama, what };
        let line = Members::parse(data).map_err(|_| malformed("line of the stream"))?;
        if line.get("error").is_some() {
            return Ok(Step::Failed(Failure::read(Dialect::Ollama, 200, data)));
        }
        if let Some(model) = line.text("model") {
            to.teller.model(&model);
        }
        let message = line.get("message").map(Members::lenient).unwrap_or_default();
        let either = |chat: &str, generate: &str| message.get(chat).or_else(|| line.get(generate));
        if let Some(thought) = either("thinking", "thinking").and_then(json::inner) {
            to.thought(thought)?;
        }
        if let Some(text) = either("content", "response").and_then(json::inner) {
            to.text(text)?;
        }
        for call in message.get("tool_calls").map(json::lenient_elements).unwrap_or_default() {
            let call = Members::lenient(call);
            let function = call.get("function").map(Members::lenient).unwrap_or_default();
            let name = function.get("name").and_then(json::inner).ok_or_else(|| malformed("call of a tool"))?;
            let made = self.ids.next();
            let id = call.get("id").and_then(json::inner).filter(|id| !id.is_empty()).unwrap_or(&made);
            to.call(id, name, None)?;
            to.arguments(&function.get("arguments").map_or_else(|| "{}".to_owned(), |raw| escape(raw.get())))?;
        }
        if line.get("done").and_then(json::flag) != Some(true) {
            return Ok(Step::More);
        }
        to.meter.told(&usage_of(&line));
        let finish = match finish_of(line.text("done_reason").as_deref().unwrap_or("stop")) {
            Finish::Stop if self.ids.any() => Finish::ToolCalls,
            finish => finish,
        };
        self.finish = Some(finish);
        to.end(finish)?;
        Ok(Step::Done)
    }
}

impl super::Listener for Listener {
    fn frame(&mut self, frame: &Frame<'_>, to: &mut Told<'_>) -> Result<Step, Error> {
        self.hear(frame.data.as_deref().unwrap_or_default(), to)
    }

    fn whole(&mut self, body: &[u8], to: &mut Told<'_>) -> Result<(), Error> {
        match self.hear(body, to)? {
            Step::Done => Ok(()),
            _ => Err(Error::Malformed { dialect: Dialect::Ollama, what: "end of the answer" }),
        }
    }

    fn finish(&self) -> Option<Finish> {
        self.finish
    }
}
