//! What the tables of a set aside file say about its streams: by SQLite where it still reads them, from single records
//! of any page where it does not.

use std::collections::BTreeMap;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension};

use super::batch::GapReason;
use super::error::Error;
use super::rows::{acked_holds, gap_holds, stream_holds};
use super::stream::StreamKey;
use crate::base::{Digest, Epoch};
use crate::store::{BOOT_HOLDS, Pages, Record, Value, Wreck, record_holds};

/// Streams, boots and ranges of one book: more are the work of chance.
const MOST: usize = 1 << 16;
/// Numbers beyond are the work of chance too.
const MAX_NUMBER: i64 = 1 << 53;
const SCAN_PAGES: u64 = 256;

/// A ledger entry, old or new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) count: u64,
    pub(super) reason: GapReason,
    pub(super) wall_ms: i64,
}

impl Entry {
    /// For numbers of which it is known that nobody ever got them.
    pub(super) fn never_was(self) -> Self {
        match self.reason {
            GapReason::Quarantined => Self { reason: GapReason::Restart, count: 0, ..self },
            _ => self,
        }
    }
}

/// A stream as the wreck knew it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OldStream {
    pub(super) no: i64,
    pub(super) key: StreamKey,
    pub(super) reserved: u64,
    pub(super) settled: u64,
    /// The highest number that was a row, a ledger entry or acknowledged, if SQLite found the end of the stream.
    pub(super) highest: Option<u64>,
    /// Acknowledged above `settled`, in order.
    pub(super) acked: Vec<(u64, u64)>,
    /// In order.
    pub(super) gaps: Vec<Entry>,
}

impl OldStream {
    /// True if a row of this number was neither acknowledged yet nor in the ledger: a block keeps what has left it.
    pub(super) fn wants(&self, seq: u64) -> bool {
        let after = self.acked.partition_point(|range| range.0 <= seq);
        let told = self.gaps.partition_point(|gap| gap.first <= seq);
        seq > self.settled
            && after.checked_sub(1).is_none_or(|at| self.acked[at].1 < seq)
            && told.checked_sub(1).is_none_or(|at| self.gaps[at].last < seq)
    }
}

/// A boot of the machine as the wreck knew it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OldBoot {
    pub(super) id: [u8; 16],
    pub(super) first_wall_ms: i64,
    pub(super) first_boot_ms: i64,
    pub(super) offset_ms: Option<i64>,
}

/// Everything but the rows.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) streams: Vec<OldStream>,
    pub(super) boots: BTreeMap<i64, OldBoot>,
}

impl Book {
    /// Reads what can be read. `own` is the epoch of the file in use: no wreck has it.
    pub(super) fn read(wreck: &Wreck, own: Epoch) -> Result<Self, Error> {
        let mut book = Self::default();
        let mut epoch = wreck.epoch;
        let mut ledger_is_read = false;
        // Of a rotten log SQLite shows what was before the rot, and as if nothing had come after.
        let is_log_rotten = wreck.is_log_rotten();
        if let Ok(connection) = wreck.connect() {
            epoch = epoch.or_else(|| old_epoch(&connection));
            if let (Some(streams), Some(epoch)) = (old_streams(&connection, epoch), epoch) {
                debug_assert!(epoch != own);
                book.streams = streams;
            }
            book.boots = old_boots(&connection).unwrap_or_default();
            ledger_is_read = true;
            for stream in &mut book.streams {
                stream.highest = if is_log_rotten { None } else { highest(&connection, stream) };
                stream.acked = acked(&connection, stream);
                match gaps(&connection, stream) {
                    Some(gaps) => stream.gaps = gaps,
                    None => ledger_is_read = false,
                }
            }
        }
        let Some(epoch) = epoch.filter(|epoch| *epoch != own) else {
            return Err(Error::Salvage {
                problem: format!("{} does not say which epoch it is of", wreck.path.display()),
            });
        };
        if book.streams.is_empty() || book.boots.is_empty() || !ledger_is_read || is_log_rotten {
            book.complete(&wreck.pages()?, epoch, is_log_rotten);
        }
        Ok(book)
    }

