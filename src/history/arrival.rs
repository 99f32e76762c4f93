//! Where readings are when they have just come: one row a transaction, whatever streams its readings are of, in the
//! order in which they came.
//!
//! A row per stream and reading costs a page per stream in every commit. So the readings of a transaction are one row:
//! for each stream a section with its own checksum, and a list of the sections in front. There are two tables. While one
//! takes what comes, the other's readings are moved into blocks ([`keep`](super::keep)), and then all of it is deleted:
//! SQLite frees the pages of a table that is emptied whole without writing them.

use std::collections::HashSet;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::Reading;
use super::block::MAX_RAW_BYTES;
use super::checksum::corrupt;
use super::columns::{self, Bytes, MAX_READINGS, varint};
use crate::base::row_checksum;
use crate::store::{Error, Tx};

/// A section shorter than this gains nothing from being compressed.
const LEAST_COMPRESSED: usize = 400;
/// It is done between two commits, so speed matters more than the last per cent.
const LEVEL: i32 = 1;
const PLAIN: u8 = 0;
const COMPRESSED: u8 = 1;
/// Columns and header of a row, with the part of a page that stays empty.
const FIXED_BYTES: usize = 32;

/// One of the two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    A,
    B,
}

impl Table {
    pub(super) fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::A => "history_arrival_a",
            Self::B => "history_arrival_b",
        }
    }

    /// The number of its newest row; `None` if it is empty.
    pub(super) fn newest(self, connection: &Connection) -> Result<Option<i64>, Error> {
        Ok(connection.prepare_cached(&self.newest_sql())?.query_row([], |row| row.get(0))?)
    }

    pub(super) fn newest_sql(self) -> String {
        format!("SELECT max(no) FROM {}", self.name())
    }

    /// Empties it without looking at its rows one by one.
    pub(super) fn clear(self, tx: &Tx<'_>) -> Result<(), Error> {
        tx.execute(&format!("DELETE FROM {}", self.name()), []).map(drop)
    }
}

/// The table that takes what comes, as the rows say: the one with the newest.
pub(super) fn active(newest: [Option<i64>; 2]) -> Table {
    if newest[0] >= newest[1] { Table::A } else { Table::B }
}

/// How full a table is.
#[derive(Debug, Clone, Default)]
pub(super) struct Fill {
    pub(super) readings: u64,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) streams: HashSet<i64>,
}

/// Writes `readings`, each with its stream, as row `no`; returns the bytes that it takes.
pub(super) fn insert(tx: &Tx<'_>, table: Table, no: i64, mut readings: Vec<(i64, Reading)>) -> Result<usize, Error> {
    let (mut list, mut body) = (Vec::new(), Vec::new());
    // Stable, so each stream's readings stay in their order.
    readings.sort_by_key(|(stream_no, _)| *stream_no);
    let (streams, readings): (Vec<i64>, Vec<Reading>) = readings.into_iter().unzip();
    let mut rest = readings.as_slice();
    for of_stream in streams.chunk_by(|a, b| a == b) {
        let (stream_no, others) = (of_stream[0], rest.len() - of_stream.len());
        while rest.len() > others {
            let (now, later) = rest.split_at(columns::fitting(&rest[..rest.len() - others], MAX_READINGS));
            let began = body.len();
            write_section(&mut body, stream_no, now);
            varint(&mut list, stream_no.cast_unsigned());
            varint(&mut list, now.len() as u64);
            varint(&mut list, (body.len() - began) as u64);
            rest = later;
        }
    }
    let bytes = FIXED_BYTES + list.len() + body.len();
    let sql = format!("INSERT INTO {} (no, sections, body) VALUES (?1, ?2, ?3)", table.name());
    tx.execute(&sql, (no, list, body))?;
    Ok(bytes)
}

fn write_section(body: &mut Vec<u8>, stream_no: i64, readings: &[Reading]) {
    let raw = columns::encode(readings);
    let short = if (LEAST_COMPRESSED..=MAX_RAW_BYTES).contains(&raw.len()) {
        zstd::bulk::compress(&raw, LEVEL).ok().filter(|short| short.len() < raw.len())
    } else {
        None
    };
    let mut section = Vec::new();
    match short {
        Some(short) => {
            section.push(COMPRESSED);
            varint(&mut section, raw.len() as u64);
            section.extend(short);
        }
        None => {
            section.push(PLAIN);
            section.extend(raw);
        }
    }
    body.extend(sum(stream_no, &section).to_le_bytes());
    body.extend(section);
}

