//! Rows of keys and tenants. Each carries its checksum; one that does not hold is never served.

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::grant::{Role, User};
use super::record::Record;
use super::tenant::Tenant;
use crate::base::{Digest, Name};
use crate::store::{Error, Schema, Tx};

/// This room's tables.
pub const SCHEMA: Schema = Schema {
    room: "access",
    steps: &["
        CREATE TABLE access_key (
            no INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, tenant TEXT NOT NULL, team TEXT,
            user TEXT, role TEXT NOT NULL, models TEXT NOT NULL, routes TEXT NOT NULL, ends_with TEXT NOT NULL,
            sha256 BLOB NOT NULL UNIQUE, old_sha256 BLOB, old_until_ms INTEGER, not_before_ms INTEGER, expires_ms INTEGER,
            created_ms INTEGER NOT NULL, rotated_ms INTEGER, revoked_ms INTEGER, crc INTEGER NOT NULL
        );
        CREATE INDEX access_key_by_name ON access_key (tenant, name);
        -- Apart, because it is written often and losing it loses nothing.
        CREATE TABLE access_key_used (no INTEGER PRIMARY KEY, used_ms INTEGER NOT NULL, crc INTEGER NOT NULL);
        CREATE TABLE access_tenant (
            name TEXT PRIMARY KEY, created_ms INTEGER NOT NULL, suspended_ms INTEGER, crc INTEGER NOT NULL
        ) WITHOUT ROWID;
    "],
    read_at_start: &["access_key", "access_key_used", "access_tenant"],
};

const COLUMNS: &str =
    "no, id, name, tenant, team, user, role, models, routes, ends_with, sha256, old_sha256, old_until_ms,
    not_before_ms, expires_ms, created_ms, rotated_ms, revoked_ms";

/// Everything that a start needs.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) keys: Vec<(Record, Option<i64>)>,
    pub(super) tenants: Vec<Tenant>,
    pub(super) unreadable: u64,
}

/// [`load`] of a file that was set aside: one from before there were keys has none.
pub(super) fn load_wreck(connection: &Connection) -> Result<Loaded, Error> {
    let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'access_key')";
    if connection.query_row(sql, [], |row| row.get(0))? { load(connection) } else { Ok(Loaded::default()) }
}

pub(super) fn load(connection: &Connection) -> Result<Loaded, Error> {
    let mut loaded = Loaded::default();
    let sql = format!(
        "SELECT {COLUMNS}, crc IS row_crc('access_key', {COLUMNS}), (SELECT used_ms FROM access_key_used AS used
         WHERE used.no = access_key.no AND used.crc IS row_crc('access_key_used', used.no, used_ms))
         FROM access_key ORDER BY no"
    );
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if row.get(18)? {
            loaded.keys.push((record(row)?, row.get(19)?));
        } else {
            loaded.unreadable += 1;
        }
    }
    let mut statement = connection.prepare(
        "SELECT name, created_ms, suspended_ms, crc IS row_crc('access_tenant', name, created_ms, suspended_ms)
         FROM access_tenant ORDER BY name",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if row.get(3)? {
            loaded.tenants.push(tenant(row)?);
        } else {
            loaded.unreadable += 1;
        }
    }
    Ok(loaded)
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        no: row.get(0)?,
        id: row.get::<_, String>(1)?.into(),
        name: name(row, 2)?,
        tenant: name(row, 3)?,
        team: optional(row, 4, |text| Name::new(text).ok())?,
        user: optional(row, 5, |text| User::new(text).ok())?,
        role: Role::parse(&row.get::<_, String>(6)?).ok_or_else(|| wrong(6))?,
        models: serde_json::from_str(&row.get::<_, String>(7)?).map_err(|_| wrong(7))?,
        routes: serde_json::from_str(&row.get::<_, String>(8)?).map_err(|_| wrong(8))?,
        ends_with: row.get(9)?,
        sha256: Digest::from(row.get::<_, [u8; 32]>(10)?),
        old_sha256: row.get::<_, Option<[u8; 32]>>(11)?.map(Digest::from),
        old_until_ms: row.get(12)?,
        not_before_ms: row.get(13)?,
        expires_ms: row.get(14)?,
        created_ms: row.get(15)?,
        rotated_ms: row.get(16)?,
        revoked_ms: row.get(17)?,
    })
}

