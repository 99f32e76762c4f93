//! Records a page at a time, newest first.

use std::fmt;
use std::str::FromStr;

use rusqlite::Connection;

use super::pack::unpack;
use super::record::Call;
use crate::store::Error;

/// Most records of a page.
const MAX_PAGE: usize = 1000;
/// Blocks that one page looks through at most.
const MAX_BLOCKS: usize = 1000;

/// Where a page begins: after this record, going back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    no: i64,
    /// Records of the block that come before; 0 is none of them.
    rows: usize,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.no, self.rows)
    }
}

/// A text that is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("failed to read a cursor: use the one that the page before gave")]
pub struct CursorError;

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (no, rows) = text.split_once('-').ok_or(CursorError)?;
        Ok(Self { no: no.parse().map_err(|_| CursorError)?, rows: rows.parse().map_err(|_| CursorError)? })
    }
}

/// Which records are asked for; an absent condition holds for all.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Goes on where the page before ended.
    pub after: Option<Cursor>,
    /// Most records, up to 1,000.
    pub most: usize,
    /// From this time on, milliseconds since 1970.
    pub from_ms: Option<i64>,
    /// Up to this time.
    pub to_ms: Option<i64>,
    /// With this id.
    pub id: Option<String>,
    /// Of this tenant.
    pub tenant: Option<String>,
    /// Of this key.
    pub key: Option<String>,
    /// Of this user.
    pub user: Option<String>,
    /// Of this route.
    pub route: Option<String>,
    /// Asked from this model, or answered by it.
    pub model: Option<String>,
    /// Answered with a status of 400 or more.
    pub failed: bool,
}

impl Query {
    fn holds(&self, call: &Call) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        let model = &self.model;
        self.from_ms.is_none_or(|from_ms| call.time_ms >= from_ms)
            && self.to_ms.is_none_or(|to_ms| call.time_ms <= to_ms)
            && is(&self.id, &call.id)
            && is(&self.tenant, &call.tenant)
            && is(&self.key, &call.key)
            && is(&self.user, &call.user)
            && is(&self.route, &call.route)
            && (is(model, &call.model_asked) || is(model, &call.model_answered))
            && (!self.failed || call.status >= 400)
    }
}

/// Some records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Newest first, as far as they were recorded in order.
    pub calls: Vec<Call>,
    /// Where the next page begins; None at the end. A page may have few records, or none, and still have a next one.
    pub next: Option<Cursor>,
    /// Blocks whose checksum was wrong; their records are left out.
    pub damaged_blocks: u64,
}

/// Reads a page. It looks through at most 1,000 blocks, so that a rare condition costs many short reads rather than a
/// long one.
pub fn calls(connection: &Connection, query: &Query) -> Result<Page, Error> {
    let most = query.most.clamp(1, MAX_PAGE);
    let after = query.after.unwrap_or(Cursor { no: i64::MAX, rows: usize::MAX });
    let mut statement = connection.prepare_cached(
        "SELECT no, body, crc IS row_crc('ledger_block', no, first_ms, last_ms, rows, bytes, body) FROM ledger_block
         WHERE no <= ?1 AND last_ms >= ?2 AND first_ms <= ?3 ORDER BY no DESC LIMIT ?4",
    )?;
    let mut rows = statement.query((
        after.no,
        query.from_ms.unwrap_or(i64::MIN),
        query.to_ms.unwrap_or(i64::MAX),
        i64::try_from(MAX_BLOCKS).unwrap_or(i64::MAX),
    ))?;
    let mut page = Page::default();
    let (mut blocks, mut last) = (0, after.no);
    while let Some(row) = rows.next()? {
        blocks += 1;
        last = row.get(0)?;
        let whole =
            if row.get::<_, bool>(2)? { unpack(row.get_ref(1)?.as_blob().unwrap_or_default()).ok() } else { None };
        let Some(calls) = whole else {
            page.damaged_blocks += 1;
            continue;
        };
        let before = if last == after.no { after.rows } else { usize::MAX };
        for (at, call) in calls.into_iter().enumerate().rev().filter(|(at, _)| *at < before) {
            if page.calls.len() == most {
                page.next = Some(Cursor { no: last, rows: at + 1 });
                return Ok(page);
            }
            if query.holds(&call) {
                page.calls.push(call);
            }
        }
    }
    if blocks == MAX_BLOCKS {
        page.next = Some(Cursor { no: last, rows: 0 });
    }
    Ok(page)
}
