//! Opening the file, whatever it holds, and closing it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::watch;

use super::boot::{Boot, last_wall_ms, settle_epoch};
use super::checkpoint::{self, Gate};
use super::config::{Config, PAGE_BYTES};
use super::connection::{limit_pages, open_checkpointer, open_writer};
use super::error::{Error, chain};
use super::health::{Health, HealthBoard};
use super::log;
use super::metrics::Metrics;
use super::quarantine;
use super::queue::Queue;
use super::reader::Reader;
use super::renew;
use super::room::LogRoom;
use super::salvage::Wreck;
use super::schema::{OWN, Schema, migrate};
use super::structure;
use super::submit::Writer;
use super::writer::{WriterThread, watch_log};
use crate::base::{Clock, Epoch};

/// What opening found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Where a bad file was set aside.
    pub quarantined: Option<PathBuf>,
    /// True if the file is new, for whatever reason.
    pub created: bool,
    /// This life of the file.
    pub epoch: Epoch,
    /// The row of `boot` for this boot of the machine.
    pub boot_no: i64,
    /// Wall clock that is known to have passed, milliseconds since 1970; 0 if unknown. The floor for the clock.
    pub last_wall_ms: i64,
}

/// The open file with its threads. Dropping it closes it.
pub struct Store {
    database: PathBuf,
    writer: Writer,
    reader: Reader,
    gate: Arc<Gate>,
    health: Arc<HealthBoard>,
    writer_thread: Option<JoinHandle<()>>,
    checkpoint_thread: Option<JoinHandle<()>>,
    insert_bytes: u64,
}

struct Prepared {
    connection: Connection,
    created: bool,
    epoch: Epoch,
    boot: Boot,
    last_wall_ms: i64,
}

impl Store {
    /// Opens `state_dir/forebay.db` and brings every room's tables up to date, in constant time.
    ///
    /// A file that is not a database or is corrupt is renamed to `*.quarantine-<wall_ms>` and a fresh one begins with
    /// a new epoch; `Opened` says so. Errors are the machine's: permission, space, memory, a newer program's tables.
    pub fn open(config: &Config, schemas: &[Schema], clock: Arc<dyn Clock>) -> Result<(Self, Opened), Error> {
        create_folder(&config.state_dir)?;
        let (database, side) = (config.database(), config.state_dir.join("epoch"));
        let aside = |why: &str| {
            let path = quarantine::set_aside(&database, &side, clock.wall_ms(), config.quarantine_files)?;
            tracing::error!(path = %path.display(), error = why, "the database was set aside; a new epoch begins");
            Ok::<_, Error>(path)
        };
        let mut quarantined = None;
        if quarantine::is_marked(&database) {
            quarantined = Some(aside("an earlier run found it corrupt")?);
        } else if log::is_rotten(&config.log(), &database).map_err(|source| Error::File {
            step: "read",
            path: config.log(),
            source,
        })? {
            // SQLite would take back what was acknowledged and go on as if it had never been.
            quarantined = Some(aside("its log holds commits that cannot be read any more")?);
        }
        let prepared = match prepare(config, &database, schemas, &clock) {
            Err(error) if quarantine::is_bad_content(&error, &database) => {
                quarantined = Some(aside(&chain(&error))?);
                prepare(config, &database, schemas, &clock)?
            }
            other => other?,
        };
        let Prepared { mut connection, created, epoch, boot, last_wall_ms } = prepared;
        let opened = Opened { quarantined, created, epoch, boot_no: boot.no, last_wall_ms };

        let metrics = Metrics::default();
        let health = Arc::new(HealthBoard::new(Arc::clone(&clock), metrics.clone()));
        let gate = Arc::new(Gate::new(config, metrics.clone()));
        let queue = Arc::new(Queue::new(config));
        watch_log(&mut connection, &gate)?;
        let checkpointer = open_checkpointer(config, &database)?;
        let reader = Reader::open(config, &database, Arc::clone(&health))?;
        let checkpoint_thread = {
            let (gate, clock, health) = (Arc::clone(&gate), Arc::clone(&clock), Arc::clone(&health));
            start("store-checkpoint", move || checkpoint::run(&checkpointer, &gate, &clock, &health))?
        };
        let thread = WriterThread {
            config: config.clone(),
            database: database.clone(),
            connection: Some(connection),
            queue: Arc::clone(&queue),
            gate: Arc::clone(&gate),
            health: Arc::clone(&health),
            metrics: metrics.clone(),
            clock,
            boot,
            room: LogRoom::new(config),
            transactions: 0,
        };
        let writer_thread = start("store-writer", move || thread.run())?;
        let store = Self {
            database,
            writer: Writer { queue, metrics },
            reader,
            gate,
            health,
            writer_thread: Some(writer_thread),
            checkpoint_thread: Some(checkpoint_thread),
            insert_bytes: config.insert_pages() * PAGE_BYTES,
        };
        Ok((store, opened))
    }

    /// The way to write.
    pub fn writer(&self) -> Writer {
        self.writer.clone()
    }

