//! The lender's table.

use super::book::Book;
use super::config::Budget;
use crate::quota::Unit;
use crate::store::{Error, Schema, Tx};

/// The lender's table: a row a budget.
pub const SCHEMA: Schema = Schema {
    room: "lend",
    steps: &["
        -- What is lent of a budget and to whom, as JSON.
        CREATE TABLE lend_book (
            level TEXT NOT NULL, name TEXT NOT NULL, unit TEXT NOT NULL, body TEXT NOT NULL, crc INTEGER NOT NULL,
            PRIMARY KEY (level, name, unit)
        ) WITHOUT ROWID;
    "],
    // A row that is hidden would be a budget lent twice.
    read_at_start: &["lend_book"],
};

const READ: &str =
    "SELECT level, name, unit, body, crc IS row_crc('lend_book', level, name, unit, body) FROM lend_book";
const PUT: &str = "INSERT OR REPLACE INTO lend_book VALUES (?1, ?2, ?3, ?4, row_crc('lend_book', ?1, ?2, ?3, ?4))";

/// Whose book a row is.
pub type Key = (String, String, Unit);

pub(super) fn key_of(budget: &Budget) -> Key {
    (budget.level.clone(), budget.name.clone(), budget.unit)
}

/// A book as it is written.
pub(super) struct Row {
    key: Key,
    body: String,
}

impl Row {
    pub(super) fn of(budget: &Budget, book: &Book) -> Self {
        Self { key: key_of(budget), body: serde_json::to_string(book).expect("numbers and texts become JSON") }
    }

    pub(super) fn bytes(&self) -> usize {
        self.body.len() + 128
    }

    pub(super) fn put(&self, tx: &Tx<'_>) -> Result<(), Error> {
        let (level, name, unit) = &self.key;
        tx.execute(PUT, (level, name, unit.as_str(), &self.body)).map(drop)
    }
}

/// All books of a file. One that cannot be read is an error: what it says was lent is not lent again.
pub fn read(connection: &rusqlite::Connection) -> Result<Vec<(Key, Book)>, Error> {
    let mut statement = connection.prepare(READ)?;
    let mut rows = statement.query([])?;
    let mut books = Vec::new();
    while let Some(row) = rows.next()? {
        let wrong = |what: String| Error::Row { table: "lend_book", what };
        let (level, name): (String, String) = (row.get(0)?, row.get(1)?);
        if !row.get::<_, bool>(4)? {
            return Err(wrong(format!("the row of {level} {name:?} has a wrong checksum")));
        }
        let (unit, body): (String, String) = (row.get(2)?, row.get(3)?);
        let unit = serde_json::from_value(unit.into()).map_err(|error| wrong(format!("{level} {name:?}: {error}")))?;
        let book = serde_json::from_str(&body).map_err(|error| wrong(format!("{level} {name:?}: {error}")))?;
        books.push(((level, name, unit), book));
    }
    Ok(books)
}
