//! Room in the log before it is needed, so that a commit finds the log as long as it makes it.
//!
//! A sync that has to write a new length costs the file system's journal, and with it a second flush of the disk. So the log
//! is made longer some commits ahead, by zeros that are written: blocks that are only promised (`fallocate`) cost the
//! journal again when they get their content. SQLite reads a log up to the first frame whose salt or checksum is wrong, and
//! zeros are neither.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use super::config::{Config, PAGE_BYTES};
use super::vfs::Disk;

/// By how much the log is made longer at a time. One sync in some dozens carries it: on a memory card 20 ms.
const STEP_BYTES: u64 = 256 << 10;
/// What must be free behind the last commit; a commit that takes more makes the log longer itself.
const LEAST_BYTES: u64 = STEP_BYTES / 2;
/// Bytes of a log before its first page, and before each page.
const HEADER_BYTES: u64 = 32;
const FRAME_HEADER_BYTES: u64 = 24;

/// Keeps room behind the last commit of one log.
pub(super) struct LogRoom {
    log: PathBuf,
    disk: Disk,
    /// The log is not made longer than this: from here on it starts over.
    most_bytes: u64,
    /// How long the log is, as far as is known.
    length: u64,
    given_up: bool,
}

impl LogRoom {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            log: config.log(),
            disk: config.disk.clone(),
            most_bytes: config.restart_bytes,
            length: 0,
            given_up: false,
        }
    }

    /// Makes the log longer if the next commits will need it. To be called inside a write transaction, when nobody else
    /// may write to the log. A disk that refuses is left alone from then on: what SQLite writes itself will say more.
    pub(super) fn keep(&mut self, log_pages: u64) {
        let used = HEADER_BYTES + log_pages * (FRAME_HEADER_BYTES + PAGE_BYTES);
        if self.given_up || used + LEAST_BYTES <= self.length || used + LEAST_BYTES > self.most_bytes {
            return;
        }
        if let Err(error) = self.extend(used) {
            self.given_up = true;
            tracing::debug!(%error, "no room is kept in the log: commits make it longer");
        }
    }

    fn extend(&mut self, used: u64) -> io::Result<()> {
        let file = match File::options().write(true).open(&self.log) {
            // SQLite makes it with the first commit.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        self.length = file.metadata()?.len();
        if self.length < used + LEAST_BYTES {
            // Never before the end of what is there: behind the last commit may be pages of this transaction.
            let to = (self.length + STEP_BYTES).min(self.most_bytes);
            self.disk.write_zeros(&file, &self.log, self.length, to)?;
            self.length = to.max(self.length);
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests write logs that SQLite has not")]
mod tests {
    use super::*;
    use crate::base::ManualClock;
    use crate::store::{Call, Event, Fault, Harm, Schema, Store, Tx, Watch};
    use std::sync::Arc;

    const SCHEMA: Schema =
        Schema { room: "test", steps: &["CREATE TABLE item (no INTEGER PRIMARY KEY, body BLOB)"], read_at_start: &[] };

    fn open(config: &Config) -> Store {
        Store::open(config, &[SCHEMA], Arc::new(ManualClock::at(1_700_000_000_000))).unwrap().0
    }

    fn commit(store: &Store) {
        let insert = |tx: &Tx<'_>| tx.execute("INSERT INTO item (body) VALUES (zeroblob(300))", []);
        store.writer().commit_blocking(insert).unwrap();
    }

    #[test]
    fn few_syncs_of_the_log_carry_a_new_length() {
        let folder = tempfile::tempdir().unwrap();
        let watch = Arc::new(Watch::default());
        let config = Config { disk: Disk::watched(&watch).unwrap(), ..Config::at(folder.path()) };
        let store = open(&config);
        commit(&store);
        let log = config.log();
        let mut length = log.metadata().unwrap().len();
        watch.trace.start();
        (0..500).for_each(|_| commit(&store));
        let (mut syncs, mut longer, mut is_longer) = (0, 0, false);
        for event in watch.trace.take() {
            match event {
                Event::Written { file, offset, bytes } if file.ends_with("-wal") => {
                    is_longer |= offset + bytes.len() as u64 > length;
                    length = length.max(offset + bytes.len() as u64);
                }
                Event::Synced { file, .. } if file.ends_with("-wal") => {
                    syncs += 1;
                    longer += u64::from(std::mem::take(&mut is_longer));
                }
                _ => {}
            }
        }
        assert!(syncs >= 500 && longer > 0, "{syncs} syncs, {longer} of a longer log");
        assert!(longer * 20 < syncs, "{longer} of {syncs} syncs had to write a new length");
        store.close();
    }

    #[test]
    fn the_log_is_made_no_longer_than_where_it_starts_over() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { checkpoint_bytes: 1 << 30, restart_bytes: 300 << 10, ..Config::at(folder.path()) };
        let mut room = LogRoom::new(&config);
        std::fs::write(config.log(), []).unwrap();
        for pages in 0..200 {
            room.keep(pages);
        }
        assert_eq!(config.log().metadata().unwrap().len(), 300 << 10);
    }

    #[test]
    fn a_disk_that_refuses_room_still_takes_commits() {
        let folder = tempfile::tempdir().unwrap();
        let watch = Arc::new(Watch::default());
        let config = Config { disk: Disk::watched(&watch).unwrap(), ..Config::at(folder.path()) };
        std::fs::write(config.log(), [1; 100]).unwrap();
        let mut room = LogRoom::new(&config);
        watch.faults.order(Fault { call: Call::Write, harm: Harm::Full, nth: 1, lasting: false });
        room.keep(0);
        assert_eq!(watch.faults.struck(), 1);
        room.keep(0);
        assert_eq!(config.log().metadata().unwrap().len(), 100, "it does not ask again");
        std::fs::remove_file(config.log()).unwrap();
        let store = open(&config);
        commit(&store);
        store.close();
    }
}
