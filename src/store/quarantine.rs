//! Setting a bad file aside, so that the process always starts.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use super::error::Error;
use super::salvage::Wreck;
use crate::base::{Epoch, replace_file};

const ASIDE: &str = ".quarantine-";
const EPOCH: &str = "-epoch";

/// The path with something behind its name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn marker(database: &Path) -> PathBuf {
    beside(database, ".corrupt")
}

/// Remembers that the file's content failed, so that the next start sets it aside.
pub(super) fn mark(database: &Path) {
    if let Err(error) = replace_file(&marker(database), b"set aside at the next start\n") {
        tracing::warn!(error = %error, "the next start will not know that the database is corrupt");
    }
}

/// True if an earlier run found the content bad.
pub(super) fn is_marked(database: &Path) -> bool {
    marker(database).exists()
}

/// True if opening failed because of what the file holds. Anything the machine is to blame for (space, permission,
/// memory, a lock) must not cost the queue.
pub(super) fn is_bad_content(error: &Error, database: &Path) -> bool {
    let (Error::Sql(source) | Error::Open { source, .. }) = error else {
        return matches!(error, Error::Row { .. } | Error::Structure { .. });
    };
    let Some(code) = source.sqlite_error_code() else { return true };
    match code {
        // A flipped version byte in the header reads as read-only too.
        ErrorCode::ReadOnly => fs::OpenOptions::new().write(true).open(database).is_ok(),
        ErrorCode::DiskFull
        | ErrorCode::SystemIoFailure
        | ErrorCode::CannotOpen
        | ErrorCode::PermissionDenied
        | ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::FileLockingProtocolFailed
        | ErrorCode::OutOfMemory
        | ErrorCode::AuthorizationForStatementDenied => false,
        _ => true,
    }
}

/// Renames the database and its log to `*.quarantine-<wall_ms>`, keeps the newest `keep` of them. The epoch that `side`
/// holds is noted beside it first: what is salvaged later keeps its identity.
pub(super) fn set_aside(database: &Path, side: &Path, wall_ms: i64, keep: usize) -> Result<PathBuf, Error> {
    let fail = |step, path: &Path| {
        let path = path.to_owned();
        move |source| Error::File { step, path, source }
    };
    let mut at_ms = wall_ms;
    let aside = loop {
        let aside = beside(database, &format!("{ASIDE}{at_ms}"));
        if !aside.exists() {
            break aside;
        }
        at_ms += 1;
    };
    let absent_is_fine = |result: io::Result<()>| match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    };
    if let Ok(epoch) = fs::read(side) {
        replace_file(&beside(&aside, EPOCH), &epoch)?;
    }
    absent_is_fine(fs::rename(database, &aside)).map_err(fail("set aside", database))?;
    let log = beside(database, "-wal");
    absent_is_fine(fs::rename(&log, beside(&aside, "-wal"))).map_err(fail("set aside", &log))?;
    for suffix in ["-shm", ".corrupt"] {
        let path = beside(database, suffix);
        absent_is_fine(fs::remove_file(&path)).map_err(fail("remove", &path))?;
    }
    remove_oldest(database, keep);
    if let Some(folder) = database.parent() {
        sync_folder(folder).map_err(fail("sync", folder))?;
    }
    Ok(aside)
}

pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Files that were set aside and are still there, oldest first.
pub(super) fn wrecks(database: &Path) -> Vec<Wreck> {
    let mut times = times(database);
    times.sort_unstable();
    times
        .into_iter()
        .map(|time| {
            let path = beside(database, &format!("{ASIDE}{time}"));
            let noted = fs::read_to_string(beside(&path, EPOCH)).ok();
            let epoch = noted.and_then(|text| text.trim().parse().ok()).map(Epoch);
            Wreck { path, epoch }
        })
        .collect()
}

fn times(database: &Path) -> Vec<i64> {
    let (Some(folder), Some(name)) = (database.parent(), database.file_name()) else { return Vec::new() };
    let prefix = format!("{}{ASIDE}", name.to_string_lossy());
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let time = |entry: fs::DirEntry| entry.file_name().to_string_lossy().strip_prefix(&prefix)?.parse().ok();
    entries.flatten().filter_map(time).collect()
}

/// Removes a file that was set aside, the file itself last: what is left of a removal is removed by the next.
pub(super) fn remove(aside: &Path) {
    for suffix in ["-wal", "-shm", EPOCH, ""] {
        let _ = fs::remove_file(beside(aside, suffix));
    }
}

fn remove_oldest(database: &Path, keep: usize) {
    let mut times = times(database);
    times.sort_unstable_by(|a, b| b.cmp(a));
    for time in times.into_iter().skip(keep.max(1)) {
        remove(&beside(database, &format!("{ASIDE}{time}")));
    }
}