fn sum(stream_no: i64, section: &[u8]) -> u32 {
    row_checksum(&[&stream_no.to_le_bytes(), section])
}

fn read_section(stream_no: i64, section: &[u8]) -> Option<Vec<Reading>> {
    let (said, section) = section.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*said) != sum(stream_no, section) {
        return None;
    }
    let mut from = Bytes(section);
    match from.byte()? {
        PLAIN => columns::decode(from.0, MAX_READINGS),
        COMPRESSED => {
            let raw_bytes = usize::try_from(from.varint()?).ok().filter(|bytes| *bytes <= MAX_RAW_BYTES)?;
            columns::decode(&zstd::bulk::decompress(from.0, raw_bytes).ok()?, MAX_READINGS)
        }
        _ => None,
    }
}

/// A place in the list of a row.
struct Section {
    stream_no: i64,
    readings: u64,
    from: usize,
    to: usize,
}

/// The sections of a row; those behind damage are not found.
fn sections(list: &[u8]) -> impl Iterator<Item = Section> {
    let (mut list, mut from) = (Bytes(list), 0_usize);
    std::iter::from_fn(move || {
        let (stream_no, readings) = (list.varint()?.cast_signed(), list.varint()?);
        let to = from.checked_add(usize::try_from(list.varint()?).ok()?)?;
        Some(Section { stream_no, readings, from: std::mem::replace(&mut from, to), to })
    })
}

/// A blob of a row; of another type it is damaged.
fn blob<'a>(value: ValueRef<'a>) -> &'a [u8] {
    if let ValueRef::Blob(bytes) = value { bytes } else { &[] }
}

/// Which way rows are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    OldestFirst,
    NewestFirst,
}

/// Shows the arrived readings of each stream that `wants`, section by section, until `visit` says false. Within a
/// section they are in order, whichever way rows are read.
pub(super) fn each(
    connection: &Connection,
    table: Table,
    order: Order,
    wants: &dyn Fn(i64) -> bool,
    visit: &mut dyn FnMut(i64, Vec<Reading>) -> Result<bool, Error>,
) -> Result<bool, Error> {
    let descending = if order == Order::NewestFirst { "DESC" } else { "" };
    let sql = format!("SELECT sections, body FROM {} ORDER BY no {descending}", table.name());
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let mut wanted: Vec<Section> =
            sections(blob(row.get_ref(0)?)).filter(|section| wants(section.stream_no)).collect();
        if wanted.is_empty() {
            continue;
        }
        if order == Order::NewestFirst {
            wanted.reverse();
        }
        let body = blob(row.get_ref(1)?);
        for Section { stream_no, from, to, .. } in wanted {
            let readings = body.get(from..to).and_then(|section| read_section(stream_no, section));
            let Some(readings) = readings else {
                corrupt();
                continue;
            };
            if !visit(stream_no, readings)? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// [`each`] over both tables for one stream.
pub(super) fn of_stream(
    connection: &Connection,
    stream_no: i64,
    order: Order,
    visit: &mut dyn FnMut(Vec<Reading>) -> Result<bool, Error>,
) -> Result<(), Error> {
    let active = active([Table::A.newest(connection)?, Table::B.newest(connection)?]);
    let tables = match order {
        Order::OldestFirst => [active.other(), active],
        Order::NewestFirst => [active, active.other()],
    };
    for table in tables {
        if !each(connection, table, order, &|no| no == stream_no, &mut |_, readings| visit(readings))? {
            break;
        }
    }
    Ok(())
}

/// The streams of a table with the readings and bytes that it has of each.
pub(super) fn contents(connection: &Connection, table: Table) -> Result<Vec<(i64, u64, u64)>, Error> {
    let sql = format!("SELECT sections FROM {}", table.name());
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([])?;
    let mut streams = std::collections::BTreeMap::<i64, (u64, u64)>::new();
    while let Some(row) = rows.next()? {
        for section in sections(blob(row.get_ref(0)?)) {
            let stream = streams.entry(section.stream_no).or_default();
            stream.0 += section.readings;
            stream.1 += (section.to - section.from) as u64;
        }
    }
    Ok(streams.into_iter().map(|(no, (readings, bytes))| (no, readings, bytes)).collect())
}
