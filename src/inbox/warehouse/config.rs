//! Where the database is and what it may cost.

use std::path::PathBuf;

use serde::Deserialize;

/// Settings of the link to PostgreSQL. Version 14 or later.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WarehouseConfig {
    /// Name or address of the server.
    pub host: String,
    /// 5432 is usual.
    pub port: u16,
    /// Role.
    pub user: String,
    /// A file that holds the role's password and nothing else; a line end at its end does not count.
    pub password_file: Option<PathBuf>,
    /// Database.
    pub database: String,
    /// Connections, and so transactions at once, of this process: 1 to 32.
    pub connections: usize,
    /// For name look-up, TCP, TLS and login together.
    pub connect_timeout_ms: u64,
    /// For one transaction. The server ends a statement that takes longer.
    pub transaction_timeout_ms: u64,
    /// Hash partitions of the table of rows, fixed when the tables are made: 1 to 1024.
    pub partitions: u16,
    /// Most series. A batch that would begin another one is refused and not acknowledged.
    pub max_series: u64,
}

impl Default for WarehouseConfig {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 5432,
            user: "forebay".to_owned(),
            password_file: None,
            database: "forebay".to_owned(),
            connections: 2,
            connect_timeout_ms: 10_000,
            transaction_timeout_ms: 30_000,
            partitions: 16,
            max_series: 100_000_000,
        }
    }
}
