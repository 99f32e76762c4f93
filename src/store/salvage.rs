//! Reading what is left of a file that was set aside: whole tables where SQLite still finds them, and single records from
//! every page of the file and its log, whatever became of the pages above them.
//!
//! The format is SQLite's own, <https://www.sqlite.org/fileformat2.html>: pages, cells, records, overflow chains, log
//! frames. Nothing read here is trusted: whoever takes a record checks its checksum. The file is never written to.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::config::PAGE_BYTES;
use super::connection::open_wreck;
use super::error::Error;
use super::log;
use super::quarantine;
use crate::base::Epoch;

const PAGE: usize = PAGE_BYTES as usize;
/// Longest record that is put together from an overflow chain.
const MAX_RECORD_BYTES: u64 = 16 << 20;
/// Most columns of a record that is looked at.
const MAX_COLUMNS: usize = 32;
/// Frames of a log that are known by page number; the log's own limit is far below.
const MAX_FRAMES: u64 = 1 << 20;
const LOG_HEADER_BYTES: u64 = 32;
const FRAME_HEADER_BYTES: u64 = 24;

/// A file that was set aside, with its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wreck {
    /// `forebay.db.quarantine-<wall_ms>`.
    pub path: PathBuf,
    /// The epoch of its rows, as it was noted when the file was set aside.
    pub epoch: Option<Epoch>,
}

/// One column of a record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// NULL, and the place of an integer primary key.
    Null,
    /// An integer.
    Int(i64),
    /// A floating point number.
    Real(f64),
    /// A text, not checked to be UTF-8.
    Text(&'a [u8]),
    /// Bytes.
    Blob(&'a [u8]),
}

impl<'a> Value<'a> {
    /// A column of a row that SQLite read.
    pub fn of(value: ValueRef<'a>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(value) => Self::Int(value),
            ValueRef::Real(value) => Self::Real(value),
            ValueRef::Text(bytes) => Self::Text(bytes),
            ValueRef::Blob(bytes) => Self::Blob(bytes),
        }
    }
}

impl Value<'_> {
    /// The integer, if it is one.
    pub fn int(self) -> Option<i64> {
        if let Self::Int(value) = self { Some(value) } else { None }
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        if let Self::Text(bytes) = self { std::str::from_utf8(bytes).ok() } else { None }
    }

    /// The bytes, if they are some.
    pub fn blob(&self) -> Option<&[u8]> {
        if let Self::Blob(bytes) = self { Some(bytes) } else { None }
    }
}

/// One record: the number of its row (0 in a table without one) and its columns as stored, key columns first.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Number of the row.
    pub rowid: i64,
    /// The columns.
    pub values: &'a [Value<'a>],
}

/// What one look at some pages met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Where to go on; None at the end.
    pub next: Option<u64>,
    /// Pages that could not be read from the disk.
    pub unreadable: u64,
}

impl Wreck {
    /// Its name without the folder: what progress is stored under.
    pub fn name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Opens the file for SQLite, read-only, if its header still allows it. Statements may fail at any row.
    pub fn connect(&self) -> Result<Connection, Error> {
        open_wreck(&self.path)
    }

    /// True if SQLite does not show everything that the file's log holds.
    pub fn is_log_rotten(&self) -> bool {
        log::is_rotten(&quarantine::beside(&self.path, "-wal"), &self.path).unwrap_or(true)
    }

    /// Opens the file for reading page by page.
    pub fn pages(&self) -> Result<Pages, Error> {
        Pages::open(&self.path)
    }

    /// The same, without pages that SQLite had given up or replaced: what they hold was deleted or is older than what
    /// another page holds. Without the file's header nobody knows which pages were given up.
    pub fn current_pages(&self) -> Result<Pages, Error> {
        let mut pages = Pages::open(&self.path)?;
        pages.stale = Some(pages.free_pages());
        Ok(pages)
    }

    /// Removes the file with everything beside it. What is gone already is fine.
    pub fn remove(&self) {
        quarantine::remove(&self.path);
    }
}

/// The pages of a file and the frames of its log, in one row: first the file, then the log.
#[derive(Debug)]
pub struct Pages {
    file: File,
    file_pages: u64,
    log: Option<Log>,
    /// Only pages that are in use, and these are not.
    stale: Option<HashSet<u32>>,
}

#[derive(Debug)]
struct Log {
    file: File,
    /// Frames up to the last commit.
    frames: u64,
    /// Only frames with these belong to the log's current life; None if its header is unreadable.
    salts: Option<[u8; 8]>,
    /// Newest frame of a page.
    newest: HashMap<u32, u64>,
}