    /// Looks at every record for what SQLite did not give.
    fn complete(&mut self, pages: &Pages, epoch: Epoch, is_log_rotten: bool) {
        let (mut streams, mut boots, mut gaps) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        let mut next = Some(0);
        while let Some(from) = next {
            next = pages
                .scan(from, SCAN_PAGES, &mut |record| {
                    if streams.len() + boots.len() + gaps.len() >= MOST {
                        return;
                    }
                    if let Some(stream) = stream_of(&record, epoch) {
                        streams.entry(stream.no).and_modify(|known| merge(known, &stream)).or_insert(stream);
                    } else if let Some((no, boot)) = boot_of(&record) {
                        let known: &mut OldBoot = boots.entry(no).or_insert_with(|| boot.clone());
                        known.offset_ms = known.offset_ms.or(boot.offset_ms);
                    } else if let Some(gap) = gap_of(&record) {
                        gaps.push(gap);
                    }
                })
                .next;
        }
        if self.streams.is_empty() {
            self.streams = streams.into_values().collect();
            // The same name twice is an older life of the page: the newer number is the one in use.
            self.streams.sort_by_key(|stream| std::cmp::Reverse(stream.no));
            let mut seen = std::collections::HashSet::new();
            self.streams.retain(|stream| seen.insert(stream.key.clone()));
        } else if is_log_rotten {
            streams.into_values().for_each(|stream| self.learn(stream));
        }
        if self.boots.is_empty() {
            self.boots = boots;
        }
        for stream in self.streams.iter_mut().filter(|stream| stream.gaps.is_empty()) {
            let own = gaps.iter().filter(|(no, gap)| *no == stream.no && is_sane(gap, stream));
            stream.gaps = apart(own.map(|(_, gap)| *gap).collect());
        }
    }
}

impl Book {
    /// A record that SQLite may not have shown.
    fn learn(&mut self, stream: OldStream) {
        if let Some(known) = self.streams.iter_mut().find(|known| known.no == stream.no) {
            merge(known, &stream);
        } else if !self.streams.iter().any(|known| known.key == stream.key) {
            self.streams.push(stream);
        }
    }
}

/// Marks and acknowledgements only grow.
fn merge(known: &mut OldStream, other: &OldStream) {
    if known.key == other.key {
        known.reserved = known.reserved.max(other.reserved);
        known.settled = known.settled.max(other.settled);
    }
}

fn is_sane(gap: &Entry, stream: &OldStream) -> bool {
    gap.first > 0 && gap.first <= gap.last && gap.last <= stream.reserved && gap.count <= gap.last - gap.first + 1
}

fn positive(value: i64) -> Option<u64> {
    (0..MAX_NUMBER).contains(&value).then_some(value.cast_unsigned())
}

fn old_stream(no: i64, words: (&str, &str), numbers: (i64, i64), epoch: Epoch) -> Option<OldStream> {
    let mut key = StreamKey::from_stored(words.0, words.1)?;
    // Rows that an earlier salvage brought have the epoch of their own file.
    key.epoch.get_or_insert(epoch);
    let (reserved, settled) = (positive(numbers.0)?, positive(numbers.1)?);
    let stream = OldStream { no, key, reserved, settled, highest: None, acked: Vec::new(), gaps: Vec::new() };
    (settled <= reserved).then_some(stream)
}

/// Columns before the checksum.
const STREAM_COLUMNS: usize = 11;
const BOOT_COLUMNS: usize = 5;
const GAP_COLUMNS: usize = 6;

