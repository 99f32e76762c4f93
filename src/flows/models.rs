//! From the catalog into the engines: which models of this box serve, under which names, and why the others do not.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::backend::Backend;
use super::conduct::{BreakerView, Conduct};
use super::load_config::LoadConfig;
use super::load_spec::{fill, load_spec};
use super::pipeline::Composer;
use super::pipeline_tally::StepServed;
use super::predict::Predictor;
use super::slot::{Slot, State, serving};
use super::tally::Tally;
use super::traffic::{Plan, Traffic};
use crate::base::{Clock, Name};
use crate::catalog::{
    self, AliasError, Aliases, Catalog, DEFAULT, LoadWhen, Manifest, Model, NormaliseMethod, SetTraffic, TrafficError,
    Values,
};
use crate::engine::{self, Handle, Level, Pool, Why};
use crate::signal::Normalise;

/// How often models are looked at that nobody has asked for a while.
const LOOK_EVERY: Duration = Duration::from_secs(1);

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
}

impl Loaded {
    /// What each step did since it was loaded; none for a model that is no pipeline.
    pub(super) fn steps(&self) -> Vec<StepServed> {
        self.handle.pipeline().map_or_else(Vec::new, |pipeline| pipeline.served())
    }
}

/// One version of a model as people see it.
#[derive(Debug, Clone, Serialize)]
pub struct ModelView {
    /// Name.
    pub name: String,
    /// Version.
    pub version: u32,
    /// True if it answers, be it after loading.
    pub serving: bool,
    /// `serving`, `asleep` (loads with the next request), `loading`, `refused`, `away`, or `waiting`: a pipeline one of whose
    /// models does not serve.
    pub state: &'static str,
    /// Names for this version.
    pub aliases: Vec<String>,
    /// What computes it.
    pub engine: Option<String>,
    /// Engines that were asked before it, with their reasons.
    pub passed_over: Vec<String>,
    /// Bytes of memory that it reserved.
    pub memory_bytes: Option<u64>,
    /// Whether requests that wait are computed together, and why or why not.
    pub batching: Option<String>,
    /// Why it does not serve, or what went wrong when it was loaded last.
    pub problem: Option<String>,
    /// The process that computes it, where it is not this one.
    pub delegate: Option<DelegateView>,
    /// Its breaker, where the model's requests are spread over versions.
    pub breaker: Option<BreakerView>,
}

/// A process that computes a model.
#[derive(Debug, Clone, Serialize)]
pub struct DelegateView {
    /// The configuration's name for the device.
    pub device: String,
    /// `starting`, `serving` or `down`.
    pub state: &'static str,
    /// What computes while it does not.
    pub stand_in: Option<&'static str>,
    /// ONNX Runtime's version and the device in its driver's words.
    pub runtime: String,
    /// Who computes how many of the model's operators.
    pub placement: String,
    /// Its process.
    pub pid: Option<u32>,
    /// Starts after the first.
    pub restarts: u64,
    /// Why it was last started again or is down.
    pub reason: Option<String>,
    /// Memory of its own, in bytes.
    pub memory_bytes: u64,
    /// Above this it is started anew, in bytes.
    pub memory_limit_bytes: u64,
    /// Whether the kernel holds it to a hard limit, too.
    pub memory_limited_by_kernel: bool,
    /// What keeps it off the network.
    pub network: &'static str,
}

impl ModelView {
    /// The state in the words of Triton's index. One that loads on request is ready: it answers.
    pub fn state_word(&self) -> &'static str {
        match self.state {
            "loading" => "LOADING",
            _ if self.serving => "READY",
            _ => "UNAVAILABLE",
        }
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
struct Shelf {
    models: BTreeMap<Name, Versions>,
    /// Version folders that hold no usable model.
    broken: BTreeMap<Name, BTreeMap<u32, String>>,
    /// Streams that a version scores for, by model and version: it stays as long as they do.
    streams: BTreeMap<(Name, u32), Vec<String>>,
}

/// Every model of the box, loaded or with the reason why not. Whoever got a model out of it keeps it until they are done,
/// also when it is taken away meanwhile.
pub struct Models {
    shelf: RwLock<Shelf>,
    aliases: Aliases,
    traffic: Traffic,
    problems: Vec<String>,
    config: catalog::Config,
    pool: Arc<Pool>,
    clock: Arc<dyn Clock>,
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
        let composer = Composer::new(Arc::clone(&clock));
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

