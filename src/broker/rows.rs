//! The broker's tables: sessions, subscriptions, queued messages, held packet ids, retained messages.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, Row};

use super::message::{Message, Qos};
use super::outgoing::{Delivery, Restored};
use super::session::{Options, Will};
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
    ],
};

fn properties_blob(message: &Message) -> Option<&[u8]> {
    (!message.properties.is_empty()).then_some(&*message.properties)
}

fn read_properties(blob: Option<Vec<u8>>) -> Bytes {
    blob.map(Bytes::from).unwrap_or_default()
}

/// Expiry is kept as wall clock: the time since boot means nothing after a reboot.
fn expires_wall_ms(message: &Message, clock: &dyn Clock) -> Option<i64> {
    let left = message.expires_at?.saturating_sub(clock.since_boot());
    Some(clock.wall_ms().saturating_add(i64::try_from(left.as_millis()).unwrap_or(i64::MAX)))
}

fn expires_at(wall_ms: Option<i64>, clock: &dyn Clock) -> Option<Duration> {
    let left = wall_ms?.saturating_sub(clock.wall_ms()).max(0);
    Some(clock.since_boot() + Duration::from_millis(u64::try_from(left).unwrap_or(0)))
}

fn checksum(message: &Message) -> u32 {
    row_checksum(&[message.topic.as_bytes(), &message.payload, &message.properties])
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
    let crc = checksum(message);
    tx.execute(
        "INSERT INTO broker_queue (place, session, packet_id, qos, retain, ids, topic, payload, properties, \
         expires_wall_ms, crc) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
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
            expires_wall_ms(message, clock),
            crc,
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

pub(super) fn mark_released(tx: &Tx, place: u64) -> Result<(), Error> {
    tx.execute("UPDATE broker_queue SET released = 1, payload = x'', crc = 0 WHERE place = ?1", [place.cast_signed()])?;
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
    let crc = checksum(message);
    tx.execute(
        "INSERT INTO broker_retained VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (topic) DO UPDATE SET \
         qos = excluded.qos, payload = excluded.payload, properties = excluded.properties, \
         expires_wall_ms = excluded.expires_wall_ms, crc = excluded.crc",
        rusqlite::params![
            topic,
            message.qos as u8,
            &*message.payload,
            properties,
            expires_wall_ms(message, clock),
            crc
        ],
    )?;
    Ok(())
}

pub(super) struct SessionRow<'a> {
    pub(super) no: i64,
    pub(super) client: &'a str,
    pub(super) owner: &'a str,
    pub(super) expiry_s: u32,
    pub(super) offline_wall_ms: Option<i64>,
    pub(super) will: Option<&'a Will>,
}

pub(super) fn put_session(tx: &Tx, row: &SessionRow<'_>) -> Result<(), Error> {
    let message = row.will.map(|will| &will.message);
    tx.execute(
        "INSERT OR REPLACE INTO broker_session VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        rusqlite::params![
            row.no,
            row.client,
            row.owner,
            row.expiry_s,
            row.offline_wall_ms,
            row.will.map(|will| will.delay_s),
            row.will.and_then(|will| will.expiry_s),
            message.map(|message| &*message.topic),
            message.map(|message| message.qos as u8),
            message.map(|message| message.retain),
            message.map(|message| &*message.payload),
            message.and_then(|message| properties_blob(message)),
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
    /// None if the process ended while the client was connected.
    pub(super) offline_wall_ms: Option<i64>,
    pub(super) will: Option<Will>,
}

/// Everything the broker reads at start. Bounded by the limits on sessions, queues and retained messages.
#[derive(Default)]
pub(super) struct Loaded {
    pub(super) sessions: Vec<LoadedSession>,
    pub(super) subscriptions: Vec<(i64, Arc<str>, Options)>,
    pub(super) queued: Vec<(i64, Restored)>,
    pub(super) incoming: Vec<(i64, u16)>,
    pub(super) retained: Vec<Arc<Message>>,
    /// Rows whose checksum is wrong: never served.
    pub(super) corrupt: usize,
    /// Queued rows of sessions that are gone, or corrupt: to be deleted.
    pub(super) orphans: Vec<u64>,
}

fn qos(bits: u8) -> Qos {
    Qos::from_bits(bits).unwrap_or(Qos::ExactlyOnce)
}

fn read_session(row: &Row<'_>) -> rusqlite::Result<LoadedSession> {
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
    Ok(LoadedSession {
        no: row.get(0)?,
        client: client.into(),
        owner: owner.into(),
        expiry_s: row.get(3)?,
        offline_wall_ms: row.get(4)?,
        will,
    })
}

pub(super) fn load(connection: &Connection, clock: &dyn Clock) -> Result<Loaded, Error> {
    let mut loaded = Loaded::default();
    let mut statement = connection.prepare("SELECT * FROM broker_session")?;
    for session in statement.query_map([], read_session)? {
        loaded.sessions.push(session?);
    }
    let known: std::collections::HashSet<i64> = loaded.sessions.iter().map(|session| session.no).collect();
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
    load_queue(connection, clock, &known, &mut loaded)?;
    load_retained(connection, clock, &mut loaded)?;
    Ok(loaded)
}

fn load_queue(
    connection: &Connection,
    clock: &dyn Clock,
    known: &std::collections::HashSet<i64>,
    loaded: &mut Loaded,
) -> Result<(), Error> {
    let mut statement = connection.prepare("SELECT * FROM broker_queue ORDER BY place")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let place = row.get::<_, i64>(0)?.cast_unsigned();
        let session: i64 = row.get(1)?;
        let released: bool = row.get(5)?;
        let topic: String = row.get(7)?;
        let properties: Option<Vec<u8>> = row.get(9)?;
        let mut message = Message::new(&topic, row.get::<_, Vec<u8>>(8)?, qos(row.get(3)?));
        message.properties = read_properties(properties);
        let good = released || checksum(&message) == row.get::<_, u32>(11)?;
        loaded.corrupt += usize::from(!good);
        if !good || !known.contains(&session) {
            loaded.orphans.push(place);
            continue;
        }
        message.retain = row.get(4)?;
        message.expires_at = expires_at(row.get(10)?, clock);
        let ids: Option<Vec<u8>> = row.get(6)?;
        let ids = ids.map(|bytes| {
            bytes.chunks_exact(4).map(|id| u32::from_le_bytes(id.try_into().expect("four bytes"))).collect()
        });
        let delivery = Delivery { qos: message.qos, retain: message.retain, ids, message: Arc::new(message) };
        loaded.queued.push((session, Restored { packet_id: row.get(2)?, place, released, delivery }));
    }
    Ok(())
}

fn load_retained(connection: &Connection, clock: &dyn Clock, loaded: &mut Loaded) -> Result<(), Error> {
    let mut statement = connection.prepare("SELECT * FROM broker_retained")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let topic: String = row.get(0)?;
        let properties: Option<Vec<u8>> = row.get(3)?;
        let mut message = Message::new(&topic, Bytes::from(row.get::<_, Vec<u8>>(2)?), qos(row.get(1)?)).retained();
        message.properties = read_properties(properties);
        if checksum(&message) != row.get::<_, u32>(5)? {
            loaded.corrupt += 1;
            continue;
        }
        message.expires_at = expires_at(row.get(4)?, clock);
        loaded.retained.push(Arc::new(message));
    }
    Ok(())
}
