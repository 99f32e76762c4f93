//! Whether the write-ahead log has rotted: SQLite reads it up to the first frame whose checksum fails and says nothing.
//!
//! After a power cut that is right: a commit that was not synced may be torn, and it is the last one. After a flipped bit it
//! silently takes back commits that were acknowledged, and the marks of reserved numbers with them, so numbers would be
//! issued twice. The two are told apart by what follows the bad frame: of this run through the log at most one commit
//! is not on the disk, so a second commit behind the first bad frame was acknowledged.
//!
//! A log that starts over gets a new header before anything else, and a cut in that moment can leave anything there: the log is
//! then judged by `headless.rs`.
//!
//! Format: <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>. Reads the log once; its length is bounded.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::ops::Range;
use std::path::Path;

use super::headless;

pub(super) const HEADER_BYTES: usize = 32;
pub(super) const FRAME_HEADER_BYTES: usize = 24;
const MAGIC: u32 = 0x377f_0682;
/// How much of a log is read at a time.
const READ_BYTES: usize = 64 << 10;
/// What a disk writes whole.
const SECTOR_BYTES: usize = 512;
/// Commits behind the first bad frame that a power cut cannot explain.
pub(super) const MOST_TORN: u32 = 1;

/// True if the log beside the database holds commits that were on the disk once and cannot be read any more. The last
/// commit is not among those that can be told apart from a torn one.
pub(super) fn is_rotten(log: &Path, database: &Path) -> io::Result<bool> {
    let file = match File::open(log) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    let bytes = file.metadata()?.len();
    if bytes <= HEADER_BYTES as u64 {
        return Ok(false);
    }
    match look(BufReader::with_capacity(READ_BYTES, &file))? {
        Look::Whole(_) => Ok(false),
        Look::Rotten => Ok(true),
        Look::NoHeader => headless::holds_more(&file, database),
    }
}

/// Where the last commit lies in the log, if it has one that can be read.
pub(super) fn last_commit(log: &File) -> io::Result<Option<Range<u64>>> {
    Ok(match look(BufReader::with_capacity(READ_BYTES, log))? {
        Look::Whole(last) => last,
        Look::Rotten | Look::NoHeader => None,
    })
}

/// What is in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Look {
    /// Commits, the last of them at this place.
    Whole(Option<Range<u64>>),
    Rotten,
    NoHeader,
}

fn look(mut log: impl Read) -> io::Result<Look> {
    let mut header = [0; HEADER_BYTES];
    log.read_exact(&mut header)?;
    // The lowest bit says in which order checksums read their words; everything else is big-endian.
    let magic = word(&header, 0);
    let big = magic & 1 == 1;
    let mut sum = checksum((0, 0), &header[..24], big);
    let page_bytes = word(&header, 8) as usize;
    let is_header_good = magic & !1 == MAGIC && sum == (word(&header, 24), word(&header, 28));
    if !is_header_good || !(512..=65536).contains(&page_bytes) || !page_bytes.is_power_of_two() {
        // A log that was begun and never got its header holds zeros.
        return Ok(if header.iter().any(|byte| *byte != 0) { Look::NoHeader } else { Look::Whole(None) });
    }
    let salt = (word(&header, 16), word(&header, 20));
    let mut frame = vec![0; FRAME_HEADER_BYTES + page_bytes];
    let (mut is_intact, mut commits_behind) = (true, 0);
    let (mut at, mut before) = (HEADER_BYTES, sum);
    let (mut last, mut begins) = (None, HEADER_BYTES as u64);
    while read_whole(&mut log, &mut frame)? {
        let is_of_this_run = (word(&frame, 8), word(&frame, 12)) == salt;
        if is_intact {
            let head = checksum(sum, &frame[..8], big);
            sum = checksum(head, &frame[FRAME_HEADER_BYTES..], big);
            is_intact = is_of_this_run && sum == (word(&frame, 16), word(&frame, 20));
        }
        commits_behind += u32::from(!is_intact && is_of_this_run && is_commit(&frame, at, before, big));
        before = (word(&frame, 16), word(&frame, 20));
        at += frame.len();
        if is_intact && word(&frame, 4) != 0 {
            last = Some(begins..at as u64);
            begins = at as u64;
        }
    }
    Ok(if commits_behind > MOST_TORN { Look::Rotten } else { Look::Whole(last) })
}

/// True if the frame at this place of the log ends a commit. Where its length and its salt lie in two sectors a power cut may
/// have left the one of an earlier run and the other of this: such a frame counts if its checksum follows from that of the
/// frame before.
pub(super) fn is_commit(frame: &[u8], at: usize, before: (u32, u32), big: bool) -> bool {
    let is_shared = at % SECTOR_BYTES + 16 > SECTOR_BYTES;
    let follows = || {
        let sum = checksum(checksum(before, &frame[..8], big), &frame[FRAME_HEADER_BYTES..], big);
        sum == (word(frame, 16), word(frame, 20))
    };
    word(frame, 4) != 0 && (!is_shared || follows())
}

