//! Models come and go while the gateway runs: loaded from the models folder, taken away, loaded again.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::load_config::LoadConfig;
use super::models::{Models, NotServing, chain};
use super::slot::{Slot, State};
use crate::base::Name;
use crate::catalog::{self, AliasError, Catalog};

/// Why a model was neither loaded nor taken away.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// No folder of that name with a usable version in it.
    #[error("failed to load {model:?}: no usable version of it in {folder}{problems}")]
    Unknown {
        /// As asked.
        model: String,
        /// The models folder.
        folder: String,
        /// What is broken there.
        problems: String,
    },
    /// Nothing of that name to take away.
    #[error("failed to unload {0:?}: no such model")]
    NotThere(String),
    /// None of its versions serves.
    #[error("failed to load {model}: {reasons}")]
    Refused {
        /// The model.
        model: String,
        /// One for each version.
        reasons: String,
    },
    /// A configuration came with the request that cannot be had.
    #[error("failed to load {model:?} with the configuration of the request: {problem}")]
    Configuration {
        /// As asked.
        model: String,
        /// Which key, and why.
        problem: String,
    },
    /// A model's file came with the request, which nobody signed. In Triton's words, which its clients' programs look for.
    #[error(
        "failed to load {model:?}: failed to poll from model repository: {file:?} cannot be given with a request, models lie in the models folder"
    )]
    Files {
        /// As asked.
        model: String,
        /// The parameter.
        file: String,
    },
    /// Streams are scored by it.
    #[error("{model} scores the readings of {streams}, so it stays loaded")]
    InUse {
        /// The model.
        model: String,
        /// Their names.
        streams: String,
    },
    /// No such model, version or alias.
    #[error("{0}")]
    NoSuch(String),
    /// An alias that cannot be, or a version that cannot answer under it.
    #[error("{0}")]
    Alias(String),
    /// The aliases could not be written.
    #[error("{0}")]
    Disk(String),
    /// The gateway is stopping.
    #[error("the gateway is stopping")]
    Closing,
}

/// The story of a model that comes or goes.
pub struct Repository {
    models: Arc<Models>,
    catalog: Arc<catalog::Config>,
    /// One change at a time. A load holds it to its end, also when its caller has gone.
    changing: Arc<Mutex<()>>,
}

impl Repository {
    /// Over the models that were loaded at the start.
    pub fn new(models: Arc<Models>, catalog: catalog::Config) -> Self {
        Self { models, catalog: Arc::new(catalog), changing: Arc::default() }
    }

    /// Loads what is new or has changed in a model's folder and puts it in place when all of it is there; until then the
    /// versions that serve go on. Versions that are not in the folder any more go. A stream keeps the version that it
    /// began with until the next start.
    pub async fn load(&self, model: &str) -> Result<(), RepositoryError> {
        self.load_as(model, LoadConfig::default()).await
    }

    /// The same, and what `asked` says of how it is served goes before the configuration, until it is loaded again.
    pub async fn load_as(&self, model: &str, asked: LoadConfig) -> Result<(), RepositoryError> {
        let changing = Arc::clone(&self.changing).lock_owned().await;
        let (models, catalog) = (Arc::clone(&self.models), Arc::clone(&self.catalog));
        let model = model.to_owned();
        let loading = tokio::task::spawn_blocking(move || {
            let _changing = changing;
            load(&models, &catalog, &model, &asked)
        });
        loading.await.map_err(|_| RepositoryError::Closing)?
    }

    /// Takes a model away. Requests that have it finish; its memory goes with the last of them.
    pub async fn unload(&self, model: &str) -> Result<(), RepositoryError> {
        let _changing = self.changing.lock().await;
        let streams = self.models.streams_of(model);
        if !streams.is_empty() {
            return Err(RepositoryError::InUse { model: model.to_owned(), streams: streams.join(", ") });
        }
        if self.models.take(model) {
            tracing::info!(model.name = model, "model unloaded");
            return Ok(());
        }
        Err(RepositoryError::NotThere(model.to_owned()))
    }

