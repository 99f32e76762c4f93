//! The room's table.

use std::sync::Arc;

use rusqlite::Statement;

use super::unit::{Span, Unit};
use crate::store::{Error, Schema, Tx};

/// This room's table.
pub const SCHEMA: Schema = Schema {
    room: "quota",
    steps: &["
        -- What a name has spent of a budget in a period, and what requests under way had reserved of it. A lease's row says
        -- what was granted and until when, too.
        CREATE TABLE quota_spent (
            level TEXT NOT NULL, name TEXT NOT NULL, unit TEXT NOT NULL, span TEXT NOT NULL, period INTEGER NOT NULL,
            spent INTEGER NOT NULL, held INTEGER NOT NULL, amount INTEGER, ends_ms INTEGER, crc INTEGER NOT NULL,
            PRIMARY KEY (level, name, unit, span, period)
        ) WITHOUT ROWID;
    "],
    // A row that is hidden would be a budget given twice.
    read_at_start: &["quota_spent"],
};

const READ: &str = "SELECT level, name, unit, span, period, spent, held, amount, ends_ms,
    crc IS row_crc('quota_spent', level, name, unit, span, period, spent, held, amount, ends_ms)
    FROM quota_spent ORDER BY level, name, unit, span, period";
const PUT: &str = "INSERT OR REPLACE INTO quota_spent VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9,
    row_crc('quota_spent', ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9))";
const DROP_BAD: &str = "DELETE FROM quota_spent
    WHERE crc IS NOT row_crc('quota_spent', level, name, unit, span, period, spent, held, amount, ends_ms)";

/// One budget of one name in one period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) level: Box<str>,
    pub(super) name: Arc<str>,
    pub(super) unit: Unit,
    pub(super) span: Span,
    pub(super) period: i64,
    pub(super) spent: u64,
    pub(super) held: u64,
    pub(super) amount: Option<u64>,
    pub(super) ends_ms: Option<i64>,
}

impl Row {
    pub(super) fn used(&self) -> u64 {
        self.spent.saturating_add(self.held)
    }

    pub(super) fn is_same_budget(&self, other: &Self) -> bool {
        (&self.level, &self.name, self.unit, self.span) == (&other.level, &other.name, other.unit, other.span)
    }

    pub(super) fn put(&self, tx: &Tx<'_>) -> Result<(), Error> {
        let row = (
            &*self.level,
            &*self.name,
            self.unit.as_str(),
            self.span.as_str(),
            self.period,
            signed(self.spent),
            signed(self.held),
            self.amount.map(signed),
            self.ends_ms,
        );
        tx.execute(PUT, row).map(drop)
    }
}

/// Removes rows of a budget that are of none of these periods.
pub(super) fn keep_only(
    tx: &Tx<'_>,
    budget: (&str, &str, Unit, Span),
    current: i64,
    previous: Option<i64>,
) -> Result<(), Error> {
    let (level, name, unit, span) = budget;
    tx.execute(
        "DELETE FROM quota_spent
         WHERE level = ?1 AND name = ?2 AND unit = ?3 AND span = ?4 AND period <> ?5 AND period IS NOT ?6",
        (level, name, unit.as_str(), span.as_str(), current, previous),
    )
    .map(drop)
}

/// Removes what is known of a name.
pub(super) fn forget(tx: &Tx<'_>, level: &str, name: &str) -> Result<(), Error> {
    tx.execute("DELETE FROM quota_spent WHERE level = ?1 AND name = ?2", (level, name)).map(drop)
}

/// All rows that are what was written, in order, and how many are not; those are removed.
pub(super) fn read_and_clean(tx: &Tx<'_>) -> Result<(Vec<Row>, u64), Error> {
    let (rows, bad) = read(&mut *tx.prepare_cached(READ)?)?;
    if bad > 0 {
        tx.execute(DROP_BAD, [])?;
    }
    Ok((rows, bad))
}

/// [`read_and_clean`] of a file that is not written to.
pub(super) fn read_wreck(wreck: &rusqlite::Connection) -> Result<Vec<Row>, Error> {
    Ok(read(&mut wreck.prepare(READ)?)?.0)
}

fn read(statement: &mut Statement<'_>) -> Result<(Vec<Row>, u64), Error> {
    let (mut found, mut bad) = (Vec::new(), 0);
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        // Columns of a bad row may hold anything; they are not looked at.
        let whole = if row.get::<_, bool>(9)? { whole(row)? } else { None };
        match whole {
            Some(row) => found.push(row),
            None => bad += 1,
        }
    }
    Ok((found, bad))
}

/// None for words that this release does not know.
fn whole(row: &rusqlite::Row<'_>) -> Result<Option<Row>, Error> {
    let unit = row.get_ref(2)?.as_str().ok();
    let span = row.get_ref(3)?.as_str().ok();
    let Some(unit) = Unit::ALL.into_iter().find(|known| Some(known.as_str()) == unit) else { return Ok(None) };
    let Some(span) = Span::KEPT.into_iter().find(|known| Some(known.as_str()) == span) else { return Ok(None) };
    let unsigned = |value: i64| value.max(0).cast_unsigned();
    Ok(Some(Row {
        level: row.get::<_, String>(0)?.into(),
        name: row.get::<_, String>(1)?.into(),
        unit,
        span,
        period: row.get(4)?,
        spent: unsigned(row.get(5)?),
        held: unsigned(row.get(6)?),
        amount: row.get::<_, Option<i64>>(7)?.map(unsigned),
        ends_ms: row.get(8)?,
    }))
}

fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}