    fn shelf(&self) -> RwLockReadGuard<'_, Shelf> {
        // Nothing below panics halfway through a change.
        self.shelf.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn shelf_mut(&self) -> RwLockWriteGuard<'_, Shelf> {
        self.shelf.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for each version: those that the policy lets serve sleep, the others are away. `asked` goes before what is
    /// configured.
    pub(super) fn slots(&self, name: &Name, found: &[Arc<Model>], asked: &LoadConfig) -> Versions {
        let said = self.config.model(name);
        let there: Vec<u32> = found.iter().map(|model| model.manifest.model.version).collect();
        let policy = asked.versions.as_ref().unwrap_or(&said.versions);
        let served = policy.of(&there);
        let serving = asked.serving.before(&said.serving);
        let slot = |model: &Arc<Model>| {
            let version = model.manifest.model.version;
            let how = serving.over(&model.manifest.serving);
            let state = if served.contains(&version) {
                State::Asleep(None)
            } else if asked.versions.is_some() {
                State::Away(format!("outside of the version policy it was loaded with ({policy})").into())
            } else {
                State::Away(format!("outside of catalog.models.{name}.versions ({policy})").into())
            };
            let slot = Slot::new(Arc::clone(model), how, Conduct::new(said.traffic.as_ref()), state);
            (version, Arc::new(slot.with_request_rows_max(asked.request_rows_max)))
        };
        found.iter().map(slot).collect()
    }

    fn slot(&self, name: &Name, version: u32) -> Option<Arc<Slot>> {
        self.shelf().models.get(name)?.get(&version).map(Arc::clone)
    }

    /// Loads what [`Slot::begins_loading`] gave to this caller, and says what came of it. Models that load on request and
    /// that nobody uses make room, the one first that was asked the longest ago. Takes as long as the model needs: not for
    /// an async thread.
    pub(super) fn load_now(&self, slot: &Slot) {
        let outcome = loop {
            if slot.graph.is_some() {
                break self.load_pipeline(slot);
            }
            match load_one(&slot.model, slot, &self.pool) {
                Err(refusal @ Refusal { no_room: true, .. }) if self.makes_room(slot) => {
                    tracing::info!(model = slot.title(), reason = refusal.reason, "another model made room");
                }
                outcome => break outcome,
            }
        };
        let about = &slot.model.manifest.model;
        slot.touch(self.clock.since_boot());
        slot.ends_loading(match outcome {
            Ok(loaded) => {
                let passed_over = loaded.handle.handle().map(passed_over).unwrap_or_default().join("; ");
                tracing::info!(model.name = %about.name, model.version = about.version, model.engine = loaded.handle.engine(), batching = loaded.handle.batching(), passed_over, "model serves");
                State::Serving(loaded)
            }
            Err(Refusal { reason, may_pass, .. }) => {
                tracing::error!(model.name = %about.name, model.version = about.version, reason, "model does not serve");
                let reason = Arc::from(reason);
                // What may be gone the next time is tried the next time, if requests load it at all.
                if may_pass && (slot.graph.is_some() || slot.how.load == LoadWhen::Request) {
                    State::Asleep(Some(reason))
                } else {
                    State::Refused(reason)
                }
            }
        });
    }

    /// Puts the model to sleep that was asked the longest ago, of those that nobody needs now.
    fn makes_room(&self, but: &Slot) -> bool {
        let mut slots = self.all_slots();
        slots.sort_by_key(|slot| slot.used_ms());
        slots.iter().any(|slot| !std::ptr::eq(&raw const **slot, but) && self.may_sleep(slot) && slot.sleeps())
    }

