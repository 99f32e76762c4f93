//! The broker's tables: sessions, subscriptions, queued messages, held packet ids, retained messages.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::message::{Message, Qos};
use super::moment::{Kept, Moments, kept_at, numbers_of, read_kept};
use super::outgoing::{Delivery, Restored};
use super::session::{Options, Will};
use super::tail::{AtStart, PAGE_BYTES, PAGE_ROWS, Page, PageOf};
use crate::base::{Clock, row_checksum};
use crate::store::{Error, Schema, Tx};

/// Tables of the broker.
pub const SCHEMA: Schema = Schema {
    room: "broker",
    steps: &[
        "
        CREATE TABLE broker_session (
            no INTEGER PRIMARY KEY,
            client TEXT NOT NULL UNIQUE,
            owner TEXT NOT NULL,
            expiry_s INTEGER NOT NULL,
            offline_wall_ms INTEGER,
            will_delay_s INTEGER,
            will_expiry_s INTEGER,
            will_topic TEXT,
            will_qos INTEGER,
            will_retain INTEGER,
            will_payload BLOB,
            will_properties BLOB
        );
        CREATE TABLE broker_subscription (
            session INTEGER NOT NULL,
            filter TEXT NOT NULL,
            qos INTEGER NOT NULL,
            no_local INTEGER NOT NULL,
            retain_as_published INTEGER NOT NULL,
            id INTEGER,
            PRIMARY KEY (session, filter)
        ) WITHOUT ROWID;
        CREATE TABLE broker_queue (
            place INTEGER PRIMARY KEY,
            session INTEGER NOT NULL,
            packet_id INTEGER NOT NULL,
            qos INTEGER NOT NULL,
            retain INTEGER NOT NULL,
            released INTEGER NOT NULL DEFAULT 0,
            ids BLOB,
            topic TEXT NOT NULL,
            payload BLOB NOT NULL,
            properties BLOB,
            expires_wall_ms INTEGER,
            crc INTEGER NOT NULL
        );
        CREATE TABLE broker_incoming (
            session INTEGER NOT NULL,
            packet_id INTEGER NOT NULL,
            PRIMARY KEY (session, packet_id)
        ) WITHOUT ROWID;
        CREATE TABLE broker_retained (
            topic TEXT PRIMARY KEY,
            qos INTEGER NOT NULL,
            payload BLOB NOT NULL,
            properties BLOB,
            expires_wall_ms INTEGER,
            crc INTEGER NOT NULL
        );
    ",
        "CREATE TABLE broker_lost (
            client TEXT PRIMARY KEY,
            messages INTEGER NOT NULL,
            first_ms INTEGER NOT NULL,
            last_ms INTEGER NOT NULL
        ) WITHOUT ROWID",
        "ALTER TABLE broker_session ADD COLUMN offline_boot_ms INTEGER;
        ALTER TABLE broker_session ADD COLUMN boot_no INTEGER;
        ALTER TABLE broker_queue ADD COLUMN expires_boot_ms INTEGER;
        ALTER TABLE broker_queue ADD COLUMN boot_no INTEGER;
        ALTER TABLE broker_retained ADD COLUMN expires_boot_ms INTEGER;
        ALTER TABLE broker_retained ADD COLUMN boot_no INTEGER",
    ],
};

/// A queued row's place is the session's number and a count within it, so that a session's rows lie together and are
/// read in pages. Rows below the first session's are of a release that counted through.
const PLACE_BITS: u32 = 32;

/// The first place of a session.
pub(super) fn first_place(session: i64) -> u64 {
    (session.cast_unsigned() << PLACE_BITS) + 1
}

/// No place of the session is above.
pub(super) fn last_place(session: i64) -> u64 {
    (session.cast_unsigned() << PLACE_BITS) | u64::from(u32::MAX)
}

fn properties_blob(message: &Message) -> Option<&[u8]> {
    (!message.properties.is_empty()).then_some(&*message.properties)
}

fn read_properties(blob: Option<Vec<u8>>) -> Bytes {
    blob.map(Bytes::from).unwrap_or_default()
}

/// What rows of an older release are covered by.
fn old_checksum(message: &Message) -> u32 {
    row_checksum(&[message.topic.as_bytes(), &message.payload, &message.properties])
}

