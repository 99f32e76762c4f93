//! Tables of every room, stepped up one version at a time.

use rusqlite::{Connection, OptionalExtension};

use super::error::Error;

/// Tables of one room. Step `i` takes version `i` to `i + 1`; a step that was released is never edited.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    /// The room's name.
    pub room: &'static str,
    /// SQL of each step.
    pub steps: &'static [&'static str],
    /// Small tables that every start reads whole. Their pages are followed first: a row that is hidden is not missed.
    pub read_at_start: &'static [&'static str],
}

/// The store's own tables.
pub(super) const OWN: Schema = Schema {
    room: "store",
    steps: &[
        "
        CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
        CREATE TABLE boot (
            boot_no INTEGER PRIMARY KEY,
            boot_id BLOB NOT NULL,
            first_wall_ms INTEGER NOT NULL,
            first_boot_ms INTEGER NOT NULL,
            offset_ms INTEGER
        );
    ",
        "
        ALTER TABLE meta ADD COLUMN crc INTEGER;
        UPDATE meta SET crc = row_crc('meta', key, value);
        ALTER TABLE boot ADD COLUMN crc INTEGER;
        UPDATE boot SET crc = row_crc('boot', boot_no, boot_id, first_wall_ms, first_boot_ms, offset_ms);
    ",
    ],
    read_at_start: &["meta", "boot", "schema_version"],
};

/// The condition that a row of `boot` is what was written.
pub const BOOT_HOLDS: &str = "crc IS row_crc('boot', boot_no, boot_id, first_wall_ms, first_boot_ms, offset_ms)";

/// Brings every room to its newest version, in one transaction: after a crash all steps are done or none.
pub(super) fn migrate(connection: &mut Connection, schemas: &[Schema]) -> Result<(), Error> {
    let tx = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    tx.execute_batch(
        "CREATE TABLE IF NOT EXISTS schema_version (room TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID",
    )?;
    let columns = "SELECT count(*) FROM pragma_table_info('schema_version')";
    if tx.query_row(columns, [], |row| row.get::<_, i64>(0))? == 2 {
        tx.execute_batch(
            "ALTER TABLE schema_version ADD COLUMN crc INTEGER;
             UPDATE schema_version SET crc = row_crc('schema_version', room, version)",
        )?;
    }
    // A version that nobody wrote must not look like a newer program's.
    let bad = "SELECT count(*) FROM schema_version WHERE crc IS NOT row_crc('schema_version', room, version)";
    if tx.query_row(bad, [], |row| row.get::<_, i64>(0))? > 0 {
        return Err(Error::Row { table: "schema_version", what: "a wrong checksum".to_owned() });
    }
    // The tables' own names and columns are rows of the file like any others.
    let kept: Option<i64> =
        tx.query_row("SELECT version FROM schema_version WHERE room = ?1", [TABLES], |row| row.get(0)).optional()?;
    if kept.is_some_and(|kept| tables(&tx).is_ok_and(|tables| tables != kept)) {
        return Err(Error::Row { table: "sqlite_schema", what: "a wrong checksum".to_owned() });
    }
    for schema in std::iter::once(&OWN).chain(schemas) {
        let found: i64 = tx
            .query_row("SELECT version FROM schema_version WHERE room = ?1", [schema.room], |row| row.get(0))
            .optional()?
            .unwrap_or(0);
        let found = usize::try_from(found).unwrap_or(usize::MAX);
        let known = schema.steps.len();
        if found > known {
            return Err(Error::Newer { room: schema.room, found, known });
        }
        if found == known {
            continue;
        }
        for step in &schema.steps[found..] {
            tx.execute_batch(step)?;
        }
        tx.execute(
            "INSERT INTO schema_version VALUES (?1, ?2, row_crc('schema_version', ?1, ?2))
             ON CONFLICT (room) DO UPDATE SET version = excluded.version, crc = excluded.crc",
            (schema.room, i64::try_from(known).unwrap_or(i64::MAX)),
        )?;
    }
    let now = tables(&tx)?;
    if kept != Some(now) {
        tx.execute(
            "INSERT OR REPLACE INTO schema_version VALUES (?1, ?2, row_crc('schema_version', ?1, ?2))",
            (TABLES, now),
        )?;
    }
    tx.commit()?;
    Ok(())
}

/// The name under which the checksum of all tables' definitions is kept; no room's.
const TABLES: &str = "(tables)";

/// Over the definitions of all tables. Indexes may be added by whoever looks into a file.
fn tables(connection: &Connection) -> Result<i64, Error> {
    let sql = "SELECT coalesce(sum(row_crc('sqlite_schema', name, tbl_name, sql)), 0) FROM sqlite_schema
               WHERE type = 'table' AND name NOT LIKE 'sqlite%'";
    Ok(connection.query_row(sql, [], |row| row.get(0))?)
}
