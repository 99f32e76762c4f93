//! From the catalog into the engines: which models of this box serve, and why the others do not.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde::Serialize;

use super::load_spec::load_spec;
use super::predict::Predictor;
use super::tally::Tally;
use crate::base::Name;
use crate::catalog::{Catalog, Manifest, Model, NormaliseMethod, Values};
use crate::engine::{Handle, Pool};
use crate::signal::Normalise;

/// One version of a model that serves.
pub struct Loaded {
    /// What its maker says of it.
    pub manifest: Manifest,
    /// Where to ask it.
    pub handle: Handle,
    /// What it served.
    pub tally: Tally,
    /// How pictures, texts and records become its inputs, and what its outputs mean.
    pub predictor: Predictor,
}

/// One version of a model as people see it.
#[derive(Debug, Clone, Serialize)]
pub struct ModelView {
    /// Name.
    pub name: String,
    /// Version.
    pub version: u32,
    /// True if it answers.
    pub serving: bool,
    /// What computes it.
    pub engine: Option<String>,
    /// Engines that were asked before it, with their reasons.
    pub passed_over: Vec<String>,
    /// Why it does not serve.
    pub problem: Option<String>,
}

/// Why a model cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotServing {
    /// Nothing of that name or version.
    #[error("no model {0:?}; GET /api/v1/models lists them")]
    Unknown(String),
    /// It is there and was refused.
    #[error("model {name} does not serve: {reason}")]
    Refused {
        /// `name/version`.
        name: String,
        /// Why.
        reason: String,
    },
}

/// The versions of one model: loaded, or the reason why not.
pub(super) type Versions = BTreeMap<u32, Result<Arc<Loaded>, String>>;

#[derive(Default)]
struct Shelf {
    models: BTreeMap<Name, Versions>,
    /// Streams that a version scores for, by model and version: it stays as long as they do.
    streams: BTreeMap<(Name, u32), Vec<String>>,
}

/// Every model of the box, loaded or with the reason why not. Whoever got a model out of it keeps it until they are done,
/// also when it is taken away meanwhile.
#[derive(Default)]
pub struct Models {
    shelf: RwLock<Shelf>,
    problems: Vec<String>,
}

impl Models {
    /// Loads everything in the catalog. Takes as long as the models need: not for an async thread.
    pub fn load(catalog: &Catalog, pool: &Pool) -> Self {
        let mut models = Self::default();
        for problem in catalog.problems() {
            tracing::error!(problem = %problem, "a model folder is not usable");
            models.problems.push(problem.to_string());
        }
        let mut shelf = Shelf::default();
        for model in catalog.models() {
            let about = &model.manifest.model;
            shelf.models.entry(about.name.clone()).or_default().insert(about.version, load_one(model, pool));
        }
        models.shelf = RwLock::new(shelf);
        models
    }

    fn shelf(&self) -> RwLockReadGuard<'_, Shelf> {
        // Nothing below panics halfway through a change.
        self.shelf.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn shelf_mut(&self) -> RwLockWriteGuard<'_, Shelf> {
        self.shelf.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A version that serves; without a version the newest that does.
    pub fn serving(&self, name: &str, version: Option<u32>) -> Result<Arc<Loaded>, NotServing> {
        let unknown = || NotServing::Unknown(version.map_or_else(|| name.to_owned(), |v| format!("{name}/{v}")));
        let shelf = self.shelf();
        let versions = shelf.models.get(name).ok_or_else(unknown)?;
        let refused = |(version, reason): (&u32, &String)| NotServing::Refused {
            name: format!("{name}/{version}"),
            reason: reason.clone(),
        };
        match version {
            Some(wanted) => match versions.get(&wanted).ok_or_else(unknown)? {
                Ok(loaded) => Ok(Arc::clone(loaded)),
                Err(reason) => Err(refused((&wanted, reason))),
            },
            None => {
                let newest_first = || versions.iter().rev();
                if let Some(loaded) = newest_first().find_map(|(_, loaded)| loaded.as_ref().ok()) {
                    return Ok(Arc::clone(loaded));
                }
                let newest = newest_first().find_map(|(version, loaded)| Some((version, loaded.as_ref().err()?)));
                Err(newest.map_or_else(unknown, refused))
            }
        }
    }

    /// Every version that serves, by name and version.
    pub fn all_serving(&self) -> Vec<Arc<Loaded>> {
        let shelf = self.shelf();
        let loaded = shelf.models.values().flat_map(|versions| versions.values().flatten());
        loaded.map(Arc::clone).collect()
    }

