//! Many rows in one: what `summarise` leaves of the oldest rows of a stream.

use super::stream::StreamKey;
use crate::base::Seq;

/// Turns bodies into a summary's body. This room never looks into either.
pub trait Summarise: Send + Sync {
    /// Begins a summary of consecutive rows of `stream`. `None`: the far side gets a summary of them anyway, so they
    /// may just go.
    fn begin(&self, stream: &StreamKey) -> Option<Box<dyn Summary>>;
}

/// A summary in the making.
pub trait Summary {
    /// Takes one more row, in order. A body that cannot be read is left out.
    fn add(&mut self, seq: Seq, body: &[u8]);
    /// The body of the summary row; `None` if nothing in the rows could be summed up.
    fn finish(self: Box<Self>) -> Option<Vec<u8>>;
}
