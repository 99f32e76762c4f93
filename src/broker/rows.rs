//! The broker's tables: sessions, subscriptions, queued messages, held packet ids, retained messages.

use super::message::Message;
use super::moment::{Kept, kept_at, numbers_of};
use super::outgoing::Delivery;
use super::parse::Queued;
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
        "ALTER TABLE broker_session ADD COLUMN offline_boot_ms INTEGER;
        ALTER TABLE broker_session ADD COLUMN boot_no INTEGER;
        ALTER TABLE broker_queue ADD COLUMN expires_boot_ms INTEGER;
        ALTER TABLE broker_queue ADD COLUMN boot_no INTEGER;
        ALTER TABLE broker_retained ADD COLUMN expires_boot_ms INTEGER;
        ALTER TABLE broker_retained ADD COLUMN boot_no INTEGER",
        // The rows that are there are what they are; from here on each says so. Queued and retained messages always did.
        "ALTER TABLE broker_session ADD COLUMN incomplete INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE broker_session ADD COLUMN crc INTEGER;
        UPDATE broker_session SET crc = row_crc('broker_session', no, client, owner, expiry_s, offline_wall_ms,
            will_delay_s, will_expiry_s, will_topic, will_qos, will_retain, will_payload, will_properties,
            offline_boot_ms, boot_no, incomplete);
        ALTER TABLE broker_subscription ADD COLUMN crc INTEGER;
        UPDATE broker_subscription SET crc = row_crc('broker_subscription', session, filter, qos, no_local,
            retain_as_published, id);
        ALTER TABLE broker_incoming ADD COLUMN crc INTEGER;
        UPDATE broker_incoming SET crc = row_crc('broker_incoming', session, packet_id);
        ALTER TABLE broker_lost ADD COLUMN crc INTEGER;
        UPDATE broker_lost SET crc = row_crc('broker_lost', client, messages, first_ms, last_ms);
        CREATE TABLE broker_salvage (
            file TEXT PRIMARY KEY,
            tries INTEGER NOT NULL,
            gathered INTEGER NOT NULL,
            done INTEGER NOT NULL,
            messages INTEGER NOT NULL,
            lost INTEGER NOT NULL,
            crc INTEGER NOT NULL
        ) WITHOUT ROWID;
        CREATE TABLE broker_salvaged (
            no INTEGER PRIMARY KEY,
            file TEXT NOT NULL,
            old_no INTEGER NOT NULL,
            crc INTEGER NOT NULL
        )",
    ],
    read_at_start: &[
        "broker_session",
        "broker_subscription",
        "broker_incoming",
        "broker_retained",
        "broker_lost",
        "broker_salvage",
        "broker_salvaged",
    ],
};

/// A queued row's place is the session's number and a count within it, so that a session's rows lie together and are
/// read in pages. Rows below the first session's are of a release that counted through.
const PLACE_BITS: u32 = 32;

/// The session of a place, and the count within it.
pub(super) fn parts_of(place: u64) -> (i64, u64) {
    ((place >> PLACE_BITS).cast_signed(), place & u64::from(u32::MAX))
}

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

/// What rows of an older release are covered by.
pub(super) fn old_checksum(message: &Message) -> u32 {
    row_checksum(&[message.topic.as_bytes(), &message.payload, &message.properties])
}

