//! Rows of a file that was set aside, brought into this one under their old epoch.
//!
//! The wreck's pages are read one after the other, whatever became of the tree above them; a row counts if its checksum
//! holds. When all pages were read, each stream gets ledger entries for every number that is neither a row nor
//! acknowledged nor in the old ledger, and only then is it sent: received and declared lost make 1 to the highest
//! there too.
//!
//! - Progress is stored with the rows, so a restart goes on; tries are bounded, and the last one enters what is there.
//! - Nothing is salvaged twice: rows keep their numbers, and a stream of an old epoch exists once.
//! - Memory is bounded by a few pages and their rows. The wreck is read at [`PACE`], and while the file is full the
//!   rest of it waits where it is.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension};

use super::batch::GapReason;
use super::block::{BlockRow, Packed};
use super::error::Error;
use super::ledger;
use super::queue::{Outbox, Stored};
use super::rows::{PUT_ACKED, StreamRow, gap_holds, salvage_holds};
use super::size::stored_bytes;
use super::state::Stream;
use super::wreck::{Book, Entry, OldBoot, OldStream, joined, missing, unnamed_boot};
use crate::store::{self, BOOT_HOLDS, CommitError, INSERT_BOOT, Pages, Tx, Value, Wreck};

/// Pages between two looks at whether there is enough for a commit.
const SCAN_PAGES: u64 = 8;
/// Rows of one commit.
const COMMIT_ROWS: usize = 128;
/// Bytes of one commit.
const COMMIT_BYTES: usize = 256 << 10;
/// Pages before a commit that only remembers how far the scan came.
const REMEMBER_PAGES: u64 = 4096;
/// Pause after so many pages: at most 20 MB a second are read.
const PACE: (u64, Duration) = (256, Duration::from_millis(50));
/// Wait while the file or the disk is full.
const WAIT: Duration = Duration::from_secs(5);
/// Starts of the same wreck after which its pages are left alone and what was found is entered.
const TRIES: i64 = 5;
/// Numbers looked at in one read, ledger entries written in one commit.
const CHUNK: usize = 2048;
/// Ledger entries and acknowledged ranges of one read.
const RANGES: i64 = 1 << 20;

/// What became of a wreck.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// Streams that it was known to hold.
    pub streams: u64,
    /// Rows that are in the queue again, or were already.
    pub rows: u64,
    /// Numbers entered into the ledger as `quarantined`.
    pub lost: u64,
    /// Nothing of it is lost.
    pub is_whole: bool,
}

/// A row as found in a page.
struct Found {
    stored: Stored,
    body: Vec<u8>,
}

/// How far a wreck has come.
#[derive(Debug, Clone, Copy)]
struct Progress {
    next_page: u64,
    tries: i64,
    rows: u64,
    lost: u64,
    done: bool,
}

/// The wreck's streams as this file knows them.
#[derive(Default)]
struct Places {
    /// Old number of a stream: its index in memory, its new number, the old book's entry.
    streams: HashMap<i64, (usize, i64, OldStream)>,
    /// Old number of a boot to the new one.
    boots: HashMap<i64, i64>,
}

