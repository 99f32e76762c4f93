//! What the pieces of an answer told so far, beside their text.

use std::borrow::Cow;

use super::Piece;
use crate::dialect::json::{self, Members};
use crate::dialect::{Asked, Dialect, Error, Failure, Finish, Usage};

/// Kept from piece to piece.
#[derive(Debug, Default)]
pub(crate) struct Told {
    has_begun: bool,
    tells_reason: bool,
    finish: Option<Finish>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
}

/// What an event of a stream, or a whole answer, says.
#[derive(Debug)]
pub(crate) enum Heard<'a> {
    /// More of the text.
    Text {
        /// Between its quotes.
        text: &'a str,
        /// The model's name.
        model: Option<Cow<'a, str>>,
        /// Nothing comes behind it.
        is_last: bool,
    },
    /// The server broke off.
    Failed(Failure),
}

impl Told {
    /// Reads one; `what` it is, for the error.
    pub(crate) fn hear<'a>(&mut self, data: &'a [u8], asked: &Asked, what: &'static str) -> Result<Heard<'a>, Error> {
        let malformed = || Error::Malformed { dialect: Dialect::Oip, what };
        let members = Members::parse(data).map_err(|_| malformed())?;
        if members.get("error").is_some() {
            return Ok(Heard::Failed(Failure::read(Dialect::Oip, 200, data)));
        }
        let piece = Piece::read(&members, asked.oip_output.as_deref()).ok_or_else(malformed)?;
        self.has_begun = true;
        self.tells_reason |= piece.tells_reason;
        self.finish = piece.finish.or(self.finish);
        self.input_tokens = piece.input_tokens.or(self.input_tokens);
        if let Some(more) = piece.output_tokens {
            self.output_tokens = Some(self.output_tokens.unwrap_or(0).saturating_add(more));
        }
        let is_last = piece.done || piece.finish.is_some();
        Ok(Heard::Text { text: piece.text, model: members.text("model_name"), is_last })
    }

    /// Whether a stream that was closed now is whole: Triton says nothing at the end of one, but a server that tells
    /// reasons has to tell one.
    pub(crate) fn is_whole(&self) -> bool {
        self.has_begun && !self.tells_reason
    }

    /// The tokens that the server counted.
    pub(crate) fn usage(&self) -> Usage {
        let (input_tokens, output_tokens) = (self.input_tokens, self.output_tokens);
        Usage { input_tokens, output_tokens, ..Usage::default() }
    }

    /// Why it stopped; if nobody said so, the count of tokens may.
    pub(crate) fn end(&self, asked: &Asked) -> Finish {
        let limit = || {
            let request = Members::parse(&asked.request).ok()?;
            request.get("max_completion_tokens").or_else(|| request.get("max_tokens")).and_then(json::whole)
        };
        match (self.finish, self.output_tokens) {
            (Some(finish), _) => finish,
            (None, Some(tokens)) if limit().is_some_and(|most| tokens >= most) => Finish::Length,
            _ => Finish::Other,
        }
    }
}
