//! All routes, made ready to be looked up.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use smallvec::SmallVec;

use super::ask::{Ask, Link, Needs, Reach};
use super::check::{Error, ROUTES_MAX};
use super::conditions::{Conditions, Glance, Unmet};
use super::config::{CandidateConfig, Hedge, Retries, RouteConfig, Sticky, Strategy};
use super::pattern::Pattern;
use super::plan::Plan;
use super::split::Lot;
use super::vitals::Standing;
use crate::base::{Map, Name};

/// The provider's name that stands for this box.
pub const LOCAL: &str = "local";

/// A model at a provider, shared by all routes that name it: what breakers, probes and times belong to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The provider, or [`LOCAL`].
    pub provider: Name,
    /// Its name there as the configuration has it, `*` included; none: as callers name it.
    pub model: Option<Box<str>>,
}

impl Target {
    /// A model on this box.
    pub fn is_local(&self) -> bool {
        self.provider.as_str() == LOCAL
    }

    /// Whether callers say which model of the provider is meant.
    pub fn is_open(&self) -> bool {
        self.model.as_ref().is_none_or(|model| model.contains('*'))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.provider.as_str())?;
        f.write_str("/")?;
        f.write_str(self.model.as_deref().unwrap_or("*"))
    }
}

/// A candidate of a route.
#[derive(Debug, Clone)]
pub struct RouteCandidate {
    pub(super) target: Target,
    pub(super) place: usize,
    pub(super) tier: u32,
    pub(super) weight: u32,
    pub(super) reach: Reach,
    pub(super) links: [bool; 3],
    pub(super) context_tokens: Option<u64>,
    pub(super) lacks: Needs,
    pub(super) requests_max: Option<u32>,
    pub(super) conditions: Conditions,
    pub(super) first_byte_timeout: Option<Duration>,
    pub(super) lot: Lot,
}

impl RouteCandidate {
    fn new(config: &CandidateConfig, route: &Name) -> Result<Self, String> {
        let target = Target { provider: config.provider.clone(), model: config.model.as_deref().map(Into::into) };
        let reach = config.reach.unwrap_or(if target.is_local() { Reach::Box } else { Reach::Cloud });
        let links = [Link::Up, Link::Metered, Link::Down].map(|link| match &config.links {
            Some(links) => links.contains(&link),
            None => reach < Reach::Cloud || link < Link::Down,
        });
        Ok(Self {
            lot: Lot::new(route.as_str(), &target.to_string()),
            target,
            place: 0,
            tier: config.tier,
            weight: config.weight,
            reach,
            links,
            context_tokens: config.context_tokens,
            lacks: config.lacks.iter().copied().collect(),
            requests_max: config.requests_max,
            conditions: Conditions::new(&config.when)?,
            first_byte_timeout: config.first_byte_timeout_ms.map(Duration::from_millis),
        })
    }

    /// What it is a candidate for being asked.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The target's place in [`Routes::targets`].
    pub fn place(&self) -> usize {
        self.place
    }

    /// Where it is.
    pub fn reach(&self) -> Reach {
        self.reach
    }

    /// Whether it may be probed over `link`: a probe is nobody's request, so one in the cloud is not worth bytes that cost
    /// money.
    pub fn may_be_probed(&self, link: Link) -> bool {
        self.links[link as usize] && (self.reach < Reach::Cloud || link != Link::Metered)
    }

    /// Tokens that fit into it.
    pub fn context_tokens(&self) -> Option<u64> {
        self.context_tokens
    }

    /// Longest time to the first byte of its answer; none: the provider's.
    pub fn first_byte_timeout(&self) -> Option<Duration> {
        self.first_byte_timeout
    }
}

/// A route.
#[derive(Debug)]
pub struct Route {
    pub(super) name: Name,
    pub(super) strategy: Strategy,
    pub(super) reach: Reach,
    sticky: Sticky,
    sticky_key: Box<str>,
    retries: Retries,
    hedge: Option<Hedge>,
    timeout: Option<Duration>,
    conditions: Conditions,
    pub(super) candidates: Vec<RouteCandidate>,
}

