//! A write-ahead log whose header is gone: has the database what it held?
//!
//! When a log starts over, everything in it has been copied and synced, and its new header is the first thing that is
//! written. A power cut in that moment loses nothing, and may leave anything where the header was, and where a fresh log's
//! room was made ready. A header that rotted
//! later looks the same, and there the commits behind it are lost to SQLite. So the log's pages are held against the
//! database's: what is the same in both cannot be lost.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::config::PAGE_BYTES;
use super::log::{self, FRAME_HEADER_BYTES, HEADER_BYTES, MOST_TORN, checksum, word};

/// In which order checksums read their words the header said. SQLite writes with the machine's own.
const BIG: bool = cfg!(target_endian = "big");

/// True if the log has commits that are not in the database.
pub(super) fn holds_more(file: &File, database: &Path) -> io::Result<bool> {
    let database = match File::open(database) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        other => Some(other?),
    };
    let page_bytes = database.as_ref().map_or(PAGE_BYTES as usize, page_bytes);
    if page_bytes < 512 || !page_bytes.is_power_of_two() {
        return Ok(true);
    }
    let run = Run::read(file, page_bytes);
    if run.commits_behind > MOST_TORN {
        return Ok(true);
    }
    let Some(database) = database else { return Ok(!run.committed.is_empty()) };
    let (mut logged, mut page) = (vec![0; page_bytes], vec![0; page_bytes]);
    for (number, frame) in run.committed {
        file.read_exact_at(&mut logged, place(frame, page_bytes) + FRAME_HEADER_BYTES as u64)?;
        let offset = u64::from(number).saturating_sub(1) * page_bytes as u64;
        if database.read_exact_at(&mut page, offset).is_err() || page != logged {
            return Ok(true);
        }
    }
    Ok(false)
}

/// As the database's own header says; of one that is not begun yet, as this program makes it.
fn page_bytes(database: &File) -> usize {
    let mut head = [0; 18];
    if database.read_exact_at(&mut head, 0).is_err() {
        return PAGE_BYTES as usize;
    }
    match u16::from_be_bytes([head[16], head[17]]) {
        1 => 65536,
        size => usize::from(size),
    }
}

fn place(frame: u64, page_bytes: usize) -> u64 {
    HEADER_BYTES as u64 + frame * (FRAME_HEADER_BYTES + page_bytes) as u64
}

/// The newest run through the log: frames with the first one's salt, each with the checksum that follows from the one before.
#[derive(Default)]
struct Run {
    /// Pages and the last frame that committed each.
    committed: HashMap<u32, u64>,
    /// Commits behind the first frame whose checksum is wrong.
    commits_behind: u32,
}

impl Run {
    fn read(file: &File, page_bytes: usize) -> Self {
        let mut run = Self::default();
        let mut frame = vec![0; FRAME_HEADER_BYTES + page_bytes];
        let mut pages = HashMap::new();
        let mut salt = None;
        let mut sum = None;
        let mut is_one = false;
        for at in 0.. {
            if file.read_exact_at(&mut frame, place(at, page_bytes)).is_err() {
                break;
            }
            let (own, says) = ((word(&frame, 8), word(&frame, 12)), (word(&frame, 16), word(&frame, 20)));
            let is_commit = word(&frame, 4) != 0;
            let is_good = match salt {
                // Zeros: the log has room, and nothing in it.
                None if own == (0, 0) => break,
                // What its checksum follows from is gone with the header.
                None => true,
                Some(salt) if salt != own => break,
                Some(_) => sum.is_some_and(|sum| {
                    says == checksum(checksum(sum, &frame[..8], BIG), &frame[FRAME_HEADER_BYTES..], BIG)
                }),
            };
            is_one |= is_good && salt.is_some();
            salt = Some(own);
            sum = is_good.then_some(says);
            if is_good {
                pages.insert(word(&frame, 0), at);
            }
            match (is_good, is_commit) {
                (true, true) => run.committed.extend(pages.drain()),
                (false, true) => {
                    run.commits_behind +=
                        u32::from(log::is_commit(&frame, usize::try_from(place(at, page_bytes)).unwrap_or(0)))
                }
                (_, false) => {}
            }
        }
        // One frame that nothing bears out: rubbish, or a single commit, which may be torn like any last one.
        if !is_one {
            run.committed.clear();
        }
        run
    }
}
