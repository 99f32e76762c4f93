//! The inbox in PostgreSQL, shared by any number of collectors.
//!
//! The effect is once because the set of received numbers is read and written under a lock of the series' row, in the
//! transaction that inserts the rows: of two collectors that got the same batch the second one waits, and then sees
//! that nothing is new. A transaction whose fate is unknown (the line broke during COMMIT) counts as failed: its
//! messages come again, and whatever did happen is found there.
//!
//! Limits: connections, rows of one transaction (by the caller's batches), series, time for each transaction.

mod apply;
mod config;
mod connection;
mod report;
mod schema;
mod tls;

pub use apply::{Incoming, Reject, Warehouse};
pub use config::WarehouseConfig;
pub use connection::{TlsFiles, WarehouseError};