impl Route {
    fn new(config: &RouteConfig) -> Result<Self, Error> {
        config.check()?;
        let wrong = |what| Error::Route { route: config.name.clone(), key: "when".to_owned(), what };
        let candidate = |candidate: &CandidateConfig| RouteCandidate::new(candidate, &config.name).map_err(wrong);
        Ok(Self {
            name: config.name.clone(),
            strategy: config.strategy,
            reach: config.reach,
            sticky: config.sticky,
            sticky_key: config.sticky_key.as_str().into(),
            retries: config.retries.clone(),
            hedge: config.hedge,
            timeout: config.timeout_ms.map(Duration::from_millis),
            conditions: Conditions::new(&config.when).map_err(wrong)?,
            candidates: config.candidate.iter().map(candidate).collect::<Result<_, _>>()?,
        })
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// In which order its candidates are asked.
    pub fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// Who may be asked, as in the file.
    pub fn candidates(&self) -> &[RouteCandidate] {
        &self.candidates
    }

    /// What a request is held to a candidate by.
    pub fn sticky(&self) -> Sticky {
        self.sticky
    }

    /// The header with that key.
    pub fn sticky_key(&self) -> &str {
        &self.sticky_key
    }

    /// What happens when one does not answer.
    pub fn retries(&self) -> &Retries {
        &self.retries
    }

    /// Whether and when a second one is asked.
    pub fn hedge(&self) -> Option<&Hedge> {
        self.hedge.as_ref()
    }

    /// Longest time for the whole answer.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout
    }
}

/// Nobody answers for this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoute<'r> {
    /// No route has a model of this name.
    Unknown,
    /// Some do, but none is for this request; the last of them, and why.
    NotFor(&'r Name, Unmet),
}

impl fmt::Display for NoRoute<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("no route has a model of this name"),
            Self::NotFor(route, unmet) => write!(f, "route {} has it, but {unmet}", route.as_str()),
        }
    }
}

/// All routes of the gateway. Never changes: another configuration is another one.
#[derive(Debug, Default)]
pub struct Routes {
    routes: Vec<Route>,
    targets: Vec<Target>,
    exact: Map<Box<str>, SmallVec<[u16; 4]>>,
    /// Those that say more first.
    patterns: Vec<(Pattern, u16)>,
}

impl Routes {
    /// Checks the configuration and makes it ready.
    pub fn new(configs: &[RouteConfig]) -> Result<Self, Error> {
        if configs.len() > ROUTES_MAX {
            return Err(Error::TooMany(configs.len()));
        }
        let mut all = Self::default();
        let mut places = Map::default();
        for config in configs {
            let mut route = Route::new(config)?;
            if all.routes.iter().any(|other| other.name == route.name) {
                let what = "another route has the same".to_owned();
                return Err(Error::Route { route: route.name, key: "name".to_owned(), what });
            }
            for candidate in &mut route.candidates {
                candidate.place = *places.entry(candidate.target.clone()).or_insert_with(|| {
                    all.targets.push(candidate.target.clone());
                    all.targets.len() - 1
                });
            }
            let at = u16::try_from(all.routes.len()).expect("at most ROUTES_MAX");
            for model in &config.models {
                let wrong = |what| Error::Route { route: config.name.clone(), key: "models".to_owned(), what };
                let pattern = Pattern::new(model).map_err(wrong)?;
                if pattern.is_exact() {
                    all.exact.entry(pattern.as_str().into()).or_default().push(at);
                } else {
                    all.patterns.push((pattern, at));
                }
            }
            all.routes.push(route);
        }
        // Stable: as in the file where they say as much.
        all.patterns.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.literal()));
        Ok(all)
    }

    /// In the order of the file.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Every target once; a candidate's [`place`](RouteCandidate::place) is its place here.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Names of models without a star, for lists of models.
    pub fn models(&self) -> impl Iterator<Item = &str> {
        self.exact.keys().map(AsRef::as_ref)
    }

    /// The first route that is for this request.
    pub fn find<'a>(&'a self, ask: &Ask<'a>) -> Result<Found<'a>, NoRoute<'a>> {
        let glance = Glance::new(ask);
        let exact = self.exact.get(ask.model).into_iter().flatten().map(|at| (*at, None));
        let patterns = self.patterns.iter().filter(|(pattern, _)| pattern.matches(ask.model));
        let patterns = patterns.map(|(pattern, at)| (*at, pattern.starred(ask.model)));
        let mut none = NoRoute::Unknown;
        for (at, starred) in exact.chain(patterns) {
            let route = &self.routes[usize::from(at)];
            match route.conditions.unmet(&glance) {
                None => return Ok(Found { route, model: ask.model, starred }),
                Some(unmet) => none = NoRoute::NotFor(&route.name, unmet),
            }
        }
        Err(none)
    }

    /// [`find`](Self::find) and [`Found::plan`] in one, where nothing has to be known of the route in between.
    pub fn decide<'a>(
        &'a self,
        ask: &Ask<'a>,
        standing: impl FnMut(&Found<'a>, &'a RouteCandidate) -> Standing,
    ) -> Result<Plan<'a>, NoRoute<'a>> {
        Ok(self.find(ask)?.plan(ask, standing))
    }

    /// The route of this name, whatever its models and conditions: for a caller who named the route.
    pub fn named<'a>(&'a self, route: &str, ask: &Ask<'a>) -> Option<Found<'a>> {
        let route = self.routes.iter().find(|one| one.name.as_str() == route)?;
        Some(Found { route, model: ask.model, starred: None })
    }
}

