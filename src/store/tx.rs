//! The transaction that a batch of work shares.

use std::cell::RefCell;

use rusqlite::{CachedStatement, Connection, Params, Row};

use super::config::PAGE_BYTES;
use super::error::Error;

/// Told on the writer thread how the transaction ended: true after its commit returned from the disk.
pub(super) type After = Box<dyn FnOnce(bool) + Send>;
/// Runs in the transaction after everything else.
pub(super) type Before = Box<dyn FnOnce(&Tx<'_>) -> Result<(), Error> + Send>;

/// One transaction of the writer. Statements are prepared once and kept.
pub struct Tx<'a> {
    connection: &'a Connection,
    number: u64,
    boot_no: i64,
    before: RefCell<Vec<Before>>,
    after: RefCell<Vec<After>>,
}

impl<'a> Tx<'a> {
    pub(super) fn new(connection: &'a Connection, number: u64, boot_no: i64) -> Self {
        Self { connection, number, boot_no, before: RefCell::default(), after: RefCell::default() }
    }

    /// Runs what waited for the end of the work, in order. Such work may leave more of its kind.
    pub(super) fn run_before_commit(&self) -> Result<(), Error> {
        loop {
            let works = self.before.take();
            if works.is_empty() {
                return Ok(());
            }
            for work in works {
                work(self)?;
            }
        }
    }

    pub(super) fn into_after(self) -> Vec<After> {
        self.after.into_inner()
    }

    /// Runs one statement; returns the number of rows changed.
    pub fn execute(&self, sql: &str, params: impl Params) -> Result<usize, Error> {
        Ok(self.connection.prepare_cached(sql)?.execute(params)?)
    }

    /// Reads one row. No row is `rusqlite::Error::QueryReturnedNoRows`.
    pub fn query_row<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        Ok(self.connection.prepare_cached(sql)?.query_row(params, read)?)
    }

    /// A statement from the cache.
    pub fn prepare_cached(&self, sql: &str) -> Result<CachedStatement<'a>, Error> {
        Ok(self.connection.prepare_cached(sql)?)
    }

    /// The row of `boot` that times since boot in this transaction count from.
    pub fn boot_no(&self) -> i64 {
        self.boot_no
    }

    /// Differs between any two transactions of this process, failed ones included.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Calls `told` on the writer thread when the transaction has ended: with true after its commit returned from
    /// the disk, with false if it failed. Runs before the `done` of the work. For state in memory that mirrors rows.
    pub fn after(&self, told: impl FnOnce(bool) + Send + 'static) {
        self.after.borrow_mut().push(Box::new(told));
    }

    /// Runs `work` in this transaction once all other work of it has run: for what is written once a transaction
    /// however many pieces of work it holds. Like other work it may fail only for the disk's reasons.
    pub fn before_commit(&self, work: impl FnOnce(&Tx<'_>) -> Result<(), Error> + Send + 'static) {
        self.before.borrow_mut().push(Box::new(work));
    }

    /// Bytes of the database file that hold something, as this transaction sees them. The log is not counted.
    pub fn used_bytes(&self) -> Result<u64, Error> {
        let pages: i64 = self.query_row("PRAGMA page_count", [], |row| row.get(0))?;
        let free: i64 = self.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
        Ok(pages.saturating_sub(free).max(0).cast_unsigned() * PAGE_BYTES)
    }
}