    fn may_sleep(&self, slot: &Slot) -> bool {
        let about = &slot.model.manifest.model;
        !self.shelf().streams.contains_key(&(about.name.clone(), about.version))
    }

    fn all_slots(&self) -> Vec<Arc<Slot>> {
        self.shelf().models.values().flat_map(|versions| versions.values().map(Arc::clone)).collect()
    }

    /// Puts models to sleep that load on request and that nobody asked for their time, until `stop`; at once while the box
    /// has not enough for all.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        while tokio::time::timeout(LOOK_EVERY, stop.cancelled()).await.is_err() {
            self.put_idle_to_sleep();
        }
    }

    /// One look of [`keep`](Self::keep).
    pub fn put_idle_to_sleep(&self) {
        let now = self.clock.since_boot();
        let scarce = self.pool.condition().level > Level::Normal;
        for slot in self.all_slots() {
            let limit = Duration::from_secs(slot.how.idle_unload_s);
            let idle = scarce || (!limit.is_zero() && slot.idle(now) >= limit);
            if idle && self.may_sleep(&slot) && slot.sleeps() {
                tracing::info!(model = slot.title(), scarce, "model put to sleep: nobody asks");
            }
        }
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
        // Nothing serves: the newest one's reason is told.
        newest.or_else(|| versions.values().next_back()).map(Arc::clone).ok_or_else(unknown)
    }

    /// The place of the version that `target` means, as a split names it: an alias, a number, or `default` for what answers
    /// without a split.
    pub(super) fn resolve(&self, name: &str, target: &str) -> Result<Arc<Slot>, NotServing> {
        let version = if target == DEFAULT { None } else { Some(self.version_of(name, target)?) };
        self.find(name, version)
    }

    /// How requests for a model are spread that name no version.
    pub(super) fn plan(&self, name: &str) -> Option<Arc<Plan>> {
        self.traffic.plan(name)
    }

    /// A version that serves now; without a version the newest that does.
    pub fn serving(&self, name: &str, version: Option<u32>) -> Result<Arc<Loaded>, NotServing> {
        let slot = self.find(name, version)?;
        match slot.state() {
            State::Serving(loaded) => {
                slot.touch(self.clock.since_boot());
                Ok(loaded)
            }
            State::Refused(reason) | State::Away(reason) | State::Asleep(Some(reason)) => Err(slot.refusal(&reason)),
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
        match slot.state() {
            State::Serving(loaded) => {
                slot.touch(self.clock.since_boot());
                return Ok(loaded);
            }
            State::Refused(reason) | State::Away(reason) => return Err(slot.refusal(&reason)),
            State::Asleep(_) | State::Loading => {}
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

    /// All of them, by name and version.
    pub fn views(&self) -> Vec<ModelView> {
        let now = self.clock.since_boot();
        let shelf = self.shelf();
        let mut views: Vec<ModelView> = Vec::new();
        let mut pipelines: Vec<(usize, Arc<Slot>)> = Vec::new();
        for (name, versions) in &shelf.models {
            let (aliases, is_split) = (self.aliases.of(name), self.plan(name.as_str()).is_some());
            for (version, slot) in versions {
                if slot.graph.is_some() {
                    pipelines.push((views.len(), Arc::clone(slot)));
                }
                let breaker = is_split.then(|| slot.conduct.breaker(now));
                views.push(ModelView { breaker, ..view(name, *version, slot, &aliases) });
            }
        }
        for (name, versions) in &shelf.broken {
            let none = BTreeMap::new();
            let broken = |(version, reason): (&u32, &String)| ModelView {
                problem: Some(reason.clone()),
                ..unloaded(name, *version, "refused", &none)
            };
            views.extend(versions.iter().map(broken));
        }
        // A pipeline looks its models up by itself.
        drop(shelf);
        for (at, slot) in pipelines {
            let view = &mut views[at];
            if view.serving {
                match self.pipeline_problem(&slot) {
                    Some(problem) => (view.serving, view.state, view.problem) = (false, "waiting", Some(problem)),
                    // What was wrong when it was loaded last is no more.
                    None => view.problem = None,
                }
            }
        }
        views.sort_by(|a, b| (&a.name, a.version).cmp(&(&b.name, b.version)));
        views
    }

    /// Folders that hold no usable model.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// How much service the engines give, and who has their memory.
    pub fn condition(&self) -> engine::Condition {
        self.pool.condition()
    }

    /// The aliases of a model by name, set or configured; None if there is no such model.
    pub fn aliases(&self, name: &str) -> Option<BTreeMap<Name, u32>> {
        let name = self.shelf().models.get_key_value(name).map(|(name, _)| name.clone())?;
        Some(self.aliases.of(&name))
    }

    /// `alias` means `version` from now on. Writes the disk: not for an async thread.
    pub(super) fn put_alias(&self, name: &Name, alias: &str, version: u32) -> Result<(), AliasError> {
        self.aliases.put(name, alias, version)
    }

    /// What was set for `alias` is forgotten. Writes the disk: not for an async thread.
    pub(super) fn remove_alias(&self, name: &Name, alias: &str) -> Result<(), AliasError> {
        self.aliases.remove(name, alias)
    }

    /// Requests for a model are spread like this from now on. Writes the disk: not for an async thread.
    pub(super) fn put_traffic(&self, name: &Name, traffic: SetTraffic) -> Result<(), TrafficError> {
        self.traffic.put(name, traffic)
    }

    /// What was set for a model's requests is forgotten. Writes the disk: not for an async thread.
    pub(super) fn remove_traffic(&self, name: &Name) -> Result<(), TrafficError> {
        self.traffic.remove(name)
    }

    /// The places of a model's versions, ascending.
    pub(super) fn slots_of(&self, name: &str) -> Vec<Arc<Slot>> {
        self.shelf().models.get(name).map_or_else(Vec::new, |versions| versions.values().map(Arc::clone).collect())
    }

    /// How a version does now.
    pub(super) fn breaker(&self, slot: &Slot) -> BreakerView {
        slot.conduct.breaker(self.clock.since_boot())
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

    /// What is loaded of a version and unchanged, which need not be loaded again.
    pub(super) fn unchanged(&self, name: &Name, version: u32, new: &Slot) -> Option<Arc<Slot>> {
        let slot = self.slot(name, version)?;
        let as_served = slot.how == new.how && slot.request_rows_max == new.request_rows_max;
        let same = slot.model.manifest == new.model.manifest && as_served && slot.loaded().is_some();
        (same && new.problem().is_none()).then_some(slot)
    }

    /// Puts all versions of a model in the place of those that there were.
    pub(super) fn put(&self, name: &Name, versions: Versions, broken: Option<&BTreeMap<u32, String>>) {
        let mut shelf = self.shelf_mut();
        match broken {
            Some(broken) => drop(shelf.broken.insert(name.clone(), broken.clone())),
            None => drop(shelf.broken.remove(name)),
        }
        shelf.models.insert(name.clone(), versions);
    }

    /// Takes every version of a model away. False if there is none of that name.
    pub(super) fn take(&self, name: &str) -> bool {
        match self.shelf().models.get(name) {
            None => false,
            Some(versions) => {
                versions.values().for_each(|slot| slot.set(State::Away("it was unloaded".into())));
                true
            }
        }
    }
}

fn delegate_view(handle: &Handle) -> Option<DelegateView> {
    let state = handle.delegate()?;
    Some(DelegateView {
        device: state.device,
        state: state.phase.as_str(),
        stand_in: handle.stand_in(),
        runtime: state.runtime,
        placement: state.placement,
        pid: state.pid,
        restarts: state.restarts,
        reason: state.reason,
        memory_bytes: state.memory_bytes,
        memory_limit_bytes: state.memory_limit_bytes,
        memory_limited_by_kernel: state.memory_limited_by_kernel,
        network: state.isolation.as_str(),
    })
}

fn unloaded(name: &Name, version: u32, state: &'static str, aliases: &BTreeMap<Name, u32>) -> ModelView {
    let aliases = aliases.iter().filter(|(_, of)| **of == version).map(|(alias, _)| alias.to_string()).collect();
    ModelView {
        name: name.to_string(),
        version,
        serving: false,
        state,
        aliases,
        engine: None,
        passed_over: Vec::new(),
        memory_bytes: None,
        batching: None,
        problem: None,
        delegate: None,
        breaker: None,
    }
}

fn view(name: &Name, version: u32, slot: &Slot, aliases: &BTreeMap<Name, u32>) -> ModelView {
    let view = |state: &'static str| unloaded(name, version, state, aliases);
    let text = |reason: &Arc<str>| Some(reason.to_string());
    match slot.state() {
        State::Asleep(reason) => ModelView { serving: true, problem: reason.as_ref().and_then(text), ..view("asleep") },
        State::Loading => view("loading"),
        State::Serving(loaded) => ModelView {
            serving: true,
            engine: Some(loaded.handle.engine().to_owned()),
            passed_over: loaded.handle.handle().map(passed_over).unwrap_or_default(),
            memory_bytes: Some(loaded.handle.memory_bytes()),
            batching: Some(loaded.handle.batching().to_owned()),
            delegate: loaded.handle.handle().and_then(delegate_view),
            ..view("serving")
        },
        State::Refused(reason) => ModelView { problem: text(&reason), ..view("refused") },
        State::Away(reason) => ModelView { problem: text(&reason), ..view("away") },
    }
}

/// `engine: reason`, one each.
pub fn passed_over(handle: &Handle) -> Vec<String> {
    handle.passed_over().iter().map(|passed| format!("{}: {}", passed.engine, passed.reason)).collect()
}

/// Why a version was not loaded.
pub(super) struct Refusal {
    pub(super) reason: String,
    /// Its memory is taken by others.
    pub(super) no_room: bool,
    /// It may be loaded later, as it is.
    pub(super) may_pass: bool,
}

impl From<engine::Error> for Refusal {
    fn from(error: engine::Error) -> Self {
        let no_room = matches!(error, engine::Error::NoRoom { .. });
        let may_pass = no_room || matches!(error, engine::Error::BackedOff { .. });
        Self { reason: chain(&error), no_room, may_pass }
    }
}

/// Loads one version, or says why not. Takes as long as the model needs: not for an async thread.
fn load_one(model: &Model, slot: &Slot, pool: &Pool) -> Result<Arc<Loaded>, Refusal> {
    let how = serving(&slot.how);
    pool.has_room(&slot.title(), &model.manifest.model.format, model.size_bytes, &how)?;
    let spec = load_spec(model).map_err(|error| Refusal { reason: chain(&error), no_room: false, may_pass: false })?;
    let mut manifest = model.manifest.clone();
    fill(&mut manifest, &spec.inputs, &spec.outputs);
    let predictor =
        Predictor::of(model, &manifest).map_err(|reason| Refusal { reason, no_room: false, may_pass: false })?;
    let handle = pool.load_as(&spec, &how)?;
    // An engine that was the right one and failed is news; one that was not chosen is not.
    for passed in handle.passed_over().iter().filter(|passed| passed.why != Why::NotChosen) {
        let (engine, reason, about) = (passed.engine, passed.reason.as_str(), &manifest.model);
        tracing::warn!(model.name = %about.name, model.version = about.version, model.engine = engine, reason, "an engine is passed over");
    }
    let (handle, tally, conduct) = (Backend::Engine(handle), Arc::clone(&slot.tally), Arc::clone(&slot.conduct));
    Ok(Arc::new(Loaded { manifest, handle, tally, conduct, predictor, request_rows_max: slot.request_rows_max }))
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
