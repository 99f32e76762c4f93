//! `[catalog]`: where the models lie.

use std::path::PathBuf;

use serde::Deserialize;

/// `[catalog]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The models folder, with `<name>/<version>/manifest.toml` in it.
    pub folder: PathBuf,
    /// Largest model file in bytes. The file is read whole into memory while it is loaded.
    pub model_bytes_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { folder: PathBuf::from("models"), model_bytes_max: 256 * 1024 * 1024 }
    }
}
