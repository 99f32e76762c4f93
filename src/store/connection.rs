//! The only place that opens connections, and the settings that each kind gets.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::checksum;
use super::config::{Config, PAGE_BYTES};
use super::error::Error;
use super::vfs::Disk;

/// Longest wait for a lock that a checkpoint of another process (a debugger's `sqlite3`) may hold.
const BUSY_MS: u64 = 5000;
/// Longest that a checkpoint waits for readers while the writer waits for it.
const CHECKPOINT_BUSY_MS: u64 = 50;

/// The writer's connection: creates the file.
pub(super) fn open_writer(config: &Config, path: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let connection = open(&config.disk, path, flags)?;
    connection.pragma_update(None, "page_size", PAGE_BYTES.cast_signed())?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    settle(&connection, &config.disk, BUSY_MS, 1024)?;
    connection.pragma_update(None, "journal_size_limit", config.restart_bytes.cast_signed())?;
    limit_pages(&connection, config.insert_pages())?;
    connection.set_prepared_statement_cache_capacity(128);
    Ok(connection)
}

/// The checkpointer's connection. It stays open while the writer's is replaced, which keeps the index of the log and
/// with it the log's last good end: frames of a failed commit stay behind it and are overwritten.
pub(super) fn open_checkpointer(config: &Config, path: &Path) -> Result<Connection, Error> {
    let connection = open(&config.disk, path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    settle(&connection, &config.disk, CHECKPOINT_BUSY_MS, 64)?;
    connection.pragma_update(None, "journal_size_limit", config.restart_bytes.cast_signed())?;
    // A connection joins the log at its first read.
    connection.query_row("SELECT count(*) FROM sqlite_schema WHERE 0", [], |_| Ok(()))?;
    Ok(connection)
}

/// A read-only connection.
pub(super) fn open_reader(disk: &Disk, path: &Path) -> Result<Connection, Error> {
    let connection = open(disk, path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    settle(&connection, disk, BUSY_MS, 256)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// A connection to a file that was set aside. It reads the file's log and never copies it back.
pub(super) fn open_wreck(path: &Path) -> Result<Connection, Error> {
    let disk = Disk::default();
    let connection = open(&disk, path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    settle(&connection, &disk, 0, 256)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(connection)
}

/// Whether closing this connection, if it is the last, leaves the log as it is.
pub(super) fn leave_log_at_close(connection: &Connection, leave: bool) -> rusqlite::Result<bool> {
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, leave)
}

/// Sets the most pages the file may grow to. SQLite answers `SQLITE_FULL` beyond, as on a full disk.
pub(super) fn limit_pages(connection: &Connection, pages: u64) -> Result<(), Error> {
    connection.prepare_cached(&format!("PRAGMA max_page_count = {pages}"))?.query_row([], |_| Ok(()))?;
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "this is the way the ban points to")]
fn open(disk: &Disk, path: &Path, flags: OpenFlags) -> Result<Connection, Error> {
    // One thread at a time uses a connection, which Rust's types hold; SQLite's own mutexes only cost time.
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    match disk.vfs() {
        None => Connection::open_with_flags(path, flags),
        Some(vfs) => Connection::open_with_flags_and_vfs(path, flags, vfs),
    }
    .map_err(|source| Error::Open { path: path.to_owned(), source })
}

/// `cache_kib` bounds the page cache of this connection: the whole gateway has 25 MB.
fn settle(connection: &Connection, disk: &Disk, busy_ms: u64, cache_kib: i64) -> Result<(), Error> {
    // Closing the last connection would copy the log back and give it up, whatever the checkpointer knows about the disk.
    leave_log_at_close(connection, true)?;
    checksum::register(connection)?;
    connection.busy_timeout(std::time::Duration::from_millis(busy_ms))?;
    connection.pragma_update(None, "synchronous", disk.synchronous().as_str())?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(())
}

/// A database of its own, for tests of what a connection can do.
#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "this is the way the ban points to")]
pub(super) fn in_memory() -> Connection {
    let connection = Connection::open_in_memory().expect("memory is there");
    checksum::register(&connection).expect("a new connection takes a function");
    connection
}
