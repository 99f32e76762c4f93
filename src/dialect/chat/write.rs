//! Chunks and answers as strict clients want them.

use super::usage::write_usage;
use crate::dialect::sse;
use crate::dialect::write::{Object, number, string};
use crate::dialect::{Asked, Failure, Usage};

/// Writes the members that begin every answer.
pub(crate) fn completion_head(to: &mut Object<'_>, object: &str, asked: &Asked, model: &str) {
    to.key("id").extend_from_slice(format!("\"chatcmpl-{}\"", asked.id).as_bytes());
    to.text("object", object);
    to.number("created", asked.created_unix_s);
    to.text("model", model);
}

/// Writes a stream of chunks: one id and one time for all, the role in the first delta, `finish_reason` and `logprobs`
/// in each, the usage in a chunk of its own where it is wanted, `[DONE]` at the end.
#[derive(Debug)]
pub(crate) struct Chunks {
    /// `{"id":...,"object":...,"created":...,"model":...,`, written once.
    head: Vec<u8>,
    include_usage: bool,
    begun: bool,
    ended: bool,
}

impl Chunks {
    pub(crate) fn new(asked: &Asked) -> Self {
        let mut chunks = Self { head: Vec::new(), include_usage: asked.include_usage, begun: false, ended: false };
        chunks.name(asked, None);
        chunks
    }

    /// The model's name becomes known; without effect once a chunk was written, because all chunks agree.
    pub(crate) fn name(&mut self, asked: &Asked, model: Option<&str>) {
        if self.begun {
            return;
        }
        self.head.clear();
        self.head.extend_from_slice(b"{\"id\":\"chatcmpl-");
        self.head.extend_from_slice(asked.id.as_bytes());
        self.head.extend_from_slice(b"\",\"object\":\"chat.completion.chunk\",\"created\":");
        number(&mut self.head, asked.created_unix_s);
        self.head.extend_from_slice(b",\"model\":");
        string(&mut self.head, asked.model(model));
        self.head.extend_from_slice(b",\"choices\":[");
    }

    /// A chunk whose delta `write` fills.
    pub(crate) fn delta(&mut self, out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>)) {
        self.begin(out);
        self.chunk(out, None, b"null", write);
    }

    /// The same with `logprobs`, which are JSON.
    pub(crate) fn delta_with(&mut self, out: &mut Vec<u8>, logprobs: &[u8], write: impl FnOnce(&mut Object<'_>)) {
        self.begin(out);
        self.chunk(out, None, logprobs, write);
    }

    /// A delta with text that is escaped already.
    pub(crate) fn content(&mut self, out: &mut Vec<u8>, inner: &str) {
        self.delta(out, |delta| delta.escaped("content", inner));
    }

    /// A delta with reasoning, under the name that most clients know.
    pub(crate) fn reasoning(&mut self, out: &mut Vec<u8>, inner: &str) {
        self.delta(out, |delta| delta.escaped("reasoning_content", inner));
    }

    /// The beginning of a call; id and name are escaped already.
    pub(crate) fn tool_call(&mut self, out: &mut Vec<u8>, index: u64, id: &str, name: &str) {
        self.delta(out, |delta| {
            let mut calls = delta.array("tool_calls");
            let mut call = calls.object();
            call.number("index", index);
            call.escaped("id", id);
            call.text("type", "function");
            let mut function = call.object("function");
            function.escaped("name", name);
            function.text("arguments", "");
        });
    }

    /// More of the arguments of a call, escaped already.
    pub(crate) fn arguments(&mut self, out: &mut Vec<u8>, index: u64, inner: &str) {
        self.delta(out, |delta| {
            let mut calls = delta.array("tool_calls");
            let mut call = calls.object();
            call.number("index", index);
            call.object("function").escaped("arguments", inner);
        });
    }

    /// The reason, the usage if it is wanted, and the end.
    pub(crate) fn end(&mut self, out: &mut Vec<u8>, reason: &str, usage: &Usage) {
        if self.ended {
            return;
        }
        self.ended = true;
        self.begin(out);
        self.chunk(out, Some(reason), b"null", |_| {});
        if self.include_usage {
            sse::event(out, "", |out| {
                out.extend_from_slice(&self.head);
                out.extend_from_slice(b"],\"usage\":");
                write_usage(Object::new(out), usage);
                out.push(b'}');
            });
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    /// An error in the middle: no `[DONE]` follows, and OpenAI's clients raise it.
    pub(crate) fn fail(&mut self, out: &mut Vec<u8>, failure: &Failure) {
        self.ended = true;
        sse::event(out, "", |out| super::error(failure, out));
    }

    /// The first chunk, if it was not written yet.
    pub(crate) fn begin(&mut self, out: &mut Vec<u8>) {
        if !self.begun {
            self.begun = true;
            self.chunk(out, None, b"null", |delta| {
                delta.text("role", "assistant");
                delta.text("content", "");
                delta.null("refusal");
            });
        }
    }

    fn chunk(&self, out: &mut Vec<u8>, reason: Option<&str>, logprobs: &[u8], write: impl FnOnce(&mut Object<'_>)) {
        sse::event(out, "", |out| {
            out.extend_from_slice(&self.head);
            {
                let mut choice = Object::new(out);
                choice.number("index", 0);
                write(&mut choice.object("delta"));
                choice.key("logprobs").extend_from_slice(logprobs);
                match reason {
                    Some(reason) => choice.text("finish_reason", reason),
                    None => choice.null("finish_reason"),
                }
            }
            out.extend_from_slice(if self.include_usage { b"],\"usage\":null}" } else { b"]}" });
        });
    }
}
