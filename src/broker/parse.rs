//! Rows of the broker's tables as they are read, whether SQLite found them or they lie in a page of a wreck: nothing is
//! taken from a row before its checksum was seen to hold.

use std::sync::Arc;

use bytes::Bytes;

use super::message::{Message, Qos};
use super::moment::{Kept, numbers_of};
use super::outgoing::{Delivery, Restored};
use super::rows::{checksum, old_checksum, released_checksum};
use super::session::{Options, Will};
use crate::store::{Value, record_holds};

/// Columns of `broker_session` before the checksum.
const SESSION: usize = 15;
/// Columns of `broker_subscription` before the checksum.
const SUBSCRIPTION: usize = 6;
/// Columns of `broker_incoming` before the checksum.
const INCOMING: usize = 2;
/// Columns of `broker_lost` before the checksum.
const LOST: usize = 4;

/// A row's columns. A row of an earlier release has fewer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Columns<'a> {
    values: &'a [Value<'a>],
    /// The number of the row, where its record leaves that out.
    rowid: Option<i64>,
    /// A file of an earlier release, whose rows have no checksum, and in which SQLite found this.
    pub(super) unsigned: bool,
}

impl<'a> Columns<'a> {
    /// Of a row that SQLite read.
    pub(super) fn read(values: &'a [Value<'a>], unsigned: bool) -> Self {
        Self { values, rowid: None, unsigned }
    }

    /// Of a record in a page.
    pub(super) fn found(values: &'a [Value<'a>], rowid: i64) -> Self {
        let rowid = (values.first() == Some(&Value::Null)).then_some(rowid);
        Self { values, rowid, unsigned: false }
    }

    fn hold(&self, table: &str, columns: usize) -> bool {
        self.unsigned || record_holds(table, self.rowid, self.values, columns)
    }

    fn at(&self, at: usize) -> Value<'a> {
        match (at, self.rowid) {
            (0, Some(rowid)) => Value::Int(rowid),
            _ => self.values.get(at).copied().unwrap_or(Value::Null),
        }
    }

    fn int(&self, at: usize) -> Option<i64> {
        self.at(at).int()
    }

    fn small<T: TryFrom<i64>>(&self, at: usize) -> Option<T> {
        T::try_from(self.int(at)?).ok()
    }

    fn text(&self, at: usize) -> Option<&'a str> {
        let Value::Text(bytes) = self.at(at) else { return None };
        std::str::from_utf8(bytes).ok()
    }

    fn bytes(&self, at: usize) -> Option<&'a [u8]> {
        if let Value::Blob(bytes) = self.at(at) { Some(bytes) } else { None }
    }

    fn qos(&self, at: usize) -> Option<Qos> {
        Qos::from_bits(self.small(at)?)
    }

    fn kept(&self, wall: usize, boot: usize, boot_no: usize) -> Option<Kept> {
        Some(Kept { wall_ms: self.int(wall)?, boot_ms: self.int(boot), boot_no: self.int(boot_no) })
    }
}

/// A row of `broker_session`.
#[derive(Debug, Clone)]
pub(super) struct FoundSession {
    pub(super) no: i64,
    pub(super) client: Arc<str>,
    pub(super) owner: Arc<str>,
    pub(super) expiry_s: u32,
    pub(super) offline: Option<Kept>,
    pub(super) will: Option<Will>,
    /// Something of it was lost, and its client does not know yet.
    pub(super) incomplete: bool,
}

pub(super) fn session(row: Columns<'_>) -> Option<FoundSession> {
    if !row.hold("broker_session", SESSION) {
        return None;
    }
    let will = match row.text(7) {
        None => None,
        Some(topic) => {
            let mut message = Message::new(topic, row.bytes(10)?.to_vec(), row.qos(8)?);
            message.retain = row.int(9)? != 0;
            message.properties = row.bytes(11).map(Bytes::copy_from_slice).unwrap_or_default();
            Some(Will { message: Arc::new(message), delay_s: row.small(5)?, expiry_s: row.small(6) })
        }
    };
    Some(FoundSession {
        no: row.int(0)?,
        client: row.text(1)?.into(),
        owner: row.text(2)?.into(),
        expiry_s: row.small(3)?,
        offline: row.kept(4, 12, 13),
        will,
        incomplete: row.int(14) == Some(1),
    })
}

pub(super) fn subscription(row: Columns<'_>) -> Option<(i64, Arc<str>, Options)> {
    if !row.hold("broker_subscription", SUBSCRIPTION) {
        return None;
    }
    let options = Options {
        qos: row.qos(2)?,
        no_local: row.int(3)? != 0,
        retain_as_published: row.int(4)? != 0,
        retain_handling: 0,
        id: row.small(5),
    };
    Some((row.int(0)?, row.text(1)?.into(), options))
}

