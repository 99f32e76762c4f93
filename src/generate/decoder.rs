//! The outside world of this room: something that reads tokens and scores the next one.

use super::error::Error;

/// A model that reads tokens.
pub trait Decoder: Send + Sync {
    /// Scores that it gives: one for each token of its vocabulary.
    fn vocabulary(&self) -> usize;

    /// The most tokens of a sequence.
    fn context_tokens(&self) -> usize;

    /// Bytes that it keeps for each token that it has read.
    fn token_bytes(&self) -> u64;

    /// A sequence of its own with room for `tokens_max` tokens.
    ///
    /// # Errors
    /// [`Error::NoRoom`] if there is no memory for it.
    fn open(&self, tokens_max: usize) -> Result<Box<dyn Sequence>, Error>;
}

/// Tokens that were read, one behind the other, and what the model keeps of them.
///
/// May be asked on another thread each time, by one caller at a time. A read that failed leaves it unusable.
pub trait Sequence: Send {
    /// Tokens that it has.
    fn tokens(&self) -> usize;

    /// Tokens that it has room for.
    fn tokens_max(&self) -> usize;

    /// Reads on, and gives the scores of what comes behind the last of `tokens`, of which there is one at least. Blocks as long as
    /// the model computes.
    fn read(&mut self, tokens: &[u32]) -> Result<Vec<f32>, Error>;

    /// Forgets all tokens but the first `tokens`.
    fn truncate(&mut self, tokens: usize);

    /// Makes room for `tokens_max` tokens in all, if it has less.
    fn grow(&mut self, tokens_max: usize) -> Result<(), Error>;

    /// Another one that has the first `tokens` of this one, and room for `tokens_max`.
    fn fork(&self, tokens: usize, tokens_max: usize) -> Result<Box<dyn Sequence>, Error>;
}
