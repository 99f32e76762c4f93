//! Ollama's `chat` and `generate`: lines of a stream, or one body of the same form.

use super::Teller;
use super::arguments::{Call, Kept};
use crate::dialect::listing::rfc3339;
use crate::dialect::ollama::error;
use crate::dialect::write::Object;
use crate::dialect::{Asked, Dialect, Error, Failure, Finish, Operation, Usage};

/// What a line says.
#[derive(Default)]
struct Said {
    text: String,
    thought: String,
    calls: Vec<Call>,
}

pub(super) struct Ollama {
    asked: Asked,
    model: Option<String>,
    streams: bool,
    created_at: String,
    kept: Kept,
    /// Of a whole answer.
    said: Said,
}

impl Ollama {
    pub(super) fn new(asked: &Asked, from: Dialect, streams: bool) -> Self {
        Self {
            asked: asked.clone(),
            model: None,
            streams,
            created_at: rfc3339(asked.created_unix_s),
            kept: Kept::new(from, asked.limits.kept_max_bytes),
            said: Said::default(),
        }
    }

    fn line(&self, out: &mut Vec<u8>, said: &Said, end: Option<(Finish, &Usage)>) {
        {
            let mut body = Object::new(out);
            body.text("model", self.asked.model(self.model.as_deref()));
            body.text("created_at", &self.created_at);
            if self.asked.operation == Operation::Completions {
                body.escaped("response", &said.text);
                if !said.thought.is_empty() {
                    body.escaped("thinking", &said.thought);
                }
            } else {
                let mut message = body.object("message");
                message.text("role", "assistant");
                message.escaped("content", &said.text);
                if !said.thought.is_empty() {
                    message.escaped("thinking", &said.thought);
                }
                if !said.calls.is_empty() {
                    let mut calls = message.array("tool_calls");
                    for call in &said.calls {
                        let mut one = calls.object();
                        one.escaped("id", &call.id);
                        let mut function = one.object("function");
                        function.escaped("name", &call.name);
                        function.json("arguments", &call.arguments);
                    }
                }
            }
            body.flag("done", end.is_some());
            if let Some((finish, usage)) = end {
                body.text("done_reason", if finish == Finish::Length { "length" } else { "stop" });
                // Its durations are left out, as Ollama itself does with those that it does not know.
                for (name, tokens) in [("prompt_eval_count", usage.input_tokens), ("eval_count", usage.output_tokens)] {
                    if let Some(tokens) = tokens {
                        body.number(name, tokens);
                    }
                }
            }
        }
        if self.streams {
            out.push(b'\n');
        }
    }

    fn finish_call(&mut self, out: &mut Vec<u8>, call: Option<Call>) {
        let Some(call) = call else { return };
        if self.streams {
            self.line(out, &Said { calls: vec![call], ..Said::default() }, None);
        } else {
            self.said.calls.push(call);
        }
    }
}

impl Teller for Ollama {
    fn model(&mut self, name: &str) {
        self.model.get_or_insert_with(|| name.to_owned());
    }

    fn text(&mut self, out: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        if self.streams {
            self.line(out, &Said { text: inner.to_owned(), ..Said::default() }, None);
        } else {
            self.said.text.push_str(inner);
        }
        Ok(())
    }

    fn thought(&mut self, out: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        if self.streams {
            self.line(out, &Said { thought: inner.to_owned(), ..Said::default() }, None);
        } else {
            self.said.thought.push_str(inner);
        }
        Ok(())
    }

    fn signature(&mut self, _: &mut Vec<u8>, _: &str) -> Result<(), Error> {
        Ok(())
    }

    fn redacted(&mut self, _: &mut Vec<u8>, _: &str) -> Result<(), Error> {
        Ok(())
    }

    fn call(&mut self, out: &mut Vec<u8>, id: &str, name: &str, _: Option<&str>) -> Result<(), Error> {
        let before = self.kept.begin(id, name, None)?;
        self.finish_call(out, before);
        Ok(())
    }

    fn arguments(&mut self, _: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.kept.push(inner)
    }

    fn end(&mut self, out: &mut Vec<u8>, finish: Finish, usage: &Usage) -> Result<(), Error> {
        let last = self.kept.take()?;
        self.finish_call(out, last);
        let said = std::mem::take(&mut self.said);
        self.line(out, &said, Some((finish, usage)));
        Ok(())
    }

    fn fail(&mut self, out: &mut Vec<u8>, failure: &Failure) {
        error(failure, out);
        if self.streams {
            out.push(b'\n');
        }
    }
}
