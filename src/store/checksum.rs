//! The checksum of a row, as a function of SQL: a statement that writes a row writes what the row is, and a statement
//! that reads one asks for it, without carrying the columns through Rust.
//!
//! `row_crc('table', column, ...)` covers the table's name, so that a record found in a page without its tree is known
//! for what it is, and each column with its type and length. It catches a flipped bit, not an attacker.

use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::ValueRef;

use super::error::Error;
use super::salvage::Value;
use crate::base::row_checksum;

/// Most columns of a row with a checksum.
const MAX_COLUMNS: usize = 24;

/// Makes `row_crc` known to a connection.
pub(super) fn register(connection: &Connection) -> Result<(), Error> {
    // Not for the schema: whoever opens the file with another program finds plain tables.
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_DIRECTONLY;
    connection.create_scalar_function("row_crc", -1, flags, |context| {
        let columns: Vec<_> = (0..context.len()).map(|at| context.get_raw(at)).collect();
        Ok(over(&columns))
    })?;
    Ok(())
}

/// What `row_crc` gives for these columns of `table`.
pub fn row_crc(table: &str, columns: &[ValueRef<'_>]) -> i64 {
    let mut all = Vec::with_capacity(columns.len() + 1);
    all.push(ValueRef::Text(table.as_bytes()));
    all.extend_from_slice(columns);
    over(&all)
}

/// True if the last of `values` is the checksum of the others, as a record of `table` with `columns` columns has it. The
/// place of an integer primary key is empty in a record: there `rowid` stands for the first column.
pub fn record_holds(table: &str, rowid: Option<i64>, values: &[Value<'_>], columns: usize) -> bool {
    if values.len() != columns + 1 || columns > MAX_COLUMNS {
        return false;
    }
    let Value::Int(said) = values[columns] else { return false };
    let mut known = [ValueRef::Null; MAX_COLUMNS];
    for (at, value) in values[..columns].iter().enumerate() {
        known[at] = match *value {
            Value::Null => ValueRef::Null,
            Value::Int(value) => ValueRef::Integer(value),
            Value::Real(value) => ValueRef::Real(value),
            Value::Text(bytes) => ValueRef::Text(bytes),
            Value::Blob(bytes) => ValueRef::Blob(bytes),
        };
    }
    if let (Some(rowid), Some(first)) = (rowid, known.first_mut()) {
        *first = ValueRef::Integer(rowid);
    }
    row_crc(table, &known[..columns]) == said
}

fn over(columns: &[ValueRef<'_>]) -> i64 {
    let mut bytes = Vec::with_capacity(columns.len() * 12);
    for column in columns {
        let (kind, body): (u8, &[u8]) = match column {
            ValueRef::Null => (0, &[]),
            ValueRef::Integer(value) => {
                bytes.push(1);
                bytes.extend(value.to_le_bytes());
                continue;
            }
            ValueRef::Real(value) => {
                bytes.push(2);
                bytes.extend(value.to_le_bytes());
                continue;
            }
            ValueRef::Text(body) => (3, body),
            ValueRef::Blob(body) => (4, body),
        };
        bytes.push(kind);
        bytes.extend((body.len() as u64).to_le_bytes());
        bytes.extend(body);
    }
    row_checksum(&[&bytes]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sql_and_rust_agree_and_every_column_counts() {
        let connection = crate::store::connection::in_memory();
        let of = |sql: &str| -> i64 { connection.query_row(sql, [], |row| row.get(0)).unwrap() };
        let said = of("SELECT row_crc('item', 7, 'press', x'0102', NULL, 1.5)");
        let columns = [
            ValueRef::Integer(7),
            ValueRef::Text(b"press"),
            ValueRef::Blob(&[1, 2]),
            ValueRef::Null,
            ValueRef::Real(1.5),
        ];
        assert_eq!(said, row_crc("item", &columns));
        let values =
            [Value::Null, Value::Text(b"press"), Value::Blob(&[1, 2]), Value::Null, Value::Real(1.5), Value::Int(said)];
        assert!(record_holds("item", Some(7), &values, 5));
        assert!(!record_holds("item", Some(8), &values, 5) && !record_holds("other", Some(7), &values, 5));
        for other in [
            "SELECT row_crc('other', 7, 'press', x'0102', NULL, 1.5)",
            "SELECT row_crc('item', 6, 'press', x'0102', NULL, 1.5)",
            "SELECT row_crc('item', 7, 'pres', 's' || x'0102', NULL, 1.5)",
            "SELECT row_crc('item', 7, 'press', x'0102', 0, 1.5)",
            "SELECT row_crc('item', 7, 'press', x'0102', NULL)",
        ] {
            assert_ne!(of(other), said, "{other}");
        }
    }
}
