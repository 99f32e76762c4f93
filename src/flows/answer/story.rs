//! What the story is made of, and what it says about itself: models, link, probes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use rand::rngs::StdRng;

use super::config::Config;
use super::knock::Strangers;
use super::local::{Local, LocalModel};
use super::metrics::Metrics;
use crate::access::Principal;
use crate::base::{Clock, Map, Name};
use crate::cache::{Cache, Embed};
use crate::dialect;
use crate::generate::Script;
use crate::ledger::Ledger;
use crate::price::{self, LocalPrices, Prices};
use crate::provider::{self, Class, Provider, Providers};
use crate::quota::{Quota, Warning};
use crate::route::{
    self, BreakerState, LOCAL, Link, LinkGate, Probing, RetryBudget, RouteMetrics, Routes, Settings, Vitals,
};

/// The templates of a provider's models, by their names in routes.
pub type Scripts = BTreeMap<Name, BTreeMap<String, Arc<Script>>>;

/// What the story is made of.
pub struct Parts {
    /// `[answer]`.
    pub config: Config,
    /// `[routing]`.
    pub routing: Settings,
    /// `[[route]]`.
    pub routes: Routes,
    /// `[[provider]]`.
    pub providers: Providers,
    /// Templates of models whose servers take texts only.
    pub scripts: Scripts,
    /// Models of this box; none: no route's local candidate answers.
    pub local: Option<Arc<dyn Local>>,
    /// Vectors for answers by meaning; none: they are not looked for.
    pub embed: Option<Arc<dyn Embed>>,
    /// Limits.
    pub quota: Quota,
    /// Kept answers.
    pub cache: Arc<Cache>,
    /// Records.
    pub ledger: Ledger,
    /// Prices of models elsewhere.
    pub prices: Arc<Prices>,
    /// Prices of this box.
    pub local_prices: LocalPrices,
    /// The link as it is now; [`Answer::see_link`] says when it changes. [`Link::Up`] where nobody watches one.
    pub link: Link,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub chance: StdRng,
    /// Counters of the story.
    pub metrics: Metrics,
    /// Counters of the pure rooms, which it counts for.
    pub route_metrics: route::Metrics,
    /// Likewise.
    pub price_metrics: price::Metrics,
    /// Likewise.
    pub dialect_metrics: dialect::Metrics,
    /// Told when a budget has reached one of its shares. Must not wait.
    pub on_warning: Box<dyn Fn(&Warning) + Send + Sync>,
}

