//! Every row says what it was: a row that the disk has changed is not served.

use std::sync::LazyLock;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use rusqlite::Row;
use rusqlite::types::ValueRef;

use crate::base::row_checksum;

/// Rows are read by plain functions on any connection, so there is one count for the process.
static CORRUPT: LazyLock<Counter> = LazyLock::new(Counter::default);

/// Adds the metrics of this room to `registry`.
pub fn register(registry: &mut Registry) {
    registry.register("history_corrupt_rows", "Rows of the history whose checksum was wrong", CORRUPT.clone());
}

/// Over the columns in their order, each with its type and length.
pub(super) fn checksum(columns: &[ValueRef<'_>]) -> u32 {
    let mut bytes = Vec::with_capacity(columns.len() * 9);
    for column in columns {
        match column {
            ValueRef::Null => bytes.push(0),
            ValueRef::Integer(value) => {
                bytes.push(1);
                bytes.extend(value.to_le_bytes());
            }
            ValueRef::Real(value) => {
                bytes.push(2);
                // Whether minus zero keeps its sign on the disk is SQLite's business.
                bytes.extend((value + 0.0).to_le_bytes());
            }
            ValueRef::Text(text) | ValueRef::Blob(text) => {
                bytes.push(3);
                bytes.extend((text.len() as u64).to_le_bytes());
                bytes.extend(*text);
            }
        }
    }
    row_checksum(&[&bytes])
}

/// NaN is stored as NULL by SQLite itself.
pub(super) fn real(value: Option<f64>) -> ValueRef<'static> {
    value.filter(|value| !value.is_nan()).map_or(ValueRef::Null, ValueRef::Real)
}

/// A blob or a text, if there is one.
pub(super) fn bytes(value: Option<&[u8]>) -> ValueRef<'_> {
    value.map_or(ValueRef::Null, ValueRef::Blob)
}

/// True if the columns before the last are what the last says. Rows of an older release have no checksum.
pub(super) fn holds(row: &Row<'_>, columns: usize) -> rusqlite::Result<bool> {
    let ValueRef::Integer(said) = row.get_ref(columns)? else { return Ok(true) };
    let values = (0..columns).map(|at| row.get_ref(at)).collect::<Result<Vec<_>, _>>()?;
    let holds = i64::from(checksum(&values)) == said;
    if !holds {
        corrupt();
    }
    Ok(holds)
}

/// Counts and says it.
pub(super) fn corrupt() {
    CORRUPT.inc();
    tracing::error!("a row of the history has a wrong checksum and is not served");
}