fn tenant(row: &Row<'_>) -> rusqlite::Result<Tenant> {
    Ok(Tenant { name: name(row, 0)?, created_ms: Some(row.get(1)?), suspended_ms: row.get(2)? })
}

fn name(row: &Row<'_>, column: usize) -> rusqlite::Result<Name> {
    Name::new(&row.get::<_, String>(column)?).map_err(|_| wrong(column))
}

fn optional<T>(row: &Row<'_>, column: usize, read: impl Fn(&str) -> Option<T>) -> rusqlite::Result<Option<T>> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| read(&text).ok_or_else(|| wrong(column))).transpose()
}

/// A value that this program never writes.
fn wrong(column: usize) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, "not a value that is ever written".into())
}

/// The key of this id, as the transaction sees it.
pub(super) fn find(tx: &Tx<'_>, id: &str) -> Result<Option<Record>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM access_key WHERE id = ?1 AND crc IS row_crc('access_key', {COLUMNS})");
    Ok(tx.prepare_cached(&sql)?.query_row([id], record).optional()?)
}

/// How many keys there are.
pub(super) fn count(tx: &Tx<'_>) -> Result<u64, Error> {
    let count: i64 = tx.query_row("SELECT count(*) FROM access_key", [], |row| row.get(0))?;
    Ok(count.max(0).cast_unsigned())
}

/// Whether a key that is not revoked has this name in this tenant.
pub(super) fn is_taken(tx: &Tx<'_>, tenant: &Name, name: &Name) -> Result<bool, Error> {
    let sql = "SELECT EXISTS (SELECT 1 FROM access_key WHERE tenant = ?1 AND name = ?2 AND revoked_ms IS NULL)";
    tx.query_row(sql, params![tenant.as_str(), name.as_str()], |row| row.get(0))
}

/// Whether a key has, or had, a text of this digest.
pub(super) fn is_known(tx: &Tx<'_>, id: &str, sha256: &Digest) -> Result<bool, Error> {
    let sql = "SELECT EXISTS (SELECT 1 FROM access_key WHERE id = ?1 OR sha256 = ?2 OR old_sha256 = ?2)";
    tx.query_row(sql, params![id, sha256.as_bytes()], |row| row.get(0))
}

/// Whether a key was ever made in this file.
pub(super) fn is_fresh(tx: &Tx<'_>) -> Result<bool, Error> {
    let sql = "SELECT NOT EXISTS (SELECT 1 FROM access_key)
        AND NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'access_key' AND seq > 0)";
    tx.query_row(sql, [], |row| row.get(0))
}

/// A row of another file, under its number.
pub(super) fn take_over(tx: &Tx<'_>, record: &Record) -> Result<(), Error> {
    put(tx, record.no, record)
}

/// A new row; returns its number.
pub(super) fn insert(tx: &Tx<'_>, record: &Record) -> Result<i64, Error> {
    let next = "SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'access_key'), 0),
        coalesce((SELECT max(no) FROM access_key), 0)) + 1";
    let no = tx.query_row(next, [], |row| row.get(0))?;
    put(tx, no, record)?;
    Ok(no)
}

/// The row that was there, as it is now.
pub(super) fn replace(tx: &Tx<'_>, record: &Record) -> Result<(), Error> {
    tx.execute("DELETE FROM access_key WHERE no = ?1", [record.no])?;
    put(tx, record.no, record)
}