pub(super) fn incoming(row: Columns<'_>) -> Option<(i64, u16)> {
    row.hold("broker_incoming", INCOMING).then(|| Some((row.int(0)?, row.small(1)?)))?
}

/// Client, messages, first and last time.
pub(super) fn lost(row: Columns<'_>) -> Option<(&str, i64, i64, i64)> {
    row.hold("broker_lost", LOST).then(|| Some((row.text(0)?, row.int(1)?, row.int(2)?, row.int(3)?)))?
}

/// A row of `broker_queue`, whose checksum holds.
#[derive(Debug, Clone)]
pub(super) struct Queued {
    pub(super) place: u64,
    pub(super) session: i64,
    pub(super) packet_id: u16,
    pub(super) released: bool,
    pub(super) ids: Option<Vec<u8>>,
    pub(super) message: Message,
    pub(super) expires: Option<Kept>,
}

/// Columns of a queued row in the order of its table.
pub(super) const QUEUED: &str = "SELECT place, session, packet_id, qos, retain, released, ids, topic, payload, \
    properties, expires_wall_ms, crc, expires_boot_ms, boot_no FROM broker_queue";

pub(super) fn queued(row: Columns<'_>) -> Option<Queued> {
    if row.values.len() != 14 {
        return None;
    }
    let mut message = Message::new(row.text(7)?, row.bytes(8)?.to_vec(), row.qos(3)?);
    message.properties = row.bytes(9).map(Bytes::copy_from_slice).unwrap_or_default();
    message.retain = row.int(4)? != 0;
    let found = Queued {
        place: row.int(0)?.cast_unsigned(),
        session: row.int(1)?,
        packet_id: row.small(2)?,
        released: row.int(5)? != 0,
        ids: row.bytes(6).map(<[u8]>::to_vec),
        message,
        expires: row.kept(10, 12, 13),
    };
    let (crc, boot_no) = (row.small::<u32>(11)?, row.int(13));
    let is_good = match boot_no {
        // An older release: a released row had none.
        None => found.released || old_checksum(&found.message) == crc,
        Some(_) if found.released => released_checksum(found.place, found.packet_id) == crc,
        Some(boot_no) => found.checksum(boot_no) == crc,
    };
    is_good.then_some(found)
}

impl Queued {
    /// Of a row that is not released.
    pub(super) fn checksum(&self, boot_no: i64) -> u32 {
        let [wall_ms, boot_ms] = numbers_of(self.expires);
        let numbers = [
            self.place.cast_signed(),
            self.session,
            self.packet_id.into(),
            self.message.qos as i64,
            self.message.retain.into(),
            wall_ms,
            boot_ms,
            boot_no,
        ];
        checksum(&numbers, self.ids.as_deref().unwrap_or_default(), &self.message)
    }

    /// What a client gets of it.
    pub(super) fn delivery(self, expires_at: Option<std::time::Duration>) -> Delivery {
        let mut message = self.message;
        message.expires_at = expires_at;
        let word = |id: &[u8]| u32::from_le_bytes(id.try_into().expect("four bytes"));
        let ids = self.ids.map(|bytes| bytes.chunks_exact(4).map(word).collect());
        Delivery { qos: message.qos, retain: message.retain, ids, message: Arc::new(message) }
    }

    /// As the queue takes it.
    pub(super) fn restored(self, expires_at: Option<std::time::Duration>) -> Restored {
        let Self { packet_id, place, released, .. } = self;
        Restored { packet_id, place, released, delivery: self.delivery(expires_at) }
    }
}

/// A row of `broker_retained`, whose checksum holds.
pub(super) fn retained(row: Columns<'_>) -> Option<(Message, Option<Kept>)> {
    if row.values.len() != 8 {
        return None;
    }
    let mut message = Message::new(row.text(0)?, row.bytes(2)?.to_vec(), row.qos(1)?).retained();
    message.properties = row.bytes(3).map(Bytes::copy_from_slice).unwrap_or_default();
    let expires = row.kept(4, 6, 7);
    let [wall_ms, boot_ms] = numbers_of(expires);
    let expected = match row.int(7) {
        None => old_checksum(&message),
        Some(boot_no) => checksum(&[message.qos as i64, wall_ms, boot_ms, boot_no], &[], &message),
    };
    (i64::from(expected) == row.int(5)?).then_some((message, expires))
}