    /// Every alias of a model by name.
    pub fn aliases(&self, model: &str) -> Result<BTreeMap<Name, u32>, RepositoryError> {
        let unknown = || RepositoryError::NoSuch(NotServing::Unknown(model.to_owned()).to_string());
        self.models.aliases(model).ok_or_else(unknown)
    }

    /// Requests for `alias` of a model go to `version` from now on, which must be able to answer. Kept over restarts.
    pub async fn set_alias(&self, model: &str, alias: &str, version: u32) -> Result<(), RepositoryError> {
        self.models.known(model, Some(version)).map_err(|error| match error {
            NotServing::Unknown(_) => RepositoryError::NoSuch(error.to_string()),
            other => RepositoryError::Alias(other.to_string()),
        })?;
        self.change(model, alias, move |models, name, alias| models.put_alias(name, alias, version)).await?;
        tracing::info!(model.name = model, alias, version, "alias set");
        Ok(())
    }

    /// Forgets what was set for an alias; what the configuration says of it counts again.
    pub async fn remove_alias(&self, model: &str, alias: &str) -> Result<(), RepositoryError> {
        self.aliases(model)?;
        self.change(model, alias, |models, name, alias| models.remove_alias(name, alias)).await?;
        tracing::info!(model.name = model, alias, "alias removed");
        Ok(())
    }

    async fn change(
        &self,
        model: &str,
        alias: &str,
        change: impl FnOnce(&Models, &Name, &str) -> Result<(), AliasError> + Send + 'static,
    ) -> Result<(), RepositoryError> {
        let name = Name::new(model).map_err(|error| RepositoryError::NoSuch(error.to_string()))?;
        let (models, alias) = (Arc::clone(&self.models), alias.to_owned());
        let changed = tokio::task::spawn_blocking(move || change(&models, &name, &alias)).await;
        changed.map_err(|_| RepositoryError::Closing)?.map_err(|error| match error {
            AliasError::Wrong(_) => RepositoryError::Alias(error.to_string()),
            AliasError::NotSet { .. } => RepositoryError::NoSuch(error.to_string()),
            AliasError::Keep(_) => RepositoryError::Disk(chain(&error)),
        })
    }
}

fn load(models: &Models, config: &catalog::Config, name: &str, asked: &LoadConfig) -> Result<(), RepositoryError> {
    let found = Catalog::scan_model(config, name);
    for problem in found.problems() {
        tracing::error!(problem = %problem, "a model folder is not usable");
    }
    let problems = found.problems().iter().map(|problem| format!("; {problem}")).collect::<String>();
    let Some(newest) = found.model(name, None) else {
        let folder = config.folder.display().to_string();
        return Err(RepositoryError::Unknown { model: name.to_owned(), folder, problems });
    };
    let name = newest.manifest.model.name.clone();
    let mut versions = models.slots(&name, found.versions(name.as_str()), asked);
    for (version, slot) in &mut versions {
        if let Some(unchanged) = models.unchanged(&name, *version, slot) {
            *slot = unchanged;
        } else if slot.begins_loading() {
            // Also one that loads on request: whoever loads it by hand wants to know whether it can be.
            models.load_now(slot);
        }
    }
    if versions.values().all(|slot| slot.loaded().is_none()) {
        let reason = |(version, slot): (&u32, &Arc<Slot>)| {
            let reason = match slot.state() {
                State::Refused(reason) | State::Away(reason) | State::Asleep(Some(reason)) => reason,
                State::Asleep(None) | State::Loading | State::Serving(_) => return None,
            };
            Some(format!("{name}/{version}: {reason}"))
        };
        let reasons = versions.iter().filter_map(reason).collect::<Vec<_>>().join("; ");
        // What serves, serves on: a bad delivery must not stop the line.
        return Err(RepositoryError::Refused { model: name.to_string(), reasons: reasons + &problems });
    }
    for loaded in versions.values().filter_map(|slot| slot.loaded()) {
        let configuration = |problem| RepositoryError::Configuration { model: name.to_string(), problem };
        asked.check(&loaded.manifest).map_err(configuration)?;
    }
    models.put(&name, versions, found.broken().get(&name));
    Ok(())
}