fn put(tx: &Tx<'_>, no: i64, record: &Record) -> Result<(), Error> {
    const MARKS: &str = "?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18";
    let list = |patterns| serde_json::to_string(patterns).expect("a list of texts is JSON");
    tx.execute(
        &format!("INSERT INTO access_key ({COLUMNS}, crc) VALUES ({MARKS}, row_crc('access_key', {MARKS}))"),
        params![
            no,
            &*record.id,
            record.name.as_str(),
            record.tenant.as_str(),
            record.team.as_ref().map(Name::as_str),
            record.user.as_ref().map(User::as_str),
            record.role.as_str(),
            list(&record.models),
            list(&record.routes),
            record.ends_with,
            record.sha256.as_bytes(),
            record.old_sha256.as_ref().map(Digest::as_bytes),
            record.old_until_ms,
            record.not_before_ms,
            record.expires_ms,
            record.created_ms,
            record.rotated_ms,
            record.revoked_ms,
        ],
    )?;
    Ok(())
}

/// Takes the row away.
pub(super) fn remove(tx: &Tx<'_>, no: i64) -> Result<(), Error> {
    tx.execute("DELETE FROM access_key_used WHERE no = ?1", [no])?;
    tx.execute("DELETE FROM access_key WHERE no = ?1", [no])?;
    Ok(())
}

/// When keys were last used.
pub(super) fn put_used(tx: &Tx<'_>, used: &[(i64, i64)]) -> Result<(), Error> {
    for (no, used_ms) in used {
        tx.execute(
            "INSERT OR REPLACE INTO access_key_used
             SELECT no, ?2, row_crc('access_key_used', no, ?2) FROM access_key WHERE no = ?1",
            [no, used_ms],
        )?;
    }
    Ok(())
}

/// The tenant of this name, as the transaction sees it.
pub(super) fn find_tenant(tx: &Tx<'_>, name: &Name) -> Result<Option<Tenant>, Error> {
    let sql = "SELECT name, created_ms, suspended_ms FROM access_tenant
        WHERE name = ?1 AND crc IS row_crc('access_tenant', name, created_ms, suspended_ms)";
    Ok(tx.prepare_cached(sql)?.query_row([name.as_str()], tenant).optional()?)
}

/// How many tenants have rows.
pub(super) fn count_tenants(tx: &Tx<'_>) -> Result<u64, Error> {
    let count: i64 = tx.query_row("SELECT count(*) FROM access_tenant", [], |row| row.get(0))?;
    Ok(count.max(0).cast_unsigned())
}

/// How many keys a tenant has, revoked ones included.
pub(super) fn count_keys_of(tx: &Tx<'_>, tenant: &Name) -> Result<u64, Error> {
    let sql = "SELECT count(*) FROM access_key WHERE tenant = ?1";
    let count: i64 = tx.query_row(sql, [tenant.as_str()], |row| row.get(0))?;
    Ok(count.max(0).cast_unsigned())
}

/// Writes the tenant's row.
pub(super) fn put_tenant(tx: &Tx<'_>, tenant: &Tenant, created_ms: i64) -> Result<(), Error> {
    tx.execute(
        "INSERT OR REPLACE INTO access_tenant VALUES (?1, ?2, ?3, row_crc('access_tenant', ?1, ?2, ?3))",
        params![tenant.name.as_str(), created_ms, tenant.suspended_ms],
    )?;
    Ok(())
}

/// Takes the tenant's row away.
pub(super) fn remove_tenant(tx: &Tx<'_>, name: &Name) -> Result<(), Error> {
    tx.execute("DELETE FROM access_tenant WHERE name = ?1", [name.as_str()])?;
    Ok(())
}

/// For the tests of what a bad row does.
#[cfg(test)]
pub(super) fn spoil(tx: &Tx<'_>, id: &str) -> Result<(), Error> {
    tx.execute("UPDATE access_key SET role = 'operator' WHERE id = ?1", [id])?;
    Ok(())
}
