//! Anthropic's messages.

use super::Teller;
use super::arguments::{Call, Kept};
use crate::dialect::anthropic::{Events, call_head, error, message_head, message_stop, text_block, write_usage};
use crate::dialect::talk::SIGNATURE_MARK;
use crate::dialect::write::Object;
use crate::dialect::{Asked, Dialect, Error, Failure, Finish, Usage};

/// Anthropic's word for why a model stopped.
fn word(finish: Finish, stop_sequence: Option<&str>) -> &'static str {
    match finish {
        Finish::Stop if stop_sequence.is_some() => "stop_sequence",
        Finish::Stop | Finish::Other => "end_turn",
        Finish::Length => "max_tokens",
        Finish::ToolCalls => "tool_use",
        Finish::Filtered => "refusal",
    }
}

/// A stop sequence as JSON; nobody says which one it was but Anthropic, so mostly `null`.
fn sequence(inner: Option<&String>) -> Option<String> {
    inner.filter(|inner| !inner.is_empty()).map(|inner| format!("\"{inner}\""))
}

/// Events.
pub(super) struct Stream {
    asked: Asked,
    events: Events,
    stop_sequence: Option<String>,
}

impl Stream {
    pub(super) fn new(asked: &Asked) -> Self {
        Self { asked: asked.clone(), events: Events::new(asked), stop_sequence: None }
    }
}

impl Teller for Stream {
    fn model(&mut self, name: &str) {
        self.events.name(&self.asked, Some(name));
    }

    fn text(&mut self, out: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.events.text(out, inner);
        Ok(())
    }

    fn thought(&mut self, out: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.events.thinking(out, inner);
        Ok(())
    }

    fn signature(&mut self, out: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.events.signature(out, inner);
        Ok(())
    }

    fn redacted(&mut self, out: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.events.redacted(out, inner);
        Ok(())
    }

    fn call(&mut self, out: &mut Vec<u8>, id: &str, name: &str, signature: Option<&str>) -> Result<(), Error> {
        // Gemini's signature goes with the thought before the call, from where it is taken back.
        if let Some(signature) = signature {
            self.events.signature(out, &format!("{SIGNATURE_MARK}{signature}"));
        }
        self.events.tool_use(out, id, name);
        Ok(())
    }

    fn arguments(&mut self, out: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.events.input(out, inner);
        Ok(())
    }

    fn stop_sequence(&mut self, inner: &str) {
        self.stop_sequence = Some(inner.to_owned());
    }

    fn end(&mut self, out: &mut Vec<u8>, finish: Finish, usage: &Usage) -> Result<(), Error> {
        let reason = word(finish, self.stop_sequence.as_deref());
        self.events.end(out, reason, sequence(self.stop_sequence.as_ref()).as_deref(), usage);
        Ok(())
    }

    fn fail(&mut self, out: &mut Vec<u8>, failure: &Failure) {
        self.events.fail(out, failure);
    }
}

enum Block {
    Text(String),
    Thought { text: String, signature: String },
    Redacted(String),
    Call(Call),
}

/// One body.
pub(super) struct Whole {
    asked: Asked,
    model: Option<String>,
    blocks: Vec<Block>,
    kept: Kept,
    stop_sequence: Option<String>,
}

impl Whole {
    pub(super) fn new(asked: &Asked, from: Dialect) -> Self {
        let kept = Kept::new(from, asked.limits.kept_max_bytes);
        Self { asked: asked.clone(), model: None, blocks: Vec::new(), kept, stop_sequence: None }
    }

    fn thinking(&mut self) -> (&mut String, &mut String) {
        if !matches!(self.blocks.last(), Some(Block::Thought { .. })) {
            self.blocks.push(Block::Thought { text: String::new(), signature: String::new() });
        }
        match self.blocks.last_mut() {
            Some(Block::Thought { text, signature }) => (text, signature),
            _ => unreachable!("one was pushed"),
        }
    }
}

impl Teller for Whole {
    fn model(&mut self, name: &str) {
        self.model = Some(name.to_owned());
    }

    fn text(&mut self, _: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        match self.blocks.last_mut() {
            Some(Block::Text(text)) => text.push_str(inner),
            _ => self.blocks.push(Block::Text(inner.to_owned())),
        }
        Ok(())
    }

    fn thought(&mut self, _: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.thinking().0.push_str(inner);
        Ok(())
    }

    fn signature(&mut self, _: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.thinking().1.push_str(inner);
        Ok(())
    }

    fn redacted(&mut self, _: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.blocks.push(Block::Redacted(inner.to_owned()));
        Ok(())
    }

    fn call(&mut self, out: &mut Vec<u8>, id: &str, name: &str, signature: Option<&str>) -> Result<(), Error> {
        let before = self.kept.begin(id, name, None)?;
        self.blocks.extend(before.map(Block::Call));
        if let Some(signature) = signature {
            self.signature(out, &format!("{SIGNATURE_MARK}{signature}"))?;
        }
        Ok(())
    }

    fn arguments(&mut self, _: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.kept.push(inner)
    }

    fn stop_sequence(&mut self, inner: &str) {
        self.stop_sequence = Some(inner.to_owned());
    }

    fn end(&mut self, out: &mut Vec<u8>, finish: Finish, usage: &Usage) -> Result<(), Error> {
        let last = self.kept.take()?;
        self.blocks.extend(last.map(Block::Call));
        let mut body = Object::new(out);
        message_head(&mut body, &self.asked, self.asked.model(self.model.as_deref()));
        {
            let mut content = body.array("content");
            for block in &self.blocks {
                let mut one = content.object();
                match block {
                    Block::Text(text) => text_block(one, text),
                    Block::Thought { text, signature } => {
                        one.text("type", "thinking");
                        one.escaped("thinking", text);
                        one.escaped("signature", signature);
                    }
                    Block::Redacted(data) => {
                        one.text("type", "redacted_thinking");
                        one.escaped("data", data);
                    }
                    Block::Call(call) => {
                        call_head(&mut one, &call.id, &call.name);
                        one.json("input", &call.arguments);
                    }
                }
            }
        }
        let stop = sequence(self.stop_sequence.as_ref());
        message_stop(&mut body, word(finish, self.stop_sequence.as_deref()), stop.as_deref());
        write_usage(body.object("usage"), usage);
        Ok(())
    }

    fn fail(&mut self, out: &mut Vec<u8>, failure: &Failure) {
        error(failure, None, out);
    }
}
