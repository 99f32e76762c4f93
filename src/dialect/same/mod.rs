//! A caller and a model of the same dialect: bytes pass through.
//!
//! In a request the model's name changes and, in OpenAI's streams, the usage is asked for; in an answer the model's name,
//! if the caller shall see another one, and the usage is taken out again for a caller who did not ask for it. What strict
//! clients of OpenAI's chats require and a server leaves out is added.

mod anthropic;
mod body;
mod chat;
mod lean;
mod listened;
mod responses;

pub(crate) use body::{answer, request};

use bytes::Bytes;

use super::pair::{Pair, Translate};
use super::{Answer, Asked, Dialect, Error, Facts, Outgoing, Target};

struct Same(Dialect);

/// The pair of a dialect with itself.
pub(crate) fn of(dialect: Dialect) -> &'static dyn Pair {
    match dialect {
        Dialect::Chat => &Same(Dialect::Chat),
        Dialect::Responses => &Same(Dialect::Responses),
        Dialect::Anthropic => &Same(Dialect::Anthropic),
        Dialect::Gemini => &Same(Dialect::Gemini),
        Dialect::Ollama => &Same(Dialect::Ollama),
        Dialect::Bedrock => &Same(Dialect::Bedrock),
        // Nobody asks in the one, and no server in the other, so nothing passes.
        Dialect::Oip => &Same(Dialect::Oip),
        Dialect::Interactions => &Same(Dialect::Interactions),
    }
}

impl Pair for Same {
    fn request(&self, body: &[u8], facts: &Facts<'_>, to: &Target<'_>) -> Result<Outgoing, Error> {
        Ok(Outgoing { body: request(&Bytes::copy_from_slice(body), facts, to)?, left_out: Vec::new() })
    }

    fn answer(&self, body: &Bytes, asked: &Asked) -> Result<Answer, Error> {
        match self.0 {
            Dialect::Gemini | Dialect::Interactions | Dialect::Ollama | Dialect::Bedrock | Dialect::Oip => {
                listened::answer(self.0, body, asked)
            }
            dialect => answer(dialect, body, asked),
        }
    }

    fn stream(&self, asked: &Asked) -> Box<dyn Translate> {
        match self.0 {
            Dialect::Chat => Box::new(chat::Pass::new(asked)),
            Dialect::Responses => Box::new(responses::Pass::new(asked)),
            Dialect::Anthropic => Box::new(anthropic::Pass::new(asked)),
            dialect @ (Dialect::Gemini | Dialect::Interactions | Dialect::Ollama | Dialect::Bedrock | Dialect::Oip) => {
                Box::new(listened::Pass::new(dialect, asked))
            }
        }
    }
}
