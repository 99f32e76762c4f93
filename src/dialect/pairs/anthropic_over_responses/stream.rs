//! The stream.

use crate::dialect::anthropic::Events;
use crate::dialect::frame::Frame;
use crate::dialect::json::{self, Members};
use crate::dialect::pair::{Step, Translate};
use crate::dialect::pairs::remarks::anthropic_id;
use crate::dialect::responses::{Calls, Event, ending, failure_of, finish_of, usage_in};
use crate::dialect::usage::Meter;
use crate::dialect::{Asked, Dialect, Error, Failure, Finish};

use super::answer::reason_of;

pub(super) struct Translation {
    asked: Asked,
    events: Events,
    calls: Calls,
    /// The block of each call.
    blocks: Vec<u64>,
    /// Whether the open item of reasoning has shown anything.
    thought: bool,
    finish: Option<Finish>,
}

impl Translation {
    pub(super) fn new(asked: &Asked) -> Self {
        Self {
            asked: asked.clone(),
            events: Events::new(asked),
            calls: Calls::default(),
            blocks: Vec::new(),
            thought: false,
            finish: None,
        }
    }

    fn arguments(&mut self, number: u64, inner: &str, out: &mut Vec<u8>, meter: &mut Meter) -> Result<(), Error> {
        // Blocks come one after the other, so a closed one cannot grow any more.
        if !self.blocks.get(number as usize).is_some_and(|block| self.events.is_open(*block)) {
            return Err(Error::Malformed { dialect: Dialect::Responses, what: "order of tool calls" });
        }
        meter.said(inner);
        self.events.input(out, inner);
        Ok(())
    }

    fn item_starts(&mut self, event: &Event<'_>, out: &mut Vec<u8>, meter: &mut Meter) -> Result<(), Error> {
        self.thought = false;
        if let Some((_, id, name)) = self.calls.begin(event)? {
            meter.said(&name);
            let block = self.events.tool_use(out, &anthropic_id(&id), &name);
            self.blocks.push(block);
        }
        Ok(())
    }

    fn item_ends(&mut self, event: &Event<'_>, out: &mut Vec<u8>, meter: &mut Meter) -> Result<(), Error> {
        if let Some((number, arguments)) = self.calls.end(event) {
            return self.arguments(number, &arguments, out, meter);
        }
        let item = event.item.map(Members::lenient).unwrap_or_default();
        if item.text("type").as_deref() != Some("reasoning") {
            return Ok(());
        }
        let encrypted = item.get("encrypted_content").and_then(json::inner).filter(|inner| !inner.is_empty());
        match encrypted {
            Some(encrypted) if self.thought => self.events.signature(out, encrypted),
            Some(encrypted) => self.events.redacted(out, encrypted),
            None => {}
        }
        Ok(())
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
        let malformed = Error::Malformed { dialect: Dialect::Responses, what: "event of the stream" };
        let event: Event<'_> = json::object(data).ok_or(malformed.clone())?;
        let delta = event.delta.and_then(json::inner).unwrap_or_default();
        match event.kind.as_ref() {
            "response.created" => {
                let response = event.response.map(Members::lenient).unwrap_or_default();
                self.events.name(&self.asked, response.text("model").as_deref());
                self.events.begin(out);
            }
            "response.output_text.delta" | "response.refusal.delta" => {
                meter.said(delta);
                self.events.text(out, delta);
            }
            "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => {
                meter.said(delta);
                self.thought = true;
                self.events.thinking(out, delta);
            }
            // Parts of a summary are paragraphs of one block.
            "response.reasoning_summary_part.added" if self.thought => self.events.thinking(out, "\\n\\n"),
            "response.output_item.added" => self.item_starts(&event, out, meter)?,
            "response.function_call_arguments.delta" => {
                if let Some(number) = self.calls.grow(&event) {
                    self.arguments(number, delta, out, meter)?;
                }
            }
            "response.output_item.done" => self.item_ends(&event, out, meter)?,
            "response.completed" | "response.incomplete" => {
                let response = event.response.map(Members::lenient).unwrap_or_default();
                if let Some(usage) = usage_in(&response) {
                    meter.told(&usage);
                }
                self.finish = finish_of(&response);
                let reason = reason_of(ending(&response).1.as_deref(), self.calls.any());
                self.events.end(out, reason, None, &meter.usage());
                return Ok(Step::Done);
            }
            "error" | "response.failed" => {
                let members = Members::parse(data).map_err(|_| malformed)?;
                return Ok(Step::Failed(failure_of(&members)));
            }
            _ => {}
        }
        Ok(Step::More)
    }

    /// Only the last event says how a response ended.
    fn close(&mut self, _: &mut Vec<u8>, _: &mut Meter) -> bool {
        false
    }

    fn fail(&mut self, failure: &Failure, out: &mut Vec<u8>) {
        self.events.fail(out, failure);
    }

    fn finish(&self) -> Option<Finish> {
        self.finish
    }
}
