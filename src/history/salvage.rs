//! What streams must remember over the loss of their file: the rule's state, the newest readings, from which windows are
//! filled and the rule is brought up to date, the numbering, and the alarm that stands.

use rusqlite::{Connection, OptionalExtension as _};

use super::checksum::holds;
use super::read::{open_alert, tail};
use super::write::PUT_ALERT;
use super::{Alert, History, Reading, StreamNo};
use crate::store::{Error, Tx};

/// Streams of one file.
const MOST: usize = 4096;
/// Newest readings of a stream.
const READINGS: usize = 512;
/// Readings of all streams together: they are written in one go before the streams start.
const ALL_READINGS: usize = 20_000;

/// One stream as a file that was set aside knew it.
#[derive(Debug, Clone)]
pub struct Remembered {
    name: String,
    memory: Option<Vec<u8>>,
    memory_crc: Option<i64>,
    reserved: i64,
    standing: Option<Alert>,
    readings: Vec<Reading>,
}

/// Reads what the streams of a wreck remembered; what has a wrong checksum is left out. The wreck's tables are of this
/// release or the file says nothing.
pub fn remembered(wreck: &Connection) -> Result<Vec<Remembered>, Error> {
    let mut statement = wreck.prepare(
        "SELECT memory, memory_crc, no, name, reserved FROM history_stream
         WHERE crc IS row_crc('history_stream', no, name, reserved, opened_ms) LIMIT ?1",
    )?;
    let mut rows = statement.query([MOST as i64])?;
    let (mut found, mut numbers) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        let is_whole = holds(row, 1)?;
        found.push(Remembered {
            name: row.get(3)?,
            memory: if is_whole { row.get(0)? } else { None },
            memory_crc: if is_whole { row.get(1)? } else { None },
            reserved: row.get(4)?,
            standing: open_alert(wreck, StreamNo(row.get(2)?))?,
            readings: Vec::new(),
        });
        numbers.push(StreamNo(row.get(2)?));
    }
    let each = READINGS.min(ALL_READINGS / found.len().max(1));
    for (stream, no) in found.iter_mut().zip(numbers) {
        // Damage in a tree of readings costs this stream's, and nothing else.
        stream.readings = tail(wreck, no, each).unwrap_or_default();
    }
    Ok(found)
}

impl History {
    /// Goes on where the streams of another file stood, if this one has none yet. Before any stream is registered.
    /// Returns how many alarms stand.
    pub fn take_over(&self, tx: &Tx, streams: &[Remembered]) -> Result<usize, Error> {
        let known: Option<i64> =
            tx.prepare_cached("SELECT no FROM history_stream LIMIT 1")?.query_row([], |row| row.get(0)).optional()?;
        if known.is_some() {
            return Ok(0);
        }
        let mut standing = 0;
        for (no, stream) in (1_i64..).zip(streams) {
            let Remembered { name, memory, memory_crc, reserved, .. } = stream;
            tx.execute(
                "INSERT INTO history_stream (no, name, reserved, opened_ms, memory, memory_crc, crc)
                 VALUES (?1, ?2, ?3, 0, ?4, ?5, row_crc('history_stream', ?1, ?2, ?3, 0))",
                (no, name, reserved, memory, memory_crc),
            )?;
            stream.readings.iter().for_each(|reading| self.put(tx, StreamNo(no), reading.seq, reading));
            if let Some(alert) = &stream.standing {
                // Its number is the one by which it was told.
                tx.execute(
                    PUT_ALERT,
                    rusqlite::params![
                        alert.id,
                        no,
                        alert.severity,
                        alert.raised_ms,
                        alert.raised_seq.cast_signed(),
                        None::<i64>,
                        alert.peak_score,
                        alert.suppressed,
                    ],
                )?;
                standing += 1;
            }
        }
        Ok(standing)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::ManualClock;
    use crate::history::{self, Config, Reading, SCHEMA};
    use crate::store::{self, Store};

    fn open(folder: &std::path::Path) -> Store {
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        Store::open(&store::Config::at(folder), &[SCHEMA], clock).unwrap().0
    }

    fn reading() -> Reading {
        Reading { seq: 0, time_ms: 5, id: None, values: vec![1.0], score: None, expected: None, state: 0, extra: None }
    }

    #[tokio::test]
    #[allow(clippy::disallowed_methods, reason = "tests spoil files on purpose")]
    async fn a_standing_alarm_and_the_numbering_outlive_the_file_and_newer_ones_stay() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let history = History::new(Config::default());
        let writing = history.clone();
        let fill = move |tx: &Tx<'_>| {
            for name in ["press", "oven"] {
                let stream = writing.stream(tx, name)?;
                let last = (0..30).try_fold(0, |_, _| writing.append(tx, stream, &reading()))?;
                writing.remember(tx, stream, name.as_bytes())?;
                let alert = Alert {
                    id: 0,
                    stream: name.to_owned(),
                    severity: "critical".to_owned(),
                    raised_ms: 7,
                    raised_seq: last,
                    cleared_ms: None,
                    peak_score: 2.5,
                    suppressed: false,
                };
                writing.raise(tx, stream, &alert)?;
                if name == "oven" {
                    writing.update_alert(tx, stream, "critical", 3.0, Some(9))?;
                }
            }
            // The disk has changed one of the two memories.
            tx.execute("UPDATE history_stream SET memory = x'00' WHERE name = 'oven'", []).map(drop)
        };
        store.writer().commit(64, fill).await.unwrap();
        store.close();
        std::fs::write(folder.path().join("forebay.db.corrupt"), b"").unwrap();
        let store = open(folder.path());
        let streams = remembered(&store.wrecks()[0].connect().unwrap()).unwrap();
        let history = History::new(Config::default());
        for standing in [1, 0] {
            let (taking, streams) = (history.clone(), streams.clone());
            let take = move |tx: &Tx<'_>| taking.take_over(tx, &streams);
            assert_eq!(store.writer().commit(64, take).await.unwrap(), standing, "once");
        }
        let writing = history.clone();
        let go_on = move |tx: &Tx<'_>| {
            let (press, oven) = (writing.stream(tx, "press")?, writing.stream(tx, "oven")?);
            assert!(writing.append(tx, press, &reading())? > 30, "no number comes back");
            let next = writing.standing(tx, press)?.unwrap();
            assert_eq!((next.id, next.raised_ms, next.peak_score), (1, 7, 2.5));
            assert_eq!(writing.standing(tx, oven)?, None);
            Ok((press, oven))
        };
        let (press, oven) = store.writer().commit(64, go_on).await.unwrap();
        let read = move |connection: &Connection| {
            let memories = (history::memory(connection, press)?, history::memory(connection, oven)?);
            Ok((memories, tail(connection, press, 100)?.len()))
        };
        let read = store.reader().read(read).await.unwrap();
        assert_eq!(read, ((Some(b"press".to_vec()), None), 31), "the newest readings fill the windows");
    }
}