/// Covers the numbers of a row beside the message.
pub(super) fn checksum(numbers: &[i64], ids: &[u8], message: &Message) -> u32 {
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

/// Every queued row of a session that is gone. Returns how many they were.
pub(super) fn delete_queue(tx: &Tx, session: i64) -> Result<usize, Error> {
    let range = (first_place(session).cast_signed(), last_place(session).cast_signed());
    tx.execute("DELETE FROM broker_queue WHERE place BETWEEN ?1 AND ?2", range)
}

/// A row of a wreck under its new place and session. Its moments are by the wall clock from here on: the boots of
/// another file are not this one's.
/// True if it was not there.
pub(super) fn put_queued(tx: &Tx, row: &Queued) -> Result<bool, Error> {
    let boot_no = tx.boot_no();
    let crc = if row.released { released_checksum(row.place, row.packet_id) } else { row.checksum(boot_no) };
    let inserted = tx.execute(
        "INSERT OR IGNORE INTO broker_queue (place, session, packet_id, qos, retain, released, ids, topic, payload, \
         properties, expires_wall_ms, crc, expires_boot_ms, boot_no) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, NULL, ?13)",
        rusqlite::params![
            row.place.cast_signed(),
            row.session,
            row.packet_id,
            row.message.qos as u8,
            row.message.retain,
            row.released,
            row.ids,
            &*row.message.topic,
            &*row.message.payload,
            properties_blob(&row.message),
            row.expires.map(|kept| kept.wall_ms),
            crc,
            boot_no,
        ],
    )?;
    Ok(inserted > 0)
}

/// The message is no longer needed, its packet id is: a checksum of its own covers that.
pub(super) fn released_checksum(place: u64, packet_id: u16) -> u32 {
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
    tx.execute(
        "INSERT OR REPLACE INTO broker_incoming VALUES (?1, ?2, row_crc('broker_incoming', ?1, ?2))",
        (session, packet_id),
    )?;
    Ok(())
}

pub(super) fn release_incoming(tx: &Tx, session: i64, packet_id: u16) -> Result<(), Error> {
    tx.execute("DELETE FROM broker_incoming WHERE session = ?1 AND packet_id = ?2", (session, packet_id))?;
    Ok(())
}

/// Packet ids of a client that begins anew.
pub(super) fn release_all_incoming(tx: &Tx, session: i64) -> Result<(), Error> {
    tx.execute("DELETE FROM broker_incoming WHERE session = ?1", [session])?;
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
    /// Wall clock and, in this file's boots, milliseconds since boot.
    pub(super) offline: Option<(i64, Option<i64>)>,
    pub(super) will: Option<&'a Will>,
    /// Something of it was lost, and its client does not know yet.
    pub(super) incomplete: bool,
}

pub(super) fn put_session(tx: &Tx, row: &SessionRow<'_>) -> Result<(), Error> {
    let message = row.will.map(|will| &will.message);
    tx.execute(
        "INSERT OR REPLACE INTO broker_session VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, \
         row_crc('broker_session', ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15))",
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
            row.offline.and_then(|(_, boot_ms)| boot_ms),
            tx.boot_no(),
            row.incomplete,
        ],
    )?;
    Ok(())
}

/// Takes away sessions, subscriptions and packet ids that the disk has changed, and what then belongs to nobody. If
/// subscriptions were among them, all sessions are `incomplete`.
pub(super) fn sweep_bad(tx: &Tx, incomplete: bool) -> Result<(), Error> {
    for sql in [
        "DELETE FROM broker_session WHERE crc IS NOT row_crc('broker_session', no, client, owner, expiry_s,
         offline_wall_ms, will_delay_s, will_expiry_s, will_topic, will_qos, will_retain, will_payload, will_properties,
         offline_boot_ms, boot_no, incomplete)",
        "DELETE FROM broker_subscription WHERE crc IS NOT row_crc('broker_subscription', session, filter, qos, no_local,
         retain_as_published, id)",
        "DELETE FROM broker_incoming WHERE crc IS NOT row_crc('broker_incoming', session, packet_id)",
        "DELETE FROM broker_subscription WHERE session NOT IN (SELECT no FROM broker_session)
         AND session NOT IN (SELECT no FROM broker_salvaged)",
        "DELETE FROM broker_incoming WHERE session NOT IN (SELECT no FROM broker_session)
         AND session NOT IN (SELECT no FROM broker_salvaged)",
    ] {
        tx.execute(sql, [])?;
    }
    if incomplete {
        tx.execute(
            "UPDATE broker_session SET incomplete = 1, crc = row_crc('broker_session', no, client, owner, expiry_s,
             offline_wall_ms, will_delay_s, will_expiry_s, will_topic, will_qos, will_retain, will_payload,
             will_properties, offline_boot_ms, boot_no, 1)",
            [],
        )?;
    }
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
        "INSERT OR REPLACE INTO broker_subscription VALUES (?1, ?2, ?3, ?4, ?5, ?6, \
         row_crc('broker_subscription', ?1, ?2, ?3, ?4, ?5, ?6))",
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
