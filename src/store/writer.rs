//! The writer thread: gathers, commits, answers, and starts over on a new connection after a failure.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use super::boot::{Boot, Noted};
use super::checkpoint::Gate;
use super::config::{Config, PAGE_BYTES};
use super::connection::{limit_pages, open_writer};
use super::error::{CommitError, Error};
use super::health::HealthBoard;
use super::metrics::Metrics;
use super::quarantine;
use super::queue::{Gathered, Job, Pace, Queue, Work};
use super::room::LogRoom;
use super::stale;
use super::tx::Tx;
use crate::base::Clock;

/// Everything the thread owns.
pub(super) struct WriterThread {
    pub(super) config: Config,
    pub(super) database: PathBuf,
    /// None between a failure and the next try.
    pub(super) connection: Option<Connection>,
    pub(super) queue: Arc<Queue>,
    pub(super) gate: Arc<Gate>,
    pub(super) health: Arc<HealthBoard>,
    pub(super) metrics: Metrics,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) boot: Boot,
    pub(super) room: LogRoom,
    pub(super) transactions: u64,
}

/// What a transaction writes about the clock.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Note {
    WhatIsDue,
    WallClock,
    /// The wall clock, if a whole batch would fit: a full file takes a word about the clock long before it takes readings.
    WallClockAndRoom {
        batch_bytes: u64,
        file_bytes: u64,
    },
}

/// Tells the log's length to the gate after every commit.
pub(super) fn watch_log(connection: &mut Connection, gate: &Arc<Gate>) -> Result<(), Error> {
    let gate = Arc::clone(gate);
    connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages| {
        gate.log_is(u64::try_from(pages).unwrap_or(0));
        Ok(())
    }))?;
    Ok(())
}

impl WriterThread {
    /// Until the queue is closed and drained.
    pub(super) fn run(mut self) {
        // A first guess; the disk's own figure takes over with the first commits.
        let mut sync = Duration::from_millis(1);
        let mut recent = [1, 1];
        let (mut failing, mut full) = (false, false);
        loop {
            let idle_ms = if failing { self.config.probe_ms } else { self.config.wall_persist_ms };
            let pace = Pace {
                expected: recent[0].max(recent[1]),
                window: Duration::from_micros(self.config.batch_window_us).min(sync / 2),
                idle: Duration::from_millis(idle_ms.max(1)),
            };
            let Some(Gathered { rides, mut jobs }) = self.queue.gather(&pace, &*self.clock) else { break };
            if rides.is_empty() && jobs.is_empty() {
                if failing {
                    failing = self.transact(Vec::new(), 0, self.probe(full)).is_err();
                } else if self.boot.is_due_when_idle() {
                    failing = self.transact(Vec::new(), 0, Note::WhatIsDue).is_err();
                }
                continue;
            }
            recent = [jobs.len(), recent[0]];
            let rode = rides.len();
            let taken = if jobs.is_empty() {
                self.transact_from_reserve(rides)
            } else if failing && rode > 0 {
                // Deletes alone first, up to the hard limit: they are what makes room again.
                let _ = self.transact_from_reserve(rides);
                self.transact(jobs, 0, Note::WhatIsDue)
            } else {
                let mut all = rides;
                all.append(&mut jobs);
                self.transact(all, rode, Note::WhatIsDue)
            };
            failing = taken.is_err();
            full = matches!(taken, Err(CommitError::Full(_)));
            if let Ok(took) = taken {
                // A moving average over about eight commits.
                sync = (sync * 7 + took) / 8;
            }
        }
        // The last wall clock is a courtesy to the next start; failing to write it changes nothing.
        let _ = self.transact(Vec::new(), 0, Note::WallClock);
    }

    /// What tells that commits work again.
    fn probe(&self, full: bool) -> Note {
        if !full {
            return Note::WallClock;
        }
        let file_bytes = self.config.insert_pages() * PAGE_BYTES;
        Note::WallClockAndRoom { batch_bytes: (self.config.batch_bytes as u64).min(file_bytes / 8), file_bytes }
    }

    fn transact_from_reserve(&mut self, rides: Vec<Job>) -> Result<Duration, CommitError> {
        let (most, usual) = (self.config.delete_pages(), self.config.insert_pages());
        if let Ok(connection) = self.connected() {
            let _ = limit_pages(connection, most);
        }
        let rode = rides.len();
        let outcome = self.transact(rides, rode, Note::WhatIsDue);
        if let Some(connection) = &self.connection {
            let _ = limit_pages(connection, usual);
        }
        outcome
    }

