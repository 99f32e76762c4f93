//! A few connections: opened when needed, dropped with their first error.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, NoTls, Statement};

use super::config::WarehouseConfig;
use super::schema;
use super::tls::Rustls;

/// Reads the certificates, for each connection anew, so that renewed ones are taken up.
pub type TlsFiles = Arc<dyn Fn() -> Result<Arc<rustls::ClientConfig>, String> + Send + Sync>;

/// Why nothing was kept. Nothing of the transaction counts.
#[derive(Debug, thiserror::Error)]
pub enum WarehouseError {
    /// A setting that cannot work.
    #[error("failed to set up the link to PostgreSQL: {0}")]
    Setting(&'static str),
    /// The password's file.
    #[error("failed to read password_file {}: {source}", path.display())]
    Password {
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The certificates.
    #[error("failed to read the certificates for PostgreSQL: {0}")]
    Tls(String),
    /// The server, or the way to it.
    #[error("failed to {what} in PostgreSQL: {}", plain(source))]
    Database {
        /// What was being done.
        what: &'static str,
        /// What the server or the link said.
        source: tokio_postgres::Error,
    },
    /// No answer.
    #[error("failed to {what} in PostgreSQL within {limit_ms} ms")]
    Late {
        /// What was being done.
        what: &'static str,
        /// The limit.
        limit_ms: u64,
    },
    /// The tables are a newer release's.
    #[error("failed to use the tables in PostgreSQL: they are at step {found}, this release knows {known}")]
    Newer {
        /// Their step.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// What is in the tables contradicts itself.
    #[error("failed to read {table} in PostgreSQL: {what}")]
    Row {
        /// Where.
        table: &'static str,
        /// What is wrong.
        what: String,
    },
}

impl WarehouseError {
    /// True if the server found fault with what was to be written (SQLSTATE classes 22, 23 and 54), so that it will
    /// again, whenever it is asked.
    pub fn is_about_the_data(&self) -> bool {
        let Self::Database { source, .. } = self else { return false };
        source.code().is_some_and(|code| ["22", "23", "54"].iter().any(|class| code.code().starts_with(class)))
    }
}

/// The server's own words, which the driver's error keeps to itself.
fn plain(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(database), _) => format!("{} ({})", database.message(), database.code().code()),
        (None, Some(cause)) => format!("{error}: {cause}"),
        (None, None) => error.to_string(),
    }
}

/// Turns the driver's errors into ours.
pub(super) fn failed(what: &'static str) -> impl Fn(tokio_postgres::Error) -> WarehouseError {
    move |source| WarehouseError::Database { what, source }
}

/// Statements that a connection has prepared.
pub(super) struct Prepared {
    pub(super) find: Statement,
    pub(super) count: Statement,
    pub(super) create: Statement,
    pub(super) lock: Statement,
    pub(super) ranges: Statement,
    pub(super) declared: Statement,
    pub(super) insert_rows: Statement,
    pub(super) delete_ranges: Statement,
    pub(super) put_ranges: Statement,
    pub(super) declare: Statement,
    pub(super) update_series: Statement,
}

pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) prepared: Prepared,
    /// Serves the socket; ends with the connection.
    _service: JoinSet<()>,
}

/// The connections of one process.
pub(super) struct Pool {
    config: WarehouseConfig,
    tls: Option<TlsFiles>,
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
    migrated: AtomicBool,
}

/// A connection in use. Give it back with [`Pool::give_back`] if it is still good.
pub(super) struct Lease<'a> {
    pub(super) connection: Connection,
    _permit: SemaphorePermit<'a>,
}

impl Pool {
    pub(super) fn new(config: WarehouseConfig, tls: Option<TlsFiles>) -> Result<Self, WarehouseError> {
        if !(1..=32).contains(&config.connections) {
            return Err(WarehouseError::Setting("connections must be 1 to 32"));
        }
        if !(1..=1024).contains(&config.partitions) {
            return Err(WarehouseError::Setting("partitions must be 1 to 1024"));
        }
        if config.connect_timeout_ms == 0 || config.transaction_timeout_ms == 0 {
            return Err(WarehouseError::Setting("connect_timeout_ms and transaction_timeout_ms must not be 0"));
        }
        let permits = Semaphore::new(config.connections);
        Ok(Self { config, tls, idle: Mutex::default(), permits, migrated: AtomicBool::new(false) })
    }

    pub(super) fn config(&self) -> &WarehouseConfig {
        &self.config
    }

