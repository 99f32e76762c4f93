//! `[catalog]`: where the models lie, and what is to be said of single ones.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::serving::{Serving, Versions};
use super::traffic::Traffic;
use crate::base::Name;

/// `[catalog]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The models folder, with `<name>/<version>/manifest.toml` in it.
    pub folder: PathBuf,
    /// Largest model file in bytes. The file is read whole into memory while it is loaded.
    pub model_bytes_max: u64,
    /// Requests that may wait for one model to be loaded before callers hear `busy`.
    pub load_queue_max: usize,
    /// `[catalog.models.NAME]`: what is to be said of one model.
    pub models: BTreeMap<Name, ModelConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            folder: PathBuf::from("models"),
            model_bytes_max: 256 * 1024 * 1024,
            load_queue_max: 64,
            models: BTreeMap::new(),
        }
    }
}

/// `[catalog.models.NAME]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// Which of its versions are served: `"all"`, `{ latest = 2 }`, or a list.
    pub versions: Versions,
    /// Names for versions: `{ prod = 3, canary = 4 }`. `default` is what answers a request that names no version.
    pub aliases: BTreeMap<Name, u32>,
    /// `[catalog.models.NAME.serving]`, over its manifest's.
    pub serving: Serving,
    /// `[catalog.models.NAME.traffic]`: which version gets a request that names none.
    pub traffic: Option<Traffic>,
}

impl Config {
    /// What is wrong with it: the key, and a sentence.
    pub fn check(&self) -> Result<(), (String, String)> {
        for (name, model) in &self.models {
            let key = |rest: &str| format!("catalog.models.{name}.{rest}");
            model.serving.check().map_err(|problem| (key("serving"), problem))?;
            for (alias, version) in &model.aliases {
                super::aliases::check(alias.as_str(), *version).map_err(|problem| (key("aliases"), problem))?;
            }
            if let Some(traffic) = &model.traffic {
                traffic.check().map_err(|(rest, problem)| (key(&format!("traffic.{rest}")), problem))?;
            }
        }
        Ok(())
    }

    /// What is said of this model.
    pub fn model(&self, name: &Name) -> ModelConfig {
        self.models.get(name).cloned().unwrap_or_default()
    }
}
