//! Anthropic's events.

use super::body::pass_renamed;
use crate::dialect::frame::Frame;
use crate::dialect::json::{self, Members};
use crate::dialect::pair::{Step, Translate};
use crate::dialect::usage::Meter;
use crate::dialect::{Asked, Dialect, Error, Failure, Finish, anthropic, sse};

/// Passes events on and reads the usage.
pub(super) struct Pass {
    model_shown: Option<String>,
    counts: anthropic::Counts,
    finish: Option<Finish>,
}

impl Pass {
    pub(super) fn new(asked: &Asked) -> Self {
        Self { model_shown: asked.model_shown.clone(), counts: anthropic::Counts::default(), finish: None }
    }
}

impl Translate for Pass {
    fn frame(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>, meter: &mut Meter) -> Result<Step, Error> {
        let Some(data) = &frame.data else {
            frame.keep_alive(out);
            return Ok(Step::More);
        };
        let malformed = Error::Malformed { dialect: Dialect::Anthropic, what: "event of the stream" };
        let event: anthropic::Event<'_> = json::object(data).ok_or(malformed)?;
        let mut model = None;
        match event.kind.as_ref() {
            "message_start" => {
                let message = event.message.map(Members::lenient).unwrap_or_default();
                model = message.get("model");
                if let Some(usage) = message.get("usage") {
                    self.counts.take(usage);
                }
                // The output of a beginning is a guess; only what the end says counts.
                meter.told(&crate::dialect::Usage { output_tokens: None, ..self.counts.usage() });
            }
            "content_block_start" | "content_block_delta" => {
                let block = event.content_block.as_ref();
                let delta = event.delta.as_ref();
                let texts = [
                    block.and_then(|block| block.text),
                    block.and_then(|block| block.name),
                    delta.and_then(|delta| delta.text),
                    delta.and_then(|delta| delta.thinking),
                    delta.and_then(|delta| delta.partial_json),
                ];
                for text in texts.into_iter().flatten() {
                    meter.said(json::inner(text).unwrap_or_default());
                }
            }
            "message_delta" => {
                if let Some(usage) = event.usage {
                    self.counts.take(usage);
                    meter.told(&self.counts.usage());
                }
                if let Some(reason) = event.delta.and_then(|delta| delta.stop_reason).and_then(json::text) {
                    self.finish = Some(anthropic::finish_of(&reason));
                }
            }
            "message_stop" => {
                out.extend_from_slice(frame.raw);
                return Ok(Step::Done);
            }
            "error" => return Ok(Step::Failed(Failure::read(Dialect::Anthropic, 200, data))),
            _ => {}
        }
        pass_renamed(frame.raw, model, self.model_shown.as_deref(), out);
        Ok(Step::More)
    }

    fn close(&mut self, out: &mut Vec<u8>, _: &mut Meter) -> bool {
        if self.finish.is_some() {
            sse::event(out, "message_stop", |out| out.extend_from_slice(b"{\"type\":\"message_stop\"}"));
        }
        self.finish.is_some()
    }

    fn fail(&mut self, failure: &Failure, out: &mut Vec<u8>) {
        sse::event(out, "error", |out| anthropic::error(failure, None, out));
    }

    fn finish(&self) -> Option<Finish> {
        self.finish
    }
}
