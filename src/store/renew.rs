//! Writing the last commit of the log once more, before a start adds to it.
//!
//! A commit whose sync failed was acknowledged to nobody, and the disk may have lost it. But the system's cache still has it and
//! counts it as written, so a program that starts on the same boot reads it there as good. Whatever it committed behind it would be
//! synced and lost all the same with the next power cut: a log ends at its first frame that is not there. No sync brings
//! such pages to the disk; writing them again does. Only the last commit can be one of these: the next one would have
//! been written over it.

use std::fs::File;
use std::io::{self, ErrorKind};

use rusqlite::Connection;

use super::config::Config;
use super::error::Error;
use super::log::{self, HEADER_BYTES};

/// Makes the last commit of the log durable, whatever became of its sync.
pub(super) fn last_commit(connection: &Connection, config: &Config) -> Result<(), Error> {
    let path = config.log();
    let failed = |source| Error::File { step: "write the last commit again into", path: config.log(), source };
    let file = match File::options().read(true).write(true).open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.map_err(failed)?,
    };
    if file.metadata().map_err(failed)?.len() <= HEADER_BYTES as u64 {
        return Ok(());
    }
    // While this holds nobody else adds to the log or begins it anew.
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let written = log::last_commit(&file).and_then(|last| match last {
        Some(range) => config.disk.write_again(&file, &path, range),
        None => Ok::<_, io::Error>(()),
    });
    connection.execute_batch("ROLLBACK")?;
    written.map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::ManualClock;
    use crate::store::{Disk, Event, Schema, Store, Tx, Watch};

    const SCHEMA: Schema =
        Schema { room: "test", steps: &["CREATE TABLE item (no INTEGER PRIMARY KEY, body BLOB)"], read_at_start: &[] };

    #[test]
    fn a_start_after_a_kill_writes_the_last_commit_again_before_it_commits_and_one_after_a_clean_end_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let (store, _) = Store::open(&Config::at(folder.path()), &[SCHEMA], clock.clone()).unwrap();
        let insert = |tx: &Tx<'_>| tx.execute("INSERT INTO item (body) VALUES (zeroblob(9000))", []);
        for _ in 0..3 {
            store.writer().commit_blocking(insert).unwrap();
        }
        // As a kill leaves it.
        let killed = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(folder.path()).unwrap().map(Result::unwrap) {
            if !file.file_name().to_string_lossy().ends_with("-shm") {
                std::fs::copy(file.path(), killed.path().join(file.file_name())).unwrap();
            }
        }
        let watch = Arc::new(Watch::default());
        let config = Config { disk: Disk::watched(&watch).unwrap(), ..Config::at(killed.path()) };
        let last = log::last_commit(&File::open(config.log()).unwrap()).unwrap().unwrap();
        assert!(last.end - last.start > 9000, "{last:?}");
        watch.trace.start();
        let (store, _) = Store::open(&config, &[SCHEMA], clock.clone()).unwrap();
        let events = watch.trace.take();
        let of_the_log: Vec<_> = events
            .iter()
            .filter(|event| match event {
                Event::Written { file, .. } | Event::Synced { file, .. } => file.ends_with("-wal"),
                _ => false,
            })
            .collect();
        let Event::Written { offset, bytes, .. } = of_the_log[0] else { panic!("{:?}", of_the_log[0]) };
        assert_eq!((*offset, offset + bytes.len() as u64), (last.start, last.end));
        assert!(matches!(of_the_log[1], Event::Synced { .. }), "{:?}", of_the_log[1]);
        store.close();
        watch.trace.take();
        let (store, _) = Store::open(&config, &[SCHEMA], clock).unwrap();
        store.writer().commit_blocking(insert).unwrap();
        let first = watch.trace.take().into_iter().find_map(|event| match event {
            Event::Written { file, offset, .. } if file.ends_with("-wal") => Some(offset),
            _ => None,
        });
        assert_eq!(first, Some(0), "the log begins with its header: there was none to write again");
        store.close();
    }
}
