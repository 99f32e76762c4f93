//! The stream.

use crate::dialect::anthropic::{Counts, Event, finish_of};
use crate::dialect::frame::Frame;
use crate::dialect::json::{self, Members, Raw};
use crate::dialect::pair::{Step, Translate};
use crate::dialect::pairs::remarks::quoted;
use crate::dialect::responses::Response;
use crate::dialect::usage::Meter;
use crate::dialect::{Asked, Dialect, Error, Failure, Finish, Usage};

use super::answer::incomplete;

pub(super) struct Translation {
    response: Response,
    counts: Counts,
    stop_reason: Option<String>,
}

impl Translation {
    pub(super) fn new(asked: &Asked) -> Self {
        Self { response: Response::streamed(asked), counts: Counts::default(), stop_reason: None }
    }

    fn block_starts(&mut self, event: &Event<'_>, out: &mut Vec<u8>, meter: &mut Meter) -> Result<(), Error> {
        let Some(block) = &event.content_block else { return Ok(()) };
        let inner = |raw: Option<Raw<'_>>| raw.and_then(json::inner).unwrap_or_default().to_owned();
        match block.kind.as_ref() {
            "tool_use" => {
                let name = inner(block.name);
                meter.said(&name);
                self.response.call(out, &inner(block.id), &name)?;
                // Usually `{}`, and the arguments follow; some servers send them here.
                if let Some(input) = block.input.filter(|input| Members::lenient(input).len() > 0) {
                    let arguments = quoted(input.get());
                    meter.said(&arguments);
                    self.response.arguments(out, &arguments)?;
                }
            }
            "text" => {
                let text = inner(block.text);
                if !text.is_empty() {
                    meter.said(&text);
                    self.response.text(out, &text)?;
                }
            }
            "redacted_thinking" => self.response.encrypted(out, &inner(block.data))?,
            _ => {}
        }
        Ok(())
    }

    fn block_grows(&mut self, event: &Event<'_>, out: &mut Vec<u8>, meter: &mut Meter) -> Result<(), Error> {
        let Some(delta) = &event.delta else { return Ok(()) };
        if let Some(text) = delta.text.and_then(json::inner) {
            meter.said(text);
            self.response.text(out, text)?;
        }
        if let Some(thinking) = delta.thinking.and_then(json::inner) {
            meter.said(thinking);
            self.response.reasoning(out, thinking)?;
        }
        if let Some(signature) = delta.signature.and_then(json::inner) {
            self.response.encrypted(out, signature)?;
        }
        if let Some(json) = delta.partial_json.and_then(json::inner).filter(|json| !json.is_empty()) {
            meter.said(json);
            self.response.arguments(out, json)?;
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<u8>, meter: &Meter) {
        self.response.end(out, self.stop_reason.as_deref().and_then(incomplete), &meter.usage());
    }
}

impl Translate for Translation {
    fn frame(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>, meter: &mut Meter) -> Result<Step, Error> {
        let Some(data) = &frame.data else { return Ok(Step::More) };
        let malformed = Error::Malformed { dialect: Dialect::Anthropic, what: "event of the stream" };
        let event: Event<'_> = json::object(data).ok_or(malformed)?;
        match event.kind.as_ref() {
            "message_start" => {
                let message = event.message.map(Members::lenient).unwrap_or_default();
                self.response.name(message.text("model").as_deref());
                if let Some(usage) = message.get("usage") {
                    self.counts.take(usage);
                }
                // The output of a beginning is a guess; only what the end says counts.
                meter.told(&Usage { output_tokens: None, ..self.counts.usage() });
                self.response.begin(out);
            }
            "content_block_start" => self.block_starts(&event, out, meter)?,
            "content_block_delta" => self.block_grows(&event, out, meter)?,
            "content_block_stop" => self.response.reasoning_ends(out),
            "message_delta" => {
                if let Some(usage) = event.usage {
                    self.counts.take(usage);
                    meter.told(&self.counts.usage());
                }
                if let Some(reason) = event.delta.and_then(|delta| delta.stop_reason).and_then(json::text) {
                    self.stop_reason = Some(reason.into_owned());
                }
            }
            "message_stop" => {
                self.end(out, meter);
                return Ok(Step::Done);
            }
            // Keeps the caller's connection alive as it kept ours.
            "ping" => out.extend_from_slice(b": ping\n\n"),
            "error" => return Ok(Step::Failed(Failure::read(Dialect::Anthropic, 200, data))),
            _ => {}
        }
        Ok(Step::More)
    }

    fn close(&mut self, out: &mut Vec<u8>, meter: &mut Meter) -> bool {
        if self.stop_reason.is_some() {
            self.end(out, meter);
        }
        self.stop_reason.is_some()
    }

    fn fail(&mut self, failure: &Failure, out: &mut Vec<u8>) {
        self.response.fail(out, failure);
    }

    fn finish(&self) -> Option<Finish> {
        self.stop_reason.as_deref().map(finish_of)
    }
}
