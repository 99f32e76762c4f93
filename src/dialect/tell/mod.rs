//! What a model says, told in the caller's dialect: one teller for a stream and one for a whole answer.

mod anthropic;
mod arguments;
mod chat;
mod gemini;
mod interactions;
mod ollama;
mod responses;

use super::{Asked, Dialect, Error, Failure, Finish, Usage};

/// Takes what a model says, piece by piece and in order, and appends what its caller gets for it. Texts are between
/// their quotes, escaped as the model's server escaped them.
///
/// Whoever tells a whole answer keeps the pieces and writes the body at the end.
pub(crate) trait Teller: Send {
    /// The model's name as its server says it.
    fn model(&mut self, name: &str);

    /// More of the answer.
    fn text(&mut self, out: &mut Vec<u8>, inner: &str) -> Result<(), Error>;

    /// More of what the model thinks before it.
    fn thought(&mut self, out: &mut Vec<u8>, inner: &str) -> Result<(), Error>;

    /// The proof that the model thought what came before, in words that its provider wants back. What an API has no place
    /// for is dropped.
    fn signature(&mut self, out: &mut Vec<u8>, inner: &str) -> Result<(), Error>;

    /// A thought that only the provider can read.
    fn redacted(&mut self, out: &mut Vec<u8>, inner: &str) -> Result<(), Error>;

    /// A call begins. `signature` is Gemini's, which belongs to the call itself.
    fn call(&mut self, out: &mut Vec<u8>, id: &str, name: &str, signature: Option<&str>) -> Result<(), Error>;

    /// More of the arguments of the call that began last: JSON in a text.
    fn arguments(&mut self, out: &mut Vec<u8>, inner: &str) -> Result<(), Error>;

    /// A stop sequence ended the answer.
    fn stop_sequence(&mut self, _: &str) {}

    /// The answer is whole.
    fn end(&mut self, out: &mut Vec<u8>, finish: Finish, usage: &Usage) -> Result<(), Error>;

    /// The answer failed in the middle.
    fn fail(&mut self, out: &mut Vec<u8>, failure: &Failure);
}

/// Who tells a stream of a model of `from`.
pub(crate) fn stream(asked: &Asked, from: Dialect) -> Box<dyn Teller> {
    match asked.dialect {
        Dialect::Anthropic => Box::new(anthropic::Stream::new(asked)),
        Dialect::Gemini => Box::new(gemini::Gemini::new(asked, from, true)),
        Dialect::Interactions => Box::new(interactions::Stream::new(asked, from)),
        Dialect::Ollama => Box::new(ollama::Ollama::new(asked, from, true)),
        Dialect::Responses => Box::new(responses::Responses::new(asked, true)),
        _ => Box::new(chat::Stream::new(asked)),
    }
}

/// Who tells a whole answer of a model of `from`.
pub(crate) fn whole(asked: &Asked, from: Dialect) -> Box<dyn Teller> {
    match asked.dialect {
        Dialect::Anthropic => Box::new(anthropic::Whole::new(asked, from)),
        Dialect::Gemini => Box::new(gemini::Gemini::new(asked, from, false)),
        Dialect::Interactions => Box::new(interactions::Whole::new(asked, from)),
        Dialect::Ollama => Box::new(ollama::Ollama::new(asked, from, false)),
        Dialect::Responses => Box::new(responses::Responses::new(asked, false)),
        _ => Box::new(chat::Whole::new(asked)),
    }
}
