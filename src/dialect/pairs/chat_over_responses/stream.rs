//! The stream.

use crate::dialect::chat::Chunks;
use crate::dialect::frame::Frame;
use crate::dialect::json::{self, Members};
use crate::dialect::pair::{Step, Translate};
use crate::dialect::responses::{Calls, Event, ending, failure_of, finish_of, usage_in};
use crate::dialect::usage::Meter;
use crate::dialect::{Asked, Dialect, Error, Failure, Finish};

use super::answer::reason_of;

pub(super) struct Translation {
    asked: Asked,
    chunks: Chunks,
    calls: Calls,
    finish: Option<Finish>,
}

impl Translation {
    pub(super) fn new(asked: &Asked) -> Self {
        Self { asked: asked.clone(), chunks: Chunks::new(asked), calls: Calls::default(), finish: None }
    }
}

impl Translate for Translation {
    fn frame(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>, meter: &mut Meter) -> Result<Step, Error> {
        let Some(data) = &frame.data else {
            frame.keep_alive(out);
            return Ok(Step::More);
        };
        let malformed = Error::Malformed { dialect: Dialect::Responses, what: "event of the stream" };
        let event: Event<'_> = json::object(data).ok_or(malformed.clone())?;
        let delta = event.delta.and_then(json::inner).unwrap_or_default();
        match event.kind.as_ref() {
            "response.created" => {
                let response = event.response.map(Members::lenient).unwrap_or_default();
                self.chunks.name(&self.asked, response.text("model").as_deref());
                self.chunks.begin(out);
            }
            "response.output_text.delta" => {
                meter.said(delta);
                self.chunks.content(out, delta);
            }
            "response.refusal.delta" => {
                meter.said(delta);
                self.chunks.delta(out, |to| to.escaped("refusal", delta));
            }
            "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => {
                meter.said(delta);
                self.chunks.reasoning(out, delta);
            }
            "response.output_item.added" => {
                if let Some((number, id, name)) = self.calls.begin(&event)? {
                    meter.said(&name);
                    self.chunks.tool_call(out, number, &id, &name);
                }
            }
            "response.function_call_arguments.delta" => {
                if let Some(number) = self.calls.grow(&event) {
                    meter.said(delta);
                    self.chunks.arguments(out, number, delta);
                }
            }
            "response.output_item.done" => {
                if let Some((number, arguments)) = self.calls.end(&event) {
                    meter.said(&arguments);
                    self.chunks.arguments(out, number, &arguments);
                }
            }
            "response.completed" | "response.incomplete" => {
                let response = event.response.map(Members::lenient).unwrap_or_default();
                if let Some(usage) = usage_in(&response) {
                    meter.told(&usage);
                }
                self.finish = finish_of(&response);
                let reason = reason_of(ending(&response).1.as_deref(), self.calls.any());
                self.chunks.end(out, reason, &meter.usage());
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
        self.chunks.fail(out, failure);
    }

    fn finish(&self) -> Option<Finish> {
        self.finish
    }
}
