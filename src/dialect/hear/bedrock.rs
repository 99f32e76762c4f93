//! Bedrock's Converse and ConverseStream.

use super::Told;
use crate::dialect::bedrock::{failure_of, finish_of, usage_in};
use crate::dialect::frame::Frame;
use crate::dialect::json::{self, Members, Raw};
use crate::dialect::pair::Step;
use crate::dialect::talk::escape;
use crate::dialect::{Dialect, Error, Finish};

#[derive(Default)]
pub(super) struct Listener {
    finish: Option<Finish>,
}

fn malformed(what: &'static str) -> Error {
    Error::Malformed { dialect: Dialect::Bedrock, what }
}

/// What the model thought, whole or a piece of it.
fn thought(raw: Raw<'_>, to: &mut Told<'_>) -> Result<(), Error> {
    let reasoning = Members::lenient(raw);
    // In a whole answer text and signature stand one level deeper.
    let inside = reasoning.get("reasoningText").map(Members::lenient);
    let of = inside.as_ref().unwrap_or(&reasoning);
    if let Some(text) = of.get("text").and_then(json::inner) {
        to.thought(text)?;
    }
    if let Some(signature) = of.get("signature").and_then(json::inner) {
        to.signature(signature)?;
    }
    if let Some(data) = reasoning.get("redactedContent").and_then(json::inner) {
        to.redacted(data)?;
    }
    Ok(())
}

impl Listener {
    fn stopped(&mut self, of: &Members<'_>, to: &mut Told<'_>) {
        let reason = of.text("stopReason").unwrap_or_default();
        if reason == "stop_sequence" {
            to.teller.stop_sequence("");
        }
        self.finish = Some(finish_of(&reason));
    }
}

impl super::Listener for Listener {
    fn frame(&mut self, frame: &Frame<'_>, to: &mut Told<'_>) -> Result<Step, Error> {
        let data = frame.data.as_deref().unwrap_or_default();
        let event = || Members::parse(data).map_err(|_| malformed("event of the stream"));
        match frame.event {
            b"contentBlockStart" => {
                let event = event()?;
                let start = event.get("start").map(Members::lenient).unwrap_or_default();
                if let Some(call) = start.get("toolUse").map(Members::lenient) {
                    let id = call.get("toolUseId").and_then(json::inner).ok_or_else(|| malformed("call of a tool"))?;
                    let name = call.get("name").and_then(json::inner).ok_or_else(|| malformed("call of a tool"))?;
                    to.call(id, name, None)?;
                }
            }
            b"contentBlockDelta" => {
                let event = event()?;
                let delta = event.get("delta").map(Members::lenient).unwrap_or_default();
                if let Some(text) = delta.get("text").and_then(json::inner) {
                    to.text(text)?;
                } else if let Some(call) = delta.get("toolUse").map(Members::lenient) {
                    to.arguments(call.get("input").and_then(json::inner).unwrap_or_default())?;
                } else if let Some(reasoning) = delta.get("reasoningContent") {
                    thought(reasoning, to)?;
                }
            }
            b"messageStop" => self.stopped(&event()?, to),
            b"metadata" => {
                if let Some(usage) = usage_in(&event()?) {
                    to.meter.told(&usage);
                }
                if let Some(finish) = self.finish {
                    to.end(finish)?;
                    return Ok(Step::Done);
                }
            }
            b"messageStart" | b"contentBlockStop" => {}
            other => {
                if let Some(failure) = failure_of(other, data) {
                    return Ok(Step::Failed(failure));
                }
            }
        }
        Ok(Step::More)
    }

    fn whole(&mut self, body: &[u8], to: &mut Told<'_>) -> Result<(), Error> {
        let answer = Members::parse(body).map_err(|_| malformed("answer"))?;
        let output = answer.get("output").map(Members::lenient).unwrap_or_default();
        let message = output.get("message").map(Members::lenient).ok_or_else(|| malformed("message"))?;
        for block in message.get("content").map(json::lenient_elements).unwrap_or_default() {
            let block = Members::lenient(block);
            if let Some(text) = block.get("text").and_then(json::inner) {
                to.text(text)?;
            } else if let Some(reasoning) = block.get("reasoningContent") {
                thought(reasoning, to)?;
            } else if let Some(call) = block.get("toolUse").map(Members::lenient) {
                let id = call.get("toolUseId").and_then(json::inner).ok_or_else(|| malformed("call of a tool"))?;
                let name = call.get("name").and_then(json::inner).ok_or_else(|| malformed("call of a tool"))?;
                to.call(id, name, None)?;
                to.arguments(&call.get("input").map_or_else(|| "{}".to_owned(), |input| escape(input.get())))?;
            } else if let Some(cited) = block.get("citationsContent").map(Members::lenient) {
                for text in cited.get("content").map(json::lenient_elements).unwrap_or_default() {
                    to.text(Members::lenient(text).get("text").and_then(json::inner).unwrap_or_default())?;
                }
            }
        }
        if let Some(usage) = usage_in(&answer) {
            to.meter.told(&usage);
        }
        self.stopped(&answer, to);
        to.end(self.finish.unwrap_or(Finish::Other))
    }

    fn finish(&self) -> Option<Finish> {
        self.finish
    }
}
