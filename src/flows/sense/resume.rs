//! Where streams stand, from the disk: at a start, and after a commit that failed.

use super::saved::Saved;
use super::stream::{SAVE_EVERY, Stream};
use crate::history::{self, Reading, Since, StreamNo};
use crate::store::{Error, Reader};

/// Streams that are read back together. All that they need is in memory at once, and each such group reads the tables of
/// arrived readings from end to end.
const TOGETHER: usize = 64;

/// What the disk has of a stream.
pub(super) struct Left {
    pub(super) saved: Option<Vec<u8>>,
    /// The open summary's first number, and when it began by the box's clock, ms since 1970.
    pub(super) first: u64,
    pub(super) opened_ms: i64,
    /// From there on, and as many before the memory as the windows hold.
    pub(super) readings: Vec<Reading>,
}

/// Lets each stream take up where the disk says that it stands.
pub(super) async fn read_back(reader: &Reader, streams: &mut [Stream]) -> Result<(), Error> {
    for group in streams.chunks_mut(TOGETHER) {
        let wanted: Vec<(StreamNo, usize)> = group.iter().map(Stream::reads_back).collect();
        let left = reader.read(move |conn| left(conn, &wanted)).await?;
        for (stream, left) in group.iter_mut().zip(left) {
            stream.go_on(left);
        }
    }
    Ok(())
}

fn left(conn: &rusqlite::Connection, wanted: &[(StreamNo, usize)]) -> Result<Vec<Left>, Error> {
    let (mut streams, mut since) = (Vec::with_capacity(wanted.len()), Vec::with_capacity(wanted.len()));
    for &(stream, capacity) in wanted {
        let saved = history::memory(conn, stream)?;
        let (first, opened_ms) = history::open_window(conn, stream)?;
        since.push(match saved.as_deref().map_or(0, Saved::seq) {
            // Without a memory the newest readings fill the windows.
            0 => Since { stream, first, before: u64::MAX, count: capacity + SAVE_EVERY },
            seq => Since { stream, first: first.min(seq + 1), before: seq + 1, count: capacity },
        });
        streams.push(Left { saved, first, opened_ms, readings: Vec::new() });
    }
    for (stream, readings) in streams.iter_mut().zip(history::since(conn, &since)?) {
        stream.readings = readings;
    }
    Ok(streams)
}
