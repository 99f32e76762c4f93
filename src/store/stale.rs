//! Wiping what failed commits left behind the log's end.
//!
//! A commit whose sync failed has its frames in the log, behind the last good one, and the next commit is written over them. Where
//! that one is shorter their rest stays, and where several failed, one shorter than the other, the ends of several. A start
//! after a kill would take these for commits that were acknowledged once and cannot be read any more (`log.rs`). So they are
//! wiped before the next commit is tried, and go to the disk with it.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;

use rusqlite::Connection;

use super::config::{Config, PAGE_BYTES};
use super::error::Error;
use super::log::{FRAME_HEADER_BYTES, HEADER_BYTES};

/// Where the salts are in the header of a log and in that of a frame.
const SALTS_OF_LOG: std::ops::Range<usize> = 16..24;
const SALTS_OF_FRAME: std::ops::Range<usize> = 8..16;

/// Wipes the frames of this run through the log that are behind its end. To be called by the one writer, outside of a transaction.
pub(super) fn wipe(connection: &Connection, config: &Config) -> Result<(), Error> {
    // Every connection of this process knows the log's end; one that cannot tell leaves the log as it is.
    let good: i64 = connection.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get(1))?;
    let Ok(good) = u64::try_from(good) else { return Ok(()) };
    let failed = |source| Error::File { step: "wipe failed commits from", path: config.log(), source };
    wipe_behind(good, config).map_err(failed)
}

fn wipe_behind(good: u64, config: &Config) -> io::Result<()> {
    let path = config.log();
    let file = match File::options().read(true).write(true).open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let mut header = [0; HEADER_BYTES];
    if !read(&file, &mut header, 0)? {
        return Ok(());
    }
    let frame_bytes = FRAME_HEADER_BYTES as u64 + PAGE_BYTES;
    let mut at = HEADER_BYTES as u64 + good * frame_bytes;
    let mut frame = [0; FRAME_HEADER_BYTES];
    while read(&file, &mut frame, at)? && frame[SALTS_OF_FRAME] == header[SALTS_OF_LOG] {
        config.disk.write_zeros(&file, &path, at, at + FRAME_HEADER_BYTES as u64)?;
        at += frame_bytes;
    }
    Ok(())
}

/// Fills `to`; false behind the file's end.
fn read(file: &File, to: &mut [u8], at: u64) -> io::Result<bool> {
    match file.read_exact_at(to, at) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
