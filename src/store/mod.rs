//! The one SQLite file of a gateway: open, migrate, one writer with group commit, readers.
//!
//! Every durable row of every room lives in `forebay.db`, so that one transaction can hold a reading's effects in
//! several rooms and one sync of the disk can acknowledge hundreds of readings.
//!
//! What this room promises:
//! - `done(Ok)` runs only after the commit that holds the work has returned from the disk (WAL, `synchronous=FULL`).
//! - A commit that failed acknowledges nothing. Its frames are never synced again: the writer drops its connection
//!   and wipes and overwrites them from a new one, while another connection keeps the log's end where it was. A start, which may
//!   find them whole in the system's cache, writes the last commit of the log again before it adds to it.
//! - The process starts whatever the file holds: a bad one is set aside as `*.quarantine-<wall_ms>` and a new epoch begins.
//! - Opening reads nothing that grows with the queue. Of the tables that are read whole at every start it follows the
//!   pages first, so that none of their rows is hidden; a room does that for others when it first reads them.
//!
//! Limits: queued work in records and bytes, the database and its log in bytes, readers in number.
//!
//! Architecture invariant: nothing else in the program opens a database connection or writes through one.

mod boot;
mod checkpoint;
mod checksum;
mod config;
mod connection;
mod error;
mod headless;
mod health;
mod log;
mod metrics;
mod open;
mod quarantine;
mod queue;
mod reader;
mod renew;
mod room;
mod salvage;
mod schema;
mod stale;
mod structure;
mod submit;
mod tx;
mod vfs;
mod writer;

pub use boot::INSERT_BOOT;
pub use checksum::{record_holds, row_crc};
pub use config::Config;
pub use error::{Closed, CommitError, Error, Full};
pub use health::Health;
pub use metrics::Metrics;
pub use open::{Opened, Store};
pub use reader::Reader;
pub use salvage::{Pages, Record, Scanned, Value, Wreck};
pub use schema::{BOOT_HOLDS, Schema};
pub use submit::Writer;
pub use tx::Tx;
pub use vfs::{Call, Disk, Event, Fault, Faults, Harm, Synchronous, Trace, Watch};