    /// An idle connection, or a new one.
    pub(super) async fn lease(&self) -> Result<Lease<'_>, WarehouseError> {
        let permit = self.permits.acquire().await.expect("the semaphore is never closed");
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match idle {
                Some(connection) if connection.client.is_closed() => {}
                Some(connection) => return Ok(Lease { connection, _permit: permit }),
                None => break,
            }
        }
        let limit_ms = self.config.connect_timeout_ms;
        let opened = tokio::time::timeout(Duration::from_millis(limit_ms), self.open()).await;
        let connection = opened.unwrap_or(Err(WarehouseError::Late { what: "connect", limit_ms }))?;
        Ok(Lease { connection, _permit: permit })
    }

    pub(super) fn give_back(&self, lease: Lease<'_>) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(lease.connection);
    }

    async fn open(&self) -> Result<Connection, WarehouseError> {
        let config = &self.config;
        let mut options = tokio_postgres::Config::new();
        let timeout_ms = config.transaction_timeout_ms;
        options
            .host(&config.host)
            .port(config.port)
            .user(&config.user)
            .dbname(&config.database)
            .application_name("forebay-collect")
            .connect_timeout(Duration::from_millis(config.connect_timeout_ms))
            .ssl_mode(if self.tls.is_some() { SslMode::Require } else { SslMode::Disable })
            // What is acknowledged after a COMMIT has to be on the server's disk.
            .options(format!(
                "-c synchronous_commit=on -c statement_timeout={timeout_ms} \
                 -c idle_in_transaction_session_timeout={timeout_ms}"
            ));
        if let Some(path) = &config.password_file {
            let password = std::fs::read_to_string(path)
                .map_err(|source| WarehouseError::Password { path: path.clone(), source })?;
            options.password(password.trim_end_matches(['\r', '\n']));
        }
        let mut service = JoinSet::new();
        // The driver's errors reach whoever uses the client.
        let client = match &self.tls {
            None => {
                let (client, connection) = options.connect(NoTls).await.map_err(failed("connect"))?;
                service.spawn(async move { drop(connection.await) });
                client
            }
            Some(files) => {
                let tls = Rustls(files().map_err(WarehouseError::Tls)?);
                let (client, connection) = options.connect(tls).await.map_err(failed("connect"))?;
                service.spawn(async move { drop(connection.await) });
                client
            }
        };
        let mut client = client;
        if !self.migrated.load(Ordering::Acquire) {
            self.migrate(&mut client).await?;
            self.migrated.store(true, Ordering::Release);
        }
        let prepared = prepare(&client).await?;
        Ok(Connection { client, prepared, _service: service })
    }

    async fn migrate(&self, client: &mut Client) -> Result<(), WarehouseError> {
        let failed = failed("make the tables");
        let tx = client.transaction().await.map_err(&failed)?;
        tx.execute("SELECT pg_advisory_xact_lock($1)", &[&schema::MIGRATION_LOCK]).await.map_err(&failed)?;
        tx.batch_execute("CREATE TABLE IF NOT EXISTS forebay_schema (step bigint PRIMARY KEY)")
            .await
            .map_err(&failed)?;
        let found = tx.query_one("SELECT coalesce(max(step), 0) FROM forebay_schema", &[]).await.map_err(&failed)?;
        let found: i64 = found.get(0);
        let known = i64::try_from(schema::STEPS.len()).unwrap_or(i64::MAX);
        if found > known {
            return Err(WarehouseError::Newer { found, known });
        }
        for (step, text) in (1_i64..).zip(schema::STEPS).filter(|(step, _)| *step > found) {
            let text = text.replace("{partitions}", &self.config.partitions.to_string());
            tx.batch_execute(&text).await.map_err(&failed)?;
            tx.execute("INSERT INTO forebay_schema VALUES ($1)", &[&step]).await.map_err(&failed)?;
        }
        tx.commit().await.map_err(&failed)
    }
}

async fn prepare(client: &Client) -> Result<Prepared, WarehouseError> {
    let prepare = async |sql: &str| client.prepare(sql).await.map_err(failed("prepare statements"));
    Ok(Prepared {
        find: prepare(schema::FIND).await?,
        count: prepare(schema::COUNT).await?,
        create: prepare(schema::CREATE).await?,
        lock: prepare(schema::LOCK).await?,
        ranges: prepare(schema::RANGES).await?,
        declared: prepare(schema::DECLARED).await?,
        insert_rows: prepare(schema::INSERT_ROWS).await?,
        delete_ranges: prepare(schema::DELETE_RANGES).await?,
        put_ranges: prepare(schema::PUT_RANGES).await?,
        declare: prepare(schema::DECLARE).await?,
        update_series: prepare(schema::UPDATE_SERIES).await?,
    })
}