/// False if the record has a checksum that is wrong. In a file of an earlier release it has none.
fn holds_if_signed(table: &str, rowid: Option<i64>, values: &[Value<'_>], columns: usize) -> bool {
    values.len() <= columns || record_holds(table, rowid, values, columns)
}

fn stream_of(record: &Record<'_>, epoch: Epoch) -> Option<OldStream> {
    let [key, class, name, reserved, settled, ..] = record.values else { return None };
    if *key != Value::Null || !holds_if_signed("outbox_stream", Some(record.rowid), record.values, STREAM_COLUMNS) {
        return None;
    }
    old_stream(record.rowid, (class.text()?, name.text()?), (reserved.int()?, settled.int()?), epoch)
}

fn boot_of(record: &Record<'_>) -> Option<(i64, OldBoot)> {
    let [Value::Null, id, first_wall_ms, first_boot_ms, offset_ms, ..] = record.values else { return None };
    if record.values.len() > BOOT_COLUMNS + 1
        || !holds_if_signed("boot", Some(record.rowid), record.values, BOOT_COLUMNS)
    {
        return None;
    }
    let boot = OldBoot {
        id: id.blob()?.try_into().ok()?,
        first_wall_ms: first_wall_ms.int()?,
        first_boot_ms: first_boot_ms.int()?,
        offset_ms: offset_ms.int(),
    };
    Some((record.rowid, boot))
}

fn gap_of(record: &Record<'_>) -> Option<(i64, Entry)> {
    let [no, first, last, count, reason, wall_ms, ..] = record.values else { return None };
    if record.values.len() > GAP_COLUMNS + 1 || !holds_if_signed("outbox_gap", None, record.values, GAP_COLUMNS) {
        return None;
    }
    let entry = Entry {
        first: positive(first.int()?)?,
        last: positive(last.int()?)?,
        count: positive(count.int()?)?,
        reason: GapReason::from_word(reason.text()?)?,
        wall_ms: wall_ms.int()?,
    };
    Some((no.int()?, entry))
}

fn old_epoch(connection: &Connection) -> Option<Epoch> {
    let holds = if is_signed(connection, "meta") { "crc IS row_crc('meta', key, value)" } else { "1" };
    let sql = format!("SELECT value FROM meta WHERE key = 'epoch' AND {holds}");
    connection.query_row(&sql, [], |row| row.get::<_, i64>(0)).ok().map(|epoch| Epoch(epoch.cast_unsigned()))
}

fn text<'a>(value: ValueRef<'a>) -> Option<&'a str> {
    value.as_str().ok()
}

/// True if rows of the table have checksums: in a file of an earlier release they have none.
fn is_signed(connection: &Connection, table: &str) -> bool {
    let sql = "SELECT count(*) FROM pragma_table_info(?1) WHERE name = 'crc'";
    connection.query_row(sql, [table], |row| row.get::<_, i64>(0)).is_ok_and(|columns| columns > 0)
}

/// `holds`, if rows of the table have checksums.
fn if_signed<'a>(connection: &Connection, table: &str, holds: &'a str) -> &'a str {
    if is_signed(connection, table) { holds } else { "1" }
}

/// None if the table cannot be read to its end.
fn old_streams(connection: &Connection, epoch: Option<Epoch>) -> Option<Vec<OldStream>> {
    // A stream that cannot be trusted is looked for in the pages.
    let holds = if_signed(connection, "outbox_stream", stream_holds!());
    let sql = format!("SELECT stream_no, class, name, reserved, settled, {holds} FROM outbox_stream LIMIT ?1");
    let mut statement = connection.prepare(&sql).ok()?;
    let mut rows = statement.query([MOST as i64]).ok()?;
    let mut streams = Vec::new();
    while let Some(row) = rows.next().ok()? {
        let int = |at| row.get::<_, i64>(at).ok();
        if int(5)? == 0 {
            return None;
        }
        let words = (text(row.get_ref(1).ok()?)?, text(row.get_ref(2).ok()?)?);
        streams.push(old_stream(int(0)?, words, (int(3)?, int(4)?), epoch?)?);
    }
    Some(streams)
}

