//! Models come and go while the gateway runs: loaded from the models folder, taken away, loaded again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::Mutex;

use super::load_config::LoadConfig;
use super::models::{ModelView, Models, NotServing, chain};
use super::slot::{Slot, State};
use super::traffic::{ShadowView, TargetView, TrafficView, VersionTraffic};
use crate::base::Name;
use crate::catalog::{self, AliasError, Catalog, DEFAULT, SetTraffic, TrafficError};

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
    /// Weights that cannot be, or a version that cannot answer.
    #[error("{0}")]
    Traffic(String),
    /// The aliases or the traffic could not be written.
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
    /// One look at the folder at a time, however many ask for the index.
    looking: Arc<Mutex<()>>,
    /// One change at a time. A load holds it to its end, also when its caller has gone.
    changing: Arc<Mutex<()>>,
}

impl Repository {
    /// Over the models that were loaded at the start.
    pub fn new(models: Arc<Models>, catalog: catalog::Config) -> Self {
        Self { models, catalog: Arc::new(catalog), looking: Arc::default(), changing: Arc::default() }
    }

    /// Every version that there is, and those whose folders came after the start and that nobody has loaded; `only_ready`: those
    /// that answer.
    pub async fn index(&self, only_ready: bool) -> Result<Vec<ModelView>, RepositoryError> {
        let mut views = self.models.views();
        if only_ready {
            views.retain(|view| view.serving);
            return Ok(views);
        }
        let looking = Arc::clone(&self.looking).lock_owned().await;
        let catalog = Arc::clone(&self.catalog);
        let listed = tokio::task::spawn_blocking(move || {
            let _looking = looking;
            Catalog::listed(&catalog)
        });
        let known: BTreeSet<(String, u32)> = views.iter().map(|view| (view.name.clone(), view.version)).collect();
        for (name, versions) in listed.await.map_err(|_| RepositoryError::Closing)? {
            let new = versions.into_iter().filter(|version| !known.contains(&(name.to_string(), *version)));
            views.extend(new.map(|version| ModelView::not_loaded(&name, version)));
        }
        views.sort_by(|a, b| (&a.name, a.version).cmp(&(&b.name, b.version)));
        Ok(views)
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
        self.unload_all(model, false).await
    }

