//! What the broker reads at start, and queued messages when their client comes.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Row};

use super::message::Message;
use super::moment::Moments;
use super::outgoing::Restored;
use super::parse::{self, Columns, FoundSession, QUEUED, Queued};
use super::rows::{first_place, last_place, parts_of};
use super::session::{Options, Will};
use super::tail::{AtStart, PAGE_BYTES, PAGE_ROWS, Page, PageOf};
use crate::base::Clock;
use crate::store::{Error, Value};

/// One session as read at start.
pub(super) struct LoadedSession {
    pub(super) no: i64,
    pub(super) client: Arc<str>,
    pub(super) owner: Arc<str>,
    pub(super) expiry_s: u32,
    /// How long the client has been away, as far as clocks can tell; 0 if the process ended while it was connected.
    pub(super) away: Duration,
    pub(super) will: Option<Will>,
    /// Something of it was lost, and its client does not know yet.
    pub(super) incomplete: bool,
}

impl LoadedSession {
    /// `moments` are those of the file that it was found in.
    pub(super) fn of(found: FoundSession, moments: &mut Moments<'_>) -> Result<Self, Error> {
        let FoundSession { no, client, owner, expiry_s, offline, will, incomplete } = found;
        let away_ms = match offline {
            Some(offline) => moments.ahead_ms(offline)?.saturating_neg().max(0),
            None => 0,
        };
        let away = Duration::from_millis(away_ms.cast_unsigned());
        Ok(Self { no, client, owner, expiry_s, away, will, incomplete })
    }
}

/// Everything the broker reads at start. Bounded by the limits on sessions, filters and retained messages; queued
/// messages are read when their client comes.
#[derive(Default)]
pub(super) struct Loaded {
    pub(super) sessions: Vec<LoadedSession>,
    pub(super) subscriptions: Vec<(i64, Arc<str>, Options)>,
    /// Rows of an older release, which do not lie together.
    pub(super) queued: Vec<(i64, Restored)>,
    /// Sessions with rows.
    pub(super) at_start: Vec<(i64, AtStart)>,
    pub(super) incoming: Vec<(i64, u16)>,
    pub(super) retained: Vec<Arc<Message>>,
    /// Rows whose checksum is wrong: never served.
    pub(super) corrupt: Corrupt,
    /// Queued rows of an older release whose session is gone: to be deleted.
    pub(super) orphans: Vec<u64>,
    /// Numbers of sessions that are gone and have rows.
    pub(super) gone: Vec<i64>,
    /// The highest number that a session was given.
    pub(super) highest: i64,
}

/// Rows whose checksum is wrong, by what that means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Corrupt {
    /// Sessions: what waited for them is lost.
    pub(super) sessions: usize,
    /// Subscriptions: nobody can say whose.
    pub(super) subscriptions: usize,
    /// Held packet ids: a repetition may be taken twice.
    pub(super) incoming: usize,
    /// Retained messages, by their rows.
    pub(super) retained: Vec<i64>,
    /// Entries of the ledger of absent clients.
    pub(super) lost: usize,
}

impl Corrupt {
    pub(super) fn rows(&self) -> usize {
        let Self { sessions, subscriptions, incoming, retained, lost } = self;
        sessions + subscriptions + incoming + retained.len() + lost
    }
}

/// The columns of a row.
fn values<'a>(row: &'a Row<'_>, columns: usize) -> Result<Vec<Value<'a>>, Error> {
    Ok((0..columns).map(|at| row.get_ref(at).map(Value::of)).collect::<Result<_, _>>()?)
}

