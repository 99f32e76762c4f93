//! From the catalog into the engines: which models of this box serve, under which names, and why the others do not.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use super::backend::Backend;
use super::conduct::Conduct;
use super::key::{Bearings, Key};
use super::load_config::LoadConfig;
pub use super::model_view::{DelegateView, ModelView};
use super::pipeline::Composer;
use super::pipeline_tally::StepServed;
use super::predict::Predictor;
use super::slot::{Slot, State};
use super::speech::Speech;
use super::tally::Tally;
use super::traffic::{Plan, Traffic};
use crate::base::{Clock, Name};
use crate::catalog::{self, Aliases, Catalog, DEFAULT, LoadWhen, Manifest, Model};
use crate::engine::{self, Pool};

/// One version of a model that serves.
pub struct Loaded {
    /// What its maker says of it, with the inputs and outputs of the model file where that is left to it.
    pub manifest: Manifest,
    /// Where to ask it.
    pub handle: Backend,
    /// What it served.
    pub tally: Arc<Tally>,
    /// How it does where requests are spread over versions.
    pub(super) conduct: Arc<Conduct>,
    /// How pictures, texts and records become its inputs, and what its outputs mean.
    pub predictor: Predictor,
    /// Rows that one request may have; 0 is any number.
    pub request_rows_max: u32,
    /// What it makes of texts, if it is asked so.
    pub(super) speech: Speech,
}

impl Loaded {
    /// What each step did since it was loaded; none for a model that is no pipeline.
    pub(super) fn steps(&self) -> Vec<StepServed> {
        self.handle.pipeline().map_or_else(Vec::new, |pipeline| pipeline.served())
    }
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
    /// It loads, and enough requests wait for it.
    #[error(
        "busy: model {name} is being loaded and {waiting} requests wait for it, the most is {most} (catalog.load_queue_max)"
    )]
    Busy {
        /// `name/version`.
        name: String,
        /// How many wait.
        waiting: usize,
        /// The bound.
        most: usize,
    },
    /// It loads, for longer than the caller waits.
    #[error("model {name} is still being loaded after {waited_ms} ms; ask again")]
    Loading {
        /// `name/version`.
        name: String,
        /// How long the caller waited.
        waited_ms: u64,
    },
}

/// The versions of one model.
pub(super) type Versions = BTreeMap<u32, Arc<Slot>>;

#[derive(Default)]
pub(super) struct Shelf {
    pub(super) models: BTreeMap<Name, Versions>,
    /// Version folders that hold no usable model.
    pub(super) broken: BTreeMap<Name, BTreeMap<u32, String>>,
    /// Streams that a version scores for, by model and version: it stays as long as they do.
    pub(super) streams: BTreeMap<(Name, u32), Vec<String>>,
}

/// Every model of the box, loaded or with the reason why not. Whoever got a model out of it keeps it until they are done,
/// also when it is taken away meanwhile.
pub struct Models {
    shelf: RwLock<Shelf>,
    pub(super) aliases: Aliases,
    pub(super) traffic: Traffic,
    problems: Vec<String>,
    config: catalog::Config,
    pub(super) pool: Arc<Pool>,
    pub(super) clock: Arc<dyn Clock>,
    composer: Composer,
}

impl Models {
    /// Loads everything in the catalog that is to be loaded at the start; `state_dir` has the aliases that were set. Takes
    /// as long as the models need: not for an async thread.
    pub fn load(
        catalog: &Catalog,
        config: &catalog::Config,
        state_dir: &Path,
        pool: &Arc<Pool>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (aliases, alias_problem) = Aliases::open(config, state_dir);
        let mut problems: Vec<String> = catalog.problems().iter().map(ToString::to_string).collect();
        problems.extend(alias_problem);
        let (traffic, traffic_problem) = Traffic::open(config, state_dir);
        problems.extend(traffic_problem);
        problems
            .iter()
            .for_each(|problem| tracing::error!(problem, "a model folder, its aliases or its traffic are not usable"));
        let shelf = RwLock::new(Shelf { broken: catalog.broken().clone(), ..Shelf::default() });
        let pool = Arc::clone(pool);
        let composer = Composer::new(Arc::clone(&pool), Arc::clone(&clock));
        let mut models = Self { shelf, aliases, traffic, problems, config: config.clone(), pool, clock, composer };
        let names: std::collections::BTreeSet<&Name> =
            catalog.models().map(|model| &model.manifest.model.name).collect();
        for name in names {
            let versions = models.slots(name, catalog.versions(name.as_str()), &LoadConfig::default());
            for slot in versions.values() {
                if slot.graph.is_none() && slot.how.load == LoadWhen::Start && slot.begins_loading() {
                    models.load_now(slot);
                }
            }
            models.shelf_mut().models.insert(name.clone(), versions);
        }
        // Pipelines ask models, which are all there now.
        for slot in models.all_slots().iter().filter(|slot| slot.graph.is_some()) {
            if slot.how.load == LoadWhen::Start && slot.begins_loading() {
                models.load_now(slot);
            }
        }
        for name in config.models.keys() {
            let lost = models.aliases.of(name).into_iter().filter(|(_, version)| models.slot(name, *version).is_none());
            let lost: Vec<String> = lost
                .map(|(alias, version)| format!("alias {alias} of {name} is for version {version}, which is not there"))
                .collect();
            models.problems.extend(lost);
        }
        for plan in models.traffic.plans() {
            let lost = |to: &Name| models.resolve(plan.model.as_str(), to.as_str()).err();
            let lost =
                plan.targets().filter_map(|to| Some(format!("traffic of {} to {to}: {}", plan.model, lost(to)?)));
            let lost: Vec<String> = lost.collect();
            models.problems.extend(lost);
        }
        models
    }

