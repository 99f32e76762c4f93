//! What can be wrong with the configuration of routes.

use super::config::{CandidateConfig, RouteConfig, Settings, When};
use super::language::LANGUAGES;
use super::pattern::{Pattern, check_name};
use crate::base::Name;

/// Routes of one gateway.
pub(super) const ROUTES_MAX: usize = 1000;
/// Candidates of one route.
pub(super) const CANDIDATES_MAX: usize = 64;
/// Names in any list.
const LIST_MAX: usize = 256;
/// A day; whoever waits longer for anything here has meant something else.
const TIME_MAX_MS: u64 = 24 * 3_600_000;
const WEIGHT_MAX: u32 = 1_000_000;
const COUNT_MAX: u32 = 1_000_000;
const ATTEMPTS_MAX: u32 = 64;

/// A configuration that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// In `[routing]`.
    #[error("routing.{key}: {what}")]
    Settings {
        /// The key.
        key: &'static str,
        /// What is wrong, and what would be right.
        what: String,
    },
    /// In one `[[route]]`.
    #[error("route {route}, {key}: {what}")]
    Route {
        /// Its name.
        route: Name,
        /// The key, with the number of the candidate (from 1) before it where it is one's.
        key: String,
        /// What is wrong, and what would be right.
        what: String,
    },
    /// More than 1,000 of them.
    #[error("there are {0} routes, the most is {ROUTES_MAX}")]
    TooMany(usize),
}

fn within(ms: u64, least: u64) -> Result<(), String> {
    if (least..=TIME_MAX_MS).contains(&ms) { Ok(()) } else { Err(format!("{ms} ms; it is {least} to {TIME_MAX_MS}")) }
}

impl Settings {
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), Error> {
        let wrong = |key| move |what| Error::Settings { key, what };
        for (key, ms, least) in [
            ("link_back_ms", self.link_back_ms, 0),
            ("retry_after_ms", self.retry_after_ms, 0),
            ("retry_after_max_ms", self.retry_after_max_ms, 1),
            ("latency_memory_ms", self.latency_memory_ms, 1),
            ("probe_every_ms", self.probe_every_ms, 1000),
            ("breaker.window_s", self.breaker.window_s.saturating_mul(1000), 1),
            ("breaker.open_ms", self.breaker.open_ms, 1),
            ("breaker.open_most_ms", self.breaker.open_most_ms, self.breaker.open_ms),
        ] {
            within(ms, least).map_err(wrong(key))?;
        }
        for (key, count, least) in [
            ("unhealthy_after", self.unhealthy_after, 0),
            ("healthy_after", self.healthy_after, 1),
            ("breaker.failures", self.breaker.failures, 0),
            ("breaker.requests_min", self.breaker.requests_min, 0),
            ("breaker.probes", self.breaker.probes, 1),
        ] {
            if !(least..=COUNT_MAX).contains(&count) {
                return Err(wrong(key)(format!("{count}; it is {least} to {COUNT_MAX}")));
            }
        }
        if self.breaker.failure_percent > 100 {
            return Err(wrong("breaker.failure_percent")(format!("{}; it is 0 to 100", self.breaker.failure_percent)));
        }
        Ok(())
    }
}

/// Key and sentence.
type Wrong = (String, String);

