//! Items and events in the order that clients count on, and the whole response at the end.
//!
//! Every item is announced, grows and is finished before the next one begins; events are numbered. What was said is kept,
//! because the events that finish a part and the last event of all repeat it: at most `kept_max_bytes`.

use crate::dialect::sse;
use crate::dialect::write::Object;
use crate::dialect::{Asked, Error, Failure, Usage};

use super::whole;

/// The item that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    None,
    Text,
    Refusal,
    Reasoning,
    Call,
}

/// Writes a response, as events or in one piece.
#[derive(Debug)]
pub(crate) struct Response {
    asked: Asked,
    model: String,
    /// Whether events are written; otherwise only the whole is.
    streams: bool,
    begun: bool,
    ended: bool,
    sequence: u64,
    open: Open,
    /// Number of the open item, or of the next.
    index: u64,
    /// Finished items, with commas between them.
    items: Vec<u8>,
    /// What the open item says, escaped.
    said: String,
    /// `call_id` and name of the open call, escaped.
    call: (String, String),
    /// What the provider wants back of the open reasoning, escaped.
    encrypted: String,
}

impl Response {
    /// A response that is written as events while it grows.
    pub(crate) fn streamed(asked: &Asked) -> Self {
        Self::new(asked, true)
    }

    /// A response that is written in one piece by [`whole`](Self::whole).
    pub(crate) fn at_once(asked: &Asked) -> Self {
        Self::new(asked, false)
    }

    fn new(asked: &Asked, streams: bool) -> Self {
        Self {
            asked: asked.clone(),
            model: asked.model(None).to_owned(),
            streams,
            begun: false,
            ended: false,
            sequence: 0,
            open: Open::None,
            index: 0,
            items: Vec::new(),
            said: String::new(),
            call: (String::new(), String::new()),
            encrypted: String::new(),
        }
    }

    /// The model's name becomes known; without effect once an event was written.
    pub(crate) fn name(&mut self, model: Option<&str>) {
        if !self.begun {
            self.model = self.asked.model(model).to_owned();
        }
    }

    /// Whether an event was written.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    /// `response.created` and `response.in_progress`, if they were not written yet.
    pub(crate) fn begin(&mut self, out: &mut Vec<u8>) {
        if self.begun {
            return;
        }
        self.begun = true;
        for kind in ["response.created", "response.in_progress"] {
            self.event(out, kind, |this, event| this.body(event.object("response"), "in_progress", None, None));
        }
    }

    /// Text, escaped already.
    pub(crate) fn text(&mut self, out: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.say(out, Open::Text, "response.output_text.delta", inner)
    }

    /// A refusal, escaped already.
    pub(crate) fn refusal(&mut self, out: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.say(out, Open::Refusal, "response.refusal.delta", inner)
    }

    /// Reasoning, escaped already.
    pub(crate) fn reasoning(&mut self, out: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.say(out, Open::Reasoning, "response.reasoning_summary_text.delta", inner)
    }

    /// What the provider wants back of the reasoning before it, escaped already.
    pub(crate) fn encrypted(&mut self, out: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.keep(inner.len())?;
        self.open(out, Open::Reasoning);
        self.encrypted.push_str(inner);
        Ok(())
    }

    /// The open item of reasoning is complete: what follows is another one.
    pub(crate) fn reasoning_ends(&mut self, out: &mut Vec<u8>) {
        if self.open == Open::Reasoning {
            self.shut(out, "completed");
        }
    }

    /// A call begins; id and name are escaped already. Gives the number of its item.
    pub(crate) fn call(&mut self, out: &mut Vec<u8>, id: &str, name: &str) -> Result<u64, Error> {
        self.keep(id.len() + name.len())?;
        self.shut(out, "completed");
        self.call = (id.to_owned(), name.to_owned());
        self.open(out, Open::Call);
        Ok(self.index)
    }

    /// More of the arguments of the open call, escaped already.
    pub(crate) fn arguments(&mut self, out: &mut Vec<u8>, inner: &str) -> Result<(), Error> {
        self.say(out, Open::Call, "response.function_call_arguments.delta", inner)
    }

    /// Whether the item with that number is the open call.
    pub(crate) fn is_open(&self, item: u64) -> bool {
        self.open == Open::Call && self.index == item
    }

    /// The end. `incomplete` says why the answer is not whole.
    pub(crate) fn end(&mut self, out: &mut Vec<u8>, incomplete: Option<&str>, usage: &Usage) {
        if self.ended {
            return;
        }
        self.begin(out);
        self.shut(out, if incomplete.is_some() { "incomplete" } else { "completed" });
        self.ended = true;
        let status = if incomplete.is_some() { "incomplete" } else { "completed" };
        let kind = if incomplete.is_some() { "response.incomplete" } else { "response.completed" };
        self.event(out, kind, |this, event| this.body(event.object("response"), status, incomplete, Some(usage)));
    }