    /// The way to read.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// Bytes that the database file may grow to while rows are inserted: what the log and the reserve leave of the
    /// hard limit. Beyond it commits fail with [`CommitError::Full`](super::CommitError::Full).
    pub fn insert_bytes(&self) -> u64 {
        self.insert_bytes
    }

    /// Whether commits reach the disk, as it changes.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.watch()
    }

    /// Files that were set aside, now or earlier, oldest first: for whoever salvages their rows.
    pub fn wrecks(&self) -> Vec<Wreck> {
        quarantine::wrecks(&self.database)
    }

    /// What this room counts.
    pub fn metrics(&self) -> &Metrics {
        &self.writer.metrics
    }

    /// Commits what is queued, empties the log, ends the threads. Blocks for a few syncs of the disk.
    pub fn close(self) {
        drop(self);
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.writer.queue.close();
        if let Some(thread) = self.writer_thread.take() {
            let _ = thread.join();
        }
        self.reader.close();
        self.gate.close();
        if let Some(thread) = self.checkpoint_thread.take() {
            let _ = thread.join();
        }
    }
}

fn prepare(config: &Config, database: &Path, schemas: &[Schema], clock: &Arc<dyn Clock>) -> Result<Prepared, Error> {
    let mut connection = open_writer(config, database)?;
    renew::last_commit(&connection, config)?;
    // A full file must open: what a start writes comes from the reserve.
    limit_pages(&connection, config.delete_pages())?;
    migrate(&mut connection, schemas)?;
    for table in std::iter::once(&OWN).chain(schemas).flat_map(|schema| schema.read_at_start) {
        structure::follow(&connection, table)?;
    }
    let (epoch, created) = settle_epoch(&connection, &config.state_dir.join("epoch"), &config.disk, &**clock)?;
    // Before the first stamp: the boot's own row and all others must be stamped by the same belief. In a new file the
    // epoch stands in, which is a wall clock that has passed and survives the loss of the file.
    let last_wall_ms = last_wall_ms(&connection)?;
    clock.has_passed(if last_wall_ms == 0 { epoch.0.cast_signed() } else { last_wall_ms });
    let boot = Boot::settle(&mut connection, Arc::clone(clock), last_wall_ms, config.wall_persist_ms)?;
    limit_pages(&connection, config.insert_pages())?;
    Ok(Prepared { connection, created, epoch, boot, last_wall_ms })
}

fn create_folder(folder: &Path) -> Result<(), Error> {
    let fail = |step| move |source| Error::File { step, path: folder.to_owned(), source };
    std::fs::create_dir_all(folder).map_err(fail("create"))?;
    // A new folder's own entry lives in its parent; without this a power cut takes the folder and all rows in it.
    match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => {
            quarantine::sync_folder(parent).map_err(fail("sync the parent of"))
        }
        _ => Ok(()),
    }
}