    /// Runs `jobs` (the first `rode` of them rides) in one transaction and answers them. Returns the time of COMMIT.
    fn transact(&mut self, jobs: Vec<Job>, rode: usize, note: Note) -> Result<Duration, CommitError> {
        let bytes: usize = jobs[rode..].iter().map(|job| job.bytes as usize).sum();
        let charged = jobs.len() - rode;
        let mut works = Vec::with_capacity(jobs.len());
        let mut dones = Vec::with_capacity(jobs.len());
        for job in jobs {
            works.push(job.work);
            dones.push(job.done);
        }
        self.gate.enter();
        let outcome = self.commit(works, note);
        self.gate.leave();
        match &outcome {
            Ok(took) => {
                self.metrics.commits.inc();
                self.metrics.records.inc_by(dones.len() as u64);
                self.metrics.bytes.inc_by(bytes as u64);
                self.metrics.batch_records.observe(dones.len() as f64);
                self.metrics.commit_seconds.observe(took.as_secs_f64());
                self.health.good();
            }
            Err(_) => {
                self.metrics.commit_failures.inc();
            }
        }
        self.queue.release(charged, bytes, rode);
        self.metrics.queue_records.set(i64::try_from(self.queue.waiting()).unwrap_or(i64::MAX));
        for done in dones {
            let answer = outcome.as_ref().map(drop).map_err(Clone::clone);
            // A callback that panics must not take the other answers with it.
            let _ = catch_unwind(AssertUnwindSafe(|| done(answer)));
        }
        outcome
    }

    fn commit(&mut self, works: Vec<Work>, note: Note) -> Result<Duration, CommitError> {
        if self.gate.is_log_full() {
            self.gate.kick();
            let error = CommitError::Full("the log is at its limit and a reader holds it".into());
            self.health.failing(&error.to_string(), false);
            return Err(error);
        }
        self.transactions += 1;
        let number = self.transactions;
        if let Err(error) = self.connected() {
            return Err(self.failed(&error));
        }
        let connection = self.connection.as_ref().expect("connected just above");
        let tx = Tx::new(connection, number, self.boot.no);
        let (clock, boot, room, log_pages) = (&*self.clock, &mut self.boot, &mut self.room, self.gate.log_pages());
        let outcome =
            catch_unwind(AssertUnwindSafe(|| run_works(&tx, works, note, boot, clock, || room.keep(log_pages))))
                .unwrap_or_else(|_| {
                    Err(Error::Commit(CommitError::Disk(
                        "a piece of work panicked; see the log before this line".into(),
                    )))
                });
        let after = tx.into_after();
        let outcome = outcome.map_err(|error| self.failed(&error));
        for told in after {
            let _ = catch_unwind(AssertUnwindSafe(|| told(outcome.is_ok())));
        }
        let (took, noted) = outcome?;
        self.boot.keep(&noted);
        Ok(took)
    }

    fn connected(&mut self) -> Result<&Connection, Error> {
        if self.connection.is_none() {
            let mut connection = open_writer(&self.config, &self.database)?;
            stale::wipe(&connection, &self.config)?;
            watch_log(&mut connection, &self.gate)?;
            self.connection = Some(connection);
        }
        Ok(self.connection.as_ref().expect("opened just above"))
    }

    /// Drops the connection, which rolls back and forgets its pages, and says so.
    fn failed(&mut self, error: &Error) -> CommitError {
        self.connection = None;
        let bad_content = error.is_corruption();
        if bad_content {
            quarantine::mark(&self.database);
        }
        let told = error.to_commit_error();
        self.health.failing(&told.to_string(), bad_content);
        told
    }
}

fn run_works(
    tx: &Tx<'_>,
    works: Vec<Work>,
    note: Note,
    boot: &mut Boot,
    clock: &dyn Clock,
    before_commit: impl FnOnce(),
) -> Result<(Duration, Noted), Error> {
    tx.execute("BEGIN IMMEDIATE", [])?;
    for work in works {
        work(tx)?;
    }
    tx.run_before_commit()?;
    let noted = match note {
        Note::WhatIsDue => boot.note(tx)?,
        Note::WallClock => boot.note_wall(tx)?,
        Note::WallClockAndRoom { batch_bytes, file_bytes } => {
            if tx.used_bytes()? + batch_bytes > file_bytes {
                return Err(Error::Commit(CommitError::Full("the byte limit leaves no room for a batch".into())));
            }
            boot.note_wall(tx)?
        }
    };
    before_commit();
    let began = clock.since_boot();
    tx.execute("COMMIT", [])?;
    Ok((clock.since_boot().saturating_sub(began), noted))
}
