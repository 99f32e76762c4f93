//! The stream.

use crate::dialect::anthropic::{Counts, Event, finish_of};
use crate::dialect::chat::Chunks;
use crate::dialect::frame::Frame;
use crate::dialect::json::{self, Members, Raw};
use crate::dialect::pair::{Step, Translate};
use crate::dialect::pairs::remarks::quoted;
use crate::dialect::usage::Meter;
use crate::dialect::{Asked, Dialect, Error, Failure, Finish, Usage};

use super::answer::reason_of;

pub(super) struct Translation {
    asked: Asked,
    chunks: Chunks,
    counts: Counts,
    /// Number of the call whose arguments are coming, from 0.
    call: Option<u64>,
    calls: u64,
    /// Whether that call has arguments yet.
    has_arguments: bool,
    /// Thinking of the open block and its signature, escaped: they go out once more as one block.
    thinking: String,
    signature: String,
    stop_reason: Option<String>,
}

impl Translation {
    pub(super) fn new(asked: &Asked) -> Self {
        Self {
            asked: asked.clone(),
            chunks: Chunks::new(asked),
            counts: Counts::default(),
            call: None,
            calls: 0,
            has_arguments: false,
            thinking: String::new(),
            signature: String::new(),
            stop_reason: None,
        }
    }

    fn block_starts(&mut self, event: &Event<'_>, out: &mut Vec<u8>, meter: &mut Meter) {
        let Some(block) = &event.content_block else { return };
        match block.kind.as_ref() {
            "tool_use" => {
                let part = |raw: Option<Raw<'_>>| raw.and_then(json::inner).unwrap_or_default().to_owned();
                let (id, name) = (part(block.id), part(block.name));
                meter.said(&name);
                self.chunks.tool_call(out, self.calls, &id, &name);
                self.call = Some(self.calls);
                self.calls += 1;
                self.has_arguments = false;
                // Usually `{}`, and the arguments follow; some servers send them here.
                if let Some(input) = block.input.filter(|input| Members::lenient(input).len() > 0) {
                    self.arguments(&quoted(input.get()), out, meter);
                }
            }
            "text" => {
                if let Some(text) = block.text.and_then(json::inner).filter(|text| !text.is_empty()) {
                    meter.said(text);
                    self.chunks.content(out, text);
                }
            }
            "redacted_thinking" => {
                let data = block.data.and_then(json::inner).unwrap_or_default();
                self.chunks.delta(out, |delta| {
                    let mut list = delta.array("thinking_blocks");
                    let mut block = list.object();
                    block.text("type", "redacted_thinking");
                    block.escaped("data", data);
                });
            }
            _ => {}
        }
    }

    fn arguments(&mut self, inner: &str, out: &mut Vec<u8>, meter: &mut Meter) {
        if let Some(call) = self.call.filter(|_| !inner.is_empty()) {
            meter.said(inner);
            self.has_arguments = true;
            self.chunks.arguments(out, call, inner);
        }
    }

    fn block_grows(&mut self, event: &Event<'_>, out: &mut Vec<u8>, meter: &mut Meter) -> Result<(), Error> {
        let Some(delta) = &event.delta else { return Ok(()) };
        if let Some(text) = delta.text.and_then(json::inner) {
            meter.said(text);
            self.chunks.content(out, text);
        }
        if let Some(thinking) = delta.thinking.and_then(json::inner) {
            meter.said(thinking);
            self.keep(thinking.len())?;
            self.thinking.push_str(thinking);
            self.chunks.reasoning(out, thinking);
        }
        if let Some(signature) = delta.signature.and_then(json::inner) {
            self.keep(signature.len())?;
            self.signature.push_str(signature);
        }
        if let Some(json) = delta.partial_json.and_then(json::inner) {
            self.arguments(json, out, meter);
        }
        Ok(())
    }

    fn keep(&self, more: usize) -> Result<(), Error> {
        let max_bytes = self.asked.limits.kept_max_bytes;
        if self.thinking.len() + self.signature.len() + more > max_bytes {
            return Err(Error::TooLong { what: "block of thinking", max_bytes });
        }
        Ok(())
    }

    fn block_stops(&mut self, out: &mut Vec<u8>) {
        // Clients parse the arguments of every call, so none at all are an empty object.
        if let Some(call) = self.call.take()
            && !self.has_arguments
        {
            self.chunks.arguments(out, call, "{}");
        }
        if !self.signature.is_empty() {
            let (thinking, signature) = (std::mem::take(&mut self.thinking), std::mem::take(&mut self.signature));
            self.chunks.delta(out, |delta| {
                let mut list = delta.array("thinking_blocks");
                let mut block = list.object();
                block.text("type", "thinking");
                block.escaped("thinking", &thinking);
                block.escaped("signature", &signature);
            });
        }
        self.thinking.clear();
    }

    fn end(&mut self, out: &mut Vec<u8>, meter: &Meter) {
        let reason = self.stop_reason.as_deref().map_or("stop", reason_of);
        self.chunks.end(out, reason, &meter.usage());
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
                self.chunks.name(&self.asked, message.text("model").as_deref());
                if let Some(usage) = message.get("usage") {
                    self.counts.take(usage);
                }
                // The output of a beginning is a guess; only what the end says counts.
                meter.told(&Usage { output_tokens: None, ..self.counts.usage() });
                self.chunks.begin(out);
            }
            "content_block_start" => self.block_starts(&event, out, meter),
            "content_block_delta" => self.block_grows(&event, out, meter)?,
            "content_block_stop" => self.block_stops(out),
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
        self.chunks.fail(out, failure);
    }

    fn finish(&self) -> Option<Finish> {
        self.stop_reason.as_deref().map(finish_of)
    }
}
