//! Copies pages from the log back into the database, off the path of acknowledgements.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use super::config::Config;
use super::connection::leave_log_at_close;
use super::error::{Error, chain};
use super::health::HealthBoard;
use super::metrics::Metrics;
use crate::base::Clock;

#[derive(Default)]
struct State {
    writing: bool,
    /// The checkpointer waits for the writer's transaction to end, or has the file.
    taking: bool,
    kicked: bool,
    closing: bool,
}

/// Lets the checkpointer have the file between two transactions, and tells it when the log is long.
/// A lock would let a busy writer win every race.
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
    log_pages: AtomicU64,
    /// Log length at which the next checkpoint is due.
    due_pages: AtomicU64,
    step_pages: u64,
    restart_pages: u64,
    most_pages: u64,
    metrics: Metrics,
}

impl Gate {
    pub(super) fn new(config: &Config, metrics: Metrics) -> Self {
        let step_pages = Config::log_pages(config.checkpoint_bytes);
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            log_pages: AtomicU64::new(0),
            due_pages: AtomicU64::new(step_pages),
            step_pages,
            restart_pages: Config::log_pages(config.restart_bytes).max(step_pages),
            most_pages: Config::log_pages(config.max_log_bytes),
            metrics,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer begins a transaction. Waits while the checkpointer has the file.
    pub(super) fn enter(&self) {
        let mut state = self.lock();
        while state.taking {
            state = self.wait(state);
        }
        state.writing = true;
    }

    /// The writer's transaction is over.
    pub(super) fn leave(&self) {
        let mut state = self.lock();
        state.writing = false;
        if state.taking {
            self.changed.notify_all();
        }
    }

    fn take(&self) {
        let mut state = self.lock();
        state.taking = true;
        while state.writing {
            state = self.wait(state);
        }
    }

    fn give_back(&self) {
        self.lock().taking = false;
        self.changed.notify_all();
    }

    /// A commit left the log `pages` long.
    pub(super) fn log_is(&self, pages: u64) {
        let before = self.log_pages.swap(pages, Ordering::Relaxed);
        if pages < before {
            self.due_pages.store(self.step_pages, Ordering::Relaxed);
        }
        self.metrics.log_pages.set(i64::try_from(pages).unwrap_or(i64::MAX));
        if pages >= self.due_pages.load(Ordering::Relaxed) {
            self.kick();
        }
    }

    /// Pages in the log after the last commit, as far as this run knows.
    pub(super) fn log_pages(&self) -> u64 {
        self.log_pages.load(Ordering::Relaxed)
    }

    /// True while the log is at its hard limit: nothing more may be written before a checkpoint got through.
    pub(super) fn is_log_full(&self) -> bool {
        self.log_pages.load(Ordering::Relaxed) >= self.most_pages
    }

    pub(super) fn kick(&self) {
        let mut state = self.lock();
        if !state.kicked {
            state.kicked = true;
            self.changed.notify_all();
        }
    }

    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.changed.notify_all();
    }

    /// Waits for a kick; false when closing.
    fn wait_for_kick(&self) -> bool {
        let mut state = self.lock();
        while !state.kicked && !state.closing {
            state = self.wait(state);
        }
        state.kicked = false;
        !state.closing
    }
}

/// The checkpointer thread, until the gate closes. Then empties the log, so that the next start has none to read.
///
/// After a failed sync there is no further checkpoint. SQLite counts a part of the log as copied back before the database
/// file was synced; pages that the failed sync lost would not be copied again, and the next good checkpoint would give
/// up the log that still has them. So the log stays, every commit goes on into it, and a new start, which counts
/// nothing as copied, copies all of it.
pub(super) fn run(connection: &Connection, gate: &Arc<Gate>, clock: &Arc<dyn Clock>, health: &HealthBoard) {
    while gate.wait_for_kick() {
        let began = clock.since_boot();
        match once(connection, gate) {
            Ok(()) => {
                gate.metrics.checkpoints.inc();
                gate.metrics.checkpoint_seconds.observe((clock.since_boot().saturating_sub(began)).as_secs_f64());
            }
            Err(error) => {
                gate.metrics.checkpoint_failures.inc();
                tracing::warn!(error = chain(&error), "a checkpoint failed; the log keeps every row");
                if error.is_failed_sync() {
                    health.failing("the disk failed to sync the database file; a new start reads the log anew", true);
                    while gate.wait_for_kick() {}
                    return;
                }
            }
        }
    }
    // All of it is in the database file and synced: now closing may take the empty log away.
    let emptied = checkpoint(connection, "TRUNCATE").and_then(|_| Ok(leave_log_at_close(connection, false)?));
    if let Err(error) = emptied {
        tracing::warn!(error = chain(&error), "the log was not emptied; the next start reads it");
    }
}

fn once(connection: &Connection, gate: &Gate) -> Result<(), Error> {
    let log = checkpoint(connection, "PASSIVE")?.log;
    // Counted from here, or a log that cannot start over would be checkpointed after every commit.
    gate.due_pages.store(log + gate.step_pages, Ordering::Relaxed);
    if log < gate.restart_pages {
        return Ok(());
    }
    // Nearly everything is copied, so the writer waits only for the rest.
    gate.take();
    let restarted = checkpoint(connection, "RESTART");
    if matches!(&restarted, Ok(result) if !result.busy) {
        gate.log_pages.store(0, Ordering::Relaxed);
        gate.due_pages.store(gate.step_pages, Ordering::Relaxed);
    }
    gate.give_back();
    restarted.map(drop)
}

struct Checkpointed {
    busy: bool,
    log: u64,
}

fn checkpoint(connection: &Connection, mode: &str) -> Result<Checkpointed, Error> {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    let (busy, log): (bool, i64) =
        connection.prepare_cached(&sql)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(Checkpointed { busy, log: u64::try_from(log).unwrap_or(0) })
}
