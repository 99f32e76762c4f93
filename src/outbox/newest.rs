//! The other end of the queue: the newest rows, which may overtake a backlog so that what is shown far away is current.

use rusqlite::Connection;

use super::batch::{Batch, BatchId, BatchLimits};
use super::error::Error;
use super::packs;
use super::pick::Candidate;
use super::queue::Outbox;
use super::size::integer;
use super::stream::{StreamHandle, StreamKey};
use crate::base::Seq;
use crate::store;

/// Where a stream stands, from memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Name and class.
    pub key: StreamKey,
    /// For [`BatchId`].
    pub stream: StreamHandle,
    /// Everything up to here is acknowledged.
    pub settled: Seq,
    /// Highest committed number.
    pub last: Seq,
    /// Rows waiting.
    pub rows: u64,
    /// Ledger entries waiting.
    pub losses: u64,
}

impl Outbox {
    /// Where every stream stands.
    pub fn positions(&self) -> Vec<Position> {
        let streams = self.state.lock();
        let position = |(at, stream): (usize, &super::state::Stream)| Position {
            key: stream.key.clone(),
            stream: StreamHandle { at, no: stream.no },
            settled: Seq(stream.settled),
            last: Seq(stream.last),
            rows: stream.rows,
            losses: stream.entries,
        };
        streams.all.iter().enumerate().map(position).collect()
    }

    /// The newest rows beyond everything in flight, as many as fit, of the stream whose first row there is the oldest;
    /// None if there are none. What is passed over stays for [`next_batch`](Self::next_batch).
    pub async fn newest_batch(&self, limits: &BatchLimits, in_flight: &[BatchId]) -> Result<Option<Batch>, Error> {
        let narrow = {
            let limits = *limits;
            move |connection: &Connection, candidate| tail(connection, candidate, limits)
        };
        self.pick(limits, || self.fresh(in_flight), narrow).await
    }

    fn fresh(&self, in_flight: &[BatchId]) -> Vec<Candidate> {
        let beyond = |stream: &Position| {
            let flying = in_flight.iter().filter(|batch| batch.stream == stream.stream).map(|batch| batch.last);
            flying.max().unwrap_or(stream.settled).max(stream.settled).0 + 1
        };
        let part = |stream: Position| {
            let from = beyond(&stream);
            let Position { key, stream, last: Seq(last), .. } = stream;
            (from <= last).then_some(Candidate { stream, key, from, last })
        };
        self.positions().into_iter().filter_map(part).collect()
    }
}