/// Covers the numbers of a row beside the message.
fn checksum(numbers: &[i64], ids: &[u8], message: &Message) -> u32 {
    let numbers: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let lengths = [message.topic.len(), message.payload.len(), ids.len()].map(|length| (length as u64).to_le_bytes());
    let parts =
        [&numbers, lengths.as_flattened(), message.topic.as_bytes(), &message.payload, &message.properties, ids];
    row_checksum(&parts)
}

pub(super) struct QueueRow<'a> {
    pub(super) place: u64,
    pub(super) session: i64,
    pub(super) packet_id: u16,
    pub(super) delivery: &'a Delivery,
}

pub(super) fn insert_queued(tx: &Tx, clock: &dyn Clock, row: &QueueRow<'_>) -> Result<(), Error> {
    let Delivery { message, qos, retain, ids } = row.delivery;
    let properties = properties_blob(message);
    let ids: Option<Vec<u8>> = ids.as_ref().map(|ids| ids.iter().flat_map(|id| id.to_le_bytes()).collect());
    let expires = message.expires_at.map(|at| kept_at(at, clock));
    let kept = expires.map(|(wall_ms, boot_ms)| Kept { wall_ms, boot_ms: Some(boot_ms), boot_no: None });
    let [wall_ms, boot_ms] = numbers_of(kept);
    let crc = checksum(
        &[
            row.place.cast_signed(),
            row.session,
            row.packet_id.into(),
            *qos as i64,
            (*retain).into(),
            wall_ms,
            boot_ms,
            tx.boot_no(),
        ],
        ids.as_deref().unwrap_or_default(),
        message,
    );
    tx.execute(
        "INSERT INTO broker_queue (place, session, packet_id, qos, retain, ids, topic, payload, properties, \
         expires_wall_ms, crc, expires_boot_ms, boot_no) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        rusqlite::params![
            row.place.cast_signed(),
            row.session,
            row.packet_id,
            *qos as u8,
            retain,
            ids,
            &*message.topic,
            &*message.payload,
            properties,
            expires.map(|(wall_ms, _)| wall_ms),
            crc,
            expires.map(|(_, boot_ms)| boot_ms),
            tx.boot_no(),
        ],
    )?;
    Ok(())
}

pub(super) fn delete_queued(tx: &Tx, places: &[u64]) -> Result<(), Error> {
    for place in places {
        tx.execute("DELETE FROM broker_queue WHERE place = ?1", [place.cast_signed()])?;
    }
    Ok(())
}

/// Every queued row of a session that is gone.
pub(super) fn delete_queue(tx: &Tx, session: i64) -> Result<(), Error> {
    let range = (first_place(session).cast_signed(), last_place(session).cast_signed());
    tx.execute("DELETE FROM broker_queue WHERE place BETWEEN ?1 AND ?2", range)?;
    Ok(())
}

/// The message is no longer needed, its packet id is: a checksum of its own covers that.
fn released_checksum(place: u64, packet_id: u16) -> u32 {
    row_checksum(&[b"released", &place.to_le_bytes(), &packet_id.to_le_bytes()])
}

pub(super) fn mark_released(tx: &Tx, place: u64, packet_id: u16) -> Result<(), Error> {
    tx.execute(
        "UPDATE broker_queue SET released = 1, payload = x'', crc = ?2, boot_no = ?3 WHERE place = ?1",
        (place.cast_signed(), released_checksum(place, packet_id), tx.boot_no()),
    )?;
    Ok(())
}

pub(super) fn hold_incoming(tx: &Tx, session: i64, packet_id: u16) -> Result<(), Error> {
    tx.execute("INSERT OR IGNORE INTO broker_incoming VALUES (?1, ?2)", (session, packet_id))?;
    Ok(())
}

pub(super) fn release_incoming(tx: &Tx, session: i64, packet_id: u16) -> Result<(), Error> {
    tx.execute("DELETE FROM broker_incoming WHERE session = ?1 AND packet_id = ?2", (session, packet_id))?;
    Ok(())
}

