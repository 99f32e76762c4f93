//! OpenAI's chat completions.

use super::Teller;
use crate::dialect::chat::{Chunks, completion_head, error, write_usage};
use crate::dialect::write::Object;
use crate::dialect::{Asked, Error, Failure, Finish, Usage};

/// OpenAI's word for why a model stopped.
fn word(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop | Finish::Other => "stop",
        Finish::Length => "length",
        Finish::ToolCalls => "tool_calls",
        Finish::Filtered => "content_filter",
    }
}

/// Gemini's signature of a call, where Google's own OpenAI-compatible API has it.
fn write_signature(call: &mut Object<'_>, signature: &str) {
    call.object("extra_content").object("google").escaped("thought_signature", signature);
}

/// Chunks.
pub(super) struct Stream {
    asked: Asked,
    chunks: Chunks,
    calls: u64,
}

impl Stream {
    pub(super) fn new(asked: &Asked) -> Self {
        Self { asked: asked.clone(), chunks: Chunks::new(asked), calls: 0 }
    }
}

impl Teller for Stream {
    fn model(&mut self, name: &str) {
        self.chunks.name(&self.asked, Some(name));
    }

    fn text(&mut self, out: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.chunks.content(out, inner);
        Ok(())
    }

    fn thought(&mut self, out: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.chunks.reasoning(out, inner);
        Ok(())
    }

    fn signature(&mut self, _: &mut Vec<u8>, _: &str) -> Result<(), Error> {
        Ok(())
    }

    fn redacted(&mut self, _: &mut Vec<u8>, _: &str) -> Result<(), Error> {
        Ok(())
    }

    fn call(&mut self, out: &mut Vec<u8>, id: &str, name: &str, signature: Option<&str>) -> Result<(), Error> {
        let index = self.calls;
        self.calls += 1;
        match signature {
            None => self.chunks.tool_call(out, index, id, name),
            Some(signature) => self.chunks.delta(out, |delta| {
                let mut calls = delta.array("tool_calls");
                let mut call = calls.object();
                call.number("index", index);
                call.escaped("id", id);
                call.text("type", "function");
                {
                    let mut function = call.object("function");
                    function.escaped("name", name);
                    function.text("arguments", "");
                }
                write_signature(&mut call, signature);
            }),
        }
        Ok(())
    }

    fn arguments(&mut self, out: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.chunks.arguments(out, self.calls.saturating_sub(1), inner);
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<u8>, finish: Finish, usage: &Usage) -> Result<(), Error> {
        self.chunks.end(out, word(finish), usage);
        Ok(())
    }

    fn fail(&mut self, out: &mut Vec<u8>, failure: &Failure) {
        self.chunks.fail(out, failure);
    }
}

struct Call {
    id: String,
    name: String,
    arguments: String,
    signature: Option<String>,
}

/// One body.
pub(super) struct Whole {
    asked: Asked,
    model: Option<String>,
    text: String,
    thought: String,
    calls: Vec<Call>,
}

impl Whole {
    pub(super) fn new(asked: &Asked) -> Self {
        let (text, thought) = Default::default();
        Self { asked: asked.clone(), model: None, text, thought, calls: Vec::new() }
    }
}

impl Teller for Whole {
    fn model(&mut self, name: &str) {
        self.model = Some(name.to_owned());
    }

    fn text(&mut self, _: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.text.push_str(inner);
        Ok(())
    }

    fn thought(&mut self, _: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.thought.push_str(inner);
        Ok(())
    }

    fn signature(&mut self, _: &mut Vec<u8>, _: &str) -> Result<(), Error> {
        Ok(())
    }

    fn redacted(&mut self, _: &mut Vec<u8>, _: &str) -> Result<(), Error> {
        Ok(())
    }

    fn call(&mut self, _: &mut Vec<u8>, id: &str, name: &str, signature: Option<&str>) -> Result<(), Error> {
        self.calls.push(Call {
            id: id.to_owned(),
            name: name.to_owned(),
            arguments: String::new(),
            signature: signature.map(str::to_owned),
        });
        Ok(())
    }

    fn arguments(&mut self, _: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        if let Some(call) = self.calls.last_mut() {
            call.arguments.push_str(inner);
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<u8>, finish: Finish, usage: &Usage) -> Result<(), Error> {
        let mut body = Object::new(out);
        completion_head(&mut body, "chat.completion", &self.asked, self.asked.model(self.model.as_deref()));
        {
            let mut choices = body.array("choices");
            let mut choice = choices.object();
            choice.number("index", 0);
            {
                let mut message = choice.object("message");
                message.text("role", "assistant");
                if self.text.is_empty() && !self.calls.is_empty() {
                    message.null("content");
                } else {
                    message.escaped("content", &self.text);
                }
                if !self.thought.is_empty() {
                    message.escaped("reasoning_content", &self.thought);
                }
                message.null("refusal");
                message.json("annotations", "[]");
                if !self.calls.is_empty() {
                    let mut calls = message.array("tool_calls");
                    for call in &self.calls {
                        let mut one = calls.object();
                        one.escaped("id", &call.id);
                        one.text("type", "function");
                        {
                            let mut function = one.object("function");
                            function.escaped("name", &call.name);
                            let arguments = if call.arguments.is_empty() { "{}" } else { &call.arguments };
                            function.escaped("arguments", arguments);
                        }
                        if let Some(signature) = &call.signature {
                            write_signature(&mut one, signature);
                        }
                    }
                }
            }
            choice.null("logprobs");
            choice.text("finish_reason", word(finish));
        }
        write_usage(body.object("usage"), usage);
        Ok(())
    }

    fn fail(&mut self, out: &mut Vec<u8>, failure: &Failure) {
        error(failure, out);
    }
}