/// The end of `candidate` that one batch holds. Sizes are read, bodies are not; those of rows in a block are taken as
/// equal.
fn tail(connection: &Connection, mut candidate: Candidate, limits: BatchLimits) -> Result<Candidate, store::Error> {
    let mut statement = connection.prepare_cached(
        "SELECT seq, length(body) FROM outbox_row WHERE stream_no = ?1 AND seq BETWEEN ?2 AND ?3 ORDER BY seq DESC",
    )?;
    let part = (candidate.stream.no, candidate.from.cast_signed(), candidate.last.cast_signed());
    let mut singles = statement.query_map(part, |row| {
        let number = |at| Ok::<_, rusqlite::Error>(integer(row.get_ref(at)?).unwrap_or(0).cast_unsigned());
        Ok((number(0)?, usize::try_from(number(1)?).unwrap_or(usize::MAX)))
    })?;
    let mut statement = connection.prepare_cached(&packs::newest_sql())?;
    let mut blocks = packs::newest(&mut statement, candidate.stream.no, (candidate.from, candidate.last))?;
    let (mut single, mut block) = (singles.next().transpose()?, blocks.next().transpose()?);
    let (mut rows, mut bytes, mut first) = (0, 0_usize, None);
    loop {
        // The newest that is left: numbers, and the bytes of each.
        let (from, last, each) = match (single, block) {
            (Some((seq, size)), other) if other.is_none_or(|head| head.last < seq) => {
                single = singles.next().transpose()?;
                (seq, seq, size)
            }
            (_, Some(head)) => {
                block = blocks.next().transpose()?;
                (head.first.max(candidate.from), head.last, head.mean_bytes())
            }
            _ => return Ok(candidate),
        };
        let wanted = usize::try_from(last - from + 1).unwrap_or(usize::MAX);
        let fitting = limits.bytes.saturating_sub(bytes).checked_div(each).unwrap_or(usize::MAX);
        let taken = wanted.min(limits.rows.saturating_sub(rows)).min(fitting);
        // One row always fits.
        let taken = if first.is_none() { taken.max(1) } else { taken };
        if taken > 0 {
            first = Some(last + 1 - taken as u64);
        }
        (rows, bytes) = (rows + taken, bytes + taken * each);
        if taken < wanted {
            // The rest is left to the backlog, and with it the gaps before the first row taken.
            candidate.from = first.unwrap_or(candidate.from);
            return Ok(candidate);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::{Clock, ManualClock, Name};
    use crate::outbox::{Class, Config, Envelope, SCHEMA};
    use crate::store::{Store, Tx};

    const FOUR: BatchLimits = BatchLimits { rows: 4, bytes: 1000 };

    struct Bench {
        store: Store,
        outbox: Outbox,
        stream: StreamHandle,
        clock: Arc<ManualClock>,
    }

    impl Bench {
        fn open(folder: &tempfile::TempDir) -> Self {
            let clock = Arc::new(ManualClock::at(1_700_000_000_000));
            let shared: Arc<dyn Clock> = clock.clone();
            let config = store::Config::at(folder.path());
            let (store, opened) = Store::open(&config, &[SCHEMA], Arc::clone(&shared)).unwrap();
            let outbox = Outbox::open(&Config::default(), &store, opened.epoch, shared).unwrap();
            let key = StreamKey::new(Name::new("press").unwrap(), Class::Raw);
            let stream = outbox.stream(key).unwrap();
            Self { store, outbox, stream, clock }
        }

        async fn append(&self, rows: usize) {
            let (outbox, stream, stamp) = (self.outbox.clone(), self.stream, self.clock.stamp());
            let append = move |tx: &Tx<'_>| {
                let body = || vec![b'x'; 100];
                (0..rows).try_for_each(|_| outbox.append(tx, &stream, &Envelope { body: body(), stamp }).map(drop))
            };
            self.store.writer().commit(100, append).await.unwrap();
        }

        async fn newest(&self, in_flight: &[BatchId]) -> Option<BatchId> {
            self.outbox.newest_batch(&FOUR, in_flight).await.unwrap().map(|batch| batch.id)
        }

        async fn delete(&self, id: BatchId) {
            let outbox = self.outbox.clone();
            self.store.writer().commit(0, move |tx| outbox.delete(tx, &id)).await.unwrap();
        }

        async fn acked_ranges(&self) -> i64 {
            let count = |c: &Connection| Ok(c.query_row("SELECT count(*) FROM outbox_acked", [], |row| row.get(0))?);
            self.store.reader().read(count).await.unwrap()
        }
    }

    fn numbers(id: BatchId) -> (u64, u64) {
        (id.first.0, id.last.0)
    }

    #[tokio::test]
    async fn the_newest_rows_overtake_a_backlog_and_the_backlog_goes_around_them() {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::open(&folder);
        bench.append(20).await;
        let newest = bench.newest(&[]).await.unwrap();
        assert_eq!(numbers(newest), (17, 20));
        assert_eq!(bench.newest(&[newest]).await, None, "nothing newer has come");
        bench.append(2).await;
        let next = bench.newest(&[newest]).await.unwrap();
        assert_eq!(numbers(next), (21, 22));
        bench.delete(newest).await;
        let mut oldest = Vec::new();
        let mut in_flight = vec![next];
        while let Some(batch) = bench.outbox.next_batch(&FOUR, &in_flight).await.unwrap() {
            oldest.push(numbers(batch.id));
            in_flight.push(batch.id);
        }
        assert_eq!(oldest, [(1, 4), (5, 8), (9, 12), (13, 16)]);
        for id in in_flight {
            bench.delete(id).await;
        }
        assert_eq!(bench.outbox.positions()[0].settled, Seq(22));
        assert_eq!((bench.outbox.positions()[0].rows, bench.acked_ranges().await), (0, 0));
    }

    #[tokio::test]
    async fn a_snapshot_that_is_ahead_of_memory_shows_no_vanished_rows() {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::open(&folder);
        bench.append(12).await;
        let first = bench.outbox.next_batch(&FOUR, &[]).await.unwrap().unwrap().id;
        let second = bench.outbox.next_batch(&FOUR, &[first]).await.unwrap().unwrap().id;
        // A second memory of the same file stands still at this moment.
        let clock: Arc<dyn Clock> = bench.clock.clone();
        let behind = Outbox::open(&Config::default(), &bench.store, bench.outbox.epoch(), clock).unwrap();
        bench.delete(second).await;
        bench.delete(first).await;
        let batch = behind.next_batch(&FOUR, &[first]).await.unwrap().unwrap();
        assert_eq!(batch.rows.iter().map(|row| row.seq.0).collect::<Vec<_>>(), [9, 10, 11, 12]);
        assert!(batch.gaps.iter().all(|gap| gap.count == 0), "{:?}", batch.gaps);
    }

    #[tokio::test]
    async fn bytes_bound_a_batch_of_the_newest_too_and_one_row_always_fits() {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::open(&folder);
        bench.append(10).await;
        for (bytes, first) in [(250, 9), (1, 10)] {
            let limits = BatchLimits { rows: 100, bytes };
            let batch = bench.outbox.newest_batch(&limits, &[]).await.unwrap().unwrap();
            assert_eq!(numbers(batch.id), (first, 10));
        }
    }

    #[tokio::test]
    async fn a_long_drain_with_fresh_rows_leaves_one_range_behind_them() {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::open(&folder);
        bench.append(100).await;
        let mut beyond = Vec::new();
        for _ in 0..50 {
            bench.append(3).await;
            let batch = bench.newest(&beyond).await.unwrap();
            bench.delete(batch).await;
            beyond = vec![batch];
        }
        assert_eq!(bench.acked_ranges().await, 1);
    }
}
