//! The numbers of readings: issued a stream, never twice.
//!
//! A mark is committed a block ahead of use. A number that a failed commit used is left out, and after a kill
//! everything up to the mark is: so a tail that a disk lost in spite of its promise is not issued again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::checksum::corrupt;
use crate::store::{Error, Tx};

/// Numbers between two marks. A kill leaves out at most twice as many.
const BLOCK: u64 = 512;
/// Above the highest known number of a stream whose mark is not: more than an open summary and the marks ahead hold.
const JUMP: i64 = 1 << 20;

#[derive(Debug)]
struct Stream {
    /// The next number. Never steps back, whatever becomes of the commit.
    next: u64,
    /// The mark on the disk.
    reserved: u64,
    /// The mark of the transaction in progress.
    staged: Option<u64>,
}

/// Where each stream stands.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    streams: Mutex<HashMap<i64, Stream>>,
}

impl Numbers {
    /// Goes on above the stream's mark.
    pub(super) fn resume(self: &Arc<Self>, tx: &Tx<'_>, no: i64) -> Result<(), Error> {
        let mut streams = self.lock();
        if streams.contains_key(&no) {
            return Ok(());
        }
        // A mark that the disk has changed is not believed: the numbering goes on far above all that is known.
        let distrusted = tx.execute(
            "UPDATE history_stream SET (reserved, opened_ms, crc) = (SELECT next, 0,
             row_crc('history_stream', history_stream.no, name, next, 0) FROM (SELECT ?2 + max(
               coalesce((SELECT max(seq) FROM history_reading WHERE stream_no = ?1), 0),
               coalesce((SELECT max(last) FROM history_block WHERE stream_no = ?1), 0),
               coalesce((SELECT max(last_seq) FROM history_window WHERE stream_no = ?1), 0),
               coalesce((SELECT max(raised_seq) FROM history_alert WHERE stream_no = ?1), 0)) AS next))
             WHERE no = ?1 AND crc IS NOT row_crc('history_stream', no, name, reserved, opened_ms)",
            (no, JUMP),
        )?;
        if distrusted > 0 {
            corrupt();
        }
        // A file that was restored by hand may hold readings above its mark.
        let mark = "SELECT max(reserved, coalesce((SELECT max(seq) FROM history_reading WHERE stream_no = ?1), 0),
             coalesce((SELECT max(last) FROM history_block WHERE stream_no = ?1), 0)) FROM history_stream WHERE no = ?1";
        let last = tx.query_row(mark, [no], |row| row.get::<_, i64>(0))?.cast_unsigned();
        let stream = streams.entry(no).or_insert(Stream { next: last + 1, reserved: last, staged: None });
        self.reserve(tx, no, stream, last + 2 * BLOCK)
    }

    /// The next number of a stream.
    pub(super) fn issue(self: &Arc<Self>, tx: &Tx<'_>, no: i64) -> Result<u64, Error> {
        self.resume(tx, no)?;
        let mut streams = self.lock();
        let stream = streams.get_mut(&no).expect("taken up just above and never forgotten");
        let seq = stream.next;
        stream.next += 1;
        if seq + BLOCK > stream.staged.unwrap_or(stream.reserved) {
            self.reserve(tx, no, stream, seq + 2 * BLOCK)?;
        }
        Ok(seq)
    }

    /// Writes a mark, which counts once the transaction is on the disk.
    fn reserve(self: &Arc<Self>, tx: &Tx<'_>, no: i64, stream: &mut Stream, mark: u64) -> Result<(), Error> {
        stream.staged = Some(mark);
        let numbers = Arc::clone(self);
        tx.after(move |committed| {
            if let Some(stream) = numbers.lock().get_mut(&no)
                && let Some(staged) = stream.staged.take()
                && committed
            {
                stream.reserved = staged;
            }
        });
        write_mark(tx, no, mark)
    }

    /// Moves every mark down to the last number used.
    pub(super) fn close(&self, tx: &Tx<'_>) -> Result<(), Error> {
        self.lock().iter().try_for_each(|(&no, stream)| write_mark(tx, no, stream.next - 1))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i64, Stream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_mark(tx: &Tx<'_>, no: i64, reserved: u64) -> Result<(), Error> {
    tx.execute(
        "UPDATE history_stream SET reserved = ?2, crc = row_crc('history_stream', no, name, ?2, opened_ms) WHERE no = ?1",
        (no, reserved.cast_signed()),
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::base::ManualClock;
    use crate::history::{self, History, Reading, SCHEMA, StreamNo};
    use crate::store::{self, Schema, Store, Tx};

    fn open(folder: &std::path::Path, schemas: &[Schema]) -> Store {
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        Store::open(&store::Config::at(folder), schemas, clock).unwrap().0
    }

    fn reading() -> Reading {
        Reading { seq: 0, time_ms: 5, id: None, values: vec![1.0], score: None, expected: None, state: 0, extra: None }
    }

    async fn register(store: &Store, history: &History) -> StreamNo {
        let history = history.clone();
        store.writer().commit(64, move |tx| history.stream(tx, "press")).await.unwrap()
    }

    /// Appends one and, if `fail`, makes its transaction fail; the number is told either way.
    async fn append(store: &Store, history: &History, no: StreamNo, fail: bool) -> u64 {
        let history = history.clone();
        let told = Arc::new(std::sync::Mutex::new(0));
        let tell = Arc::clone(&told);
        let work = move |tx: &Tx<'_>| {
            *tell.lock().unwrap() = history.append(tx, no, &reading())?;
            if fail { tx.execute("INSERT INTO no_such_table VALUES (1)", []).map(drop) } else { Ok(()) }
        };
        assert_eq!(store.writer().commit(64, work).await.is_err(), fail);
        *told.lock().unwrap()
    }

    #[tokio::test]
    async fn a_number_is_never_issued_twice_over_rollbacks_kills_and_lost_tails() {
        let folder = tempfile::tempdir().unwrap();
        let mut highest = 0;
        for life in 0..4 {
            let store = open(folder.path(), &[SCHEMA]);
            let history = History::new(history::Config::default());
            let no = register(&store, &history).await;
            for at in 0..700 {
                let number = append(&store, &history, no, at % 7 == 3).await;
                assert!(number > highest, "{number} after {highest} in life {life}");
                highest = number;
            }
            if life == 1 {
                // A disk that broke its promise: the newest readings are gone.
                let lose = |tx: &Tx<'_>| {
                    tx.execute("DELETE FROM history_arrival_a WHERE no > 900", [])?;
                    tx.execute("DELETE FROM history_arrival_b WHERE no > 900", []).map(drop)
                };
                store.writer().commit(64, lose).await.unwrap();
            }
            // No `close` of the history: as after a kill.
            store.close();
        }
    }

    #[tokio::test]
    async fn a_clean_end_leaves_no_number_out() {
        let folder = tempfile::tempdir().unwrap();
        for expected in 1..4 {
            let store = open(folder.path(), &[SCHEMA]);
            let history = History::new(history::Config::default());
            let no = register(&store, &history).await;
            assert_eq!(append(&store, &history, no, false).await, expected);
            let closing = history.clone();
            store.writer().commit(64, move |tx| closing.close(tx)).await.unwrap();
            store.close();
        }
    }

    #[tokio::test]
    async fn a_database_of_the_first_version_goes_on_above_its_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let first = Schema { room: "history", steps: SCHEMA.steps.get(..1).unwrap(), read_at_start: &[] };
        let store = open(folder.path(), &[first]);
        let fill = |tx: &Tx<'_>| {
            tx.execute("INSERT INTO history_stream (name) VALUES ('press')", [])?;
            tx.execute("INSERT INTO history_reading (stream_no, seq, time_ms, state) VALUES (1, 41, 5, 0)", [])?;
            tx.execute("INSERT INTO history_alert VALUES (1, 1, 'critical', 5, 43, NULL, 1.0, 0)", []).map(drop)
        };
        store.writer().commit(64, fill).await.unwrap();
        store.close();
        let store = open(folder.path(), &[SCHEMA]);
        let history = History::new(history::Config::default());
        let no = register(&store, &history).await;
        assert_eq!(append(&store, &history, no, false).await, 43 + 2048 + 1);
        let old = store.reader().read(move |conn| history::tail(conn, no, 9)).await.unwrap();
        assert_eq!(old.iter().map(|reading| reading.seq).collect::<Vec<_>>(), [41, 2092]);
        assert_eq!(old[0].extra, None);
    }
}
