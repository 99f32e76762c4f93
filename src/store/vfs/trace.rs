//! What was done to the disk, in order, with what the program said in between.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One thing that happened to a file of the state folder, or one word of the program. Files go by their name there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The file did not exist and does now; its name may not survive a power cut yet.
    Created {
        /// The file.
        file: Arc<str>,
    },
    /// Bytes were handed to the system.
    Written {
        /// The file.
        file: Arc<str>,
        /// Where.
        offset: u64,
        /// What.
        bytes: Arc<[u8]>,
    },
    /// The length was cut or extended.
    Truncated {
        /// The file.
        file: Arc<str>,
        /// New length, bytes.
        size: u64,
    },
    /// A sync returned: everything written to the file before is on the disk.
    Synced {
        /// The file.
        file: Arc<str>,
        /// The folder was synced along with it, so every name before is on the disk too.
        folder: bool,
    },
    /// A sync failed: what was written before may never reach the disk, whatever later syncs say.
    SyncFailed {
        /// The file.
        file: Arc<str>,
    },
    /// The name is gone; it may come back after a power cut unless the folder was synced.
    Deleted {
        /// The file.
        file: Arc<str>,
        /// The folder was synced after it.
        folder: bool,
    },
    /// A small file was replaced durably: content, name and folder are on the disk.
    Replaced {
        /// The file.
        file: Arc<str>,
        /// Its content.
        bytes: Arc<[u8]>,
    },
    /// The program's own word, such as what it has acknowledged just now.
    Mark(Arc<str>),
}

/// A recording. Empty and growing only between [`start`](Self::start) and [`stop`](Self::stop).
#[derive(Debug, Default)]
pub struct Trace {
    events: Mutex<(bool, Vec<Event>)>,
}

impl Trace {
    fn lock(&self) -> MutexGuard<'_, (bool, Vec<Event>)> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records from now on.
    pub fn start(&self) {
        self.lock().0 = true;
    }

    /// Records no more.
    pub fn stop(&self) {
        self.lock().0 = false;
    }

    /// Puts the program's own word between the calls.
    pub fn mark(&self, word: &str) {
        self.record(|| Event::Mark(word.into()));
    }

    pub(super) fn record(&self, event: impl FnOnce() -> Event) {
        let mut events = self.lock();
        if events.0 {
            events.1.push(event());
        }
    }

    /// What was recorded so far, and forgets it.
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.lock().1)
    }
}
