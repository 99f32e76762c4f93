//! What operators did, each entry bound to the one before by its hash.
//!
//! An entry that is changed, removed from the middle or put in is found by [`verify`]. Whoever can write the file can also
//! write a whole new chain, or cut the newest entries off: for that, [`Head`] has to be told to somebody else now and then,
//! and compared.

use rusqlite::{Connection, OptionalExtension as _};
use serde::Serialize;

use crate::base::{Digest, Stamp};
use crate::store::{Error, Tx};

/// Longest actor, action and target.
const MAX_NAME_BYTES: usize = 256;
/// Longest detail.
const MAX_DETAIL_BYTES: usize = 4096;
/// Entries that one look reads.
const MAX_PAGE: usize = 1000;

/// What somebody did. Never a secret, a prompt or an answer. Long texts are cut: an action does not fail for its entry.
#[derive(Debug, Clone, Copy, Default)]
pub struct Action<'a> {
    /// Who: a name that the gateway knows, such as a key's id.
    pub actor: &'a str,
    /// What, in words with dots: `key.create`.
    pub action: &'a str,
    /// To what.
    pub target: &'a str,
    /// More about it, as JSON or a sentence; up to 4 KiB.
    pub detail: &'a str,
}

/// The newest entry: what an outsider keeps to find out whether entries were cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its number.
    pub no: i64,
    /// Its hash.
    pub hash: Digest,
}

/// An entry as it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its number, rising.
    pub no: i64,
    /// When, milliseconds since 1970.
    pub time_ms: i64,
    /// How far that can be trusted: `unsynced`, `rtc`, `ntp`.
    pub clock: String,
    /// Who.
    pub actor: String,
    /// What.
    pub action: String,
    /// To what.
    pub target: String,
    /// More about it.
    pub detail: String,
    /// Its hash, in hexadecimal digits.
    pub hash: String,
}

/// What came of looking at the whole chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chain {
    /// Each entry is what was written and follows the one before.
    Whole {
        /// How many there are.
        entries: u64,
        /// The newest, if there is one.
        head: Option<Head>,
    },
    /// The first entry that is not what was written, or does not follow the one before.
    Broken {
        /// Its number.
        no: i64,
    },
}

/// Enters an action, in the transaction of its effect: both happen or neither does. The oldest entries beyond `keep` go.
pub fn enter(tx: &Tx<'_>, stamp: Stamp, action: &Action<'_>, keep: u64) -> Result<Head, Error> {
    let newest = tx
        .prepare_cached("SELECT no, hash FROM ledger_audit ORDER BY no DESC LIMIT 1")?
        .query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, [u8; 32]>(1)?)))
        .optional()?;
    let (last, before) = newest.unwrap_or_default();
    let no = last + 1;
    let clock = stamp.state.as_str();
    let (actor, name, target) = (cut(action.actor), cut(action.action), cut(action.target));
    let detail = &action.detail[..action.detail.floor_char_boundary(MAX_DETAIL_BYTES)];
    let hash = hash(&before, no, stamp.wall_ms, [clock, actor, name, target, detail]);
    tx.execute(
        "INSERT INTO ledger_audit VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        (no, stamp.wall_ms, clock, actor, name, target, detail, before, hash.as_bytes()),
    )?;
    let through = no.saturating_sub(i64::try_from(keep).unwrap_or(i64::MAX));
    if through > 0 {
        tx.execute("DELETE FROM ledger_audit WHERE no <= ?1", [through])?;
    }
    Ok(Head { no, hash })
}

/// The newest entry.
pub fn head(connection: &Connection) -> Result<Option<Head>, Error> {
    let found = connection
        .prepare_cached("SELECT no, hash FROM ledger_audit ORDER BY no DESC LIMIT 1")?
        .query_row([], |row| Ok(Head { no: row.get(0)?, hash: row.get::<_, [u8; 32]>(1)?.into() }))
        .optional()?;
    Ok(found)
}

/// Up to `most` entries (1,000 at most) before number `before`, newest first.
pub fn entries(connection: &Connection, before: Option<i64>, most: usize) -> Result<Vec<Entry>, Error> {
    let mut statement = connection.prepare_cached(
        "SELECT no, time_ms, clock, actor, action, target, detail, hex(hash) FROM ledger_audit
         WHERE no < ?1 ORDER BY no DESC LIMIT ?2",
    )?;
    let most = i64::try_from(most.clamp(1, MAX_PAGE)).unwrap_or(i64::MAX);
    let entries = statement.query_map((before.unwrap_or(i64::MAX), most), |row| {
        Ok(Entry {
            no: row.get(0)?,
            time_ms: row.get(1)?,
            clock: row.get(2)?,
            actor: row.get(3)?,
            action: row.get(4)?,
            target: row.get(5)?,
            detail: row.get(6)?,
            hash: row.get::<_, String>(7)?.to_lowercase(),
        })
    })?;
    Ok(entries.collect::<Result<_, _>>()?)
}

/// Looks at every entry that is kept. The oldest may follow one that is not kept any more; its word for that is taken.
/// `known` is a head that was told to somebody before: an entry of its number must have its hash, unless it is too old.
pub fn verify(connection: &Connection, known: Option<Head>) -> Result<Chain, Error> {
    let mut statement = connection.prepare_cached(
        "SELECT no, time_ms, clock, actor, action, target, detail, before, hash FROM ledger_audit ORDER BY no",
    )?;
    let mut rows = statement.query([])?;
    let (mut entries, mut newest): (u64, Option<Head>) = (0, None);
    while let Some(row) = rows.next()? {
        let no: i64 = row.get(0)?;
        let Some((before, hash)) = intact(row, no) else { return Ok(Chain::Broken { no }) };
        let follows = newest.is_none_or(|newest| newest.no + 1 == no && *newest.hash.as_bytes() == before)
            && (no > 1 || before == [0; 32]);
        if !follows || known.is_some_and(|known| known.no == no && known.hash != hash) {
            return Ok(Chain::Broken { no });
        }
        newest = Some(Head { no, hash });
        entries += 1;
    }
    match known {
        Some(known) if newest.is_none_or(|newest| newest.no < known.no) => Ok(Chain::Broken { no: known.no }),
        _ => Ok(Chain::Whole { entries, head: newest }),
    }
}

/// The hash of the entry before and the entry's own, if it is the one of its columns.
fn intact(row: &rusqlite::Row<'_>, no: i64) -> Option<([u8; 32], Digest)> {
    let text = |at| row.get_ref(at).ok().and_then(|value| value.as_str().ok());
    let columns = [text(2)?, text(3)?, text(4)?, text(5)?, text(6)?];
    let before: [u8; 32] = row.get(7).ok()?;
    let said: [u8; 32] = row.get(8).ok()?;
    let hash = hash(&before, no, row.get(1).ok()?, columns);
    (*hash.as_bytes() == said).then_some((before, hash))
}

/// Over everything, each text with its length, so that no two entries have the same bytes.
fn hash(before: &[u8; 32], no: i64, time_ms: i64, texts: [&str; 5]) -> Digest {
    let mut bytes = Vec::with_capacity(64 + texts.iter().map(|text| text.len() + 8).sum::<usize>());
    bytes.extend_from_slice(before);
    bytes.extend(no.to_le_bytes());
    bytes.extend(time_ms.to_le_bytes());
    for text in texts {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    Digest::of(&bytes)
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_NAME_BYTES)]
}
