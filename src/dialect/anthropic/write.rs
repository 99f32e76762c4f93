//! Events in the strict order that clients count on: `message_start`, then block after block with `start`, deltas and
//! `stop`, then `message_delta` and `message_stop`.

use super::usage::{write_counts, write_usage};
use crate::dialect::sse;
use crate::dialect::write::{Object, string};
use crate::dialect::{Asked, Failure, Usage};

/// Writes the members that begin every message.
pub(crate) fn message_head(to: &mut Object<'_>, asked: &Asked, model: &str) {
    to.key("id").extend_from_slice(format!("\"msg_{}\"", asked.id).as_bytes());
    to.text("type", "message");
    to.text("role", "assistant");
    to.text("model", model);
}

/// Writes why the message ended. `stop_sequence` is a JSON value.
pub(crate) fn message_stop(to: &mut Object<'_>, reason: &str, stop_sequence: Option<&str>) {
    to.text("stop_reason", reason);
    to.json("stop_sequence", stop_sequence.unwrap_or("null"));
    to.null("stop_details");
    to.null("container");
}

/// Writes a block of text, escaped already.
pub(crate) fn text_block(mut to: Object<'_>, inner: &str) {
    to.text("type", "text");
    to.escaped("text", inner);
    to.null("citations");
}

/// Writes the beginning of a call; its `input` follows. Whoever calls is the model itself, not a program of the provider's.
pub(crate) fn call_head(to: &mut Object<'_>, id: &str, name: &str) {
    to.text("type", "tool_use");
    to.escaped("id", id);
    to.escaped("name", name);
    to.object("caller").text("type", "direct");
}

/// The block that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    None,
    Text,
    Thinking,
    ToolUse,
}

/// Writes a stream of events.
#[derive(Debug)]
pub(crate) struct Events {
    /// The head of the message, written once.
    head: Vec<u8>,
    input_tokens_estimated: u64,
    begun: bool,
    ended: bool,
    open: Open,
    /// Index of the next block.
    next: u64,
}

impl Events {
    pub(crate) fn new(asked: &Asked) -> Self {
        let mut events = Self {
            head: Vec::new(),
            input_tokens_estimated: asked.input_tokens_estimated,
            begun: false,
            ended: false,
            open: Open::None,
            next: 0,
        };
        events.name(asked, None);
        events
    }

    /// The model's name becomes known; without effect once an event was written.
    pub(crate) fn name(&mut self, asked: &Asked, model: Option<&str>) {
        if self.begun {
            return;
        }
        self.head.clear();
        self.head.extend_from_slice(b"\"id\":\"msg_");
        self.head.extend_from_slice(asked.id.as_bytes());
        self.head.extend_from_slice(b"\",\"type\":\"message\",\"role\":\"assistant\",\"model\":");
        string(&mut self.head, asked.model(model));
    }

    /// Whether an event was written.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Text, escaped already.
    pub(crate) fn text(&mut self, out: &mut Vec<u8>, inner: &str) {
        self.open(out, Open::Text, |block| text_block(block, ""));
        self.delta(out, "text_delta", "text", inner);
    }

    /// Thinking, escaped already.
    pub(crate) fn thinking(&mut self, out: &mut Vec<u8>, inner: &str) {
        self.open_thinking(out);
        self.delta(out, "thinking_delta", "thinking", inner);
    }

    /// The signature of the thinking before it, escaped already.
    pub(crate) fn signature(&mut self, out: &mut Vec<u8>, inner: &str) {
        self.open_thinking(out);
        self.delta(out, "signature_delta", "signature", inner);
    }

    /// Thinking that only the provider can read, escaped already.
    pub(crate) fn redacted(&mut self, out: &mut Vec<u8>, inner: &str) {
        self.shut(out);
        self.open(out, Open::Thinking, |mut block| {
            block.text("type", "redacted_thinking");
            block.escaped("data", inner);
        });
        self.shut(out);
    }