impl RouteConfig {
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), Error> {
        self.wrong().map_err(|(key, what)| Error::Route { route: self.name.clone(), key, what })
    }

    fn wrong(&self) -> Result<(), Wrong> {
        if self.models.is_empty() || self.models.len() > LIST_MAX {
            return at("models", format!("{} names; it has 1 to {LIST_MAX}", self.models.len()));
        }
        let mut stars = Vec::new();
        for model in &self.models {
            stars.push(Pattern::new(model).map_err(|what| ("models".to_owned(), what))?.stars());
        }
        self.when.wrong().map_err(|(key, what)| (format!("when.{key}"), what))?;
        check_name(&self.sticky_key).map_err(|what| ("sticky_key".to_owned(), what))?;
        if let Some(ms) = self.timeout_ms {
            within(ms, 1).map_err(|what| ("timeout_ms".to_owned(), what))?;
        }
        self.wrong_retries()?;
        if self.candidate.is_empty() || self.candidate.len() > CANDIDATES_MAX {
            return at("candidate", format!("{} of them; a route has 1 to {CANDIDATES_MAX}", self.candidate.len()));
        }
        for (place, candidate) in self.candidate.iter().enumerate() {
            let here = |(key, what): Wrong| (format!("candidate {}: {key}", place + 1), what);
            candidate.wrong().map_err(here)?;
            let starred = candidate.model.as_deref().is_some_and(|model| model.contains('*'));
            if starred && stars.iter().any(|stars| *stars != 1) {
                let what = "its `*` stands for that of the route's pattern, so each of `models` must have exactly one";
                return Err(here(("model".to_owned(), what.to_owned())));
            }
            let same = |other: &CandidateConfig| {
                (&other.provider, &other.model, &other.when) == (&candidate.provider, &candidate.model, &candidate.when)
            };
            if self.candidate[..place].iter().any(same) {
                let what = "it stands there twice, and nobody is asked twice; give one a weight, or `when`";
                return Err(here(("provider".to_owned(), what.to_owned())));
            }
        }
        Ok(())
    }

    fn wrong_retries(&self) -> Result<(), Wrong> {
        let retries = &self.retries;
        if !(1..=ATTEMPTS_MAX).contains(&retries.attempts_max) {
            return at("retries.attempts_max", format!("{}; it is 1 to {ATTEMPTS_MAX}", retries.attempts_max));
        }
        within(retries.wait_ms, 0).map_err(|what| ("retries.wait_ms".to_owned(), what))?;
        if retries.budget_percent > 1000 {
            return at("retries.budget_percent", format!("{}; it is 0 to 1000", retries.budget_percent));
        }
        if retries.budget_per_s > COUNT_MAX {
            return at("retries.budget_per_s", format!("{}; it is 0 to {COUNT_MAX}", retries.budget_per_s));
        }
        let Some(hedge) = &self.hedge else { return Ok(()) };
        within(hedge.after_ms_max, hedge.after_ms_min).map_err(|what| ("hedge.after_ms_max".to_owned(), what))?;
        if !(1..=100).contains(&hedge.percentile) {
            return at("hedge.percentile", format!("{}; it is 1 to 100", hedge.percentile));
        }
        Ok(())
    }
}

impl CandidateConfig {
    fn wrong(&self) -> Result<(), Wrong> {
        if let Some(model) = &self.model {
            let stars = Pattern::new(model).map_err(|what| ("model".to_owned(), what))?.stars();
            if stars > 1 {
                return at("model", format!("{model:?} has {stars} stars, the most is 1"));
            }
        }
        if self.weight > WEIGHT_MAX {
            return at("weight", format!("{}; it is 0 to {WEIGHT_MAX}", self.weight));
        }
        if self.links.as_ref().is_some_and(Vec::is_empty) {
            return at("links", "it is empty, so nobody would ever ask; leave it out for the usual ones".to_owned());
        }
        if self.context_tokens == Some(0) {
            return at("context_tokens", "0; leave it out where it is not known".to_owned());
        }
        if self.requests_max == Some(0) {
            return at("requests_max", "0, so nobody would ever ask; leave it out for no bound".to_owned());
        }
        if let Some(ms) = self.first_byte_timeout_ms {
            within(ms, 1).map_err(|what| ("first_byte_timeout_ms".to_owned(), what))?;
        }
        self.when.wrong().map_err(|(key, what)| (format!("when.{key}"), what))
    }
}

impl When {
    fn wrong(&self) -> Result<(), Wrong> {
        let lists = [
            ("operations", &self.operations),
            ("tenants", &self.tenants),
            ("tags", &self.tags),
            ("tags_none", &self.tags_none),
            ("tasks", &self.tasks),
            ("languages", &self.languages),
            ("words", &self.words),
        ];
        for (key, list) in lists {
            if list.len() > LIST_MAX || list.iter().any(|text| text.is_empty() || text.len() > 256) {
                return at(key, format!("it has at most {LIST_MAX} entries of 1 to 256 bytes"));
            }
        }
        for tenant in &self.tenants {
            Pattern::new(tenant).map_err(|what| ("tenants".to_owned(), what))?;
        }
        if let Some(unknown) = self.languages.iter().find(|language| !LANGUAGES.contains(&language.as_str())) {
            return at("languages", format!("{unknown:?} is none that is told apart: {}", LANGUAGES.join(", ")));
        }
        if let (Some(least), Some(most)) = (self.prompt_tokens_min, self.prompt_tokens_max)
            && least > most
        {
            return at("prompt_tokens_min", format!("{least} is over prompt_tokens_max = {most}"));
        }
        if let Some(both) = self.needs.iter().find(|need| self.needs_none.contains(need)) {
            return at("needs", format!("{} is also in needs_none", both.as_str()));
        }
        Ok(())
    }
}

