//! Which disk a store uses, as its configuration names it.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::fault::{Call, Faults};
use super::shim;
use super::trace::{Event, Trace};
use crate::base::{FileError, replace_file};

/// What a commit waits for. A gateway always waits for the disk; the other two exist to show that a proof sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Synchronous {
    /// Every commit is synced.
    #[default]
    Full,
    /// Only checkpoints are: a power cut loses commits.
    Normal,
    /// Nothing is: a power cut may destroy the file.
    Off,
}

impl Synchronous {
    /// SQLite's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Normal => "normal",
            Self::Off => "off",
        }
    }
}

/// What a watched disk records, counts and breaks.
#[derive(Debug, Default)]
pub struct Watch {
    /// The recording.
    pub trace: Trace,
    /// Failures on order.
    pub faults: Faults,
    pub(super) read_bytes: AtomicU64,
    pub(super) written_bytes: AtomicU64,
    pub(super) syncs: AtomicU64,
    /// One per file whose sync was made to fail, with how often: each handle that was open then fails once, as on Linux.
    failed_syncs: Mutex<Vec<(Arc<str>, u64)>>,
}

impl Watch {
    /// Bytes asked of the system so far.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    /// Bytes handed to the system so far.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// Syncs that returned well so far.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// How often a sync of this file was made to fail.
    pub(super) fn failed_syncs(&self, name: &Arc<str>) -> u64 {
        let failed = self.failed_syncs.lock().unwrap_or_else(PoisonError::into_inner);
        failed.iter().find(|(file, _)| file == name).map_or(0, |(_, times)| *times)
    }

    /// Once more.
    pub(super) fn fail_sync(&self, name: &Arc<str>) -> u64 {
        let mut failed = self.failed_syncs.lock().unwrap_or_else(PoisonError::into_inner);
        match failed.iter_mut().find(|(file, _)| file == name) {
            Some((_, times)) => {
                *times += 1;
                *times
            }
            None => {
                failed.push((Arc::clone(name), 1));
                1
            }
        }
    }
}

/// The disk of a store: the system's, unless a test or a proof watches it.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    watched: Option<(Arc<Watch>, &'static CStr)>,
    synchronous: Synchronous,
}

impl Disk {
    /// A disk whose every call `watch` sees. It is registered with SQLite for the rest of the process.
    pub fn watched(watch: &Arc<Watch>) -> rusqlite::Result<Self> {
        let name = shim::register(Arc::clone(watch))?;
        Ok(Self { watched: Some((Arc::clone(watch), name)), synchronous: Synchronous::Full })
    }

    /// The same disk, with commits that wait for less.
    #[must_use]
    pub fn with_synchronous(self, synchronous: Synchronous) -> Self {
        Self { synchronous, ..self }
    }

    pub(in crate::store) fn synchronous(&self) -> Synchronous {
        self.synchronous
    }

    pub(in crate::store) fn vfs(&self) -> Option<&'static CStr> {
        self.watched.as_ref().map(|(_, name)| *name)
    }

    /// Writes zeros into `file`, which lies at `path`, recorded like SQLite's own writes. A page at a time: for a larger
    /// write ext4 takes a larger piece of its cache (from Linux 6.16 on), and whatever is written into it later counts whole
    /// in the process's `write_bytes`.
    pub(in crate::store) fn write_zeros(&self, file: &File, path: &Path, from: u64, to: u64) -> io::Result<()> {
        static ZEROS: [u8; 4096] = [0; 4096];
        if let Some((watch, _)) = &self.watched
            && watch.faults.strike(Call::Write).is_some()
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut at = from;
        while at < to {
            let bytes = usize::try_from(to - at).unwrap_or(ZEROS.len()).min(ZEROS.len());
            file.write_all_at(&ZEROS[..bytes], at)?;
            at += bytes as u64;
        }
        if let Some((watch, _)) = &self.watched {
            let zeros = to.saturating_sub(from);
            watch.written_bytes.fetch_add(zeros, Ordering::Relaxed);
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            let bytes = vec![0; usize::try_from(zeros).unwrap_or(0)];
            watch.trace.record(|| Event::Written { file: file.into(), offset: from, bytes: bytes.into() });
        }
        Ok(())
    }

    /// Writes what `file`, which lies at `path`, has in this range once more and syncs it, recorded like SQLite's own calls.
    pub(in crate::store) fn write_again(&self, file: &File, path: &Path, range: Range<u64>) -> io::Result<()> {
        const PIECE_BYTES: u64 = 64 << 10;
        let watch = self.watched.as_ref().map(|(watch, _)| watch);
        let name: Arc<str> = path.file_name().unwrap_or_default().to_string_lossy().into();
        let mut offset = range.start;
        while offset < range.end {
            let mut piece = vec![0; usize::try_from((range.end - offset).min(PIECE_BYTES)).unwrap_or(0)];
            file.read_exact_at(&mut piece, offset)?;
            if watch.is_some_and(|watch| watch.faults.strike(Call::Write).is_some()) {
                return Err(io::Error::other("a failure on order"));
            }
            file.write_all_at(&piece, offset)?;
            let bytes: Arc<[u8]> = piece.into();
            if let Some(watch) = watch {
                watch.written_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                let (file, bytes) = (Arc::clone(&name), Arc::clone(&bytes));
                watch.trace.record(|| Event::Written { file, offset, bytes });
            }
            offset += bytes.len() as u64;
        }
        if let Some(watch) = watch
            && watch.faults.strike(Call::Sync).is_some()
        {
            watch.fail_sync(&name);
            watch.trace.record(|| Event::SyncFailed { file: name });
            return Err(io::Error::other("a failure on order"));
        }
        file.sync_data()?;
        if let Some(watch) = watch {
            watch.syncs.fetch_add(1, Ordering::Relaxed);
            watch.trace.record(|| Event::Synced { file: name, folder: false });
        }
        Ok(())
    }

    /// `base::replace_file`, recorded.
    pub(in crate::store) fn replace_file(&self, path: &Path, bytes: &[u8]) -> Result<(), FileError> {
        replace_file(path, bytes)?;
        if let Some((watch, _)) = &self.watched {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            watch.trace.record(|| Event::Replaced { file: file.into(), bytes: bytes.into() });
        }
        Ok(())
    }
}

impl PartialEq for Disk {
    fn eq(&self, other: &Self) -> bool {
        self.vfs() == other.vfs() && self.synchronous == other.synchronous
    }
}

impl Eq for Disk {}