/// Makes the row of `topic` what memory holds now.
pub(super) fn put_retained(tx: &Tx, clock: &dyn Clock, topic: &str, current: Option<&Message>) -> Result<(), Error> {
    let Some(message) = current else {
        tx.execute("DELETE FROM broker_retained WHERE topic = ?1", [topic])?;
        return Ok(());
    };
    let properties = properties_blob(message);
    let expires = message.expires_at.map(|at| kept_at(at, clock));
    let kept = expires.map(|(wall_ms, boot_ms)| Kept { wall_ms, boot_ms: Some(boot_ms), boot_no: None });
    let [wall_ms, boot_ms] = numbers_of(kept);
    let crc = checksum(&[message.qos as i64, wall_ms, boot_ms, tx.boot_no()], &[], message);
    tx.execute(
        "INSERT INTO broker_retained VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (topic) DO UPDATE SET \
         qos = excluded.qos, payload = excluded.payload, properties = excluded.properties, \
         expires_wall_ms = excluded.expires_wall_ms, crc = excluded.crc, \
         expires_boot_ms = excluded.expires_boot_ms, boot_no = excluded.boot_no",
        rusqlite::params![
            topic,
            message.qos as u8,
            &*message.payload,
            properties,
            expires.map(|(wall_ms, _)| wall_ms),
            crc,
            expires.map(|(_, boot_ms)| boot_ms),
            tx.boot_no(),
        ],
    )?;
    Ok(())
}

pub(super) struct SessionRow<'a> {
    pub(super) no: i64,
    pub(super) client: &'a str,
    pub(super) owner: &'a str,
    pub(super) expiry_s: u32,
    /// Wall clock and milliseconds since boot.
    pub(super) offline: Option<(i64, i64)>,
    pub(super) will: Option<&'a Will>,
}

pub(super) fn put_session(tx: &Tx, row: &SessionRow<'_>) -> Result<(), Error> {
    let message = row.will.map(|will| &will.message);
    tx.execute(
        "INSERT OR REPLACE INTO broker_session VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        rusqlite::params![
            row.no,
            row.client,
            row.owner,
            row.expiry_s,
            row.offline.map(|(wall_ms, _)| wall_ms),
            row.will.map(|will| will.delay_s),
            row.will.and_then(|will| will.expiry_s),
            message.map(|message| &*message.topic),
            message.map(|message| message.qos as u8),
            message.map(|message| message.retain),
            message.map(|message| &*message.payload),
            message.and_then(|message| properties_blob(message)),
            row.offline.map(|(_, boot_ms)| boot_ms),
            tx.boot_no(),
        ],
    )?;
    Ok(())
}

/// Removes everything of a session but its queued messages.
pub(super) fn delete_session(tx: &Tx, no: i64) -> Result<(), Error> {
    tx.execute("DELETE FROM broker_session WHERE no = ?1", [no])?;
    tx.execute("DELETE FROM broker_subscription WHERE session = ?1", [no])?;
    tx.execute("DELETE FROM broker_incoming WHERE session = ?1", [no])?;
    Ok(())
}

pub(super) fn put_subscription(tx: &Tx, session: i64, filter: &str, options: &Options) -> Result<(), Error> {
    tx.execute(
        "INSERT OR REPLACE INTO broker_subscription VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        rusqlite::params![
            session,
            filter,
            options.qos as u8,
            options.no_local,
            options.retain_as_published,
            options.id
        ],
    )?;
    Ok(())
}

pub(super) fn delete_subscription(tx: &Tx, session: i64, filter: &str) -> Result<(), Error> {
    tx.execute("DELETE FROM broker_subscription WHERE session = ?1 AND filter = ?2", (session, filter))?;
    Ok(())
}

/// One session as read at start.
pub(super) struct LoadedSession {
    pub(super) no: i64,
    pub(super) client: Arc<str>,
    pub(super) owner: Arc<str>,
    pub(super) expiry_s: u32,
    /// How long the client has been away, as far as clocks can tell; 0 if the process ended while it was connected.
    pub(super) away: Duration,
    pub(super) will: Option<Will>,
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
    pub(super) corrupt: usize,
    /// Queued rows of an older release whose session is gone, or corrupt: to be deleted.
    pub(super) orphans: Vec<u64>,
    /// Numbers of sessions that are gone and have rows.
    pub(super) gone: Vec<i64>,
}

fn qos(bits: u8) -> Qos {
    Qos::from_bits(bits).unwrap_or(Qos::ExactlyOnce)
}

fn read_session(row: &Row<'_>) -> rusqlite::Result<(LoadedSession, Option<Kept>)> {
    let topic: Option<String> = row.get(7)?;
    let will = match topic {
        None => None,
        Some(topic) => {
            let mut message = Message::new(&topic, row.get::<_, Vec<u8>>(10)?, qos(row.get(8)?));
            message.retain = row.get(9)?;
            message.properties = read_properties(row.get(11)?);
            Some(Will { message: Arc::new(message), delay_s: row.get(5)?, expiry_s: row.get(6)? })
        }
    };
    let (client, owner): (String, String) = (row.get(1)?, row.get(2)?);
    let session = LoadedSession {
        no: row.get(0)?,
        client: client.into(),
        owner: owner.into(),
        expiry_s: row.get(3)?,
        away: Duration::ZERO,
        will,
    };
    Ok((session, read_kept(row, 4, 12, 13)?))
}

