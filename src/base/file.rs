//! Replacing a small file so that a power cut leaves the old or the new one, never a torn one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Why a file could not be replaced. The old file is still there.
#[derive(Debug, thiserror::Error)]
#[error("failed to {step} {}", path.display())]
pub struct FileError {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Writes `bytes` beside `path`, syncs, renames over it and syncs the folder.
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let fail = |step, path: &Path| {
        let path = path.to_owned();
        move |source| FileError { step, path, source }
    };
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).open(&beside).map_err(fail("create", &beside))?;
    file.write_all(bytes).map_err(fail("write", &beside))?;
    file.sync_all().map_err(fail("sync", &beside))?;
    std::fs::rename(&beside, path).map_err(fail("rename over", path))?;
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(fail("sync", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacing_leaves_only_the_new_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        replace_file(&path, b"old").unwrap();
        replace_file(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_folder_is_named_in_the_error() {
        let error = replace_file(Path::new("/nowhere/at/all"), b"x").unwrap_err();
        assert_eq!(error.to_string(), "failed to create /nowhere/at/all.new");
    }
}