fn old_boots(connection: &Connection) -> Option<BTreeMap<i64, OldBoot>> {
    let holds = if_signed(connection, "boot", BOOT_HOLDS);
    let sql =
        format!("SELECT boot_no, boot_id, first_wall_ms, first_boot_ms, offset_ms FROM boot WHERE {holds} LIMIT ?1");
    let mut statement = connection.prepare(&sql).ok()?;
    let mut rows = statement.query([MOST as i64]).ok()?;
    let mut boots = BTreeMap::new();
    while let Some(row) = rows.next().ok()? {
        let boot = OldBoot {
            id: row.get(1).ok()?,
            first_wall_ms: row.get(2).ok()?,
            first_boot_ms: row.get(3).ok()?,
            offset_ms: row.get(4).ok()?,
        };
        boots.insert(row.get(0).ok()?, boot);
    }
    Some(boots)
}

/// The highest number that any table knows, found at the right edge of each tree. Of a stream that is drained only its
/// own row speaks.
fn highest(connection: &Connection, OldStream { no, settled, .. }: &OldStream) -> Option<u64> {
    let mut highest = *settled;
    let (gap, acked) =
        (if_signed(connection, "outbox_gap", gap_holds!()), if_signed(connection, "outbox_acked", acked_holds!()));
    for sql in [
        "SELECT seq FROM outbox_row WHERE stream_no = ?1 ORDER BY seq DESC LIMIT 1",
        &format!("SELECT last FROM outbox_gap WHERE stream_no = ?1 AND {gap} ORDER BY first DESC LIMIT 1"),
        &format!("SELECT last FROM outbox_acked WHERE stream_no = ?1 AND {acked} ORDER BY first DESC LIMIT 1"),
    ] {
        let last: Option<i64> = connection.query_row(sql, [no], |row| row.get(0)).optional().ok()?;
        highest = highest.max(positive(last.unwrap_or(0))?);
    }
    // A file of an earlier release has no blocks.
    let sql = "SELECT count(*) FROM sqlite_schema WHERE name = 'outbox_pack'";
    if connection.query_row(sql, [], |row| row.get::<_, i64>(0)).ok()? > 0 {
        let sql = "SELECT last FROM outbox_pack WHERE stream_no = ?1 ORDER BY last DESC LIMIT 1";
        let last: Option<i64> = connection.query_row(sql, [no], |row| row.get(0)).optional().ok()?;
        highest = highest.max(positive(last.unwrap_or(0))?);
    }
    Some(highest)
}

fn acked(connection: &Connection, stream: &OldStream) -> Vec<(u64, u64)> {
    let holds = if_signed(connection, "outbox_acked", acked_holds!());
    let sql = format!("SELECT first, last FROM outbox_acked WHERE stream_no = ?1 AND {holds} ORDER BY first LIMIT ?2");
    let Ok(mut statement) = connection.prepare(&sql) else { return Vec::new() };
    let Ok(rows) = statement.query_map((stream.no, MOST as i64), |row| Ok((row.get(0)?, row.get(1)?))) else {
        return Vec::new();
    };
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for range in rows {
        // What cannot be read is lost although it arrived: the receiver prefers what it has.
        let Ok((first, last)) = range else { break };
        let (Some(first), Some(last)) = (positive(first), positive(last)) else { continue };
        if first > ranges.last().map_or(stream.settled, |range| range.1) && first <= last && last <= stream.reserved {
            ranges.push((first, last));
        }
    }
    ranges
}

fn gaps(connection: &Connection, stream: &OldStream) -> Option<Vec<Entry>> {
    let holds = if_signed(connection, "outbox_gap", gap_holds!());
    let sql = format!(
        "SELECT first, last, count, reason, wall_ms FROM outbox_gap WHERE stream_no = ?1 AND {holds} ORDER BY first LIMIT ?2"
    );
    let mut statement = connection.prepare(&sql).ok()?;
    let mut rows = statement.query((stream.no, MOST as i64)).ok()?;
    let mut gaps = Vec::new();
    while let Some(row) = rows.next().ok()? {
        let int = |at| row.get::<_, i64>(at).ok();
        let entry = || {
            Some(Entry {
                first: positive(int(0)?)?,
                last: positive(int(1)?)?,
                count: positive(int(2)?)?,
                reason: GapReason::from_word(text(row.get_ref(3).ok()?)?)?,
                wall_ms: int(4)?,
            })
        };
        gaps.extend(entry().filter(|gap| is_sane(gap, stream)));
    }
    Some(apart(gaps))
}

