//! Handing work to the writer: waiting, not waiting, without urgency, or for a result.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::error::{Closed, CommitError, Error, Full};
use super::metrics::Metrics;
use super::queue::{Done, Job, Queue, Work};
use super::tx::Tx;

/// Submits work to the one writer thread. A cheap clone.
///
/// Work shares its transaction with other work and fails together with it, so work may fail only for the disk's
/// reasons: decide everything else before, or return it as a value. `bytes` is the size of what the work carries.
#[derive(Clone)]
pub struct Writer {
    pub(super) queue: Arc<Queue>,
    pub(super) metrics: Metrics,
}

impl Writer {
    /// Waits for room in the queue, then queues. `done` runs on the writer thread after the commit returned from the
    /// disk, or failed; it must not block. Dropping the future before it is ready submits nothing.
    pub async fn submit(
        &self,
        bytes: usize,
        work: impl FnOnce(&Tx<'_>) -> Result<(), Error> + Send + 'static,
        done: impl FnOnce(Result<(), CommitError>) + Send + 'static,
    ) -> Result<(), Closed> {
        let bytes = self.queue.cost(bytes);
        let record = self.queue.records.acquire().await.map_err(|_| Closed)?;
        let room = self.queue.bytes.acquire_many(bytes).await.map_err(|_| Closed)?;
        record.forget();
        room.forget();
        self.queue.push(Job { bytes, work: Box::new(work), done: Box::new(done) })
    }

    /// Queues if there is room now; gives everything back if not.
    pub fn try_submit<W, D>(&self, bytes: usize, work: W, done: D) -> Result<(), Full<W, D>>
    where
        W: FnOnce(&Tx<'_>) -> Result<(), Error> + Send + 'static,
        D: FnOnce(Result<(), CommitError>) + Send + 'static,
    {
        let bytes = self.queue.cost(bytes);
        let permits = self
            .queue
            .records
            .try_acquire()
            .and_then(|record| self.queue.bytes.try_acquire_many(bytes).map(|room| (record, room)));
        match permits {
            Ok((record, room)) => {
                record.forget();
                room.forget();
                // Closing between the permits and here drops the work; its `done` never runs and says so by silence.
                let _ = self.queue.push(Job { bytes, work: Box::new(work), done: Box::new(done) });
                Ok(())
            }
            Err(error) => {
                self.metrics.queue_refusals.inc();
                Err(Full { work, done, closed: error == tokio::sync::TryAcquireError::Closed })
            }
        }
    }

    /// Work without urgency, such as deletes after a cloud acknowledgement: rides in the next transaction, or commits
    /// alone after `ride_ms`. Waits for room in a queue of its own, bounded like the other one. It fails with the
    /// inserts it rides with, so be ready to submit it again; while commits fail it goes alone and may use the reserve.
    pub async fn ride(
        &self,
        bytes: usize,
        work: impl FnOnce(&Tx<'_>) -> Result<(), Error> + Send + 'static,
        done: impl FnOnce(Result<(), CommitError>) + Send + 'static,
    ) -> Result<(), Closed> {
        let bytes = self.queue.cost(bytes);
        self.queue.ride_records.acquire().await.map_err(|_| Closed)?.forget();
        self.queue.push_ride(Job { bytes, work: Box::new(work), done: Box::new(done) }, false)
    }

    /// Waits for the commit and returns what the work returned.
    pub async fn commit<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce(&Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (tell, told) = oneshot::channel();
        let (work, done) = with_result(work, move |result| drop(tell.send(result)));
        self.submit(bytes, work, done).await?;
        told.await.map_err(|_| Closed)?
    }

    /// [`commit`](Self::commit) for the loss ledger: may use the reserve, which a full file keeps for it.
    pub async fn commit_from_reserve<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (tell, told) = oneshot::channel();
        let (work, done) = with_result(work, move |result| drop(tell.send(result)));
        self.queue.ride_records.acquire().await.map_err(|_| Closed)?.forget();
        self.queue.push_ride(Job { bytes: 1, work, done }, true)?;
        told.await.map_err(|_| Closed)?
    }

    /// [`commit_from_reserve`](Self::commit_from_reserve) for start-up and shutdown: blocks the calling thread.
    /// `Closed` if the queue is full, which it is not at either time.
    pub fn commit_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let (work, done) = with_result(work, move |result| drop(tell.send(result)));
        self.queue.ride_records.try_acquire().map_err(|_| Closed)?.forget();
        self.queue.push_ride(Job { bytes: 1, work, done }, true)?;
        told.recv().map_err(|_| Closed)?
    }
}

/// Carries the value of `work` past the commit.
fn with_result<T: Send + 'static>(
    work: impl FnOnce(&Tx<'_>) -> Result<T, Error> + Send + 'static,
    tell: impl FnOnce(Result<T, Error>) + Send + 'static,
) -> (Work, Done) {
    let kept = Arc::new(Mutex::new(None));
    let slot = Arc::clone(&kept);
    let work = move |tx: &Tx<'_>| {
        let value = work(tx)?;
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        Ok(())
    };
    let done = move |result: Result<(), CommitError>| {
        let value = kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        tell(result.map_err(Error::Commit).and_then(|()| value.ok_or(Error::Closed(Closed))));
    };
    (Box::new(work), Box::new(done))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may spawn")]
mod tests {
    use super::*;
    use crate::base::{ManualClock, Refusal};
    use crate::store::{Config, Health, Schema, Store};
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    const SCHEMA: Schema =
        Schema { room: "test", steps: &["CREATE TABLE item (no INTEGER PRIMARY KEY, body BLOB)"], read_at_start: &[] };