impl Outbox {
    /// Salvages one file that was set aside; `Ok` also if that was done before. Dropping the future stops it where it is, and a later call goes on.
    pub async fn salvage(&self, wreck: &Wreck) -> Result<Salvaged, Error> {
        let progress = self.begin(wreck).await?;
        if progress.done {
            let (rows, lost) = (progress.rows, progress.lost);
            // Whether rows of unknown streams were met is not remembered: the file stays.
            return Ok(Salvaged { streams: 0, rows, lost, is_whole: false });
        }
        let book = {
            let (wreck, own) = (wreck.clone(), self.epoch);
            blocking(move || Book::read(&wreck, own)).await??
        };
        let places = Arc::new(self.settle_places(wreck, book).await?);
        let (mut rows, mut unknown) = (progress.rows, 0);
        if progress.tries < TRIES {
            self.scan(wreck, &places, progress.next_page, &mut rows, &mut unknown).await?;
        }
        if unknown > 0 {
            let file = wreck.name();
            tracing::error!(file, rows = unknown, "rows of a set aside file belong to no stream that is known");
        }
        let mut salvaged = Salvaged { streams: 0, rows, lost: progress.lost, is_whole: false };
        for (at, no, old) in places.streams.values() {
            salvaged.streams += 1;
            salvaged.lost += self.account(*at, *no, old).await?;
        }
        let (file, lost) = (wreck.name(), salvaged.lost);
        self.patiently(move || {
            let file = file.clone();
            move |tx: &Tx<'_>| {
                let sql = concat!(
                    "UPDATE outbox_salvage SET done = 1, lost = ?2,
                     crc = row_crc('outbox_salvage', file, next_page, tries, rows, ?2, lowest_no, 1) WHERE file = ?1 AND ",
                    salvage_holds!()
                );
                tx.execute(sql, (&file, lost.cast_signed())).map(drop)
            }
        })
        .await?;
        salvaged.is_whole = salvaged.lost == 0 && unknown == 0 && salvaged.streams > 0;
        Ok(salvaged)
    }

    async fn begin(&self, wreck: &Wreck) -> Result<Progress, Error> {
        let file = wreck.name();
        self.patiently(move || {
            let file = file.clone();
            move |tx: &Tx<'_>| {
                // Without a word that can be trusted it begins anew, which brings nothing twice.
                let bad = concat!("DELETE FROM outbox_salvage WHERE file = ?1 AND NOT (", salvage_holds!(), ")");
                tx.execute(bad, [&file])?;
                tx.execute(
                    "INSERT OR IGNORE INTO outbox_salvage
                     VALUES (?1, 0, 0, 0, 0, 0, 0, row_crc('outbox_salvage', ?1, 0, 0, 0, 0, 0, 0))",
                    [&file],
                )?;
                let read = |row: &rusqlite::Row<'_>| {
                    Ok(Progress {
                        next_page: row.get::<_, i64>(0)?.cast_unsigned(),
                        tries: row.get(1)?,
                        rows: row.get::<_, i64>(2)?.cast_unsigned(),
                        lost: row.get::<_, i64>(3)?.cast_unsigned(),
                        done: row.get(4)?,
                    })
                };
                let sql = "SELECT next_page, tries, rows, lost, done FROM outbox_salvage WHERE file = ?1";
                let progress = tx.query_row(sql, [&file], read)?;
                if !progress.done {
                    tx.execute(
                        concat!(
                            "UPDATE outbox_salvage SET tries = tries + 1,
                             crc = row_crc('outbox_salvage', file, next_page, tries + 1, rows, lost, lowest_no, done)
                             WHERE file = ?1 AND ",
                            salvage_holds!()
                        ),
                        [&file],
                    )?;
                }
                Ok(progress)
            }
        })
        .await
    }

    /// Gives the wreck's streams and boots their places in this file. They are not sent yet.
    async fn settle_places(&self, wreck: &Wreck, book: Book) -> Result<Places, Error> {
        let (file, book) = (wreck.name(), Arc::new(book));
        let (numbers, boots) = {
            let book = Arc::clone(&book);
            self.patiently(move || {
                let (file, book) = (file.clone(), Arc::clone(&book));
                move |tx: &Tx<'_>| place(tx, &file, &book)
            })
            .await?
        };
        let mut streams = self.state.lock();
        let mut places = Places { boots, ..Places::default() };
        for old in &book.streams {
            let Some(&no) = numbers.get(&old.no) else { continue };
            let known = streams.all.iter().position(|stream| stream.no == no);
            let at = known.unwrap_or_else(|| {
                let file = wreck.name();
                streams.all.push(Stream::resting(no, old.key.clone(), old.settled, old.reserved, &file));
                streams.all.len() - 1
            });
            places.streams.insert(old.no, (at, no, old.clone()));
        }
        Ok(places)
    }

    async fn scan(
        &self,
        wreck: &Wreck,
        places: &Arc<Places>,
        from: u64,
        rows: &mut u64,
        unknown: &mut u64,
    ) -> Result<(), Error> {
        let pages = Arc::new(wreck.pages()?);
        let mut next = Some(from);
        let (mut remembered, mut paced) = (from, from);
        let (mut found, mut bytes) = (Vec::new(), 0);
        while let Some(page) = next {
            let (looking, known) = (Arc::clone(&pages), Arc::clone(places));
            let (mut more, strangers, scanned) = blocking(move || look(&looking, page, &known)).await?;
            *unknown += strangers;
            next = scanned.next;
            bytes += more.iter().map(|row: &Found| row.body.len() + 64).sum::<usize>();
            found.append(&mut more);
            let came = next.unwrap_or(pages.count());
            let is_full = found.len() >= COMMIT_ROWS || bytes >= COMMIT_BYTES;
            if is_full || next.is_none() || came >= remembered + REMEMBER_PAGES {
                self.wait_for_room(places, &found, bytes as u64).await;
                *rows += self.enter(wreck, places, std::mem::take(&mut found), came).await?;
                (remembered, bytes) = (came, 0);
            }
            if came >= paced + PACE.0 {
                paced = came;
                tokio::time::sleep(PACE.1).await;
            }
        }
        Ok(())
    }

    /// A class that is full would give up its oldest rows, which are the salvaged ones: as long as rows of this epoch can
    /// make room by being sent, the wreck waits. A class that is full of salvaged rows follows its policy, or nothing
    /// would ever be sent.
    async fn wait_for_room(&self, places: &Places, found: &[Found], bytes: u64) {
        let classes = || {
            let class = |row: &Found| places.streams.get(&row.stored.stream_no).map(|(_, _, old)| old.key.class);
            found.iter().filter_map(class)
        };
        loop {
            let is_tight = {
                let streams = self.state.lock();
                classes().any(|class| {
                    let limit = streams.limit(class);
                    let of_class = streams.all.iter().filter(|stream| stream.key.class == class);
                    let own: u64 = of_class.filter(|stream| stream.key.epoch.is_none()).map(Stream::bytes_now).sum();
                    streams.class_bytes(class) + bytes > limit && own > limit / 8
                })
            };
            if !is_tight {
                return;
            }
            tokio::time::sleep(WAIT).await;
        }
    }

    /// Rows and progress in one transaction. Returns the rows that were new.
    async fn enter(&self, wreck: &Wreck, places: &Arc<Places>, found: Vec<Found>, came: u64) -> Result<u64, Error> {
        let (file, found, state) = (wreck.name(), Arc::new(found), Arc::clone(&self.state));
        let places = Arc::clone(places);
        let rows = self
            .patiently(move || {
                let (file, found) = (file.clone(), Arc::clone(&found));
                let (places, state) = (Arc::clone(&places), Arc::clone(&state));
                move |tx: &Tx<'_>| {
                    let mut new = 0_i64;
                    for row in found.iter() {
                        let Some((at, no, old)) = places.streams.get(&row.stored.stream_no) else { continue };
                        let boot_no = match places.boots.get(&row.stored.boot_no) {
                            Some(boot_no) => *boot_no,
                            None => place_boot(tx, &unnamed_boot(old.key.epoch, row.stored.boot_no))?,
                        };
                        let stored = Stored { stream_no: *no, boot_no, ..row.stored };
                        let inserted = tx.execute(
                            "INSERT OR IGNORE INTO outbox_row VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                            (
                                stored.stream_no,
                                stored.seq,
                                stored.wall_ms,
                                stored.boot_ms,
                                stored.boot_no,
                                stored.clock_state,
                                stored.checksum(&row.body),
                                &row.body,
                            ),
                        )?;
                        if inserted > 0 {
                            let staged = &mut state.stage(tx, *at).all[*at].staged;
                            staged.appended += 1;
                            staged.appended_bytes += stored_bytes(row.body.len() as u64);
                            new += 1;
                        }
                    }
                    tx.execute(
                        concat!(
                            "UPDATE outbox_salvage SET next_page = ?2, rows = rows + ?3,
                             crc = row_crc('outbox_salvage', file, ?2, tries, rows + ?3, lost, lowest_no, done)
                             WHERE file = ?1 AND ",
                            salvage_holds!()
                        ),
                        (&file, came.cast_signed(), new),
                    )?;
                    Ok(new.cast_unsigned())
                }
            })
            .await?;
        self.state.metrics.salvaged.inc_by(rows);
        Ok(rows)
    }

    /// Enters every number that nothing stands for into the ledger, then lets the stream be sent. Returns how many.
    async fn account(&self, at: usize, no: i64, old: &OldStream) -> Result<u64, Error> {
        let read = move |connection: &Connection| known_ranges(connection, no);
        let mut known = self.reader.read(read).await?;
        known.extend(&old.acked);
        let known = joined(known);
        let wall_ms = self.clock.wall_ms();
        let (mut next, mut lost, mut rows, mut bytes) = (old.settled + 1, 0, 0_u64, 0_u64);
        let mut highest = old.settled.max(known.iter().map(|range| range.1).max().unwrap_or(0));
        loop {
            let from = next;
            let numbers = self.reader.read(move |connection| numbers(connection, no, from)).await?;
            let (Some(&(first, _)), Some(&(last, _))) = (numbers.first(), numbers.last()) else { break };
            debug_assert!(first >= from);
            rows += numbers.len() as u64;
            highest = highest.max(last);
            let mut entries = Vec::new();
            for &(number, row_bytes) in &numbers {
                bytes += row_bytes;
                if number > next {
                    entries.extend(missing((next, number - 1), &known, &old.gaps, wall_ms));
                }
                next = number + 1;
            }
            lost += self.declare(at, no, entries).await?;
        }
        let reserved = old.reserved.max(highest);
        let mut entries = Vec::new();
        // SQLite found the end of the stream in the wreck: nothing above it was ever a row.
        let end = old.highest.filter(|end| *end >= highest && *end <= reserved);
        let until = end.unwrap_or(reserved);
        if until >= next {
            entries.extend(missing((next, until), &known, &old.gaps, wall_ms));
        }
        if until < reserved {
            let tail = missing((until.max(next - 1) + 1, reserved), &known, &old.gaps, wall_ms);
            entries.extend(tail.into_iter().map(|entry| entry.never_was()));
        }
        lost += self.declare(at, no, entries).await?;
        let state = Arc::clone(&self.state);
        self.patiently(move || {
            let state = Arc::clone(&state);
            move |tx: &Tx<'_>| {
                let (key, settled) = {
                    let streams = state.lock();
                    (streams.all[at].key.clone(), streams.all[at].settled_now())
                };
                let row = StreamRow {
                    no,
                    class: key.class.as_str(),
                    name: &key.stored_name(),
                    reserved: reserved.cast_signed(),
                    settled: settled.cast_signed(),
                    bytes: bytes.cast_signed(),
                    counted: Some(reserved.cast_signed()),
                    epoch: key.epoch.map(|epoch| epoch.0.cast_signed()),
                    ..StreamRow::default()
                };
                row.put(tx)?;
                tx.after(move |committed| {
                    if committed {
                        let mut streams = state.lock();
                        streams.all[at].begin_sending(reserved, rows, bytes);
                        drop(streams);
                        state.appended.send_modify(|count| *count += 1);
                    }
                });
                Ok(())
            }
        })
        .await?;
        Ok(lost)
    }

    async fn declare(&self, at: usize, no: i64, entries: Vec<Entry>) -> Result<u64, Error> {
        let lost = entries.iter().filter(|entry| entry.reason == GapReason::Quarantined).map(|entry| entry.count).sum();
        let entries = Arc::new(entries);
        for from in (0..entries.len()).step_by(CHUNK) {
            let (entries, state) = (Arc::clone(&entries), Arc::clone(&self.state));
            self.patiently(move || {
                let (entries, state) = (Arc::clone(&entries), Arc::clone(&state));
                move |tx: &Tx<'_>| {
                    let mut streams = state.stage(tx, at);
                    for entry in &entries[from..entries.len().min(from + CHUNK)] {
                        let numbers = (entry.first, entry.last);
                        let grown = ledger::enter(tx, no, numbers, entry.count, entry.reason, entry.wall_ms)?;
                        streams.all[at].staged.entries += grown;
                    }
                    Ok(())
                }
            })
            .await?;
        }
        self.state.metrics.quarantined.inc_by(lost);
        Ok(lost)
    }

    /// Commits, and waits for as long as the disk has no room.
    async fn patiently<W, T>(&self, mut work: impl FnMut() -> W) -> Result<T, Error>
    where
        W: FnOnce(&Tx<'_>) -> Result<T, store::Error> + Send + 'static,
        T: Send + 'static,
    {
        loop {
            match self.writer.commit(COMMIT_BYTES / 4, work()).await {
                Err(store::Error::Commit(CommitError::Full(_) | CommitError::Disk(_))) => {
                    tokio::time::sleep(WAIT).await;
                }
                outcome => return Ok(outcome?),
            }
        }
    }
}

