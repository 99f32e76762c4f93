//! What a model's server sends, taken apart for a teller.

mod anthropic;
mod bedrock;
mod chat;
mod gemini;
mod ollama;

use super::frame::Frame;
use super::pair::Step;
use super::tell::Teller;
use super::usage::Meter;
use super::{Asked, Dialect, Error, Finish};

/// Listens to one answer of a model.
pub(crate) trait Listener: Send {
    /// A frame of a stream.
    fn frame(&mut self, frame: &Frame<'_>, to: &mut Told<'_>) -> Result<Step, Error>;

    /// A whole answer; `None` if it says that it is an error after all.
    fn whole(&mut self, body: &[u8], to: &mut Told<'_>) -> Result<(), Error>;

    /// Why the model stopped, once it is known.
    fn finish(&self) -> Option<Finish>;
}

/// Who is told, and what is counted along.
pub(crate) struct Told<'t> {
    pub(crate) teller: &'t mut dyn Teller,
    pub(crate) out: &'t mut Vec<u8>,
    pub(crate) meter: &'t mut Meter,
}

impl Told<'_> {
    pub(super) fn text(&mut self, inner: &str) -> Result<(), Error> {
        if inner.is_empty() {
            return Ok(());
        }
        self.meter.said(inner);
        self.teller.text(self.out, inner)
    }

    pub(super) fn thought(&mut self, inner: &str) -> Result<(), Error> {
        if inner.is_empty() {
            return Ok(());
        }
        self.meter.said(inner);
        self.teller.thought(self.out, inner)
    }

    pub(super) fn signature(&mut self, inner: &str) -> Result<(), Error> {
        if inner.is_empty() {
            return Ok(());
        }
        self.teller.signature(self.out, inner)
    }

    pub(super) fn redacted(&mut self, inner: &str) -> Result<(), Error> {
        self.teller.redacted(self.out, inner)
    }

    pub(super) fn call(&mut self, id: &str, name: &str, signature: Option<&str>) -> Result<(), Error> {
        self.meter.said(name);
        self.teller.call(self.out, id, name, signature)
    }

    pub(super) fn arguments(&mut self, inner: &str) -> Result<(), Error> {
        if inner.is_empty() {
            return Ok(());
        }
        self.meter.said(inner);
        self.teller.arguments(self.out, inner)
    }

    /// The answer is whole.
    pub(crate) fn end(&mut self, finish: Finish) -> Result<(), Error> {
        self.teller.end(self.out, finish, &self.meter.usage())
    }
}

/// Ids for calls that have none: of the answer and the place of the call in it.
#[derive(Debug)]
pub(super) struct Ids {
    answer: String,
    calls: usize,
}

impl Ids {
    fn new(asked: &Asked) -> Self {
        Self { answer: asked.id.clone(), calls: 0 }
    }

    /// An id that nobody else has; letters and digits, so it needs no escapes.
    fn next(&mut self) -> String {
        self.calls += 1;
        format!("call_{}{}", self.answer, self.calls - 1)
    }

    /// Whether the model called anything.
    fn any(&self) -> bool {
        self.calls > 0
    }
}

/// Who listens to a model of `from`.
pub(crate) fn listener(from: Dialect, asked: &Asked) -> Box<dyn Listener> {
    match from {
        Dialect::Anthropic => Box::new(anthropic::Listener::default()),
        Dialect::Gemini => Box::new(gemini::Listener::new(asked)),
        Dialect::Ollama => Box::new(ollama::Listener::new(asked)),
        Dialect::Bedrock => Box::new(bedrock::Listener::default()),
        _ => Box::new(chat::Listener::new(asked)),
    }
}
