//! Anthropic's messages and their events.

use super::Told;
use crate::dialect::anthropic::{Block, Counts, Event, finish_of};
use crate::dialect::frame::Frame;
use crate::dialect::json::{self, Members, Raw};
use crate::dialect::pair::Step;
use crate::dialect::talk::escape;
use crate::dialect::{Dialect, Error, Failure, Finish, Usage};

#[derive(Default)]
pub(super) struct Listener {
    counts: Counts,
    /// Whether the open block is a call of the caller's tools.
    calls: bool,
    finish: Option<Finish>,
}

fn malformed(what: &'static str) -> Error {
    Error::Malformed { dialect: Dialect::Anthropic, what }
}

fn inner(raw: Option<Raw<'_>>) -> &str {
    raw.and_then(json::inner).unwrap_or_default()
}

/// A block as far as it is there. Blocks of tools that Anthropic's own servers ran are steps on the way, not the answer.
fn block(block: &Block<'_>, to: &mut Told<'_>) -> Result<(), Error> {
    match &*block.kind {
        "text" => to.text(inner(block.text))?,
        "thinking" => {
            to.thought(inner(block.thinking))?;
            to.signature(inner(block.signature))?;
        }
        "redacted_thinking" => to.redacted(inner(block.data))?,
        "tool_use" => {
            let id = block.id.and_then(json::inner).ok_or_else(|| malformed("call of a tool"))?;
            let name = block.name.and_then(json::inner).ok_or_else(|| malformed("call of a tool"))?;
            to.call(id, name, None)?;
        }
        _ => {}
    }
    Ok(())
}

impl super::Listener for Listener {
    fn frame(&mut self, frame: &Frame<'_>, to: &mut Told<'_>) -> Result<Step, Error> {
        let data = frame.data.as_deref().unwrap_or_default();
        if data.is_empty() {
            return Ok(Step::More);
        }
        let event: Event<'_> = serde_json::from_slice(data).map_err(|_| malformed("event of the stream"))?;
        match &*event.kind {
            "message_start" => {
                let message = event.message.map(Members::lenient).unwrap_or_default();
                if let Some(model) = message.text("model") {
                    to.teller.model(&model);
                }
                if let Some(usage) = message.get("usage") {
                    self.counts.take(usage);
                }
                // The output of a beginning is a guess.
                to.meter.told(&Usage { output_tokens: None, ..self.counts.usage() });
            }
            "content_block_start" => {
                if let Some(begun) = &event.content_block {
                    self.calls = begun.kind == "tool_use";
                    block(begun, to)?;
                }
            }
            "content_block_delta" => {
                if let Some(delta) = &event.delta {
                    to.text(inner(delta.text))?;
                    to.thought(inner(delta.thinking))?;
                    to.signature(inner(delta.signature))?;
                    if self.calls {
                        to.arguments(inner(delta.partial_json))?;
                    }
                }
            }
            "message_delta" => {
                if let Some(usage) = event.usage {
                    self.counts.take(usage);
                    to.meter.told(&self.counts.usage());
                }
                if let Some(reason) = event.delta.and_then(|delta| delta.stop_reason).and_then(json::text) {
                    self.finish = Some(finish_of(&reason));
                }
            }
            "message_stop" => {
                to.end(self.finish.unwrap_or(Finish::Other))?;
                return Ok(Step::Done);
            }
            "error" => return Ok(Step::Failed(Failure::read(Dialect::Anthropic, 200, data))),
            _ => {}
        }
        Ok(Step::More)
    }

    fn whole(&mut self, body: &[u8], to: &mut Told<'_>) -> Result<(), Error> {
        let answer = Members::parse(body).map_err(|_| malformed("answer"))?;
        if let Some(model) = answer.text("model") {
            to.teller.model(&model);
        }
        let content = answer.get("content").ok_or_else(|| malformed("`content`"))?;
        for raw in json::lenient_elements(content) {
            let said: Block<'_> = serde_json::from_str(raw.get()).map_err(|_| malformed("block of the answer"))?;
            block(&said, to)?;
            if let Some(input) = said.input.filter(|_| said.kind == "tool_use") {
                to.arguments(&escape(input.get()))?;
            }
        }
        if let Some(usage) = answer.get("usage") {
            self.counts.take(usage);
            to.meter.told(&self.counts.usage());
        }
        let finish = answer.text("stop_reason").map_or(Finish::Other, |reason| finish_of(&reason));
        self.finish = Some(finish);
        to.end(finish)
    }

    fn finish(&self) -> Option<Finish> {
        self.finish
    }
}