    /// The whole response, after [`end`](Self::end).
    pub(crate) fn whole(&self, incomplete: Option<&str>, usage: &Usage) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.items.len() + self.asked.request.len() / 2 + 512);
        let status = if incomplete.is_some() { "incomplete" } else { "completed" };
        self.body(Object::new(&mut out), status, incomplete, Some(usage));
        out
    }

    /// An error in the middle; nothing follows it.
    pub(crate) fn fail(&mut self, out: &mut Vec<u8>, failure: &Failure) {
        self.ended = true;
        super::error_event(failure, self.sequence, out);
    }

    fn keep(&self, more: usize) -> Result<(), Error> {
        let max_bytes = self.asked.limits.kept_max_bytes;
        if self.items.len() + self.said.len() + self.encrypted.len() + more > max_bytes {
            return Err(Error::TooLong { what: "text of an answer", max_bytes });
        }
        Ok(())
    }

    fn say(&mut self, out: &mut Vec<u8>, open: Open, kind: &str, inner: &str) -> Result<(), Error> {
        self.keep(inner.len())?;
        self.open(out, open);
        self.said.push_str(inner);
        self.event(out, kind, |this, event| {
            this.place(event);
            event.escaped("delta", inner);
            if open == Open::Text {
                drop(event.array("logprobs"));
            }
        });
        Ok(())
    }

    fn open(&mut self, out: &mut Vec<u8>, open: Open) {
        if self.open == open {
            return;
        }
        self.begin(out);
        self.shut(out, "completed");
        self.open = open;
        self.event(out, "response.output_item.added", |this, event| {
            event.number("output_index", this.index);
            this.item(event.object("item"), "in_progress", false);
        });
        match open {
            Open::Text | Open::Refusal => self.event(out, "response.content_part.added", |this, event| {
                this.place(event);
                this.part(event.object("part"), "");
            }),
            Open::Reasoning => self.event(out, "response.reasoning_summary_part.added", |this, event| {
                this.place(event);
                this.part(event.object("part"), "");
            }),
            Open::Call | Open::None => {}
        }
    }

    /// Finishes the open item.
    fn shut(&mut self, out: &mut Vec<u8>, status: &str) {
        let (done, member, part_done) = match self.open {
            Open::None => return,
            Open::Text => ("response.output_text.done", "text", Some("response.content_part.done")),
            Open::Refusal => ("response.refusal.done", "refusal", Some("response.content_part.done")),
            Open::Reasoning => {
                ("response.reasoning_summary_text.done", "text", Some("response.reasoning_summary_part.done"))
            }
            Open::Call => {
                // Clients parse the arguments of every call, so none at all are an empty object.
                if self.said.is_empty() {
                    self.said.push_str("{}");
                }
                ("response.function_call_arguments.done", "arguments", None)
            }
        };
        self.event(out, done, |this, event| {
            this.place(event);
            event.escaped(member, &this.said);
            match this.open {
                Open::Text => drop(event.array("logprobs")),
                Open::Call => event.escaped("name", &this.call.1),
                _ => {}
            }
        });
        if let Some(part_done) = part_done {
            self.event(out, part_done, |this, event| {
                this.place(event);
                this.part(event.object("part"), &this.said);
            });
        }
        self.event(out, "response.output_item.done", |this, event| {
            event.number("output_index", this.index);
            this.item(event.object("item"), status, true);
        });
        let mut items = std::mem::take(&mut self.items);
        if !items.is_empty() {
            items.push(b',');
        }
        self.item(Object::new(&mut items), status, true);
        self.items = items;
        self.open = Open::None;
        self.index += 1;
        self.said.clear();
        self.encrypted.clear();
    }

    /// Writes an event whose members beside type and number are written by `write`.
    fn event(&mut self, out: &mut Vec<u8>, kind: &str, write: impl FnOnce(&Self, &mut Object<'_>)) {
        if !self.streams {
            return;
        }
        sse::event(out, kind, |out| {
            let mut event = Object::new(out);
            event.text("type", kind);
            event.number("sequence_number", self.sequence);
            write(self, &mut event);
        });
        self.sequence += 1;
    }

    fn item_id(&self) -> String {
        let prefix = match self.open {
            Open::Call => "fc",
            Open::Reasoning => "rs",
            _ => "msg",
        };
        format!("{prefix}_{}_{}", self.asked.id, self.index)
    }

    /// Where in the response an event belongs.
    fn place(&self, event: &mut Object<'_>) {
        event.text("item_id", &self.item_id());
        event.number("output_index", self.index);
        match self.open {
            Open::Text | Open::Refusal => event.number("content_index", 0),
            Open::Reasoning => event.number("summary_index", 0),
            Open::Call | Open::None => {}
        }
    }

    /// The part of the open item with that text.
    fn part(&self, mut part: Object<'_>, said: &str) {
        match self.open {
            Open::Refusal => {
                part.text("type", "refusal");
                part.escaped("refusal", said);
            }
            Open::Reasoning => {
                part.text("type", "summary_text");
                part.escaped("text", said);
            }
            _ => {
                part.text("type", "output_text");
                drop(part.array("annotations"));
                drop(part.array("logprobs"));
                part.escaped("text", said);
            }
        }
    }

    /// The open item, with or without what it says.
    fn item(&self, mut item: Object<'_>, status: &str, full: bool) {
        item.text("id", &self.item_id());
        match self.open {
            Open::Call => {
                item.text("type", "function_call");
                item.text("status", status);
                item.escaped("arguments", if full { &self.said } else { "" });
                item.escaped("call_id", &self.call.0);
                item.escaped("name", &self.call.1);
            }
            Open::Reasoning => {
                item.text("type", "reasoning");
                let mut summary = item.array("summary");
                if full && !self.said.is_empty() {
                    self.part(summary.object(), &self.said);
                }
                drop(summary);
                if full && !self.encrypted.is_empty() {
                    item.escaped("encrypted_content", &self.encrypted);
                }
            }
            _ => {
                item.text("type", "message");
                item.text("status", status);
                let mut content = item.array("content");
                if full {
                    self.part(content.object(), &self.said);
                }
                drop(content);
                item.text("role", "assistant");
            }
        }
    }

    /// The response as it stands.
    fn body(&self, to: Object<'_>, status: &str, incomplete: Option<&str>, usage: Option<&Usage>) {
        let Self { asked, model, items, .. } = self;
        whole::write(to, asked, &whole::Said { model, items, status, incomplete, usage });
    }
}