/// Runs on a thread that may block. A panic there ends this try, not the gateway.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    let outcome = tokio::task::spawn_blocking(work).await;
    outcome.map_err(|error| Error::Salvage { problem: error.to_string() })
}

/// Rows of some pages that are whole, not acknowledged and of a known stream; and the number of those of an unknown one.
fn look(pages: &Pages, from: u64, places: &Places) -> (Vec<Found>, u64, store::Scanned) {
    let (mut found, mut strangers) = (Vec::new(), 0);
    let scanned = pages.scan(from, SCAN_PAGES, &mut |record| {
        for row in rows(record.values) {
            match places.streams.get(&row.stored.stream_no) {
                Some((_, _, old)) if old.wants(row.stored.seq.cast_unsigned()) => found.push(row),
                Some(_) => {}
                // Streams that an earlier salvage brought are known by their file.
                None if places.streams.is_empty() || row.stored.stream_no > 0 => strangers += 1,
                None => {}
            }
        }
    });
    (found, strangers, scanned)
}

/// The rows that a record is or, as a block, holds.
fn rows(values: &[Value<'_>]) -> Vec<Found> {
    if let Some(row) = row(values) {
        return vec![row];
    }
    // A block as it was packed, or one that holds its own range: what has left of the former is acknowledged, or in the
    // old ledger.
    let (columns, range) = match values {
        [Value::Null, stream_no, base, count, raw_bytes, checksum, body] => {
            ([stream_no, base, count, raw_bytes, checksum, body], None)
        }
        [stream_no, last, first, _, _, base, count, raw_bytes, checksum, body, ..] => {
            ([stream_no, base, count, raw_bytes, checksum, body], Some((first, last)))
        }
        _ => return Vec::new(),
    };
    let [stream_no, base, count, raw_bytes, checksum, body] = columns;
    let packed = || {
        let number = |value: &Value<'_>| value.int().and_then(|number| u64::try_from(number).ok());
        let packed = Packed {
            stream_no: stream_no.int()?,
            base: number(base)?,
            count: number(count)?,
            raw_bytes: number(raw_bytes)?,
            checksum: u32::try_from(checksum.int()?).ok()?,
            body: body.blob()?.to_vec(),
        };
        let range = match range {
            Some((first, last)) => first.int()?..=last.int()?,
            None => 1..=i64::MAX,
        };
        Some((range, packed.unpack()?))
    };
    let Some((range, rows)) = packed() else { return Vec::new() };
    let whole = |row: &BlockRow| range.contains(&row.stored.seq) && row.is_intact();
    rows.into_iter().filter(whole).map(|BlockRow { stored, body, .. }| Found { stored, body }).collect()
}

/// A record as a row of the queue, if its checksum says that it is one.
fn row(values: &[Value<'_>]) -> Option<Found> {
    let [stream_no, seq, wall_ms, boot_ms, boot_no, clock_state, checksum, body, ..] = values else { return None };
    let (checksum, body) = (checksum.int()?, body.blob()?);
    let stored = Stored {
        stream_no: stream_no.int()?,
        seq: seq.int()?,
        wall_ms: wall_ms.int()?,
        boot_ms: boot_ms.int()?,
        boot_no: boot_no.int()?,
        clock_state: clock_state.int()?,
    };
    let holds = i64::from(stored.checksum(body)) == checksum && stored.state().is_some() && stored.seq > 0;
    holds.then(|| Found { stored, body: body.to_vec() })
}

/// New numbers of streams and boots. Streams that exist already and are not of this wreck are left out: an older wreck
/// brought them.
#[allow(clippy::type_complexity, reason = "two maps, taken apart by the one caller")]
fn place(tx: &Tx<'_>, file: &str, book: &Book) -> Result<(HashMap<i64, i64>, HashMap<i64, i64>), store::Error> {
    let mut streams = HashMap::new();
    for old in &book.streams {
        let name = old.key.stored_name();
        let key = (old.key.class.as_str(), name.as_str());
        let sql = "SELECT stream_no, salvage FROM outbox_stream WHERE class = ?1 AND name = ?2";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<String>>(1)?));
        match tx.prepare_cached(sql)?.query_row(key, read).optional()? {
            Some((no, Some(from))) if from == file => drop(streams.insert(old.no, no)),
            Some(_) => {}
            None => {
                // Numbers below zero, and never one twice: a row's checksum covers it, also in a page that is free now.
                let lowest: i64 = tx.query_row(
                    concat!(
                        "SELECT min(coalesce((SELECT min(stream_no) FROM outbox_stream), 0),
                                    coalesce((SELECT min(lowest_no) FROM outbox_salvage WHERE ",
                        salvage_holds!(),
                        "), 0), 0)"
                    ),
                    [],
                    |row| row.get(0),
                )?;
                let no = lowest - 1;
                let row = StreamRow {
                    no,
                    class: key.0,
                    name: key.1,
                    reserved: old.reserved.cast_signed(),
                    settled: old.settled.cast_signed(),
                    epoch: old.key.epoch.map(|epoch| epoch.0.cast_signed()),
                    salvage: Some(file),
                    ..StreamRow::default()
                };
                row.put(tx)?;
                tx.execute(
                    concat!(
                        "UPDATE outbox_salvage SET lowest_no = ?2,
                         crc = row_crc('outbox_salvage', file, next_page, tries, rows, lost, ?2, done) WHERE file = ?1 AND ",
                        salvage_holds!()
                    ),
                    (file, no),
                )?;
                for (first, last) in &old.acked {
                    tx.execute(PUT_ACKED, (no, first.cast_signed(), last.cast_signed()))?;
                }
                streams.insert(old.no, no);
            }
        }
    }
    let mut boots = HashMap::new();
    // The newest first: numbers below zero go down, and order is by them.
    for (old_no, boot) in book.boots.iter().rev() {
        boots.insert(*old_no, place_boot(tx, boot)?);
    }
    Ok((streams, boots))
}

/// Numbers below zero, so that an old boot is never taken for the current one.
fn place_boot(tx: &Tx<'_>, boot: &OldBoot) -> Result<i64, store::Error> {
    let known = tx
        .prepare_cached(&format!(
            "SELECT boot_no FROM boot WHERE boot_no < 0 AND boot_id = ?1 AND first_boot_ms = ?2 AND {BOOT_HOLDS}"
        ))?
        .query_row((boot.id, boot.first_boot_ms), |row| row.get(0))
        .optional()?;
    if let Some(no) = known {
        return Ok(no);
    }
    let no: i64 = tx.query_row("SELECT min(coalesce(min(boot_no), 0), 0) - 1 FROM boot", [], |row| row.get(0))?;
    tx.execute(INSERT_BOOT, (no, boot.id, boot.first_wall_ms, boot.first_boot_ms, boot.offset_ms))?;
    Ok(no)
}

/// The next rows' numbers and what they take of the file.
fn numbers(connection: &Connection, no: i64, from: u64) -> Result<Vec<(u64, u64)>, store::Error> {
    let sql = "SELECT seq, length(body) FROM outbox_row WHERE stream_no = ?1 AND seq >= ?2 ORDER BY seq LIMIT ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map((no, from.cast_signed(), CHUNK as i64), |row| {
        Ok((row.get::<_, i64>(0)?.cast_unsigned(), stored_bytes(row.get::<_, i64>(1)?.cast_unsigned())))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// What an earlier try, or an eviction meanwhile, entered already.
fn known_ranges(connection: &Connection, no: i64) -> Result<Vec<(u64, u64)>, store::Error> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT first, last FROM outbox_gap WHERE stream_no = ?1 AND ",
        gap_holds!(),
        " ORDER BY first LIMIT ?2"
    ))?;
    let rows = statement.query_map((no, RANGES), |row| {
        Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned()))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
