//! A decoder that the engine loaded, as the room of language models asks it.

use std::sync::Arc;

use crate::engine;
use crate::generate::{Decoder, Error, Sequence};

/// The decoder of a loaded model; None if it is no decoder of texts.
pub fn decoder(model: &engine::Handle) -> Option<Arc<dyn Decoder>> {
    Some(Arc::new(Loaded(model.sequences()?)))
}

struct Loaded(engine::Sequences);

struct Read(engine::Sequence);

/// What passes is told apart from what does not.
fn told(error: &engine::Error, tokens: usize) -> Error {
    match error {
        engine::Error::NoRoom { .. } => Error::NoRoom { tokens, why: error.to_string() },
        _ => Error::Scores(error.to_string()),
    }
}

impl Decoder for Loaded {
    fn vocabulary(&self) -> usize {
        self.0.vocabulary()
    }

    fn context_tokens(&self) -> usize {
        self.0.context_tokens()
    }

    fn token_bytes(&self) -> u64 {
        self.0.token_bytes()
    }

    fn open(&self, tokens_max: usize) -> Result<Box<dyn Sequence>, Error> {
        let sequence = self.0.open(tokens_max).map_err(|error| told(&error, tokens_max))?;
        Ok(Box::new(Read(sequence)))
    }
}

impl Sequence for Read {
    fn tokens(&self) -> usize {
        self.0.tokens()
    }

    fn tokens_max(&self) -> usize {
        self.0.tokens_max()
    }

    fn read(&mut self, tokens: &[u32]) -> Result<Vec<f32>, Error> {
        self.0.read(tokens).map_err(|error| told(&error, tokens.len()))
    }

    fn truncate(&mut self, tokens: usize) {
        self.0.truncate(tokens);
    }

    fn grow(&mut self, tokens_max: usize) -> Result<(), Error> {
        self.0.grow(tokens_max).map_err(|error| told(&error, tokens_max))
    }

    fn fork(&self, tokens: usize, tokens_max: usize) -> Result<Box<dyn Sequence>, Error> {
        let fork = self.0.fork(tokens, tokens_max).map_err(|error| told(&error, tokens_max))?;
        Ok(Box::new(Self(fork)))
    }
}
