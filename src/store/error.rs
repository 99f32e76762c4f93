//! What can go wrong with the file, and what a holder of work is told about it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::ErrorCode;

use crate::base::{FileError, Refusal};

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder, the epoch file or a quarantine rename.
    #[error("failed to {step} {}", path.display())]
    File {
        /// What was tried.
        step: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A small file beside the database.
    #[error("failed to keep the epoch")]
    Replace(#[from] FileError),
    /// The database cannot be opened, for a reason other than its content.
    #[error("failed to open {}", path.display())]
    Open {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A statement.
    #[error("failed to run a statement")]
    Sql(#[from] rusqlite::Error),
    /// A room's tables were written by a newer version of this program.
    #[error(
        "{room} tables are at version {found}, this program knows {known}: run the newer version, or move the file away"
    )]
    Newer {
        /// The room.
        room: &'static str,
        /// The version in the file.
        found: usize,
        /// The newest version this program knows.
        known: usize,
    },
    /// The commit that held this work failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store is closed.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// A thread could not be started.
    #[error("failed to start the {name} thread")]
    Thread {
        /// Which one.
        name: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// Pages that do not hang together: rows may be hidden.
    #[error("the pages of {table} do not hang together: {what}")]
    Structure {
        /// The table.
        table: &'static str,
        /// What SQLite found.
        what: String,
    },
    /// A value in a row that this program never writes.
    #[error("a row of {table} holds a value that was never written: {what}")]
    Row {
        /// The table.
        table: &'static str,
        /// Which value.
        what: String,
    },
}

impl Error {
    /// True if the disk did not sync a file: what was written to it before may never reach the disk.
    pub(super) fn is_failed_sync(&self) -> bool {
        let Self::Sql(rusqlite::Error::SqliteFailure(failure, _)) = self else { return false };
        failure.extended_code == rusqlite::ffi::SQLITE_IOERR_FSYNC
    }

    /// True if the file's content is at fault, rather than the disk or the program.
    pub fn is_corruption(&self) -> bool {
        match self {
            Self::Sql(source) | Self::Open { source, .. } => {
                // A value of a type that this program never writes is as good a sign as SQLite's own.
                matches!(source.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
                    || matches!(
                        source,
                        rusqlite::Error::InvalidColumnType(..)
                            | rusqlite::Error::FromSqlConversionFailure(..)
                            | rusqlite::Error::IntegralValueOutOfRange(..)
                            | rusqlite::Error::Utf8Error(..)
                    )
            }
            Self::Structure { .. } | Self::Row { .. } | Self::Commit(CommitError::Corrupt(_)) => true,
            _ => false,
        }
    }

    /// As the holders of the other work in the batch are told.
    pub(super) fn to_commit_error(&self) -> CommitError {
        let what: Arc<str> = chain(self).into();
        match self {
            Self::Commit(error) => error.clone(),
            Self::Sql(source) if source.sqlite_error_code() == Some(ErrorCode::DiskFull) => CommitError::Full(what),
            Self::Closed(_) => CommitError::Closed,
            _ if self.is_corruption() => CommitError::Corrupt(what),
            _ => CommitError::Disk(what),
        }
    }
}

/// The error and its causes on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}

/// Why a batch was not committed. Nothing in it may be acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The disk refused, or its state is unknown.
    #[error("failed to commit: {0}")]
    Disk(Arc<str>),
    /// The file's content is at fault: the next start sets it aside.
    #[error("failed to commit, the file is corrupt: {0}")]
    Corrupt(Arc<str>),
    /// The disk or the byte limit is full.
    #[error("failed to commit, no space: {0}")]
    Full(Arc<str>),
    /// The store closed before the work ran.
    #[error("failed to commit: the store is closed")]
    Closed,
}

impl From<CommitError> for Refusal {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Disk(_) | CommitError::Corrupt(_) => Self::Disk,
            CommitError::Full(_) => Self::Full,
            CommitError::Closed => Self::Dropped,
        }
    }
}

/// The store is closed; the work was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("failed to submit: the store is closed")]
pub struct Closed;

/// No room in the queue (or the store is closed): the work comes back.
pub struct Full<W, D> {
    /// The work as given.
    pub work: W,
    /// The callback as given.
    pub done: D,
    /// True if waiting will not help.
    pub closed: bool,
}

impl<W, D> fmt::Debug for Full<W, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Full").field("closed", &self.closed).finish_non_exhaustive()
    }
}