/// Hands each row of `sql` to `each`.
fn each(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    mut each: impl FnMut(Columns<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut statement = connection.prepare_cached(sql)?;
    let columns = statement.column_count();
    let mut rows = statement.query(params)?;
    while let Some(row) = rows.next()? {
        each(Columns::read(&values(row, columns)?, false))?;
    }
    Ok(())
}

/// Everything but the sessions that a salvage has not brought back yet.
pub(super) fn load(connection: &Connection, clock: &dyn Clock) -> Result<Loaded, Error> {
    let mut loaded = Loaded::default();
    let mut moments = Moments::new(connection, clock)?;
    each(connection, "SELECT * FROM broker_session", [], |row| {
        match parse::session(row) {
            Some(found) => loaded.sessions.push(LoadedSession::of(found, &mut moments)?),
            None => loaded.corrupt.sessions += 1,
        }
        Ok(())
    })?;
    let known: HashSet<i64> = loaded.sessions.iter().map(|session| session.no).collect();
    load_parts(connection, None, &mut loaded)?;
    load_old_queue(&mut moments, &known, &mut loaded)?;
    find_queues(connection, &known, &mut loaded)?;
    load_retained(&mut moments, &mut loaded)?;
    each(connection, "SELECT * FROM broker_lost", [], |row| {
        loaded.corrupt.lost += usize::from(parse::lost(row).is_none());
        Ok(())
    })?;
    let mut statement = connection.prepare("SELECT no FROM broker_salvaged")?;
    let salvaged = statement.query_map([], |row| row.get(0))?.collect::<Result<HashSet<i64>, _>>()?;
    loaded.gone.retain(|session| !salvaged.contains(session));
    let numbers = known.iter().chain(&loaded.gone).chain(&salvaged);
    loaded.highest = numbers.max().copied().unwrap_or(0);
    Ok(loaded)
}

/// Subscriptions and held packet ids, of all sessions or of one.
pub(super) fn load_parts(connection: &Connection, of: Option<i64>, loaded: &mut Loaded) -> Result<(), Error> {
    let which = if of.is_some() { "WHERE session = ?1" } else { "WHERE ?1 IS NULL" };
    each(connection, &format!("SELECT * FROM broker_subscription {which}"), [of], |row| {
        match parse::subscription(row) {
            Some(found) => loaded.subscriptions.push(found),
            None => loaded.corrupt.subscriptions += 1,
        }
        Ok(())
    })?;
    each(connection, &format!("SELECT * FROM broker_incoming {which}"), [of], |row| {
        match parse::incoming(row) {
            Some(found) => loaded.incoming.push(found),
            None => loaded.corrupt.incoming += 1,
        }
        Ok(())
    })
}

const FIRST: &str = "SELECT place, packet_id FROM broker_queue WHERE place >= ?1 ORDER BY place LIMIT 1";
const LAST: &str = "SELECT place, packet_id, length(topic) + length(payload) + coalesce(length(properties), 0) + 64
    FROM broker_queue WHERE place <= ?1 ORDER BY place DESC LIMIT 1";

/// A packet id as a row has it, before anybody looked at the checksum.
fn packet_id(value: i64) -> u16 {
    u16::try_from(value).unwrap_or(1)
}

/// The first and the last row of one session.
pub(super) fn find_queue(connection: &Connection, session: i64) -> Result<Option<AtStart>, Error> {
    let mut first = connection.prepare_cached(FIRST)?;
    let range = (first_place(session).cast_signed(), last_place(session).cast_signed());
    let found = first.query_row([range.0], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))).optional()?;
    let Some((place, id)) = found.filter(|(place, _)| *place <= range.1) else { return Ok(None) };
    let read = |row: &Row<'_>| {
        Ok(AtStart {
            first_packet_id: packet_id(id),
            last_packet_id: packet_id(row.get(1)?),
            first_place: place.cast_unsigned(),
            last_place: row.get::<_, i64>(0)?.cast_unsigned(),
            row_bytes: usize::try_from(row.get::<_, i64>(2)?).unwrap_or(usize::MAX),
        })
    };
    Ok(Some(connection.prepare_cached(LAST)?.query_row([range.1], read)?))
}

/// The first and the last row of every session that has some: one descent of the tree each.
fn find_queues(connection: &Connection, known: &HashSet<i64>, loaded: &mut Loaded) -> Result<(), Error> {
    let mut first = connection.prepare(FIRST)?;
    let mut from = first_place(1) - 1;
    loop {
        let found: Option<i64> = first.query_row([from.cast_signed()], |row| row.get(0)).optional()?;
        let Some(place) = found else { return Ok(()) };
        let session = parts_of(place.cast_unsigned()).0;
        if known.contains(&session) {
            loaded.at_start.extend(find_queue(connection, session)?.map(|rows| (session, rows)));
        } else {
            loaded.gone.push(session);
        }
        from = last_place(session) + 1;
    }
}