    pub(super) fn shelf(&self) -> RwLockReadGuard<'_, Shelf> {
        // Nothing below panics halfway through a change.
        self.shelf.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn shelf_mut(&self) -> RwLockWriteGuard<'_, Shelf> {
        self.shelf.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for each version: those that the policy lets serve sleep, the others are away. `asked` goes before what is
    /// configured.
    pub(super) fn slots(&self, name: &Name, found: &[Arc<Model>], asked: &LoadConfig) -> Versions {
        let said = self.config.model(name);
        let there: Vec<u32> = found.iter().map(|model| model.manifest.model.version).collect();
        let triton = found.iter().find_map(|model| model.triton.as_deref());
        // The configuration's word goes before Triton's; that all are served is no word.
        let by_triton =
            triton.and_then(|triton| triton.versions.as_ref()).filter(|_| said.versions == catalog::Versions::All);
        let policy = asked.versions.as_ref().or(by_triton).unwrap_or(&said.versions);
        let served = policy.of(&there);
        let serving = asked.serving.before(&said.serving);
        let slot = |model: &Arc<Model>| {
            let version = model.manifest.model.version;
            let how = serving.over(&model.serving());
            let state = if served.contains(&version) {
                State::Asleep(None)
            } else if asked.versions.is_some() {
                State::Away(format!("outside of the version policy it was loaded with ({policy})").into())
            } else if by_triton.is_some() {
                State::Away(format!("outside of version_policy in its config.pbtxt ({policy})").into())
            } else {
                State::Away(format!("outside of catalog.models.{name}.versions ({policy})").into())
            };
            let (conduct, clock) = (Conduct::new(said.traffic.as_ref()), Arc::clone(&self.clock));
            let slot = Slot::new(Arc::clone(model), how, conduct, state, clock);
            let rows_max = Some(asked.request_rows_max).filter(|&rows| rows > 0);
            let rows_max = rows_max.or(model.triton.as_ref().map(|triton| triton.request_rows_max)).unwrap_or(0);
            (version, Arc::new(slot.with_request_rows_max(rows_max)))
        };
        found.iter().map(slot).collect()
    }

    pub(super) fn slot(&self, name: &Name, version: u32) -> Option<Arc<Slot>> {
        self.shelf().models.get(name)?.get(&version).map(Arc::clone)
    }

    pub(super) fn all_slots(&self) -> Vec<Arc<Slot>> {
        self.shelf().models.values().flat_map(|versions| versions.values().map(Arc::clone)).collect()
    }

    /// The version that `text` means: a number, or an alias.
    pub fn version_of(&self, name: &str, text: &str) -> Result<u32, NotServing> {
        if let Ok(version) = text.parse() {
            return Ok(version);
        }
        let alias = Name::new(name).ok().and_then(|name| self.aliases.version(&name, text));
        alias.ok_or_else(|| NotServing::Unknown(format!("{name}/{text}")))
    }

    /// The place of a version: that of `version`, else that of `name@alias`, else that of the alias `default`, else the
    /// newest one that serves.
    pub(super) fn find(&self, name: &str, version: Option<u32>) -> Result<Arc<Slot>, NotServing> {
        let (name, version) = match (name.split_once('@'), version) {
            (Some((name, alias)), None) => (name, Some(self.version_of(name, alias)?)),
            _ => (name, version),
        };
        let unknown = || NotServing::Unknown(version.map_or_else(|| name.to_owned(), |v| format!("{name}/{v}")));
        let shelf = self.shelf();
        let broken = |version: Option<u32>| {
            let broken = shelf.broken.get(name)?;
            let (version, reason) = match version {
                Some(version) => (version, broken.get(&version)?),
                None => broken.last_key_value().map(|(version, reason)| (*version, reason))?,
            };
            Some(NotServing::Refused { name: format!("{name}/{version}"), reason: reason.clone() })
        };
        let versions = shelf.models.get(name).ok_or_else(|| broken(version).unwrap_or_else(unknown))?;
        let chosen = version.or_else(|| self.aliases.version(&Name::new(name).ok()?, DEFAULT));
        if let Some(chosen) = chosen {
            let slot = versions.get(&chosen).map(Arc::clone);
            return slot.ok_or_else(|| {
                broken(Some(chosen)).unwrap_or_else(|| NotServing::Unknown(format!("{name}/{chosen}")))
            });
        }
        let newest = versions.values().rev().find(|slot| slot.problem().is_none());
        // One that could not be loaded is tried again where nothing better is there, or by who names it.
        let newest = newest.or_else(|| versions.values().rev().find(|slot| slot.hurdle().is_none()));
        // Nothing serves: the newest one's reason is told.
        newest.or_else(|| versions.values().next_back()).map(Arc::clone).ok_or_else(unknown)
    }