    /// A call begins; id and name are escaped already. Gives the index of its block.
    pub(crate) fn tool_use(&mut self, out: &mut Vec<u8>, id: &str, name: &str) -> u64 {
        self.shut(out);
        self.open(out, Open::ToolUse, |mut block| {
            call_head(&mut block, id, name);
            block.json("input", "{}");
        });
        self.next - 1
    }

    /// More of the arguments of the call whose block is open, escaped already.
    pub(crate) fn input(&mut self, out: &mut Vec<u8>, inner: &str) {
        self.delta(out, "input_json_delta", "partial_json", inner);
    }

    /// Whether the block of a call is the open one.
    pub(crate) fn is_open(&self, block: u64) -> bool {
        self.open == Open::ToolUse && self.next == block + 1
    }

    /// The reason, the usage and the end. `stop_sequence` is a JSON value.
    pub(crate) fn end(&mut self, out: &mut Vec<u8>, reason: &str, stop_sequence: Option<&str>, usage: &Usage) {
        if self.ended {
            return;
        }
        self.ended = true;
        self.begin(out);
        self.shut(out);
        sse::event(out, "message_delta", |out| {
            let mut event = Object::new(out);
            event.text("type", "message_delta");
            message_stop(&mut event.object("delta"), reason, stop_sequence);
            write_counts(&mut event.object("usage"), usage);
        });
        sse::event(out, "message_stop", |out| out.extend_from_slice(b"{\"type\":\"message_stop\"}"));
    }

    /// An error in the middle; nothing follows it.
    pub(crate) fn fail(&mut self, out: &mut Vec<u8>, failure: &Failure) {
        self.ended = true;
        sse::event(out, "error", |out| super::error(failure, None, out));
    }

    /// `message_start`, if it was not written yet. The prompt's tokens are an estimate there; the real ones follow in
    /// `message_delta`.
    pub(crate) fn begin(&mut self, out: &mut Vec<u8>) {
        if self.begun {
            return;
        }
        self.begun = true;
        sse::event(out, "message_start", |out| {
            out.extend_from_slice(b"{\"type\":\"message_start\",\"message\":{");
            out.extend_from_slice(&self.head);
            out.extend_from_slice(b",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"stop_details\":null,\"container\":null,\"usage\":");
            let usage =
                Usage { input_tokens: Some(self.input_tokens_estimated), output_tokens: Some(1), ..Usage::default() };
            write_usage(Object::new(out), &usage);
            out.extend_from_slice(b"}}");
        });
    }

    fn open_thinking(&mut self, out: &mut Vec<u8>) {
        self.open(out, Open::Thinking, |mut block| {
            block.text("type", "thinking");
            block.text("thinking", "");
            block.text("signature", "");
        });
    }

    fn open(&mut self, out: &mut Vec<u8>, kind: Open, write: impl FnOnce(Object<'_>)) {
        if self.open == kind {
            return;
        }
        self.begin(out);
        self.shut(out);
        self.open = kind;
        let index = self.next;
        self.next += 1;
        sse::event(out, "content_block_start", |out| {
            let mut event = Object::new(out);
            event.text("type", "content_block_start");
            event.number("index", index);
            write(event.object("content_block"));
        });
    }

    /// `content_block_stop` of the open block.
    fn shut(&mut self, out: &mut Vec<u8>) {
        if self.open == Open::None {
            return;
        }
        self.open = Open::None;
        sse::event(out, "content_block_stop", |out| {
            let mut event = Object::new(out);
            event.text("type", "content_block_stop");
            event.number("index", self.next - 1);
        });
    }

    fn delta(&self, out: &mut Vec<u8>, kind: &str, member: &str, inner: &str) {
        sse::event(out, "content_block_delta", |out| {
            let mut event = Object::new(out);
            event.text("type", "content_block_delta");
            event.number("index", self.next - 1);
            let mut delta = event.object("delta");
            delta.text("type", kind);
            delta.escaped(member, inner);
        });
    }
}
