//! The database's log as a file: <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>.

use std::path::Path;

/// Bytes before the first frame.
pub(crate) const HEADER: usize = 32;
/// A frame's head and its page.
pub(crate) const FRAME: usize = 24 + 4096;

/// The log's frames with its header, without the zeros that are kept ready behind them.
pub(crate) fn used(log: &Path) -> Vec<u8> {
    let mut log = std::fs::read(log).unwrap();
    let frames = log[HEADER..].chunks_exact(FRAME).take_while(|frame| frame[..4] != [0; 4]).count();
    log.truncate(HEADER + frames * FRAME);
    log
}
