//! One version of one model, on disk.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::golden::GoldenFile;
use super::manifest::{FileEntry, Manifest};
use super::npy;
use super::serving::Serving;
use super::triton::Triton;
use crate::base::{Digest, Tensor};

/// Most bytes of a version's golden files together.
pub(super) const GOLDEN_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A tokenizer with a large vocabulary has 17 MB.
pub(super) const FILE_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Why a model's bytes cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be opened or read.
    #[error("failed to read {}", path.display())]
    Read {
        /// The model file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A folder, a pipe, a device.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// Its real place is outside the models folder.
    #[error("{} leads out of the models folder", .0.display())]
    Outside(PathBuf),
    /// Over the configured bound.
    #[error("{} has {bytes} bytes, the most is {most} (catalog.model_bytes_max)", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The bound.
        most: u64,
    },
    /// The file is not the one that the manifest describes.
    #[error("{} has SHA-256 {found}, its manifest says {expected}", path.display())]
    Digest {
        /// The model file.
        path: PathBuf,
        /// What the manifest says.
        expected: Digest,
        /// What the file has.
        found: Digest,
    },
    /// A golden file that holds no tensor.
    #[error("failed to read {} as a tensor: {what}", path.display())]
    Golden {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

/// A version whose manifest is sound and whose file had the right digest when the folder was scanned.
#[derive(Debug, Clone)]
pub struct Model {
    /// The manifest.
    pub manifest: Manifest,
    /// The version folder, resolved.
    pub folder: PathBuf,
    /// Size of the model file in bytes.
    pub size_bytes: u64,
    /// What a `config.pbtxt` beside its versions says.
    pub triton: Option<Arc<Triton>>,
    /// Where the files of `[[file]]` are, in its order.
    pub(super) beside: Vec<PathBuf>,
    pub(super) file: PathBuf,
    pub(super) bytes_max: u64,
}

impl Model {
    /// How it is served by its manifest, and where that says nothing by its `config.pbtxt`.
    pub fn serving(&self) -> Serving {
        let triton = self.triton.as_ref().map(|triton| self.manifest.serving.before(&triton.serving));
        triton.unwrap_or_else(|| self.manifest.serving.clone())
    }

    /// The model file's bytes, whose digest is the manifest's. Reads the disk: not for an async thread.
    pub fn read(&self) -> Result<Arc<[u8]>, Error> {
        let (mut file, size) = open_regular(&self.file, self.bytes_max)?;
        let failed = |source| Error::Read { path: self.file.clone(), source };
        let size = usize::try_from(size).map_err(|_| failed(io::ErrorKind::OutOfMemory.into()))?;
        // Read to where it stays: a large model would be in memory twice for a while. What it has grown since is no part of
        // it, what it has shrunk is missed.
        let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, size).collect();
        let place = Arc::get_mut(&mut bytes).expect("nobody else has it yet");
        file.read_exact(place).map_err(failed)?;
        agree(&self.file, self.manifest.model.sha256, Digest::of(&bytes))?;
        Ok(bytes)
    }

    /// The bytes of a file that the manifest lists in `[[file]]`, whose digest is the manifest's. None if it lists no such
    /// file. Reads the disk: not for an async thread.
    pub fn read_file(&self, name: &str) -> Option<Result<Vec<u8>, Error>> {
        let (entry, place) = self.manifest.files.iter().zip(&self.beside).find(|(entry, _)| entry.name == name)?;
        Some(read_entry(place, entry))
    }
}

fn read_entry(path: &Path, entry: &FileEntry) -> Result<Vec<u8>, Error> {
    let (file, _) = open_regular(path, FILE_BYTES_MAX)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(|source| Error::Read { path: path.to_owned(), source })?;
    agree(path, entry.sha256, Digest::of(&bytes))?;
    Ok(bytes)
}

impl Model {
    /// The tensor in a golden file, whose digest is the manifest's. Reads the disk: not for an async thread.
    pub fn golden_tensor(&self, golden: &GoldenFile) -> Result<Tensor, Error> {
        let path = resolve(&self.folder, &self.folder.join(&golden.file))?;
        let (file, _) = open_regular(&path, GOLDEN_BYTES_MAX)?;
        let mut bytes = Vec::new();
        file.take(GOLDEN_BYTES_MAX)
            .read_to_end(&mut bytes)
            .map_err(|source| Error::Read { path: path.clone(), source })?;
        agree(&path, golden.sha256, Digest::of(&bytes))?;
        npy::parse(&bytes.into()).map_err(|what| Error::Golden { path, what })
    }
}

/// The real place of `path`, which must lie below `root` (itself resolved).
pub(super) fn resolve(root: &Path, path: &Path) -> Result<PathBuf, Error> {
    let real = path.canonicalize().map_err(|source| Error::Read { path: path.to_owned(), source })?;
    if real.starts_with(root) { Ok(real) } else { Err(Error::Outside(path.to_owned())) }
}

/// Opens a regular file of at most `most` bytes and says its size. Checked before opening: opening a pipe would wait.
pub(super) fn open_regular(path: &Path, most: u64) -> Result<(File, u64), Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    if !path.metadata().map_err(failed)?.is_file() {
        return Err(Error::NotAFile(path.to_owned()));
    }
    let file = File::open(path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    if bytes > most {
        return Err(Error::TooLarge { path: path.to_owned(), bytes, most });
    }
    Ok((file, bytes))
}

/// Checks a file's digest without holding it in memory, and says its size.
pub(super) fn verify(path: &Path, expected: Digest, most: u64) -> Result<u64, Error> {
    let (file, bytes) = open_regular(path, most)?;
    let mut hasher = Sha256::new();
    let mut file = file.take(most);
    let mut part = vec![0; 64 * 1024];
    loop {
        let read = file.read(&mut part).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        if read == 0 {
            break;
        }
        hasher.update(&part[..read]);
    }
    let found: [u8; 32] = hasher.finalize().into();
    agree(path, expected, Digest::from(found))?;
    Ok(bytes)
}

fn agree(path: &Path, expected: Digest, found: Digest) -> Result<(), Error> {
    if found == expected { Ok(()) } else { Err(Error::Digest { path: path.to_owned(), expected, found }) }
}