pub(super) fn load(connection: &Connection, clock: &dyn Clock) -> Result<Loaded, Error> {
    let mut loaded = Loaded::default();
    let mut moments = Moments::new(connection, clock)?;
    let mut statement = connection.prepare("SELECT * FROM broker_session")?;
    for session in statement.query_map([], read_session)? {
        let (mut session, offline) = session?;
        if let Some(offline) = offline {
            let away_ms = moments.ahead_ms(offline)?.saturating_neg().max(0);
            session.away = Duration::from_millis(away_ms.cast_unsigned());
        }
        loaded.sessions.push(session);
    }
    let known: HashSet<i64> = loaded.sessions.iter().map(|session| session.no).collect();
    let mut statement = connection.prepare("SELECT * FROM broker_subscription")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let filter: String = row.get(1)?;
        let options = Options {
            qos: qos(row.get(2)?),
            no_local: row.get(3)?,
            retain_as_published: row.get(4)?,
            retain_handling: 0,
            id: row.get(5)?,
        };
        loaded.subscriptions.push((row.get(0)?, filter.into(), options));
    }
    let mut statement = connection.prepare("SELECT session, packet_id FROM broker_incoming")?;
    for held in statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))? {
        loaded.incoming.push(held?);
    }
    load_old_queue(&mut moments, &known, &mut loaded)?;
    find_queues(connection, &known, &mut loaded)?;
    load_retained(&mut moments, &mut loaded)?;
    Ok(loaded)
}

/// The first and the last row of every session that has some: one descent of the tree each.
fn find_queues(connection: &Connection, known: &HashSet<i64>, loaded: &mut Loaded) -> Result<(), Error> {
    let mut first =
        connection.prepare("SELECT place, packet_id FROM broker_queue WHERE place >= ?1 ORDER BY place LIMIT 1")?;
    let mut last = connection.prepare(
        "SELECT place, packet_id, length(topic) + length(payload) + coalesce(length(properties), 0) + 64
         FROM broker_queue WHERE place <= ?1 ORDER BY place DESC LIMIT 1",
    )?;
    let mut from = first_place(1) - 1;
    loop {
        let found = first.query_row([from.cast_signed()], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?))).optional()?;
        let Some((place, first_packet_id)) = found else { return Ok(()) };
        let first_place = place.cast_unsigned();
        let session = (first_place >> PLACE_BITS).cast_signed();
        if known.contains(&session) {
            let read = |row: &Row<'_>| {
                Ok(AtStart {
                    first_packet_id,
                    last_packet_id: row.get(1)?,
                    first_place,
                    last_place: row.get::<_, i64>(0)?.cast_unsigned(),
                    row_bytes: usize::try_from(row.get::<_, i64>(2)?).unwrap_or(usize::MAX),
                })
            };
            loaded.at_start.push((session, last.query_row([last_place(session).cast_signed()], read)?));
        } else {
            loaded.gone.push(session);
        }
        from = last_place(session) + 1;
    }
}

const QUEUED: &str = "SELECT place, session, packet_id, qos, retain, released, ids, topic, payload, properties,
    expires_wall_ms, crc, expires_boot_ms, boot_no FROM broker_queue";

