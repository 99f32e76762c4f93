//! Pairs with Gemini, Google's interactions, Ollama or Bedrock at one of their ends: whoever reads a request of the one
//! writes it for the other, and whoever listens to the other's answer tells it to the one.

use bytes::Bytes;

use crate::dialect::frame::Frame;
use crate::dialect::hear::{Listener, Told, listener};
use crate::dialect::pair::{Answer, Outgoing, Pair, Step, Target, Translate};
use crate::dialect::tell::{self, Teller};
use crate::dialect::usage::Meter;
use crate::dialect::{Asked, Dialect, Error, Facts, Failure, Finish, Operation, talk};

/// A caller of `from` over a model of `to`.
struct Between {
    from: Dialect,
    to: Dialect,
}

const fn between(from: Dialect, to: Dialect) -> Between {
    Between { from, to }
}

/// All of them. Nobody asks in Bedrock's dialect, and no server in that of interactions.
static ALL: [Between; 22] = [
    between(Dialect::Chat, Dialect::Gemini),
    between(Dialect::Chat, Dialect::Ollama),
    between(Dialect::Chat, Dialect::Bedrock),
    between(Dialect::Responses, Dialect::Gemini),
    between(Dialect::Responses, Dialect::Ollama),
    between(Dialect::Responses, Dialect::Bedrock),
    between(Dialect::Anthropic, Dialect::Gemini),
    between(Dialect::Anthropic, Dialect::Ollama),
    between(Dialect::Anthropic, Dialect::Bedrock),
    between(Dialect::Gemini, Dialect::Chat),
    between(Dialect::Gemini, Dialect::Anthropic),
    between(Dialect::Gemini, Dialect::Ollama),
    between(Dialect::Gemini, Dialect::Bedrock),
    between(Dialect::Interactions, Dialect::Chat),
    between(Dialect::Interactions, Dialect::Anthropic),
    between(Dialect::Interactions, Dialect::Gemini),
    between(Dialect::Interactions, Dialect::Ollama),
    between(Dialect::Interactions, Dialect::Bedrock),
    between(Dialect::Ollama, Dialect::Chat),
    between(Dialect::Ollama, Dialect::Anthropic),
    between(Dialect::Ollama, Dialect::Gemini),
    between(Dialect::Ollama, Dialect::Bedrock),
];

/// The pair, if it is one of these. Ollama's `generate` becomes a turn of a conversation for all others.
pub(super) fn of(operation: Operation, from: Dialect, to: Dialect) -> Option<&'static dyn Pair> {
    let talks = operation == Operation::Chat || (operation == Operation::Completions && from == Dialect::Ollama);
    let pair = ALL.iter().find(|pair| pair.from == from && pair.to == to)?;
    talks.then_some(pair as &'static dyn Pair)
}

/// What a model of `to` is asked for when a caller of `from` wants `operation`: only Ollama's `generate` becomes another
/// operation, a turn of a conversation, wherever the model does not speak Ollama.
pub fn operation_there(operation: Operation, from: Dialect, to: Dialect) -> Operation {
    match (operation, from) {
        (Operation::Completions, Dialect::Ollama) if to != Dialect::Ollama => Operation::Chat,
        _ => operation,
    }
}

impl Pair for Between {
    fn request(&self, body: &[u8], facts: &Facts<'_>, to: &Target<'_>) -> Result<Outgoing, Error> {
        talk::request(body, facts, to)
    }

    fn answer(&self, body: &Bytes, asked: &Asked) -> Result<Answer, Error> {
        let mut listener = listener(self.to, asked);
        let mut teller = tell::whole(asked, self.to);
        let mut meter = Meter::new(asked.input_tokens_estimated);
        let mut out = Vec::with_capacity(body.len() + 256);
        listener.whole(body, &mut Told { teller: &mut *teller, out: &mut out, meter: &mut meter })?;
        Ok(Answer { body: out.into(), usage: meter.usage(), finish: listener.finish() })
    }

    fn stream(&self, asked: &Asked) -> Box<dyn Translate> {
        Box::new(Passing { listener: listener(self.to, asked), teller: tell::stream(asked, self.to) })
    }
}

/// A stream on its way.
struct Passing {
    listener: Box<dyn Listener>,
    teller: Box<dyn Teller>,
}

impl Translate for Passing {
    fn frame(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>, meter: &mut Meter) -> Result<Step, Error> {
        self.listener.frame(frame, &mut Told { teller: &mut *self.teller, out, meter })
    }

    fn close(&mut self, out: &mut Vec<u8>, meter: &mut Meter) -> bool {
        // Gemini never says that it is done: it closes the stream behind the reason.
        let Some(finish) = self.listener.finish() else { return false };
        Told { teller: &mut *self.teller, out, meter }.end(finish).is_ok()
    }

    fn fail(&mut self, failure: &Failure, out: &mut Vec<u8>) {
        self.teller.fail(out, failure);
    }

    fn finish(&self) -> Option<Finish> {
        self.listener.finish()
    }
}

#[cfg(test)]
mod tests;
