//! OpenAI's chat completions and their chunks.

use super::{Ids, Told};
use crate::dialect::chat::{Chunk, Completion, Delta, ToolCallDelta, finish_of, spoken, usage_in};
use crate::dialect::frame::Frame;
use crate::dialect::json::{self, Raw};
use crate::dialect::pair::Step;
use crate::dialect::{Asked, Dialect, Error, Failure, Finish};

pub(super) struct Listener {
    ids: Ids,
    /// Index and id of the call that began last.
    call: Option<(u64, String)>,
    finish: Option<Finish>,
}

fn malformed(what: &'static str) -> Error {
    Error::Malformed { dialect: Dialect::Chat, what }
}

/// Words, whichever way the server has them.
fn say(
    thought: Option<Raw<'_>>,
    content: Option<Raw<'_>>,
    refusal: Option<Raw<'_>>,
    to: &mut Told<'_>,
) -> Result<(), Error> {
    let (text, within) = spoken(content);
    to.thought(thought.and_then(json::inner).unwrap_or(&within))?;
    to.text(&text)?;
    to.text(refusal.and_then(json::inner).unwrap_or_default())
}

impl Listener {
    pub(super) fn new(asked: &Asked) -> Self {
        Self { ids: Ids::new(asked), call: None, finish: None }
    }

    fn delta(&mut self, delta: &Delta<'_>, to: &mut Told<'_>) -> Result<(), Error> {
        say(delta.thought(), delta.content, delta.refusal, to)?;
        for call in delta.tool_calls.iter().flatten() {
            self.call(call, call.index, to)?;
        }
        Ok(())
    }

    fn call(&mut self, call: &ToolCallDelta<'_>, index: Option<u64>, to: &mut Told<'_>) -> Result<(), Error> {
        let function = call.function.as_ref();
        let name = function.and_then(|function| function.name).and_then(json::inner).filter(|name| !name.is_empty());
        let id = call.id.and_then(json::inner).filter(|id| !id.is_empty());
        // Some servers give all calls index 0, or none: then a new id with a name begins a new call.
        let same = self.call.as_ref().is_some_and(|(last, known)| {
            index.is_none_or(|index| index == *last) && (name.is_none() || id.is_none_or(|id| id == known))
        });
        if !same {
            let name = name.ok_or_else(|| malformed("order of the calls"))?;
            let made = self.ids.next();
            to.call(id.unwrap_or(&made), name, None)?;
            self.call = Some((index.unwrap_or_default(), id.unwrap_or_default().to_owned()));
        }
        to.arguments(function.and_then(|function| function.arguments).and_then(json::inner).unwrap_or_default())
    }

    fn stopped(&mut self, reason: &str) {
        // Some servers say "stop" behind a call.
        self.finish = Some(match finish_of(reason) {
            Finish::Stop if self.ids.any() => Finish::ToolCalls,
            finish => finish,
        });
    }
}

impl super::Listener for Listener {
    fn frame(&mut self, frame: &Frame<'_>, to: &mut Told<'_>) -> Result<Step, Error> {
        let data = frame.data.as_deref().unwrap_or_default();
        if data.is_empty() {
            return Ok(Step::More);
        }
        if data.starts_with(b"[DONE]") {
            to.end(self.finish.unwrap_or(Finish::Other))?;
            return Ok(Step::Done);
        }
        let chunk: Chunk<'_> = serde_json::from_slice(data).map_err(|_| malformed("chunk of the stream"))?;
        if chunk.error.is_some() {
            return Ok(Step::Failed(Failure::read(Dialect::Chat, 200, data)));
        }
        if let Some(model) = chunk.model.and_then(json::text) {
            to.teller.model(&model);
        }
        if let Some(usage) = usage_in(&chunk) {
            to.meter.told(&usage);
        }
        for choice in chunk.choices.iter().filter(|choice| choice.index == 0) {
            if let Some(delta) = &choice.delta {
                self.delta(delta, to)?;
            }
            if let Some(reason) = choice.finish_reason.and_then(json::text) {
                self.stopped(&reason);
            }
        }
        Ok(Step::More)
    }

    fn whole(&mut self, body: &[u8], to: &mut Told<'_>) -> Result<(), Error> {
        let answer: Completion<'_> = serde_json::from_slice(body).map_err(|_| malformed("answer"))?;
        let choice = answer.choices.first().ok_or_else(|| malformed("`choices`"))?;
        if let Some(model) = answer.model.and_then(json::text) {
            to.teller.model(&model);
        }
        if let Some(usage) = answer.used() {
            to.meter.told(&usage);
        }
        if let Some(message) = &choice.message {
            say(message.thought(), message.content, message.refusal, to)?;
            // In whole answers calls have no index.
            for (at, call) in message.tool_calls.iter().flatten().enumerate() {
                self.call(call, Some(at as u64), to)?;
            }
        }
        self.stopped(&choice.finish_reason.and_then(json::text).unwrap_or_default());
        to.end(self.finish.unwrap_or(Finish::Other))
    }

    fn finish(&self) -> Option<Finish> {
        self.finish
    }
}
