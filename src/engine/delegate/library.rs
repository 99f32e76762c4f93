//! Whether a library is the one that was tried.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::base::Digest;

/// The version that this release was tried with. From 1.29 on, official builds for Linux send telemetry, whatever they
/// are asked not to do.
pub const RUNTIME_VERSION: &str = "1.28.0";

/// SHA-256 of `capi/libonnxruntime.so.1.28.0` in the wheels `onnxruntime` 1.28.0 of PyPI, by the machine's architecture.
const PINNED: [(&str, &str); 2] = [
    ("x86_64", "aa4079d18f4ea7a5f3a94d80cd4bbe0f2740436626622d64d793803a20381083"),
    ("aarch64", "23a37c2994bc273e1d59a4f49af6cba5bf1cfbc29f04907ec27df375aba50a7d"),
];

/// What the library of the pinned version has on this architecture.
pub fn pinned() -> Option<Digest> {
    let (_, digest) = PINNED.iter().find(|(architecture, _)| *architecture == std::env::consts::ARCH)?;
    digest.parse().ok()
}

/// SHA-256 of a file, read piece by piece.
pub fn digest_of(path: &Path) -> std::io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; 256 * 1024];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(Digest::from(<[u8; 32]>::from(hasher.finalize()))),
            read => hasher.update(&piece[..read]),
        }
    }
}

/// Refuses a library that is neither the configured nor the pinned one.
pub(super) fn check(path: &Path, configured: Option<Digest>) -> Result<(), String> {
    let found = digest_of(path).map_err(|error| format!("failed to read {}: {error}", path.display()))?;
    let (expected, whose) = match configured {
        Some(digest) => (Some(digest), "delegate.library_sha256 says"),
        None => (pinned(), "ONNX Runtime 1.28.0 of PyPI has"),
    };
    match expected {
        Some(expected) if expected == found => Ok(()),
        Some(expected) => Err(format!("{} has SHA-256 {found}, {whose} {expected}", path.display())),
        None => Err(format!(
            "{} has SHA-256 {found}; none is known for this machine: put it into delegate.library_sha256",
            path.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_the_one_expected_is_refused_with_both_digests() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libonnxruntime.so");
        File::create(&path).unwrap();
        let empty = Digest::of(b"");
        assert_eq!(check(&path, Some(empty)), Ok(()));
        let other = check(&path, Some(Digest::of(b"x"))).unwrap_err();
        assert!(other.contains(&empty.to_string()) && other.contains("library_sha256 says"), "{other}");
        assert!(check(&path, None).is_err());
        assert!(check(Path::new("/nowhere/lib.so"), None).unwrap_err().starts_with("failed to read /nowhere/lib.so"));
    }
}