/// A queued row and its session; an error names the size of a row that is corrupt.
fn read_queued(row: &Row<'_>, moments: &mut Moments<'_>) -> Result<(i64, Result<Restored, usize>), Error> {
    let place = row.get::<_, i64>(0)?.cast_unsigned();
    let (session, packet_id, released): (i64, u16, bool) = (row.get(1)?, row.get(2)?, row.get(5)?);
    let (topic, properties): (String, Option<Vec<u8>>) = (row.get(7)?, row.get(9)?);
    let mut message = Message::new(&topic, row.get::<_, Vec<u8>>(8)?, qos(row.get(3)?));
    message.properties = read_properties(properties);
    message.retain = row.get(4)?;
    let ids: Option<Vec<u8>> = row.get(6)?;
    let (crc, boot_no): (u32, Option<i64>) = (row.get(11)?, row.get(13)?);
    let expires = read_kept(row, 10, 12, 13)?;
    let [wall_ms, boot_ms] = numbers_of(expires);
    let is_good = match boot_no {
        // An older release: a released row had none.
        None => released || old_checksum(&message) == crc,
        Some(_) if released => released_checksum(place, packet_id) == crc,
        Some(boot_no) => {
            let numbers = [
                place.cast_signed(),
                session,
                packet_id.into(),
                message.qos as i64,
                message.retain.into(),
                wall_ms,
                boot_ms,
                boot_no,
            ];
            checksum(&numbers, ids.as_deref().unwrap_or_default(), &message) == crc
        }
    };
    if !is_good {
        return Ok((session, Err(message.size_bytes())));
    }
    message.expires_at = moments.expiry(expires)?;
    let ids = ids
        .map(|bytes| bytes.chunks_exact(4).map(|id| u32::from_le_bytes(id.try_into().expect("four bytes"))).collect());
    let delivery = Delivery { qos: message.qos, retain: message.retain, ids, message: Arc::new(message) };
    Ok((session, Ok(Restored { packet_id, place, released, delivery })))
}

fn load_old_queue(moments: &mut Moments<'_>, known: &HashSet<i64>, loaded: &mut Loaded) -> Result<(), Error> {
    let connection = moments.connection;
    let mut statement = connection.prepare(&format!("{QUEUED} WHERE place < ?1 ORDER BY place"))?;
    let mut rows = statement.query([(first_place(1) - 1).cast_signed()])?;
    while let Some(row) = rows.next()? {
        let place = row.get::<_, i64>(0)?.cast_unsigned();
        let (session, read) = read_queued(row, moments)?;
        loaded.corrupt += usize::from(read.is_err());
        match read {
            Ok(restored) if known.contains(&session) => loaded.queued.push((session, restored)),
            _ => loaded.orphans.push(place),
        }
    }
    Ok(())
}

/// Queued rows of one session, a bounded number and size of them.
pub(super) fn load_page(connection: &Connection, clock: &dyn Clock, session: i64, of: &PageOf) -> Result<Page, Error> {
    let mut moments = Moments::new(connection, clock)?;
    let until = of.until.min(last_place(session));
    let mut statement =
        connection.prepare_cached(&format!("{QUEUED} WHERE place > ?1 AND place <= ?2 ORDER BY place LIMIT ?3"))?;
    let mut rows = statement.query((of.after.cast_signed(), until.cast_signed(), PAGE_ROWS as i64))?;
    let (mut page, mut bytes, mut count) = (Page::default(), 0, 0);
    while let Some(row) = rows.next()? {
        count += 1;
        let place = row.get::<_, i64>(0)?.cast_unsigned();
        match read_queued(row, &mut moments)? {
            (of, Ok(restored)) if of == session => {
                bytes += restored.delivery.message.size_bytes();
                page.rows.push(restored);
            }
            (_, Ok(stranger)) => page.skipped.push((place, stranger.delivery.message.size_bytes())),
            (_, Err(size)) => page.skipped.push((place, size)),
        }
        if bytes >= PAGE_BYTES {
            return Ok(page);
        }
    }
    page.is_last = count < PAGE_ROWS;
    Ok(page)
}

fn load_retained(moments: &mut Moments<'_>, loaded: &mut Loaded) -> Result<(), Error> {
    let connection = moments.connection;
    let mut statement = connection.prepare("SELECT * FROM broker_retained")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let topic: String = row.get(0)?;
        let properties: Option<Vec<u8>> = row.get(3)?;
        let mut message = Message::new(&topic, Bytes::from(row.get::<_, Vec<u8>>(2)?), qos(row.get(1)?)).retained();
        message.properties = read_properties(properties);
        let (crc, boot_no): (u32, Option<i64>) = (row.get(5)?, row.get(7)?);
        let expires = read_kept(row, 4, 6, 7)?;
        let [wall_ms, boot_ms] = numbers_of(expires);
        let expected = match boot_no {
            None => old_checksum(&message),
            Some(boot_no) => checksum(&[message.qos as i64, wall_ms, boot_ms, boot_no], &[], &message),
        };
        if expected != crc {
            loaded.corrupt += 1;
            continue;
        }
        message.expires_at = moments.expiry(expires)?;
        loaded.retained.push(Arc::new(message));
    }
    Ok(())
}
