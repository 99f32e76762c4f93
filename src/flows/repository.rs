//! Models come and go while the gateway runs: loaded from the models folder, taken away, loaded again.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::models::{Models, load_one};
use crate::catalog::{self, Catalog};
use crate::engine::Pool;

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
    /// Streams are scored by it.
    #[error("{model} scores the readings of {streams}, so it stays loaded")]
    InUse {
        /// The model.
        model: String,
        /// Their names.
        streams: String,
    },
    /// The gateway is stopping.
    #[error("the gateway is stopping")]
    Closing,
}

/// The story of a model that comes or goes.
pub struct Repository {
    models: Arc<Models>,
    pool: Arc<Pool>,
    catalog: Arc<catalog::Config>,
    /// One change at a time. A load holds it to its end, also when its caller has gone.
    changing: Arc<Mutex<()>>,
}

impl Repository {
    /// Over the models that were loaded at the start.
    pub fn new(models: Arc<Models>, pool: Arc<Pool>, catalog: catalog::Config) -> Self {
        Self { models, pool, catalog: Arc::new(catalog), changing: Arc::default() }
    }

    /// Loads what is new or has changed in a model's folder and puts it in place when all of it is there; until then the
    /// versions that serve go on. Versions that are not in the folder any more go. A stream keeps the version that it
    /// began with until the next start.
    pub async fn load(&self, model: &str) -> Result<(), RepositoryError> {
        let changing = Arc::clone(&self.changing).lock_owned().await;
        let (models, pool, catalog) = (Arc::clone(&self.models), Arc::clone(&self.pool), Arc::clone(&self.catalog));
        let model = model.to_owned();
        let loading = tokio::task::spawn_blocking(move || {
            let _changing = changing;
            load(&models, &pool, &catalog, &model)
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
}

fn load(models: &Models, pool: &Pool, config: &catalog::Config, name: &str) -> Result<(), RepositoryError> {
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
    let mut versions = BTreeMap::new();
    for model in found.versions(name.as_str()) {
        let loaded = match models.unchanged(model) {
            Some(loaded) => Ok(loaded),
            None => load_one(model, pool),
        };
        versions.insert(model.manifest.model.version, loaded);
    }
    if versions.values().all(Result::is_err) {
        let reason = |(version, loaded): (&u32, &Result<_, String>)| {
            loaded.as_ref().err().map(|reason| format!("{name}/{version}: {reason}"))
        };
        let reasons = versions.iter().filter_map(reason).collect::<Vec<_>>().join("; ");
        // What serves, serves on: a bad delivery must not stop the line.
        return Err(RepositoryError::Refused { model: name.to_string(), reasons: reasons + &problems });
    }
    models.put(&name, versions);
    Ok(())
}