fn read_at(file: &File, at: u64, into: &mut [u8]) -> bool {
    file.read_exact_at(into, at).is_ok()
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

impl Log {
    fn open(path: &Path) -> Option<Self> {
        let file = File::open(path).ok()?;
        let length = file.metadata().ok()?.len();
        let all = (length.saturating_sub(LOG_HEADER_BYTES) / (FRAME_HEADER_BYTES + PAGE_BYTES)).min(MAX_FRAMES);
        let mut header = [0; LOG_HEADER_BYTES as usize];
        let whole = read_at(&file, 0, &mut header)
            && matches!(be32(&header), 0x377f_0682 | 0x377f_0683)
            && be32(&header[8..]) == PAGE as u32;
        let salts = whole.then(|| header[16..24].try_into().expect("eight bytes"));
        let mut log = Self { file, frames: 0, salts, newest: HashMap::new() };
        let mut open = Vec::new();
        for frame in 0..all {
            let Some((page, commits)) = log.frame_header(frame) else { continue };
            open.push((page, frame));
            // Without its header nobody can say where its life ends: every frame counts.
            if commits || log.salts.is_none() {
                log.frames = frame + 1;
                log.newest.extend(open.drain(..));
            }
        }
        Some(log)
    }

    /// Page number, and whether a transaction ends here; None if the frame is of an earlier life.
    fn frame_header(&self, frame: u64) -> Option<(u32, bool)> {
        let mut header = [0; FRAME_HEADER_BYTES as usize];
        if !read_at(&self.file, Self::frame_at(frame), &mut header) {
            return None;
        }
        let current = self.salts.is_none_or(|salts| header[8..16] == salts);
        current.then(|| (be32(&header), be32(&header[4..]) != 0))
    }

    fn frame_at(frame: u64) -> u64 {
        LOG_HEADER_BYTES + frame * (FRAME_HEADER_BYTES + PAGE_BYTES)
    }

    fn read(&self, frame: u64, into: &mut [u8]) -> bool {
        read_at(&self.file, Self::frame_at(frame) + FRAME_HEADER_BYTES, into)
    }
}

impl Pages {
    fn open(path: &Path) -> Result<Self, Error> {
        let fail = |source| Error::File { step: "read", path: path.to_owned(), source };
        let file = File::open(path).map_err(fail)?;
        let file_pages = file.metadata().map_err(fail)?.len().div_ceil(PAGE_BYTES);
        Ok(Self { file, file_pages, log: Log::open(&quarantine::beside(path, "-wal")), stale: None })
    }

    /// Pages on the list of free ones, as far as it can be read.
    fn free_pages(&self) -> HashSet<u32> {
        let mut free = HashSet::new();
        let mut page = vec![0; PAGE];
        if !self.read_page(1, &mut page) || !page.starts_with(b"SQLite format 3\0") {
            return free;
        }
        let mut trunk = be32(&page[32..]);
        while trunk != 0 && free.insert(trunk) && self.read_page(trunk, &mut page) {
            trunk = be32(&page);
            let leaves = (be32(&page[4..]) as usize).min(PAGE / 4 - 2);
            free.extend((0..leaves).map(|at| be32(&page[8 + 4 * at..])));
        }
        free
    }

    /// True if the page at this place is to be passed over.
    fn is_stale(&self, number: u32, frame: Option<u64>) -> bool {
        let Some(stale) = &self.stale else { return false };
        let newest = self.log.as_ref().and_then(|log| log.newest.get(&number)).copied();
        stale.contains(&number) || newest != frame
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.file_pages + self.log.as_ref().map_or(0, |log| log.frames)
    }

    /// Hands every record of `pages` pages from `from` on to `each`. Memory is bounded by one record.
    pub fn scan(&self, from: u64, pages: u64, each: &mut dyn FnMut(Record<'_>)) -> Scanned {
        let end = self.count().min(from.saturating_add(pages));
        let mut scanned = Scanned { next: (end < self.count()).then_some(end), unreadable: 0 };
        let mut page = vec![0; PAGE];
        for at in from..end {
            match self.read_place(at, &mut page) {
                Some(header_at) => self.records_of(&page, header_at, each),
                None => scanned.unreadable += 1,
            }
        }
        scanned
    }

    /// Reads one place in the row of pages. Returns where the page's header begins.
    fn read_place(&self, at: u64, into: &mut [u8]) -> Option<usize> {
        if at < self.file_pages {
            // The last page of a truncated file: what is missing reads as zeros.
            into.fill(0);
            if self.is_stale(u32::try_from(at + 1).unwrap_or(u32::MAX), None) {
                return Some(0);
            }
            let mut done = 0;
            while done < into.len() {
                match self.file.read_at(&mut into[done..], at * PAGE_BYTES + done as u64) {
                    Ok(0) => break,
                    Ok(read) => done += read,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(_) => return None,
                }
            }
            return Some(if at == 0 { 100 } else { 0 });
        }
        let (log, frame) = (self.log.as_ref()?, at - self.file_pages);
        let header = log.frame_header(frame);
        match header {
            Some((number, _)) if self.is_stale(number, Some(frame)) => {
                into.fill(0);
                Some(0)
            }
            Some((number, _)) if log.read(frame, into) => Some(if number == 1 { 100 } else { 0 }),
            Some(_) => None,
            // An earlier life of the log: copied to the file long ago. Nothing to see.
            None => {
                into.fill(0);
                Some(0)
            }
        }
    }

    fn records_of(&self, page: &[u8], header_at: usize, each: &mut dyn FnMut(Record<'_>)) {
        let (is_table, cells_at) = match page[header_at] {
            0x0a => (false, header_at + 8),
            0x0d => (true, header_at + 8),
            // Inner pages of a table without row numbers hold records too.
            0x02 => (false, header_at + 12),
            _ => return,
        };
        let is_inner = page[header_at] == 0x02;
        let cells = usize::from(u16::from_be_bytes([page[header_at + 3], page[header_at + 4]]));
        for cell in 0..cells.min((PAGE - cells_at) / 2) {
            let pointer = cells_at + 2 * cell;
            let mut at = usize::from(u16::from_be_bytes([page[pointer], page[pointer + 1]]));
            if is_inner {
                at += 4;
            }
            let Some((record, rowid)) = self.payload(page, at, is_table) else { continue };
            let mut values = [Value::Null; MAX_COLUMNS];
            if let Some(columns) = columns(&record, &mut values) {
                each(Record { rowid, values: &values[..columns] });
            }
        }
    }

    /// The record that the cell at `at` holds, overflow included.
    fn payload(&self, page: &[u8], at: usize, is_table: bool) -> Option<(Vec<u8>, i64)> {
        let (size, at) = varint(page, at)?;
        let (rowid, at) = if is_table { varint(page, at)? } else { (0, at) };
        if size == 0 || size > MAX_RECORD_BYTES {
            return None;
        }
        let size = usize::try_from(size).ok()?;
        let most_local = if is_table { PAGE - 35 } else { (PAGE - 12) * 64 / 255 - 23 };
        let least_local = (PAGE - 12) * 32 / 255 - 23;
        let local = if size <= most_local {
            size
        } else {
            let wanted = least_local + (size - least_local) % (PAGE - 4);
            if wanted <= most_local { wanted } else { least_local }
        };
        let mut record = Vec::with_capacity(size.min(1 << 16));
        record.extend_from_slice(page.get(at..at + local)?);
        let mut next = if size > local { be32(page.get(at + local..at + local + 4)?) } else { 0 };
        let mut overflow = vec![0; if size > local { PAGE } else { 0 }];
        // Every turn adds bytes, so a chain that runs in a circle ends too.
        while record.len() < size {
            if next == 0 || !self.read_page(next, &mut overflow) {
                return None;
            }
            next = be32(&overflow);
            let take = (size - record.len()).min(PAGE - 4);
            record.extend_from_slice(&overflow[4..4 + take]);
        }
        Some((record, rowid.cast_signed()))
    }

    /// The newest content of a page by its number.
    fn read_page(&self, number: u32, into: &mut [u8]) -> bool {
        if let Some(log) = &self.log
            && let Some(frame) = log.newest.get(&number)
            && log.read(*frame, into)
        {
            return true;
        }
        number > 0 && read_at(&self.file, u64::from(number - 1) * PAGE_BYTES, into)
    }
}

/// A variable-length integer and where it ends.
fn varint(bytes: &[u8], mut at: usize) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for nth in 0..9 {
        let byte = *bytes.get(at)?;
        at += 1;
        if nth == 8 {
            return Some((value << 8 | u64::from(byte), at));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte < 0x80 {
            break;
        }
    }
    Some((value, at))
}

/// Splits a record into its columns; None if its header contradicts itself.
fn columns<'a>(record: &'a [u8], values: &mut [Value<'a>; MAX_COLUMNS]) -> Option<usize> {
    let (header, mut at) = varint(record, 0)?;
    let header = usize::try_from(header).ok().filter(|header| *header <= record.len())?;
    let mut body = header;
    let mut count = 0;
    while at < header {
        let (kind, next) = varint(record, at)?;
        at = next;
        let width = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind as usize,
            5 => 6,
            6 | 7 => 8,
            10 | 11 => return None,
            kind => usize::try_from((kind - 12) / 2).ok()?,
        };
        let bytes = record.get(body..body.checked_add(width)?)?;
        body += width;
        *values.get_mut(count)? = match kind {
            0 => Value::Null,
            8 => Value::Int(0),
            9 => Value::Int(1),
            1..=6 => {
                let sign = if bytes[0] & 0x80 == 0 { 0_i64 } else { -1 };
                Value::Int(bytes.iter().fold(sign, |value, byte| value << 8 | i64::from(*byte)))
            }
            7 => Value::Real(f64::from_be_bytes(bytes.try_into().ok()?)),
            kind if kind % 2 == 0 => Value::Blob(bytes),
            _ => Value::Text(bytes),
        };
        count += 1;
    }
    (at == header && body == record.len()).then_some(count)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests spoil files on purpose")]
mod tests {
    use super::*;
    use crate::base::ManualClock;
    use crate::store::{Config, Schema, Store, Tx};
    use proptest::prelude::{ProptestConfig, any, proptest};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    const SCHEMA: Schema = Schema {
        room: "test",
        steps: &["CREATE TABLE item (kind INTEGER NOT NULL, no INTEGER NOT NULL, word TEXT, body BLOB, PRIMARY KEY (kind, no)) WITHOUT ROWID;
                  CREATE TABLE numbered (no INTEGER PRIMARY KEY, word TEXT)"],
        read_at_start: &[],
    };

    fn body(no: i64) -> Vec<u8> {
        no.to_le_bytes().repeat(1 + usize::try_from(no % 7).unwrap() * usize::try_from(no % 300).unwrap())
    }

    /// A file with rows in it, half of them in the log only, as a kill leaves it.
    fn filled() -> (Vec<u8>, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::at(folder.path());
        let (store, _) = Store::open(&config, &[SCHEMA], Arc::new(ManualClock::at(1_700_000_000_000))).unwrap();
        let insert = |from: i64| {
            move |tx: &Tx<'_>| {
                for no in from..from + 200 {
                    tx.execute("INSERT INTO item VALUES (-3, ?1, ?2, ?3)", (no, no.to_string(), body(no)))?;
                    tx.execute("INSERT INTO numbered VALUES (?1, ?2)", (no, no.to_string()))?;
                }
                Ok(())
            }
        };
        store.writer().commit_blocking(insert(0)).unwrap();
        store.close();
        let (store, _) = Store::open(&config, &[SCHEMA], Arc::new(ManualClock::at(1_700_000_000_000))).unwrap();
        store.writer().commit_blocking(insert(200)).unwrap();
        let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
        (read("forebay.db"), read("forebay.db-wal"))
    }

    fn carved(database: &[u8], log: &[u8]) -> (BTreeMap<i64, Vec<u8>>, usize) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wreck");
        std::fs::write(&path, database).unwrap();
        std::fs::write(folder.path().join("wreck-wal"), log).unwrap();
        let pages = Wreck { path, epoch: None }.pages().unwrap();
        let (mut found, mut numbered) = (BTreeMap::new(), 0);
        let mut next = Some(0);
        while let Some(from) = next {
            let scanned = pages.scan(from, 7, &mut |record| match record.values {
                [Value::Int(-3), Value::Int(no), Value::Text(word), Value::Blob(bytes)]
                    if *word == no.to_string().as_bytes() =>
                {
                    found.insert(*no, bytes.to_vec());
                }
                [Value::Null, Value::Text(word)] if *word == record.rowid.to_string().as_bytes() => numbered += 1,
                _ => {}
            });
            assert!(scanned.next.is_none_or(|next| next > from), "it goes on");
            next = scanned.next;
        }
        (found, numbered)
    }

    #[test]
    fn every_record_is_found_in_the_file_and_its_log_without_the_header() {
        let (mut database, log) = filled();
        database[..100].fill(0);
        let (found, numbered) = carved(&database, &log);
        assert_eq!(found, (0..400).map(|no| (no, body(no))).collect());
        assert!(numbered >= 400, "{numbered}");
    }

    #[test]
    fn frames_of_a_transaction_that_never_ended_are_not_read() {
        let (database, log) = filled();
        let last_frame = log.len() - 4096 - 24;
        let (found, _) = carved(&database, &log[..last_frame]);
        assert_eq!(found.len(), 200, "the file's rows only");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 100, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn garbage_costs_its_own_page_and_nothing_else(
            wounds in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), 1_usize..4096), 1..12)
        ) {
            let (mut database, log) = filled();
            for (at, byte, width) in wounds {
                let at = at.index(database.len());
                let end = (at + width).min(database.len());
                database[at..end].fill(byte);
            }
            let (found, _) = carved(&database, &log);
            // No checksum here: a row may be wrong, which is its reader's business. The scan ends and finds the log's rows.
            proptest::prop_assert!((200..400).all(|no| found.contains_key(&no)));
        }
    }
}
