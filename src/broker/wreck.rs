//! The broker's rows in a file that was set aside: table by table where SQLite reads them all, else from every page that
//! was in use.

use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::mpsc;

use super::message::Message;
use super::moment::Kept;
use super::parse::{self, Columns, FoundSession, QUEUED, Queued};
use super::session::Options;
use crate::store::{Error, Record, Value, Wreck};

/// Rows of one portion.
const PORTION_ROWS: usize = 128;
/// Bytes of one portion, or one row.
const PORTION_BYTES: usize = 256 << 10;
/// Pages of one look.
const SCAN_PAGES: u64 = 256;
/// Pause after each look: at most 20 MB a second are read.
const PACE: Duration = Duration::from_millis(50);

/// A row whose checksum holds.
#[derive(Debug)]
pub(super) enum Found {
    Session(FoundSession),
    Subscription(i64, std::sync::Arc<str>, Options),
    Incoming(i64, u16),
    Queued(Queued),
    Retained(Message, Option<Kept>),
    Lost { client: String, messages: u64, first_ms: i64, last_ms: i64 },
}

/// The end of the reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Read {
    /// SQLite read every table to its end, and no row was bad.
    pub(super) is_whole: bool,
}

/// Which rows are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    All,
    /// What goes into no table before the end: the rest was gathered by an earlier run.
    SessionsAndLosses,
}

/// A moment of another file: its boots are not this one's, its wall clock is everybody's.
fn by_wall(kept: Option<Kept>) -> Option<Kept> {
    kept.map(|kept| Kept { boot_ms: None, boot_no: None, ..kept })
}

fn by_wall_session(found: FoundSession) -> Found {
    Found::Session(FoundSession { offline: by_wall(found.offline), ..found })
}

fn lost(row: Columns<'_>) -> Option<Found> {
    let (client, messages, first_ms, last_ms) = parse::lost(row)?;
    Some(Found::Lost { client: client.to_owned(), messages: messages.max(0).cast_unsigned(), first_ms, last_ms })
}

fn queued(row: Columns<'_>) -> Option<Found> {
    parse::queued(row).map(|found| Found::Queued(Queued { expires: by_wall(found.expires), ..found }))
}

fn retained(row: Columns<'_>) -> Option<Found> {
    parse::retained(row).map(|(message, expires)| Found::Retained(message, by_wall(expires)))
}

/// What a record of any table is, if it is the broker's.
fn of_record(record: &Record<'_>) -> Option<Found> {
    let row = Columns::found(record.values, record.rowid);
    match record.values.len() {
        16 => parse::session(row).map(by_wall_session),
        7 => parse::subscription(row).map(|(session, filter, options)| Found::Subscription(session, filter, options)),
        3 => parse::incoming(row).map(|(session, packet_id)| Found::Incoming(session, packet_id)),
        14 => queued(row),
        8 => retained(row),
        5 => lost(row),
        _ => None,
    }
}

/// One table: its name, what is read of it, and how.
type Table = (&'static str, &'static str, fn(Columns<'_>) -> Option<Found>);

const TABLES: [Table; 6] = [
    ("broker_session", "SELECT * FROM broker_session", |row| parse::session(row).map(by_wall_session)),
    ("broker_subscription", "SELECT * FROM broker_subscription", |row| {
        parse::subscription(row).map(|(session, filter, options)| Found::Subscription(session, filter, options))
    }),
    ("broker_incoming", "SELECT * FROM broker_incoming", |row| {
        parse::incoming(row).map(|(session, packet_id)| Found::Incoming(session, packet_id))
    }),
    ("broker_queue", QUEUED, queued),
    ("broker_retained", "SELECT * FROM broker_retained", retained),
    ("broker_lost", "SELECT * FROM broker_lost", lost),
];

/// Portions on their way to whoever writes them.
struct Sender {
    to: mpsc::Sender<Vec<Found>>,
    portion: Vec<Found>,
    bytes: usize,
    which: Which,
    is_closed: bool,
}

impl Sender {
    fn push(&mut self, found: Found) {
        if self.which == Which::SessionsAndLosses && !matches!(found, Found::Session(_) | Found::Lost { .. }) {
            return;
        }
        self.bytes += match &found {
            Found::Queued(row) => row.message.size_bytes(),
            Found::Retained(message, _) => message.size_bytes(),
            _ => 64,
        };
        self.portion.push(found);
        if self.portion.len() >= PORTION_ROWS || self.bytes >= PORTION_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.bytes = 0;
        let portion = std::mem::take(&mut self.portion);
        self.is_closed |= !portion.is_empty() && self.to.blocking_send(portion).is_err();
    }
}

/// Reads the wreck and sends what it finds in portions; ends when nobody listens any more. Rows may come twice.
pub(super) fn read(wreck: &Wreck, which: Which, to: mpsc::Sender<Vec<Found>>) -> Result<Read, Error> {
    let mut sender = Sender { to, portion: Vec::new(), bytes: 0, which, is_closed: false };
    // Of a rotten log SQLite shows what was before the rot, and as if nothing had come after.
    let by_tables = if wreck.is_log_rotten() { None } else { by_tables(wreck, &mut sender) };
    let is_whole = by_tables == Some(0);
    if by_tables.is_none() && !sender.is_closed {
        let pages = wreck.current_pages()?;
        let mut next = Some(0);
        while let Some(from) = next.filter(|_| !sender.is_closed) {
            let each = &mut |record: Record<'_>| of_record(&record).into_iter().for_each(|found| sender.push(found));
            next = pages.scan(from, SCAN_PAGES, each).next;
            if next.is_some() {
                std::thread::sleep(PACE);
            }
        }
    }
    sender.flush();
    Ok(Read { is_whole })
}

/// How many rows were bad; None if SQLite does not read every table to its end.
fn by_tables(wreck: &Wreck, sender: &mut Sender) -> Option<u64> {
    let connection = wreck.connect().ok()?;
    // Without its tables it is not a file of ours any more, or has no beginning.
    columns(&connection, TABLES[0].0).filter(|columns| *columns > 0)?;
    let mut bad = 0;
    for (name, sql, parse) in TABLES {
        if columns(&connection, name)? > 0 {
            bad += by_table(&connection, name, sql, parse, sender)?;
        }
    }
    Some(bad)
}

fn columns(connection: &Connection, table: &str) -> Option<i64> {
    connection.query_row("SELECT count(*) FROM pragma_table_info(?1)", [table], |row| row.get(0)).ok()
}

fn by_table(
    connection: &Connection,
    name: &str,
    sql: &str,
    parse: fn(Columns<'_>) -> Option<Found>,
    sender: &mut Sender,
) -> Option<u64> {
    let mut bad = 0;
    let mut statement = connection.prepare(sql).ok()?;
    let columns = statement.column_count();
    // Queued and retained messages always had a checksum.
    let unsigned = statement.column_index("crc").is_err();
    debug_assert!(!unsigned || !matches!(name, "broker_queue" | "broker_retained"));
    let mut rows = statement.query([]).ok()?;
    while let Some(row) = rows.next().ok()? {
        let values: Vec<_> = (0..columns).map(|at| row.get_ref(at).map(Value::of)).collect::<Result<_, _>>().ok()?;
        match parse(Columns::read(&values, unsigned)) {
            Some(found) => sender.push(found),
            None => bad += 1,
        }
        if sender.is_closed {
            break;
        }
    }
    Some(bad)
}