    fn open(config: &Config) -> (Store, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let (store, _) = Store::open(config, &[SCHEMA], Arc::<ManualClock>::clone(&clock)).unwrap();
        (store, clock)
    }

    fn insert(size: usize) -> impl FnOnce(&Tx<'_>) -> Result<(), Error> + Send + 'static {
        move |tx| tx.execute("INSERT INTO item (body) VALUES (?1)", [vec![7_u8; size]]).map(drop)
    }

    async fn count(store: &Store) -> i64 {
        let count = |c: &rusqlite::Connection| Ok(c.query_row("SELECT count(*) FROM item", [], |row| row.get(0))?);
        store.reader().read(count).await.unwrap()
    }

    /// What a SIGKILL leaves: the file and its log as they are now, without the index in memory.
    fn copy_as_a_crash_leaves_it(from: &Path, to: &Path) {
        for entry in std::fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            if !path.to_string_lossy().ends_with("-shm") {
                std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
            }
        }
    }

    /// Holds the writer inside a transaction until told.
    async fn hold(writer: &Writer) -> mpsc::Sender<()> {
        let (go, gone) = mpsc::channel::<()>();
        let (entered, inside) = oneshot::channel();
        let work = move |_: &Tx<'_>| {
            entered.send(()).unwrap();
            gone.recv().unwrap();
            Ok(())
        };
        writer.submit(1, work, drop).await.unwrap();
        inside.await.unwrap();
        go
    }