/// Joins ranges that overlap or touch.
pub(super) fn joined(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (first, last) in ranges {
        match joined.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    joined
}

/// In order and apart: where two entries claim a number, the first has it.
fn apart(mut gaps: Vec<Entry>) -> Vec<Entry> {
    gaps.sort_unstable_by_key(|gap| (gap.first, gap.last));
    let mut end = 0;
    gaps.retain(|gap| {
        let is_apart = gap.first > end;
        if is_apart {
            end = gap.last;
        }
        is_apart
    });
    gaps
}

/// Ledger entries for the numbers `first..=last` that are no rows: what is not `known` otherwise (in order, apart), with
/// the word of the `old` ledger (the same) where it has one.
pub(super) fn missing((first, last): (u64, u64), known: &[(u64, u64)], old: &[Entry], wall_ms: i64) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut known = known[known.partition_point(|range| range.1 < first)..].iter();
    let mut old = old[old.partition_point(|gap| gap.last < first)..].iter().peekable();
    let mut from = first;
    while from <= last {
        let (stands_first, stands_last) = known.next().copied().unwrap_or((u64::MAX, u64::MAX));
        let until = last.min(stands_first.max(1) - 1);
        while from <= until {
            while old.next_if(|gap| gap.last < from).is_some() {}
            let entry = match old.peek() {
                Some(gap) if gap.first <= from => {
                    let end = gap.last.min(until);
                    Entry { first: from, last: end, count: gap.count.min(end - from + 1), ..**gap }
                }
                next => {
                    let end = next.map_or(until, |gap| until.min(gap.first - 1));
                    Entry { first: from, last: end, count: end - from + 1, reason: GapReason::Quarantined, wall_ms }
                }
            };
            from = entry.last + 1;
            entries.push(entry);
        }
        from = from.max(stands_last.saturating_add(1));
    }
    entries
}

/// The identity of a boot that no table names: times since boot compare within it and with nothing else.
pub(super) fn unnamed_boot(epoch: Option<Epoch>, no: i64) -> OldBoot {
    let epoch = epoch.map_or(0, |epoch| epoch.0);
    let digest = Digest::of(&[epoch.to_le_bytes(), no.to_le_bytes()].concat());
    let id = digest.as_bytes()[..16].try_into().expect("16 of 32 bytes");
    OldBoot { id, first_wall_ms: 0, first_boot_ms: 0, offset_ms: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_gets_the_old_word_where_there_is_one() {
        let gap = |first, last, reason| Entry { first, last, count: 0, reason, wall_ms: 5 };
        let old = [gap(3, 6, GapReason::Restart), gap(9, 9, GapReason::Rollback)];
        let entries = missing((1, 12), &[(5, 5), (11, 20)], &old, 7);
        let said: Vec<_> = entries.iter().map(|entry| (entry.first, entry.last, entry.count, entry.reason)).collect();
        assert_eq!(
            said,
            [
                (1, 2, 2, GapReason::Quarantined),
                (3, 4, 0, GapReason::Restart),
                (6, 6, 0, GapReason::Restart),
                (7, 8, 2, GapReason::Quarantined),
                (9, 9, 0, GapReason::Rollback),
                (10, 10, 1, GapReason::Quarantined),
            ]
        );
        assert!(missing((5, 4), &[], &[], 0).is_empty());
    }

    #[test]
    fn an_acknowledged_number_is_not_wanted_again() {
        let key = StreamKey::from_stored("raw", "press").unwrap();
        let acked = vec![(6, 8), (20, 20)];
        let stream = OldStream { no: 1, key, reserved: 30, settled: 3, highest: None, acked, gaps: Vec::new() };
        let wanted: Vec<u64> = (1..=30).filter(|seq| stream.wants(*seq)).collect();
        assert_eq!(wanted, (4..=5).chain(9..=19).chain(21..=30).collect::<Vec<_>>());
    }
}