/// A route for a request. Between this and the plan its caller may look at what the route wants: the key that
/// [`Route::sticky`] names, prices if its strategy is `cost`, whether the caller's key may use it.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    route: &'a Route,
    model: &'a str,
    starred: Option<&'a str>,
}

impl<'a> Found<'a> {
    /// The route.
    pub fn route(&self) -> &'a Route {
        self.route
    }

    /// The model to ask this candidate for, as its provider names it.
    pub fn model_of(&self, candidate: &'a RouteCandidate) -> Cow<'a, str> {
        match (candidate.target.model.as_deref(), self.starred) {
            (None, _) => Cow::Borrowed(self.model),
            (Some("*"), Some(starred)) => Cow::Borrowed(starred),
            (Some(model), Some(starred)) => match model.split_once('*') {
                Some((before, after)) => Cow::Owned([before, starred, after].concat()),
                None => Cow::Borrowed(model),
            },
            (Some(model), None) => Cow::Borrowed(model),
        }
    }

    /// In which order its candidates are asked. `standing` says how a candidate is doing; it is asked only about those
    /// that could answer.
    pub fn plan(self, ask: &Ask<'_>, mut standing: impl FnMut(&Self, &'a RouteCandidate) -> Standing) -> Plan<'a> {
        Plan::new(self, ask, |candidate| standing(&self, candidate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(text: &str) -> Result<Routes, Error> {
        #[derive(serde::Deserialize)]
        struct File {
            route: Vec<RouteConfig>,
        }
        Routes::new(&toml::from_str::<File>(text).unwrap().route)
    }

    fn named(models: &[(&str, &str)]) -> Routes {
        let text: String = models
            .iter()
            .map(|(name, models)| {
                format!("[[route]]\nname = '{name}'\nmodels = {models}\n[[route.candidate]]\nprovider = 'p'\n")
            })
            .collect();
        routes(&text).unwrap()
    }

    fn found(routes: &Routes, model: &str) -> Option<String> {
        let plan = routes.decide(&Ask::new(model, "chat", 1), |_, _| Standing::default()).ok()?;
        Some(plan.route().name().as_str().to_owned())
    }

    #[test]
    fn a_probe_costs_nothing_over_a_metered_link_and_is_not_sent_where_the_link_leaves_its_target_out() {
        let text = "[[route]]\nname = 'r'\nmodels = ['m']\ncandidate = [{ provider = 'cloud' }, { provider = 'plant', reach = 'site' }, \
                    { provider = 'night', links = ['down'] }]";
        let routes = routes(text).unwrap();
        let over = |link| routes.routes()[0].candidates().iter().map(|one| one.may_be_probed(link)).collect::<Vec<_>>();
        assert_eq!(over(Link::Up), [true, true, false]);
        assert_eq!(over(Link::Metered), [false, true, false]);
        assert_eq!(over(Link::Down), [false, true, true]);
    }

    #[test]
    fn a_name_goes_before_patterns_and_the_pattern_that_says_more_before_the_others() {
        let routes = named(&[
            ("all", "['*']"),
            ("gpt", "['gpt-*']"),
            ("mini", "['gpt-*-mini', 'o4-*-mini']"),
            ("also", "['gpt-*']"),
            ("one", "['gpt-4o-mini', 'x']"),
        ]);
        for (model, route) in
            [("gpt-4o-mini", "one"), ("gpt-5-mini", "mini"), ("gpt-5", "gpt"), ("claude", "all"), ("x", "one")]
        {
            assert_eq!(found(&routes, model).as_deref(), Some(route), "{model}");
        }
        let mut models: Vec<_> = routes.models().collect();
        models.sort_unstable();
        assert_eq!(models, ["gpt-4o-mini", "x"]);
    }

    #[test]
    fn a_route_that_is_not_for_a_request_gives_it_to_the_next_one() {
        let routes = routes(
            "[[route]]\nname = 'german'\nmodels = ['m']\nwhen.languages = ['de']\n[[route.candidate]]\nprovider = 'a'\n\
             [[route]]\nname = 'short'\nmodels = ['m']\nwhen.prompt_tokens_max = 10\n[[route.candidate]]\nprovider = 'b'\n",
        )
        .unwrap();
        let ask = Ask { text: "Was ist das, und wie ist es?", prompt_tokens: Some(90), ..Ask::new("m", "chat", 1) };
        let decide = |ask: &Ask<'static>| {
            let plan = routes.decide(ask, |_, _| Standing::default());
            plan.map(|plan| plan.route().name().as_str().to_owned()).map_err(|none| none.to_string())
        };
        assert_eq!(decide(&ask).unwrap(), "german");
        assert_eq!(decide(&Ask { text: "", prompt_tokens: Some(9), ..ask }).unwrap(), "short");
        assert_eq!(
            decide(&Ask { text: "", ..ask }).unwrap_err(),
            "route short has it, but it is not for 90 tokens of prompt"
        );
        assert_eq!(decide(&Ask { model: "other", ..ask }).unwrap_err(), "no route has a model of this name");
    }

    #[test]
    fn targets_are_shared_by_the_routes_that_name_them() {
        let candidate = "[[route.candidate]]\nprovider = 'p'\nmodel = 'big'\n[[route.candidate]]\nprovider = 'local'\n";
        let routes = routes(&format!(
            "[[route]]\nname = 'a'\nmodels = ['a']\n{candidate}[[route]]\nname = 'b'\nmodels = ['b']\n{candidate}"
        ))
        .unwrap();
        assert_eq!(routes.targets().iter().map(ToString::to_string).collect::<Vec<_>>(), ["p/big", "local/*"]);
        let places = |at: usize| routes.routes()[at].candidates().iter().map(RouteCandidate::place).collect::<Vec<_>>();
        assert_eq!((places(0), places(1)), (vec![0, 1], vec![0, 1]));
        assert_eq!(routes.routes()[0].candidates()[1].reach(), Reach::Box);
    }

    #[test]
    fn two_routes_of_one_name_are_refused_and_so_are_too_many() {
        let route = "[[route]]\nname = 'a'\nmodels = ['a']\n[[route.candidate]]\nprovider = 'p'\n";
        assert_eq!(routes(&route.repeat(2)).unwrap_err().to_string(), "route a, name: another route has the same");
        assert_eq!(routes(&route.repeat(1001)).unwrap_err(), Error::TooMany(1001));
    }

    #[test]
    fn hostile_names_of_models_find_nothing_and_harm_nothing() {
        let routes = named(&[("a", "['a*b*c*d*', 'exact']")]);
        for model in ["", "\0", "ä", &"a".repeat(1 << 20), "a\nb"] {
            assert_eq!(found(&routes, model), None);
        }
    }
}