    /// The place of the version that `target` means, as a split names it: an alias, a number, or `default` for what answers
    /// without a split.
    pub(super) fn resolve(&self, name: &str, target: &str) -> Result<Arc<Slot>, NotServing> {
        let version = if target == DEFAULT { None } else { Some(self.version_of(name, target)?) };
        self.find(name, version)
    }

    /// What of a request holds it to versions.
    pub(super) fn key(&self, bearings: &Bearings<'_>) -> Key {
        self.traffic.key(bearings)
    }

    /// How requests for a model are spread that name no version.
    pub(super) fn plan(&self, name: &str) -> Option<Arc<Plan>> {
        self.traffic.plan(name)
    }

    /// A version that serves now; without a version the newest that does.
    pub fn serving(&self, name: &str, version: Option<u32>) -> Result<Arc<Loaded>, NotServing> {
        let slot = self.find(name, version)?;
        self.serving_in(&slot)
    }

    /// The same of a version that was found already.
    pub(super) fn serving_in(&self, slot: &Slot) -> Result<Arc<Loaded>, NotServing> {
        match slot.state() {
            State::Serving(loaded) => {
                slot.touch(self.clock.since_boot());
                Ok(loaded)
            }
            State::Asleep(Some(reason)) | State::Away(reason) | State::Refused { reason, .. } => {
                Err(slot.refusal(&reason))
            }
            State::Asleep(None) | State::Loading => Err(slot.refusal("it is not loaded yet")),
        }
    }

    /// The same, loaded first where it loads on request. Waits for that at most `patience`.
    pub async fn ready(
        self: &Arc<Self>,
        name: &str,
        version: Option<u32>,
        patience: Duration,
    ) -> Result<Arc<Loaded>, NotServing> {
        let slot = self.find(name, version)?;
        self.ready_in(&slot, patience).await
    }

    /// The same of a version that was found already.
    pub(super) async fn ready_in(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        patience: Duration,
    ) -> Result<Arc<Loaded>, NotServing> {
        if let Some(loaded) = slot.loaded() {
            slot.touch(self.clock.since_boot());
            return Ok(loaded);
        }
        if let Some(problem) = slot.hurdle() {
            return Err(slot.refusal(&problem));
        }
        if slot.begins_loading() {
            let (models, slot) = (Arc::clone(self), Arc::clone(slot));
            // It goes on when its callers have gone: the next one finds it loaded.
            drop(tokio::task::spawn_blocking(move || models.load_now(&slot)));
        }
        slot.loads(self.config.load_queue_max, patience).await
    }

    /// What a version is, loaded or not; an error if it cannot be asked. Without a version that of the split that gets the
    /// most, if there is a split.
    pub(super) fn known(&self, name: &str, version: Option<u32>) -> Result<Arc<Slot>, NotServing> {
        let plan = if version.is_none() { self.plan(name) } else { None };
        let serves = |slot: &Arc<Slot>| slot.problem().is_none() && self.pipeline_problem(slot).is_none();
        let usable = |to: &&Name| self.resolve(name, to.as_str()).ok().filter(serves);
        if let Some(slot) = plan.and_then(|plan| plan.by_weight().iter().find_map(usable)) {
            return Ok(slot);
        }
        let slot = self.find(name, version)?;
        match slot.problem().or_else(|| self.pipeline_problem(&slot).map(Arc::from)) {
            None => Ok(slot),
            Some(reason) => Err(slot.refusal(&reason)),
        }
    }

    /// Runs pipelines.
    pub(super) fn composer(&self) -> &Composer {
        &self.composer
    }

    /// Every version that can be asked, by name and version.
    pub(super) fn all_known(&self) -> Vec<Arc<Slot>> {
        let mut slots = self.all_slots();
        slots.retain(|slot| slot.problem().is_none());
        slots
    }

    /// Versions of a model, ascending; empty if there is none.
    pub fn versions(&self, name: &str) -> Vec<u32> {
        let name = name.split_once('@').map_or(name, |(name, _)| name);
        self.shelf().models.get(name).map_or_else(Vec::new, |versions| versions.keys().copied().collect())
    }

    /// Folders that hold no usable model.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// How much service the engines give, and who has their memory.
    pub fn condition(&self) -> engine::Condition {
        self.pool.condition()
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