/// Why the story cannot be told with these parts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A candidate of nobody.
    #[error(
        "failed to find provider {provider}, a candidate of route {route}: add a [[provider]] of that name, or use `{LOCAL}`"
    )]
    Provider {
        /// The route.
        route: Name,
        /// What its candidate names.
        provider: Name,
    },
    /// A setting that cannot work.
    #[error("failed to use answer.{key}: {problem}")]
    Setting {
        /// Below `[answer]`.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

/// A target of routes: whom to ask, and how it is doing.
pub(super) struct Stop {
    name: Name,
    provider: Option<Arc<dyn Provider>>,
    scripts: BTreeMap<String, Arc<Script>>,
    vitals: Mutex<Vitals>,
}

impl Stop {
    /// None: it is this box.
    pub(super) fn provider(&self) -> Option<&dyn Provider> {
        self.provider.as_deref()
    }

    /// The template of a model that takes texts only.
    pub(super) fn script(&self, model: &str) -> Option<&Arc<Script>> {
        self.scripts.get(model)
    }

    /// As records call it with this model: `openai/gpt-4o`.
    pub(super) fn called(&self, model: &str) -> String {
        [self.name.as_str(), "/", model].concat()
    }

    pub(super) fn vitals(&self) -> MutexGuard<'_, Vitals> {
        self.vitals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is kept beside a route.
pub(super) struct Beside {
    budget: Mutex<RetryBudget>,
    pub(super) metrics: RouteMetrics,
}

impl Beside {
    pub(super) fn budget(&self) -> MutexGuard<'_, RetryBudget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The link as it was seen last, and as it is believed to be.
struct Sight {
    seen: Link,
    gate: LinkGate,
}

/// The story. It holds what is known of targets, so it lives as long as the configuration that it was made of.
pub struct Answer {
    pub(super) parts: Parts,
    pub(super) stops: Vec<Stop>,
    beside: Map<Name, Beside>,
    link: Mutex<Sight>,
    chance: Mutex<StdRng>,
    pub(super) strangers: Mutex<Strangers>,
}

/// A model as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelLine {
    /// The name to ask for.
    pub name: String,
    /// Who answers first for it: a provider's name, or `local`.
    pub owner: String,
    /// What is known of it if it is on this box.
    pub local: Option<LocalModel>,
}

impl Answer {
    /// Puts the parts together. Asks nobody.
    ///
    /// # Errors
    /// A route names a provider that is not there, or a setting cannot work.
    pub fn new(parts: Parts) -> Result<Self, Error> {
        parts.config.check().map_err(|(key, problem)| Error::Setting { key, problem })?;
        let now = parts.clock.since_boot();
        let mut stops = Vec::with_capacity(parts.routes.targets().len());
        for target in parts.routes.targets() {
            let provider = if target.is_local() {
                None
            } else {
                let found = parts.providers.find(target.provider.as_str()).cloned();
                Some(found.ok_or_else(|| unknown(&parts.routes, &target.provider))?)
            };
            let vitals = Mutex::new(Vitals::new(&parts.routing));
            let scripts = parts.scripts.get(&target.provider).cloned().unwrap_or_default();
            stops.push(Stop { name: target.provider.clone(), provider, scripts, vitals });
        }
        let beside = parts.routes.routes().iter().map(|route| {
            let budget = Mutex::new(RetryBudget::new(route.retries(), now));
            (route.name().clone(), Beside { budget, metrics: parts.route_metrics.of(route.name().as_str()) })
        });
        let beside = beside.collect();
        let gate = LinkGate::new(parts.link, Duration::from_millis(parts.routing.link_back_ms));
        let link = Mutex::new(Sight { seen: parts.link, gate });
        let chance = Mutex::new(parts.chance.clone());
        let strangers = Mutex::new(Strangers::new(now));
        Ok(Self { parts, stops, beside, link, chance, strangers })
    }

    /// Somebody looked at the link. What routing believes now: worse at once, better after a while.
    pub fn see_link(&self, link: Link) -> Link {
        let mut sight = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        sight.seen = link;
        sight.gate.observe(link, self.now())
    }

    /// The link as routing believes it to be.
    pub fn link(&self) -> Link {
        let mut sight = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = sight.seen;
        sight.gate.observe(seen, self.now())
    }

    /// The models that `who` may ask for by name, sorted. Names that only a pattern of a route stands for are not among
    /// them.
    pub fn models(&self, who: &Principal) -> Vec<ModelLine> {
        let here = self.parts.local.as_ref().map(|local| local.models()).unwrap_or_default();
        let mut lines = BTreeMap::new();
        for name in self.parts.routes.models().filter(|name| who.may_use_model(name)) {
            lines.insert(name.to_owned(), self.line(name, &here));
        }
        lines.into_values().collect()
    }

    /// The model of that name, if `who` may ask for it; also one that only a pattern of a route stands for.
    pub fn model(&self, who: &Principal, name: &str) -> Option<ModelLine> {
        let routes = &self.parts.routes;
        let is_known =
            || routes.find(&route::Ask::new(name, "chat", 0)).is_ok() || routes.models().any(|one| one == name);
        let here = || self.parts.local.as_ref().map(|local| local.models()).unwrap_or_default();
        (who.may_use_model(name) && is_known()).then(|| self.line(name, &here()))
    }

    fn line(&self, name: &str, here: &[LocalModel]) -> ModelLine {
        let ask = route::Ask::new(name, "chat", 0);
        // A route that is for some requests only is a model all the same.
        let first = self.parts.routes.find(&ask).ok().and_then(|found| {
            let candidate = found.route().candidates().first()?;
            Some((candidate.target().provider.to_string(), found.model_of(candidate).into_owned()))
        });
        let (owner, model) = first.unwrap_or_else(|| (String::new(), name.to_owned()));
        let local = here.iter().find(|one| owner == LOCAL && one.name == model).cloned();
        ModelLine { name: name.to_owned(), owner, local }
    }

    /// How often to [`probe`](Self::probe); none: never.
    pub fn probes_every(&self) -> Option<Duration> {
        let Settings { probes, probe_every_ms, .. } = self.parts.routing;
        (probes != Probing::Never).then(|| Duration::from_millis(probe_every_ms))
    }

    /// Asks the providers of targets how they are, once, and believes it: of those that fail, or of all, as `[routing]` has
    /// it, and only where the link lets a probe pass.
    pub async fn probe(&self) {
        let (link, now) = (self.link(), self.now());
        let of_all = self.parts.routing.probes == Probing::All;
        let mut asked: BTreeMap<&Name, &Arc<dyn Provider>> = BTreeMap::new();
        for route in self.parts.routes.routes() {
            for candidate in route.candidates().iter().filter(|candidate| candidate.may_be_probed(link)) {
                let stop = &self.stops[candidate.place()];
                if let Some(provider) = &stop.provider
                    && (of_all || stop.vitals().is_failing(now))
                {
                    asked.insert(&stop.name, provider);
                }
            }
        }
        let probes = asked.into_iter().map(async |(name, provider)| (name, is_there(&provider.probe().await)));
        for (name, well) in join_all(probes).await {
            for stop in self.stops.iter().filter(|stop| stop.name == *name) {
                if stop.vitals().probed(well) {
                    tracing::info!(provider.name = %name, well, "probes say otherwise than before");
                }
            }
        }
    }

    /// Closes connections that nobody uses any more. To be called now and then.
    pub fn tidy(&self) {
        self.parts.providers.iter().for_each(|provider| provider.tidy());
    }

    /// Every target with its breaker, for people.
    pub fn targets(&self) -> Vec<(String, BreakerState)> {
        let now = self.now();
        let targets = self.parts.routes.targets().iter().zip(&self.stops);
        targets.map(|(target, stop)| (target.to_string(), stop.vitals().breaker(now))).collect()
    }

    pub(super) fn now(&self) -> Duration {
        self.parts.clock.since_boot()
    }

    pub(super) fn chance(&self) -> MutexGuard<'_, StdRng> {
        self.chance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn beside(&self, route: &Name) -> &Beside {
        self.beside.get(route).expect("made of the same routes")
    }
}

/// Whether a probe says that somebody is there who knows us. A server without a list of models answers all the same.
fn is_there<T>(probed: &Result<T, provider::Failure>) -> bool {
    match probed {
        Ok(_) => true,
        Err(failure) => matches!(failure.class, Class::NotFound | Class::BadRequest | Class::RateLimited),
    }
}

fn unknown(routes: &Routes, provider: &Name) -> Error {
    let names = |route: &&route::Route| route.candidates().iter().any(|one| one.target().provider == *provider);
    let route = routes.routes().iter().find(names).expect("a target is a route's");
    Error::Provider { route: route.name().clone(), provider: provider.clone() }
}