/// Fills `frame`; false at the end, where a part of a frame does not count.
fn read_whole(log: &mut impl Read, frame: &mut [u8]) -> io::Result<bool> {
    match log.read_exact(frame) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The log's running checksum over pairs of words.
pub(super) fn checksum((mut first, mut second): (u32, u32), bytes: &[u8], big: bool) -> (u32, u32) {
    let (pairs, _) = bytes.as_chunks::<8>();
    for [a, b, c, d, e, f, g, h] in pairs {
        let (x, y) = ([*a, *b, *c, *d], [*e, *f, *g, *h]);
        let (x, y) = if big {
            (u32::from_be_bytes(x), u32::from_be_bytes(y))
        } else {
            (u32::from_le_bytes(x), u32::from_le_bytes(y))
        };
        first = first.wrapping_add(x).wrapping_add(second);
        second = second.wrapping_add(y).wrapping_add(first);
    }
    (first, second)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests spoil files on purpose")]
mod tests {
    use super::*;
    use crate::base::ManualClock;
    use crate::store::{Config, Schema, Store, Tx};
    use std::sync::Arc;

    const SCHEMA: Schema =
        Schema { room: "test", steps: &["CREATE TABLE item (no INTEGER PRIMARY KEY, body BLOB)"], read_at_start: &[] };

    /// The log of a store with `commits` commits, as a kill leaves it, without the room behind the last one.
    fn log_of(commits: usize) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let (store, _) = Store::open(&Config::at(folder.path()), &[SCHEMA], clock).unwrap();
        for _ in 0..commits {
            let insert = |tx: &Tx<'_>| tx.execute("INSERT INTO item (body) VALUES (zeroblob(300))", []);
            store.writer().commit_blocking(insert).unwrap();
        }
        let mut log = std::fs::read(folder.path().join("forebay.db-wal")).unwrap();
        let frames = log[HEADER_BYTES..].chunks_exact(FRAME).take_while(|frame| word(frame, 8) != 0).count();
        log.truncate(HEADER_BYTES + frames * FRAME);
        log
    }

    const FRAME: usize = FRAME_HEADER_BYTES + 4096;

    #[test]
    fn a_log_cut_anywhere_is_not_rotten() {
        let log = log_of(6);
        assert!(log.len() > HEADER_BYTES + 6 * FRAME);
        for length in (HEADER_BYTES + 1..=log.len()).step_by(501) {
            assert!(matches!(look(&log[..length]).unwrap(), Look::Whole(_)), "cut at {length}");
        }
        assert_eq!(look(&[0; 8192][..]).unwrap(), Look::Whole(None), "begun and never written");
    }

    #[test]
    fn a_torn_last_commit_is_not_rot_and_a_flipped_bit_before_it_is() {
        let log = log_of(6);
        let frames = (log.len() - HEADER_BYTES) / FRAME;
        for frame in 0..frames {
            // Number of the page, length, first salt, checksum, content.
            for at in [0, 4, 9, 17, 24, 2000] {
                let mut spoiled = log.clone();
                spoiled[HEADER_BYTES + frame * FRAME + at] ^= 4;
                let rotten = look(&spoiled[..]).unwrap() == Look::Rotten;
                // A commit frame whose own length or salt was hit does not count itself.
                assert!(rotten || frame + 4 > frames, "frame {frame} of {frames}, byte {at}");
                assert!(!rotten || frame + 1 < frames, "frame {frame} of {frames}, byte {at}: it may be torn");
            }
        }
        for at in 0..HEADER_BYTES {
            let mut spoiled = log.clone();
            spoiled[at] ^= 1;
            assert_eq!(look(&spoiled[..]).unwrap(), Look::NoHeader, "byte {at} of the header");
        }
    }

    /// The log and the database of a store with commits, all of them copied into the database or none.
    fn files_of(commits: usize, copied: bool) -> (tempfile::TempDir, std::path::PathBuf, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::at(folder.path());
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let (store, _) = Store::open(&config, &[SCHEMA], clock).unwrap();
        for _ in 0..commits {
            let insert = |tx: &Tx<'_>| tx.execute("INSERT INTO item (body) VALUES (zeroblob(300))", []);
            store.writer().commit_blocking(insert).unwrap();
        }
        if copied {
            let other = rusqlite::Connection::open(config.database()).unwrap();
            other.query_row("PRAGMA wal_checkpoint(FULL)", [], |_| Ok(())).unwrap();
        }
        // As a kill leaves them.
        let beside = tempfile::tempdir().unwrap();
        let (database, log) = (beside.path().join("forebay.db"), beside.path().join("forebay.db-wal"));
        std::fs::copy(config.database(), &database).unwrap();
        std::fs::copy(config.log(), &log).unwrap();
        (beside, log, database)
    }

    #[test]
    fn a_new_header_that_a_cut_spoiled_is_not_rot_and_a_spoiled_header_before_commits_is() {
        for copied in [true, false] {
            let (_folder, log, database) = files_of(6, copied);
            assert!(!is_rotten(&log, &database).unwrap());
            let whole = std::fs::read(&log).unwrap();
            let rubbish: Vec<u8> = (0..32).map(|n: u8| n.wrapping_mul(37) ^ 11).collect();
            let headers = [rubbish, whole[..HEADER_BYTES].iter().map(|byte| byte ^ 1).collect()];
            for header in headers {
                let spoiled = [&header, &whole[HEADER_BYTES..]].concat();
                std::fs::write(&log, &spoiled).unwrap();
                assert_eq!(is_rotten(&log, &database).unwrap(), !copied, "copied: {copied}");
            }
        }
        let (_folder, log, database) = files_of(1, true);
        std::fs::write(&log, [7; 32].into_iter().chain([0; 8240]).collect::<Vec<u8>>()).unwrap();
        assert!(!is_rotten(&log, &database).unwrap(), "nothing follows it");
        let rubbish: Vec<u8> = (0..262_144_u32).map(|n| (n.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
        std::fs::write(&log, rubbish).unwrap();
        assert!(!is_rotten(&log, &database).unwrap(), "the zeros of its room were on their way");
        let (_folder, log, database) = files_of(6, false);
        let mut spoiled = std::fs::read(&log).unwrap();
        spoiled[3] ^= 1;
        std::fs::write(&log, spoiled).unwrap();
        std::fs::remove_file(&database).unwrap();
        assert!(is_rotten(&log, &database).unwrap(), "nothing of it is in a database");
    }

    #[test]
    fn a_torn_commit_over_an_earlier_run_is_not_rot_wherever_sectors_mix() {
        let log = log_of(40);
        let frames = (log.len() - HEADER_BYTES) / FRAME;
        assert!(frames > 50, "{frames}: a header that two sectors share is among them");
        // Everything behind the 30th frame is one commit that was on its way, over commits of an earlier run.
        let mut old = log.clone();
        for frame in old[HEADER_BYTES..].chunks_exact_mut(FRAME) {
            frame[4..8].copy_from_slice(&9_u32.to_be_bytes());
            frame[8..16].fill(0x11);
        }
        let mut new = log.clone();
        for (number, frame) in new[HEADER_BYTES..].chunks_exact_mut(FRAME).enumerate().skip(30) {
            let is_last = number + 1 == frames;
            frame[4..8].copy_from_slice(&u32::from(is_last).to_be_bytes());
        }
        let from = HEADER_BYTES + 30 * FRAME;
        for seed in 0_usize..500 {
            let mut torn = new.clone();
            for sector in from / SECTOR_BYTES + 1..torn.len() / SECTOR_BYTES {
                if (sector.wrapping_mul(0x9e37_79b9) ^ seed.wrapping_mul(0x85eb_ca6b)).count_ones() % 2 == 0 {
                    let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
                    torn[range.clone()].copy_from_slice(&old[range]);
                }
            }
            assert!(matches!(look(&torn[..]).unwrap(), Look::Whole(_)), "mixture {seed}");
        }
    }

    #[test]
    fn frames_of_an_earlier_run_through_the_log_do_not_count() {
        let log = log_of(6);
        let mut frames = log.clone();
        for at in (HEADER_BYTES..frames.len()).step_by(FRAME).skip(2) {
            frames[at + 8..at + 16].fill(0x11);
        }
        assert!(matches!(look(&frames[..]).unwrap(), Look::Whole(_)));
    }

    #[test]
    fn the_last_commit_lies_between_the_end_of_the_one_before_and_its_own() {
        let log = log_of(6);
        let ends: Vec<usize> = (HEADER_BYTES..log.len())
            .step_by(FRAME)
            .filter(|at| word(&log, at + 4) != 0)
            .map(|at| at + FRAME)
            .collect();
        assert_eq!(*ends.last().unwrap(), log.len());
        let last = |length: usize| match look(&log[..length]).unwrap() {
            Look::Whole(last) => last,
            other => panic!("{other:?}"),
        };
        for length in (HEADER_BYTES + 1..=log.len()).step_by(501) {
            let whole = ends.iter().filter(|end| **end <= length).count();
            let begins = if whole > 1 { ends[whole - 2] } else { HEADER_BYTES };
            let expected = (whole > 0).then(|| begins as u64..ends[whole - 1] as u64);
            assert_eq!(last(length), expected, "cut at {length}");
        }
    }
}
