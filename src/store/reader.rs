//! A small pool of read-only connections.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::config::Config;
use super::connection::open_reader;
use super::error::{Closed, Error, chain};
use super::health::HealthBoard;
use super::metrics::Metrics;
use super::quarantine;
use super::structure;
use super::vfs::Disk;
use crate::base::Clock;

struct Pool {
    database: PathBuf,
    disk: Disk,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
    health: Arc<HealthBoard>,
}

/// Reads committed rows. A cheap clone; never waits for the writer.
#[derive(Clone)]
pub struct Reader {
    pool: Arc<Pool>,
}

impl Reader {
    pub(super) fn open(config: &Config, database: &Path, health: Arc<HealthBoard>) -> Result<Self, Error> {
        let readers = config.readers.max(1);
        let idle = (0..readers).map(|_| open_reader(&config.disk, database)).collect::<Result<Vec<_>, _>>()?;
        let permits = Arc::new(Semaphore::new(readers));
        Ok(Self {
            pool: Arc::new(Pool {
                database: database.to_owned(),
                disk: config.disk.clone(),
                idle: Mutex::new(idle),
                permits,
                health,
            }),
        })
    }

    /// Looks into a file that another process may be writing, without taking part: nothing is migrated, marked or counted.
    pub fn of_another_process(config: &Config, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let health = Arc::new(HealthBoard::new(clock, Metrics::default()));
        Self::open(config, &config.database(), health)
    }

    /// Runs `read` on a blocking thread, inside one snapshot. Waits while all connections are in use.
    /// Keep it short: the log cannot start over while a snapshot is open.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let permit = Arc::clone(&self.pool.permits).acquire_owned().await.map_err(|_| Closed)?;
        let pool = Arc::clone(&self.pool);
        let outcome = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            pool.read(read)
        });
        outcome.await.map_err(|_| Closed)?
    }

    /// Follows the pages of `table`, which takes as long as reading it. If they do not hang together the file is distrusted.
    pub async fn follow(&self, table: &'static str) -> Result<(), Error> {
        self.read(move |connection| structure::follow(connection, table)).await
    }

    /// A room found what it wrote to be wrong beyond repair: the next start sets the file aside.
    pub fn distrust(&self, what: &str) {
        self.pool.distrust(what);
    }

    pub(super) fn close(&self) {
        self.pool.permits.close();
        self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Pool {
    fn distrust(&self, what: &str) {
        quarantine::mark(&self.database);
        self.health.failing(what, true);
    }

    fn read<T>(&self, read: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
        if self.permits.is_closed() {
            return Err(Closed.into());
        }
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // None is left only if an earlier read panicked and took its connection along.
        let mut connection = match idle {
            Some(connection) => connection,
            None => open_reader(&self.disk, &self.database)?,
        };
        let outcome = snapshot(&mut connection, read);
        if let Err(error) = &outcome
            && error.is_corruption()
        {
            self.distrust(&chain(error));
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // Checked under the lock, or a read that ends during close would keep a connection alive.
        if !self.permits.is_closed() {
            idle.push(connection);
        }
        outcome
    }
}

fn snapshot<T>(connection: &mut Connection, read: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
    let tx = connection.transaction()?;
    read(&tx)
}
