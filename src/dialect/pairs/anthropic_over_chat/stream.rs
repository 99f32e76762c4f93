//! The stream.

use crate::dialect::anthropic::Events;
use crate::dialect::chat::{Chunk, Delta, ToolCallDelta, finish_of, spoken, usage_in};
use crate::dialect::frame::Frame;
use crate::dialect::json;
use crate::dialect::pair::{Step, Translate};
use crate::dialect::pairs::remarks::anthropic_id;
use crate::dialect::usage::Meter;
use crate::dialect::{Asked, Dialect, Error, Failure, Finish};

use super::answer::reason_of;

/// The most calls in one answer. A server that makes up indices could otherwise fill the memory.
const CALLS_MAX: usize = 1_024;

/// A call whose block was begun.
struct Call {
    index: u64,
    id: String,
    block: u64,
}

pub(super) struct Translation {
    asked: Asked,
    events: Events,
    calls: Vec<Call>,
    reason: Option<String>,
}

impl Translation {
    pub(super) fn new(asked: &Asked) -> Self {
        Self { asked: asked.clone(), events: Events::new(asked), calls: Vec::new(), reason: None }
    }

    fn delta(&mut self, delta: &Delta<'_>, out: &mut Vec<u8>, meter: &mut Meter) -> Result<(), Error> {
        let (text, inner_thought) = spoken(delta.content);
        let thought = delta.thought().and_then(json::inner).map_or(inner_thought, str::to_owned);
        if !thought.is_empty() {
            meter.said(&thought);
            self.events.thinking(out, &thought);
        }
        let refusal = delta.refusal.and_then(json::inner).unwrap_or_default();
        for text in [text.as_str(), refusal].into_iter().filter(|text| !text.is_empty()) {
            meter.said(text);
            self.events.text(out, text);
        }
        for call in delta.tool_calls.iter().flatten() {
            self.call(call, out, meter)?;
        }
        Ok(())
    }

    fn call(&mut self, call: &ToolCallDelta<'_>, out: &mut Vec<u8>, meter: &mut Meter) -> Result<(), Error> {
        let malformed = |what| Error::Malformed { dialect: Dialect::Chat, what };
        let id = call.id.and_then(json::text).unwrap_or_default();
        let name = call.function.as_ref().and_then(|function| function.name).and_then(json::inner).unwrap_or_default();
        // Some servers give all calls index 0, or none: then a new id with a name begins a new call.
        let known = match call.index {
            Some(index) => self.calls.iter().rev().find(|old| old.index == index),
            None => self.calls.last(),
        };
        let known = known.filter(|old| id.is_empty() || old.id == id || name.is_empty()).map(|old| old.block);
        let block = match known {
            Some(block) => block,
            None => {
                if self.calls.len() >= CALLS_MAX {
                    return Err(Error::TooLong { what: "list of calls", max_bytes: CALLS_MAX });
                }
                let index = call.index.unwrap_or(self.calls.len() as u64);
                let made =
                    if id.is_empty() { format!("call_{}_{index}", self.asked.id) } else { id.clone().into_owned() };
                meter.said(name);
                let block = self.events.tool_use(out, &anthropic_id(&made), name);
                self.calls.push(Call { index, id: id.into_owned(), block });
                block
            }
        };
        let arguments = call.function.as_ref().and_then(|function| function.arguments).and_then(json::inner);
        if let Some(arguments) = arguments.filter(|arguments| !arguments.is_empty()) {
            // Blocks come one after the other, so a closed one cannot grow any more.
            if !self.events.is_open(block) {
                return Err(malformed("order of tool calls"));
            }
            meter.said(arguments);
            self.events.input(out, arguments);
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<u8>, meter: &Meter) {
        let reason = reason_of(self.reason.as_deref().unwrap_or("stop"), !self.calls.is_empty());
        self.events.end(out, reason, None, &meter.usage());
    }
}

impl Translate for Translation {
    fn frame(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>, meter: &mut Meter) -> Result<Step, Error> {
        let Some(data) = &frame.data else {
            // A comment keeps the connection alive; Anthropic's clients know `ping` for that.
            if frame.is_comment() && self.events.has_begun() {
                out.extend_from_slice(b"event: ping\ndata: {\"type\":\"ping\"}\n\n");
            }
            return Ok(Step::More);
        };
        if data.starts_with(b"[DONE]") {
            if self.reason.is_none() && !self.events.has_begun() {
                return Err(Error::Malformed { dialect: Dialect::Chat, what: "stream without a chunk" });
            }
            self.end(out, meter);
            return Ok(Step::Done);
        }
        if data.is_empty() {
            return Ok(Step::More);
        }
        let malformed = Error::Malformed { dialect: Dialect::Chat, what: "chunk of the stream" };
        let chunk: Chunk<'_> = json::object(data).ok_or(malformed)?;
        if chunk.error.is_some() {
            return Ok(Step::Failed(Failure::read(Dialect::Chat, 200, data)));
        }
        if let Some(usage) = usage_in(&chunk) {
            meter.told(&usage);
        }
        let Some(choice) = chunk.choices.iter().find(|choice| choice.index == 0) else { return Ok(Step::More) };
        if !self.events.has_begun() {
            self.events.name(&self.asked, chunk.model.and_then(json::text).as_deref());
            self.events.begin(out);
        }
        if let Some(delta) = &choice.delta {
            self.delta(delta, out, meter)?;
        }
        if let Some(reason) = choice.finish_reason.and_then(json::text) {
            self.reason = Some(reason.into_owned());
        }
        Ok(Step::More)
    }

    fn close(&mut self, out: &mut Vec<u8>, meter: &mut Meter) -> bool {
        if self.reason.is_some() {
            self.end(out, meter);
        }
        self.reason.is_some()
    }

    fn fail(&mut self, failure: &Failure, out: &mut Vec<u8>) {
        self.events.fail(out, failure);
    }

    fn finish(&self) -> Option<Finish> {
        self.reason.as_deref().map(finish_of)
    }
}