    #[tokio::test]
    async fn done_is_told_only_what_survives_a_crash() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _clock) = open(&Config::at(folder.path()));
        let (tell, told) = oneshot::channel();
        let from = folder.path().to_owned();
        let done = move |result: Result<(), CommitError>| {
            result.unwrap();
            let copy = tempfile::tempdir().unwrap();
            copy_as_a_crash_leaves_it(&from, copy.path());
            tell.send(copy).unwrap();
        };
        store.writer().submit(200, insert(200), done).await.unwrap();
        let copy = told.await.unwrap();
        let (after_crash, _clock) = open(&Config::at(copy.path()));
        assert_eq!(count(&after_crash).await, 1);
    }

    #[tokio::test]
    async fn what_waits_during_a_sync_shares_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _clock) = open(&Config::at(folder.path()));
        let writer = store.writer();
        let before = store.metrics().commits_done();
        let go = hold(&writer).await;
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        for _ in 0..300 {
            let tell = tell.clone();
            writer.submit(200, insert(200), move |result| tell.send(result).unwrap()).await.unwrap();
        }
        go.send(()).unwrap();
        for _ in 0..300 {
            told.recv().await.unwrap().unwrap();
        }
        assert_eq!(store.metrics().commits_done() - before, 3, "1 held, 256, 44");
        assert_eq!(count(&store).await, 300);
    }

    #[tokio::test]
    async fn the_queue_holds_no_more_than_its_bounds_and_gives_work_back() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { queue_records: 4, queue_bytes: 1000, ..Config::at(folder.path()) };
        let (store, _clock) = open(&config);
        let writer = store.writer();
        let go = hold(&writer).await;
        writer.try_submit(600, insert(600), drop).unwrap();
        let full = writer.try_submit(600, insert(600), drop).unwrap_err();
        assert!(!full.closed, "bytes are used up, the store is open");
        writer.try_submit(1, insert(1), drop).unwrap();
        writer.try_submit(1, insert(1), drop).unwrap();
        writer.try_submit(1, insert(1), drop).expect_err("four records are in");
        go.send(()).unwrap();
        writer.submit(600, full.work, full.done).await.unwrap();
        writer.commit(5000, insert(5000)).await.expect("bigger than the whole bound passes alone");
        assert_eq!(count(&store).await, 5);
    }

    #[tokio::test]
    async fn one_failing_piece_of_work_acknowledges_nothing_and_the_next_commit_heals() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _clock) = open(&Config::at(folder.path()));
        let (writer, health) = (store.writer(), store.health());
        let go = hold(&writer).await;
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let undone = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&undone);
        for bad in [false, true, false] {
            let (tell, seen) = (tell.clone(), Arc::clone(&seen));
            let work = move |tx: &Tx<'_>| {
                insert(10)(tx)?;
                if bad {
                    tx.after(move |committed| seen.store(!committed, Ordering::SeqCst));
                    tx.execute("INSERT INTO no_such_table VALUES (1)", [])?;
                }
                Ok(())
            };
            writer.submit(10, work, move |result| tell.send(result).unwrap()).await.unwrap();
        }
        go.send(()).unwrap();
        for _ in 0..3 {
            let error = told.recv().await.unwrap().unwrap_err();
            assert_eq!(Refusal::from(error), Refusal::Disk);
        }
        assert!(undone.load(Ordering::SeqCst));
        assert!(matches!(&*health.borrow(), Health::Failing { restart_heals: false, .. }));
        writer.commit(10, insert(10)).await.unwrap();
        assert_eq!(*health.borrow(), Health::Good);
        assert_eq!(count(&store).await, 1);
    }

    #[tokio::test]
    async fn a_panic_in_work_is_a_failed_batch_not_a_dead_writer() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _clock) = open(&Config::at(folder.path()));
        let writer = store.writer();
        assert!(writer.commit(1, |_| -> Result<(), Error> { panic!("a bug") }).await.is_err());
        writer.commit(10, insert(10)).await.unwrap();
        assert_eq!(count(&store).await, 1);
    }

    #[tokio::test]
    async fn at_the_byte_limit_nothing_is_acknowledged_deletes_still_work_and_room_returns() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            max_bytes: 2 << 20,
            reserve_bytes: 256 << 10,
            restart_bytes: 512 << 10,
            checkpoint_bytes: 128 << 10,
            ..Config::at(folder.path())
        };
        let (store, _clock) = open(&config);
        let (writer, health) = (store.writer(), store.health());
        let mut acknowledged = 0;
        let error = loop {
            match writer.commit(8000, insert(8000)).await {
                Ok(()) => acknowledged += 1,
                Err(error) => break error,
            }
            assert!(acknowledged < 1000, "the limit was never reached");
        };
        assert!(matches!(error, Error::Commit(CommitError::Full(_))), "{error}");
        assert!(matches!(&*health.borrow(), Health::Failing { restart_heals: false, .. }));
        assert_eq!(count(&store).await, acknowledged);
        let size = std::fs::metadata(config.database()).unwrap().len();
        assert!(size + config.restart_bytes <= config.max_bytes, "{size}");

        let (tell, told) = oneshot::channel();
        let delete = |tx: &Tx<'_>| tx.execute("DELETE FROM item WHERE no <= 20", []).map(drop);
        writer.ride(0, delete, move |result| tell.send(result).unwrap()).await.unwrap();
        let full_too = writer.commit(8000, insert(8000)).await;
        told.await.unwrap().expect("a delete fits into the reserve");
        full_too.expect("the deleted rows made room");
        assert_eq!(*health.borrow(), Health::Good);
        assert_eq!(count(&store).await, acknowledged - 20 + 1);
    }

    #[tokio::test]
    async fn a_failing_store_tries_again_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { probe_ms: 1, ..Config::at(folder.path()) };
        let (store, _clock) = open(&config);
        let mut health = store.health();
        store.writer().commit(1, |_| -> Result<(), Error> { panic!("a bug") }).await.unwrap_err();
        health.wait_for(|health| *health == Health::Good).await.unwrap();
    }

    #[tokio::test]
    async fn work_without_urgency_rides_with_an_insert_or_goes_alone() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { ride_ms: 5, ..Config::at(folder.path()) };
        let (store, _clock) = open(&config);
        let writer = store.writer();
        let before = store.metrics().commits_done();
        let go = hold(&writer).await;
        writer.ride(1, insert(1), drop).await.unwrap();
        let riding = writer.commit(1, insert(1));
        let going = async { go.send(()).unwrap() };
        let (result, ()) = tokio::join!(riding, going);
        result.unwrap();
        assert_eq!(store.metrics().commits_done() - before, 2, "the held one, then both together");
        let (tell, told) = oneshot::channel();
        writer.ride(1, insert(1), move |result| tell.send(result).unwrap()).await.unwrap();
        told.await.unwrap().unwrap();
        assert_eq!(count(&store).await, 3);
    }

    #[tokio::test]
    async fn closing_commits_what_is_queued_and_refuses_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::at(folder.path());
        let (store, _clock) = open(&config);
        let writer = store.writer();
        let answered = Arc::new(AtomicUsize::new(0));
        for _ in 0..500 {
            let answered = Arc::clone(&answered);
            let done = move |result: Result<(), CommitError>| {
                result.unwrap();
                answered.fetch_add(1, Ordering::SeqCst);
            };
            writer.submit(10, insert(10), done).await.unwrap();
        }
        store.close();
        assert_eq!(answered.load(Ordering::SeqCst), 500);
        assert_eq!(writer.submit(1, insert(1), drop).await, Err(Closed));
        assert!(writer.try_submit(1, insert(1), drop).unwrap_err().closed);
        let log = folder.path().join("forebay.db-wal");
        assert!(!log.exists(), "a clean close leaves no log to read");
        let (store, _clock) = open(&config);
        assert_eq!(count(&store).await, 500);
    }

    #[tokio::test]
    async fn the_log_stays_bounded_under_steady_writing() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { checkpoint_bytes: 64 << 10, restart_bytes: 256 << 10, ..Config::at(folder.path()) };
        let (store, clock) = open(&config);
        let writer = store.writer();
        for _ in 0..400 {
            writer.commit(8000, insert(8000)).await.unwrap();
            clock.advance(Duration::from_millis(1));
        }
        // 400 rows write over 1,200 pages; the log may hold what arrives during one checkpoint on top of its 64.
        let pages = store.metrics().log_pages_now();
        assert!(pages < 900, "{pages} pages in the log");
    }

    #[tokio::test]
    async fn a_log_that_a_reader_holds_is_refused_at_its_limit_and_starts_over_when_the_reader_leaves() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            checkpoint_bytes: 64 << 10,
            restart_bytes: 128 << 10,
            max_log_bytes: 512 << 10,
            probe_ms: 1,
            ..Config::at(folder.path())
        };
        let (store, _clock) = open(&config);
        let (writer, mut health) = (store.writer(), store.health());
        let (leave, left) = mpsc::channel::<()>();
        let (entered, inside) = oneshot::channel();
        let reader = store.reader();
        let reading = tokio::spawn(async move {
            let hold = move |connection: &rusqlite::Connection| {
                let rows: i64 = connection.query_row("SELECT count(*) FROM item", [], |row| row.get(0))?;
                entered.send(()).unwrap();
                left.recv().unwrap();
                Ok(rows)
            };
            reader.read(hold).await.unwrap()
        });
        inside.await.unwrap();
        let mut acknowledged = 0;
        let error = loop {
            match writer.commit(8000, insert(8000)).await {
                Ok(()) => acknowledged += 1,
                Err(error) => break error,
            }
            assert!(acknowledged < 200, "the limit was never reached");
        };
        assert!(matches!(error, Error::Commit(CommitError::Full(_))), "{error}");
        let log = std::fs::metadata(folder.path().join("forebay.db-wal")).unwrap().len();
        assert!(log < 768 << 10, "{log}");
        leave.send(()).unwrap();
        assert_eq!(reading.await.unwrap(), 0, "a snapshot does not see later commits");
        health.wait_for(|health| *health == Health::Good).await.unwrap();
        writer.commit(8000, insert(8000)).await.unwrap();
        assert_eq!(count(&store).await, acknowledged + 1);
    }
}
