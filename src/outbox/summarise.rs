//! Many rows in one: what `summarise` leaves of the oldest rows of a stream.

use super::stream::StreamKey;

/// Turns bodies into a summary's body. The queue never looks into either.
pub trait Summarise: Send + Sync {
    /// False if the far side gets a summary of this stream's rows anyway, so that they may just go.
    fn is_wanted(&self, stream: &StreamKey) -> bool;
    /// One body for consecutive rows of `stream`, in order: at most 1000 rows, and of 256 KiB or one row. `None` if there
    /// is nothing to be said about them.
    fn summarise(&self, stream: &StreamKey, bodies: &[Vec<u8>]) -> Option<Vec<u8>>;
}