    /// The same; `with_dependents` takes the pipelines that ask it away as well. All go, or none does.
    pub async fn unload_all(&self, model: &str, with_dependents: bool) -> Result<(), RepositoryError> {
        let _changing = self.changing.lock().await;
        let dependents = if with_dependents { self.models.dependents(model) } else { BTreeSet::new() };
        // Those that ask go before those that are asked.
        let all: Vec<&str> = dependents.iter().map(Name::as_str).chain([model]).collect();
        for name in &all {
            let streams = self.models.streams_of(name);
            if !streams.is_empty() {
                let streams = streams.into_iter().collect::<Vec<_>>().join(", ");
                return Err(RepositoryError::InUse { model: (*name).to_owned(), streams });
            }
        }
        if self.models.slots_of(model).is_empty() {
            return Err(RepositoryError::NotThere(model.to_owned()));
        }
        for name in all.into_iter().filter(|name| self.models.take(name)) {
            tracing::info!(model.name = name, with = (name != model).then_some(model), "model unloaded");
        }
        Ok(())
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

    /// How requests for a model are spread over its versions, and how these do.
    pub fn traffic(&self, model: &str) -> Result<TrafficView, RepositoryError> {
        let aliases = self.aliases(model)?;
        let resolved = |to: &Name| match self.models.resolve(model, to.as_str()) {
            Ok(slot) => {
                let own = slot.problem().map(|problem| problem.to_string());
                (Some(slot.version()), own.or_else(|| self.models.pipeline_problem(&slot)))
            }
            Err(refusal) => (None, Some(refusal.to_string())),
        };
        let plan = self.models.plan(model);
        let all: u64 = plan.iter().flat_map(|plan| &plan.candidates).map(|candidate| u64::from(candidate.weight)).sum();
        let targets = plan.iter().flat_map(|plan| &plan.candidates).map(|candidate| {
            let (version, problem) = resolved(&candidate.name);
            #[allow(clippy::cast_precision_loss, reason = "a sum of at most 16 million")]
            let share = if all == 0 { 0.0 } else { f64::from(candidate.weight) / all as f64 };
            TargetView { to: candidate.name.to_string(), version, problem, weight: candidate.weight, share }
        });
        let shadow = plan.iter().find_map(|plan| plan.shadow.as_ref()).map(|shadow| ShadowView {
            to: shadow.to.to_string(),
            version: resolved(&shadow.to).0,
            percent: shadow.percent,
            tolerance: shadow.tolerance,
            relative_tolerance: shadow.relative_tolerance,
        });
        let version = |slot: Arc<Slot>| {
            let (version, tally) = (slot.version(), slot.tally.counts());
            VersionTraffic {
                version,
                aliases: aliases.iter().filter(|(_, of)| **of == version).map(|(alias, _)| alias.to_string()).collect(),
                answered: tally.success.count,
                failed: tally.fail.count,
                counts: slot.conduct.counts(),
                breaker: self.models.breaker(&slot),
            }
        };
        Ok(TrafficView {
            model: model.to_owned(),
            source: plan.as_ref().map_or("none", |plan| if plan.is_set { "set" } else { "configuration" }),
            split: targets.collect(),
            fallback: plan
                .as_ref()
                .and_then(|plan| Some(plan.fallback.as_ref()?.iter().map(ToString::to_string).collect())),
            sticky: plan.as_ref().map(|plan| plan.sticky),
            sticky_key: plan.as_ref().map(|plan| plan.sticky_key.to_string()),
            slow_ms: plan.as_ref().and_then(|plan| plan.slow_ms),
            shadow,
            versions: self.models.slots_of(model).into_iter().map(version).collect(),
        })
    }

    /// Requests for a model that name no version are spread like this from now on, over versions that must be able to
    /// answer. In the place of what was set before; kept over restarts.
    pub async fn set_traffic(&self, model: &str, traffic: SetTraffic) -> Result<(), RepositoryError> {
        self.aliases(model)?;
        for to in traffic.targets() {
            let wrong = |what: String| RepositoryError::Traffic(format!("{to} cannot get requests: {what}"));
            let slot = self.models.resolve(model, to.as_str()).map_err(|error| match error {
                NotServing::Unknown(_) => wrong(format!("model {model} has no such alias or version")),
                other => wrong(other.to_string()),
            })?;
            if let Some(problem) = slot.problem().filter(|_| to.as_str() != DEFAULT) {
                return Err(wrong(slot.refusal(&problem).to_string()));
            }
        }
        let weights: Vec<String> = traffic.split.iter().map(|(to, weight)| format!("{to} {weight}")).collect();
        let shadow = traffic.shadow.as_ref().map(|shadow| format!("{} {} %", shadow.to, shadow.percent));
        self.change_traffic(model, move |models, name| models.put_traffic(name, traffic)).await?;
        tracing::info!(model.name = model, split = weights.join(", "), shadow, "traffic set");
        Ok(())
    }

    /// Forgets what was set for a model's requests; what the configuration says counts again.
    pub async fn remove_traffic(&self, model: &str) -> Result<(), RepositoryError> {
        self.aliases(model)?;
        self.change_traffic(model, Models::remove_traffic).await?;
        tracing::info!(model.name = model, "traffic is as configured");
        Ok(())
    }

    async fn change_traffic(
        &self,
        model: &str,
        change: impl FnOnce(&Models, &Name) -> Result<(), TrafficError> + Send + 'static,
    ) -> Result<(), RepositoryError> {
        let name = Name::new(model).map_err(|error| RepositoryError::NoSuch(error.to_string()))?;
        let models = Arc::clone(&self.models);
        let changed = tokio::task::spawn_blocking(move || change(&models, &name)).await;
        changed.map_err(|_| RepositoryError::Closing)?.map_err(|error| match error {
            TrafficError::Wrong(_) => RepositoryError::Traffic(error.to_string()),
            TrafficError::NotSet { .. } => RepositoryError::NoSuch(error.to_string()),
            TrafficError::Keep(_) => RepositoryError::Disk(chain(&error)),
        })
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
                State::Refused { reason, .. } | State::Away(reason) | State::Asleep(Some(reason)) => reason,
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