fn start(name: &'static str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    std::thread::Builder::new()
        .name(name.into())
        .stack_size(512 << 10)
        .spawn(run)
        .map_err(|source| Error::Thread { name, source })
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests spoil files on purpose")]
mod tests {
    use super::*;
    use crate::base::ManualClock;

    const SCHEMA: Schema =
        Schema { room: "test", steps: &["CREATE TABLE item (no INTEGER PRIMARY KEY, body BLOB)"], read_at_start: &[] };
    const NEXT: Schema = Schema {
        room: "test",
        steps: &[SCHEMA.steps[0], "ALTER TABLE item ADD COLUMN colour TEXT DEFAULT 'grey'"],
        read_at_start: &[],
    };

    fn open(folder: &Path, schema: Schema) -> Result<(Store, Opened), Error> {
        open_at(folder, schema, 1_700_000_000_000)
    }

    fn open_at(folder: &Path, schema: Schema, wall_ms: i64) -> Result<(Store, Opened), Error> {
        Store::open(&Config::at(folder), &[schema], Arc::new(ManualClock::at(wall_ms)))
    }

    fn insert(store: &Store, rows: usize) {
        for _ in 0..rows {
            let work = |tx: &crate::store::Tx<'_>| tx.execute("INSERT INTO item (body) VALUES (zeroblob(300))", []);
            store.writer().commit_blocking(work).unwrap();
        }
    }

    fn count(store: &Store) -> i64 {
        let work = |tx: &crate::store::Tx<'_>| tx.query_row("SELECT count(*) FROM item", [], |row| row.get(0));
        store.writer().commit_blocking(work).unwrap()
    }

    #[test]
    fn a_file_keeps_its_epoch_and_its_boot_over_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let (store, first) = open(folder.path(), SCHEMA).unwrap();
        assert!(first.created && first.quarantined.is_none());
        insert(&store, 3);
        store.close();
        let (store, second) = open(folder.path(), SCHEMA).unwrap();
        assert!(!second.created);
        assert_eq!((second.epoch, second.boot_no), (first.epoch, first.boot_no));
        assert_eq!(second.last_wall_ms, 1_700_000_000_000);
        assert_eq!(count(&store), 3);
    }

    #[test]
    fn a_lost_file_begins_a_higher_epoch_even_if_the_clock_went_back() {
        let folder = tempfile::tempdir().unwrap();
        let (store, first) = open(folder.path(), SCHEMA).unwrap();
        store.close();
        std::fs::remove_file(folder.path().join("forebay.db")).unwrap();
        let (_store, second) = open_at(folder.path(), SCHEMA, 5).unwrap();
        assert!(second.created);
        assert!(second.epoch > first.epoch);
    }

    #[test]
    fn garbage_of_every_kind_is_set_aside_and_the_store_opens() {
        type Spoil = fn(&mut Vec<u8>);
        let spoils: [(&str, Spoil); 6] = [
            ("text", |bytes| *bytes = b"this is not a database, it is a note from a colleague".repeat(90)),
            ("header", |bytes| bytes[0..16].fill(0)),
            ("page size", |bytes| bytes[16] = 0x77),
            ("file format", |bytes| bytes[18..20].fill(9)),
            ("schema page", |bytes| bytes[100..4096].fill(0xa5)),
            ("truncated", |bytes| bytes.truncate(5000)),
        ];
        for (what, spoil) in spoils {
            let folder = tempfile::tempdir().unwrap();
            let (store, first) = open(folder.path(), SCHEMA).unwrap();
            insert(&store, 50);
            store.close();
            let database = folder.path().join("forebay.db");
            let mut bytes = std::fs::read(&database).unwrap();
            spoil(&mut bytes);
            std::fs::write(&database, &bytes).unwrap();
            let (store, second) = open(folder.path(), SCHEMA).unwrap_or_else(|error| panic!("{what}: {error:?}"));
            let aside = second.quarantined.unwrap_or_else(|| panic!("{what}: nothing was set aside"));
            assert_eq!(std::fs::read(&aside).unwrap(), bytes, "{what}: kept as it was");
            assert!(second.epoch > first.epoch, "{what}");
            assert_eq!(count(&store), 0, "{what}");
            insert(&store, 1);
        }
    }

    #[test]
    fn quarantined_files_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        for wall_ms in 1..6 {
            std::fs::write(folder.path().join("forebay.db"), [wall_ms; 5000]).unwrap();
            let (store, opened) = open_at(folder.path(), SCHEMA, i64::from(wall_ms)).unwrap();
            assert!(opened.quarantined.is_some());
            store.close();
        }
        let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut aside: Vec<_> =
            names.map(|name| name.to_string_lossy().into_owned()).filter(|name| name.contains("quarantine")).collect();
        aside.sort();
        aside.retain(|name| !name.ends_with("-epoch"));
        assert_eq!(aside, ["forebay.db.quarantine-4", "forebay.db.quarantine-5"]);
    }

    #[test]
    fn corruption_found_while_running_is_healed_by_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let (store, first) = open(folder.path(), SCHEMA).unwrap();
        insert(&store, 200);
        store.close();
        let database = folder.path().join("forebay.db");
        let mut bytes = std::fs::read(&database).unwrap();
        let rows = bytes.len() - 4 * 4096;
        bytes[rows..].fill(0x5a);
        std::fs::write(&database, &bytes).unwrap();
        let (store, second) = open(folder.path(), SCHEMA).unwrap();
        assert!(second.quarantined.is_none(), "opening does not read the rows");
        let sum = |tx: &crate::store::Tx<'_>| {
            tx.query_row("SELECT sum(length(body) + length(no)) FROM item NOT INDEXED", [], |row| row.get::<_, i64>(0))
        };
        store.writer().commit_blocking(sum).unwrap_err();
        assert!(matches!(&*store.health().borrow(), Health::Failing { restart_heals: true, .. }));
        store.close();
        let (_store, third) = open(folder.path(), SCHEMA).unwrap();
        assert!(third.quarantined.is_some() && third.epoch > first.epoch);
    }

    #[test]
    fn an_older_schema_steps_up_and_keeps_its_rows() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = open(folder.path(), SCHEMA).unwrap();
        insert(&store, 2);
        store.close();
        let (store, _) = open(folder.path(), NEXT).unwrap();
        let grey = |tx: &crate::store::Tx<'_>| {
            tx.query_row("SELECT count(*) FROM item WHERE colour = 'grey'", [], |row| row.get::<_, i64>(0))
        };
        assert_eq!(store.writer().commit_blocking(grey).unwrap(), 2);
        store.close();
        let error = open(folder.path(), SCHEMA).err().expect("the tables are newer than the program");
        assert_eq!(
            error.to_string(),
            "test tables are at version 2, this program knows 1: run the newer version, or move the file away"
        );
        let (store, again) = open(folder.path(), NEXT).unwrap();
        assert!(again.quarantined.is_none());
        assert_eq!(count(&store), 2, "refusing to open costs nothing");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), b"").unwrap();
        let error = open(&folder.path().join("file/state"), SCHEMA).err().unwrap();
        assert!(error.to_string().starts_with("failed to create "), "{error}");
    }
}