fn restored(found: Queued, moments: &mut Moments<'_>) -> Result<Restored, Error> {
    let expires_at = moments.expiry(found.expires)?;
    Ok(found.restored(expires_at))
}

fn load_old_queue(moments: &mut Moments<'_>, known: &HashSet<i64>, loaded: &mut Loaded) -> Result<(), Error> {
    let sql = format!("{QUEUED} WHERE place < ?1 ORDER BY place");
    let until = (first_place(1) - 1).cast_signed();
    let mut statement = moments.connection.prepare(&sql)?;
    let columns = statement.column_count();
    let mut rows = statement.query([until])?;
    while let Some(row) = rows.next()? {
        let values = values(row, columns)?;
        let place = row.get::<_, i64>(0)?.cast_unsigned();
        match parse::queued(Columns::read(&values, false)) {
            Some(found) if known.contains(&found.session) => {
                loaded.queued.push((found.session, restored(found, moments)?));
            }
            Some(_) => loaded.orphans.push(place),
            // An old release's row, or one of ours whose place is wrong.
            None => return Err(misplaced()),
        }
    }
    Ok(())
}

/// Where a row lies is as wrong as what it says: then its neighbours may not be found either, and only a look at every
/// page tells what there is. The file is set aside for that.
fn misplaced() -> Error {
    Error::Row { table: "broker_queue", what: "a place where no row was written".to_owned() }
}

/// Queued rows of one session, a bounded number and size of them.
pub(super) fn load_page(connection: &Connection, clock: &dyn Clock, session: i64, of: &PageOf) -> Result<Page, Error> {
    let mut moments = Moments::new(connection, clock)?;
    let until = of.until.min(last_place(session));
    let mut statement =
        connection.prepare_cached(&format!("{QUEUED} WHERE place > ?1 AND place <= ?2 ORDER BY place LIMIT ?3"))?;
    let columns = statement.column_count();
    let mut rows = statement.query((of.after.cast_signed(), until.cast_signed(), PAGE_ROWS as i64))?;
    let (mut page, mut bytes, mut count) = (Page::default(), 0, 0);
    let mut before = of.after;
    while let Some(row) = rows.next()? {
        count += 1;
        let place = row.get::<_, i64>(0)?.cast_unsigned();
        if place <= before {
            return Err(misplaced());
        }
        let values = values(row, columns)?;
        match parse::queued(Columns::read(&values, false)).filter(|found| found.session == session) {
            Some(found) => {
                bytes += found.message.size_bytes();
                page.rows.push(restored(found, &mut moments)?);
            }
            // Its checksum covers its place, too: only next to its neighbour it is where it was.
            None if place != before + 1 => return Err(misplaced()),
            None => {
                let length = |value: &Value<'_>| match value {
                    Value::Text(bytes) | Value::Blob(bytes) => bytes.len(),
                    _ => 0,
                };
                page.skipped.push((place, 64 + values[7..10].iter().map(length).sum::<usize>()));
            }
        }
        before = place;
        if bytes >= PAGE_BYTES {
            return Ok(page);
        }
    }
    page.is_last = count < PAGE_ROWS;
    Ok(page)
}

fn load_retained(moments: &mut Moments<'_>, loaded: &mut Loaded) -> Result<(), Error> {
    let mut statement = moments.connection.prepare(
        "SELECT topic, qos, payload, properties, expires_wall_ms, crc, expires_boot_ms, boot_no, rowid
         FROM broker_retained",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        match parse::retained(Columns::read(&values(row, 8)?, false)) {
            Some((mut message, expires)) => {
                message.expires_at = moments.expiry(expires)?;
                loaded.retained.push(Arc::new(message));
            }
            None => loaded.corrupt.retained.push(row.get(8)?),
        }
    }
    Ok(())
}
