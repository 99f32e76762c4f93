//! The transaction that a batch of work shares.

use std::cell::RefCell;

use rusqlite::{CachedStatement, Connection, Params, Row};

use super::error::Error;

/// Told on the writer thread how the transaction ended: true after its commit returned from the disk.
pub(super) type After = Box<dyn FnOnce(bool) + Send>;

/// One transaction of the writer. Statements are prepared once and kept.
pub struct Tx<'a> {
    connection: &'a Connection,
    number: u64,
    boot_no: i64,
    after: RefCell<Vec<After>>,
}

impl<'a> Tx<'a> {
    pub(super) fn new(connection: &'a Connection, number: u64, boot_no: i64) -> Self {
        Self { connection, number, boot_no, after: RefCell::default() }
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
}
