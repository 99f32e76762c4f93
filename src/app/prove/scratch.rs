//! Folders that exist for the time of a proof.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};

static NUMBER: AtomicU64 = AtomicU64::new(0);

/// A new empty folder, removed with everything in it when dropped.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Makes a folder inside `parent` whose name nothing else has.
    pub(super) fn within(parent: &Path) -> Result<Self> {
        let fail = || format!("failed to create a folder in {}", parent.display());
        fs::create_dir_all(parent).with_context(fail)?;
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!(".forebay-prove-{}-{number}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(fail),
            }
        }
    }

    /// In memory where the system has such a folder, otherwise in `parent`: images of a disk are cheap to make there.
    pub(super) fn in_memory(parent: &Path) -> Result<Self> {
        Self::within(Path::new("/dev/shm")).or_else(|_| Self::within(parent))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