    /// Versions of a model, ascending; empty if there is none.
    pub fn versions(&self, name: &str) -> Vec<u32> {
        self.shelf().models.get(name).map_or_else(Vec::new, |versions| versions.keys().copied().collect())
    }

    /// All of them, by name and version.
    pub fn views(&self) -> Vec<ModelView> {
        let view = |name: &Name, version: &u32, loaded: &Result<Arc<Loaded>, String>| ModelView {
            name: name.to_string(),
            version: *version,
            serving: loaded.is_ok(),
            engine: loaded.as_ref().ok().map(|loaded| loaded.handle.engine().to_owned()),
            passed_over: loaded.as_ref().map_or_else(|_| Vec::new(), |loaded| passed_over(&loaded.handle)),
            problem: loaded.as_ref().err().cloned(),
        };
        let shelf = self.shelf();
        let rows = shelf.models.iter().flat_map(|(name, versions)| versions.iter().map(move |(v, l)| view(name, v, l)));
        rows.collect()
    }

    /// Folders that hold no usable model.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// `stream` is scored by this version from now on, so it must stay.
    pub(super) fn keep_for(&self, stream: &str, loaded: &Loaded) {
        let about = &loaded.manifest.model;
        let key = (about.name.clone(), about.version);
        self.shelf_mut().streams.entry(key).or_default().push(stream.to_owned());
    }

    /// The streams that versions of this model score for.
    pub(super) fn streams_of(&self, name: &str) -> Vec<String> {
        let shelf = self.shelf();
        let of_model = shelf.streams.iter().filter(|((model, _), _)| model.as_str() == name);
        of_model.flat_map(|(_, streams)| streams).cloned().collect()
    }

    /// What is loaded of a model and unchanged, which need not be loaded again.
    pub(super) fn unchanged(&self, model: &Model) -> Option<Arc<Loaded>> {
        let about = &model.manifest.model;
        let loaded = self.shelf().models.get(&about.name)?.get(&about.version)?.as_ref().ok().map(Arc::clone)?;
        (loaded.manifest == model.manifest).then_some(loaded)
    }

    /// Puts all versions of a model in the place of those that there were.
    pub(super) fn put(&self, name: &Name, versions: Versions) {
        self.shelf_mut().models.insert(name.clone(), versions);
    }

    /// Takes every version of a model away. False if there is none of that name.
    pub(super) fn take(&self, name: &str) -> bool {
        match self.shelf_mut().models.get_mut(name) {
            None => false,
            Some(versions) => {
                versions.values_mut().for_each(|loaded| *loaded = Err("it was unloaded".to_owned()));
                true
            }
        }
    }
}

/// `engine: reason`, one each.
pub fn passed_over(handle: &Handle) -> Vec<String> {
    handle.passed_over().iter().map(|passed| format!("{}: {}", passed.engine, passed.reason)).collect()
}

/// Loads one version, or says why not. Takes as long as the model needs: not for an async thread.
pub(super) fn load_one(model: &Model, pool: &Pool) -> Result<Arc<Loaded>, String> {
    let about = &model.manifest.model;
    let loaded = load_spec(model).map_err(|error| chain(&error)).and_then(|spec| {
        let predictor = Predictor::of(model)?;
        let handle = pool.load(&spec).map_err(|error| chain(&error))?;
        Ok(Arc::new(Loaded { manifest: model.manifest.clone(), handle, tally: Tally::default(), predictor }))
    });
    match &loaded {
        Ok(loaded) => {
            let passed_over = passed_over(&loaded.handle).join("; ");
            tracing::info!(model.name = %about.name, model.version = about.version, model.engine = loaded.handle.engine(), passed_over, "model serves");
        }
        Err(reason) => {
            tracing::error!(model.name = %about.name, model.version = about.version, reason, "model does not serve");
        }
    }
    loaded
}

/// How the manifest says that features were scaled in training.
pub fn normalisation(manifest: &Manifest) -> Normalise {
    let list = |values: &Option<Values>| values.as_ref().map_or_else(Vec::new, |values| values.as_slice().to_vec());
    match &manifest.normalise {
        None => Normalise::None,
        Some(normalise) => match normalise.method {
            NormaliseMethod::None => Normalise::None,
            NormaliseMethod::Zscore => Normalise::Zscore { mean: list(&normalise.mean), std: list(&normalise.std) },
            NormaliseMethod::Minmax => Normalise::MinMax { min: list(&normalise.min), max: list(&normalise.max) },
        },
    }
}

/// An error with its causes on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}