fn at(key: &str, what: String) -> Result<(), Wrong> {
    Err((key.to_owned(), what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Routes;

    fn wrong(text: &str) -> String {
        toml::from_str::<RouteConfig>(text).unwrap().check().unwrap_err().to_string()
    }

    #[test]
    fn what_is_wrong_says_where_and_what_would_be_right() {
        let route = "name = \"r\"\nmodels = [\"m\"]\n";
        let one = "[[candidate]]\nprovider = \"p\"\n";
        for (text, says) in [
            ("name = \"r\"\nmodels = []".to_owned(), "models: 0 names; it has 1 to 256"),
            ("name = \"r\"\nmodels = [\"a b\"]".to_owned(), "only visible ASCII"),
            (route.to_owned(), "candidate: 0 of them; a route has 1 to 64"),
            (
                format!("{route}{one}model = \"x*\""),
                "candidate 1: model: its `*` stands for that of the route's pattern",
            ),
            (format!("{route}{one}{one}"), "candidate 2: provider: it stands there twice"),
            (format!("{route}{one}links = []"), "candidate 1: links: it is empty"),
            (format!("{route}{one}requests_max = 0"), "requests_max: 0, so nobody"),
            (
                format!("{route}{one}when.languages = [\"xx\"]"),
                "when.languages: \"xx\" is none that is told apart: en, de,",
            ),
            (format!("{route}when.prompt_tokens_min = 9\nwhen.prompt_tokens_max = 8\n{one}"), "9 is over"),
            (
                format!("{route}hedge.after_ms_min = 9\nhedge.after_ms_max = 8\n{one}"),
                "hedge.after_ms_max: 8 ms; it is 9 to",
            ),
            (format!("{route}retries.attempts_max = 0\n{one}"), "it is 1 to 64"),
        ] {
            let said = wrong(&text);
            assert!(said.starts_with("route r, ") && said.contains(says), "{said}");
        }
    }

    #[test]
    fn a_key_that_nobody_knows_is_refused() {
        for text in [
            "name = \"r\"\nmodels = [\"m\"]\nstratgy = \"cost\"",
            "name = \"r\"\nmodels = [\"m\"]\nstrategy = \"best\"",
        ] {
            assert!(toml::from_str::<RouteConfig>(text).is_err());
        }
        assert!(toml::from_str::<Settings>("link_back = 3").is_err());
    }

    #[test]
    fn settings_have_bounds_and_the_defaults_are_within() {
        assert_eq!(Settings::default().check(), Ok(()));
        let check = |text: &str| toml::from_str::<Settings>(text).unwrap().check().unwrap_err().to_string();
        assert_eq!(check("link_back_ms = 86400001"), "routing.link_back_ms: 86400001 ms; it is 0 to 86400000");
        assert_eq!(check("healthy_after = 0"), "routing.healthy_after: 0; it is 1 to 1000000");
        assert!(check("breaker.open_ms = 200000").contains("open_most_ms: 120000 ms; it is 200000 to"));
    }

    /// Every example of docs/routes.md that has routes.
    #[test]
    fn the_examples_of_the_manual_are_valid() {
        #[derive(serde::Deserialize)]
        struct File {
            route: Vec<RouteConfig>,
        }
        let manual = include_str!("../../docs/routes.md");
        let examples: Vec<_> = manual.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        assert!(examples.len() >= 5, "{}", examples.len());
        for example in examples {
            let file: File = toml::from_str(example).unwrap_or_else(|error| panic!("{error}\n{example}"));
            Routes::new(&file.route).unwrap_or_else(|error| panic!("{error}\n{example}"));
        }
    }
}
